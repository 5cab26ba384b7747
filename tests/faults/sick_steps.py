"""What ranks do in test_nonfinite.py: a few steps of a small causal LM, one of them made sick."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from distributed.scenarios import train
from tiny import tiny_model
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from bigft.config.deepspeed import deepspeed_config
from bigft.config.sections import RunConfig
from bigft.data.records import Batch, Record
from bigft.models.heads.lm import attach_lm_head
from bigft.runtime.process_group import World
from bigft.tasks.protocol import Loss
from bigft.tasks.text_rows import text_row
from bigft.training import loop
from bigft.training.engine import build_engine
from bigft.training.nonfinite import TrainingFailed, suspects
from bigft.training.optimizers import OPTIMIZERS, parameter_groups
from bigft.training.step import StepDone, train_step

STEPS = 4
SICK = (1, 1, 1)  # step, rank, micro-step
ROWS = 3  # of a micro-batch


class Layout(NamedTuple):
    """How the model is trained; dropout is on."""

    zero_stage: int
    dtype: str = "fp32"
    optim: str = "adamw_torch"
    lora: bool = False
    offload: bool = False

    def __str__(self) -> str:
        more = "lora " * self.lora + "offload" * self.offload
        return f"ZeRO-{self.zero_stage} {self.dtype} {self.optim} {more}".strip()


class Trained(NamedTuple):
    """Of one rank. done: by step, losses as numbers.  bits: of weights, masters and states."""

    done: dict[int, StepDone]
    suspects: list[str]
    bits: str
    step_counts: set[float]


def compare(world: World, layout: Layout, sicknesses: list[str]) -> dict[str, Trained]:
    """By sickness; "never": of a run that never came to the sick step."""
    return {sickness: _steps(world, layout, sickness) for sickness in ["never", *sicknesses]}


def _steps(world: World, layout: Layout, sickness: str) -> Trained:
    engine = tiny_engine(world, layout)
    done: dict[int, StepDone] = {}
    found: list[str] = []
    for step in range(STEPS):
        if sickness == "never" and step == SICK[0]:
            continue
        task = Sick(sickness if (step, world.rank) == SICK[:2] else "", engine.module)
        batches = batches_of(world, step)
        targets = int(world.sum([sum(batch.num_targets for batch in batches)])[0])
        done[step] = train_step(engine, task, batches, targets, world, 0, step)
        found += suspects(world, Lines(), batches, done[step])  # type: ignore[arg-type]
    states = list(_states(engine.optimizer))
    trained = Trained(
        {step: each._replace(loss_sum=each.loss_sum.item()) for step, each in done.items()},
        found,
        _bits(engine, states),
        {float(state["step"]) for state in states if "step" in state},
    )
    engine.destroy()
    return trained


class Reads(TorchDispatchMode):
    """Counts how often the host asks for a number that lies on the device, as all tensors here are
    taken to, but those that the host made from numbers, and what is computed from these."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.of_the_host: list[torch.Tensor] = []  # kept, so that no other one gets their place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)]
        known = {id(tensor) for tensor in self.of_the_host}
        on_host = bool(given) and all(id(tensor) in known for tensor in given)
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += not on_host
        elif on_host or func is torch.ops.aten.lift_fresh.default:
            self.of_the_host += [leaf for leaf in tree_leaves(result) if torch.is_tensor(leaf)]
        return result


def reads_in_a_step(world: World, layout: Layout) -> int:
    """The host's reads of the device in a step, the third, but for those of the model's forward."""
    engine = tiny_engine(world, layout)
    for step in range(3):
        batches = batches_of(world, step)
        with Reads() as reads:
            train_step(engine, Uncounted("", engine.module), batches, 70, world, 0, step)
    return reads.count


def tiny_engine(world: World, layout: Layout) -> Any:
    from deepspeed.runtime import bf16_optimizer

    bf16_optimizer.see_memory_usage = lambda *_, **__: None  # it collects garbage for seconds
    config = RunConfig.model_validate(
        {
            "task": {"name": "causal-lm"},
            "model": {"model_name_or_path": "unused"},
            "parallel": {
                "zero_stage": layout.zero_stage,
                "offload_optimizer": "cpu" if layout.offload else "none",
            },
            "optim": {"learning_rate": 0.01, "optim": layout.optim},
            "train": {"output_dir": "unused", "bf16": layout.dtype == "bf16"},
        }
    )
    model: Any = tiny_model("gpt2", "AutoModelForCausalLM")
    if layout.lora:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(target_modules=["c_attn"], lora_dropout=0.1))
    attach_lm_head(model)
    optimizer = OPTIMIZERS[layout.optim](parameter_groups(model, config.optim, set()), config.optim)
    return build_engine(model, optimizer, deepspeed_config(config, world.size))


