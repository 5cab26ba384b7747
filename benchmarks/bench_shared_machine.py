#!/usr/bin/env python3
"""How threads should wait for each other: a training step on a quiet machine and beside one busy
process, by GOMP_SPINCOUNT and OMP_WAIT_POLICY (libgomp, which torch's wheels bring).

Both are read when libgomp is loaded, so each setting has a process of its own. All of them are
loaded first; then they take turns, a few steps each, while the others sleep.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from harness import conditions
from rows import RESULTS, Row, write_rows

from bigft.runtime.environment import MALLOC_SETTINGS, SPINS

NAME = "shared_machine"
MODEL = Path(__file__).resolve().parents[1] / "models" / "all-MiniLM-L6-v2"
SPIN_COUNTS = (0, 300, 1000, 1500, 2000, 3000, 5000, 10_000, 30_000)
SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's default": {},
    **{f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in SPIN_COUNTS},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
OURS = "GOMP_SPINCOUNT=" + SPINS["GOMP_SPINCOUNT"]
COLUMNS = ["provider", "case", "median_ms", "mean_ms", "runs", "ratio_to_default", "ratio_to_quiet"]
STEPS = {"quiet": 5, "beside a busy process": 2}  # in a row
BATCH = (16, 24)
WORKER = "--steps-of-one-process"


def work(model_path: str) -> None:
    """Steps of plain torch, as many as each line of stdin says; their mean milliseconds."""
    import time

    from transformers import AutoModelForTokenClassification

    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_pretrained(model_path, num_labels=9).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids, labels = torch.randint(1000, 20_000, BATCH), torch.randint(0, 9, BATCH)

    def step() -> None:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        print((time.perf_counter() - began) / int(line) * 1e3, flush=True)


class Worker:
    def __init__(self, settings: Mapping[str, str], threads: int) -> None:
        clean = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT",)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, WORKER, str(MODEL)],
            env={**clean, **MALLOC_SETTINGS, "OMP_NUM_THREADS": str(threads), **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._line()

    def milliseconds(self, steps: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._line())

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"a worker ended with {self._process.wait()}")
        return line


def measured(workers: Mapping[str, Worker], steps: int, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name in random.sample(list(workers), len(workers)):
            times[name].append(workers[name].milliseconds(steps))
    return times


def rows_of(case: str, times: Mapping[str, Sequence[float]], quiet: float) -> list[Row]:
    """quiet: milliseconds of libgomp's default on the quiet machine."""
    default = times["libgomp's default"]
    return [
        {
            "provider": name + (" (bigft)" if name == OURS else ""),
            "case": case,
            "median_ms": statistics.median(own),
            "mean_ms": statistics.fmean(own),
            "runs": len(own),
            # Of the same round: what else the machine does hits both.
            "ratio_to_default": statistics.median(
                one / other for one, other in zip(own, default, strict=True)
            ),
            "ratio_to_quiet": statistics.median(own) / quiet,
        }
        for name, own in times.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [WORKER]:
        work(words[1])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV")
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="one round, to see that all runs")
    args = parser.parse_args(words)
    args.rounds = 1 if args.quick else args.rounds
    everywhere = conditions(torch.device("cpu")) | {"threads": args.threads}
    path = args.out / f"{NAME}_cpu_{everywhere['date']}.csv"
    workers = {name: Worker(own, args.threads) for name, own in SETTINGS.items()}
    quiet = 0.0
    for case, steps in STEPS.items():
        busy = None
        if case != "quiet":
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            times = measured(workers, steps, args.rounds)
        finally:
            if busy is not None:
                busy.kill()
        quiet = quiet or statistics.median(times["libgomp's default"])
        rows = rows_of(case, times, quiet)
        print(case)
        for row in rows:
            print(
                f"  {row['provider']:34} {row['median_ms']:8.1f} ms  "
                f"{row['ratio_to_default']:.3f} x default, {row['ratio_to_quiet']:.2f} x quiet"
            )
        if not args.quick:
            write_rows(path, [*COLUMNS, *everywhere], [row | everywhere for row in rows])
    for worker in workers.values():
        worker.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
