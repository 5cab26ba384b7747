"""bigft from Python (docs/python.md): what the verbs do, on the same path. Nothing heavy is
imported before it is needed."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem

if TYPE_CHECKING:
    from bigft.api.session import End
    from bigft.runtime.run_directory import RunDirectory

Config = str | os.PathLike[str] | Mapping[str, Any]

__all__ = ["BadInput", "Outcome", "evaluate", "predict", "train"]

# A run has the process's environment, umask and process group to itself.
_turn = threading.RLock()  # a thread must not wait for itself
_is_busy = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    status: "finished"; "resumable", where it goes on with train.resume_from_checkpoint; "failed".
    why: "" where it finished.  exit_code: what `bigft train` would have ended with.
    metrics: train_*, eval_* and test_* values, as in all_results.json; {} unless it finished.
    """

    status: str
    why: str
    exit_code: int
    output_dir: Path
    metrics: dict[str, Any]


def train(
    config: Config, overrides: Mapping[str, Any] | None = None, *, nproc: int | None = None
) -> Outcome:
    """How the run of this config ended, as `bigft train` would run it.

    config: a YAML file, a run directory, or what the file would hold: {"section": {"key": value}}.
    overrides: put over it, as {"section.key": value} or by section.
    nproc: ranks to start on this machine; None: one per GPU, one on a CPU. One trains in this
        process; several are processes of their own.

    The process is left as it was found. Ctrl-C is raised as KeyboardInterrupt; in another thread
    than the main one no signal stops the run. What fails in this process is logged with its
    traceback. Raises BadInput with every problem of the input.
    """
    from bigft.api.session import is_finished, run_session
    from bigft.config.exit_codes import EXIT_BAD_INPUT, EXIT_INTERRUPTED
    from bigft.config.load import load_config
    from bigft.runtime.launcher import detect
    from bigft.runtime.run_directory import RunDirectory

    _check_count("bigft.train: nproc", nproc)
    launch = detect(os.environ, nproc)
    file, words = _given(config, overrides, "bigft.train")
    loaded = load_config(file, words, "bigft.train")
    for note in loaded.notes:
        print(f"note: {note}", file=sys.stderr)
    directory = RunDirectory(loaded.config.train.output_dir)
    place = directory.path.absolute()
    if is_finished(loaded.config):
        return Outcome("finished", "", 0, place, directory.read_results())
    words = [file, *words] if file is not None else words
    with _alone() as started, loaded.located():
        _refuse_a_process_group()
        os.umask(os.umask(0o077) | 0o002)  # nothing of a run is for anyone to write
        end = run_session(loaded.config, words, launch, nproc, started)
        if end.code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt from end.error
        if end.code == EXIT_BAD_INPUT:
            raise end.error or BadInput(Problem(str(directory.path), end.why))
        _tell(end)
    return Outcome(end.status, end.why, end.code, place, end.results)


def evaluate(
    run: Config | Outcome,
    splits: str | Sequence[str] = "test",
    overrides: Mapping[str, Any] | None = None,
    *,
    batch_size: int | None = None,
) -> dict[str, dict[str, float]]:
    """By split the scores of a run's model, as `bigft evaluate` prints them.

    run: its directory, what `train` returned, or its config.  splits: train, validation, test.
    overrides: {"data.key": value}, put over the run's config.  batch_size: rows of a forward.
    The process is left as it was found. Raises BadInput.
    """
    from bigft.api.scoring import SPLITS, evaluations

    _check_count("bigft.evaluate: batch_size", batch_size)
    names = [splits] if isinstance(splits, str) else list(splits)
    if unknown := [name for name in names if name not in SPLITS]:
        fix = f"choose among {', '.join(SPLITS)}"
        raise BadInput(
            [Problem("bigft.evaluate: splits", f"no split {name!r}", fix) for name in unknown]
        )
    directory = _directory(run)
    _, words = _given({}, overrides, "bigft.evaluate")
    with _alone():
        found = evaluations(directory, names, words, batch_size, "bigft.evaluate")
    for note in dict.fromkeys(note for each in found.values() for note in each.notes):
        print(f"note: {note}", file=sys.stderr)
    return {split: evaluation.scores for split, evaluation in found.items()}


