"""How long a row may be, by the model and by its tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import ModelConfig
from bigft.models.processors import is_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from bigft.models.processors import Processor

# Architectures after fairseq's RoBERTa: the first token's position is pad_token_id + 1.
POSITIONS_AFTER_PAD = {
    *("roberta", "roberta-prelayernorm", "camembert", "xlm-roberta", "xlm-roberta-xl"),
    *("data2vec-text", "longformer", "mpnet", "luke", "xmod", "ibert", "layoutlmv3"),
}


class Limit(NamedTuple):
    """tokens: of a row at most.  source: what says so, and what overrides it."""

    tokens: int
    source: str


def max_positions(config: PretrainedConfig, model: ModelConfig) -> Limit | None:
    """The longest sequence that the model takes; None where it does not say."""
    text = config.get_text_config()
    names = ("max_position_embeddings", "max_encoder_position_embeddings")
    name = next((name for name in names if getattr(text, name, None) is not None), None)
    if name is None:
        return None
    tokens = getattr(text, name)
    if config.model_type in POSITIONS_AFTER_PAD:
        tokens -= config.pad_token_id + 1
    spelled = text.attribute_map.get(name, name)
    if model.config_overrides.keys() & {name, spelled}:
        return Limit(tokens, f"{spelled} in model.config_overrides")
    return Limit(tokens, f"{spelled} in config.json (model.config_overrides overrides it)")


def tokenizer_limit(processor: Processor) -> Limit | None:
    """The longest sequence that a tokenizer is meant for; None where it does not say."""
    if not is_tokenizer(processor):
        return None
    source = "model_max_length in tokenizer_config.json (data.max_seq_length overrides it)"
    tokens = processor.model_max_length
    if not isinstance(tokens, int | float):
        what = f"model_max_length in tokenizer_config.json is {tokens!r}, not a number"
        raise BadInput(Problem("model.model_name_or_path", what, "write it as a number"))
    return Limit(int(tokens), source) if 0 < tokens < 10**9 else None
