"""Gold and predicted tags of many records as arrays: what every tagging metric counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigft.data.records import Record
from bigft.tasks.protocol import Prediction


class TagPairs(NamedTuple):
    """gold, predicted: [num_words] tag ids.  offsets: [num_records + 1] into both."""

    gold: NDArray[np.int32]
    predicted: NDArray[np.int32]
    offsets: NDArray[np.int64]


def tag_pairs(
    predictions: Sequence[Prediction], records: Sequence[Record], ids: Mapping[str, int]
) -> TagPairs:
    """`tags` of predictions and records, without the words whose gold tag is None.

    Raises: ValueError where a prediction has not one tag per word of its record.
    """
    gold: list[int] = []
    predicted: list[int] = []
    offsets = [0]
    for prediction, record in zip(predictions, records, strict=True):
        gold_tags, predicted_tags = record.fields["tags"], prediction["tags"]
        if len(gold_tags) != len(predicted_tags):
            raise ValueError(
                f"{record.where}: {len(predicted_tags)} tags predicted for {len(gold_tags)} words"
            )
        for gold_tag, predicted_tag in zip(gold_tags, predicted_tags, strict=True):
            if gold_tag is not None:
                gold.append(ids[gold_tag])
                predicted.append(ids[predicted_tag])
        offsets.append(len(gold))
    return TagPairs(
        np.array(gold, dtype=np.int32),
        np.array(predicted, dtype=np.int32),
        np.array(offsets, dtype=np.int64),
    )
