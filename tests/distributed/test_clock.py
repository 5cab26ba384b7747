"""A run whose template writes the date goes on on another day, and is evaluated as on its own."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from distributed.ranks import run_ranks
from distributed.scenarios import train
from tasks.causal import causal_model
from tasks.chat import DATED, chat_tokenizer

from bigft.config.errors import BadInput
from bigft.config.load import resolved_yaml
from bigft.config.sections import RunConfig
from bigft.runtime.clock import clock_of
from bigft.runtime.launcher import Launch
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import checkpoint_to_resume
from bigft.training.inputs import Known, prepare
from bigft.training.preflight import preflight
from bigft.training.run import Run
from bigft.training.trained import Trained

pytestmark = pytest.mark.distributed

BEGAN = date(2024, 7, 26)


def config(place: Path, **train_keys: Any) -> dict[str, Any]:
    return {
        "task": {"name": "causal-lm"},
        "model": {"model_name_or_path": str(place / "model")},
        "data": dict.fromkeys(("train_file", "validation_file"), str(place / "train.jsonl")),
        "train": {
            "output_dir": str(place / "run"),
            "max_steps": 3,
            "global_batch_size": 2,
            "per_device_train_batch_size": 1,
            "logging_steps": 1,
            "save_strategy": "steps",
            "save_steps": 1,
            "eval_strategy": "no",
            **train_keys,
        },
    }


def first_text(run: Run) -> str:
    return "".join(text for text, _ in run.task.preview(run.splits["train"].row(0)))


def test_a_run_goes_on_on_another_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    causal_model().save_pretrained(tmp_path / "model")
    chat_tokenizer(DATED).save_pretrained(tmp_path / "model")
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "train.jsonl").write_text((json.dumps(row) + "\n") * 4)

    directory = RunDirectory(tmp_path / "run")
    directory.claim(resume=False, clock=BEGAN.isoformat())
    directory.write_config(resolved_yaml(RunConfig.model_validate(config(tmp_path))))
    directory.update(status="resumable")
    directory.release()
    ((_, results),) = run_ranks(train, 2, [config(tmp_path)], 1, BEGAN)[0]
    assert results is None

    goes_on = config(tmp_path, resume_from_checkpoint=True)
    checked = RunConfig.model_validate(goes_on)
    run = preflight(checked, Launch.local(2))
    assert run.clock == BEGAN
    assert "Today is 26 Jul 2024." in first_text(run)
    assert run.notes[-1] == (
        "the chat template writes the clock: in all rows of this run it is 2024-07-26, on whatever "
        "day it goes on; `bigft predict` writes the present"
    )
    today = prepare(checked)  # as another run, begun now, prepares it
    assert "26 Jul 2024" not in first_text(today)
    with pytest.raises(BadInput, match="was trained on other data"):
        checkpoint_to_resume(today, directory, 2)

    ((_, results),) = run_ranks(train, 2, [goes_on], None, run.clock)[0]
    of_its_day = Trained.load(directory, clock=clock_of(directory)).evaluate("validation", 2)
    assert of_its_day.scores["loss"] == pytest.approx(results["eval_loss"], rel=1e-5)
    of_today = Trained.load(directory).evaluate("validation", 2)
    assert of_today.scores["loss"] != pytest.approx(results["eval_loss"], rel=1e-3)


def test_the_day_prepares_rows_anew_only_where_the_template_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    causal_model().save_pretrained(tmp_path / "model")
    chat_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    plain = config(tmp_path)
    dated = plain | {"data": plain["data"] | {"chat_template": str(tmp_path / "t.jinja")}}
    (tmp_path / "t.jinja").write_text(DATED)
    for given, num_caches in ((plain, 1), (dated, 3)):
        for day in (BEGAN, BEGAN, date(2024, 7, 27)):
            run = prepare(RunConfig.model_validate(given), Known(clock=day))
            assert (f"Today is {day:%d %b %Y}." in first_text(run)) == (given is dated)
        prepared = [path for path in (tmp_path / "cache" / "prepared").iterdir() if path.is_dir()]
        assert len(prepared) == num_caches
