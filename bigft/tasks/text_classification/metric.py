"""What is measured of labels and numbers; what ranks exchange of it adds up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bigft.data.records import Record
from bigft.tasks.protocol import Prediction
from bigft.tasks.scores.confusion import SUMMARY, matthews_correlation, table_rows
from bigft.tasks.scores.ranking import (
    Scores,
    average_precision,
    average_precision_error,
    best_threshold,
    mean_of_defined,
    pearson,
    roc_auc,
    spearman,
)
from bigft.tasks.scores.tables import format_table
from bigft.tasks.text_classification.decisions import Decisions

CALIBRATION_BINS = 15
SHOWN_CONFUSIONS = 10
MATRIX_LABELS = 12  # up to which the whole confusion matrix is shown


@runtime_checkable
class Tunable(Protocol):
    """A metric that chooses thresholds on what it measures."""

    def tuned(self) -> float | list[float]:
        """A probability, or of several labels one for each."""
        ...


class SingleLabelMetric:
    """Reads `probabilities` of predictions and `target` (a class id) of them.

    With a label for what is out of scope, or of two labels, it holds the probability of each record
    too: for thresholds and areas.
    """

    def __init__(self, decisions: Decisions) -> None:
        self._decisions, self._labels = decisions, decisions.labels
        size = len(self._labels)
        self._confusion = np.zeros((size, size), np.int64)  # [gold, predicted]
        self._bins = np.zeros((3, CALIBRATION_BINS))  # records, right ones, their probabilities
        self._scores = Scores()

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        for prediction in predictions:
            probabilities, gold = prediction["probabilities"], prediction["target"][0]
            answer = self._decisions.one(probabilities)
            self._confusion[gold, answer] += 1
            best = max(probabilities)
            place = min(int(best * CALIBRATION_BINS), CALIBRATION_BINS - 1)
            self._bins[:, place] += 1, probabilities[gold] == best, best
            if (outside := self._decisions.outside) is not None:
                inside = self._decisions.best_inside(probabilities)
                self._scores.add(1 - probabilities[inside], gold == outside)
            elif len(self._labels) == 2:
                self._scores.add(probabilities[1], gold == 1)

    def state(self) -> dict[str, Any]:
        return {
            "confusion": _sparse(self._confusion),
            "bins": self._bins.tolist(),
            "scores": self._scores.state(),
        }

    def merge(self, state: dict[str, Any]) -> None:
        for gold, predicted, count in state["confusion"]:
            self._confusion[gold, predicted] += count
        self._bins += np.array(state["bins"])
        self._scores.merge(state["scores"])

    def tuned(self) -> float:
        """The probability of the best label below which a text is out of scope; NaN: no record of
        the set is."""
        return 1 - best_threshold(self._scores.groups())[0]

    def compute(self) -> dict[str, float]:
        """accuracy; macro_ and weighted_f1 over the labels that occur; matthews_correlation;
        calibration_error (expected, in 15 bins); of two labels roc_auc and average_precision of the
        second; with a label for what is out of scope in_scope_accuracy and out_of_scope_recall,
        precision, f1 and roc_auc."""
        rows = table_rows(self._confusion, self._labels)
        scores = {
            "accuracy": rows["accuracy"].f1,
            "macro_f1": rows["macro avg"].f1,
            "weighted_f1": rows["weighted avg"].f1,
            "matthews_correlation": matthews_correlation(self._confusion),
            "calibration_error": self._calibration_error(),
        }
        groups = self._scores.groups()
        if (outside := self._decisions.outside) is not None:
            hits = int(self._confusion[outside, outside])
            gold, said = self._confusion[outside].sum(), self._confusion[:, outside].sum()
            inside = np.arange(len(self._labels)) != outside
            right = self._confusion.diagonal()[inside].sum()
            scores |= {
                "in_scope_accuracy": _share(right, self._confusion[inside].sum()),
                "out_of_scope_recall": _share(hits, gold),
                "out_of_scope_precision": _share(hits, said),
                "out_of_scope_f1": _share(2 * hits, gold + said),
                "out_of_scope_roc_auc": roc_auc(groups),
            }
        elif len(self._labels) == 2:
            scores |= {"roc_auc": roc_auc(groups), "average_precision": average_precision(groups)}
        return scores

    def _calibration_error(self) -> float:
        count, right, probability = self._bins
        return _share(np.abs(right - probability).sum(), count.sum())

    def report(self) -> str:
        rows = table_rows(self._confusion, self._labels)
        return "\n".join([format_table("Texts", rows, SUMMARY), *self._remarks()])

    def _remarks(self) -> Iterator[str]:
        yield from _undefined(self.compute())
        gold = self._confusion.sum(1)
        missing = [label for label, count in zip(self._labels, gold, strict=True) if not count]
        if missing and gold.any():
            yield f"without a text (no recall): {_listed(missing)}"
        if len(self._labels) <= MATRIX_LABELS:
            yield "\nconfusion (gold in rows):"
            width = max(map(len, self._labels))
            for label, counts in zip(self._labels, self._confusion.tolist(), strict=True):
                yield f"  {label:>{width}} " + " ".join(f"{count:>6}" for count in counts)
        off = self._confusion - np.diag(self._confusion.diagonal())
        if off.any():
            yield "\nmost often taken for another label:"
        for place in off.ravel().argsort(kind="stable")[::-1][:SHOWN_CONFUSIONS]:
            at, said = divmod(int(place), len(self._labels))
            if off[at, said]:
                yield f"  {off[at, said]:>6} {self._labels[at]} as {self._labels[said]}"


class MultiLabelMetric:
    """Reads `probabilities` and `target` of predictions: for each label 0, 1 or -100."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions, self._labels = decisions, decisions.labels
        self._scores = [Scores() for _ in self._labels]
        self._counts = np.zeros((3, len(self._labels)), np.int64)  # hits, gold, predicted
        self._texts = self._right = 0

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        for prediction in predictions:
            gold, probabilities = np.array(prediction["target"]), prediction["probabilities"]
            known = gold >= 0
            said = np.array(self._decisions.several(probabilities)) & known
            self._counts += [said & (gold == 1), gold == 1, said]
            self._texts += 1
            self._right += int((said == (gold == 1)).all())
            for scores, probability, value in zip(
                self._scores, probabilities, gold.tolist(), strict=True
            ):
                if value >= 0:
                    scores.add(probability, value == 1)

    def state(self) -> dict[str, Any]:
        return {
            "scores": [scores.state() for scores in self._scores],
            "counts": self._counts.tolist(),
            "texts": [self._texts, self._right],
        }

    def merge(self, state: dict[str, Any]) -> None:
        for scores, theirs in zip(self._scores, state["scores"], strict=True):
            scores.merge(theirs)
        self._counts += np.array(state["counts"], np.int64)
        self._texts += state["texts"][0]
        self._right += state["texts"][1]

    def tuned(self) -> list[float]:
        """For each label the threshold with the highest F1; 0.5 where no text of the set has it."""
        found = [best_threshold(scores.groups())[0] for scores in self._scores]
        return [0.5 if math.isnan(threshold) else threshold for threshold in found]

    def compute(self) -> dict[str, float]:
        """micro_f1; macro_f1 and average_precision, the means over labels that a text has;
        subset_accuracy: texts whose labels are all right."""
        hits, gold, said = self._counts
        there = gold > 0
        f1 = 2 * hits / np.maximum(gold + said, 1)
        precision = [average_precision(scores.groups()) for scores in self._scores]
        return {
            "micro_f1": _share(2 * hits.sum(), (gold + said).sum()),
            "macro_f1": float(f1[there].mean()) if there.any() else math.nan,
            "average_precision": mean_of_defined(precision),
            "subset_accuracy": _share(self._right, self._texts),
        }

    def report(self) -> str:
        counts, rows = self._counts, {}
        for label, hit, gold, said in zip(self._labels, *counts.tolist(), strict=True):
            if gold or said:
                confusion = np.array([[0, said - hit], [gold - hit, hit]])
                rows[label] = table_rows(confusion, ("", label))[label]
        lines = [format_table("Labels", rows, ())]
        missing = [label for label, gold in zip(self._labels, counts[1], strict=True) if not gold]
        if missing and self._texts:
            lines.append(f"no text has them, and the means are without: {_listed(missing)}")
        error = max(average_precision_error(scores.groups()) for scores in self._scores)
        if error:
            lines.append(f"average precisions are of a histogram: within {error:.1e}")
        return "\n".join([*lines, *_undefined(self.compute())])


