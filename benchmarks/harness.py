"""All providers of an operator in one process, in turn: checked against fp64, then measured.

A bench file names a Subject and calls `main`. How to read the results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import measure
import torch
from processes import cpu_model
from report import last_rows, print_table, save_picture
from rows import RESULTS, Row, versions, write_rows
from subject import Absent, Answer, Case, Goal, Inputs, Step, Subject, Work, Wrong

from bigft.ops import native

PACKAGES = ("torch", "triton", "liger-kernel", "quack-kernels", "cut-cross-entropy", "trl")
# Norm-wise. A gradient of zeros has error 1; bf16 itself rounds by 2e-3, and some providers
# round the running sum of dWeight once per chunk.
LARGEST_ERROR = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 3e-2}
SECONDS_PER_CASE = {"cpu": 20.0, "cuda": 2.0}
ROUNDS = (5, 100)
QUICK_ROUNDS = (2, 2)


def solve(step: Step, inputs: Inputs) -> Answer:
    """Forward and backward, with an upstream gradient of 1."""
    loss = step.run()
    leaves = inputs.leaves
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    # Detached: what a provider saved for its backward is no output.
    return Answer(
        loss.detach(), {name: g.detach() for name, g in zip(leaves, gradients, strict=True)}
    )


def checked(subject: Subject, step: Step, inputs: Inputs) -> Row:
    """The step's errors against fp64, by column. Raises Wrong."""
    step.prepare()
    answer = solve(step, inputs)
    expected = subject.expected(inputs, answer)
    errors = {"error_loss": measure.relative_error(answer.loss, expected.loss)}
    for name, gradient in answer.gradients.items():
        error = measure.relative_error(gradient, expected.gradients[name])
        errors[f"error_grad_{name}"] = error
    largest = LARGEST_ERROR[inputs.case.dtype]
    wrong = [f"{name} {error:.1e}" for name, error in errors.items() if not error <= largest]
    if wrong:
        raise Wrong(f"{', '.join(wrong)}, over {largest:.0e}")
    return errors


def measure_case(subject: Subject, case: Case, device: torch.device, seconds: float) -> list[Row]:
    """One row per provider: of those that are absent or wrong, why."""
    inputs = subject.inputs(case, device)
    rows: dict[str, Row] = {}
    steps: dict[str, Step] = {}
    for name, build in subject.providers.items():
        rows[name] = {"provider": name, "case": case.name}
        try:
            step = build(inputs)
            rows[name] |= checked(subject, step, inputs)
            rows[name] |= memory_row(subject, name, step, inputs)
            steps[name] = step
        except Absent as absent:
            rows[name]["not_measured"] = str(absent)
        except Wrong as wrong:
            rows[name]["not_measured"] = f"refused: {wrong}"
        except Exception as error:  # a peer's: anything; ours: it fails the run (`failed`)
            first_line = next(iter(str(error).splitlines()), "")
            rows[name]["not_measured"] = f"failed: {type(error).__name__}: {first_line}"
            traceback.print_exc()
        print(f"  {name}: {rows[name].get('not_measured', 'right')}", file=sys.stderr, flush=True)
    spreads, ceilings = measure_time(case, steps, inputs, device, seconds)
    work = subject.work(case)
    floors = (work.num_bytes / ceilings.num_bytes, work.num_flops / ceilings.num_flops)
    floor = subject.combine(floors)
    for name, spread in spreads.items():
        rows[name] |= {
            "median_ms": spread.median * 1e3,
            "p20_ms": spread.p20 * 1e3,
            "p80_ms": spread.p80 * 1e3,
            "runs": spread.runs,
            "floor_ms": floor * 1e3,
            "ratio_to_floor": spread.median / floor,
            "gb_per_s": work.num_bytes / spread.median / 1e9,
            "tflop_per_s": work.num_flops / spread.median / 1e12,
        }
        if subject.baseline in spreads:
            speedup = spreads[subject.baseline].median / spread.median
            rows[name]["times_as_fast_as_baseline"] = speedup
    for name, row in rows.items():
        row["copy_gb_per_s"] = ceilings.num_bytes / 1e9
        row["gemm_tflop_per_s"] = ceilings.num_flops / 1e12
        row["goals"] = "; ".join(
            verdict(goal, rows) for goal in case.goals if goal.provider == name
        )
    return list(rows.values())


def measure_time(
    case: Case, steps: Mapping[str, Step], inputs: Inputs, device: torch.device, seconds: float
) -> tuple[dict[str, measure.Spread], Work]:
    """Of every provider; and what the machine did meanwhile: bytes and operations per second."""
    clock = measure.Clock(device)
    calls: dict[str, Callable[[], float]] = {}
    for name, step in steps.items():
        calls[name] = partial(_timed, clock, step, inputs)
    num_bytes, size = _ceiling_sizes(device, case.quick)
    calls["copy"] = partial(clock.seconds, measure.copying(device, num_bytes))
    calls["gemm"] = partial(clock.seconds, measure.multiplying(device, case.dtype, size))
    if device.type == "cpu":  # where bf16 is emulated, fp32 is the faster way
        fp32 = measure.multiplying(device, torch.float32, size)
        calls["gemm fp32"] = partial(clock.seconds, fp32)
    spreads = measure.interleaved(calls, seconds, QUICK_ROUNDS if case.quick else ROUNDS)
    gemms = [spreads.pop(name).median for name in ("gemm", "gemm fp32") if name in spreads]
    return spreads, Work(2 * num_bytes / spreads.pop("copy").median, 2 * size**3 / min(gemms))


