"""What the schema offers is what the registries hold, but for what is told to be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pytest

from bigft.config.adapt import AdaptConfig
from bigft.config.fields import names
from bigft.config.not_yet import NOT_YET
from bigft.config.optim import Optimizer, Scheduler
from bigft.config.sections import Format, Tracker
from bigft.config.tasks import TASK_NAMES
from bigft.data.formats import FORMATS
from bigft.models.adapt import ADAPTERS
from bigft.report import SINKS
from bigft.tasks import TASKS
from bigft.training.optimizers import OPTIMIZERS, SCHEDULES

ALIVE = {row.key: row.alive for row in NOT_YET}
# "auto" is no format of its own: it finds one.
CHOICES: dict[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "task.name": (TASK_NAMES, TASKS),
    "adapt.method": (names(AdaptConfig, "method"), ADAPTERS),
    "optim.optim": (get_args(Optimizer), OPTIMIZERS),
    "optim.lr_scheduler_type": (get_args(Scheduler), SCHEDULES),
    "data.format": (tuple(name for name in get_args(Format) if name != "auto"), FORMATS),
    "report.report_to": (get_args(Tracker), SINKS),
}


@pytest.mark.parametrize("key", CHOICES)
def test_every_choice_that_is_alive_has_its_row_and_no_other(key: str) -> None:
    choices, registry = CHOICES[key]
    assert choices
    alive = ALIVE.get(key, choices)
    assert set(registry) == {name for name in choices if name in alive}


@pytest.mark.parametrize("key", CHOICES)
def test_nothing_is_called_alive_that_the_schema_does_not_know(key: str) -> None:
    choices, _ = CHOICES[key]
    assert set(ALIVE.get(key, ())) - {"auto"} <= set(choices)
