"""How well masked tokens are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bigft.data.records import Record
from bigft.tasks.protocol import Prediction
from bigft.tasks.scores.language_model import LanguageModelMetric


class MaskedLMMetric:
    """perplexity per masked token, and the share of them whose most likely token is the right one.

    Reads `loss` (a sum), `targets` and `correct` of predictions.
    """

    def __init__(self) -> None:
        self._tokens = LanguageModelMetric(generates=False, pattern=None)

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        self._tokens.update(predictions, records)

    def state(self) -> dict[str, Any]:
        return self._tokens.state()

    def merge(self, state: dict[str, Any]) -> None:
        self._tokens.merge(state)

    def compute(self) -> dict[str, float]:
        """perplexity, masked_lm_accuracy (BERT's names). As LanguageModelMetric."""
        scores = self._tokens.compute()
        return {
            "perplexity": scores["perplexity"],
            "masked_lm_accuracy": scores["token_accuracy"],
        }

    def report(self) -> str:
        scores = "  ".join(f"{name} {value:.4f}" for name, value in self.compute().items())
        return f"{scores}  ({self._tokens.targets:,} masked tokens)"


class PretrainingMetric(MaskedLMMetric):
    """The same, and of pairs the loss and the share that is told rightly.

    Reads `pairs`, `pair_loss` (a sum) and `pairs_correct` of predictions too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pairs = self._correct = 0
        self._loss = 0.0

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        super().update(predictions, records)
        for prediction in predictions:
            self._pairs += prediction["pairs"]
            self._correct += prediction["pairs_correct"]
            self._loss += prediction["pair_loss"]

    def state(self) -> dict[str, Any]:
        own = {"pairs": self._pairs, "pairs_correct": self._correct, "pair_loss": self._loss}
        return super().state() | own

    def merge(self, state: dict[str, Any]) -> None:
        super().merge(state)
        self._pairs += state["pairs"]
        self._correct += state["pairs_correct"]
        self._loss += state["pair_loss"]

    def compute(self) -> dict[str, float]:
        """next_sentence_loss and next_sentence_accuracy besides."""
        pairs = max(self._pairs, 1)
        return super().compute() | {
            "next_sentence_loss": self._loss / pairs,
            "next_sentence_accuracy": self._correct / pairs,
        }
