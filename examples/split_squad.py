"""Splits a file in SQuAD's layout by its articles, so that no text stands in two splits.

    python examples/split_squad.py xquad.en.json data/xquad_en

writes train.json and test.json: the articles in turn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SPLITS = ("train", "test")


def main(source: str, folder: str) -> None:
    document = json.loads(Path(source).read_text(encoding="utf-8"))
    Path(folder).mkdir(parents=True, exist_ok=True)
    for place, split in enumerate(SPLITS):
        articles = document["data"][place :: len(SPLITS)]
        text = json.dumps({**document, "data": articles}, ensure_ascii=False, indent=1)
        Path(folder, f"{split}.json").write_text(text + "\n", encoding="utf-8")
        questions = sum(len(part["qas"]) for each in articles for part in each["paragraphs"])
        print(f"{split}: {len(articles)} articles, {questions} questions")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
