#!/usr/bin/env python3
"""What hashes cost a save: a checkpoint of a full fine-tune with AdamW, with and without them.

One rank saves through CheckpointStore and SafeCheckpointEngine, as a run does: weights and both
moments in fp32, hashed while they are written, fsync, MANIFEST, COMMIT, rename. `no checksums` is
the same code with a hash that does nothing; `torch's CRC-32` does that too, and has the CRC-32 that
torch.save computes unless it is told not to, as bigft does. They take turns; what an earlier save
left to the disk is written out before the next one is timed. Files go to a memory file system,
where a hash has nothing to hide behind, and to TMPDIR, which must be on a real disk. Two cores must
be idle.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import measure
import torch
from harness import QUICK_ROUNDS, conditions, parse, results_file
from report import print_table
from rows import Row, write_rows

from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import CheckpointStore, TrainerState
from bigft.training.checkpoint.manifest import Manifest
from bigft.training.checkpoint.shards import SafeCheckpointEngine

NAME = "checkpoint"
LAYERS, HIDDEN = 24, 2048  # 101 million parameters: 1.2 GB
QUICK_LAYERS, QUICK_HIDDEN = 2, 128
SECONDS, ROUNDS = 150.0, (5, 50)  # disks are noisy
GOAL = 1.10
SHOWN = ("median ms", "p20 - p80", "GB/s")
COLUMNS = [
    "provider", "case", "not_measured", "median_ms", "p20_ms", "p80_ms", "runs", "num_bytes",
    "gb_per_s", "times_the_baseline", "goals", "baseline",
]  # fmt: skip
MEMORY = Path("/dev/shm")


class Engine:
    """What DeepSpeed's engine is to a save: states that are there, and two files to write."""

    module_state_dict: Callable[[], dict[str, torch.Tensor]]  # the save brings it

    def __init__(self, layers: int, hidden: int) -> None:
        self.checkpoint_engine = SafeCheckpointEngine()
        self.module = torch.nn.Sequential(
            *(torch.nn.Linear(hidden, hidden, bias=False) for _ in range(layers))
        )
        self.state = {
            name: {key: torch.randn_like(value) for key in ("exp_avg", "exp_avg_sq")}
            for name, value in self.module.state_dict().items()
        }

    def save_checkpoint(self, directory: str, tag: str, **options: Any) -> None:
        place, write = os.path.join(directory, tag), self.checkpoint_engine.save
        self.checkpoint_engine.makedirs(place, exist_ok=True)
        write({"module": self.module_state_dict()}, os.path.join(place, "model_states.pt"))
        write({"optimizer": self.state}, os.path.join(place, "optim_states.pt"))


class NoHash:
    """What hashlib's hashes offer, for free."""

    def update(self, data: memoryview) -> None:
        pass

    def hexdigest(self) -> str:
        return "0" * 64


def save(engine: Engine, run: RunDirectory, replaced: dict[str, Any]) -> float:
    """The seconds of one save; nothing is left of it. replaced: of the product, by name."""
    store = CheckpointStore(run, ALONE, None, {}, False)
    os.sync()
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(mock.patch(f"bigft.training.checkpoint.{name}", value))
        start = time.perf_counter()
        saved = store.save(engine, TrainerState(step=1))
        seconds = time.perf_counter() - start
    if saved.path is None:
        raise OSError(saved.why)
    shutil.rmtree(saved.path)
    return seconds


NO_HASH = {"files.new_hash": NoHash}
TORCHS = NO_HASH | {"shards.without_crc32": nullcontext}
BASELINE = "no checksums"
ALONE = World(0, 0, 1, torch.device("cpu"), None)


def rows(place: Path, where: str, quick: bool, seconds: float) -> list[Row]:
    engine = Engine(*((QUICK_LAYERS, QUICK_HIDDEN) if quick else (LAYERS, HIDDEN)))
    run = RunDirectory(place)
    num_bytes = size(engine, run)
    calls: dict[str, Callable[[], float]] = {
        "ours": partial(save, engine, run, {}),
        BASELINE: partial(save, engine, run, NO_HASH),
        "torch's CRC-32": partial(save, engine, run, TORCHS),
    }
    spreads = measure.interleaved(calls, seconds, QUICK_ROUNDS if quick else ROUNDS)
    baseline = spreads[BASELINE].median
    found: list[Row] = [
        {
            "provider": name,
            "case": f"{num_bytes / 1e6:.0f} MB, one rank, {where}",
            "median_ms": spread.median * 1e3,
            "p20_ms": spread.p20 * 1e3,
            "p80_ms": spread.p80 * 1e3,
            "runs": spread.runs,
            "num_bytes": num_bytes,
            "gb_per_s": num_bytes / spread.median / 1e9,
            "times_the_baseline": spread.median / baseline,
            "baseline": BASELINE,
        }
        for name, spread in spreads.items()
    ]
    times = found[0]["times_the_baseline"]
    mark = "reached" if times <= GOAL else "MISSED"
    found[0]["goals"] = f"{times:.3f} x the time without (goal {GOAL:.2f} x): {mark}"
    return found


def size(engine: Engine, run: RunDirectory) -> int:
    """Bytes of a checkpoint. Raises Damaged or AssertionError if what was saved does not verify."""
    saved = CheckpointStore(run, ALONE, None, {}, False).save(engine, TrainerState(step=1))
    assert saved.path is not None, saved.why
    assert Manifest.read(saved.path).problems(saved.path, [0]) == []
    shutil.rmtree(saved.path)
    return saved.num_bytes


def main(argv: list[str] | None = None) -> int:
    args = parse(NAME, argv)
    everywhere = conditions(torch.device("cpu"))
    path = results_file(args, NAME)
    found: list[Row] = []
    for where, parent in {"in memory": MEMORY, "on disk": None}.items():
        if parent and not parent.is_dir():
            print(f"{where}: not measured, there is no {parent}")
            continue
        with tempfile.TemporaryDirectory(dir=parent) as place:
            measured = rows(Path(place), where, args.quick, args.seconds or SECONDS)
        print_table(measured[0]["case"], measured, SHOWN)
        found += [row | everywhere for row in measured]
    if path:
        write_rows(path, [*COLUMNS, *everywhere], found)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
