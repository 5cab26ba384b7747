"""A text classifier from its data to answers, as a user meets it; the plain pipeline agrees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import byte_tokenizer, letter_tokenizer, tiny_model

from bigft.cli import main

pytestmark = pytest.mark.usefixtures("process_as_found")

WORDS = ["bad", "good", "fine", "poor"]
CONFIG = """\
task: {{name: text-classification, {options}}}
model: {{model_name_or_path: model}}
data:
  train_file: train.jsonl
  validation_file: dev.jsonl
  test_file: dev.jsonl
  max_seq_length: 24
optim: {{learning_rate: 1e-2}}
train: {{output_dir: run, max_steps: 6, eval_strategy: "no", save_strategy: "no"}}
"""
KINDS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "single": ("top_k: 4", lambda n: WORDS[n % 4]),
    "out of scope": (
        "out_of_scope_label: poor, decision_threshold: tune",
        lambda n: WORDS[n % 4],
    ),
    "several": ("decision_threshold: tune", lambda n: [WORDS[n % 4], WORDS[n % 3]]),
    "numbers": ("", lambda n: n / 4),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, here: Path) -> str:
    """The directory has a finished run on labels of this kind."""
    options, label = KINDS[request.param]
    tiny_model("bert", "AutoModel").save_pretrained("model")
    letter_tokenizer().save_pretrained("model")
    rows = [{"text": f"it is {WORDS[n % 4]}", "label": label(n)} for n in range(16)]
    for name in ("train", "dev"):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("config.yaml").write_text(CONFIG.format(options=options))
    assert main(["train", "config.yaml"]) == 0
    name: str = request.param
    return name


def test_a_run_answers_as_the_plain_pipeline_does(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import pipeline

    texts = ["it is good", "poor", "a fine bad it"]
    capsys.readouterr()
    words = [word for text in texts for word in ("--text", text)]
    assert main(["predict", "run", *words]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stock = pipeline("text-classification", model="run/model", top_k=None)
    for text, answer, theirs in zip(texts, answers, stock(texts), strict=True):
        scores = {each["label"]: each["score"] for each in theirs}
        assert answer["text"] == text
        if kind == "numbers":
            assert scores == {"score": pytest.approx(answer["score"], abs=1e-5)}
        else:
            ours = {each["label"]: each["score"] for each in answer["top"]}
            assert ours == pytest.approx(scores, abs=1e-5)
    assert main(["evaluate", "run", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    results = json.loads(Path("run/all_results.json").read_text())
    config = json.loads(Path("run/model/config.json").read_text())
    for name, value in measured.items():
        if name not in ("runtime", "samples_per_second", "nonfinite"):
            assert results[f"test_{name}"] == (value and pytest.approx(value)), name
    if kind == "out of scope":
        assert 0 < config["decision_threshold"] < 1
        events = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
        assert any("tuned on the validation set" in event.get("text", "") for event in events)
    elif kind == "several":
        assert len(config["decision_threshold"]) == 4


def test_pairs_are_answered_by_their_columns(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model("roberta", "AutoModel").save_pretrained("model")
    byte_tokenizer(model_input_names=["input_ids", "attention_mask"]).save_pretrained("model")
    rows = [
        {"premise": f"it is {WORDS[n % 4]}", "hypothesis": WORDS[n % 3], "label": n % 2}
        for n in range(8)
    ]
    for name in ("train", "dev"):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("config.yaml").write_text(CONFIG.format(options=""))
    assert main(["train", "config.yaml", "train.max_steps=1"]) == 0
    capsys.readouterr()
    assert main(["predict", "run", "--file", "dev.jsonl"]) == 0
    (first, *_) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (first["text"], first["pair"]) == ("it is bad", "bad")
    assert first["label"] in ("0", "1")


def test_an_adapter_answers_on_its_base_as_peft_loads_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tiny_model("bert", "AutoModel").save_pretrained("model")
    letter_tokenizer().save_pretrained("model")
    rows = [{"text": f"it is {WORDS[n % 4]}", "label": WORDS[n % 4]} for n in range(8)]
    for name in ("train", "dev"):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("config.yaml").write_text(f"{CONFIG.format(options='')}adapt: {{method: lora}}\n")
    assert main(["train", "config.yaml", "train.max_steps=3"]) == 0
    capsys.readouterr()
    assert main(["predict", "run", "--text", "a fine bad"]) == 0
    answer = json.loads(capsys.readouterr().out)
    adapter = json.loads(Path("run/model/adapter_config.json").read_text())
    assert adapter["task_type"] == "SEQ_CLS"
    assert "classifier" in adapter["modules_to_save"]
    base = AutoModelForSequenceClassification.from_pretrained("model", num_labels=4)
    stock = PeftModel.from_pretrained(base, "run/model").eval()
    inputs = AutoTokenizer.from_pretrained("run/model")("a fine bad", return_tensors="pt")
    with torch.no_grad():
        expected = stock(**inputs).logits.softmax(dim=-1)[0].sort(descending=True).values
    ours = [each["score"] for each in answer["top"]]
    assert ours == pytest.approx(expected.tolist(), abs=1e-5)
