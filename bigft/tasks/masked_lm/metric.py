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
