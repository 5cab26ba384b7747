"""bigft beside Trainer: both are given the same rows, and the table compares like with like."""

from __future__ import annotations

import json
from pathlib import Path

import bench_train_ner
import bench_train_text
import beside_trainer
import numpy as np
import pytest
from distributed.conftest import tiny_bert

from bigft.config.sections import RunConfig
from bigft.training.inputs import prepare

__all__ = ["tiny_bert"]

NER = {
    "train": "word1\tB-person\nword2\tI-person\nword3\tO\n\nword4\tO\nword5\tB-location\n\n",
    "validation": "word6\tO\n\n",
    "test": "word1\tB-person\nword7\tI-person\n\nword8\tB-location\n\n",
}
TEXT = {
    "train": 'text,category\nword1 word2,lost_card\n"word3, word4 word5",pin\nword6,lost_card\n',
    "test": "text,category\nword7,pin\nword8 word9,lost_card\n",
}


@pytest.fixture
def body(tiny_bert: Path, tmp_path: Path) -> Path:
    """A BERT without a head, as pretrained ones come."""
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(tiny_bert).save_pretrained(tmp_path / "body")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "body")
    return tmp_path / "body"


@pytest.mark.parametrize(
    ("subject", "content"),
    [(bench_train_ner.SUBJECT, NER), (bench_train_text.SUBJECT, TEXT)],
    ids=["ner", "text"],
)
def test_both_sides_are_given_the_same_rows(
    subject: beside_trainer.Subject,
    content: dict[str, str],
    body: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    for split, text in content.items():
        (tmp_path / subject.files[split]).write_text(text)
    args = beside_trainer.parse(subject, ["--data", str(tmp_path), "--model", str(body)])
    config = beside_trainer.config_of(subject, args, "fp32", 42, tmp_path / "run")
    prepared = prepare(RunConfig.model_validate(config))
    peer = subject.peer(body, beside_trainer.files(subject, args))
    own_names = dict(enumerate(prepared.task.labels))
    their_names = peer.model.config.id2label
    for split, rows in peer.rows.items():
        for number, theirs in enumerate(rows):
            ours = prepared.splits[split].row(number)
            assert ours.columns["input_ids"] == theirs["input_ids"], (split, number)
            labels = [own_names.get(label) for label in ours.columns["labels"]]
            assert labels == [their_names.get(each) for each in np.atleast_1d(theirs["labels"])]
        assert len(prepared.splits[split]) == len(rows)
    gold = [np.maximum(np.atleast_1d(row["labels"]), 0) for row in peer.rows["test"]]
    longest = max(map(len, gold))
    padded = np.stack([np.pad(ids, (0, longest - len(ids))) for ids in gold])
    right = np.eye(len(own_names))[padded if longest > 1 else padded[:, 0]]
    assert peer.score(right) == 1.0
    assert peer.score(-right) < 1.0


def test_rates_of_a_run_are_read_from_its_events(tmp_path: Path) -> None:
    events = [
        {"event": "start", "time": 100.0, "num_samples": 40},
        {"event": "log", "time": 104.0, "epoch": 0.75},
        {"event": "log", "time": 110.0, "epoch": 1.5},
        {"event": "end", "time": 120.0},
    ]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert beside_trainer.of_run(metrics, started=90.0) == {
        "samples_per_second": 6.0,
        "train_seconds": 10.0,
        "seconds_to_first_step": 14.0,
        "steps": 2,
    }


def test_the_table_compares_runs_of_one_seed(capsys: pytest.CaptureFixture[str]) -> None:
    def row(provider: str, seed: int, speed: float, score: float) -> dict[str, object]:
        others = dict.fromkeys(beside_trainer.MEASURED, 1.0)
        key = {"provider": provider, "precision": "fp32", "seed": seed}
        return {**others, **key, "samples_per_second": speed, "score": score}

    rows = [row("trainer", seed, 10.0 * seed, 0.5) for seed in (1, 2, 3)]
    rows += [row("bigft", seed, 20.0 * seed, 0.25 * seed) for seed in (1, 2, 3)]
    head, trainer, ours = beside_trainer.table(rows, "test_accuracy").splitlines()
    assert head.endswith("test_accuracy")
    assert trainer.split()[:6] == ["fp32", "trainer", "20.0", "1", "1.00", "-"]
    assert ours.split()[:6] == ["fp32", "bigft", "40.0", "1", "2.00", "-"]
    assert ours.split()[-3:] == ["0.5000", "±", "0.2500"]


def test_a_missing_file_is_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        beside_trainer.parse(bench_train_text.SUBJECT, ["--data", str(tmp_path), "--model", "/"])
    told = capsys.readouterr().err
    assert f"not there: {tmp_path}/train.csv, {tmp_path}/test.csv" in told
    with pytest.raises(SystemExit):
        beside_trainer.parse(bench_train_text.SUBJECT, [])
    assert "give --data DIR, or --train, --test" in capsys.readouterr().err
