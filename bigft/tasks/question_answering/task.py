"""Extractive question answering: a span of the context as the answer, or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig
from bigft.config.tasks import QuestionAnswering as Options
from bigft.data.records import IGNORE_INDEX, Batch, Record, Row
from bigft.data.source import stream_splits
from bigft.data.split import PreparedSplit
from bigft.tasks.labels import names_by_id
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
from bigft.tasks.question_answering.answers import best_spans, join
from bigft.tasks.question_answering.conventions import SQUAD_SCRIPT, Convention, convention_of
from bigft.tasks.question_answering.examples import examples
from bigft.tasks.question_answering.fields import Columns, id_of, questions, texts_of
from bigft.tasks.question_answering.metric import AnswerMetric
from bigft.tasks.question_answering.start import START
from bigft.tasks.question_answering.targets import NO_TARGET, targets_of
from bigft.tasks.question_answering.windows import Windower
from bigft.tasks.round_trip import RoundTrip
from bigft.tasks.text_rows import attention_mask, input_ids, labels, padded, text_batch, text_row
from bigft.tasks.unlearnable import NO_INPUT, UNKNOWN_INPUT

if TYPE_CHECKING:
    from transformers import PreTrainedModel

THRESHOLD = "null_score_diff_threshold"  # in the config of a run, and of its model
SAMPLED = 500  # questions that tell how answers are scored


class QuestionAnswering(Task):
    """The task for one tokenizer. Members: see bigft.tasks.protocol.Task.

    A row is a window; its labels are the positions of the answer's first and last token, each a
    target. Where the window does not hold the answer both are the position of the [CLS] token, or
    the first one.
    """

    auto_class = "AutoModelForQuestionAnswering"
    start = START

    def __init__(self, setting: Setting) -> None:
        config, tokenizer = setting.config, setting.processor
        assert isinstance(config.task, Options)
        self.labels: list[str] = []
        self._config, self._options = config, config.task
        self._tokenizer = tokenizer
        self._cut_by = setting.cut_by
        self._windower = Windower(
            tokenizer, setting.max_length, self._options.doc_stride, setting.cut_by
        )
        self._round_trip = RoundTrip(tokenizer)
        stated = self._options.null_score_diff_threshold
        self._threshold: float | None = None if stated == "tune" else stated

    # -- data ---------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: RunConfig, reading: Reading | None = None) -> Read:
        """All splits the config names, as streams of questions in one form; no labels."""
        notes = (reading or Reading()).notes
        used = Columns.of(config.data).all
        streams = stream_splits(config.data, config.task.reads, columns=used)
        splits: dict[str, Iterable[Record]] = {
            split: questions(records, config, split, notes) for split, records in streams.items()
        }
        return Read(splits, [])

    def encode(self, record: Record) -> list[Row]:
        return self._rows(record, record.fields["answers"])

    def encode_prompt(self, record: Record) -> list[Row]:
        return self._rows(record, None)

    def _rows(self, record: Record, answers: Sequence[Mapping[str, Any]] | None) -> list[Row]:
        """answers: of which the first one is learnt; None: there is nothing to learn."""
        question, context = record.fields["question"], record.fields["context"]
        cut = self._windower.windows(question, context)
        targets, note = targets_of(cut, answers)
        notes = self._text_notes(f"{question} {context}", [w.input_ids_T for w in cut.windows])
        if cut.question_cut is not None:
            half = f"{cut.question_cut} tokens, half of a row"
            notes.append(f"have their question cut at {half}: {self._cut_by}")
        rows = []
        for number, (window, target) in enumerate(zip(cut.windows, targets, strict=True)):
            characters = cut.characters[window.first : window.end]
            columns = {
                "starts": [of_token.start for of_token in characters],
                "ends": [of_token.end for of_token in characters],
                "places": [window.position, window.null],
            }
            if window.token_type_ids_T is not None:
                columns["token_type_ids"] = window.token_type_ids_T
            row = text_row(
                record.index,
                number,
                len(cut.windows),
                window.input_ids_T,
                [*target],
                columns,
                lost_targets=len(target) if answers and target == NO_TARGET else 0,
                notes=() if number else (*notes, *[note] * bool(note)),
            )
            rows.append(row)
        return rows

    def _text_notes(self, text: str, windows: Sequence[list[int]]) -> list[str]:
        if not any(self._round_trip.has_unknown(ids_T) for ids_T in windows):
            return []
        is_unknown = all(self._round_trip.is_unknown(text, ids_T) for ids_T in windows)
        return [NO_INPUT if is_unknown else UNKNOWN_INPUT]

    def collate(self, rows: Sequence[Row]) -> Batch:
        ids = [input_ids(row) for row in rows]
        inputs = {
            "input_ids": padded(ids, self._tokenizer.pad_token_id),
            "attention_mask": attention_mask(ids),
        }
        if "token_type_ids" in rows[0].columns:
            inputs["token_type_ids"] = padded([row.columns["token_type_ids"] for row in rows], 0)
        return text_batch(rows, inputs, np.array([labels(row) for row in rows], np.int64))

    def preview(self, row: Row) -> list[tuple[str, bool]]:
        names = self._tokenizer.convert_ids_to_tokens(input_ids(row))
        first, last = labels(row)
        if first == IGNORE_INDEX:
            return [(" ".join(names), False)]
        parts = (names[:first], names[first : last + 1], names[last + 1 :])
        return [(" ".join(part), part is parts[1]) for part in parts if part]

    def examples(self, train: PreparedSplit) -> list[str]:
        return list(examples(train))

    # -- model --------------------------------------------------------------------------------

    def model_options(self) -> dict[str, Any]:
        names = ("LABEL_0", "LABEL_1")  # of a start and an end: no names, as transformers has it
        return names_by_id(names)

    def attach_head(self, model: PreTrainedModel) -> None:
        """The head, and in the model's own config, which is saved, when a question has no answer:
        one that the base brings along is another task's."""
        from bigft.models.heads.span import attach_span_head
        from bigft.models.heads.swap import base_model

        config = base_model(model).config
        vars(config).pop(THRESHOLD, None)
        if self._options.version_2_with_negative and self._threshold is not None:
            setattr(config, THRESHOLD, self._threshold)
        attach_span_head(model, label_smoothing=self._config.optim.label_smoothing_factor)

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        output = self._forward(engine, batch, scale)
        return Loss(output.loss, output.loss_sum)

    def _forward(self, engine: Any, batch: Batch, scale: float = 1.0) -> Any:
        is_token_BT = batch.inputs["attention_mask"]
        return engine(labels_B2=batch.labels, is_token_BT=is_token_BT, scale=scale, **batch.inputs)

    # -- predictions --------------------------------------------------------------------------

    def predict(self, engine: Any, batch: Batch) -> Predicted:
        output = self._forward(engine, batch)
        start_BT, end_BT = output.start_logits_BT.cpu().numpy(), output.end_logits_BT.cpu().numpy()
        parts: list[Prediction] = []
        for row, start_T, end_T in zip(batch.rows, start_BT, end_BT, strict=True):
            position, null = row.columns["places"]
            starts_N, ends_N = row.columns["starts"], row.columns["ends"]
            of_context = slice(position, position + len(starts_N))
            spans = best_spans(
                start_T[of_context],
                end_T[of_context],
                starts_N,
                ends_N,
                self._options.n_best_size,
                self._options.max_answer_length,
            )
            parts.append({"null": float(start_T[null] + end_T[null]), "spans": spans})
        return Predicted(output.loss_sum, parts)

    def answer(self, engine: Any, batch: Batch) -> list[Prediction]:
        return self.predict(engine, batch).parts

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        """`answer` with `start`, `end` and `score`, its probability; "" and null where there is
        none. `answers`: the best spans that do not overlap."""
        context, may_be_none = record.fields["context"], self._options.version_2_with_negative
        found = join(parts, context, self._options.n_best_size, may_be_none)
        spans = [
            {"text": context[span.start : span.end], "start": span.start, "end": span.end}
            | {"score": probability}
            for span, probability in zip(found.spans, found.probabilities, strict=True)
        ]
        diff = found.null_score_diff
        is_none = diff is None or (may_be_none and diff > (self._threshold or 0.0))
        none = {"text": "", "start": None, "end": None, "score": found.null_probability}
        best = none if is_none else spans[0]
        return {
            "id": record.fields["id"],
            "question": record.fields["question"],
            "answer": best["text"],
            **{name: best[name] for name in ("start", "end", "score")},
            "null_score_diff": diff,
            "answers": spans,
        }

    def submission(self, record: Record, prediction: Prediction) -> tuple[str, str]:
        return record.fields["id"], prediction["answer"]

    # -- scores -------------------------------------------------------------------------------

    def metric(self, split: PreparedSplit | None = None) -> Metric:
        version_2 = self._options.version_2_with_negative
        return AnswerMetric(self._convention(split), version_2, self._threshold)

    def _convention(self, split: PreparedSplit | None) -> Convention:
        """By answers from all over the split."""
        found: list[str] = []
        if split is not None:
            last, number = split.num_records - 1, min(split.num_records, SAMPLED)
            for index in np.linspace(0, last, number).astype(int):
                found += [each["text"] for each in split.record(int(index)).fields["answers"][:1]]
        return convention_of(found, self._options.version_2_with_negative)

    def notes(self, split: PreparedSplit) -> list[str]:
        name = self._convention(split).name
        if name == SQUAD_SCRIPT:
            return []
        return [f"answers are scored as by {name} (by the script that they are written in)"]

    def tuned(self, metric: Metric) -> dict[str, Any]:
        if self._options.null_score_diff_threshold != "tune":
            return {}
        assert isinstance(metric, AnswerMetric)
        return {THRESHOLD: metric.threshold}

    def use_tuned(self, values: Mapping[str, Any]) -> None:
        if self._options.null_score_diff_threshold == "tune" and THRESHOLD in values:
            self._threshold = float(values[THRESHOLD])

    # -- prompts ------------------------------------------------------------------------------

    def prompt(self, given: str | Mapping[str, Any], index: int, file: str, line: int) -> Record:
        if isinstance(given, str):
            fix = 'give --question and --context, or write {"question": "...", "context": "..."}'
            raise BadInput(Problem(f"{file}:{line}", "a text alone, but a question is asked", fix))
        record = Record(index, given, file, line)
        texts = texts_of(given, record.where)
        return Record(index, {"id": id_of(record), **texts}, file, line)
