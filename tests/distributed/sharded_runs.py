"""What ranks do in tests of sharding: models born sharded beside whole ones, and steps of both."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tiny import letter_tokenizer

from bigft.config.deepspeed import deepspeed_config
from bigft.config.errors import BadInput
from bigft.config.sections import RunConfig
from bigft.models.adapt import adapt_model, freezes_base
from bigft.models.load import load_model, load_model_config
from bigft.models.sharded import load_sharded
from bigft.runtime.process_group import World
from bigft.runtime.seeding import seed_everything
from bigft.training.engine import build_engine
from bigft.training.optimizers import OPTIMIZERS, parameter_groups


def run_config(directory: str, **sections: dict[str, Any]) -> RunConfig:
    given: dict[str, Any] = {
        "task": {"name": "causal-lm"},
        "model": {"model_name_or_path": directory},
        "optim": {"learning_rate": 0.01},
        "parallel": {"zero_stage": 3},
        "train": {"output_dir": "unused"},
    }
    for name, keys in sections.items():
        given[name] = given.get(name, {}) | keys
    return RunConfig.model_validate(given)


class Source(NamedTuple):
    """A model to load. options: of its config; inputs: arguments of its forward, as lists."""

    directory: str
    auto_class: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never written to
    from_scratch: bool = False
    train: dict[str, Any] = {}  # noqa: RUF012
    inputs: dict[str, Any] = {"input_ids": [[4, 5, 6, 7, 8]]}  # noqa: RUF012


class Loaded(NamedTuple):
    """differences: from the whole model.  share: numbers held by this rank.  tied: parameters that
    have a second name.  refusals: of the whole and of the sharded way."""

    differences: list[str]
    share: int
    total: int
    tied: int
    refusals: tuple[str, str] = ("", "")


def load_both_ways(world: World, sources: list[Source]) -> list[Loaded]:
    return [_load_both_ways(world, source) for source in sources]


def _load_both_ways(world: World, source: Source) -> Loaded:
    model = {"from_scratch": source.from_scratch}
    config = run_config(source.directory, model=model, train=source.train)
    ds_config = deepspeed_config(config, world.size)
    model_config = load_model_config(config.model, **source.options)
    try:
        seed_everything(1)
        whole = load_model(config.model, model_config, source.auto_class)
        random_whole = torch.get_rng_state()
        refused = ""
    except BadInput as error:
        refused = str(error)
    try:
        model_config = load_model_config(config.model, **source.options)
        seed_everything(1)
        sharded = load_sharded(config.model, model_config, source.auto_class, ds_config)
        random_sharded = torch.get_rng_state()
    except BadInput as error:
        return Loaded([], 0, 0, 0, (refused, str(error)))
    if config.train.bf16:  # as the engine casts a whole model: buffers keep fp32
        for parameter in whole.parameters():
            parameter.data = parameter.data.bfloat16()
    shares = [parameter.ds_tensor for parameter in sharded.parameters()]
    names = dict(sharded.named_parameters(remove_duplicate=False))
    return Loaded(
        [
            *_differences(whole, sharded, source.inputs),
            *(["random state"] if not torch.equal(random_whole, random_sharded) else []),
        ],
        sum(share.numel() for share in shares),
        whole.num_parameters(),
        len(names) - len(shares),
        (refused, ""),
    )


def _differences(whole: Any, sharded: Any, inputs: dict[str, Any]) -> list[str]:
    import deepspeed

    found = [] if whole.training == sharded.training else ["mode"]
    ours, theirs = (dict(m.named_parameters(remove_duplicate=False)) for m in (sharded, whole))
    if list(ours) != list(theirs):
        return [*found, "names"]
    with deepspeed.zero.GatheredParameters(list(sharded.parameters())):
        for name, expected in theirs.items():
            if not same(ours[name], expected) or not ours[name].requires_grad:
                found.append(name)
        arguments = {name: torch.tensor(value) for name, value in inputs.items()}
        with torch.no_grad():
            logits = [model.eval()(**arguments).logits for model in (sharded, whole)]
        found += [] if same(*logits) else ["logits"]
    buffers = [dict(model.named_buffers()) for model in (sharded, whole)]
    found += [] if list(buffers[0]) == list(buffers[1]) else ["names of buffers"]
    return found + [name for name in buffers[1] if not same(buffers[0][name], buffers[1][name])]


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


class ResidentPeak:
    """Bytes of resident memory at most since it was made, beyond those that were there."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        self.before = self._read()

    @property
    def bytes(self) -> int:
        return self._read() - self.before

    def _read(self) -> int:
        (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(kib) * 1024


def peak_of_loading(world: World, directory: str, auto_class: str) -> int:
    """Bytes of this rank for a model that is born sharded."""
    config = run_config(directory)
    ds_config = deepspeed_config(config, world.size)
    peak = ResidentPeak()
    load_sharded(config.model, load_model_config(config.model), auto_class, ds_config)
    return peak.bytes


class Way(NamedTuple):
    """A way to train.  born: sharded from the start, which ZeRO-3 need not be."""

    stage: int
    born: bool = False
    adapt: dict[str, Any] = {"method": "full"}  # noqa: RUF012
    train: dict[str, Any] = {}  # noqa: RUF012
    offload: dict[str, Any] = {}  # noqa: RUF012
    optim: str = "adamw_torch"


class Steps(NamedTuple):
    """again: the losses of the last two steps from a checkpoint before them."""

    losses: list[float]
    norms: list[float]
    again: list[float]


def train_steps(world: World, directory: str, ways: list[Way]) -> list[Steps]:
    """Four steps of each; a step is two rows on each rank."""
    return [_train_steps(world, directory, way) for way in ways]


def _train_steps(world: World, directory: str, way: Way) -> Steps:
    config = run_config(
        directory,
        adapt=way.adapt,
        train=way.train,
        optim={"optim": way.optim},
        parallel={"zero_stage": way.stage, **way.offload},
    )
    ds_config = deepspeed_config(config, world.size)
    model_config, auto_class = load_model_config(config.model), "AutoModelForCausalLM"
    seed_everything(1, "model")
    if way.born:
        model = load_sharded(config.model, model_config, auto_class, ds_config)
    else:
        half = config.train.bf16 and freezes_base(config.adapt)
        dtype = "bfloat16" if half else "float32"
        model = load_model(config.model, model_config, auto_class, dtype=dtype)
    if config.train.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False
    seed_everything(1, "adapter")
    model = adapt_model(model, config.adapt, letter_tokenizer()).train()
    groups = parameter_groups(model, config.optim, set())
    engine = build_engine(model, OPTIMIZERS[way.optim](groups, config.optim), ds_config)
    losses, norms = [], []
    with tempfile.TemporaryDirectory() as first:
        shared = world.gather(first)[0]
        for step in range(4):
            if step == 2:
                engine.save_checkpoint(shared, tag="here", save_latest=False)
            losses.append(_step(engine, world, step))
            norms.append(float(engine.get_global_grad_norm()))
        engine.load_checkpoint(shared, tag="here")
        again = [_step(engine, world, step) for step in (2, 3)]
        world.barrier()
    engine.destroy()
    return Steps(losses, norms, again)


def _step(engine: Any, world: World, step: int) -> float:
    random = torch.Generator().manual_seed(10 * step + world.rank)
    ids = torch.randint(4, 200, (2, 9), generator=random)
    loss = engine(input_ids=ids, labels=ids).loss
    engine.backward(loss, scale_wrt_gas=False)
    engine.step()
    return float(loss.detach())
