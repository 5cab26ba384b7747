"""One run of `bigft train`: on the ranks that a launcher started, in this process alone, or on
ranks that it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bigft.api.finished import finished_as
from bigft.config.errors import BadInput
from bigft.config.exit_codes import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_RESUMABLE
from bigft.config.fields import wherever_read
from bigft.config.load import resolved_yaml
from bigft.config.sections import RunConfig
from bigft.runtime import local_ranks
from bigft.runtime.environment import environment_of_ranks, may_have_gpu
from bigft.runtime.events import EventStream, MetricsFile, read_metrics
from bigft.runtime.fork_server import ForkServer
from bigft.runtime.imports import importing
from bigft.runtime.launcher import Launch
from bigft.runtime.lock import LockLost
from bigft.runtime.logs import log_to
from bigft.runtime.rising_loss import rising_loss
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.signals import Stopped, StopRequest, is_interrupted

if TYPE_CHECKING:
    from bigft.training.run import Run

RANK_IMPORTS = (  # what every rank loads: with what comes along, all that is imported below
    "transformers.modeling_utils",
    "deepspeed",
    "bigft.training.fit",
    "bigft.training.preflight",
    "bigft.report",
    "bigft.cli.train",
)
STARTED = "BIGFT_STARTED"  # when a run was started, by time.monotonic(): a parent tells its ranks


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended.

    status: finished, resumable or failed, as run.json says.  why: "" where it finished.
    code: the exit code of `bigft train`.  results: the content of all_results.json, where it
    finished.  error: what was raised in this process.
    """

    status: str
    why: str = ""
    code: int = 0
    results: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


def is_finished(config: RunConfig) -> bool:
    """Whether the run that the config continues is finished, and what the config asks for."""
    directory = RunDirectory(config.train.output_dir)
    return (
        config.train.resume_from_checkpoint is True
        and directory.is_finished()
        and directory.model.is_dir()
        and finished_as(config, directory)
    )


def run_session(
    config: RunConfig,
    words: Sequence[str],
    launch: Launch | None,
    nproc: int | None,
    started: float,
) -> End:
    """Trains on the launcher's ranks, of which this process is one; without a launcher on `nproc`
    (None: one per GPU, one on a CPU): alone in this process, several in processes of their own.

    words: the arguments of `bigft train` that give this config, for those.
    started: the moment of time.monotonic() that train.max_time counts from.
    Raises what is wrong before the run has begun; BadInput names keys.
    """
    if launch is None:
        launch = Launch.local(nproc or _num_devices())
        if launch.world_size > 1:
            return run_ranks(config, words, launch, started)
    return run_rank(config, launch, started)


def _num_devices() -> int:
    with importing():
        from torch.accelerator import device_count

    return max(1, device_count())


def run_ranks(config: RunConfig, words: Sequence[str], launch: Launch, started: float) -> End:
    """Checks and prepares here, so that errors come once and early; then starts the ranks."""
    directory = RunDirectory(config.train.output_dir)
    environ = environment_of_ranks(launch.world_size, {**os.environ, STARTED: str(started)})
    with _fork_server(environ) as server:
        prepared = _prepared(config, launch, directory, _stop_request(config, started))
        if isinstance(prepared, End):
            return prepared
        try:
            ended = local_ranks.run_ranks(
                ["train", *words], launch.world_size, environ, directory.log_file, server
            )
            reason = ended.why or f"the ranks ended with {ended.code}"
            if not _recorded(reason, lambda: directory.ranks_ended(ended)):
                return End("failed", reason, EXIT_FAILED)
        finally:
            directory.release()
    run = directory.read()
    results = directory.read_results() if ended.code == 0 else {}
    return End(run["status"], run["why"], ended.code, results)


def _fork_server(environ: Mapping[str, str]) -> AbstractContextManager[ForkServer | None]:
    """None where a GPU may be: whether a fork is safe beside its driver has not been seen."""
    if may_have_gpu(environ):
        return nullcontext()
    return ForkServer("bigft.cli", RANK_IMPORTS, {**environ, "DS_ACCELERATOR": "cpu"})


def _stop_request(config: RunConfig, started: float) -> StopRequest:
    stop = StopRequest()
    stop.install()
    if config.train.max_seconds is not None:
        stop.limit(started + config.train.max_seconds)
    return stop


def _prepared(
    config: RunConfig, launch: Launch, directory: RunDirectory, stop: StopRequest
) -> Run | End:
    """The run, its data prepared and, for the first rank, its directory claimed: not before, so
    that a refused start leaves an older run as it is. The end if a stop was asked for."""
    with importing():
        from bigft.training.preflight import preflight

    resume = config.train.resume_from_checkpoint
    try:
        with stop.raising():
            run = preflight(config, launch)
            if launch.rank == 0:
                # It may wait for a minute.
                directory.claim(resume=resume, clock=run.clock.isoformat())
            return run
    except Stopped as stopped:
        end = End("resumable", f"{stopped} while data was prepared", EXIT_RESUMABLE)

    def record() -> None:
        if directory.is_free() and not directory.is_finished():
            directory.claim(resume=resume)
            directory.update(status=end.status, why=end.why, exit_code=end.code)

    if launch.rank > 0:
        return end
    said = f"stopped by {end.why}; no step was done"
    try:
        if not _recorded(said, record):
            return replace(end, code=EXIT_FAILED)
    finally:
        directory.release()
    print(f"bigft: {said}", file=sys.stderr)
    return end


