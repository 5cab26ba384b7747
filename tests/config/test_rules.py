"""Contradictions name both keys; what this version lacks is refused by name; notes for the rest."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import pytest

from bigft.config import BadInput, LoadedConfig, check_batch
from bigft.config.keys import KEYS
from bigft.config.not_yet import NOT_YET, not_yet
from bigft.config.tasks import AVAILABLE_TASKS

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
         "fused head does not know; set model.fused_head to auto or false"),
        (["train.fp16=true", "model.fused_head=true"],
         "true, but the gradients of the fused head would underflow under train.fp16; set "
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


LORA = "adapt.method=lora"
ADAPTERS = [
    ([LORA, "model.from_scratch=true"],
     "true, but adapt.method lora saves an adapter: the random weights that it belongs on would be "
     "lost; set adapt.method to full, or start from a saved model"),
    (["adapt.method=prefix"],
     "prefix, but the models of task token-classification read no keys of earlier tokens; choose "
     "prompt, p-tuning or lora"),
    (["adapt.method=freeze", "adapt.freeze_embeddings=false"],
     "freeze, but nothing is to be frozen; set adapt.method to full, or adapt.freeze_layers or "
     "adapt.freeze_patterns"),
    (["adapt.method=ia3", "adapt.feedforward_modules=[fc2]"],
     "given without adapt.target_modules, of which they are a part; name both"),
    (["adapt.method=head", "optim.layerwise_lr_decay=0.9"],
     "given, but adapt.method head trains no layers of the model; leave it out"),
    (["parallel.offload_optimizer=cpu", "optim.optim=paged_adamw_8bit"],
     "paged_adamw_8bit keeps a small state on the GPU, but parallel.offload_optimizer cpu keeps it "
     "elsewhere, where 8 bits are slow; choose cpu_adam, or set parallel.offload_optimizer to "
     "none"),
    (["optim.optim=cpu_adam"],
     "cpu_adam, but the optimizer's state is not on the CPU; set parallel.offload_optimizer to "
     "cpu, or optim.optim to adamw_torch"),
    (["optim.optim=sgd_8bit", "optim.adam_beta1=0.0"],
     "0, but it is the momentum of sgd_8bit, whose 8-bit state is just that; give more than 0, or "
     "set optim.optim to sgd"),
    (["task=causal-lm", "optim.head_learning_rate=0.001"],
     "given, but task causal-lm has no new head: its own is pretrained; leave it out"),
    (["task=causal-lm", "adapt.method=prefix", "train.gradient_checkpointing=true"],
     "true, but adapt.method prefix needs the cache that it does without; set it to false, or "
     "adapt.method to prompt or lora"),
    (["task=causal-lm", "data.max_seq_length=64", "adapt.method=p-tuning", "data.packing=true"],
     "true, but adapt.method p-tuning puts its virtual tokens before the first sample of a row "
     "only; set data.packing to false, or adapt.method to lora"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), ADAPTERS)
def test_contradictions_of_adapters_and_optimizers(
    refused: Refused, overrides: list[str], message: str
) -> None:
    (line,) = refused(*overrides)
    assert line.endswith(f": {message}")


def test_what_goes_together_with_an_adapter_is_accepted(load: Load) -> None:
    for overrides in (
        [LORA, "optim.layerwise_lr_decay=0.9", "optim.head_learning_rate=0.001"],
        ["adapt.method=qlora", "parallel.zero_stage=3", "train.bf16=true"],
        ["adapt.method=prompt", "train.gradient_checkpointing=true"],
        ["parallel.offload_optimizer=cpu", "optim.optim=cpu_adam"],
        ["parallel.offload_optimizer=cpu", "optim.optim=adamw_torch"],
    ):
        assert load(*overrides).notes == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task=image-classification",
         f"image-classification is not available yet; there is {' or '.join(AVAILABLE_TASKS)}"),
        ("adapt.method=bottleneck", "bottleneck is not available yet; there is full or head or "
         "freeze or lora or dora or qlora or ia3 or prompt or prefix or p-tuning"),
        ("parallel.offload_optimizer=nvme", "nvme is not available yet; cpu offloads to memory"),
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
        *(f"optim.optim={name}" for name in ("adamw_torch", "sgd", "lion_8bit")),
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


@pytest.mark.parametrize(
    ("optimizer", "key", "value"),
    [
        ("sgd", "adam_beta1", 0.5),
        ("lion_8bit", "adam_epsilon", 0.1),
        ("rmsprop", "adam_beta1", 0.5),
    ],
)
def test_options_that_an_optimizer_does_not_know_are_noted(
    load: Load, optimizer: str, key: str, value: float
) -> None:
    notes = load(f"optim.optim={optimizer}", f"optim.{key}={value}").notes
    where = f"command line: optim.{key}={value}"
    assert notes == [f"{where}: {value} is not used: optim.optim is {optimizer}"]
    assert load("optim.optim=adamw_torch", f"optim.{key}={value}").notes == []


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
