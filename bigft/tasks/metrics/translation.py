"""BLEU and chrF as sacrebleu computes them, beside how well the targets are foretold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from bigft.data.records import Record
from bigft.tasks.metrics.language_model import LanguageModelMetric
from bigft.tasks.protocol import Prediction

# How BLEU splits scripts that write no spaces; sacrebleu's splitter of Japanese is a package apart.
# Keys: ISO 639-1 and 639-3, as tokenizers and data sets spell them.
SPLITTERS = {
    **dict.fromkeys(["zh", "zho", "cmn", "yue"], "zh"),
    **dict.fromkeys(["ja", "jpn", "th", "tha", "lo", "lao", "km", "khm", "my", "mya"], "char"),
}


class TranslationMetric:
    """Reads `generated` and `reference` of predictions; `loss` and its like as LanguageModelMetric
    does.

    What is kept and exchanged are sacrebleu's own counts of n-grams, whole numbers that add up: the
    merged scores are its corpus scores of all texts, to the last bit.
    """

    def __init__(self, target_lang: str | None) -> None:
        """target_lang: zh, zh_CN and zho_Hans are Chinese; None: words as in English."""
        language = (target_lang or "").lower().replace("-", "_").split("_")[0]
        # force: whether a text "looks tokenised" is no question here.
        bleu = BLEU(tokenize=SPLITTERS.get(language, "13a"), force=True)
        self._scores: dict[str, BLEU | CHRF] = {"bleu": bleu, "chrf": CHRF()}
        self._targets = LanguageModelMetric(generates=False, pattern=None)
        self._counts = {name: _counts(score, "", "") for name, score in self._scores.items()}

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        self._targets.update(predictions, records)
        for prediction in predictions:
            for name, score in self._scores.items():
                self._add(name, _counts(score, prediction["generated"], prediction["reference"]))

    def _add(self, name: str, counts: Sequence[int]) -> None:
        both = zip(self._counts[name], counts, strict=True)
        self._counts[name] = [ours + theirs for ours, theirs in both]

    def state(self) -> dict[str, Any]:
        return {"targets": self._targets.state(), **self._counts}

    def merge(self, state: dict[str, Any]) -> None:
        self._targets.merge(state["targets"])
        for name in self._scores:
            self._add(name, state[name])

    def compute(self) -> dict[str, float]:
        """bleu and chrf, 0 to 100; perplexity and token_accuracy."""
        scores = {
            name: float(score._aggregate_and_compute([self._counts[name]]).score)
            for name, score in self._scores.items()
        }
        return scores | self._targets.compute()

    def report(self) -> str:
        """A line per score of sacrebleu, with the signature that a paper names."""
        scores = self.compute()
        lines = [
            f"{name} {scores[name]:.2f}  ({score.get_signature()})"
            for name, score in self._scores.items()
        ]
        return "\n".join([*lines, self._targets.report()])


def _counts(score: BLEU | CHRF, generated: str, reference: str) -> list[int]:
    """Matches and totals per order of n-grams, with BLEU the lengths too."""
    (counts,) = score._extract_corpus_statistics([generated], [[reference]])
    return list(counts)
