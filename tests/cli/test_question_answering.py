"""Questions through the verbs: predict and evaluate, and plain transformers on what a run left."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from tiny import byte_tokenizer, letter_tokenizer, save_tiny, tiny_model
from transformers import AutoModelForQuestionAnswering

import bigft
from bigft.cli import main
from bigft.config import load_config, resolved_yaml
from bigft.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("process_as_found")

REPOSITORY = Path(__file__).resolve().parents[2]
CONTEXT = (
    "the red cat of the old king ran up a tall green tree and saw nine white hens on the far side "
    "of a long wall and one brown dog that sat in the sun"
)
QUESTIONS = ["who ran up a tree", "what did it see", "where was the dog", "how long is the wall"]
CONFIG = """\
task: {name: question-answering, version_2_with_negative: true, doc_stride: 10}
model: {model_name_or_path: model}
data: {train_file: train.json, test_file: test.json, max_seq_length: 48}
train: {output_dir: out}
"""


def squad(*answers: str | None) -> str:
    """The first so many questions, with these answers."""
    asked = [
        {
            "id": f"q{number}",
            "question": QUESTIONS[number],
            "answers": [{"text": text, "answer_start": CONTEXT.index(text)}] if text else [],
        }
        for number, text in enumerate(answers)
    ]
    return json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": asked}]}]})


@pytest.fixture(params=["bert", "roberta"])
def run(request: pytest.FixtureRequest, here: Path) -> Path:
    """The directory of a finished run whose model is random, but says that the threshold is 0.2."""
    tokenizer = letter_tokenizer() if request.param == "bert" else byte_tokenizer()
    options = {"num_labels": 2, "null_score_diff_threshold": 0.2}
    model = tiny_model(request.param, "AutoModelForQuestionAnswering", **options)
    model.save_pretrained("model")
    tokenizer.save_pretrained("model")
    Path("config.yaml").write_text(CONFIG)
    Path("train.json").write_text(squad("the red cat", None))
    Path("test.json").write_text(squad("the red cat", "nine white hens", None, None))
    directory = RunDirectory("out")
    directory.claim(resume=False)
    directory.write_config(resolved_yaml(load_config("config.yaml").config))
    shutil.copytree("model", directory.model)
    directory.update(status="finished", exit_code=0)
    return directory.path


def answers(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["predict", "out", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def asked(*questions: str) -> list[str]:
    return [word for question in questions for word in ("--question", question)]


def test_questions_may_share_a_context_or_have_one_each(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answers(capsys, *asked(*QUESTIONS[:2]), "--context", CONTEXT)
    assert [answer["question"] for answer in found] == QUESTIONS[:2]
    assert [answer["id"] for answer in found] == ["0", "1"]
    for answer in found:
        for span in answer["answers"]:
            assert CONTEXT[span["start"] : span["end"]] == span["text"]
    contexts = [word for text in (CONTEXT, "a cat") for word in ("--context", text)]
    apart = answers(capsys, *asked(*QUESTIONS[:2]), *contexts)
    assert apart[0]["answer"] == found[0]["answer"]
    assert all(span["text"] in "a cat" for span in apart[1]["answers"])


def test_a_file_has_a_pair_a_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [{"question": each, "context": CONTEXT, "id": each[:3]} for each in QUESTIONS]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    found = answers(capsys, "--file", "pairs.jsonl", "--batch-size", "3")
    assert [answer["id"] for answer in found] == ["who", "wha", "whe", "how"]
    given = {"question": QUESTIONS[0], "context": CONTEXT, "id": "who"}
    (one,) = bigft.predict("out", [given])
    assert one["answer"] == found[0]["answer"]
    assert one["score"] == pytest.approx(found[0]["score"], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--question", "who?"],
         "--question: 1 given, but --context 0 times; give one for each, or one for all"),
        ([*asked("a", "b", "c"), "--context", "x", "--context", "y"],
         "--question: 3 given, but --context 2 times; give one for each, or one for all"),
        (["--context", "x"], "--context: given without --question; give both"),
        (["--question", " ", "--context", "x"],
         "--question:1: the question is empty; write one, or leave the record out"),
        (["--text", "who?"], "--text:1: a text alone, but a question is asked; give --question and "
         '--context, or write {"question": "...", "context": "..."}'),
    ],
)  # fmt: skip
def test_what_is_no_pair_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    assert main(["predict", "out", *words]) == 2
    assert capsys.readouterr().err == f"{error}\n"


def test_predictions_are_written_as_the_official_scripts_read_them(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "out", "--predictions", "p.json", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    written = json.loads(Path("p.json").read_text())
    pairs = [{"question": each, "context": CONTEXT} for each in QUESTIONS]
    expected = [answer["answer"] for answer in bigft.predict("out", pairs)]
    assert written == {f"q{number}": answer for number, answer in enumerate(expected)}
    gold = ["red cat", "nine white hens", "", ""]  # without their articles
    exact = [re.sub(r"^the ", "", mine) == own for mine, own in zip(expected, gold, strict=True)]
    assert scores["exact_match"] == 25 * sum(exact)
    assert scores["samples"] == 4


def test_ids_that_stand_twice_are_refused_before_anything_is_written(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data.test_file=[test.json, train.json]", "--predictions", "p.json"]
    assert main(["evaluate", "out", *words]) == 2
    assert (
        "train.json:1: the id q0 stands twice in the split, and the file holds one answer of "
        in (capsys.readouterr().err)
    )
    assert not Path("p.json").exists()
    assert main(["evaluate", "out", "--predictions", "no/p.json"]) == 2
    assert capsys.readouterr().err == (
        "--predictions no/p.json: no file in a directory that is there; name another file\n"
    )


def test_another_task_has_no_such_file(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "out", "--predictions", "p.json"]) == 2
    assert capsys.readouterr().err == (
        "--predictions: given, but task token-classification has no file that official scorers "
        "read; leave it out (question-answering has one); `bigft predict` writes answers\n"
    )
    assert main(["predict", "out", "--question", "who?", "--context", "ann"]) == 2
    assert "--question:1: no string `text` in the object" in capsys.readouterr().err


def documented(model: str) -> dict[str, Any]:
    """What the lines of the document define, on another model."""
    text = (REPOSITORY / "docs/question_answering.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    place: dict[str, Any] = {}
    exec(code.replace("runs/answers/model", model), place)
    return place


def same_answers(place: dict[str, Any]) -> list[str]:
    """The answers of `bigft.predict`, which those lines give too."""
    pairs = [(one, CONTEXT[at:]) for one in QUESTIONS for at in (0, 4, 60)]
    given = [dict(zip(("question", "context"), pair, strict=True)) for pair in pairs]
    ours = [answer["answer"] for answer in bigft.predict("out", given)]
    assert ours == [place["answer"](*pair, max_seq_length=48, doc_stride=10) for pair in pairs]
    return ours


def test_plain_transformers_gives_the_same_answers(run: Path) -> None:
    place = documented("out/model")
    assert len({*same_answers(place)}) > 2
    place["model"].config.null_score_diff_threshold = None
    Path("out/model/config.json").write_text(place["model"].config.to_json_string())
    RunDirectory("out").write_config(
        resolved_yaml(load_config("config.yaml", ["task.version_2_with_negative=false"]).config)
    )
    assert "" not in same_answers(place)


def test_an_adapter_on_a_model_of_another_task_keeps_head_and_threshold(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base is a tagger of five labels; peft loads what is left on a base of two outputs."""
    save_tiny(Path("model"))
    Path("config.yaml").write_text(f"{CONFIG}adapt: {{method: lora, r: 2}}\n")
    for split in ("train", "dev", "test"):
        Path(f"{split}.json").write_text(squad("the red cat", None, "tall"))
    words = ["data.validation_file=dev.json", "task.null_score_diff_threshold=tune"]
    words += ["train.max_steps=3", "optim.learning_rate=0.01", "train.save_strategy=no"]
    assert main(["train", "config.yaml", *words]) == 0
    results = json.loads(Path("out/all_results.json").read_text())
    stored = json.loads(Path("out/model/config.json").read_text())["null_score_diff_threshold"]
    assert results["eval_null_score_diff_threshold"] == stored
    assert json.loads(Path("out/model/adapter_config.json").read_text())["task_type"] == (
        "QUESTION_ANS"
    )
    base = AutoModelForQuestionAnswering.from_pretrained("model", num_labels=2)
    base.config.null_score_diff_threshold = stored
    place = documented("model")
    place["model"] = PeftModel.from_pretrained(base, "out/model").eval()
    same_answers(place)


def test_a_saved_tokenizer_cuts_nothing(run: Path) -> None:
    """One that transformers had cut with would keep that, and cut every text of who loads it."""
    bigft.predict("out", [{"question": QUESTIONS[0], "context": CONTEXT}])
    tokenizer = json.loads(Path("out/model/tokenizer.json").read_text())
    assert (tokenizer["truncation"], tokenizer["padding"]) == (None, None)
