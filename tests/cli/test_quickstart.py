"""The quickstart, shortened: a user's first run, from the YAML to what other tools load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

# Cased as a user writes, with a word of several sub-tokens and one that stands alone.
TEXTS = ["Ada Lovelace met Charles Babbage in London.", "Snow fell.", "She moved to Valparaíso ."]


def bigft(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **os.environ}
    return subprocess.run(
        [sys.executable, "-m", "bigft", *words],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_short_quickstart_learns_and_any_pipeline_predicts_the_same(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run with 'quotes' and spaces"
    trained = bigft(
        "train", "configs/quickstart.yaml", f"train.output_dir={run}", "train.max_steps=40"
    )
    assert trained.returncode == 0, trained.stderr
    results = json.loads((run / "all_results.json").read_text())
    assert results["test_f1"] > 0.6
    assert json.loads((run / "run.json").read_text())["status"] == "finished"

    scores = bigft("evaluate", str(run), "--split", "test", "--json")
    again = json.loads(scores.stdout)
    for name in ("f1", "strict_f1", "accuracy"):
        assert again[name] == results[f"test_{name}"]
    assert again["loss"] == pytest.approx(results["test_loss"], rel=1e-6)

    words = [word for text in TEXTS for word in ("--text", text)]
    answers = [json.loads(line) for line in bigft("predict", str(run), *words).stdout.splitlines()]
    from transformers import pipeline

    stock = pipeline("token-classification", model=str(run / "model"), ignore_labels=[])
    for text, answer in zip(TEXTS, answers, strict=True):
        assert answer["text"] == text
        # The pipeline answers per sub-token; bigft with the first one of each word.
        first = {token["start"]: token for token in reversed(stock(text))}
        at = 0
        for word, tag, score in zip(
            answer["tokens"], answer["tags"], answer["scores"], strict=True
        ):
            at = text.index(word, at)
            assert first[at]["entity"] == tag
            assert float(first[at]["score"]) == pytest.approx(score, abs=1e-5)
            at += len(word)
    found = {entity["text"]: entity["type"] for entity in answers[0]["entities"]}
    assert found == {"Ada Lovelace": "PER", "Charles Babbage": "PER", "London": "LOC"}


def test_a_signal_saves_and_the_next_call_goes_on(minilm: Path, tmp_path: Path) -> None:
    """Through the launcher of `bigft train --nproc`: exit code 75, then the rest of the run."""
    run = tmp_path / "run"
    words = [
        *(sys.executable, "-m", "bigft", "train", "configs/quickstart.yaml", "--nproc", "2"),
        *(f"train.output_dir={run}", "train.max_steps=12", "train.logging_steps=1"),
        *("train.per_device_train_batch_size=4", "data.test_file=[]"),
        "train.resume_from_checkpoint=true",
    ]
    environment = {
        "PYTHONPATH": str(REPOSITORY),
        **os.environ,
        "BIGFT_CACHE": str(tmp_path / "cache"),
    }
    process = subprocess.Popen(
        words, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 3/12"):
            process.terminate()
    assert process.wait(timeout=PATIENCE) == 75
    about = json.loads((run / "run.json").read_text())
    assert (about["status"], about["exit_code"]) == ("resumable", 75)
    (checkpoint,) = run.glob("checkpoint-*")
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    assert 3 <= step < 12

    again = subprocess.run(
        words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert again.returncode == 0, again.stderr
    lines = [line for line in again.stdout.splitlines() if line.startswith("step ")]
    assert lines[0].startswith(f"step {step + 1}/12")
    assert len(lines) == 12 - step
