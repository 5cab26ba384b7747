"""Everything that is refused before any accelerator is touched, told in one go."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bigft.config.deepspeed import deepspeed_config
from bigft.config.errors import BadInput, Problem, collect, reason
from bigft.config.load import check_batch
from bigft.config.sections import RunConfig
from bigft.config.tag_names import OUTSIDE
from bigft.models.adapt import is_peft
from bigft.models.load import load_model, load_model_config
from bigft.models.weights import fit_of
from bigft.runtime.clock import clock_for
from bigft.runtime.launcher import Launch
from bigft.runtime.machine import check_accelerators, check_libraries, check_port
from bigft.runtime.run_directory import RunDirectory
from bigft.tasks import TASKS
from bigft.training.batch import global_batch
from bigft.training.best import Judge
from bigft.training.compiled import check_compiler
from bigft.training.export import only_says_tied, unsaved_generation_fields, write_model
from bigft.training.inputs import Known, prepare
from bigft.training.optimizers import checkpoint_bytes
from bigft.training.run import Run
from bigft.training.schedule_notes import schedule_notes

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MANY_BYTES = 2e9  # of checkpoints that are all kept: worth a note


def preflight(config: RunConfig, launch: Launch, here: bool = True, begins: bool = True) -> Run:
    """The run with its data prepared. Writes nothing but prepared data.

    here: whether the run's ranks are on this machine, so that its accelerators matter.
    begins: whether the run is about to begin, so that its directory must be free.
    Raises BadInput with every problem of options, data, model and machine that can be seen.
    """
    check_libraries()  # alone: without models nothing else can be looked at
    directory = RunDirectory(config.train.output_dir)
    resume = config.train.resume_from_checkpoint
    run: Run | None = None
    skeleton: PreTrainedModel | None = None
    problems: list[Problem] = []
    with collect(problems):
        check_batch(config, launch.world_size)
    with collect(problems):
        deepspeed_config(config, launch.world_size)
    if here:
        with collect(problems):
            check_accelerators(config.train, launch)
        with collect(problems):
            if config.optim.optim == "cpu_adam":
                check_compiler("cpu_adam", "optim.optim")
    if launch.rank == 0:
        with collect(problems):
            check_port(launch)
        with collect(problems):
            if begins:
                directory.check(resume=resume)
    with collect(problems):
        run = prepare(config, Known(clock=clock_for(directory, resume)))
    with collect(problems):
        skeleton = _skeleton(config, run)
    if run is not None:
        with collect(problems):
            check_metric(run)
        with collect(problems):
            check_labels(run)
        with collect(problems):
            check_rows(run)
    if run is not None and skeleton is not None:
        with collect(problems):
            run = replace(run, notes=[*run.notes, *check_export(run, skeleton)])
    if problems or run is None or skeleton is None:
        raise BadInput(problems)
    run = replace(run, notes=[*run.notes, *fit_of(skeleton).notes])
    if launch.rank == 0:
        kept = check_space(run, skeleton, directory, launch.world_size)
        run = replace(run, notes=[*run.notes, *kept])
    if resume is not False:
        from bigft.training.checkpoint import checkpoint_to_resume

        checkpoint_to_resume(run, directory, launch.world_size)
    order = run.order(global_batch(config, launch.world_size))
    return replace(run, notes=[*run.notes, *schedule_notes(config, order)])


def _skeleton(config: RunConfig, run: Run | None) -> PreTrainedModel | None:
    """The model without values. Where its labels are not known, with others or not at all."""
    if run is not None:
        return run.build_model("meta")
    if not Path(config.model.model_name_or_path).is_dir():
        return None  # a hub that did not answer is not called again
    auto_class = TASKS[config.task.name].auto_class
    return load_model(config.model, load_model_config(config.model), auto_class, device="meta")


def check_metric(run: Run) -> None:
    """Raises BadInput if evaluations will not have the metric that tells the best checkpoint."""
    metric = Judge.of(run.config.train).metric
    names = sorted({*run.task.metric().compute(), "loss"})
    if metric in names:
        return
    nearest = get_close_matches(metric, names, n=1)
    fix = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(names)}"
    what = f"no metric {run.config.train.metric_for_best_model!r}"
    raise BadInput(Problem("train.metric_for_best_model", what, fix))


def check_labels(run: Run) -> None:
    """Raises BadInput if nothing is labelled in the training set."""
    if run.task.labels != [OUTSIDE]:
        return
    data = run.config.data
    key = "data.dataset_name" if data.dataset_name is not None else "data.train_file"
    found = f"no entity in it: every label is {OUTSIDE}, and there is nothing to learn"
    raise BadInput(Problem(key, found, "check the labels, and data.label_column_name"))


def check_export(run: Run, model: PreTrainedModel) -> list[str]:
    """Writes all of `model/` but the weights, to a temporary directory; what a user should know of
    it, one sentence each. Raises BadInput for what would fail after training.

    model: as it will be trained, but without values.
    """
    unsaved, is_untied = unsaved_generation_fields(model), only_says_tied(model)
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_model(model, run.processor, {}, Path(folder, "model"))
        except Exception as error:  # of every kind: configs, tokenizers, adapters
            what = f"it could be trained, but not saved ({reason(error)})"
            fix = "correct the file of the model or the key of the config that this is about"
            raise BadInput(Problem("model.model_name_or_path", what, fix)) from error
    notes = []
    if is_untied and not is_peft(run.config.adapt):
        notes.append(
            "config.json says tie_word_embeddings: true, but the head is stored apart from the "
            "embeddings and is trained apart: that of model/ says false"
        )
    if not unsaved:
        return notes
    fields = ", ".join(f"{name} {value}" for name, value in unsaved.items())
    return [
        *notes,
        f"the base's generation config has {fields}, which transformers refuses to save beside its "
        "other fields: model/ is written without",
    ]


def check_rows(run: Run) -> None:
    """Raises BadInput if there is nothing to train on, or a row that fits into no batch."""
    train, data = run.config.train, run.config.data
    if "train" not in run.splits:
        raise BadInput(Problem("data.dataset_name", "has no split 'train'", "name another"))
    longest = int(run.splits["train"].lengths.max())
    if data.packing and data.max_seq_length is not None:
        longest = data.max_seq_length  # a full row
    problems = [
        Problem(
            f"train.{key}",
            f"{bound} {run.task.unit}, but the longest row has {longest}",
            f"give at least {longest}, or set data.max_seq_length",
        )
        for key in ("global_batch_tokens", "per_device_train_batch_tokens")
        if (bound := getattr(train, key)) is not None and bound < longest
    ]
    problems += _without_samples(run)
    if problems:
        raise BadInput(problems)


def _without_samples(run: Run) -> Iterator[Problem]:
    """Files that have a share of an epoch and nothing to give."""
    data = run.config.data
    if data.interleave_probs is None:
        return
    named = data.sources
    counts = np.bincount(run.splits["train"].source_of_row(named), minlength=len(named))
    for file in [file for file, count in zip(named, counts, strict=True) if not count]:
        yield Problem(
            "data.interleave_probs",
            f"a share for {file}, of which no sample is used",
            "take it out, or raise data.max_train_samples",
        )


def check_space(
    run: Run, model: PreTrainedModel, directory: RunDirectory, world_size: int
) -> list[str]:
    """A note where all of many checkpoints stay. Raises BadInput if the disk is too full for them
    and the model, by a lower bound.

    model: only its shapes are looked at.
    """
    train = run.config.train
    order = run.order(global_batch(run.config, world_size))
    total_steps = order.total_steps(train.num_train_epochs, train.max_steps)
    checkpoints = {
        "no": 0,
        "best": 2,  # and the last
        "epoch": math.ceil(total_steps / order.steps_in_epoch(0)),
        "steps": math.ceil(total_steps / train.save_steps),
    }[train.save_strategy]
    if train.load_best_model_at_end:
        checkpoints = max(checkpoints, 2)
    if train.save_total_limit is not None:
        checkpoints = min(checkpoints, train.save_total_limit + 1)  # a new one comes first
    checkpoints = max(0, checkpoints - len(directory.checkpoints()))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    left = trainable if is_peft(run.config.adapt) else sum(p.numel() for p in model.parameters())
    each = checkpoint_bytes(run.config.optim, trainable)
    needed = checkpoints * each
    needed += left * (2 if train.bf16 or train.fp16 else 4)
    place = directory.nearest()
    free = shutil.disk_usage(place).free
    if needed > free:
        raise BadInput(
            Problem(
                "train.output_dir",
                f"{checkpoints} checkpoints and the model need {needed / 1e9:.1f} GB or more, "
                f"but {place} has {free / 1e9:.1f} GB free",
                "set train.save_total_limit, or choose another disk",
            )
        )
    if train.save_total_limit is not None or checkpoints <= 2 or checkpoints * each < MANY_BYTES:
        return []
    return [
        f"{checkpoints} checkpoints of {each / 1e9:.1f} GB or more each are kept, "
        f"{checkpoints * each / 1e9:.1f} GB in all; train.save_total_limit: 2 keeps the newest two "
        "and the best"
    ]
