"""Each way to adapt trains the parameters it says."""

from __future__ import annotations

from tiny import tiny_model

from bigft.config.adapt import Full
from bigft.models.adapt import ADAPTERS


def test_full_trains_every_parameter_even_one_that_came_frozen() -> None:
    model = tiny_model()
    for parameter in model.base_model.parameters():
        parameter.requires_grad_(False)
    adapted = ADAPTERS["full"].apply(model, Full())
    assert adapted is model
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_full_loads_as_transformers_does() -> None:
    assert ADAPTERS["full"].load_kwargs == {}
