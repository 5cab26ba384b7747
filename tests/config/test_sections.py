"""The keys, their defaults and their schema: the contract with users' files."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import pytest

from bigft.config import RunConfig, json_schema
from bigft.config.adapt import METHOD_NAMES
from bigft.config.fields import Section, sections_in
from bigft.config.keys import ALIASES, KEYS
from bigft.config.optim import OptimConfig
from bigft.config.sections import TrainConfig
from bigft.config.tasks import TASK_NAMES

PROMISED = {
    "task": "name return_entity_level_metrics doc_stride n_best_size mlm_probability source_lang "
    "target_lang assistant_only_loss generation generation.max_new_tokens generation.num_beams",
    "model": "model_name_or_path revision tokenizer_name from_scratch config_overrides dropout "
    "attn_implementation fused_head trust_remote_code",
    "data": "train_file validation_file test_file dataset_name dataset_config_name "
    "dataset_revision format text_column_name label_column_name label_all_tokens label_list "
    "max_seq_length max_train_samples preprocessing_num_workers packing",
    "adapt": "method r lora_alpha lora_dropout target_modules modules_to_save use_dora",
    "optim": "optim learning_rate head_learning_rate layerwise_lr_decay weight_decay adam_beta1 "
    "adam_beta2 adam_epsilon max_grad_norm lr_scheduler_type lr_scheduler_kwargs warmup_steps "
    "label_smoothing_factor class_weights",
    "parallel": "zero_stage offload_optimizer offload_param deepspeed ddp_timeout",
    "train": "output_dir run_name seed num_train_epochs max_steps max_time global_batch_size "
    "global_batch_tokens per_device_train_batch_size per_device_train_batch_tokens "
    "gradient_accumulation_steps per_device_eval_batch_size bf16 fp16 gradient_checkpointing "
    "full_determinism logging_steps eval_strategy eval_steps metric_for_best_model "
    "greater_is_better load_best_model_at_end early_stopping_patience save_strategy save_steps "
    "save_total_limit resume_from_checkpoint",
    "checkpoint": "strict async_save",
    "report": "report_to progress",
}
TASKS = (
    "token-classification text-classification question-answering seq2seq causal-lm masked-lm "
    "image-classification prompt-classification"
)
METHODS = "full head freeze lora dora qlora ia3 prompt prefix p-tuning bottleneck"


@pytest.mark.parametrize("section", PROMISED)
def test_every_promised_key_exists(section: str) -> None:
    missing = [key for key in PROMISED[section].split() if f"{section}.{key}" not in KEYS]
    assert not missing


def test_the_sections_tasks_and_methods_are_the_promised_ones() -> None:
    assert list(RunConfig.model_fields) == list(PROMISED)
    assert list(TASK_NAMES) == TASKS.split()
    assert list(METHOD_NAMES) == METHODS.split()


def test_every_alias_names_a_key_and_is_none_itself() -> None:
    assert set(ALIASES.values()) <= set(KEYS)
    leaves = {key.rpartition(".")[2] for key in KEYS}
    assert not leaves & set(ALIASES)


def _defaults_of_transformers() -> dict[str, object]:
    """From the source: importing transformers takes seconds."""
    spec = importlib.util.find_spec("transformers")
    assert spec
    assert spec.origin
    tree = ast.parse(Path(spec.origin).with_name("training_args.py").read_text())
    (arguments,) = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"
    ]
    return {
        ast.unparse(line.target): ast.literal_eval(keyword.value)
        for line in arguments.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Call)
        for keyword in line.value.keywords
        if keyword.arg == "default" and isinstance(keyword.value, ast.Constant | ast.UnaryOp)
    }


def test_defaults_follow_transformers() -> None:
    theirs = _defaults_of_transformers()
    keys = {
        OptimConfig: "learning_rate weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm "
        "lr_scheduler_type warmup_steps label_smoothing_factor",
        TrainConfig: "num_train_epochs max_steps per_device_train_batch_size "
        "per_device_eval_batch_size seed bf16 fp16 full_determinism load_best_model_at_end "
        "metric_for_best_model greater_is_better save_total_limit save_steps",
    }
    for section, names in keys.items():
        for name in names.split():
            assert section.model_fields[name].default == theirs[name], name


def _documented(section: type[Section]) -> None:
    for name, field in section.model_fields.items():
        text = field.description
        assert text, f"{section.__name__}.{name} has no docstring"
        assert text.endswith("."), f"{section.__name__}.{name}"
        for inner in sections_in(field.annotation):
            _documented(inner)


def test_every_key_says_what_it_is() -> None:
    _documented(RunConfig)


def test_the_schema_describes_keys_and_takes_the_short_forms() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert schema["additionalProperties"] is False
    rate = schema["$defs"]["OptimConfig"]["properties"]["learning_rate"]
    assert rate["description"].startswith("The highest learning rate")
    assert (rate["default"], rate["minimum"]) == (5e-5, 0)
    short, _ = schema["properties"]["task"]["anyOf"]
    assert short == {"enum": TASKS.split()}
    files = schema["$defs"]["DataConfig"]["properties"]["train_file"]["anyOf"]
    assert {kind["type"] for kind in files} == {"string", "array", "null"}


def test_a_config_does_not_change_after_loading() -> None:
    config = RunConfig.model_validate(
        {"task": "causal-lm", "model": {"model_name_or_path": "m"}, "train": {"output_dir": "o"}}
    )
    with pytest.raises(ValueError, match="frozen"):
        config.train.seed = 1  # type: ignore[misc]
