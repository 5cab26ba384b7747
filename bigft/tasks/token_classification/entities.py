"""Entity-level precision, recall and F1 of BIO taggings, as seqeval defines them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bigft._host import decode_spans
from bigft.data.records import Record
from bigft.data.tag_schemes import split_tag
from bigft.tasks.protocol import Prediction
from bigft.tasks.scores.tables import EMPTY_ROW, TableRow, format_table
from bigft.tasks.token_classification.tag_pairs import TagPairs, tag_pairs

Convention = Literal["conlleval", "strict"]
CONVENTIONS: dict[Convention, str] = {
    "conlleval": "Entities as conlleval and seqeval's default count them (I- may begin one)",
    "strict": "Entities as seqeval's strict mode counts them (only B- begins one)",
}
AVERAGES = ("micro avg", "macro avg", "weighted avg")
_PREFIX_CODES = {"O": 0, "B": 1, "I": 2, "E": 3, "S": 4}  # as decode_spans numbers them


class EntityMetric:
    """A prediction's entity counts where its first word, last word and type are the gold entity's.

    Reads `tags` (one BIO tag per word) of predictions and records; a word whose gold tag is None
    counts on neither side. Types without a name (tags "B" and "I") are called "_".
    """

    def __init__(self, labels: Sequence[str]) -> None:
        """labels: every tag that predictions and records use."""
        self._ids = {label: index for index, label in enumerate(labels)}
        parts = [split_tag(label) for label in labels]
        names = [entity_type or "_" for _, entity_type in parts]
        self.types = sorted({entity_type or "_" for prefix, entity_type in parts if prefix != "O"})
        type_ids = {name: index for index, name in enumerate(self.types)}
        self._prefix = np.array([_PREFIX_CODES[prefix] for prefix, _ in parts], np.int8)
        self._type = np.array([type_ids.get(name, 0) for name in names], np.int32)
        # convention -> [num_types, 3]: entities that agree, are predicted, are gold
        self._counts = {name: np.zeros((len(self.types), 3), np.int64) for name in CONVENTIONS}
        self._num_words = 0
        self._num_correct_words = 0

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        pairs = tag_pairs(predictions, records, self._ids)
        self._num_words += len(pairs.gold)
        self._num_correct_words += int((pairs.gold == pairs.predicted).sum())
        for convention, counts in self._counts.items():
            counts += self._count(pairs, convention)

    def state(self) -> dict[str, Any]:
        counts = {convention: counts.tolist() for convention, counts in self._counts.items()}
        return {
            "num_words": self._num_words,
            "num_correct_words": self._num_correct_words,
            "counts": counts,
        }

    def merge(self, state: dict[str, Any]) -> None:
        self._num_words += state["num_words"]
        self._num_correct_words += state["num_correct_words"]
        for convention, counts in self._counts.items():
            counts += np.array(state["counts"][convention], np.int64).reshape(counts.shape)

    def compute(self) -> dict[str, float]:
        """precision, recall, f1 (micro), macro_f1, weighted_f1 under conlleval; the same with
        `strict_` before them; accuracy over words; `<TYPE>_precision|recall|f1|support` under
        conlleval for every type of the labels. A quotient without a denominator is 0.
        """
        lenient, strict = self.rows("conlleval"), self.rows("strict")
        scores: dict[str, float] = {}
        for name in self.types:
            row = lenient.get(name, EMPTY_ROW)
            scores |= {f"{name}_{key}": value for key, value in row._asdict().items()}
        for before, rows in (("", lenient), ("strict_", strict)):
            micro = rows["micro avg"]
            scores |= {
                f"{before}precision": micro.precision,
                f"{before}recall": micro.recall,
                f"{before}f1": micro.f1,
                f"{before}macro_f1": rows["macro avg"].f1,
                f"{before}weighted_f1": rows["weighted avg"].f1,
            }
        return scores | {"accuracy": _quotient(self._num_correct_words, self._num_words)}

    def report(self) -> str:
        tables = [
            format_table(title, self.rows(convention), AVERAGES)
            for convention, title in CONVENTIONS.items()
        ]
        return "\n\n".join(tables)

    def rows(self, convention: Convention) -> dict[str, TableRow]:
        """Each type that occurs in gold or predictions, then AVERAGES over those types."""
        counts = self._counts[convention]
        seen = [index for index, count in enumerate(counts) if count.any()]
        rows = {self.types[index]: _row(counts[index]) for index in seen}
        scored = list(rows.values())
        micro = _row(counts.sum(axis=0))
        macro = _average(scored, [1] * len(scored))
        weighted = _average(scored, [row.support for row in scored])
        return rows | dict(zip(AVERAGES, (micro, macro, weighted), strict=True))

    def _count(self, pairs: TagPairs, convention: Convention) -> NDArray[np.int64]:
        gold, predicted = (
            decode_spans(tags, pairs.offsets, self._prefix, self._type, convention)
            for tags in (pairs.gold, pairs.predicted)
        )
        common = set(map(tuple, gold.tolist())) & set(map(tuple, predicted.tolist()))
        types = ([span[3] for span in common], predicted[:, 3], gold[:, 3])
        columns = [np.bincount(np.array(ids, np.int64), minlength=len(self.types)) for ids in types]
        return np.stack(columns, axis=1)


def _quotient(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _row(counts: NDArray[np.int64]) -> TableRow:
    correct, predicted, gold = (int(count) for count in counts)
    precision, recall = _quotient(correct, predicted), _quotient(correct, gold)
    f1 = _quotient(2 * precision * recall, precision + recall)
    return TableRow(precision, recall, f1, gold)


def _average(rows: list[TableRow], weights: list[int]) -> TableRow:
    def mean(values: list[float]) -> float:
        products = (value * weight for value, weight in zip(values, weights, strict=True))
        return _quotient(sum(products), sum(weights))

    return TableRow(
        mean([row.precision for row in rows]),
        mean([row.recall for row in rows]),
        mean([row.f1 for row in rows]),
        sum(row.support for row in rows),
    )
