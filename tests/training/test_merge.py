"""A merged adapter is a plain model that answers as the adapter did, or it is not written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from training.adapters import finished_run

from bigft.config.errors import BadInput
from bigft.training.merge import export_copy, export_merged
from bigft.training.trained import Trained

IDS_BT = torch.arange(4, 22).view(2, 9)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS_BT, labels_BT=IDS_BT % 5).logits_BTC


def plain(directory: Path, **options: Any) -> torch.Tensor:
    """What transformers, knowing nothing of bigft, makes of the directory."""
    model = transformers.AutoModelForTokenClassification.from_pretrained(directory, **options)
    with torch.no_grad():
        return model.eval()(input_ids=IDS_BT).logits


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("method", ["lora", "dora", "qlora", "ia3"])
def test_a_merged_model_answers_as_its_adapter_did(method: str, place: Path) -> None:
    directory, _, model = finished_run(f"adapt.method={method}")
    result = export_merged(directory, place / "merged")
    assert distance(plain(place / "merged"), logits(model)) < 1e-5
    assert distance(plain(place / "merged"), plain(place / "model")) > 0.1  # than the base
    assert result.split == "test"
    assert result.before.keys() >= {"loss", "f1"}
    assert result.difference["loss"] == pytest.approx(0, abs=1e-5)
    stored = json.loads((place / "merged" / "merge.json").read_text())
    assert stored["after"] == result.after
    assert stored["before"] == result.before
    assert "difference" in str(result)
    config = json.loads((place / "merged" / "config.json").read_text())
    assert "quantization_config" not in config
    assert not (place / "merged" / "adapter_config.json").exists()


def test_a_merge_in_another_dtype_shows_what_it_costs(place: Path) -> None:
    directory, _, _ = finished_run("adapt.method=lora")
    result = export_merged(directory, place / "merged", "bfloat16")
    stored = load_file(place / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert 0 < abs(result.difference["loss"]) < 0.1


def test_a_merge_that_a_dtype_cannot_hold_is_not_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bigft.training import merge

    directory, _, _ = finished_run("adapt.method=lora")
    load = merge.on_its_base

    def large(*args: Any, **options: Any) -> Any:
        model = load(*args, **options)
        with torch.no_grad():
            model.get_base_model().bert.embeddings.word_embeddings.weight[3, 3] = 1e6
        return model

    monkeypatch.setattr(merge, "on_its_base", large)
    with pytest.raises(BadInput, match="has values that float16 cannot hold"):
        export_merged(directory, place / "merged", "float16")
    assert not [path for path in place.iterdir() if "merged" in path.name]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("full", "adapt.method full leaves a whole model; leave --merge out"),
        ("prompt", "adapt.method prompt adds no matrices to those of the model"),
    ],
)
def test_what_cannot_be_merged_is_refused(method: str, message: str, place: Path) -> None:
    directory, _, _ = finished_run(f"adapt.method={method}")
    with pytest.raises(BadInput, match=message):
        export_merged(directory, place / "merged")


def test_an_output_that_holds_something_is_refused(place: Path) -> None:
    directory, _, _ = finished_run("adapt.method=lora")
    (place / "there").mkdir()
    (place / "there" / "file").touch()
    for call in (export_merged, export_copy):
        with pytest.raises(BadInput, match="there: is there already; name another directory"):
            call(directory, place / "there")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_copy_is_the_model_in_another_dtype(method: str, place: Path) -> None:
    directory, _, model = finished_run(f"adapt.method={method}")
    export_copy(directory, place / "same")
    export_copy(directory, place / "half", "bfloat16")
    for before in directory.model.glob("*.safetensors"):
        same, half = (load_file(place / name / before.name) for name in ("same", "half"))
        for name, tensor in load_file(before).items():
            assert torch.equal(same[name], tensor)
            assert torch.equal(half[name], tensor.bfloat16())
    if method == "full":
        assert torch.equal(plain(place / "same"), logits(model))
        halved = transformers.AutoModelForTokenClassification.from_pretrained(place / "half")
        assert halved.dtype == torch.bfloat16


def test_a_base_that_is_gone_is_named(place: Path) -> None:
    directory, _, _ = finished_run("adapt.method=lora", f"model.model_name_or_path={place}/model")
    (place / "model").rename(place / "elsewhere")
    with pytest.raises(BadInput, match=r"model.model_name_or_path: there is no directory"):
        Trained.load(directory)


def test_an_adapter_that_does_not_fit_its_base_is_refused_with_all_that_peft_says(
    place: Path,
) -> None:
    """Behind a first line that says nothing it names the weights."""
    directory, _, _ = finished_run("adapt.method=lora")
    path = directory.model / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("query.lora_A.weight"))
    save_file(tensors | {name: tensors[name][:, :-1].contiguous()}, path, {"format": "pt"})
    with pytest.raises(BadInput) as caught:
        Trained.load(directory)
    (line,) = str(caught.value).splitlines()
    assert "its adapter cannot be loaded (RuntimeError: Error(s) in loading state_dict" in line
    assert "query.lora_A" in line
    assert "size mismatch" in line


@pytest.mark.parametrize("method", ["lora", "qlora", "prompt", "p-tuning", "ia3"])
def test_a_finished_run_answers_as_the_model_that_it_trained(method: str, place: Path) -> None:
    directory, run, model = finished_run(f"adapt.method={method}")
    trained = Trained.load(directory)
    assert trained.task.labels == run.task.labels
    assert torch.equal(logits(trained.model), logits(model))
    (answer,) = trained.predict([run.task.prompt("ann met bob", 0, "texts", 1)], 1)
    assert len(answer["tags"]) == 3


def test_virtual_tokens_leave_room_for_the_longest_row(place: Path) -> None:
    directory, run, _ = finished_run("adapt.method=p-tuning")
    record = run.task.prompt("a " * 100, 0, "texts", 1)  # the model takes 64 positions
    (answer,) = Trained.load(directory).predict([record], 4)
    assert len(answer["tags"]) == 100
