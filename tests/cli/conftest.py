"""What tests of several verbs share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from bigft.cli import main
from bigft.config import load_config, resolved_yaml
from bigft.runtime.caller_state import left_as_found
from bigft.runtime.run_directory import RunDirectory


@pytest.fixture
def trained_run(place: Path) -> Path:
    """The directory of a finished run, with the tiny model as what it has learnt."""
    directory = RunDirectory("out")
    directory.claim(resume=False)
    directory.write_config(resolved_yaml(load_config("config.yaml").config))
    shutil.copytree("model", directory.model)
    directory.update(status="finished", exit_code=0)
    return directory.path


@pytest.fixture
def process_as_found() -> Iterator[None]:
    """For tests that train in this process: what a run changes in it is put back."""
    with left_as_found():
        yield


LONG = 16384  # positions of the tiny models: real samples fit, a byte a token


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model for each task."""
    from tasks.chat import CHATML, chat_tokenizer
    from tiny import byte_tokenizer, tiny_model
    from tiny_seq2seq import eos_tokenizer, tiny_seq2seq

    root = tmp_path_factory.mktemp("models")
    tokenizer = chat_tokenizer(CHATML)
    tiny_model("roberta", max_position_embeddings=LONG, num_labels=2).save_pretrained(
        root / "roberta"
    )
    byte_tokenizer().save_pretrained(root / "roberta")
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": LONG}
    tiny_model("llama", "AutoModelForCausalLM", **size).save_pretrained(root / "llama")
    tokenizer.save_pretrained(root / "llama")
    tiny_seq2seq("t5").save_pretrained(root / "t5")
    eos_tokenizer().save_pretrained(root / "t5")
    of_task = {"token-classification": "roberta", "causal-lm": "llama", "seq2seq": "t5"}
    of_task |= {"text-classification": "roberta", "question-answering": "roberta"}
    return {task: root / name for task, name in of_task.items()}


@pytest.fixture
def accepted(
    here: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """`accepted("folder", ...)`: the config that is written for it, which `bigft check` takes with
    a tiny model.  check: overrides for that."""

    def written(*words: str, check: Sequence[str] = ()) -> dict[str, Any]:
        Path("my.yaml").unlink(missing_ok=True)
        assert main(["init", *words, "-o", "my.yaml"]) == 0
        task = yaml.safe_load(Path("my.yaml").read_text())["task"]
        model = models[task if isinstance(task, str) else task["name"]]
        assert main(["init", *words, "-o", "my.yaml", "--force", "--model", str(model)]) == 0
        capsys.readouterr()
        code = main(["check", "my.yaml", *check])
        assert code == 0, capsys.readouterr().err
        config: dict[str, Any] = yaml.safe_load(Path("my.yaml").read_text())
        assert config["model"] == {"model_name_or_path": str(model)}
        return config

    return written


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """`refused("folder", ...)`: the lines of the refusal."""

    def lines(*words: str) -> list[str]:
        assert main(["init", *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err.splitlines()

    return lines
