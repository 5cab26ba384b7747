"""A finished run's model on one device, ready to be evaluated or asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from bigft.config.draft import COMMAND_LINE
from bigft.config.errors import BadInput, Problem, collect, reason
from bigft.config.load import load_config
from bigft.config.sections import DataConfig, ModelConfig, RunConfig
from bigft.data.records import Record, Row
from bigft.data.source import SPLITS, files_of
from bigft.data.tag_spellings import Tagging
from bigft.models.adapt import load_options
from bigft.models.cpu_bf16 import emulates_bf16, multiply_in_fp32
from bigft.models.heads.labels import labels_by_id
from bigft.models.load import load_model, load_model_config
from bigft.models.processors import load_processor
from bigft.runtime.machine import check_libraries
from bigft.runtime.process_group import World, choose_accelerator
from bigft.runtime.run_directory import RunDirectory
from bigft.tasks import TASKS
from bigft.tasks.protocol import Prediction, Prompts, Setting, Task
from bigft.training.batch import row_limit
from bigft.training.evaluate import Evaluation, evaluate
from bigft.training.export import ADAPTER_CONFIG
from bigft.training.inputs import Known, prepare
from bigft.training.run import Run, compute_dtype


@dataclass(frozen=True)
class Trained:
    """config: the run's, with the trained model in the place of the pretrained one; of an adapter
    the pretrained one stays, and the tokenizer is the run's.
    known: what the run's data was read with."""

    config: RunConfig
    task: Task
    processor: Any
    model: Any
    world: World
    known: Known

    @classmethod
    def load(
        cls,
        directory: RunDirectory,
        overrides: Sequence[str] = (),
        clock: date | None = None,
        given_by: str = COMMAND_LINE,
    ) -> Trained:
        """overrides: `section.key=value`, put over the run's config.  clock: what a chat template
        takes for today; None: the present.  given_by: what messages call the place of overrides.

        Raises BadInput if the directory holds no run, the run left no model, or the base of its
        adapter is no longer there.
        """
        about = directory.read()
        if not directory.model.is_dir():
            raise BadInput(
                Problem(str(directory.path), "no model/ in it", "let the run finish first")
            )
        config = load_config(str(directory.config_file), overrides, given_by).config
        known = Known(tagging=Tagging.of(about.get("tagging")), clock=clock)
        return cls.at(config, directory.model, known)

    @classmethod
    def at(
        cls,
        config: RunConfig,
        place: Path,
        known: Known,
    ) -> Trained:
        """The same for what a run of that config exported to `place`; its labels are the
        model's."""
        choose_accelerator()  # before peft imports deepspeed, which guesses, and tells of it
        check_libraries()
        has_adapter = (place / ADAPTER_CONFIG).is_file()
        exported = _exported(config.model, place)
        model_section = exported
        if has_adapter:
            model_section = config.model.model_copy(update={"tokenizer_name": str(place)})
        # The chat template is the exported tokenizer's; its file may be gone.
        data = config.data.model_copy(update={"chat_template": None})
        config = config.model_copy(update={"model": model_section, "data": data})
        task_class = TASKS[config.task.name]
        processor = load_processor(exported, config.task.reads)
        exported_config = load_model_config(exported)
        has_labels = config.task.answers_in == "labels"
        stated = exported_config.to_dict()
        known = replace(
            known,
            labels=labels_by_id(exported_config) if has_labels else [],
            facts={name: stated[name] for name in task_class.facts if name in stated},
        )
        limit = row_limit(config, processor, exported_config)
        setting = Setting(config, processor, known.labels or (), limit, known.clock, known.facts)
        task = task_class(setting)
        task.use_tuned(stated)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if has_adapter:
            model: Any = on_its_base(config, task, place)
        else:
            model = load_model(exported, exported_config, task.auto_class, dtype="auto")
        task.attach_head(model)
        if model.dtype == torch.bfloat16 and emulates_bf16(device):
            multiply_in_fp32(model)
        world = World(0, 0, 1, device, None)
        return cls(config, task, processor, model.to(device).eval(), world, known)

    def evaluate(
        self,
        split: str,
        batch_size: int,
        on_prediction: Callable[[Record, Prediction], None] | None = None,
    ) -> Evaluation:
        """Scores of one split of the run's data. on_prediction: sees each record with its answer.

        Raises BadInput if the config names no such split.
        """
        data = self.config.data
        if data.dataset_name is None:
            files = getattr(data, f"{split}_file")
            if not files:
                raise BadInput(_no_files(data, split))
            only = {f"{name}_file": () for name in SPLITS}
            data = data.model_copy(update={**only, f"{split}_file": files})
        config = self.config.model_copy(update={"data": data})
        run: Run = prepare(config, self.known)
        if split not in run.splits:
            fix = f"there are {', '.join(run.splits)}"
            raise BadInput(Problem("data.dataset_name", f"has no split {split!r}", fix))
        measured = evaluate(
            self.model, self.task, run.splits[split], batch_size, self.world, on_prediction
        )
        return measured._replace(notes=tuple(run.notes))

    @torch.no_grad()
    def predict(self, records: Iterable[Record], batch_size: int) -> Iterator[Prediction]:
        """One answer per record, in order, as the records come.

        Raises BadInput at the end, naming every record that the task cannot use; the others are
        answered.
        """
        task, problems = self.task, list[Problem]()
        if not isinstance(task, Prompts):
            what = f"task {self.config.task.name} takes no prompts"
            raise BadInput(Problem("task.name", what, "evaluate it on a file instead"))

        def encoded() -> Iterator[tuple[Record, list[Row]]]:
            for record in records:
                with collect(problems):
                    yield record, task.encode_prompt(record)

        source = encoded()
        while chunk := list(islice(source, batch_size)):
            rows = [row for _, rows_of_record in chunk for row in rows_of_record]
            parts: dict[int, list[Prediction]] = {record.index: [] for record, _ in chunk}
            for start in range(0, len(rows), batch_size):
                batch = self.task.collate(rows[start : start + batch_size])
                answers = task.answer(self.model, batch.to(self.world.device))
                for row, part in zip(batch.rows, answers, strict=True):
                    parts[row.record].append(part)
            for record, _ in chunk:
                yield self.task.stitch(parts[record.index], record)
        if problems:
            raise BadInput(problems)


