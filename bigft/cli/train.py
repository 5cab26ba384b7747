"""`bigft train CONFIG [section.key=value ...]`: fine-tunes, on a launcher's ranks or on its own."""

from __future__ import annotations

import os
import sys
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bigft.cli.arguments import add_config_arguments, count, read_config
from bigft.cli.finished import finished_as
from bigft.config.errors import BadInput
from bigft.config.exit_codes import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_RESUMABLE
from bigft.config.fields import wherever_read
from bigft.config.load import resolved_yaml
from bigft.config.sections import RunConfig
from bigft.runtime import environment, local_ranks
from bigft.runtime.events import EventStream, MetricsFile, read_metrics
from bigft.runtime.launcher import Launch, detect
from bigft.runtime.lock import LockLost
from bigft.runtime.logs import log_to
from bigft.runtime.rising_loss import rising_loss
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.signals import Stopped, StopRequest, is_interrupted

if TYPE_CHECKING:
    from bigft.training.run import Run

STARTED = "BIGFT_STARTED"  # when the command was, on the machine's monotonic clock


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--nproc",
        type=count,
        metavar="N",
        help="ranks to start on this machine (default: one per GPU, one on a CPU)",
    )
    # The deepspeed launcher gives it to every rank; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=SUPPRESS)


def run(args: Namespace) -> int:
    os.umask(os.umask(0o077) | 0o002)  # nothing of a run is for anyone to write
    os.environ.setdefault(STARTED, str(time.monotonic()))  # one clock for a parent and its ranks
    try:
        return _train_as_launched(args)
    finally:
        os.environ.pop(STARTED, None)  # a later run of this process has a clock of its own


def _train_as_launched(args: Namespace) -> int:
    launch = detect(os.environ, args.nproc)
    settings = environment.process_settings(os.environ)
    if launch is None or launch.world_size == 1:
        settings.pop("TOKENIZERS_PARALLELISM", None)  # nobody else wants the cores
    told = environment.SETTLED in os.environ or (launch is not None and launch.rank > 0)
    loaded = read_config(args, quiet=told)
    environment.reexec_with(settings)  # before torch is imported: it would be imported twice
    with loaded.located():
        if _is_finished(loaded.config):
            if launch is None or launch.rank == 0:
                output_dir = loaded.config.train.output_dir
                print(f"{output_dir} is finished: nothing is left to train")
            return 0
        if launch is not None:
            return _as_rank(loaded.config, launch)
        nproc = args.nproc or _num_devices()
        launch = Launch.local(nproc)
        if nproc > 1:
            return _start_ranks(args, loaded.config, launch)
        return _as_rank(loaded.config, launch)


def _is_finished(config: RunConfig) -> bool:
    """Whether the run that the config continues is finished, and what the config asks for."""
    directory = RunDirectory(config.train.output_dir)
    return (
        config.train.resume_from_checkpoint is True
        and directory.is_finished()
        and directory.model.is_dir()
        and finished_as(config, directory)
    )


def _num_devices() -> int:
    from torch.accelerator import device_count

    return max(1, device_count())


def _start_ranks(args: Namespace, config: RunConfig, launch: Launch) -> int:
    """Checks and prepares here, so that errors come once and early; then starts the ranks."""
    directory = RunDirectory(config.train.output_dir)
    prepared = _prepared(config, launch, directory, _stop_request(config))
    if isinstance(prepared, int):
        return prepared
    words = [word for word in (args.config, *args.overrides) if word is not None]
    try:
        ended = local_ranks.run_ranks(
            ["train", *words], launch.world_size, os.environ, directory.log_file
        )
        reason = ended.why or f"the ranks ended with {ended.code}"
        recorded = _recorded(reason, lambda: directory.ranks_ended(ended))
    finally:
        directory.release()
    return ended.code if recorded else EXIT_FAILED


def _stop_request(config: RunConfig) -> StopRequest:
    stop = StopRequest()
    stop.install()
    if config.train.max_seconds is not None:
        stop.limit(float(os.environ[STARTED]) + config.train.max_seconds)
    return stop


