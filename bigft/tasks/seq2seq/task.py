"""A text from a text, by an encoder and a decoder: translation, summaries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bigft.config.errors import BadInput, Problem, collect
from bigft.config.sections import RunConfig
from bigft.config.tasks import Seq2Seq as Options
from bigft.data.formats.base import did_you_mean
from bigft.data.records import IGNORE_INDEX, Batch, Record, Row
from bigft.data.source import SPLITS, stream_split
from bigft.data.split import PreparedSplit
from bigft.runtime.seeding import address
from bigft.tasks.generation import generate
from bigft.tasks.prompts import text_of
from bigft.tasks.protocol import (
    Loss,
    Metric,
    Predicted,
    Prediction,
    Read,
    Reading,
    Setting,
    Task,
)
from bigft.tasks.round_trip import RoundTrip
from bigft.tasks.scores.language_model import LanguageModelMetric
from bigft.tasks.seq2seq.fields import columns, pairs
from bigft.tasks.seq2seq.languages import matching
from bigft.tasks.seq2seq.metric import TranslationMetric, splitting
from bigft.tasks.seq2seq.start import START
from bigft.tasks.text_rows import (
    attention_mask,
    input_ids,
    labels,
    padded,
    text_batch,
    text_row,
)
from bigft.tasks.unlearnable import NO_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 20  # languages that a refusal lists


class Seq2Seq(Task):
    """The task for one tokenizer. Members: see bigft.tasks.protocol.Task.

    A row's input ids are the source and its labels the target, of another length: the decoder
    shifts, so labels_T[t] is what its position t predicts, from the first token on.
    """

    auto_class = "AutoModelForSeq2SeqLM"
    start = START

    def __init__(self, setting: Setting) -> None:
        config, tokenizer = setting.config, setting.processor
        assert isinstance(config.task, Options)
        self.labels: list[str] = []
        self._config, self._options = config, config.task
        self._tokenizer = tokenizer
        self._max_length, self._cut_by = setting.max_length, setting.cut_by
        self._round_trip = RoundTrip(tokenizer)
        self._target_lang = _set_languages(tokenizer, self._options)
        self._frame = tokenizer(text_target="a").input_ids  # with the special tokens of a target
        if tokenizer.eos_token_id is None or tokenizer.eos_token_id not in self._frame:
            raise BadInput(
                Problem(
                    "model.tokenizer_name",
                    "the tokenizer puts no eos token behind a target: generation would not end",
                    "name the tokenizer of a seq2seq model",
                )
            )

    # -- data ---------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: RunConfig, reading: Reading | None = None) -> Read:
        """All splits the config names, as {"source", "target"} records; no labels."""
        splits: dict[str, Iterable[Record]] = {}
        problems: list[Problem] = []
        used, notes = columns(config.data), (reading or Reading()).notes
        for split in SPLITS:
            with collect(problems):
                records = stream_split(config.data, split, config.task.reads, columns=used)
                if records is not None:
                    splits[split] = pairs(records, config, split, notes)
        if problems:
            raise BadInput(problems)
        return Read(splits, [])

    def encode(self, record: Record) -> list[Row]:
        (prompt,) = self.encode_prompt(record)
        longest, target = self._options.max_target_length, record.fields["target"]
        labels_T, lost = self._cut(longest, text_target=target)
        whole_T = self._target_ids(record) if lost else labels_T
        notes = prompt.notes + self._round_trip.notes(target, whole_T)
        if lost:
            notes += (f"have their target cut at {longest} tokens: task.max_target_length",)
        if self._round_trip.is_unknown(target, labels_T):
            notes += (NO_TOKEN,)
        if target == record.fields["source"]:
            notes += ("have a target that is their source",)
        ids_T = input_ids(prompt)
        return [text_row(record.index, 0, 1, ids_T, labels_T, lost_targets=lost, notes=notes)]

    def _target_ids(self, record: Record) -> list[int]:
        ids_T: list[int] = self._tokenizer(
            text_target=record.fields["target"], verbose=False
        ).input_ids
        return ids_T

    def encode_prompt(self, record: Record) -> list[Row]:
        source = self._options.source_prefix + record.fields["source"]
        input_ids_T, lost = self._cut(self._max_length, text=source)
        notes: tuple[str, ...] = ()
        if lost:
            side = " at its left end" * (self._tokenizer.truncation_side == "left")
            notes += (f"have their source cut at {self._max_length} tokens{side}: {self._cut_by}",)
        notes += self._round_trip.input_notes(source, input_ids_T)
        return [text_row(record.index, 0, 1, input_ids_T, [], notes=notes)]

    def _cut(self, max_length: int | None, **text: str) -> tuple[list[int], int]:
        """The tokens of the text, and how many were cut away; special tokens at its end stay."""
        ids_T: list[int] = self._tokenizer(**text, verbose=False).input_ids
        if max_length is None or len(ids_T) <= max_length:
            return ids_T, 0
        side = self._tokenizer.truncation_side
        if "text_target" in text:  # what is written begins at its beginning
            self._tokenizer.truncation_side = "right"
        try:
            cut_T = self._tokenizer(**text, truncation=True, max_length=max_length).input_ids
        finally:
            self._tokenizer.truncation_side = side
        return cut_T, len(ids_T) - len(cut_T)

    def collate(self, rows: Sequence[Row]) -> Batch:
        pad = self._tokenizer.pad_token_id
        sources, targets = [input_ids(row) for row in rows], [labels(row) for row in rows]
        start_B1 = np.full((len(rows), 1), self._decoder_start, dtype=np.int64)
        inputs = {
            "input_ids": padded(sources, pad),
            "attention_mask": attention_mask(sources),
            "decoder_input_ids": np.hstack([start_B1, padded(targets, pad)[:, :-1]]),
        }
        size = sum(map(len, sources)) + sum(row.num_targets for row in rows)
        return text_batch(rows, inputs, padded(targets, IGNORE_INDEX), size)

    def sides(self, split: PreparedSplit) -> dict[str, NDArray[np.int64]]:
        return {"source": split.sizes("input_ids"), "target": split.sizes("labels")}

    def preview(self, row: Row) -> list[tuple[str, bool]]:
        sides = ((input_ids(row), False), (labels(row), True))
        return [
            (self._round_trip.text(ids_T, plain=False), on_target) for ids_T, on_target in sides
        ]

    # -- model --------------------------------------------------------------------------------

    def attach_head(self, model: PreTrainedModel) -> None:
        """The head, and what the decoder begins with, in the model's own config: it is saved."""
        from bigft.models.heads.lm import attach_lm_head
        from bigft.models.heads.swap import base_model

        base = base_model(model)
        self._check_positions(base.config)
        start = base.config.decoder_start_token_id
        code = _language_id(self._tokenizer, self._target_lang)
        if code is not None and code == self._frame[-1]:  # mBART: the code ends a text, and begins
            start = base.config.decoder_start_token_id = code
        elif code is not None:  # mBART-50, M2M-100, NLLB: the first thing that the decoder says
            base.generation_config.forced_bos_token_id = code
        if start is None:
            raise BadInput(
                Problem(
                    "model.config_overrides",
                    "the model's config has no decoder_start_token_id: what does a target begin "
                    "with?",
                    "set decoder_start_token_id; T5's is its pad token, BART's its eos",
                )
            )
        base.generation_config.decoder_start_token_id = self._decoder_start = start
        attach_lm_head(model, label_smoothing=self._config.optim.label_smoothing_factor)

    def _check_positions(self, config: Any) -> None:
        names = ("max_decoder_position_embeddings", "max_position_embeddings")
        name = next((name for name in names if getattr(config, name, None)), "")
        positions = getattr(config, name, None)
        asked = {
            "max_target_length": self._options.max_target_length,
            "generation.max_new_tokens": self._options.generation.max_new_tokens,
        }
        problems = [
            Problem(
                f"task.{key}",
                f"{tokens} tokens, but the decoder takes {positions} ({name} in config.json)",
                f"give at most {positions}",
            )
            for key, tokens in asked.items()
            if positions is not None and tokens > positions
        ]
        if problems:
            raise BadInput(problems)

    def uniform_loss(self) -> float:
        return math.log(len(self._tokenizer))

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        output = self._forward(engine, batch, scale)
        return Loss(output.loss, output.loss_sum)

    def _forward(self, engine: Any, batch: Batch, scale: float) -> Any:
        labels_BT = batch.labels
        rows_M = batch.target_rows_M.to(labels_BT.device, non_blocking=True)
        return engine(labels_BT=labels_BT, scale=scale, target_rows_M=rows_M, **batch.inputs)

    # -- predictions --------------------------------------------------------------------------

    def predict(self, engine: Any, batch: Batch) -> Predicted:
        labels_BT = batch.labels
        output = self._forward(engine, batch, 1.0)
        losses_B = output.loss_BT.sum(dim=1).tolist()
        correct_B = ((output.predictions_BT == labels_BT) & (labels_BT != IGNORE_INDEX)).sum(dim=1)
        parts: list[Prediction] = [
            {"loss": loss, "targets": row.num_targets, "correct": correct}
            for loss, row, correct in zip(losses_B, batch.rows, correct_B.tolist(), strict=True)
        ]
        if self._options.predict_with_generate:
            answers = self.answer(engine, batch)
            parts = [answer | part for answer, part in zip(answers, parts, strict=True)]
        return Predicted(output.loss_sum, parts)

    def answer(self, engine: Any, batch: Batch) -> list[Prediction]:
        seed = self._config.train.seed
        ids_BT = generate(
            engine,
            {name: batch.inputs[name] for name in ("input_ids", "attention_mask")},
            self._options.generation,
            stop_ids=[self._tokenizer.eos_token_id],
            pad_token_id=self._tokenizer.pad_token_id,
            draws=[address(seed, "generation", row.record) for row in batch.rows],
        )
        return [{"generated": self._round_trip.text(ids_T).strip()} for ids_T in ids_BT.tolist()]

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        (part,) = parts
        prediction = {"source": record.fields["source"], **part}
        if "loss" in part and "generated" in part:  # of an evaluation
            # What a model that has learnt the target writes, which may not be the target.
            prediction["reference"] = self._round_trip.text(self._target_ids(record)).strip()
        return prediction

    def metric(self, split: PreparedSplit | None = None) -> Metric:
        if self._options.predict_with_generate:
            return TranslationMetric(self._options.target_lang, _targets(split))
        return LanguageModelMetric(generates=False, pattern=None)

    def notes(self, split: PreparedSplit) -> list[str]:
        if not self._options.predict_with_generate:
            return []
        how = splitting(self._options.target_lang, _targets(split)).how
        return [f"BLEU splits texts into words by sacrebleu's {how}"]

    # -- prompts ------------------------------------------------------------------------------

    def prompt(self, given: str | Mapping[str, Any], index: int, file: str, line: int) -> Record:
        return Record(index, {"source": text_of(given, file, line)}, file, line)


