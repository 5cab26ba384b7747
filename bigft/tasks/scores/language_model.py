"""How well a language model foretells its targets, and how many answers are right."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.data.records import IGNORE_INDEX, Record
from bigft.tasks.protocol import Prediction

if TYPE_CHECKING:
    import torch

THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def target_sums(output: Any, labels_BT: torch.Tensor) -> list[Prediction]:
    """For each row what LanguageModelMetric reads: `loss`, `targets` and `correct`.

    output: an LMHeadOutput of the labels, in evaluation.
    """
    import torch

    targets_BT = labels_BT != IGNORE_INDEX
    right_BT = targets_BT & (output.predictions_BT == labels_BT)
    sums = [output.loss_BT, targets_BT, right_BT]
    numbers_B3 = torch.stack([each.double().sum(dim=1) for each in sums], dim=1).tolist()
    return [
        {"loss": loss, "targets": int(targets), "correct": int(right)}
        for loss, targets, right in numbers_B3
    ]


class LanguageModelMetric:
    """perplexity per target, the share of targets foretold, and, of generated answers, exact_match.

    Reads `loss` (a sum), `targets` and `correct` of predictions, and `generated` and `reference`
    where there are any.
    """

    def __init__(self, generates: bool, pattern: re.Pattern[str] | None) -> None:
        """pattern: its last match in a text is what is compared; None: the whole text."""
        self._generates = generates
        self._pattern = pattern
        self._loss = 0.0
        self._targets = self._correct = self._answers = self._matches = 0

    @property
    def targets(self) -> int:
        """That were predicted so far."""
        return self._targets

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        for prediction in predictions:
            self._loss += prediction["loss"]
            self._targets += prediction["targets"]
            self._correct += prediction["correct"]
            if self._generates:
                self._answers += 1
                wanted = final_answer(prediction["reference"], self._pattern)
                given = final_answer(prediction["generated"], self._pattern)
                self._matches += wanted is not None and wanted == given

    def state(self) -> dict[str, Any]:
        return {
            "loss": self._loss,
            "targets": self._targets,
            "correct": self._correct,
            "answers": self._answers,
            "matches": self._matches,
        }

    def merge(self, state: dict[str, Any]) -> None:
        self._loss += state["loss"]
        self._targets += state["targets"]
        self._correct += state["correct"]
        self._answers += state["answers"]
        self._matches += state["matches"]

    def compute(self) -> dict[str, float]:
        """perplexity = exp(loss / targets), inf beyond what a float holds; token_accuracy;
        exact_match where answers are generated. A quotient without a denominator is 0.
        """
        mean = self._loss / max(self._targets, 1)
        scores = {
            "perplexity": math.exp(mean) if mean < 700 else math.inf,
            "token_accuracy": self._correct / max(self._targets, 1),
        }
        if self._generates:
            scores["exact_match"] = self._matches / max(self._answers, 1)
        return scores

    def report(self) -> str:
        counts = f"{self._targets:,} targets"
        if self._generates:
            counts += f", {self._matches:,} of {self._answers:,} answers right"
        scores = "  ".join(f"{name} {value:.4f}" for name, value in self.compute().items())
        return f"{scores}  ({counts})"


def final_answer(text: str, pattern: re.Pattern[str] | None) -> str | None:
    """What exact_match compares: the pattern's last match (its first group if it has one), without
    white space around it, a full stop behind it and commas between thousands; None: no match."""
    if pattern is not None:
        found = list(pattern.finditer(text))
        if not found:
            return None
        text = found[-1][1 if pattern.groups else 0] or ""
    return THOUSANDS.sub("", text.strip().removesuffix("."))


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    """task.exact_match_pattern. Raises BadInput for one that is no regular expression."""
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        what = f"{pattern!r} is no regular expression ({error})"
        raise BadInput(Problem("task.exact_match_pattern", what, "fix it")) from error
