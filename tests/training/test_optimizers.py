"""Which parameters decay and how fast each learns, at every step of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ARCHITECTURES, tiny_model
from torch import nn
from transformers import TrainingArguments, get_scheduler

from bigft.config.optim import OptimConfig
from bigft.training.optimizers import (
    OPTIMIZERS,
    learning_rate_factor,
    parameter_groups,
    set_learning_rate,
    warmup_steps,
)

TOTAL = 37


def optim(**keys: Any) -> OptimConfig:
    return OptimConfig.model_validate(keys)


def factors(total: int = TOTAL, **keys: Any) -> list[float]:
    """Of every step, and of the one after the last."""
    return [learning_rate_factor(optim(**keys), step, total) for step in range(total + 1)]


# -- which parameters ---------------------------------------------------------------------------


class RMSNorm(nn.Module):
    """A norm that no library knows, as language models bring their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))


def by_name(model: nn.Module, key: str, **keys: Any) -> dict[str, float]:
    """The group's value of each trained parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    head = {name for name in names.values() if name.startswith(("classifier", "head"))}
    return {
        names[id(parameter)]: group[key]
        for group in parameter_groups(model, optim(**keys), head)
        for parameter in group["params"]
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_biases_and_norms_do_not_decay_and_everything_else_does(architecture: str) -> None:
    model = tiny_model(architecture)
    decay = by_name(model, "weight_decay", weight_decay=0.1)
    assert decay.keys() == dict(model.named_parameters()).keys()
    for name, value in decay.items():
        spared = name.endswith("bias") or "norm" in name.lower()
        assert value == (0.0 if spared else 0.1), name
    assert set(decay.values()) == {0.0, 0.1}


def test_norms_are_known_by_their_class_whatever_they_are_called() -> None:
    model = nn.ModuleDict({
        "first": nn.LayerNorm(3), "second": RMSNorm(), "third": nn.BatchNorm1d(3),
        "normal": nn.Linear(3, 3), "words": nn.Embedding(4, 3),
    })  # fmt: skip
    decay = by_name(model, "weight_decay", weight_decay=0.1)
    assert {name for name, value in decay.items() if value} == {"normal.weight", "words.weight"}


def test_a_frozen_parameter_is_in_no_group() -> None:
    model = tiny_model()
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    trained = by_name(model, "lr")
    assert trained.keys() == {n for n, _ in model.named_parameters() if "embeddings" not in n}


def test_the_heads_rate_is_the_heads_alone() -> None:
    rates = by_name(tiny_model(), "peak_lr", learning_rate=1e-4, head_learning_rate=1e-2)
    assert {rate for name, rate in rates.items() if name.startswith("classifier")} == {1e-2}
    assert {rate for name, rate in rates.items() if name.startswith("bert")} == {1e-4}


def test_without_a_rate_of_its_own_the_head_learns_as_the_body() -> None:
    assert set(by_name(tiny_model(), "peak_lr", learning_rate=1e-4).values()) == {1e-4}


def test_a_head_rate_of_zero_is_a_rate() -> None:
    rates = by_name(tiny_model(), "peak_lr", learning_rate=1e-4, head_learning_rate=0.0)
    assert rates["classifier.weight"] == 0.0


def test_a_rate_falls_from_layer_to_layer_towards_the_embeddings() -> None:
    model = tiny_model()  # of two layers
    rates = by_name(model, "peak_lr", learning_rate=1e-3, layerwise_lr_decay=0.5)
    for part, expected in {
        "classifier": 1e-3, "layer.1.": 5e-4, "layer.0.": 2.5e-4, "embeddings": 1.25e-4,
    }.items():  # fmt: skip
        found = {rate for name, rate in rates.items() if part in name}
        assert found == {expected}, part
    own = by_name(
        model, "peak_lr", learning_rate=1e-3, layerwise_lr_decay=0.5, head_learning_rate=2e-3
    )
    assert {rate for name, rate in own.items() if "classifier" in name} == {2e-3}
    assert {n: r for n, r in own.items() if "classifier" not in n} == {
        name: rate for name, rate in rates.items() if "classifier" not in name
    }


def test_the_rate_that_is_logged_is_of_the_highest_layer_below_the_head() -> None:
    config = optim(learning_rate=1e-3, layerwise_lr_decay=0.5, weight_decay=0.1)
    groups = parameter_groups(tiny_model(), config, {"classifier.weight", "classifier.bias"})
    assert set_learning_rate(OPTIMIZERS["sgd"](groups, config), 1.0) == pytest.approx(5e-4)


def test_groups_come_in_an_order_that_is_always_the_same() -> None:
    settings = {"weight_decay": 0.1, "head_learning_rate": 1e-2}
    kinds = [
        (group["peak_lr"], group["weight_decay"])
        for group in parameter_groups(
            tiny_model(), optim(**settings), {"classifier.weight", "classifier.bias"}
        )
    ]
    assert kinds == [(5e-5, 0.0), (5e-5, 0.1), (1e-2, 0.0), (1e-2, 0.1)]


# -- the optimizers -----------------------------------------------------------------------------


def one_step(name: str, **keys: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A parameter of 4096 numbers before and after one step; its gradient is 1 and 3 by turns."""
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(4096))
    before = parameter.detach().clone()
    groups = [{"params": [parameter], "lr": 0.1, "weight_decay": 0.5}]
    optimizer = OPTIMIZERS[name](groups, optim(optim=name, **keys))
    parameter.grad = torch.ones(4096)
    parameter.grad[::2] = 3.0
    optimizer.step()
    return before, parameter.detach()


