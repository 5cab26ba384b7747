"""Randomness by address: a generator's seed is a hash of where it is used, never a state to carry.

Derivation and the list of addresses: docs/numerics.md.
"""

from __future__ import annotations

import hashlib
import os
import random

import numpy as np


def address(*parts: int | str) -> int:
    """A seed in [0, 2**63) that depends on every part and on nothing else (no process, no run)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def seed_everything(*parts: int | str) -> None:
    """Seeds python, numpy and torch (all devices) at one address."""
    import torch  # whoever only wants an address does not wait for it

    seed = address(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def use_deterministic_algorithms() -> None:
    """Makes torch choose kernels whose result does not change from run to run, or raise.

    Must run before the first CUDA call: cuBLAS reads its variable once.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def seed_dropout(seed: int, step: int, micro_step: int, rank: int) -> None:
    """Seeds torch for one forward, so that a resumed step draws the masks of the first try."""
    import torch

    torch.manual_seed(address(seed, "dropout", step, micro_step, rank))
