"""`bigft train CONFIG [section.key=value ...]`: fine-tunes, on a launcher's ranks or on its own."""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace

from bigft.cli.arguments import add_config_arguments, read_config
from bigft.config.errors import EXIT_BAD_INPUT, BadInput
from bigft.config.load import check_batch, resolved_yaml
from bigft.config.sections import RunConfig
from bigft.runtime import launcher
from bigft.runtime.events import EventStream, MetricsFile
from bigft.runtime.launcher import Launch
from bigft.runtime.logs import log_to
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.signals import StopRequest

EXIT_FAILED = 1
EXIT_RESUMABLE = 75


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--nproc",
        type=int,
        metavar="N",
        help="ranks to start on this machine (default: one per GPU, one on a CPU)",
    )
    # The deepspeed launcher gives it to every rank; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=SUPPRESS)


def run(args: Namespace) -> int:
    launch = launcher.detect(os.environ)
    config = read_config(args, quiet=launch is not None and launch.rank > 0)
    if launch is not None:
        return _as_rank(config, launch)
    nproc = args.nproc or _num_devices()
    if nproc > 1:
        return _start_ranks(args, config, nproc)
    return _as_rank(config, Launch(0, 0, 1, 1, "127.0.0.1", launcher.free_port(), "environment"))


def _num_devices() -> int:
    from torch.accelerator import device_count

    return max(1, device_count())


def _start_ranks(args: Namespace, config: RunConfig, nproc: int) -> int:
    """Checks and prepares here, so that errors come once and early; then starts the ranks."""
    check_batch(config, nproc)
    directory = RunDirectory(config.train.output_dir)
    directory.claim(resume=config.train.resume_from_checkpoint is not False)
    try:
        from bigft.training.build import prepare

        prepare(config)
    except BadInput as refused:
        directory.update(status="failed", why=str(refused), exit_code=EXIT_BAD_INPUT)
        raise
    words = [word for word in (args.config, *args.overrides) if word is not None]
    code = launcher.run_ranks(["train", *words], nproc, os.environ, directory.log_file)
    if directory.read()["status"] == "running":
        directory.update(status="failed", why="a rank died without a word", exit_code=code)
    return code


def _as_rank(config: RunConfig, launch: Launch) -> int:
    """One rank's whole run; the first one also keeps the run directory's books."""
    check_batch(config, launch.world_size)
    settings = launcher.process_settings(os.environ)
    if launch.world_size == 1:
        settings.pop("TOKENIZERS_PARALLELISM", None)  # nobody else wants the cores
    launcher.reexec_with(settings)
    stop = StopRequest()
    stop.install()
    events = EventStream()
    directory = RunDirectory(config.train.output_dir)
    if launch.rank == 0:
        directory.claim(resume=config.train.resume_from_checkpoint is not False)
    status, why, code = "failed", "", EXIT_FAILED
    try:
        finished = _train(config, launch, directory, events, stop)
        status, code = ("finished", 0) if finished else ("resumable", EXIT_RESUMABLE)
        why = "" if finished else f"stopped by signal {stop.signal}"
    except BadInput as refused:
        why, code = str(refused), EXIT_BAD_INPUT
        raise
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"
        raise
    finally:
        if launch.rank == 0:
            directory.update(status=status, why=why, exit_code=code)
            events.emit("end", status=status, why=why, exit_code=code)
    return code


def _train(
    config: RunConfig,
    launch: Launch,
    directory: RunDirectory,
    events: EventStream,
    stop: StopRequest,
) -> bool:
    """False if a signal stopped the run. Imports the heavy libraries, so it stands by itself."""
    from bigft.report import attach_sinks
    from bigft.runtime.process_group import join, leave
    from bigft.training.build import global_batch, prepare, versions
    from bigft.training.fit import checkpoint_to_resume, fit

    is_first = launch.rank == 0
    prepared = prepare(config)
    checkpoint = checkpoint_to_resume(prepared, directory, launch.world_size)
    log_to(directory.log_file(launch.rank), is_first)
    if is_first:
        directory.write_config(resolved_yaml(config))
        directory.update(
            versions=versions(),
            world_size=launch.world_size,
            global_batch=global_batch(config, launch.world_size),
            fingerprints={"data": prepared.data_fingerprint},
        )
        events.attach(MetricsFile(directory.metrics_file))
        attach_sinks(events, config.report, directory.path, sys.stdout.isatty())
        for note in prepared.notes:
            events.emit("note", text=note)
    model = prepared.build_model()
    world = join(launch, config.parallel.ddp_timeout)
    results = fit(prepared, model, world, events, directory, stop, checkpoint)
    leave()
    if results is not None and is_first:
        directory.write_results(results)
    return results is not None