DECOUPLED = ["adamw_torch", "adamw_8bit", "adam_8bit", "paged_adamw_8bit", "paged_adam_8bit"]
DECOUPLED += ["lion_8bit", "paged_lion_8bit"]


@pytest.mark.parametrize("name", DECOUPLED)
@pytest.mark.filterwarnings("ignore:Paged optimizers:UserWarning")  # on a CPU they are plain
def test_decay_stands_apart_from_the_gradient(name: str) -> None:
    before, after = one_step(name)
    # The first step of Adam, and every step of Lion, is the gradient's sign.
    tolerance = 1e-3 if "8bit" in name else 1e-6
    torch.testing.assert_close(after, before * (1 - 0.1 * 0.5) - 0.1, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if "8bit" in name])
@pytest.mark.filterwarnings("ignore:Paged optimizers:UserWarning")
def test_the_state_of_8_bits_has_8_bits(name: str) -> None:
    parameter = nn.Parameter(torch.randn(4096))
    optimizer = OPTIMIZERS[name]([{"params": [parameter], "lr": 0.1}], optim(optim=name))
    parameter.grad = torch.ones(4096)
    optimizer.step()
    state = optimizer.state[parameter]
    assert state["state1"].dtype == torch.uint8
    assert "state2" not in state or state["state2"].dtype == torch.uint8


def test_adam_and_rmsprop_add_the_decay_to_the_gradient() -> None:
    before, after = one_step("adam")
    gradient = torch.ones(4096)
    gradient[::2] = 3.0
    gradient += 0.5 * before
    torch.testing.assert_close(after, before - 0.1 * gradient.sign(), rtol=0, atol=1e-5)
    before, after = one_step("rmsprop", adam_beta2=0.96)
    step = gradient / (0.04 * gradient**2).sqrt()
    torch.testing.assert_close(after, before - 0.1 * step, rtol=1e-4, atol=1e-5)


def test_sgd_of_8_bits_has_momentum() -> None:
    before, after = one_step("sgd_8bit", adam_beta1=0.5)
    gradient = torch.ones(4096)
    gradient[::2] = 3.0
    torch.testing.assert_close(after, before - 0.1 * (gradient + 0.5 * before), rtol=0, atol=2e-2)
    groups = [{"params": [nn.Parameter(torch.zeros(2))]}]
    assert OPTIMIZERS["sgd_8bit"](groups, optim(adam_beta1=0.5)).param_groups[0]["betas"][0] == 0.5


def test_sgd_is_the_plain_gradient_without_momentum() -> None:
    before, after = one_step("sgd")
    gradient = torch.ones(4096)
    gradient[::2] = 3.0
    torch.testing.assert_close(after, before - 0.1 * (gradient + 0.5 * before))


def test_betas_and_epsilon_reach_adam() -> None:
    _, after = one_step("adamw_torch", adam_epsilon=1.0)
    before, plain = one_step("adamw_torch")
    step = before * (1 - 0.1 * 0.5) - after
    torch.testing.assert_close(step[:2], torch.tensor([0.1 * 3 / 4, 0.1 * 1 / 2]))
    assert not torch.equal(after, plain)
    for name in ("adamw_torch", "adamw_8bit"):
        groups = [{"params": [nn.Parameter(torch.zeros(2))]}]
        optimizer = OPTIMIZERS[name](groups, optim(adam_beta1=0.8, adam_beta2=0.95))
        assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)


# -- the schedules ------------------------------------------------------------------------------


def linear(t: float) -> float:
    return 1 - t