def _no_files(data: DataConfig, split: str) -> Problem:
    key = f"data.{split}_file"
    others = [f"--split {name}" for name in SPLITS if files_of(data, name)]
    fix = " or ".join([f"give {key}=FILE", *others])
    return Problem(key, "the run's config names none", fix)


def _exported(model: ModelConfig, place: Path) -> ModelConfig:
    """The model section that reads what was exported there."""
    source: dict[str, Any] = {
        "model_name_or_path": str(place),
        "tokenizer_name": None,
        "revision": None,
        "from_scratch": False,
        "config_overrides": {},
    }
    return model.model_copy(update=source)


def on_its_base(config: RunConfig, task: Task, place: Path, precise: bool = False) -> Any:
    """The adapter at `place` on its base, which is as the run had it, dtype and quantisation too.

    precise: in fp32, a quantised base in plain matrices of the numbers that training multiplied
        with.
    Raises BadInput if either cannot be loaded.
    """
    from peft import PeftModel

    dtype = compute_dtype(config.train)
    quantised = load_options(config.adapt, dtype)
    base: Any = load_model(
        config.model,
        load_model_config(config.model, **task.model_options()),
        task.auto_class,
        dtype=dtype if quantised or not precise else "float32",
        **quantised,
    )
    if precise:
        base = (base.dequantize() if quantised else base).float()
    try:
        return PeftModel.from_pretrained(base, str(place), autocast_adapter_dtype=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        what = f"its adapter cannot be loaded ({reason(error)})"
        raise BadInput(Problem(str(place), what, "export it again")) from error
