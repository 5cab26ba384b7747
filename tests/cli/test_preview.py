"""What `bigft check` shows of rows: lengths, lost targets, samples with their targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks.causal import causal_model
from tasks.chat import CHATML, chat_tokenizer

from bigft.cli import main
from bigft.cli.preview import BARS, examples, histogram, samples


class Previews:
    """A task whose rows are their own preview."""

    def preview(self, feature: Any) -> Any:
        return feature


@pytest.mark.parametrize("lengths", [[5], [1, 1, 2], list(range(1, 1000)), [1, 100_000]])
def test_the_ranges_hold_every_row_once(lengths: list[int]) -> None:
    lines = list(histogram(np.array(lengths)))
    assert len(lines) <= BARS
    assert sum(int(line.split()[-1].replace(",", "")) for line in lines) == len(lengths)
    first, last = lines[0].split()[0], lines[-1].split()[0]
    assert int(first.split("-")[0]) == min(lengths)
    assert int(last.split("-")[1].replace(",", "")) >= max(lengths)


def test_a_range_that_has_rows_has_a_bar() -> None:
    full, *_, rare = histogram(np.array([1] * 10_000 + [60]))
    assert full.count("#") == 30
    assert rare.count("#") == 1


def test_targets_stand_between_marks_or_in_colour() -> None:
    row = [("Hi ", False), ("you", True)]
    (marked,), (coloured,) = (list(samples(Previews(), [row], c)) for c in (False, True))  # type: ignore[arg-type, list-item]
    assert marked.plain == "  Hi \u27e6you\u27e7"
    assert coloured.plain == "  Hi you"
    assert [(span.start, span.end) for span in coloured.spans] == [(5, 8)]


def test_long_rows_are_clipped_and_nothing_steers_the_terminal() -> None:
    row = [("a" * 1000, False), ("x\x1b[2J\ny\u202e", True)] + [("b", False)] * 20
    (text,) = samples(Previews(), [row], False)  # type: ignore[arg-type, list-item]
    assert len(text.plain) < 400
    assert f"{'a' * 120} ... {'a' * 120}\u27e6x\\x1b[2J\n  y\\u202e\u27e7" in text.plain
    assert text.plain.endswith("b ...")


def test_a_check_of_a_chat_shows_answers_and_what_truncation_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    causal_model().save_pretrained("model")
    chat_tokenizer(CHATML).save_pretrained("model")
    rows = [{"prompt": "hi", "completion": "yo" * n} for n in (1, 30)]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["model.model_name_or_path=model", "data.train_file=train.jsonl", "task=causal-lm"]
    words += ["train.output_dir=out", "data.max_seq_length=60"]
    assert main(["check", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  truncation costs 22 targets (34.4%)" in lines
    shown = lines.index("the first rows of train, targets between \u27e6 and \u27e7:")
    assert lines[shown + 1 : shown + 5] == [
        "  <|im_start|>user",
        "  hi<|im_end|>",
        "  <|im_start|>assistant",
        "  \u27e6yo<|im_end|>\u27e7",
    ]


def test_what_the_task_shows_does_not_steer_the_terminal_either() -> None:
    class Shows(Previews):
        def examples(self, train: Any) -> list[str]:
            return ["  a\x1b[2J/X"]

    assert list(examples(Shows(), None)) == ["  a\\x1b[2J/X"]  # type: ignore[arg-type]