def batches_of(world: World, step: int) -> list[Batch]:
    """Two micro-batches; the sample in line n of the file "data" is row n."""
    batches = []
    for micro_step in range(2):
        number = (step * world.size + world.rank) * 2 + micro_step
        random = torch.Generator().manual_seed(number)
        ids_BT = torch.randint(4, 200, (ROWS, 9), generator=random)
        labels_BT = ids_BT.roll(-1, 1)
        labels_BT[:, -1] = -100
        labels_BT[0, : 2 + micro_step] = -100
        rows = labels_BT.flatten().ne(-100).nonzero().flatten()
        features = [
            text_row(number * ROWS + row, 0, 1, ids_BT[row].tolist(), labels_BT[row].tolist())
            for row in range(ROWS)
        ]
        inputs = {"input_ids": ids_BT}
        batches.append(Batch(inputs, labels_BT, rows, len(rows), ids_BT.numel(), features))
    return batches


class Lines:
    """A split as far as `suspects` knows it."""

    def record(self, row: int) -> Record:
        return Record(row, {}, "data", row)


def lines_of(step: int, rank: int, micro_step: int, world_size: int = 2) -> list[str]:
    """Where the samples of a micro-batch stand."""
    first = ((step * world_size + rank) * 2 + micro_step) * ROWS
    return [f"data:{row}" for row in range(first, first + ROWS)]


class Sick:
    """A task whose loss or gradient goes wrong in the sick micro-step; with "" it is well."""

    def __init__(self, sickness: str, model: Any) -> None:
        self.sickness, self.model, self.micro_step = sickness, model, 0

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        output = engine(labels_BT=batch.labels, scale=scale, **batch.inputs)
        scaled, loss_sum = output.loss, output.loss_sum
        if self.micro_step == SICK[2]:
            if self.sickness == "the loss is NaN":
                scaled, loss_sum = scaled * torch.nan, loss_sum * torch.nan
            if self.sickness == "the loss is Inf, its gradient finite":
                loss_sum = loss_sum + torch.inf
            if self.sickness == "the gradient is NaN":
                scaled.register_hook(lambda gradient: gradient * torch.nan)
            if self.sickness == "one weight's gradient is Inf":
                trained = [each for each in self.model.parameters() if each.requires_grad]
                hook = trained[-1].register_hook(lambda gradient: (hook.remove(), gradient / 0)[1])
        self.micro_step += 1
        return Loss(scaled, loss_sum)


class Uncounted(Sick):
    """What transformers asks of its tensors in a forward is not the step's."""

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        with _disable_current_modes():
            return super().loss(engine, batch, scale)


def train_sick(world: World, config: dict[str, Any], sick_steps: list[int]) -> tuple[Any, str]:
    """A run whose loss is NaN on the second rank in these steps, from 0: what `scenarios.train`
    answers, or what the run failed with."""
    exact = loop.train_step

    def train_step(engine: Any, task: Any, batches: Any, *rest: Any) -> StepDone:
        targets, world, seed, step, tick = rest
        if step in sick_steps and world.rank == 1:
            task = SickTask(task)
        return exact(engine, task, batches, targets, world, seed, step, tick)

    loop.train_step = train_step
    try:
        return train(world, [config])[0], ""
    except TrainingFailed as failed:
        return None, str(failed)
    finally:
        loop.train_step = exact


class SickTask(NamedTuple):
    """Another task, whose loss is NaN, and its gradient not."""

    well: Any

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        loss: Loss = self.well.loss(engine, batch, scale)
        return loss._replace(loss_sum=loss.loss_sum * torch.nan)


def _states(optimizer: Any) -> Iterator[dict[str, Any]]:
    """Per parameter, or flat partition of them, what the innermost optimizer keeps."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield {"master": parameter.data, **optimizer.state[parameter]}


def _bits(engine: Any, states: list[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    weights = [getattr(each, "ds_tensor", each).data for each in engine.module.parameters()]
    kept = [value for state in states for value in state.values() if torch.is_tensor(value)]
    for tensor in (*weights, *kept):
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