class RegressionMetric:
    """Reads `value` and `target` (one number) of predictions. Ranks exchange both of each record:
    16 bytes."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._targets: list[float] = []

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        self._values += [prediction["value"] for prediction in predictions]
        self._targets += [prediction["target"][0] for prediction in predictions]

    def state(self) -> dict[str, Any]:
        return {"values": self._values, "targets": self._targets}

    def merge(self, state: dict[str, Any]) -> None:
        self._values += state["values"]
        self._targets += state["targets"]

    def compute(self) -> dict[str, float]:
        """pearson, spearman; mse, mae; r2."""
        values, targets = np.array(self._values), np.array(self._targets)
        error = values - targets
        spread = ((targets - targets.mean()) ** 2).sum() if len(targets) else 0.0
        return {
            "pearson": pearson(values, targets),
            "spearman": spearman(values, targets),
            "mse": _share((error**2).sum(), len(error)),
            "mae": _share(np.abs(error).sum(), len(error)),
            "r2": float(1 - (error**2).sum() / spread) if spread > 0 else math.nan,
        }

    def report(self) -> str:
        scores = self.compute()
        lines = [f"{name:>10} {value:>10.4f}" for name, value in scores.items()]
        return "\n".join([f"Numbers of {len(self._values)} texts", "", *lines, *_undefined(scores)])


def _sparse(counts: Any) -> list[list[int]]:
    return [[*map(int, place), int(counts[*place])] for place in np.argwhere(counts)]


def _share(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else math.nan


def _undefined(scores: Mapping[str, float]) -> Iterator[str]:
    names = [name for name, value in scores.items() if math.isnan(value)]
    if names:
        yield f"undefined on these texts (one class, a constant, or none): {', '.join(names)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN_CONFUSIONS]) + ", ..." * (len(names) > SHOWN_CONFUSIONS)
