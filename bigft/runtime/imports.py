"""Heavy imports, faster."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Whether this process is bigft's alone, as a command's: what is in it when it has imported stays.
owns_process = False


@contextmanager
def importing() -> Iterator[None]:
    """In the block Python's garbage collector rests. torch and transformers make a million objects
    that stay; to look at all of them again and again is a fifth of their imports' time. In a
    process of bigft's own no later collection looks at them either."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if owns_process:
                gc.freeze()
            gc.enable()
