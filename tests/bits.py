"""What is compared to the last bit across processes: weights, and answers of processes alike.

An answer depends on the number of threads; weights do not, and show a change of any one bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import deepspeed
import torch

IDS_BT = torch.arange(4, 22).view(2, 9)


def bits(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """A hash of each tensor's bytes, which may leave a rank."""
    return {
        name: hashlib.sha256(
            tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
        ).hexdigest()
        for name, tensor in tensors.items()
    }


def whole(parameters: Iterable[Any]) -> AbstractContextManager[None]:
    """In it ZeRO-3's parameters are whole on every rank; of others nothing changes. Collective."""
    sharded = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    context: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(sharded)
    return context


def logits(model: Any) -> list[Any]:
    """Of two rows, in evaluation."""
    model.eval()  # DeepSpeed's engine returns None
    with torch.no_grad():
        answer = model(input_ids=IDS_BT, attention_mask=torch.ones_like(IDS_BT))
    found: list[Any] = answer.logits.tolist()
    return found
