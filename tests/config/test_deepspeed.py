"""The YAML decides DeepSpeed's dict; an expert file adds to it and contradicts nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bigft.config.deepspeed import NO_CLIPPING, deepspeed_config, effective_zero_stage
from bigft.config.errors import BadInput
from bigft.config.sections import RunConfig


def config(**sections: dict[str, Any]) -> RunConfig:
    given: dict[str, Any] = {
        "task": {"name": "token-classification"},
        "model": {"model_name_or_path": "m"},
        "train": {"output_dir": "out"},
    }
    for name, keys in sections.items():
        given[name] = given.get(name, {}) | keys
    return RunConfig.model_validate(given)


@pytest.fixture
def expert(tmp_path: Path) -> Any:
    """expert(content, **sections): a config whose parallel.deepspeed is a file of that content."""

    def call(content: Any, **sections: dict[str, Any]) -> RunConfig:
        path = tmp_path / "expert.json"
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(text)
        parallel = sections.pop("parallel", {}) | {"deepspeed": str(path)}
        return config(parallel=parallel, **sections)

    return call


def refusal(config: RunConfig, world_size: int = 2) -> list[str]:
    with pytest.raises(BadInput) as caught:
        deepspeed_config(config, world_size)
    return [str(problem) for problem in caught.value.problems]


# -- what the YAML says -------------------------------------------------------------------------


def test_the_dict_follows_from_the_config() -> None:
    derived = deepspeed_config(
        config(
            train={"per_device_train_batch_size": 3, "bf16": True},
            optim={"max_grad_norm": 0.5},
            parallel={"zero_stage": 2},
        ),
        world_size=4,
    )
    assert derived == {
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": 1,
        "train_batch_size": 12,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.5,
        "zero_optimization": {"stage": 2, "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "bf16": {"enabled": True},
        "fp16": {"enabled": False},
        "steps_per_print": 2**31,
    }


def test_without_clipping_the_norm_is_measured_all_the_same() -> None:
    assert deepspeed_config(config(optim={"max_grad_norm": 0.0}), 1)["gradient_clipping"] == 1e30
    assert NO_CLIPPING > 0


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("half", [{}, {"bf16": True}, {"fp16": True}])
def test_half_precision_has_fp32_masters_so_stage_0_becomes_1(
    stage: int, half: dict[str, bool]
) -> None:
    asked = config(train=half, parallel={"zero_stage": stage})
    runs = 1 if half and stage == 0 else stage
    assert effective_zero_stage(asked) == runs
    assert deepspeed_config(asked, 1)["zero_optimization"]["stage"] == runs


@pytest.mark.parametrize("keys", [["offload_optimizer"], ["offload_param", "offload_optimizer"]])
def test_what_is_offloaded_goes_to_the_cpu_whatever_the_optimizer(keys: list[str]) -> None:
    plain = deepspeed_config(config(parallel={"zero_stage": 3}), 2)
    offloaded = config(parallel={"zero_stage": 3} | dict.fromkeys(keys, "cpu"))
    to_cpu = {"device": "cpu", "pin_memory": True}
    assert deepspeed_config(offloaded, 2) == plain | {
        "zero_optimization": plain["zero_optimization"] | dict.fromkeys(keys, to_cpu),
        "zero_force_ds_cpu_optimizer": False,
    }


# -- what an expert file adds -------------------------------------------------------------------

CONTRADICTIONS = [
    ("train_batch_size", 999, "train.global_batch_size"),
    ("train_micro_batch_size_per_gpu", 999, "train.per_device_train_batch_size"),
    ("gradient_accumulation_steps", 999, "train.gradient_accumulation_steps"),
    ("managed_gradient_accumulation", True, "docs/numerics.md"),
    ("gradient_clipping", 0.125, "optim.max_grad_norm"),
    ("zero_optimization.stage", 3, "parallel.zero_stage"),
    ("zero_optimization.overlap_comm", True, "docs/numerics.md"),
    ("zero_optimization.offload_optimizer.device", "cpu", "parallel.offload_optimizer"),
    ("zero_optimization.offload_param.device", "nvme", "parallel.offload_param"),
    ("zero_optimization.zero_hpz_partition_size", 8, "bigft/models/sharded.py"),
    ("zero_optimization.zero_quantized_weights", True, "bigft/models/sharded.py"),
    ("zero_optimization.zero_quantized_nontrainable_weights", True, "bigft/models/sharded.py"),
    ("bf16.enabled", True, "train.bf16"),
    ("fp16.enabled", True, "train.fp16"),
    ("data_types.grad_accum_dtype", "bf16", "docs/numerics.md"),
    ("communication_data_type", "fp16", "docs/numerics.md"),
    ("optimizer.type", "AdamW", "section optim"),
    ("optimizer.params.lr", "auto", "section optim"),
    ("scheduler.type", "WarmupLR", "optim.lr_scheduler_type"),
    ("prescale_gradients", True, "docs/numerics.md"),
    ("gradient_predivide_factor", 2.0, "docs/numerics.md"),
    ("gradient_allreduce_op", "sum", "docs/numerics.md"),
]


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize(("key", "value", "ours"), CONTRADICTIONS)
def test_a_contradiction_names_both_keys(key: str, value: Any, ours: str, expert: Any) -> None:
    (line,) = refusal(expert(nested(key, value)))
    where, _, rest = line.partition(f"expert.json: {key}: ")
    assert where.endswith("/")
    assert ours in rest
    assert "contradicts" in rest
    assert "remove" in rest


def test_every_contradiction_is_told_at_once(expert: Any) -> None:
    content = {"gradient_clipping": 0.125, "bf16": {"enabled": True}, "scheduler": {"type": "x"}}
    assert len(refusal(expert(content))) == 3


def test_a_section_cannot_be_replaced_by_something_else(expert: Any) -> None:
    for content in ({"zero_optimization": None}, {"bf16": True}, {"fp16": 1}):
        (line,) = refusal(expert(content))
        assert next(iter(content)) in line


def test_the_same_value_and_auto_are_no_contradiction(expert: Any) -> None:
    asked = {"train": {"bf16": True, "per_device_train_batch_size": 4}}
    plain = deepspeed_config(config(**asked), 2)
    auto = {key: "auto" for key in plain if not isinstance(plain[key], dict)}
    sections = {k: dict.fromkeys(plain[k], "auto") for k in plain if isinstance(plain[k], dict)}
    assert deepspeed_config(expert(auto | sections, **asked), 2) == plain
    assert deepspeed_config(expert(plain, **asked), 2) == plain


def test_clipping_switched_off_in_both_places_is_no_contradiction(expert: Any) -> None:
    asked = expert({"gradient_clipping": 0}, optim={"max_grad_norm": 0.0})
    assert deepspeed_config(asked, 1)["gradient_clipping"] == NO_CLIPPING


def test_the_batch_of_the_yaml_is_no_contradiction(expert: Any) -> None:
    batch = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}
    content = {"gradient_accumulation_steps": 3, "train_batch_size": 24}
    derived = deepspeed_config(expert(content, train=batch), 2)
    assert (derived["gradient_accumulation_steps"], derived["train_batch_size"]) == (1, 8)


def test_expert_keys_are_added_and_nothing_is_lost(expert: Any) -> None:
    content = {
        "zero_optimization": {"reduce_bucket_size": 1000, "sub_group_size": 7},
        "wall_clock_breakdown": True,
        "activation_checkpointing": {"partition_activations": True},
        "bf16": {"immediate_grad_update": True},
        "steps_per_print": 5,
    }
    before = deepspeed_config(config(), 2)
    after = deepspeed_config(expert(content), 2)
    assert after == before | {
        "zero_optimization": before["zero_optimization"] | content["zero_optimization"],
        "wall_clock_breakdown": True,
        "activation_checkpointing": {"partition_activations": True},
        "bf16": {"enabled": False, "immediate_grad_update": True},
        "steps_per_print": 5,
    }


def test_an_expert_may_say_how_but_not_where_to_offload(expert: Any) -> None:
    how = {"pin_memory": False, "ratio": 0.5}
    content = {"zero_optimization": {"offload_optimizer": how | {"device": "cpu"}}}
    asked = expert(content, parallel={"offload_optimizer": "cpu"})
    assert deepspeed_config(asked, 2)["zero_optimization"]["offload_optimizer"] == {
        "device": "cpu",
        **how,
    }
    content["zero_optimization"]["offload_optimizer"]["device"] = "none"
    (line,) = refusal(expert(content, parallel={"offload_optimizer": "cpu"}))
    assert "'none' contradicts 'cpu' of parallel.offload_optimizer" in line


def test_auto_never_reaches_deepspeed(expert: Any) -> None:
    """Files written for transformers' Trainer hold it, also for keys that bigft does not derive."""
    content = {
        "zero_optimization": {
            "reduce_bucket_size": "auto",
            "offload_param": {"pin_memory": "auto"},
        },
        "fp16": {"enabled": "auto", "loss_scale_window": 1000},
        "flops_profiler": {"enabled": "auto", "profile_step": 3},
        "wall_clock_breakdown": "auto",
    }
    after = deepspeed_config(expert(content), 2)
    assert "auto" not in json.dumps(after)
    assert after["flops_profiler"] == {"profile_step": 3}
    assert after["fp16"] == {"enabled": False, "loss_scale_window": 1000}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{\n "a": 1,\n}', "expert.json:3: not JSON: "),
        (b"[1]", "expert.json: not a JSON object; "),
        (b'{"a": "\xff"}', "expert.json"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused(
    content: bytes, expected: str, expert: Any
) -> None:
    (line,) = refusal(expert(content))
    assert expected in line


def test_a_file_that_is_not_there_is_refused() -> None:
    (line,) = refusal(config(parallel={"deepspeed": "nowhere.json"}))
    assert line == "parallel.deepspeed: nowhere.json: No such file or directory; give a JSON file"
