"""The DeepSpeed dict of a run: the only file that knows DeepSpeed's keys.

bigft's YAML is the only place for batch size, precision, clipping and stage; the dict follows from
it. `parallel.deepspeed` adds expert keys, and a key that says something else than the YAML is an
error that names both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig

NO_CLIPPING = 1e30  # DeepSpeed measures the gradient's norm only where it clips

# What each derived key comes from, for the message about a contradiction.
_ORIGIN = {
    "train_batch_size": "train.global_batch_size",
    "train_micro_batch_size_per_gpu": "train.per_device_train_batch_size",
    "gradient_accumulation_steps": "train.gradient_accumulation_steps",
    "managed_gradient_accumulation": "exact accumulation (docs/numerics.md)",
    "gradient_clipping": "optim.max_grad_norm",
    "zero_optimization.stage": "parallel.zero_stage",
    "zero_optimization.overlap_comm": "exact accumulation (docs/numerics.md)",
    "bf16.enabled": "train.bf16",
    "fp16.enabled": "train.fp16",
    "data_types.grad_accum_dtype": "fp32 accumulation (docs/numerics.md)",
    "communication_data_type": "fp32 reduction (docs/numerics.md)",
}
# Sections that would contradict the YAML whatever they hold.
_OURS = {
    "optimizer": "section optim",
    "scheduler": "optim.lr_scheduler_type",
    "prescale_gradients": "exact normalisation (docs/numerics.md)",
    "gradient_predivide_factor": "exact normalisation (docs/numerics.md)",
    "gradient_allreduce_op": "exact normalisation (docs/numerics.md)",
}


def effective_zero_stage(config: RunConfig) -> int:
    """The ZeRO stage that runs: half precision needs fp32 master weights, which stage 0 lacks."""
    half = config.train.bf16 or config.train.fp16
    return max(config.parallel.zero_stage, 1) if half else config.parallel.zero_stage


def deepspeed_config(config: RunConfig, world_size: int) -> dict[str, Any]:
    """The dict for deepspeed.initialize.

    Raises BadInput if parallel.deepspeed cannot be read or contradicts the YAML.
    """
    micro = config.train.per_device_train_batch_size
    stage = effective_zero_stage(config)
    derived: dict[str, Any] = {
        # The accumulation boundary is ours: micro-steps may vary from step to step.
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": 1,
        "train_batch_size": micro * world_size,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.optim.max_grad_norm or NO_CLIPPING,
        "zero_optimization": {"stage": stage, "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "bf16": {"enabled": config.train.bf16},
        "fp16": {"enabled": config.train.fp16},
        "steps_per_print": 2**31,
    }
    if config.parallel.deepspeed is None:
        return derived
    expert = _read(config.parallel.deepspeed)
    problems = list(_contradictions(expert, derived, config.parallel.deepspeed))
    if problems:
        raise BadInput(problems)
    return _merged(derived, expert)


def _read(path: str) -> dict[str, Any]:
    try:
        expert = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(
            Problem("parallel.deepspeed", f"{path}: {error.strerror}", "give a JSON file")
        ) from error
    except json.JSONDecodeError as error:
        raise BadInput(Problem(f"{path}:{error.lineno}", f"not JSON: {error.msg}")) from error
    if not isinstance(expert, dict):
        raise BadInput(Problem(path, "not a JSON object", "DeepSpeed's config is an object"))
    return expert


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _contradictions(
    expert: dict[str, Any], derived: dict[str, Any], path: str
) -> Iterator[Problem]:
    ours = dict(_leaves(derived))
    for key, value in _leaves(expert):
        top = key.split(".")[0]
        if top in _OURS:
            yield Problem(
                f"{path}: {key}",
                f"contradicts {_OURS[top]}, which bigft derives",
                f"remove {top} from the file",
            )
        # "auto" is what files written for transformers' Trainer hold: it asks for our value.
        elif key in _ORIGIN and value not in (ours[key], "auto"):
            yield Problem(
                f"{path}: {key}",
                f"{value!r} contradicts {ours[key]!r} of {_ORIGIN[key]}",
                "remove it here and set the YAML key",
            )


def _merged(derived: dict[str, Any], expert: dict[str, Any]) -> dict[str, Any]:
    result = dict(derived)
    for key, value in expert.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], value)
        elif value != "auto":
            result[key] = value
    return result