def predict(
    run: Config | Outcome,
    texts: str | Sequence[str | Mapping[str, Any]],
    overrides: Mapping[str, Any] | None = None,
    *,
    batch_size: int | None = None,
) -> list[dict[str, Any]]:
    """The answer of a run's model to each text, as `bigft predict` writes them.

    run: its directory, what `train` returned, or its config.
    texts: texts, or objects as in the lines of `bigft predict --file`.
    overrides: {"task.generation.key": value}.  batch_size: rows of a forward.
    The process is left as it was found. Raises BadInput naming each text that cannot be used.
    """
    from bigft.api.answers import SETTABLE, Line, answered, not_text
    from bigft.api.given import unsettable

    _check_count("bigft.predict: batch_size", batch_size)
    given = [texts] if isinstance(texts, str) else list(texts)
    directory = _directory(run)
    _, words = _given({}, overrides, "bigft.predict")
    problems = unsettable(words, SETTABLE, "predict") + not_text(given, "texts")
    problems += [
        Problem(f"texts:{number}", f"found {text!r}", "give a text, or a mapping")
        for number, text in enumerate(given, 1)
        if not isinstance(text, str | Mapping)
    ]
    if problems:
        raise BadInput(problems)
    lines = [
        Line(text if isinstance(text, str) else dict(text), "texts", number)
        for number, text in enumerate(given, 1)
    ]
    from bigft.runtime.imports import importing

    with _alone():
        with importing():
            from bigft.training.trained import Trained

        trained = Trained.load(directory, words, given_by="bigft.predict")
        answers: list[dict[str, Any]] = list(answered(trained, lines, batch_size, problems))
    if problems:
        raise BadInput(problems)
    return answers


def _given(
    config: Config, overrides: Mapping[str, Any] | None, given_to: str
) -> tuple[str | None, list[str]]:
    """The config's file, if it is one, and what else a command line would say: all of a mapping."""
    from bigft.api.given import config_file
    from bigft.config.from_python import words_of

    words = words_of(overrides or {}, given_to)
    if isinstance(config, Mapping):
        return None, words_of(config, given_to) + words
    return config_file(os.fspath(config)), words


def _check_count(name: str, value: Any) -> None:
    """Raises BadInput for what is neither None nor a whole number above 0."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise BadInput(Problem(name, f"found {value!r}", "give a whole number, 1 or more"))


def _directory(run: Config | Outcome) -> RunDirectory:
    """Of a run: also where a config or what `train` returned is given."""
    from bigft.config.load import load_config
    from bigft.runtime.run_directory import RunDirectory

    if isinstance(run, Outcome):
        return RunDirectory(run.output_dir)
    if not isinstance(run, Mapping) and not Path(run).is_file():
        return RunDirectory(run)
    loaded = load_config(*_given(run, None, "config"), "config")
    return RunDirectory(loaded.config.train.output_dir)


@contextmanager
def _alone() -> Iterator[float]:
    """One after another, and the process is left as it was found; when the block's turn came, by
    time.monotonic()."""
    from bigft.runtime.caller_state import left_as_found
    from bigft.runtime.logs import quiet_libraries
    from bigft.runtime.remote_code import fetch_no_code
    from bigft.runtime.signals import interruptible, is_main_thread

    global _is_busy
    with _turn:
        if _is_busy:
            what = "called within another call of this thread"
            raise BadInput(Problem("bigft", what, "call it when the other one has returned"))
        _is_busy = True
        try:
            with ExitStack() as stack:
                started = time.monotonic()
                if is_main_thread():
                    stack.enter_context(interruptible())
                stack.enter_context(left_as_found())
                quiet_libraries()
                fetch_no_code()
                yield started
        finally:
            _is_busy = False
            gc.collect()  # a model is a part of many cycles


def _refuse_a_process_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        what = "this process has a process group, and a run makes its own"
        fix = "call torch.distributed.destroy_process_group() first"
        raise BadInput(Problem("torch.distributed", what, fix))


def _tell(end: End) -> None:
    """Logs what failed in this process; raises what no caller expects to be swallowed."""
    if end.error is None:
        return
    if not isinstance(end.error, Exception):
        raise end.error
    logging.getLogger("bigft").error("the run failed: %s", end.why, exc_info=end.error)
