"""What a step is made of, and how long a row may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig
from bigft.models.adapt import virtual_tokens
from bigft.models.limits import Limit, max_positions, tokenizer_limit
from bigft.models.processors import is_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from bigft.models.processors import Processor


def global_batch(config: RunConfig, world_size: int) -> dict[str, int]:
    """What one step is made of, as an argument of Order: samples, or tokens of full rows."""
    train, data = config.train, config.data
    if train.global_batch_size is not None:
        return {"global_batch_size": train.global_batch_size}
    if train.global_batch_tokens is not None:
        return {"global_batch_tokens": train.global_batch_tokens}
    rows = train.per_device_train_batch_size * (train.gradient_accumulation_steps or 1) * world_size
    if data.packing:
        assert data.max_seq_length is not None
        return {"global_batch_tokens": rows * data.max_seq_length}
    return {"global_batch_size": rows}


def row_limit(
    config: RunConfig, processor: Processor, model_config: PretrainedConfig
) -> Limit | None:
    """Tokens of a row at most, and what says so; None: no bound. What the tokenizer says does not
    count where the config says otherwise.

    Raises BadInput if the model cannot take as many, or has no room beside its virtual tokens.
    """
    asked, virtual = config.data.max_seq_length, virtual_tokens(config.adapt)
    positions, stated = max_positions(model_config, config.model), tokenizer_limit(processor)
    if asked is not None or (positions and positions.source.endswith("model.config_overrides")):
        stated = None
    bound = min(filter(None, (positions, stated)), default=None)
    if bound is not None:
        if virtual >= bound.tokens:
            what = f"{virtual}, but the model has {bound.tokens} positions in all"
            raise BadInput(Problem("adapt.num_virtual_tokens", what, "give fewer"))
        bound = bound._replace(tokens=bound.tokens - virtual)
    if asked is None:
        return bound
    if bound is not None and asked > bound.tokens:
        what = f"{asked} tokens, but the model takes {bound.tokens}: {bound.source}"
        fix = f"give at most {bound.tokens}; longer samples are cut"
        raise BadInput(Problem("data.max_seq_length", what, fix))
    return Limit(asked, "data.max_seq_length")


def overridden_limit(processor: Processor, limit: Limit | None) -> list[str]:
    """A note where rows are longer than the tokenizer is meant for. What is saved with the model
    says so too: other tools, and `Trained`, go by it."""
    stated = tokenizer_limit(processor)
    if not is_tokenizer(processor) or limit is None or stated is None:
        return []
    if limit.tokens <= stated.tokens:
        return []
    processor.model_max_length = limit.tokens
    return [
        f"rows hold up to {limit.tokens} tokens ({limit.source}), though model_max_length in "
        f"tokenizer_config.json is {stated.tokens}; the trained model's says {limit.tokens}"
    ]
