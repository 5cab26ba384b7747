"""Configs and models that carry code: refused, and the code does not run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import letter_tokenizer, save_tiny

from bigft.cli import main

TAG = "!!python/object/apply:os.system ['touch canary']"
Refused = Callable[..., bool]
MODULE = "from pathlib import Path\nPath('canary').touch()\n"


class Touch:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch canary",)


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., bool]:
    """`refused(why, *overrides)`: whether `bigft check` says so, and the canary is not there."""

    def check(why: str, *words: str) -> bool:
        code = main(["check", "config.yaml", *words])
        error = capsys.readouterr().err
        assert why in error
        return code == 2 and not Path("canary").exists()

    return check


@pytest.mark.parametrize("key", ["train:\n  run_name", "task"])
def test_a_tag_of_pythons_in_a_config(key: str, refused: Refused) -> None:
    Path("config.yaml").write_text(f"{key}: {TAG}\n")
    assert refused("os.system is not read")


def test_a_tag_of_pythons_in_an_override(refused: Refused) -> None:
    assert refused("os.system is not read", f"train.run_name={TAG}")


def test_weights_that_are_a_pickle(refused: Refused, tiny_model: Path) -> None:
    Path("model").unlink()
    shutil.copytree(tiny_model, "model")
    Path("model/model.safetensors").unlink()
    Path("model/pytorch_model.bin").write_bytes(pickle.dumps(Touch()))
    assert refused("pytorch_model.bin, a pickle, which may run code")


def test_the_pickle_would_have_run(here: Path) -> None:
    pickle.loads(pickle.dumps(Touch()))
    assert Path("canary").exists()


@pytest.mark.parametrize(
    ("why", "words"),
    [("custom code", []), ("pins no commit", ["model.trust_remote_code=true"])],
)
def test_code_that_comes_with_a_model(
    why: str, words: list[str], refused: Refused, tiny_model: Path
) -> None:
    """trust_remote_code needs a pinned revision, which a directory has not."""
    Path("model").unlink()
    shutil.copytree(tiny_model, "model")
    Path("model/theirs.py").write_text(MODULE)
    config = json.loads(Path("model/config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    Path("model/config.json").write_text(json.dumps(config))
    assert refused(why, *words)


def test_a_chat_template_that_reaches_out(refused: Refused) -> None:
    Path("model").unlink()
    tokenizer = letter_tokenizer(eos_token="[SEP]")
    save_tiny(Path("model"), "llama", tokenizer, auto_class="AutoModelForCausalLM")
    reach = "{{ cycler.__init__.__globals__.os.popen('touch canary').read() }}"
    Path("template.jinja").write_text(reach)
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    Path("train.jsonl").write_text(json.dumps(row) + "\n")
    words = ["task=causal-lm", "data.chat_template=template.jinja", "data.test_file=[]"]
    assert refused("is unsafe", *words)
