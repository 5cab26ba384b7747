"""Any number of ranks gives the scores of one: every record counts once, fillers never."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from tiny import LABELS, save_tiny, tiny_model
from torch.nn.functional import cross_entropy
from training.scenarios import evaluate_split

from bigft.config.sections import RunConfig
from bigft.data.records import IGNORE_INDEX
from bigft.runtime.process_group import World
from bigft.training.evaluate import evaluate
from bigft.training.inputs import prepare

ALONE = World(0, 0, 1, torch.device("cpu"), None)
TIMES = {"runtime", "samples_per_second"}
NUM_RECORDS = 7  # a rank of three gets none in the last batch of two rows


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Sentences of 1 to 30 words of which some fill several windows and some tags are masked."""
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    source = random.Random(0)
    rows = []
    for length in (1, 30, 3, 2, 17, 5, 1)[:NUM_RECORDS]:
        words = ["".join(source.choices("abcdef", k=source.randint(1, 4))) for _ in range(length)]
        tags = [source.choice(["O", "B-PER", "B-LOC", None]) for _ in words]
        rows.append({"tokens": words, "tags": ["O", *tags[1:]]})
    for name in ("train", "dev"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {
        "task": {"name": "token-classification", "doc_stride": 4},
        "model": {"model_name_or_path": str(save_tiny(tmp_path / "model"))},
        "data": {
            "train_file": str(tmp_path / "train.jsonl"),
            "validation_file": str(tmp_path / "dev.jsonl"),
            "label_list": LABELS,
            "max_seq_length": 24,
        },
        "train": {"output_dir": str(tmp_path / "run")},
    }


def without_times(scores: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if name not in TIMES}


@pytest.mark.distributed
def test_the_scores_of_several_ranks_are_those_of_one(config: dict[str, Any]) -> None:
    one = evaluate_split(ALONE, config, 2)
    expected = without_times(one["scores"])
    assert expected["samples"] == NUM_RECORDS
    assert 0 < expected["accuracy"] < 1
    for world_size in (2, 3):
        answers = run_ranks(evaluate_split, world_size, config, 2)
        records = Counter(index for answer in answers for index in answer["records"])
        assert records == Counter(range(NUM_RECORDS))
        for answer in answers:
            assert without_times(answer["scores"]) == pytest.approx(expected, rel=1e-6)
            assert answer["report"] == one["report"]


@pytest.mark.distributed
def test_a_rank_without_a_record_changes_nothing(config: dict[str, Any]) -> None:
    path = Path(config["data"]["validation_file"])
    path.write_text("\n".join(path.read_text().splitlines()[:2]))
    one = evaluate_split(ALONE, config, 8)
    answers = run_ranks(evaluate_split, 3, config, 8)
    assert sorted(len(answer["records"]) for answer in answers) == [0, 1, 1]
    for answer in answers:
        assert without_times(answer["scores"]) == pytest.approx(
            without_times(one["scores"]), rel=1e-6
        )


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_loss_is_the_mean_over_all_targets_whatever_the_batch(
    batch_size: int, config: dict[str, Any]
) -> None:
    run = prepare(RunConfig.model_validate(config))
    split, model = run.splits["validation"], tiny_model()
    losses = []
    for index in range(len(split)):
        feature = split.row(index)
        with torch.no_grad():
            logits_TC = (
                model(input_ids=torch.tensor([feature.columns["input_ids"]])).logits[0].double()
            )
        labels_T = torch.tensor(feature.columns["labels"])
        losses += cross_entropy(logits_TC, labels_T, reduction="none")[labels_T != IGNORE_INDEX]
    result = evaluate(run.build_model(), run.task, split, batch_size, ALONE)
    assert len(losses) == sum(split.num_targets)
    assert result.scores["loss"] == pytest.approx(sum(losses).item() / len(losses), rel=1e-6)


def test_every_record_is_answered_whole_with_all_its_windows(config: dict[str, Any]) -> None:
    run = prepare(RunConfig.model_validate(config))
    split = run.splits["validation"]
    assert len(split) > split.num_records
    answers: dict[int, int] = {}

    def keep(record: Any, prediction: dict[str, Any]) -> None:
        assert record == split.record(record.index)
        answers[record.index] = len(prediction["tags"])

    evaluate(run.build_model(), run.task, split, 2, ALONE, keep)
    words = {i: len(split.record(i).fields["tokens"]) for i in range(NUM_RECORDS)}
    assert answers == words


@pytest.mark.parametrize("scenario", ["dropout", "gradients"])
def test_an_evaluation_draws_nothing_and_keeps_no_graph(
    scenario: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(RunConfig.model_validate(config))
    model = run.build_model().train()
    losses: list[torch.Tensor] = []
    predict: Callable[..., Any] = run.task.predict
    monkeypatch.setattr(
        run.task, "predict", lambda *args: [losses.append((p := predict(*args)).loss_sum), p][1]
    )
    scores = [evaluate(model, run.task, run.splits["validation"], 2, ALONE) for _ in range(2)]
    if scenario == "dropout":
        assert scores[0].scores["loss"] == scores[1].scores["loss"]
    else:
        assert not any(loss.requires_grad for loss in losses)