def _targets(split: PreparedSplit | None) -> list[str]:
    """Enough targets, from all over the split, to tell the script that it is written in."""
    if split is None:
        return []
    numbers = np.linspace(0, split.num_records - 1, min(split.num_records, 500)).astype(int)
    return [split.record(int(number)).fields["target"] for number in numbers]


def _set_languages(tokenizer: Any, options: Options) -> str | None:
    """Tells a multilingual tokenizer what it reads and writes, and returns the latter as the
    tokenizer spells it; None: it has no use for languages.

    Raises BadInput for a language that is missing or that the tokenizer does not know.
    """
    if not hasattr(tokenizer, "src_lang"):
        return None
    codes = list(getattr(tokenizer, "lang_code_to_id", None) or tokenizer.extra_special_tokens)
    if not codes:  # FSMT's are of one pair
        return None
    problems: list[Problem] = []
    spelled: list[str] = []
    for side in ("source", "target"):
        with collect(problems):
            spelled.append(_spelled(getattr(options, f"{side}_lang"), f"task.{side}_lang", codes))
    if problems:
        raise BadInput(problems)
    tokenizer.src_lang, tokenizer.tgt_lang = spelled
    return spelled[1]


def _spelled(code: str | None, key: str, codes: list[str]) -> str:
    """The language as the tokenizer spells it."""
    if code is None:
        what = f"not given, but the tokenizer has {len(codes)} languages"
        raise BadInput(Problem(key, what, f"give one, as {codes[0]}"))
    found = matching(code, codes)
    if len(found) == 1:
        return found[0]
    if found:
        what = f"{code!r} may be {' or '.join(found)} of the tokenizer's languages"
        raise BadInput(Problem(key, what, "give one of them"))
    more = f" and {len(codes) - SHOWN} more" if len(codes) > SHOWN else ""
    fix = did_you_mean(code, codes) or f"there are {', '.join(codes[:SHOWN])}{more}"
    raise BadInput(Problem(key, f"the tokenizer has no language {code!r}", fix))


def _language_id(tokenizer: Any, code: str | None) -> int | None:
    """The token that tells the language, as the tokenizer spells it."""
    if code is None:
        return None
    codes = getattr(tokenizer, "lang_code_to_id", None)
    found: int = codes[code] if codes else tokenizer.convert_tokens_to_ids(code)
    return found
