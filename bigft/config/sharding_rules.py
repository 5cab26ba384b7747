"""Contradictions of section parallel: what cannot be sharded or offloaded."""

from __future__ import annotations

from collections.abc import Iterator

from bigft.config.adapt import Dora, Lora, Prompt, Qlora
from bigft.config.clash import Clash
from bigft.config.deepspeed import effective_zero_stage
from bigft.config.sections import RunConfig


def sharding_contradictions(config: RunConfig) -> Iterator[Clash]:
    parallel, stage = config.parallel, effective_zero_stage(config)
    if parallel.offload_param != "none" and stage != 3:
        yield Clash(
            ("parallel.offload_param", "parallel.zero_stage"),
            f"{parallel.offload_param}, but at parallel.zero_stage {stage} every rank keeps all "
            "parameters",
            "set parallel.zero_stage to 3, or parallel.offload_param to none",
        )
    if parallel.offload_optimizer != "none" and stage == 0:
        yield Clash(
            ("parallel.offload_optimizer", "parallel.zero_stage"),
            f"{parallel.offload_optimizer}, but parallel.zero_stage 0 does not part the optimizer "
            "from the model",
            "set parallel.zero_stage to 1, 2 or 3",
        )
    if stage == 3:
        yield from _whole_weights(config)


def _whole_weights(config: RunConfig) -> Iterator[Clash]:
    """What needs whole weights where ZeRO-3 keeps a part of each."""
    adapt = config.adapt
    if isinstance(adapt, Dora) or (isinstance(adapt, Lora | Qlora) and adapt.use_dora):
        yield Clash(
            (
                "adapt.method" if isinstance(adapt, Dora) else "adapt.use_dora",
                "parallel.zero_stage",
            ),
            "DoRA takes the norms of whole weights, which parallel.zero_stage 3 keeps in parts",
            "set parallel.zero_stage to 2, or adapt.method to lora",
        )
    elif isinstance(adapt, Prompt) and adapt.prompt_tuning_init_text is not None:
        yield Clash(
            ("adapt.prompt_tuning_init_text", "parallel.zero_stage"),
            "given, but peft reads whole embeddings for it, which parallel.zero_stage 3 keeps in "
            "parts",
            "set parallel.zero_stage to 2, or leave the text out",
        )
