"""A finished run's model on one device, ready to be evaluated or asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from bigft.config.errors import BadInput, Problem
from bigft.config.load import load_config
from bigft.config.sections import RunConfig
from bigft.data.records import Record
from bigft.models.cpu_bf16 import emulates_bf16, multiply_in_fp32
from bigft.models.load import load_model, load_model_config, load_tokenizer, max_positions
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.tasks import TASKS
from bigft.tasks.protocol import Prediction, Task
from bigft.training.build import Run, prepare, window_length
from bigft.training.evaluate import Evaluation, evaluate


@dataclass(frozen=True)
class Trained:
    """config: the run's, with the trained model in the place of the pretrained one."""

    config: RunConfig
    task: Task
    model: Any
    world: World

    @classmethod
    def load(cls, directory: RunDirectory) -> Trained:
        """Raises BadInput if the directory holds no run or the run left no model."""
        directory.read()
        if not directory.model.is_dir():
            raise BadInput(
                Problem(str(directory.path), "no model/ in it", "let the run finish first")
            )
        config = load_config(str(directory.config_file)).config
        source: dict[str, Any] = {
            "model_name_or_path": str(directory.model),
            "tokenizer_name": None,
            "revision": None,
            "from_scratch": False,
            "config_overrides": {},
        }
        config = config.model_copy(update={"model": config.model.model_copy(update=source)})
        tokenizer = load_tokenizer(config.model)
        model_config = load_model_config(config.model)
        names: Any = model_config.id2label
        labels = [names[index] for index in sorted(names)]
        length = window_length(config.data, max_positions(tokenizer, model_config))
        task_class = TASKS[config.task.name]
        task = task_class(config, tokenizer, labels, length)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = load_model(config.model, model_config, task_class.auto_class, dtype="auto")
        task.attach_head(model)
        if model.dtype == torch.bfloat16 and emulates_bf16(device):
            multiply_in_fp32(model)
        return cls(config, task, model.to(device).eval(), World(0, 0, 1, device, None))

    def evaluate(self, split: str, batch_size: int) -> Evaluation:
        """Scores of one split of the run's data. Raises BadInput if the config names none."""
        data = self.config.data
        if data.dataset_name is None:
            files = getattr(data, f"{split}_file")
            if not files:
                raise BadInput(
                    Problem(f"data.{split}_file", "the run's config names none", "name another")
                )
            only = {f"{name}_file": () for name in ("train", "validation", "test")}
            data = data.model_copy(update={**only, f"{split}_file": files})
        run: Run = prepare(self.config.model_copy(update={"data": data}), self.task.labels)
        if split not in run.splits:
            raise BadInput(Problem("data.dataset_name", f"has no split {split!r}"))
        return evaluate(self.model, run.task, run.splits[split], batch_size, self.world)

    @torch.no_grad()
    def predict(self, records: Iterable[Record], batch_size: int) -> Iterator[Prediction]:
        """One answer per record, in order, as the records come."""
        source = iter(records)
        while chunk := list(islice(source, batch_size)):
            features = [feature for record in chunk for feature in self.task.encode(record)]
            parts: dict[int, list[Prediction]] = {record.index: [] for record in chunk}
            for start in range(0, len(features), batch_size):
                batch = self.task.collate(features[start : start + batch_size])
                predicted = self.task.predict(self.model, batch.to(self.world.device))
                for feature, part in zip(batch.features, predicted.parts, strict=True):
                    parts[feature.record].append(part)
            for record in chunk:
                yield self.task.stitch(parts[record.index], record)
