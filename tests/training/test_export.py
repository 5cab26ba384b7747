"""`model/` is what transformers loads, tensor by tensor what was trained, or it is not written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from bits import bits
from distributed.ranks import run_ranks
from peft import PeftConfig, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import LABELS, letter_tokenizer, tiny_model
from training.adapters import ALONE, engine, finished_run
from training.disk import watched
from training.scenarios import HEADED, export, export_where_the_lock_is_lost

from bigft.models.heads.token import attach_token_head
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.training import export as export_module
from bigft.training.export import export_model

TRAINED = ("classifier.weight", "bert.embeddings.word_embeddings.weight")
TIED = {"cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"}


def write(model: Any, directory: Path) -> Path:
    export_model(engine(model), letter_tokenizer(), RunDirectory(directory), ALONE)
    return directory / "model"


@pytest.mark.distributed
@pytest.mark.parametrize("stage", [0, 3])
def test_transformers_answers_with_the_engines_logits(stage: int, tmp_path: Path) -> None:
    ((ours, theirs, live),) = run_ranks(export, 1, str(tmp_path), stage, HEADED)
    assert theirs == ours
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert bits(stored) == live
    untrained = tiny_model().state_dict()
    assert all(not torch.equal(stored[name], untrained[name]) for name in TRAINED)


@pytest.mark.distributed
def test_tied_weights_are_stored_once_under_zero_3_too(tmp_path: Path) -> None:
    ((ours, theirs, live),) = run_ranks(export, 1, str(tmp_path), 3, "AutoModelForMaskedLM")
    assert theirs == ours
    stored = bits(load_file(tmp_path / "model" / "model.safetensors"))
    assert stored == {name: live[name] for name in stored}
    assert len(TIED & stored.keys()) == 1


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    model = tiny_model(auto_class="AutoModelForMaskedLM")
    assert model.state_dict().keys() >= TIED
    stored = load_file(write(model, tmp_path) / "model.safetensors")
    assert len(TIED & stored.keys()) == 1


def test_the_directory_is_complete_by_itself(tmp_path: Path) -> None:
    model = tiny_model()
    attach_token_head(model)
    directory = write(model, tmp_path)
    assert transformers.AutoConfig.from_pretrained(directory).id2label == dict(enumerate(LABELS))
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    assert tokenizer("bob saw").input_ids == letter_tokenizer()("bob saw").input_ids
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_weights_keep_the_dtype_they_compute_in(tmp_path: Path) -> None:
    stored = load_file(write(tiny_model().bfloat16(), tmp_path) / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def test_an_older_export_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (write(tiny_model(), tmp_path) / "leftover.txt").write_text("of an older run")
    directory = write(tiny_model(num_labels=2), tmp_path)
    assert not (directory / "leftover.txt").exists()
    assert transformers.AutoConfig.from_pretrained(directory).num_labels == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.distributed
def test_a_run_that_lost_its_directory_replaces_no_model(tmp_path: Path) -> None:
    """It is asked after all is written, and every rank is told."""
    before = (write(tiny_model(), tmp_path) / "model.safetensors").read_bytes()
    told = run_ranks(export_where_the_lock_is_lost, 2, str(tmp_path))
    assert told == [f"{tmp_path} was taken over by process 1 on another"] * 2
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"model", "LOCK", "run.json", "logs"}


def test_all_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsynced, synced = watched(monkeypatch, "model")
    write(tiny_model(), tmp_path)
    assert unsynced == []
    assert synced == [tmp_path]


def _one_bit(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier.bias"].view(torch.int32)[0] ^= 1


def _lost(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["classifier.bias"]


def _rounded(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier.weight"] = tensors["classifier.weight"].bfloat16()


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (_one_bit, "classifier.bias differs from the trained weights"),
        (_lost, "lacks classifier.bias"),
        (_rounded, "classifier.weight differs from the trained weights"),
    ],
)
def test_a_file_that_differs_from_the_live_weights_is_not_put_in_place(
    tamper: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tiny_model(), tmp_path)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    compare = export_module.check_stored

    def tampered(directory: Path, *args: Any) -> None:
        path = directory / "model.safetensors"
        tensors = load_file(path)
        tamper(tensors)
        save_file(tensors, path, {"format": "pt"})
        compare(directory, *args)

    monkeypatch.setattr(export_module, "check_stored", tampered)
    with pytest.raises(RuntimeError, match=message):
        write(tiny_model(), tmp_path)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


# -- adapters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "qlora", "p-tuning"])
def test_an_adapter_is_complete_by_itself(method: str, place: Path) -> None:
    """Beside its weights it says what it belongs on, which labels it has, and how to tokenise."""
    directory, run, model = finished_run(f"adapt.method={method}")
    names = {path.name for path in directory.model.iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    assert "model.safetensors" not in names
    config = PeftConfig.from_pretrained(directory.model)
    assert config.base_model_name_or_path == str(place / "model")
    assert config.inference_mode
    assert not model.active_peft_config.inference_mode  # it may go on to train
    described = transformers.AutoConfig.from_pretrained(directory.model)
    assert described.id2label == dict(enumerate(run.task.labels))
    assert not hasattr(described, "quantization_config")
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    stored = load_file(directory.model / "adapter_model.safetensors")
    assert stored.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in stored.items())


def test_an_adapter_that_differs_from_the_live_one_is_not_put_in_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_stored = export_module.check_stored

    def tampered(directory: Path, *args: Any) -> None:
        path = directory / "adapter_model.safetensors"
        tensors = load_file(path)
        next(iter(tensors.values())).flatten()[0] += 1
        save_file(tensors, path, {"format": "pt"})
        check_stored(directory, *args)

    monkeypatch.setattr(export_module, "check_stored", tampered)
    with pytest.raises(RuntimeError, match="differs from the trained weights"):
        finished_run("adapt.method=lora")
    assert not [path for path in Path("out").iterdir() if "model" in path.name]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    second = World(1, 1, 1, torch.device("cpu"), None)
    export_model(engine(tiny_model()), letter_tokenizer(), RunDirectory(tmp_path), second)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("stored", "equal"),
    [
        ([torch.nan, 1.0], True),
        ([torch.nan, torch.inf], False),
        ([0.0, 1.0], False),
        ([torch.nan, 1.0000001], False),
    ],
)
def test_nan_is_stored_as_it_is_and_everything_else_is_compared(
    stored: list[float], equal: bool, tmp_path: Path
) -> None:
    save_file({"weight": torch.tensor(stored)}, tmp_path / "model.safetensors")
    live = {"weight": torch.tensor([torch.nan, 1.0])}
    adapter = SimpleNamespace(peft_config={})
    if equal:
        export_module.check_stored(tmp_path, adapter, live)
    else:
        with pytest.raises(RuntimeError, match="weight differs from the trained weights"):
            export_module.check_stored(tmp_path, adapter, live)