def _timed(clock: measure.Clock, step: Step, inputs: Inputs) -> float:
    step.prepare()
    return clock.seconds(lambda: solve(step, inputs))


def _ceiling_sizes(device: torch.device, quick: bool) -> tuple[int, int]:
    if quick:
        return 1 << 24, 256
    return (1 << 32, 8192) if device.type == "cuda" else (1 << 29, 2048)


def memory_row(subject: Subject, provider: str, step: Step, inputs: Inputs) -> Row:
    if inputs.labels_N.device.type == "cuda":
        memory = measure.cuda_memory(step.prepare, lambda: solve(step, inputs))
    elif inputs.case.quick:
        return {}
    else:
        words = [subject.file, "--memory-of", provider, "--only", inputs.case.name]
        memory = measure.memory_in_child([*words, "--device", "cpu"])
    mib = 1 << 20
    return {"peak_mib": memory.peak / mib, "extra_mib": (memory.peak - memory.outputs) / mib}


def verdict(goal: Goal, rows: Mapping[str, Row]) -> str:
    """What was measured beside what was aimed at."""
    ours = rows[goal.provider].get(goal.column)
    if ours is None:
        return f"{goal.column}: not measured (goal {_aim(goal)})"
    if not goal.over:
        mark = "reached" if ours <= goal.bound else "MISSED"
        return f"{goal.column} {ours:.3g} (goal {_aim(goal)}): {mark}"
    others = [rows[name][goal.column] for name in goal.over if goal.column in rows[name]]
    if not others:
        return f"{goal.column}: none of {', '.join(goal.over)} measured (goal {_aim(goal)})"
    times = min(others) / max(ours, 1e-9)
    mark = "reached" if times >= goal.bound else "MISSED"
    return (
        f"{goal.column} {times:.2f} x below {' and '.join(goal.over)} (goal {_aim(goal)}): {mark}"
    )


def _aim(goal: Goal) -> str:
    return f"{goal.bound:g} x" if goal.over else f"at most {goal.bound:g}"


def failed(rows: Iterable[Row]) -> bool:
    """Whether one of our own providers is wrong or broken. One that is absent fails nothing."""
    return any(
        row["provider"].startswith("ours")
        and row.get("not_measured", "").startswith(("refused", "failed"))
        for row in rows
    )


# -- results, and the command line ----------------------------------------------------------------


def conditions(device: torch.device) -> Row:
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "native": native.build_info()[device.type],
        **versions(PACKAGES),
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


def columns(tensors: Iterable[str]) -> list[str]:
    """Of the CSV; the unit is in the name."""
    return [
        "provider", "case", "not_measured", "median_ms", "p20_ms", "p80_ms", "runs", "floor_ms",
        "ratio_to_floor", "times_as_fast_as_baseline", "gb_per_s", "tflop_per_s", "peak_mib",
        "extra_mib", "error_loss", *(f"error_grad_{name}" for name in tensors), "goals", "baseline",
        "copy_gb_per_s", "gemm_tflop_per_s", "device", "threads", "bigft", "native", *PACKAGES,
        "date",
    ]  # fmt: skip


def parse(name: str, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"measures {name}", allow_abbrev=False)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default)
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that all runs")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of CSV and PNG; else benchmarks/results, or with --quick none",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains it")
    parser.add_argument("--seconds", type=float, help="about how long the clock runs per case")
    parser.add_argument("--memory-of", metavar="PROVIDER", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device cuda: torch {torch.__version__} sees no CUDA device here")
    return args


def results_file(args: argparse.Namespace, name: str) -> Path | None:
    """Where the rows go; None after a quick run, whose figures mean nothing, without --out."""
    if args.quick and not args.out:
        return None
    device = torch.device(args.device)
    slug = "cpu" if args.device == "cpu" else device_name(device).lower().replace(" ", "-")
    today = datetime.date.today().isoformat()
    return (args.out or RESULTS) / f"{name}_{slug}_{today}.csv"


def main(subject: Subject, argv: Sequence[str] | None = None) -> int:
    """1 if one of our providers is wrong or broken, 2 if no case is named so, else 0."""
    args = parse(subject.name, argv)
    device = torch.device(args.device)
    cases = [case for case in subject.cases(args.device, args.quick) if args.only in case.name]
    if not cases:
        print(f"no case of {subject.name} contains {args.only!r}", file=sys.stderr)
        return 2
    if args.memory_of:
        (case,) = (case for case in cases if case.name == args.only)
        inputs = subject.inputs(case, device)
        step = subject.providers[args.memory_of](inputs)
        print(json.dumps(measure.resident_memory(step.prepare, lambda: solve(step, inputs))))
        return 0
    everywhere = conditions(device) | {"baseline": subject.baseline}
    seconds = args.seconds or SECONDS_PER_CASE[args.device]
    path = results_file(args, subject.name)
    all_rows: list[Row] = []
    for case in cases:
        print(case.name, file=sys.stderr, flush=True)
        rows = [row | everywhere for row in measure_case(subject, case, device, seconds)]
        print_table(case.name, rows)
        all_rows += rows
        if path:
            write_rows(path, columns(subject.tensors), rows)
    if path:
        print(path)
        save_picture(path.with_suffix(".png"), subject.name, last_rows(path))
    return int(failed(all_rows))
