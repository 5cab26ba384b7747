"""What no single key can tell: keys that contradict each other, and choices worth a note."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from bigft.config.adapt_rules import adapt_contradictions, unused_options
from bigft.config.clash import Clash as Clash
from bigft.config.sections import RunConfig, TrainConfig
from bigft.config.sharding_rules import sharding_contradictions
from bigft.config.task_rules import generation_remarks, task_contradictions


def evaluates(config: RunConfig) -> bool:
    """Whether anything is evaluated during training; a named data set may have a validation set."""
    has_validation = bool(config.data.validation_file or config.data.dataset_name)
    return has_validation and config.train.eval_strategy != "no"


def contradictions(config: RunConfig) -> Iterator[Clash]:
    yield from _model(config)
    yield from _data(config)
    yield from _batch(config.train)
    yield from _best(config)
    yield from adapt_contradictions(config)
    yield from sharding_contradictions(config)
    yield from task_contradictions(config)


def _model(config: RunConfig) -> Iterator[Clash]:
    model = config.model
    if model.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", model.revision or ""):
        yield Clash(
            ("model.trust_remote_code", "model.revision"),
            "true, but model.revision pins no commit: the code could change under you",
            "set model.revision to a commit's 40 hex digits",
        )
    if config.train.bf16 and config.train.fp16:
        yield Clash(("train.fp16", "train.bf16"), "both fp16 and train.bf16 are true", "choose one")
    if model.is_flash and not (config.train.bf16 or config.train.fp16):
        yield Clash(
            ("model.attn_implementation", "train.bf16"),
            f"{model.attn_implementation} computes in 16 bits only, but train.bf16 is false",
            "set train.bf16 to true, or choose sdpa",
        )
    if model.fused_head is True and config.task.answers_in == "labels":
        yield from _token_head(config)


def _token_head(config: RunConfig) -> Iterator[Clash]:
    optim, fix = config.optim, "set model.fused_head to auto or false"
    if config.train.fp16:
        what = "true, but the gradients of the fused head would underflow under train.fp16"
        yield Clash(("model.fused_head", "train.fp16"), what, fix)
    if optim.class_weights is not None and optim.label_smoothing_factor > 0:
        yield Clash(
            ("model.fused_head", "optim.class_weights"),
            "true, but optim.class_weights act inside of optim.label_smoothing_factor, which the "
            "fused head does not know",
            fix,
        )


def _data(config: RunConfig) -> Iterator[Clash]:
    data = config.data
    for split in ("train_file", "validation_file", "test_file"):
        if data.dataset_name and getattr(data, split):
            yield Clash(
                (f"data.{split}", "data.dataset_name"),
                f"given beside data.dataset_name ({data.dataset_name})",
                "choose one",
            )
    if not data.dataset_name:
        for key in ("dataset_config_name", "dataset_revision"):
            if getattr(data, key):
                yield Clash((f"data.{key}", "data.dataset_name"), "given without data.dataset_name")
        if not data.train_file:
            yield Clash(
                ("data.train_file", "data.dataset_name"),
                "neither data.train_file nor data.dataset_name is given",
                "name the file to train on",
            )
    repeated = [label for label, count in Counter(data.label_list or ()).items() if count > 1]
    if repeated:
        what = f"{', '.join(repeated)} given twice"
        yield Clash(("data.label_list",), what, "a label has one number: remove one")


def _batch(train: TrainConfig) -> Iterator[Clash]:
    accumulation = train.gradient_accumulation_steps
    if train.global_batch_size and train.global_batch_tokens:
        yield Clash(
            ("train.global_batch_tokens", "train.global_batch_size"),
            "given beside train.global_batch_size",
            "a step is a number of samples or of tokens: choose one",
        )
    if accumulation and train.global_batch_tokens:
        yield Clash(
            ("train.gradient_accumulation_steps", "train.global_batch_tokens"),
            "given beside train.global_batch_tokens",
            "leave it out: it follows from the lengths of the samples",
        )
    if accumulation and train.global_batch_size:
        micro = train.per_device_train_batch_size
        if train.global_batch_size % (micro * accumulation):
            yield Clash(
                (
                    "train.global_batch_size",
                    "train.per_device_train_batch_size",
                    "train.gradient_accumulation_steps",
                ),
                f"{train.global_batch_size} is not a multiple of "
                f"train.per_device_train_batch_size ({micro}) * "
                f"train.gradient_accumulation_steps ({accumulation})",
                "leave train.gradient_accumulation_steps out: it is derived",
            )


def _best(config: RunConfig) -> Iterator[Clash]:
    train = config.train
    wishes = {
        "train.load_best_model_at_end": train.load_best_model_at_end,
        "train.early_stopping_patience": train.early_stopping_patience is not None,
        "train.save_strategy": train.save_strategy == "best",
    }
    wanting = [key for key, wanted in wishes.items() if wanted]
    if not evaluates(config):
        never = train.eval_strategy == "no"
        for key in wanting:
            yield Clash(
                (key, "train.eval_strategy", "data.validation_file"),
                "needs evaluations, but "
                + ("train.eval_strategy is no" if never else "data.validation_file is not given"),
                "set it to steps or epoch" if never else "name the file to evaluate on",
            )
        return
    if train.early_stopping_patience and train.metric_for_best_model is None:
        yield Clash(
            ("train.early_stopping_patience", "train.metric_for_best_model"),
            f"{train.early_stopping_patience}, but no train.metric_for_best_model to watch",
            "name one (loss, f1, ...)",
        )


def remarks(config: RunConfig) -> Iterator[Clash]:
    """Allowed, but perhaps not what was meant: shown as notes."""
    train, default = config.train, TrainConfig.model_fields
    for event in ("save", "eval"):
        steps, strategy = getattr(train, f"{event}_steps"), getattr(train, f"{event}_strategy")
        if strategy != "steps" and steps != default[f"{event}_steps"].default:
            yield Clash(
                (f"train.{event}_steps", f"train.{event}_strategy"),
                f"{steps} is not used: train.{event}_strategy is {strategy}",
            )
    if train.eval_strategy != "no" and not evaluates(config):
        yield Clash(("data.validation_file",), "not given: nothing is evaluated during training")
    if train.per_device_train_batch_tokens:
        yield Clash(
            ("train.per_device_train_batch_tokens", "train.per_device_train_batch_size"),
            "train.per_device_train_batch_size "
            f"({train.per_device_train_batch_size}) bounds a micro-batch too",
        )
    yield from unused_options(config.optim)
    yield from generation_remarks(config)
