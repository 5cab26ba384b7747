"""`bigft train CONFIG [section.key=value ...]`: fine-tunes, on a launcher's ranks or on its own."""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from bigft.cli.arguments import add_config_arguments, count, read_config
from bigft.config.errors import EXIT_BAD_INPUT, BadInput
from bigft.config.load import resolved_yaml
from bigft.config.sections import RunConfig
from bigft.runtime import launcher
from bigft.runtime.events import EventStream, MetricsFile
from bigft.runtime.launcher import EXIT_RESUMABLE, Launch
from bigft.runtime.logs import log_to
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.signals import StopRequest

if TYPE_CHECKING:
    from bigft.training.build import Run

EXIT_FAILED = 1


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
    launch = launcher.detect(os.environ)
    settings = launcher.process_settings(os.environ)
    if launch is None or launch.world_size == 1:
        settings.pop("TOKENIZERS_PARALLELISM", None)  # nobody else wants the cores
    told = launcher.SETTLED in os.environ or (launch is not None and launch.rank > 0)
    loaded = read_config(args, quiet=told)
    launcher.reexec_with(settings)  # before torch is imported: it would be imported twice
    with loaded.located():
        if launch is not None:
            return _as_rank(loaded.config, launch)
        nproc = args.nproc or _num_devices()
        launch = Launch(0, 0, nproc, nproc, "127.0.0.1", launcher.free_port(), "environment")
        if nproc > 1:
            return _start_ranks(args, loaded.config, launch)
        return _as_rank(loaded.config, launch)


def _num_devices() -> int:
    from torch.accelerator import device_count

    return max(1, device_count())


def _start_ranks(args: Namespace, config: RunConfig, launch: Launch) -> int:
    """Checks and prepares here, so that errors come once and early; then starts the ranks."""
    from bigft.training.preflight import preflight

    preflight(config, launch)
    directory = RunDirectory(config.train.output_dir)
    directory.claim(resume=config.train.resume_from_checkpoint is not False)
    words = [word for word in (args.config, *args.overrides) if word is not None]
    code = launcher.run_ranks(["train", *words], launch.world_size, os.environ, directory.log_file)
    if directory.read()["status"] == "running":
        directory.update(status="failed", why="a rank died without a word", exit_code=code)
    return code


def _as_rank(config: RunConfig, launch: Launch) -> int:
    """One rank's whole run; the first one also keeps the run directory's books."""
    stop = StopRequest()
    stop.install()
    from bigft.training.preflight import preflight

    run = preflight(config, launch)
    events = EventStream()
    directory = RunDirectory(config.train.output_dir)
    if launch.rank == 0:  # not before: a refused start leaves an older run as it is
        directory.claim(resume=config.train.resume_from_checkpoint is not False)
    status, why, code = "failed", "", EXIT_FAILED
    results: dict[str, Any] | None = None
    try:
        results = _train(run, launch, directory, events, stop)
        if results is None:
            status, why, code = "resumable", "a signal asked for a stop", EXIT_RESUMABLE
        else:
            status, code = "finished", 0
    except BadInput as refused:
        why, code = str(refused), EXIT_BAD_INPUT
        raise
    except BaseException as error:
        why = f"{type(error).__name__}: {error}"
        raise
    finally:
        if launch.rank == 0:
            directory.update(status=status, why=why, exit_code=code)
            took = {name: results[name] for name in ("step", "train_runtime")} if results else {}
            events.emit("end", status=status, why=why, exit_code=code, **took)
    return code


def _train(
    run: Run,
    launch: Launch,
    directory: RunDirectory,
    events: EventStream,
    stop: StopRequest,
) -> dict[str, Any] | None:
    """The results; None if a signal stopped the run. The heavy imports happen here."""
    from bigft.report import attach_sinks
    from bigft.runtime.process_group import choose_accelerator, join, leave

    choose_accelerator()  # before deepspeed is imported and guesses
    from bigft.runtime.seeding import use_deterministic_algorithms
    from bigft.training.build import global_batch, versions
    from bigft.training.fit import checkpoint_to_resume, fit

    config, is_first = run.config, launch.rank == 0
    checkpoint = checkpoint_to_resume(run, directory, launch.world_size)
    log_to(directory.log_file(launch.rank), is_first)
    if is_first:
        directory.write_config(resolved_yaml(config))
        directory.update(
            versions=versions(),
            world_size=launch.world_size,
            global_batch=global_batch(config, launch.world_size),
            fingerprints={"data": run.data_fingerprint},
            run_name=config.train.run_name or directory.path.name,
        )
        events.attach(MetricsFile(directory.metrics_file))
        attach_sinks(events, config, sys.stdout.isatty())
        for note in run.notes:
            events.emit("note", text=note)
    if config.train.full_determinism:
        use_deterministic_algorithms()
    world = join(launch, config.parallel.ddp_timeout)
    model = run.build_model(shard_by=run.shard_by(world.size))
    results = fit(run, model, world, events, directory, stop, checkpoint)
    leave()
    if results is not None and is_first:
        directory.write_results(results)
    return results
