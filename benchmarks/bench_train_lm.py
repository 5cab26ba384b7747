#!/usr/bin/env python3
"""Training steps of a random Llama of 20M parameters: bigft's heads beside transformers' own loss.

Forward, backward and optimizer, half of the targets masked. All providers start from the same
weights, see the same batches and must keep the same losses.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import measure
import torch
from harness import (
    QUICK_ROUNDS,
    ROUNDS,
    SECONDS_PER_CASE,
    conditions,
    parse,
    results_file,
)
from report import print_table
from rows import Row, write_rows
from subject import IGNORED
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from bigft.models.heads.lm import attach_lm_head

NAME = "train_lm"
BASELINE = "transformers"
PROVIDERS = (BASELINE, "ours, stock head", "ours, fused head")
VOCABULARY, BATCH, TIME = 32000, 4, 256
QUICK_VOCABULARY, QUICK_TIME = 512, 16
NUM_BATCHES = 4
LARGEST_DIFFERENCE = 1e-4  # of the losses: rounding differs, and steps let it grow
COLUMNS = [
    "provider", "case", "median_ms", "p20_ms", "p80_ms", "runs", "times_as_fast_as_baseline",
    "peak_mib", "extra_mib", "first_loss", "last_loss", "error_loss", "baseline",
]  # fmt: skip


class Training:
    """One provider's model, optimizer and batches; every `step` is one of training."""

    def __init__(self, provider: str, device: torch.device, quick: bool) -> None:
        torch.manual_seed(0)
        vocabulary = QUICK_VOCABULARY if quick else VOCABULARY
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=256,
            intermediate_size=688,
            num_hidden_layers=4,
            num_attention_heads=4,
        )
        model: Any = LlamaForCausalLM(config)
        self.model = model.to(device).train()
        if provider != BASELINE:
            attach_lm_head(self.model, fused=provider == "ours, fused head")
        self.loss_of = with_own_loss if provider == BASELINE else with_head
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        time = QUICK_TIME if quick else TIME
        self.batches = itertools.cycle(batches(vocabulary, time, device))
        self.losses: list[float] = []

    def prepare(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        loss = self.loss_of(self.model, *next(self.batches))
        loss.backward()
        self.optimizer.step()
        self.losses.append(float(loss.detach()))


def with_own_loss(model: Any, ids_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """A mean over the targets; transformers shifts the labels itself."""
    return model(input_ids=ids_BT, labels=labels_BT, use_cache=False).loss


def with_head(model: Any, ids_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """The same mean, from shifted labels, as a task's collate makes them."""
    shifted_BT = F.pad(labels_BT[:, 1:], (0, 1), value=IGNORED)
    rows_M = (shifted_BT.flatten() != IGNORED).nonzero().squeeze(1)
    output = model(
        labels_BT=shifted_BT,
        scale=1 / len(rows_M),
        target_rows_M=rows_M,
        input_ids=ids_BT,
        use_cache=False,
    )
    return output.loss


def batches(vocabulary: int, time: int, device: torch.device) -> list[list[torch.Tensor]]:
    """Random tokens; every second one is no target."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(NUM_BATCHES):
        ids_BT = torch.randint(vocabulary, (BATCH, time), generator=generator)
        labels_BT = ids_BT.clone()
        labels_BT[:, ::2] = IGNORED
        made.append([ids_BT.to(device), labels_BT.to(device)])
    return made


def memory_row(provider: str, device: torch.device, quick: bool) -> Row:
    """Beyond weights and optimizer state: of a step, and without the gradients that it leaves."""
    if device.type == "cuda":
        training = Training(provider, device, quick)
        training.step()
        memory = measure.cuda_memory(training.prepare, training.step)
    else:
        words = [__file__, "--device", "cpu", "--memory-of", provider]
        memory = measure.memory_in_child([*words, *(["--quick"] if quick else [])])
    mib = 1 << 20
    return {"peak_mib": memory.peak / mib, "extra_mib": (memory.peak - memory.outputs) / mib}


def measured(device: torch.device, quick: bool, seconds: float) -> Iterator[Row]:
    memory = {provider: memory_row(provider, device, quick) for provider in PROVIDERS}
    trainings = {provider: Training(provider, device, quick) for provider in PROVIDERS}
    clock = measure.Clock(device)

    def timed(training: Training) -> float:
        training.prepare()
        return clock.seconds(training.step)

    calls: dict[str, Callable[[], float]] = {
        provider: partial(timed, training) for provider, training in trainings.items()
    }
    spreads = measure.interleaved(calls, seconds, QUICK_ROUNDS if quick else ROUNDS)
    sizes = {"B": BATCH, "T": QUICK_TIME if quick else TIME}
    model = trainings[BASELINE].model
    sizes |= {"V": model.config.vocab_size, "parameters": model.num_parameters()}
    expected = torch.tensor(trainings[BASELINE].losses)
    for provider, spread in spreads.items():
        losses = torch.tensor(trainings[provider].losses)
        yield {
            "provider": provider,
            "case": " ".join(f"{name}={size}" for name, size in sizes.items()) + " fp32 50% masked",
            "median_ms": spread.median * 1e3,
            "p20_ms": spread.p20 * 1e3,
            "p80_ms": spread.p80 * 1e3,
            "runs": spread.runs,
            "times_as_fast_as_baseline": spreads[BASELINE].median / spread.median,
            "first_loss": float(losses[0]),
            "last_loss": float(losses[-1]),
            "error_loss": float(((losses - expected) / expected).abs().max()),
            "baseline": BASELINE,
            **memory[provider],
        }


def main(argv: Sequence[str] | None = None) -> int:
    """1 if a provider's losses are not those of transformers."""
    args = parse(NAME, argv)
    device = torch.device(args.device)
    if args.memory_of:
        training = Training(args.memory_of, device, args.quick)
        print(json.dumps(measure.resident_memory(training.prepare, training.step)))
        return 0
    everywhere = conditions(device)
    seconds = args.seconds or SECONDS_PER_CASE[args.device]
    rows = [row | everywhere for row in measured(device, args.quick, seconds)]
    wrong = [row for row in rows if not row["error_loss"] <= LARGEST_DIFFERENCE]
    print_table(rows[0]["case"], rows)
    for row in wrong:
        print(f"refused: the losses of {row['provider']} are off by {row['error_loss']:.1e}")
    path = results_file(args, NAME)
    if path and not wrong:
        write_rows(path, [*COLUMNS, *everywhere], rows)
        print(path)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
