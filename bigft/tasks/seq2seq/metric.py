"""BLEU and chrF as sacrebleu computes them, beside how well the targets are foretold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from bigft.data.records import Record
from bigft.data.words import UNSPACED
from bigft.tasks.protocol import Prediction
from bigft.tasks.scores.language_model import LanguageModelMetric
from bigft.tasks.scripts import script_in
from bigft.tasks.seq2seq.languages import script_of

# How BLEU finds words where spaces do not tell them, by ISO 15924's scripts. sacrebleu's other
# splitters of such scripts fetch a model.
SPLITTERS = {
    **dict.fromkeys(["Hans", "Hant", "Hani"], "zh"),
    **dict.fromkeys(["Jpan", "Hrkt", "Hira", "Kana"], "ja-mecab"),
    **dict.fromkeys(["Kore", "Hang"], "ko-mecab"),
    **dict.fromkeys(UNSPACED, "char"),
}
PACKAGES = {"ja-mecab": "sacrebleu[ja]", "ko-mecab": "sacrebleu[ko]"}


class Splitting(NamedTuple):
    """bleu: sacrebleu's, with its splitter.  how: the splitter and why it is this one."""

    bleu: BLEU
    how: str


def splitting(target_lang: str | None, targets: Iterable[str]) -> Splitting:
    """BLEU that finds words as the language of the targets is written: by its code, or where that
    asks for no splitter of its own by the script that most targets hold. By characters where
    sacrebleu, as it is installed, cannot."""
    script, why = script_of(target_lang or ""), f"task.target_lang is {target_lang}"
    if script not in SPLITTERS and ((held := script_in(targets)) or script is None):
        script, why = held, "by the script of the targets"
    splitter = SPLITTERS.get(script or "", "13a")
    try:
        return Splitting(_bleu(splitter), f"{splitter} ({why})")
    except RuntimeError:  # its package is missing
        why += f"; {splitter} needs {PACKAGES[splitter]}"
        return Splitting(_bleu("char"), f"char ({why})")


def _bleu(splitter: str) -> BLEU:
    # force: whether a text "looks tokenised" is no question here.
    return BLEU(tokenize=splitter, force=True)


class TranslationMetric:
    """Reads `generated` and `reference` of predictions; `loss` and its like as LanguageModelMetric
    does.

    What is kept and exchanged are sacrebleu's own counts of n-grams, whole numbers that add up: the
    merged scores are its corpus scores of all texts, to the last bit.
    """

    def __init__(self, target_lang: str | None, targets: Iterable[str] = ()) -> None:
        """As `splitting`, the same targets on every rank."""
        bleu = splitting(target_lang, targets).bleu
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