def _end_by(error: BaseException) -> End:
    """status: also "crashed" or "interrupted", of which run.json makes another."""
    from bigft.runtime.process_group import lost_peer
    from bigft.training.nonfinite import TrainingFailed

    if is_interrupted() or isinstance(error, KeyboardInterrupt):
        return End("interrupted", "Ctrl-C", EXIT_INTERRUPTED, error=error)
    match error:
        case BadInput():
            return End("failed", str(error), EXIT_BAD_INPUT, error=error)
        case TrainingFailed():
            return End("failed", str(error), EXIT_FAILED, error=error)
    why = lost_peer(error) or f"{type(error).__name__}: {error}"
    return End("crashed", why, EXIT_FAILED, error=error)


def _write(end: End, directory: RunDirectory) -> str:
    """The status that run.json has now."""
    if end.status == "crashed":
        return directory.crashed(end.why, end.code)
    if end.status == "interrupted":
        return directory.interrupted()
    directory.update(status=end.status, why=end.why, exit_code=end.code)
    return end.status


def _recorded(reason: str, record: Callable[[], object]) -> bool:
    """Whether run.json could be told. Where not, stderr is: the reason first, which matters more
    than a disk that is full, or a directory that is gone or another run's."""
    try:
        record()
    except (OSError, BadInput, LockLost) as error:
        print(f"bigft: {reason}; run.json does not say so: {error}", file=sys.stderr)
        return False
    return True


def run_rank(config: RunConfig, launch: Launch, started: float) -> End:
    """One rank's whole run; the first one also keeps the run directory's books."""
    directory, events = RunDirectory(config.train.output_dir), EventStream()
    stop = _stop_request(config, started)
    run = _prepared(config, launch, directory, stop)
    if isinstance(run, End):
        return run
    try:
        results = _train(run, launch, directory, events, stop)
    except BaseException as error:
        return _ended(_end_by(error), launch, directory, events)
    if results is None:
        end = End("resumable", f"stopped by {stop.why}", EXIT_RESUMABLE)
    else:
        end = End("finished", results=results)
    return _ended(end, launch, directory, events)


def _ended(end: End, launch: Launch, directory: RunDirectory, events: EventStream) -> End:
    """Closes the books, on the first rank; the end as run.json holds it, or EXIT_FAILED."""
    status = "failed" if end.status in ("crashed", "interrupted") else end.status
    if launch.rank > 0:
        return replace(end, status=status)

    def record() -> None:
        nonlocal status
        status = _write(end, directory)

    recorded = _recorded(end.why or end.status, record)
    more = {name: end.results[name] for name in ("step", "train_runtime") if end.results}
    end = replace(end, status=status, code=end.code if recorded else EXIT_FAILED)
    if warning := rising_loss(read_metrics(directory.metrics_file)):
        more["warning"] = warning
    try:
        events.emit("end", status=status, why=end.why, exit_code=end.code, **more)
    finally:
        directory.release()
    return end


def _train(
    run: Run,
    launch: Launch,
    directory: RunDirectory,
    events: EventStream,
    stop: StopRequest,
) -> dict[str, Any] | None:
    """The results; None if a stop was asked for. The heavy imports happen here."""
    from bigft.report import attach_sinks
    from bigft.runtime.process_group import choose_accelerator, join, leave, meet

    choose_accelerator()  # before deepspeed is imported and guesses
    with importing():
        from bigft.runtime.seeding import use_deterministic_algorithms
        from bigft.training.batch import global_batch
        from bigft.training.checkpoint import checkpoint_to_resume
        from bigft.training.fit import fit
        from bigft.training.run import versions

    config, is_first = run.config, launch.rank == 0
    checkpoint = checkpoint_to_resume(run, directory, launch.world_size)
    log_to(directory.log_file(launch.rank), is_first)
    if is_first:
        directory.write_config(resolved_yaml(config, wherever_read))
        directory.update(
            versions=versions(),
            world_size=launch.world_size,
            global_batch=global_batch(config, launch.world_size),
            fingerprints={"data": run.data_fingerprint},
            tagging=run.tagging,
            run_name=config.train.run_name or directory.path.name,
        )
        events.attach(MetricsFile(directory.metrics_file))
        attach_sinks(events, config, sys.stdout.isatty())
        for note in run.notes:
            events.emit("note", text=note)
    if config.train.full_determinism:
        use_deterministic_algorithms()
    try:
        with stop.raising():  # the others may never come
            store = meet(launch, config.parallel.ddp_timeout)
    except Stopped as stopped:
        stop.request(f"{stopped} while ranks met")
        return None
    world = join(launch, config.parallel.ddp_timeout, store)
    results = None
    if stop.agreed(world):
        stop.reason(world)
    else:
        model = run.build_model(shard_by=run.shard_by(world.size))
        results = fit(run, model, world, events, directory, stop, checkpoint)
    leave()
    if results is not None and is_first:
        directory.write_results(results)
    return results
