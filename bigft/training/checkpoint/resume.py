"""Which checkpoint a run continues, and what it must not have changed since."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigft.config.deepspeed import effective_zero_stage
from bigft.config.errors import BadInput, Problem
from bigft.config.fields import Decides, options_that_decide
from bigft.data.fingerprint import VERSION, content_by_files
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint.manifest import Damaged, Manifest

if TYPE_CHECKING:
    from bigft.training.run import Run

KEY = "train.resume_from_checkpoint"
# What a run that branches off from another's checkpoint may choose anew.
FREE_TO_BRANCH = ("optim.", "train.seed")
TIED_TO_SHARDS = ("optim.optim", "optim.layerwise_lr_decay")  # whose state, in how many groups
SECTIONS = {"topology", "recorded", "rows", "batch"}
SECTIONS_OF_A_CONFIG = ("train.", "model.")  # among what is recorded
OF_ROUNDING = {"train.gradient_checkpointing"}  # computes the same in another order
# Kept by packed runs alone, and compared where both are packed.
OF_PACKING = ("data.packing_strategy", "data.max_seq_length")
# What a step is made of; what states it; and what it follows from, beside ranks and `batch`.
STEP_SIZES = ("global_batch_size", "global_batch_tokens")
STATE_THE_SIZE = ("train.global_batch_size", "train.global_batch_tokens")
MAKE_THE_SIZE = {"data.packing", "data.max_seq_length"}
# Options of data that are places, or of evaluation: not what changed the training rows.
NOT_OF_TRAINING_ROWS = {
    *("data.train_file", "data.validation_file", "data.test_file", "data.dataset_name"),
    *("data.chat_template", "data.max_eval_samples"),
}
# Of a model's config: what changes no number, and labels, which are the data's.
NOT_OF_ARCHITECTURE = {
    *("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype"),
    *("use_cache", "id2label", "label2id", "num_labels"),
}


def resume_fingerprint(
    run: Run, world_size: int, arithmetic: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a run that goes on must keep, by dotted key, as JSON values.

    `topology`: what DeepSpeed's own shards are tied to.  `recorded`: what may differ, and makes
    another run of it, in the last bits or in the learning rate's course.  `rows`: options that
    make rows of the data; where `data` differs they tell why.  `batch`: those that make the size
    of a step.
    arithmetic: `bigft.runtime.machine.arithmetic`; None where there are no ranks yet.
    """
    from bigft.models.load import load_model_config
    from bigft.training.batch import global_batch
    from bigft.training.run import versions

    config = run.config
    train, data, model = config.train, config.data, config.model
    architecture = load_model_config(model).to_dict()
    kept: dict[str, Any] = {
        "data": run.data_fingerprint,
        "data.interleave_probs": data.interleave_probs,
        "data.packing": data.packing,
        **{f"architecture.{key}": value for key, value in architecture.items()
           if key not in NOT_OF_ARCHITECTURE},
        **_keyed("adapt", config.adapt.model_dump(mode="json")),
        **_keyed("task", options_that_decide(config.task, Decides.BATCHES)),
        **global_batch(config, world_size),
        "train.seed": train.seed,
        **_keyed("optim", config.optim.model_dump(mode="json")),
        "topology": {
            "world_size": world_size,
            "parallel.zero_stage": effective_zero_stage(config),
            "train.bf16": train.bf16,
            "train.fp16": train.fp16,
        },
        "recorded": {
            **versions(),
            **(arithmetic or {}),
            "train.max_steps": train.max_steps,
            "train.num_train_epochs": train.num_train_epochs,
            "train.per_device_train_batch_size": train.per_device_train_batch_size,
            "train.per_device_train_batch_tokens": train.per_device_train_batch_tokens,
            "train.gradient_checkpointing": train.gradient_checkpointing,
            "train.full_determinism": train.full_determinism,
            "model.attn_implementation": model.attn_implementation,
        },
        "batch": {
            "train.global_batch_size": train.global_batch_size,
            "train.global_batch_tokens": train.global_batch_tokens,
            "train.per_device_train_batch_size": train.per_device_train_batch_size,
            "train.gradient_accumulation_steps": train.gradient_accumulation_steps or 1,
        },
        "rows": {
            **_keyed("task", options_that_decide(config.task, Decides.ROWS)),
            **{key: value for key, value
               in _keyed("data", options_that_decide(data, Decides.ROWS)).items()
               if key not in NOT_OF_TRAINING_ROWS},
        },
    }  # fmt: skip
    if data.packing:
        kept |= {key: getattr(data, key.removeprefix("data.")) for key in OF_PACKING}
    if config.adapt.method != "full":  # the frozen part is in no checkpoint
        kept["model.revision"] = model.revision
        kept["model.from_scratch"] = model.from_scratch and train.seed
    jsoned: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return jsoned


