"""What bigft corrects of DeepSpeed's engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.sharded_runs import run_config
from torch import nn

from bigft.config.deepspeed import deepspeed_config
from bigft.runtime.process_group import World
from bigft.training.engine import build_engine

pytestmark = pytest.mark.distributed


def a_step(world: World, stage: int, max_grad_norm: float) -> tuple[float, float, float]:
    """The gradient's norm by the engine and by hand, and how far the step went."""
    optim, parallel = {"max_grad_norm": max_grad_norm}, {"zero_stage": stage}
    ds_config = deepspeed_config(run_config("unused", optim=optim, parallel=parallel), world.size)
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    expected = torch.autograd.grad(model(torch.ones(1, 3)).square().sum(), list(model.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in expected]).norm()
    engine = build_engine(model, torch.optim.SGD(model.parameters(), lr=1.0), ds_config)
    engine.backward(engine(torch.ones(1, 3)).square().sum(), scale_wrt_gas=False)
    engine.step()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    return float(engine.get_global_grad_norm()), float(norm), float((after - before).norm())


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_gradients_norm_is_known_and_clipped_at_every_stage(stage: int) -> None:
    for world_size in (1, 2):
        ((norm, expected, length), *_) = run_ranks(a_step, world_size, stage, 0.25)
        assert norm == pytest.approx(expected, rel=1e-5)
        assert length == pytest.approx(0.25, rel=1e-4)
    ((norm, expected, length),) = run_ranks(a_step, 1, stage, 0.0)
    assert norm == pytest.approx(expected, rel=1e-5)
    assert length == pytest.approx(expected, rel=1e-4)


def dtypes_after_an_adapter(world: World) -> list[str]:
    """Of the engine's parameters: one born sharded in bf16, and one that came in fp32."""
    import deepspeed

    config = run_config("unused", train={"bf16": True}, parallel={"zero_stage": 3})
    ds_config = deepspeed_config(config, world.size)
    born = nn.Linear(4, 4).bfloat16()
    deepspeed.zero.Init(born, config_dict_or_path=ds_config)
    model: Any = nn.Sequential(born, nn.Linear(4, 2))
    engine = build_engine(model, torch.optim.SGD(model.parameters(), lr=1.0), ds_config)
    return [str(parameter.dtype) for parameter in engine.module.parameters()]


def test_an_adapter_takes_the_dtype_of_a_model_that_was_born_sharded() -> None:
    ((*dtypes,),) = run_ranks(dtypes_after_an_adapter, 1)
    assert dtypes == ["torch.bfloat16"] * 4
