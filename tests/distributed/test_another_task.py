"""A task of another shape: rows without tokens, a real-valued target, random augmentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from bits import bits
from distributed.ranks import run_ranks
from distributed.scenarios import losses, train
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from bigft.config.sections import RunConfig
from bigft.data.records import Batch, Record, Row
from bigft.data.source import stream_splits
from bigft.data.split import PreparedSplit
from bigft.models.heads.swap import Head
from bigft.runtime.process_group import World
from bigft.tasks import TASKS
from bigft.tasks.protocol import Loss, Predicted, Prediction, Read, Reading, Setting, Task

pytestmark = pytest.mark.distributed
SIDE = 8


class Brightness(Task):
    auto_class = "AutoModelForImageClassification"

    def __init__(self, setting: Setting) -> None:
        self.labels, self._processor = [], setting.processor

    @classmethod
    def read(cls, config: RunConfig, reading: Reading | None = None) -> Read:
        return Read({**stream_splits(config.data, "image")}, [])

    def encode(self, record: Record) -> list[Row]:
        return [Row(record.index, 0, 1, length=1, num_targets=1, columns=dict(record.fields))]

    def collate(self, rows: Sequence[Row]) -> Batch:
        pictures = [np.array(row.columns["pixels"], np.uint8).reshape(SIDE, SIDE) for row in rows]
        shifted = [
            np.roll(picture, np.random.Generator(np.random.Philox(row.draw)).integers(SIDE), axis=1)
            for picture, row in zip(pictures, rows, strict=True)
        ]
        coloured = [np.repeat(picture[:, :, None], 3, axis=2) for picture in shifted]
        inputs = dict(self._processor(coloured, return_tensors="pt"))
        labels_B = torch.tensor([row.columns["score"][0] for row in rows])
        return Batch(inputs, labels_B, torch.arange(len(rows)), len(rows), len(rows), list(rows))

    def model_options(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def attach_head(self, model: Any) -> None:
        SquaredError(model)

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        output = engine(labels=batch.labels, rows=batch.target_rows_M, scale=scale, **batch.inputs)
        return Loss(output.loss, output.loss_sum)

    def predict(self, engine: Any, batch: Batch) -> Predicted:
        output = engine(labels=batch.labels, rows=batch.target_rows_M, **batch.inputs)
        return Predicted(output.loss_sum, [{"score": score} for score in output.scores_B.tolist()])

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        return parts[0]

    def metric(self, split: PreparedSplit | None = None) -> Any:
        return SimpleNamespace(update=zip, state=dict, merge=id, compute=dict, report=str)


class SquaredError(Head):
    def __call__(self, *, labels: Any, rows: Any, scale: float = 1.0, **inputs: Any) -> Any:
        scores_B = self.stock_forward(**inputs).logits[:, 0].float()
        loss = (scores_B[rows] - labels[rows]).square().sum()
        return SimpleNamespace(loss=loss * scale, loss_sum=loss.detach(), scores_B=scores_B)


def train_it(world: World, configs: list[dict[str, Any]], stop_at: int | None = None) -> list[Any]:
    TASKS["image-classification"] = Brightness
    return train(world, configs, stop_at)


def test_it_trains_on_two_ranks_and_goes_on_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    depth = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_dropout_prob": 0.1}
    shape = ViTConfig(image_size=SIDE, patch_size=4, hidden_size=16, intermediate_size=32, **depth)
    ViTForImageClassification(shape).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(tmp_path / "vit")
    pixels = np.random.default_rng(0).integers(0, 256, (26, SIDE * SIDE))
    rows = [{"pixels": row.tolist(), "score": [row.mean() / 100]} for row in pixels]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def config(name: str, **keys: Any) -> list[dict[str, Any]]:
        steps = {"num_train_epochs": 2.0, "global_batch_size": 5, "per_device_train_batch_size": 1}
        keys |= {"output_dir": str(tmp_path / name), "logging_steps": 1, **steps}
        data = {f"{split}_file": (str(tmp_path / "d.jsonl"),) for split in ("train", "test")}
        model = {"model_name_or_path": str(tmp_path / "vit")}
        given = {"task": {"name": "image-classification"}, "model": model, "data": data}
        optim = {"learning_rate": 0.003}
        return [given | {"optim": optim, "parallel": {"zero_stage": 2}, "train": keys}]

    ((whole,), _) = run_ranks(train_it, 2, config("whole"))
    ((begun,), _) = run_ranks(train_it, 2, config("cut"), 7)
    ((ended,), _) = run_ranks(train_it, 2, config("cut", resume_from_checkpoint=True))
    assert losses(begun) | losses(ended) == losses(whole)
    assert max(losses(begun)) == 7
    assert ended[1]["test_loss"] == whole[1]["test_loss"] < losses(whole)[1] / 2
    left = [load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut")]
    assert bits(left[0]) == bits(left[1])
