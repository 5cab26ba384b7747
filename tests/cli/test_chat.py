"""`bigft predict RUN` of a causal-lm: prompts of every form, generation's options, and a talk."""

from __future__ import annotations

import io
import json
import shutil
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tasks.causal import causal_model
from tasks.chat import CHATML, DATED, MISTRAL, chat_tokenizer

from bigft.cli import main
from bigft.config import load_config, resolved_yaml
from bigft.runtime.run_directory import RunDirectory
from bigft.tasks.causal_lm import CausalLM

HEADER = "<|im_end|>\n<|im_start|>assistant\n"
WORDS = [
    "model.model_name_or_path=model",
    "data.train_file=train.jsonl",
    "train.output_dir=out",
    "task={name: causal-lm, generation: {max_new_tokens: 5}}",
]


@pytest.fixture
def chat_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A finished run of a random causal-lm with a chat template."""
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").touch()
    directory = RunDirectory("out")
    directory.claim(resume=False)
    directory.write_config(resolved_yaml(load_config(None, WORDS).config))
    causal_model().save_pretrained(directory.model)
    chat_tokenizer(CHATML).save_pretrained(directory.model)
    directory.update(status="finished", exit_code=0)
    return directory


def answers(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["predict", "out", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, *words: str
) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert main(["predict", "out", "--chat", *words]) == 0
    return capsys.readouterr().out


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts that the model is asked with, as they are asked."""
    seen: list[list[str]] = []
    write = CausalLM.write

    def spy(task: CausalLM, engine: Any, prompts: Any, *rest: Any, **settings: Any) -> list[str]:
        seen.append([task.tokenizer.decode(prompt) for prompt in prompts])
        return write(task, engine, prompts, *rest, **settings)

    monkeypatch.setattr(CausalLM, "write", spy)
    return seen


def test_a_prompt_of_any_form_is_answered(
    chat_run: RunDirectory, capsys: pytest.CaptureFixture[str], asked: list[list[str]]
) -> None:
    lines: list[Any] = [
        {"text": "hi"},
        {"prompt": "hi"},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"instruction": "hi"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                      {"role": "user", "content": "hi"}]},
    ]  # fmt: skip
    Path("prompts").write_text("hi\n" + "".join(json.dumps(line) + "\n" for line in lines))
    *alike, longer = answers(capsys, "--file", "prompts")
    assert alike == [alike[0]] * 5
    assert alike[0]["prompt"] == longer["prompt"] == "hi"
    assert alike[0]["generated"] != ""
    *texts, whole = [text for batch in asked for text in batch]
    assert texts == [f"<|im_start|>user\nhi{HEADER}"] * 5
    assert whole == (f"<|im_start|>user\na{HEADER}b<|im_end|>\n<|im_start|>user\nhi{HEADER}")


