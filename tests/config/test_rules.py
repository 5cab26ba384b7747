"""Contradictions name both keys; what this version lacks is refused by name; notes for the rest."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import pytest

from bigft.config import BadInput, LoadedConfig, check_batch
from bigft.config.keys import KEYS
from bigft.config.not_yet import NOT_YET, not_yet

Load = Callable[..., LoadedConfig]
Refused = Callable[..., list[str]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.bf16=true", "train.fp16=true"], "both fp16 and train.bf16 are true; choose one"),
        (["train.global_batch_size=8", "train.global_batch_tokens=512"],
         "given beside train.global_batch_size; a step is a number of samples or of tokens: "
         "choose one"),
        (["train.global_batch_tokens=512", "train.gradient_accumulation_steps=2"],
         "given beside train.global_batch_tokens; leave it out: it follows from the lengths of "
         "the samples"),
        (["train.gradient_accumulation_steps=3", "train.global_batch_size=32"],
         "32 is not a multiple of train.per_device_train_batch_size (8) * "
         "train.gradient_accumulation_steps (3); leave train.gradient_accumulation_steps out: it "
         "is derived"),
        (["data.validation_file=null", "train.early_stopping_patience=2"],
         "needs evaluations, but data.validation_file is not given; name the file to evaluate on"),
        (["train.eval_strategy=no", "train.load_best_model_at_end=true"],
         "needs evaluations, but train.eval_strategy is no; set it to steps or epoch"),
        (["train.eval_strategy=no", "train.save_strategy=best"],
         "needs evaluations, but train.eval_strategy is no; set it to steps or epoch"),
        (["train.early_stopping_patience=2"],
         "2, but no train.metric_for_best_model to watch; name one (loss, f1, ...)"),
        (["optim.label_smoothing_factor=0.1", "optim.class_weights={O: 0.5}",
          "model.fused_head=true"],
         "true, but optim.class_weights act inside of optim.label_smoothing_factor, which the "
         "fused token head does not know; set model.fused_head to auto or false"),
        (["train.fp16=true", "model.fused_head=true"],
         "true, but the gradients of the fused token head would underflow under train.fp16; set "
         "model.fused_head to auto or false"),
        (["data.dataset_revision=v1"], "given without data.dataset_name"),
        (["data.dataset_config_name=en"], "given without data.dataset_name"),
    ],
)  # fmt: skip
def test_contradicting_keys_are_both_named(
    refused: Refused, overrides: list[str], message: str
) -> None:
    assert refused(*overrides) == [f"command line: {overrides[-1]}: {message}"]


def test_files_beside_a_named_data_set_are_refused(refused: Refused) -> None:
    assert refused("data.dataset_name=d") == [
        f"config.yaml:3: data.{split}_file: given beside data.dataset_name (d); choose one"
        for split in ("train", "validation")
    ]


def test_remote_code_needs_a_pinned_commit(refused: Refused) -> None:
    unpinned = "the code could change under you; set model.revision to a commit's 40 hex digits"
    for revision in ("main", COMMIT[:-1], COMMIT + "0"):
        found = refused("model.trust_remote_code=true", f"model.revision='{revision}'")
        assert found[0].endswith(unpinned)
    found = refused("model.trust_remote_code=true", f"model.revision='{COMMIT}'")
    assert found == [
        "command line: model.trust_remote_code=true: true is not available yet; "
        "use an architecture that transformers has"
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task=causal-lm", "causal-lm is not available yet; there is token-classification"),
        ("adapt.method=lora", "lora is not available yet; there is full"),
        ("optim.optim=lion_8bit",
         "lion_8bit is not available yet; there is adamw_torch or sgd or adamw_8bit"),
        ("data.packing=true",
         "true is not available yet; rows of like lengths are padded to the longest"),
        ("data.format=csv", "csv is not available yet; there is auto or conll or conllu or json "
         "or jsonl or parquet or datasets"),
        ("optim.layerwise_lr_decay=0.9",
         "0.9 is not available yet; optim.head_learning_rate sets the head's apart"),
        ("parallel.offload_optimizer=cpu",
         "cpu is not available yet; optim.optim adamw_8bit has a small state"),
        ("parallel.offload_param=nvme",
         "nvme is not available yet; parallel.zero_stage 3 shards the parameters"),
        ("train.max_time=2:00:00",
         "2:00:00 is not available yet; train.max_steps bounds a run"),
        ("checkpoint.async_save=true", "true is not available yet; there is false"),
        ("report.report_to=[tensorboard, wandb]",
         "wandb is not available yet; there is tensorboard"),
    ],
)  # fmt: skip
def test_what_is_not_there_yet_is_refused_with_what_is(
    refused: Refused, override: str, message: str
) -> None:
    assert refused(override) == [f"command line: {override}: {message}"]


def test_defaults_are_alive_and_every_row_names_a_key(load: Load) -> None:
    config = load().config
    assert not list(not_yet(config))
    for row in NOT_YET:
        assert row.key in KEYS
        attrgetter(row.key)(config)


def test_what_works_today_is_accepted(load: Load) -> None:
    for override in (
        *(f"optim.optim={name}" for name in ("adamw_torch", "sgd", "adamw_8bit")),
        *(
            f"optim.lr_scheduler_type={name}"
            for name in ("linear", "cosine", "constant", "exponential", "polynomial")
        ),
        *(f"parallel.zero_stage={stage}" for stage in range(4)),
        "train.save_strategy=best",
        "train.resume_from_checkpoint=out/checkpoint-3",
        "model.from_scratch=true",
        "report.report_to=none",
    ):
        assert load(override).notes == []


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("train.save_steps=7", "7 is not used: train.save_strategy is epoch"),
        ("train.eval_steps=7", "7 is not used: train.eval_strategy is epoch"),
        ("train.per_device_train_batch_tokens=99",
         "train.per_device_train_batch_size (8) bounds a micro-batch too"),
        ("data.validation_file=null", "not given: nothing is evaluated during training"),
    ],
)  # fmt: skip
def test_what_is_allowed_but_perhaps_not_meant_is_noted(
    load: Load, override: str, note: str
) -> None:
    assert load(override).notes == [f"command line: {override}: {note}"]


def test_max_steps_wins_over_epochs_with_a_note(load: Load) -> None:
    assert load("train.num_train_epochs=2", "train.max_steps=9").notes == [
        "command line: train.max_steps=9: 9 wins over train.num_train_epochs 2"
    ]


def test_a_stated_accumulation_must_make_the_stated_global_batch(load: Load) -> None:
    config = load("train.global_batch_size=32", "train.gradient_accumulation_steps=2").config
    check_batch(config, 2)
    with pytest.raises(BadInput) as caught:
        check_batch(config, 4)
    assert str(caught.value) == (
        "train.global_batch_size: 32, but train.per_device_train_batch_size (8) * "
        "train.gradient_accumulation_steps (2) * processes (4) is 64; "
        "leave train.gradient_accumulation_steps out: it is derived"
    )


def test_a_derived_accumulation_makes_every_global_batch(load: Load) -> None:
    check_batch(load("train.global_batch_size=30").config, 4)
    check_batch(load("train.gradient_accumulation_steps=3").config, 4)
