"""What the training benchmarks run in processes of their own: a random model and a tokenizer for
it, TRL's and transformers' trainers, an evaluation. A job is a JSON object (`JOBS` at the end)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rows import Row

# What each of TRL's providers sets beside what all have in common.
TRL: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-grouped": {"train_sampling_strategy": "group_by_length"},
    "trl-packed": {"packing": True},
    "trl-checkpointing": {"gradient_checkpointing": True},  # TRL's default
    "trl-liger": {"use_liger_kernel": True},
    "trl-liger-packed": {"use_liger_kernel": True, "packing": True},
}
TRAINER = "trainer"  # transformers' own
IGNORED = -100
EVAL_BATCH = 32


class Line(NamedTuple):
    """One log line: one step.  time: unix seconds.  tokens: real ones.  loss: mean per target."""

    time: float
    epoch: float
    tokens: float
    targets: int
    loss: float


# -- the model, and rows of data ------------------------------------------------------------------


def save_model(job: Row) -> Row:
    """A random model and a tokenizer trained on the data, in job["model"]; how large it is.

    Takes samples out of the data whose prompt alone fills a row: nothing of them could be learnt.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    samples = read_samples(job["train_file"])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=job["vocabulary"],
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(("".join(sample.values()) for sample in samples), trainer)
    if job["auto_class"] == "AutoModelForSeq2SeqLM":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <eos>", special_tokens=[("<eos>", 1)]
        )
    with Path(job["train_file"]).open("w", encoding="utf-8") as file:
        for sample in samples:
            first, _ = sample.values()
            if len(tokenizer.encode(first).ids) < job["seq"]:
                print(json.dumps(sample), file=file)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"
    ).save_pretrained(job["model"])
    torch.manual_seed(job["seed"])
    config = transformers.AutoConfig.for_model(
        job["model_type"], **{"pad_token_id": 0, "eos_token_id": 1, **job["shape"]}
    )
    model = getattr(transformers, job["auto_class"]).from_config(config)
    model.save_pretrained(job["model"])
    parameters = model.num_parameters()
    looked_up = 0 if config.tie_word_embeddings else model.get_input_embeddings().weight.numel()
    return {"parameters": parameters, "flops_per_token": 6 * (parameters - looked_up)}


def read_samples(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def rows_of(path: str, job: Row, tokenizer: Any) -> list[dict[str, list[int]]]:
    """The samples as transformers' models take them: they shift the labels themselves."""
    rows = []
    for first, second in (sample.values() for sample in read_samples(path)):
        given = tokenizer(first)["input_ids"]
        answer = tokenizer(text_target=second)["input_ids"]
        if job["auto_class"] == "AutoModelForCausalLM":
            answer = [*answer, tokenizer.eos_token_id]
            given, answer = given + answer, [IGNORED] * len(given) + answer
        rows.append({"input_ids": given[: job["seq"]], "labels": answer[: job["seq"]]})
    return rows


# -- training -------------------------------------------------------------------------------------


def train(job: Row) -> Row:
    """The log lines of a training by job["provider"]; the model is left beside job["result"]."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    model = getattr(transformers, job["auto_class"]).from_pretrained(
        job["model"], dtype=torch.float32, attn_implementation=job["attn_implementation"]
    )
    own = TRL.get(job["provider"], {})
    packing = "packing" in own
    options = {
        "output_dir": str(Path(job["result"]).parent / "run" / "model"),
        "seed": job["seed"],
        "num_train_epochs": job["epochs"],
        "max_steps": job["max_steps"],
        "per_device_train_batch_size": job["rows"] if packing else job["batch"],
        "learning_rate": job["lr"],
        "lr_scheduler_type": "linear",
        "bf16": job["bf16"],
        "use_cpu": job["device"] == "cpu",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **own,
    }
    if job["provider"] == TRAINER:
        base, given = plain(job, tokenizer, model, options)
    else:
        base, given = trl(job, options)
    lines: list[Line] = []
    seen: dict[str, int] = {}

    class Clock(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if "loss" in given["logs"]:  # not the summary at the end
                counted = (seen["tokens"], seen["targets"], given["logs"]["loss"])
                lines.append(Line(time.time(), state.epoch, *counted))
                seen.clear()

    trainer = counting(base, seen)(
        model=model, processing_class=tokenizer, callbacks=[Clock()], **given
    )
    trainer.train()
    trainer.save_model()  # as a run of bigft ends
    return {"lines": lines, "leak": leak(trainer) if packing else None}


def counting(base: Any, seen: dict[str, int]) -> Any:
    """The Trainer `base`, which adds samples, real tokens and targets of each step to `seen`."""

    class Counting(base):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            ids = inputs["input_ids"]
            real = inputs.get("attention_mask")  # a flattened batch has none, and no padding
            counted = {
                "samples": len(ids),
                "tokens": ids.numel() if real is None else int(real.sum()),
                "targets": int((inputs["labels"] != IGNORED).sum()),
            }
            for what, number in counted.items():
                seen[what] = seen.get(what, 0) + number
            return super().training_step(model, inputs, *rest)

    return Counting


def trl(job: Row, options: Row) -> tuple[type, Row]:
    """SFTTrainer and its arguments."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer, {
        "args": SFTConfig(**options, max_length=job["seq"]),
        "train_dataset": Dataset.from_list(read_samples(job["train_file"])),
    }


def plain(job: Row, tokenizer: Any, model: Any, options: Row) -> tuple[type, Row]:
    """transformers' Trainer and its arguments."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    return Trainer, {
        "args": TrainingArguments(**options),
        "train_dataset": rows_of(job["train_file"], job, tokenizer),
        "data_collator": DataCollatorForSeq2Seq(tokenizer, model=model),
    }


def leak(trainer: Any) -> float:
    """How much other tokens in a row's first sample change the logits of the samples behind it, of
    the largest logit. 0: packed samples do not see each other."""
    import torch

    rows = [trainer.train_dataset[number] for number in range(2)]
    first = rows[0]["seq_lengths"][0]
    inputs = {
        name: value.to(trainer.model.device) if torch.is_tensor(value) else value
        for name, value in trainer.data_collator(rows).items()
        if name != "labels"
    }
    trainer.model.eval()
    logits = []
    with torch.no_grad():
        for token in (10, 20):
            inputs["input_ids"][:, :first] = token
            logits.append(trainer.model(**inputs, use_cache=False).logits[:, first:])
    return float((logits[1] - logits[0]).abs().max() / logits[0].abs().max())


# -- evaluation -----------------------------------------------------------------------------------


def evaluate(job: Row) -> Row:
    """The loss per target of job["model"] on job["validation_file"]."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    model = getattr(transformers, job["auto_class"]).from_pretrained(job["model"]).eval()
    collate = transformers.DataCollatorForSeq2Seq(tokenizer, model=model)
    rows: Sequence[Any] = rows_of(job["validation_file"], job, tokenizer)
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    loss_sum, num_targets = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), EVAL_BATCH):
            batch = collate(rows[start : start + EVAL_BATCH])
            targets = int((batch["labels"] != IGNORED).sum())
            loss_sum += float(model(**batch).loss) * targets
            num_targets += targets
    return {"eval_loss": loss_sum / num_targets}


JOBS = {"model": save_model, "train": train, "evaluate": evaluate}

if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(job["result"]).write_text(json.dumps(JOBS[job["do"]](job)), encoding="utf-8")