def test_an_object_without_a_prompt_is_refused_at_its_line(
    chat_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prompts").write_text('{"text": "hi"}\n{"txt": "hi"}\n')
    assert main(["predict", "out", "--file", "prompts"]) == 2
    assert "prompts:2: no prompt in the object (fields: txt); " in capsys.readouterr().err


def test_a_prompt_that_the_template_refuses_costs_no_other_one_its_answer(
    chat_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    chat_tokenizer(MISTRAL).save_pretrained(chat_run.model)
    twice = {"messages": [{"role": "user", "content": text} for text in "ab"]}
    Path("prompts").write_text(f"hi\n{json.dumps(twice)}\nho\n")
    for size in ("1", "8"):
        assert main(["predict", "out", "--file", "prompts", "--batch-size", size]) == 2
        printed = capsys.readouterr()
        answered = [json.loads(line)["prompt"] for line in printed.out.splitlines()]
        assert answered == ["hi", "ho"]
        assert printed.err.startswith("prompts:2: the chat template refuses it (TemplateError: ")


def test_a_template_that_writes_the_date_writes_the_present_one(
    chat_run: RunDirectory, capsys: pytest.CaptureFixture[str], asked: list[list[str]]
) -> None:
    chat_run.update(clock="2024-07-26")
    chat_tokenizer(DATED).save_pretrained(chat_run.model)
    days = {f"{date.today():%d %b %Y}"}
    answers(capsys, "--text", "hi")
    days.add(f"{date.today():%d %b %Y}")  # midnight may have come
    ((text,),) = asked
    assert text.split("Today is ")[1].split(".")[0] in days


def test_generations_options_are_put_over_the_runs(
    chat_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    (short,) = answers(capsys, "--text", "hi", "task.generation.max_new_tokens=1")
    (usual,) = answers(capsys, "--text", "hi")
    assert usual["generated"].startswith(short["generated"])
    assert len(usual["generated"]) > len(short["generated"]) > 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["train.seed=1"],
         "train.seed=1: not what `bigft predict` can change; give task.generation.key=value"),
        (["task.generation.top_q=1"], "command line: task.generation.top_q=1: unknown key; did you "
         "mean task.generation.top_p?"),
        (["--chat", "--output", "x"], "--output: given beside --chat; leave it out"),
    ],
)  # fmt: skip
def test_options_that_no_run_could_heed(
    chat_run: RunDirectory, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    assert main(["predict", "out", *words]) == 2
    assert capsys.readouterr().err == f"{error}\n"


def test_a_talk_remembers_until_it_is_reset(
    chat_run: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[list[str]],
) -> None:
    answer, *_ = said(monkeypatch, capsys, "hi\nyou\n/reset\nhi\n/exit\nhi\n").split("\n")
    first = f"<|im_start|>user\nhi{HEADER}"
    second = f"{first}{answer}<|im_end|>\n<|im_start|>user\nyou{HEADER}"
    assert asked == [[first], [second], [first]]


def test_a_talk_says_what_a_prompt_is_answered_with(
    chat_run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (answer,) = answers(capsys, "--text", "hi")
    assert said(monkeypatch, capsys, "hi\n") == answer["generated"] + "\n"
    (beams,) = answers(capsys, "--text", "hi", "task.generation.num_beams=2")
    words = ["task.generation.num_beams=2"]
    assert said(monkeypatch, capsys, "\nhi\n", *words) == beams["generated"] + "\n"


def test_words_appear_as_they_come(
    chat_run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces: list[str] = []

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    monkeypatch.setattr(sys, "stdout", Watched())
    drawn = {"max_new_tokens": 200, "do_sample": "true", "temperature": 50.0}  # spaces, too
    words = [f"task.generation.{key}={value}" for key, value in drawn.items()]
    assert main(["predict", "out", "--chat", *words]) == 0
    assert len([piece for piece in pieces if piece]) > 1  # at once it would be one


def test_a_line_that_the_template_refuses_does_not_end_the_talk(
    chat_run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picky = "{% if messages[-1].content == 'no' %}{{ raise_exception('not so') }}{% endif %}"
    chat_tokenizer(picky + CHATML).save_pretrained(chat_run.model)
    monkeypatch.setattr(sys, "stdin", io.StringIO("no\nhi\n"))
    assert main(["predict", "out", "--chat"]) == 0
    captured = capsys.readouterr()
    assert "chat:1: the chat template refuses it (TemplateError: not so)" in captured.err
    assert captured.out.strip()


def test_a_model_that_knows_no_chat_is_not_talked_with(
    chat_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(chat_run.model)
    causal_model().save_pretrained(chat_run.model)
    chat_tokenizer(None).save_pretrained(chat_run.model)
    assert main(["predict", "out", "--chat"]) == 2
    assert capsys.readouterr().err == (
        "--chat: the run's tokenizer has no chat template; give --text, or train with "
        "data.chat_template\n"
    )


def test_another_task_does_not_talk(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "out", "--chat"]) == 2
    assert capsys.readouterr().err == (
        "--chat: this run's task is token-classification; give --text: only causal-lm talks\n"
    )


def test_a_system_prompt_comes_first_until_another_one_is_given(
    chat_run: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[list[str]],
) -> None:
    lines = ["hi", "/system be kind", "you", "/reset", "hi", "/system", "hi"]
    said(monkeypatch, capsys, "\n".join(lines) + "\n")
    first, kind, after, last = (text for (text,) in asked)
    told = "<|im_start|>system\nbe kind<|im_end|>\n"
    assert [told in text for text in (first, kind, after, last)] == [False, True, True, False]
    assert all("hi" not in text for text in (kind,)), "what was said before is forgotten"
    assert after.index(told) < after.index("hi")
    assert last == first
