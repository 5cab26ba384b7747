"""What one rank with a real DeepSpeed engine does in the tests of this folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from bits import IDS_BT, bits, logits, whole
from tiny import letter_tokenizer, tiny_model

from bigft.config.deepspeed import deepspeed_config
from bigft.config.errors import BadInput
from bigft.config.sections import RunConfig
from bigft.models.heads.token import attach_token_head
from bigft.runtime.lock import LockLost
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import CheckpointStore, TrainerState
from bigft.training.engine import build_engine
from bigft.training.evaluate import evaluate
from bigft.training.export import export_model
from bigft.training.inputs import prepare
from bigft.training.optimizers import OPTIMIZERS, parameter_groups

HEADED = "AutoModelForTokenClassification"


class Canary:
    """A class that no shard may hold: unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def engine_of(world: World, stage: int, auto_class: str = HEADED) -> Any:
    config = RunConfig.model_validate(
        {
            "task": {"name": "token-classification"},
            "model": {"model_name_or_path": "unused"},
            "parallel": {"zero_stage": stage},
            "optim": {"learning_rate": 0.01},
            "train": {"output_dir": "unused"},
        }
    )
    model = tiny_model(auto_class=auto_class)
    if auto_class == HEADED:
        attach_token_head(model)
    groups = parameter_groups(model, config.optim, set())
    optimizer = OPTIMIZERS["adamw_torch"](groups, config.optim)
    return build_engine(model, optimizer, deepspeed_config(config, world.size))


def train(engine: Any, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        random = torch.Generator().manual_seed(step)
        ids_BT = torch.randint(4, 200, (4, 9), generator=random)
        loss = engine(labels_BT=ids_BT % 5, input_ids=ids_BT).loss
        engine.backward(loss, scale_wrt_gas=False)
        engine.step()
        losses.append(loss.item())
    return losses


def save_and_load(world: World, directory: str, stage: int) -> tuple[list[float], list[float]]:
    """The losses of two steps, and of the same two after a new engine loaded what was saved."""
    store = CheckpointStore(RunDirectory(directory), world, None, {}, False)
    first = engine_of(world, stage)
    train(first, 3)
    checkpoint = store.save(first, TrainerState(step=3)).path
    assert checkpoint is not None
    expected = train(first, 2)
    second = engine_of(world, stage)
    train(second, 1)
    store.load(second, checkpoint)
    return expected, train(second, 2)


def load_damaged(world: World, directory: str, stage: int, canary: str) -> dict[str, Any]:
    """By shard, and by damage: what loading it raised, as (class, message). Nothing verified it."""
    store = CheckpointStore(RunDirectory(directory), world, None, {}, False)
    engine = engine_of(world, stage)
    train(engine, 1)
    checkpoint = store.save(engine, TrainerState(step=1)).path
    assert checkpoint is not None
    seen = {}
    for shard in sorted((checkpoint / "ds").iterdir()):
        content = shard.read_bytes()
        torch.save({"module": Canary(canary), "optimizer_state_dict": Canary(canary)}, shard)
        seen[shard.name, "foreign class"] = _refusal(store, engine_of(world, stage), checkpoint)
        shard.write_bytes(content[: len(content) // 2])
        seen[shard.name, "cut short"] = _refusal(store, engine_of(world, stage), checkpoint)
        shard.unlink()
        seen[shard.name, "missing"] = _refusal(store, engine_of(world, stage), checkpoint)
        shard.write_bytes(content)
    return seen


def _refusal(store: CheckpointStore, engine: Any, checkpoint: Path) -> tuple[str, str]:
    try:
        store.load(engine, checkpoint)
    except BadInput as error:
        return "BadInput", str(error)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def export(
    world: World, directory: str, stage: int, auto_class: str
) -> tuple[list[Any], list[Any], dict[str, str]]:
    """Exports an engine, of the task's head after two steps: the logits that it answers with, those
    of plain transformers in the same process, and the bits of the live weights."""
    engine = engine_of(world, stage, auto_class)
    if auto_class == HEADED:
        train(engine, 2)
    export_model(engine, letter_tokenizer(), RunDirectory(directory), world)
    plain = getattr(transformers, auto_class).from_pretrained(Path(directory, "model"))
    engine.eval()
    with torch.no_grad():
        if auto_class == HEADED:
            ours = engine(labels_BT=IDS_BT % 5, input_ids=IDS_BT).logits_BTC.tolist()
        else:
            ours = engine(input_ids=IDS_BT).logits.tolist()
    with whole(engine.module.parameters()):
        return ours, logits(plain), bits(engine.module.state_dict())


def export_where_the_lock_is_lost(world: World, directory: str) -> str:
    """What each rank is told when another host takes the directory over during the export."""
    run = RunDirectory(directory)
    if world.is_first:
        run.claim(resume=False)
        lock = run.path / "LOCK"
        lock.write_text(json.dumps(json.loads(lock.read_text()) | {"host": "another", "pid": 1}))
    try:
        export_model(engine_of(world, 0, HEADED), letter_tokenizer(), run, world)
    except LockLost as lost:
        return str(lost)
    return ""


def evaluate_split(world: World, config: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """Scores, report, and the index of every record that this rank answered."""
    run = prepare(RunConfig.model_validate(config))
    seen: list[int] = []
    result = evaluate(
        run.build_model(),
        run.task,
        run.splits["validation"],
        batch_size,
        world,
        lambda record, prediction: seen.append(record.index),
    )
    return {"scores": result.scores, "report": result.report, "records": seen}
