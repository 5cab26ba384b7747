"""Word-level scores of single-label taggings, as scikit-learn's classification_report has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigft.data.records import Record
from bigft.tasks.protocol import Prediction
from bigft.tasks.scores.tables import EMPTY_ROW, TableRow, format_table
from bigft.tasks.token_classification.tag_pairs import tag_pairs

SUMMARY = ("accuracy", "macro avg", "weighted avg")


class TokenMetric:
    """Every word is one sample whose class is its tag: parts of speech, or BIO tags word by word.

    Reads `tags` (one per word) of predictions and records; a word whose gold tag is None counts on
    neither side. Averages are over the tags that occur in gold or predictions, "O" among them.
    """

    def __init__(self, labels: Sequence[str], title: str = "Words") -> None:
        """labels: every tag that predictions and records use.  title: heads the report."""
        self._labels = np.array(labels, dtype=object)
        self._ids = {label: index for index, label in enumerate(labels)}
        self._title = title
        self._confusion = np.zeros((len(labels), len(labels)), np.int64)  # [gold, predicted]

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        pairs = tag_pairs(predictions, records, self._ids)
        np.add.at(self._confusion, (pairs.gold, pairs.predicted), 1)

    def state(self) -> dict[str, Any]:
        return {"confusion": self._confusion.tolist()}

    def merge(self, state: dict[str, Any]) -> None:
        self._confusion += np.array(state["confusion"], np.int64)

    def compute(self) -> dict[str, float]:
        """accuracy; f1 (micro, which equals accuracy where every word has one tag);
        `macro_` and `weighted_` precision, recall and f1; `<TAG>_precision|recall|f1|support` for
        every label. A quotient without a denominator is 0.
        """
        rows = self.rows()
        scores: dict[str, float] = {}
        for label in self._labels:
            row = rows.get(label, EMPTY_ROW)
            scores |= {f"{label}_{key}": value for key, value in row._asdict().items()}
        for average in ("macro", "weighted"):
            row = rows[f"{average} avg"]
            scores |= {
                f"{average}_precision": row.precision,
                f"{average}_recall": row.recall,
                f"{average}_f1": row.f1,
            }
        accuracy = rows["accuracy"].f1
        return scores | {"accuracy": accuracy, "f1": accuracy}

    def report(self) -> str:
        return format_table(self._title, self.rows(), SUMMARY)

    def rows(self) -> dict[str, TableRow]:
        """By name each tag that occurs in gold or predictions, then SUMMARY over those tags."""
        hits, gold = self._confusion.diagonal(), self._confusion.sum(1)
        predicted = self._confusion.sum(0)
        precision, recall = _quotient(hits, predicted), _quotient(hits, gold)
        f1 = _quotient(2 * hits, gold + predicted)
        occurs = (gold + predicted).nonzero()[0]
        occurs = occurs[self._labels[occurs].argsort()]
        if not len(occurs):
            return dict.fromkeys(SUMMARY, EMPTY_ROW)
        scores = np.stack([precision, recall, f1], axis=1)[occurs]
        support, num_words = gold[occurs], int(gold.sum())
        rows = {
            label: _row(of_label, count)
            for label, of_label, count in zip(self._labels[occurs], scores, support, strict=True)
        }
        accuracy = (hits.sum() / num_words,) * 3
        averages = accuracy, scores.mean(0), np.average(scores, axis=0, weights=support)
        return rows | {
            name: _row(average, num_words) for name, average in zip(SUMMARY, averages, strict=True)
        }


def _row(scores: Iterable[float], support: int) -> TableRow:
    precision, recall, f1 = map(float, scores)
    return TableRow(precision, recall, f1, int(support))


def _quotient(numerators: NDArray[np.int64], denominators: NDArray[np.int64]) -> NDArray[Any]:
    """0 where there is no denominator."""
    return numerators / np.maximum(denominators, 1)