def _completed(before: dict[str, Any], run: Run) -> dict[str, Any]:
    """The fingerprint of a checkpoint with the options that bigft did not have when it was written:
    it ran as their defaults do. Where its data is named in an older form and is that of the run,
    in the run's."""
    config, data = run.config, before.get("data")
    is_older = "train" in run.splits and not str(data).startswith(VERSION)
    if is_older and data == content_by_files(run.splits["train"], run.task.labels):
        before = before | {"data": run.data_fingerprint}
    defaults: dict[str, Any] = {}
    for section in ("adapt", "optim"):
        options = type(getattr(config, section)).model_construct().model_dump(mode="json")
        defaults |= _keyed(section, options)
    defaults |= _keyed(
        "task", options_that_decide(type(config.task).model_construct(), Decides.BATCHES)
    )
    return defaults | before


def _keyed(section: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": value for name, value in options.items()}


def checkpoint_to_resume(run: Run, directory: RunDirectory, world_size: int) -> Path | None:
    """The checkpoint that train.resume_from_checkpoint means; None: start from the beginning.

    Reads no shard: `CheckpointStore.verified` does.
    Raises BadInput if the named one is none, if all that are there are damaged (the newest, where
    checkpoint.strict), or if the config, compared with it, changes what must stay.
    """
    candidates = _candidates(run.config.train.resume_from_checkpoint, directory)
    if not candidates:
        return None
    if run.config.checkpoint.strict:
        del candidates[1:]
    damages = []
    for checkpoint in candidates:
        try:
            manifest = _committed(checkpoint)
        except Damaged as damaged:
            fix = "restore it, or name another checkpoint-<step>"
            damages.append(Problem(KEY, f"{checkpoint}: {damaged}", fix))
            continue
        now = resume_fingerprint(run, world_size)
        before = _completed(manifest.fingerprint, run)
        problems, _ = _compared(directory, checkpoint, before, now)
        if problems:
            raise BadInput(problems)
        return checkpoint
    raise BadInput(damages)


def _candidates(wanted: bool | str | Path, directory: RunDirectory) -> list[Path]:
    """What may be gone on from, in the order to try. `true` in a run that branched off and has no
    checkpoint of its own yet means what it branched off from."""
    if wanted is False:
        return []
    if wanted is not True:
        return [Path(wanted).resolve()]
    if own := [path for _, path in reversed(directory.named_checkpoints())]:
        return own
    origin = directory.branched_from
    return [] if origin is None else [origin]


def resume_notes(
    run: Run, directory: RunDirectory, checkpoint: Path, fingerprint: dict[str, Any]
) -> list[str]:
    """What a user should know of going on from this checkpoint, one sentence each: newer ones that
    are damaged, what this run may choose anew and did, other versions, threads and processors.

    fingerprint: of this run.
    """
    notes = []
    if run.config.train.resume_from_checkpoint is True:
        for _, newer in reversed(directory.named_checkpoints()):
            if newer == checkpoint:
                break
            try:
                _committed(newer)
            except Damaged as damaged:
                notes.append(f"{newer} is not used: {damaged}")
    before = _completed(Manifest.read(checkpoint).fingerprint, run)
    notes += _compared(directory, checkpoint, before, fingerprint)[1]
    return notes


def _committed(checkpoint: Path) -> Manifest:
    """Raises Damaged where that is seen without reading a shard."""
    manifest = Manifest.read(checkpoint)
    manifest.check_state(checkpoint)
    return manifest


def _compared(
    directory: RunDirectory, checkpoint: Path, before: dict[str, Any], now: dict[str, Any]
) -> tuple[list[Problem], list[str]]:
    """What must not differ and does, and notes on what may.

    before, now: the fingerprints of the checkpoint and of the run that goes on.
    """
    branches = not directory.holds(checkpoint)
    problems, notes = [], []
    for key, (then, here) in _changed_keys(before, now).items():
        free = key.startswith(FREE_TO_BRANCH) and key not in TIED_TO_SHARDS
        what = f"{checkpoint} was trained with {key} {_text(then)}, this config says {_text(here)}"
        fix = f"keep {key} of the run that continues"
        if key == "data":
            what = f"{checkpoint} was trained on other data, tokenizer or task options"
            fix = "restore them, or start anew in another train.output_dir"
        elif free and branches:
            notes.append(f"{key} is {_text(here)} from here on; {checkpoint} had {_text(then)}")
            continue
        elif free:
            fix += f", or branch off: another train.output_dir with {KEY}={checkpoint}"
        problems.append(Problem(KEY, what, fix))
    for key, then, here in _changes(before.get("topology", {}), now["topology"]):
        what = f"{checkpoint} was saved with {key} {_text(then)}, here it is {_text(here)}"
        fix = f"keep {key} of the run that continues (another is not supported yet)"
        if key == "world_size":
            what = f"{checkpoint} was saved by {then} ranks, these are {here}"
            fix = f"start {then} ranks (another number is not supported yet)"
        problems.append(Problem(KEY, what, fix))
    recorded = before.get("recorded", {})
    for key, then, here in _changes(recorded, now["recorded"]):
        if key not in recorded:
            continue  # an earlier bigft did not record it
        differ = "losses will not be those of a run that kept it"
        if not key.startswith(SECTIONS_OF_A_CONFIG) or key in OF_ROUNDING:
            differ = "the last bits of losses and weights may differ"
        values = f"{key} {_text(then)}, this is {_text(here)}"
        notes.append(f"{checkpoint} was written with {values}: {differ}")
    return problems, notes


def _changed_keys(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What a run that goes on must keep and does not, by the key that a user changes, with its two
    values: what follows from a changed key is left out."""
    if isinstance(packed := before.get("data.packing"), list):  # as older checkpoints have it
        before = before | {"data.packing": True} | dict(zip(OF_PACKING, packed, strict=True))
    changed = {key: (then, here) for key, then, here in _changes(before, now)}
    sizes = {key: changed.pop(key) for key in STEP_SIZES if key in changed}
    if sizes:
        options = _changed_batch(before, now)
        same_ranks = before["topology"]["world_size"] == now["topology"]["world_size"]
        follows = options or MAKE_THE_SIZE & changed.keys() or not same_ranks
        changed |= options if follows else sizes
    then_rows = before.get("rows", {})
    known = {key: now["rows"].get(key) for key in then_rows}  # newer options tell nothing
    if "data" in changed and (of_rows := list(_changes(then_rows, known))):
        del changed["data"]
        changed |= {key: (then, here) for key, then, here in of_rows}
    return changed


def _changed_batch(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options that changed of those that make a step's size; where the config states the size,
    that alone."""
    then, here = before.get("batch", before.get("recorded", {})), now["batch"]
    known = [key for key in here if key in then]  # an older checkpoint has less of it
    options = {key: (then[key], here[key]) for key in known if then[key] != here[key]}
    return {key: options[key] for key in STATE_THE_SIZE if key in options} or options


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, then, here) of the values that differ, but for those that are sections themselves."""
    for key in sorted({*before, *now} - SECTIONS):
        in_both = key in before and key in now
        if not in_both and (key.startswith(("architecture.", "model.")) or key in OF_PACKING):
            continue  # only one of two versions of transformers knows the field; only one run is
            # packed, or has a frozen part
        then, here = before.get(key), now.get(key)
        if then != here:
            yield key, then, here


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
