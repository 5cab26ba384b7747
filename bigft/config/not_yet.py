"""What the vocabulary has and this version does not do: refused by name, never ignored."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, NamedTuple, get_args

from bigft.config.adapt import METHOD_NAMES
from bigft.config.rules import Clash
from bigft.config.sections import Format, RunConfig
from bigft.config.tasks import AVAILABLE_TASKS


class NotYet(NamedTuple):
    """key: its dotted name.  alive: the values that work today.  instead: what to use."""

    key: str
    alive: tuple[Any, ...]
    instead: str = ""


NOT_YET = (
    NotYet("task.name", AVAILABLE_TASKS),
    NotYet("model.trust_remote_code", (False,), "use an architecture that transformers has"),
    NotYet(
        "data.format",
        tuple(name for name in get_args(Format) if name != "imagefolder"),
    ),
    NotYet("adapt.method", tuple(name for name in METHOD_NAMES if name != "bottleneck")),
    NotYet("parallel.offload_optimizer", ("none", "cpu"), "cpu offloads to memory"),
    NotYet("parallel.offload_param", ("none", "cpu"), "cpu offloads to memory"),
    NotYet("checkpoint.async_save", (False,)),
    NotYet("report.report_to", ("tensorboard",)),
)


def not_yet(config: RunConfig) -> Iterator[Clash]:
    """One clash per value that this version cannot honour."""
    for key, alive, instead in NOT_YET:
        value = attrgetter(key)(config)
        values = value if isinstance(value, tuple) else (value,)
        for dead in [each for each in values if each not in alive]:
            works = " or ".join(map(_written, alive))
            yield Clash(
                (key,), f"{_written(dead)} is not available yet", instead or f"there is {works}"
            )


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
