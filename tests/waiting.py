"""How long tests wait for what must happen: until it does.

PATIENCE only ends what hangs. It is far above what a busy machine takes, so that no test passes or
fails by speed; what must not happen "for long" is held against a time-out of a run that is longer
than PATIENCE. `tests/test_waits.py` finds shorter bounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300.0  # seconds


def wait_until(true: Callable[[], bool], every: float = 0.02) -> None:
    """Returns as soon as it is true; fails after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(every)
