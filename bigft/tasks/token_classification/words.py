"""Word-level scores of single-label taggings, as scikit-learn's classification_report has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bigft.data.records import Record
from bigft.tasks.protocol import Prediction
from bigft.tasks.scores.confusion import SUMMARY, table_rows
from bigft.tasks.scores.tables import EMPTY_ROW, TableRow, format_table
from bigft.tasks.token_classification.tag_pairs import tag_pairs


class TokenMetric:
    """Every word is one sample whose class is its tag: parts of speech, or BIO tags word by word.

    Reads `tags` (one per word) of predictions and records; a word whose gold tag is None counts on
    neither side. Averages are over the tags that occur in gold or predictions, "O" among them.
    """

    def __init__(self, labels: Sequence[str], title: str = "Words") -> None:
        """labels: every tag that predictions and records use.  title: heads the report."""
        self._labels = list(labels)
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
        return table_rows(self._confusion, self._labels)
