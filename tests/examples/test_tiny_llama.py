"""The files of examples/tiny_llama are what its script writes, and what its README says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tiny_llama"
SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def make() -> Any:
    spec = spec_from_file_location("make_tiny_llama", EXAMPLE / "make.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(split: str) -> list[list[dict[str, str]]]:
    lines = (EXAMPLE / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def test_the_script_writes_these_files(make: Any, tmp_path: Path) -> None:
    make.write(tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    others = {"make.py", "README.md", "__pycache__"}
    assert written == sorted(p.name for p in EXAMPLE.iterdir() if p.name not in others)
    for name in written:
        if name != "tokenizer.json":  # how its merges are written depends on the library's version
            assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes(), name


def test_nothing_that_is_tested_is_trained() -> None:
    texts = {split: [json.dumps(row) for row in rows(split)] for split in SPLITS}
    assert not set(texts["train"]) & {*texts["dev"], *texts["test"]}
    assert not set(texts["dev"]) & set(texts["test"])
    assert len(set(texts["dev"])) == len(texts["dev"])


def test_the_readme_counts_right() -> None:
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    (counts,) = re.findall(r"\| (\d+), (\d+) and (\d+) conversations", text)
    assert [int(count) for count in counts] == [len(rows(split)) for split in SPLITS]


ANSWERS: list[tuple[str, Callable[..., str]]] = [
    (r"What is (\d+) plus (\d+)\?", lambda a, b: str(int(a) + int(b))),
    (r"What is (\d+) minus (\d+)\?", lambda a, b: str(int(a) - int(b))),
    (r"Is (\d+) even or odd\?", lambda a: ["even", "odd"][int(a) % 2]),
    (r"Sort these numbers: (.+)\.", lambda text: " ".join(sorted(text.split()))),
    (r"Put in alphabetical order: (.+)\.", lambda text: ", ".join(sorted(text.split(", ")))),
    (r"Say these words backwards: (.+)\.", lambda text: " ".join(text.split()[::-1])),
    (r'What is the first letter of "(.+)"\?', lambda word: word[0]),
    (r'What is the last letter of "(.+)"\?', lambda word: word[-1]),
    (r"(?:Which day is|What comes) 1 day before Monday\?", lambda: "Sunday"),
    (r"(?:Which month is|What comes) 2 months after November\?", lambda: "January"),
    (r".*February in a leap year.*", lambda: "29"),
    (r"Which is the smallest: (\d+), (\d+) or (\d+)\?", lambda *n: str(min(map(int, n)))),
    (r"Which is the largest: (\d+), (\d+) or (\d+)\?", lambda *n: str(max(map(int, n)))),
]


def test_the_answers_are_right() -> None:
    checked = dict.fromkeys([pattern for pattern, _ in ANSWERS], 0)
    for split in SPLITS:
        for messages in rows(split):
            for question, answer in zip(messages[::2], messages[1::2], strict=True):
                assert (question["role"], answer["role"]) == ("user", "assistant")
                for pattern, solve in ANSWERS:
                    if match := re.fullmatch(pattern, question["content"]):
                        assert answer["content"] == solve(*match.groups()), question
                        checked[pattern] += 1
    assert min(checked.values()) > 0


def test_the_tokenizer_knows_every_byte_and_fits_the_model() -> None:
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE)
    config = AutoConfig.from_pretrained(EXAMPLE)
    assert len(tokenizer) == config.vocab_size == 2048
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (
        config.pad_token_id,
        config.eos_token_id,
    )
    text = "Ünïcode 漢字 12345\n"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.tokenize("1234") == list("1234")


def test_the_template_ends_every_answer_with_the_eos_token() -> None:
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE)
    messages = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == ("<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\nHo.<|im_end|>\n")
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