CLOSED_FORMS: dict[str, tuple[dict[str, Any], Callable[[float], float]]] = {
    "linear": ({"lr_scheduler_type": "linear"}, linear),
    "cosine": ({"lr_scheduler_type": "cosine"}, lambda t: (1 + math.cos(math.pi * t)) / 2),
    "waves": (
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1.5}},
        lambda t: (1 + math.cos(3 * math.pi * t)) / 2,
    ),
    "constant": ({"lr_scheduler_type": "constant"}, lambda t: 1.0),
    "polynomial": (
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.5}},
        lambda t: (1 - t) ** 2.5,
    ),
    "exponential": ({"lr_scheduler_type": "exponential"}, lambda t: 0.01**t),
    "exponential_0.2": (
        {"lr_scheduler_type": "exponential", "lr_scheduler_kwargs": {"min_lr_rate": 0.2}},
        lambda t: 0.2**t,
    ),
    "linear_0.2": (
        {"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"min_lr_rate": 0.2}},
        lambda t: 0.2 + 0.8 * (1 - t),
    ),
}


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize(("keys", "form"), CLOSED_FORMS.values(), ids=CLOSED_FORMS)
def test_a_schedule_is_its_formula(
    keys: dict[str, Any], form: Callable[[float], float], warmup: int
) -> None:
    expected = [step / warmup for step in range(warmup)]
    expected += [form((step - warmup) / (TOTAL - warmup)) for step in range(warmup, TOTAL + 1)]
    assert factors(warmup_steps=float(warmup), **keys) == pytest.approx(expected, abs=1e-12)


TRANSFORMERS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "linear": ({"lr_scheduler_type": "linear"}, "linear", {}),
    "cosine": ({"lr_scheduler_type": "cosine"}, "cosine", {}),
    "waves": (
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1.5}},
        "cosine",
        {"num_cycles": 1.5},
    ),
    "cosine_0.2": (
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"min_lr_rate": 0.2}},
        "cosine_with_min_lr",
        {"min_lr_rate": 0.2},
    ),
    "constant": ({"lr_scheduler_type": "constant"}, "constant_with_warmup", {}),
    "polynomial": (
        {
            "lr_scheduler_type": "polynomial",
            "lr_scheduler_kwargs": {"power": 2.5, "min_lr_rate": 0.2},
        },
        "polynomial",
        {"power": 2.5, "lr_end": 0.2},
    ),
}


@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize(("keys", "name", "theirs"), TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_a_schedule_is_that_of_transformers_at_every_step(
    keys: dict[str, Any], name: str, theirs: dict[str, Any], warmup: int
) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(name, optimizer, warmup, TOTAL, scheduler_specific_kwargs=theirs)
    expected = []
    for _ in range(TOTAL):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert factors(warmup_steps=float(warmup), **keys)[:TOTAL] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("asked", [0.0, 0.03, 0.1, 0.5, 0.999, 1.0, 7.0, 100.0])
def test_a_warm_up_below_1_is_a_share_of_all_steps_as_in_transformers(asked: float) -> None:
    arguments = TrainingArguments(warmup_steps=asked, use_cpu=True)
    for total in (1, 30, 37, 100):
        steps = warmup_steps(optim(warmup_steps=asked), total)
        assert steps == arguments.get_warmup_steps(total)
        assert isinstance(steps, int)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(["linear", "cosine", "constant", "polynomial", "exponential"]),
    total=st.integers(1, 200),
    warmup=st.one_of(st.integers(0, 300).map(float), st.floats(0, 0.99)),
    step=st.integers(0, 400),
)
def test_a_factor_lies_between_0_and_1_even_beyond_the_last_step(
    name: str, total: int, warmup: float, step: int
) -> None:
    config = optim(lr_scheduler_type=name, warmup_steps=warmup)
    assert 0 <= learning_rate_factor(config, step, total) <= 1


def test_the_rate_is_a_function_of_the_step_alone() -> None:
    model = tiny_model()
    config = optim(learning_rate=1e-4, head_learning_rate=1e-2, warmup_steps=5.0)
    groups = parameter_groups(model, config, {"classifier.weight", "classifier.bias"})
    optimizer = OPTIMIZERS["sgd"](groups, config)

    def rates(step: int) -> list[float]:
        set_learning_rate(optimizer, learning_rate_factor(config, step, TOTAL))
        return [group["lr"] for group in optimizer.param_groups]

    walked = [rates(step) for step in range(TOTAL)]
    assert [rates(step) for step in (30, 3, 36, 0)] == [
        walked[30],
        walked[3],
        walked[36],
        walked[0],
    ]
    assert walked[0] == [0.0] * len(walked[0])
    assert walked[5][0] == pytest.approx(1e-4)
    assert set(walked[5]) == {1e-4, 1e-2}


def test_setting_a_rate_answers_with_the_bodys() -> None:
    config = optim(learning_rate=1e-4, head_learning_rate=1e-2)
    groups = parameter_groups(tiny_model(), config, {"classifier.weight"})
    assert set_learning_rate(OPTIMIZERS["sgd"](groups, config), 0.5) == pytest.approx(5e-5)
