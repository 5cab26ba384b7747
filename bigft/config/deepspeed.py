"""The DeepSpeed dict of a run: the only file that knows DeepSpeed's keys.

bigft's YAML is the only place for batch size, precision, clipping and stage; the dict follows from
it. `parallel.deepspeed` adds expert keys, and a key that says something else than the YAML is an
error that names both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig

NO_CLIPPING = 1e30  # DeepSpeed measures the gradient's norm only where it clips

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
    derived: dict[str, Any] = {
        # The accumulation boundary is ours: micro-steps may vary from step to step.
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": 1,
        "train_batch_size": micro * world_size,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.optim.max_grad_norm or NO_CLIPPING,
        "zero_optimization": {"stage": effective_zero_stage(config), "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "bf16": {"enabled": config.train.bf16},
        "fp16": {"enabled": config.train.fp16},
        "steps_per_print": 2**31,
    }
    for key in ("offload_optimizer", "offload_param"):
        if (device := getattr(config.parallel, key)) != "none":
            # Pinning is a no-op without an accelerator.
            derived["zero_optimization"][key] = {"device": device, "pin_memory": True}
            derived["zero_force_ds_cpu_optimizer"] = False  # the optimizer is optim.optim
    path = config.parallel.deepspeed
    if path is None:
        return derived
    asked = _read(path)
    expert = _without_auto(asked)
    stated = _stated(config, world_size)
    problems = [
        *_contradictions(asked, stated, path),
        *(
            Problem(f"{path}: {key}", f"{expert[key]!r} is no section", "write an object")
            for key, value in derived.items()
            if isinstance(value, dict) and not isinstance(expert.get(key, {}), dict)
        ),
    ]
    if problems:
        raise BadInput(problems)
    return _merged(derived, expert, keep=set(stated))


def _stated(config: RunConfig, world_size: int) -> dict[str, tuple[Any, str]]:
    """DeepSpeed's key -> what the YAML says in its terms, and the YAML's key or the reason."""
    train, parallel = config.train, config.parallel
    micro, accumulation = train.per_device_train_batch_size, train.gradient_accumulation_steps or 1
    batch = train.global_batch_size or micro * accumulation * world_size
    exact, fp32 = "exact normalisation (docs/numerics.md)", "fp32 sums (docs/numerics.md)"
    whole = "weights that every rank reads a part of (bigft/models/sharded.py)"
    return {
        "train_batch_size": (batch, "train.global_batch_size"),
        "train_micro_batch_size_per_gpu": (micro, "train.per_device_train_batch_size"),
        "gradient_accumulation_steps": (accumulation, "train.gradient_accumulation_steps"),
        "managed_gradient_accumulation": (False, exact),
        "gradient_clipping": (config.optim.max_grad_norm, "optim.max_grad_norm"),
        "zero_optimization.stage": (effective_zero_stage(config), "parallel.zero_stage"),
        "zero_optimization.overlap_comm": (False, exact),
        "zero_optimization.offload_optimizer.device": (
            parallel.offload_optimizer,
            "parallel.offload_optimizer",
        ),
        "zero_optimization.offload_param.device": (
            parallel.offload_param,
            "parallel.offload_param",
        ),
        "zero_optimization.zero_hpz_partition_size": (1, whole),
        "zero_optimization.zero_quantized_weights": (False, whole),
        "zero_optimization.zero_quantized_nontrainable_weights": (False, whole),
        "bf16.enabled": (train.bf16, "train.bf16"),
        "fp16.enabled": (train.fp16, "train.fp16"),
        "data_types.grad_accum_dtype": ("fp32", fp32),
        "communication_data_type": ("fp32", fp32),
    }


def _read(path: str) -> dict[str, Any]:
    try:
        expert = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(
            Problem("parallel.deepspeed", f"{path}: {error.strerror}", "give a JSON file")
        ) from error
    except json.JSONDecodeError as error:
        raise BadInput(Problem(f"{path}:{error.lineno}", f"not JSON: {error.msg}")) from error
    except UnicodeDecodeError as error:
        raise BadInput(Problem(path, f"not UTF-8 at byte {error.start}")) from error
    if not isinstance(expert, dict):
        raise BadInput(Problem(path, "not a JSON object", "DeepSpeed's config is an object"))
    return expert


def _without_auto(tree: dict[str, Any]) -> dict[str, Any]:
    """Files written for transformers' Trainer hold "auto": it asks for our value."""
    pruned = {
        key: _without_auto(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value != "auto"
    }
    return {key: value for key, value in pruned.items() if value != {} or tree[key] == {}}


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _contradictions(
    expert: dict[str, Any], stated: dict[str, tuple[Any, str]], path: str
) -> Iterator[Problem]:
    for key, value in _leaves(expert):
        top = key.split(".")[0]
        if top in _OURS:
            yield Problem(
                f"{path}: {key}",
                f"contradicts {_OURS[top]}, which bigft derives",
                f"remove {top} from the file",
            )
        elif key in stated and value not in (stated[key][0], "auto"):
            ours, origin = stated[key]
            yield Problem(
                f"{path}: {key}",
                f"{value!r} contradicts {ours!r} of {origin}",
                "remove it here and set the YAML key",
            )


def _merged(
    derived: dict[str, Any], expert: dict[str, Any], keep: Set[str], prefix: str = ""
) -> dict[str, Any]:
    """The derived dict with the expert's keys in it, but for those in `keep` (dotted)."""
    result = dict(derived)
    for key, value in expert.items():
        if isinstance(value, dict):
            result[key] = _merged(result.get(key, {}), value, keep, f"{prefix}{key}.")
        elif prefix + key not in keep:
            result[key] = value
    return result
