"""No library may fetch code and run it."""

from __future__ import annotations

import sys

KERNELS = "kernels"


def fetch_no_code() -> None:
    """Makes the package `kernels`, which fetches compiled code from a hub and runs it, one that is
    not installed. For this process; to be called before any library looks for it.

    bitsandbytes fetches a kernel when it is imported, on CPUs with AVX512_BF16, and transformers
    one for `flash_attention_2` where flash_attn is not installed. USE_HUB_KERNELS=0 switches off
    neither.
    """
    sys.modules[KERNELS] = None  # type: ignore[assignment] # importing it raises ImportError
