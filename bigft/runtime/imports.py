"""Heavy imports, faster."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """In the block Python's garbage collector rests. torch and transformers make a million objects
    that stay; to look at all of them again and again is a sixth of their imports' time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