def _prepared(
    config: RunConfig, launch: Launch, directory: RunDirectory, stop: StopRequest
) -> Run | int:
    """The run, its data prepared and, for the first rank, its directory claimed: not before, so
    that a refused start leaves an older run as it is. An exit code if a stop was asked for."""
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
        why = f"{stopped} while data was prepared"

    def record() -> None:
        if directory.is_free() and not directory.is_finished():
            directory.claim(resume=resume)
            directory.update(status="resumable", why=why, exit_code=EXIT_RESUMABLE)

    if launch.rank > 0:
        return EXIT_RESUMABLE
    said = f"stopped by {why}; no step was done"
    try:
        if not _recorded(said, record):
            return EXIT_FAILED
    finally:
        directory.release()
    print(f"bigft: {said}", file=sys.stderr)
    return EXIT_RESUMABLE


@dataclass(frozen=True, slots=True)
class _End:
    """How a run ended. status: of run.json, or "crashed" or "interrupted", which it makes of it."""

    status: str
    why: str
    code: int

    @classmethod
    def by(cls, error: BaseException) -> _End:
        from bigft.runtime.process_group import lost_peer
        from bigft.training.nonfinite import TrainingFailed

        if is_interrupted():
            return cls("interrupted", "Ctrl-C", EXIT_INTERRUPTED)
        match error:
            case BadInput():
                return cls("failed", str(error), EXIT_BAD_INPUT)
            case TrainingFailed():
                return cls("failed", str(error), EXIT_FAILED)
        why = lost_peer(error) or f"{type(error).__name__}: {error}"
        return cls("crashed", why, EXIT_FAILED)

    def write(self, directory: RunDirectory) -> str:
        """The status that run.json has now."""
        if self.status == "crashed":
            return directory.crashed(self.why, self.code)
        if self.status == "interrupted":
            return directory.interrupted()
        directory.update(status=self.status, why=self.why, exit_code=self.code)
        return self.status


def _recorded(reason: str, record: Callable[[], object]) -> bool:
    """Whether run.json could be told. Where not, stderr is: the reason first, which matters more
    than a disk that is full, or a directory that is gone or another run's."""
    try:
        record()
    except (OSError, BadInput, LockLost) as error:
        print(f"bigft: {reason}; run.json does not say so: {error}", file=sys.stderr)
        return False
    return True


def _as_rank(config: RunConfig, launch: Launch) -> int:
    """One rank's whole run; the first one also keeps the run directory's books."""
    directory, events = RunDirectory(config.train.output_dir), EventStream()
    stop = _stop_request(config)
    run = _prepared(config, launch, directory, stop)
    if isinstance(run, int):
        return run
    try:
        results = _train(run, launch, directory, events, stop)
    except BaseException as error:
        if _ended(_End.by(error), launch, directory, events) or not isinstance(error, BadInput):
            raise
        return EXIT_FAILED
    end = _End("finished", "", 0)
    if results is None:
        end = _End("resumable", f"stopped by {stop.why}", EXIT_RESUMABLE)
    return end.code if _ended(end, launch, directory, events, results) else EXIT_FAILED


def _ended(
    end: _End,
    launch: Launch,
    directory: RunDirectory,
    events: EventStream,
    results: dict[str, Any] | None = None,
) -> bool:
    """Closes the books, on the first rank; whether run.json holds the end."""
    if launch.rank > 0:
        return True
    status = "failed" if end.status in ("crashed", "interrupted") else end.status

    def record() -> None:
        nonlocal status
        status = end.write(directory)

    recorded = _recorded(end.why or end.status, record)
    code = end.code if recorded else EXIT_FAILED
    more = {name: results[name] for name in ("step", "train_runtime")} if results else {}
    if warning := rising_loss(read_metrics(directory.metrics_file)):
        more["warning"] = warning
    try:
        events.emit("end", status=status, why=end.why, exit_code=code, **more)
    finally:
        directory.release()
    return recorded


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
