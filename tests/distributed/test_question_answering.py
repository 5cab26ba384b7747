"""Question answering is the same run in every layout, and goes on to the last bit after a kill."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed.ranks import run_ranks
from distributed.scenarios import losses, train
from distributed.test_equivalence import LAYOUTS, STAGES, relative, weights
from faults.harness import Ranks, assert_same, finish, left_by, resumed
from tiny import letter_tokenizer, tiny_model

from bigft.cli import main

pytestmark = pytest.mark.distributed

THRESHOLD = "null_score_diff_threshold"
MEASURED = ("eval_loss", "eval_f1", "eval_no_answer_f1", f"eval_{THRESHOLD}", "test_exact_match")
# What is added to every position alike changes no softmax over positions, and a key's bias changes
# none over keys: their true gradients are zero, and Adam takes steps in the direction of noise.
UNSEEN = ("key.bias", "qa_outputs.bias", "layer.1.output.LayerNorm.bias")
WORDS = ["red", "blue", "green", "old", "new", "big", "cat", "dog", "owl", "hen"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT, and 13 questions of which every third has no answer, in contexts of one to eight
    windows."""
    directory = tmp_path_factory.mktemp("questions")
    model = tiny_model("bert", "AutoModelForQuestionAnswering", num_labels=2)
    model.save_pretrained(directory / "model")
    letter_tokenizer(model_max_length=64).save_pretrained(directory / "model")
    draw = random.Random(0)
    with (directory / "data.jsonl").open("w") as file:
        for number in range(13):
            words = draw.choices(WORDS, k=3 + 5 * number)
            answer, context = words[number // 2], " ".join(words)
            answers = [{"text": answer, "answer_start": context.index(answer)}]
            row = {"question": f"where is {answer}", "context": context, "id": str(number)}
            print(json.dumps(row | {"answers": answers if number % 3 else []}), file=file)
    return directory


@pytest.fixture(scope="module")
def config_of(place: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    def config(name: str, stage: int = 0, micro: int = 8, **keys: Any) -> dict[str, Any]:
        data = str(place / "data.jsonl")
        options = {"version_2_with_negative": True, THRESHOLD: "tune", "doc_stride": 6}
        return {
            "task": {"name": "question-answering", **options},
            "model": {
                "model_name_or_path": str(place / "model"),
                "dropout": keys.pop("dropout", 0),
            },
            "data": {
                **{f"{split}_file": [data] for split in ("train", "validation", "test")},
                "max_seq_length": 40,
            },
            "optim": {"learning_rate": 3e-3},
            "parallel": {"zero_stage": stage},
            "train": {
                "output_dir": str(place / name),
                "logging_steps": 1,
                "save_strategy": "no",
                "eval_strategy": "no",
                "num_train_epochs": 1.0,
                "global_batch_size": 8,
                "per_device_train_batch_size": micro,
                "per_device_eval_batch_size": micro,
                **keys,
            },
        }

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BIGFT_CACHE", str(place / "cache"))
        yield config


def test_every_layout_and_stage_trains_and_measures_the_same(
    config_of: Callable[..., dict[str, Any]],
) -> None:
    reference: list[float] = []
    for layout, (ranks, micro) in LAYOUTS.items():
        configs = [config_of(f"{layout}-zero{stage}", stage, micro) for stage in STAGES]
        for config, answer in zip(configs, run_ranks(train, ranks, configs)[0], strict=True):
            name = config["train"]["output_dir"]
            seen, results = [*losses(answer).values()], answer[1]
            if not reference:
                reference, expected, scores = seen, weights(config), results
                assert len(set(seen)) == len(seen) > 4
            assert relative(seen, reference) <= 1e-5, name
            for key, tensor in weights(config).items():
                if not key.endswith(UNSEEN):
                    error = (tensor - expected[key]).norm() / expected[key].norm()
                    assert error <= 1e-5, (name, key)
            for key in MEASURED:
                assert results[key] == pytest.approx(scores[key], rel=1e-4), (name, key)
    assert scores["eval_f1"] == scores["eval_best_f1"] == scores["test_f1"] > 0


SAVING = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 3}


@pytest.fixture(scope="module")
def whole(config_of: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The config of a run that nothing happened to."""
    config = config_of("whole", 2, 2, dropout=0.1, **SAVING)
    finish(config)
    return config


def test_a_kill_in_the_middle_loses_nothing(
    config_of: Callable[..., dict[str, Any]], whole: dict[str, Any]
) -> None:
    killed = config_of("killed", 2, 2, dropout=0.1, **SAVING)
    with Ranks(killed, failpoints="train.step=kill@5") as ranks:
        assert 0 not in ranks.wait()
    finish(resumed(killed))
    assert_same(left_by(killed), left_by(whole))


def test_what_the_validation_set_chose_stays_with_the_model(
    whole: dict[str, Any], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(whole["train"]["output_dir"])
    results = json.loads((run / "all_results.json").read_text())
    stored = json.loads((run / "model/config.json").read_text())[THRESHOLD]
    assert stored == results[f"eval_{THRESHOLD}"] == results[f"test_{THRESHOLD}"] != 0
    file = place / "predictions.json"
    assert main(["evaluate", str(run), "--json", "--predictions", str(file)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again[THRESHOLD] == stored
    assert again["f1"] == pytest.approx(results["test_f1"])
    answers = json.loads(file.read_text())
    assert [*answers] == [str(number) for number in range(13)]
    gold = [json.loads(line)["answers"] for line in (place / "data.jsonl").read_text().splitlines()]
    exact = sum(
        answers[str(number)] == (each[0]["text"] if each else "")
        for number, each in enumerate(gold)
    )
    assert 100 * exact / 13 == pytest.approx(again["exact_match"])
