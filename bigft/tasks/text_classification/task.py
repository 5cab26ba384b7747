"""Text classification and regression: a label, several, or a number for each text or pair."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig
from bigft.config.tasks import TextClassification as Options
from bigft.data.prepare import encode_one
from bigft.data.records import IGNORE_INDEX, Batch, Record, Row
from bigft.data.split import PreparedSplit
from bigft.tasks.labels import Classes
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
from bigft.tasks.text_classification.batch import collate
from bigft.tasks.text_classification.decisions import Decisions
from bigft.tasks.text_classification.encoder import Encoded, Encoder
from bigft.tasks.text_classification.fields import (
    MULTI,
    REGRESSION,
    SINGLE,
    given,
    target_of,
    texts,
)
from bigft.tasks.text_classification.groups import GroupedMetric
from bigft.tasks.text_classification.metric import (
    MultiLabelMetric,
    RegressionMetric,
    SingleLabelMetric,
    Tunable,
)
from bigft.tasks.text_classification.reading import read
from bigft.tasks.text_classification.start import START
from bigft.tasks.text_rows import input_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOGETHER = 128  # texts that are tokenised in one call
THRESHOLD = "decision_threshold"  # in the model's config
FREQUENT = 5  # labels that `bigft check` shows


class TextClassification(Task):
    """The task for one tokenizer and label set. Members: see bigft.tasks.protocol.Task.

    A row's labels are a class id, 0 or 1 for each class, or a real number. The k windows of a text
    weigh 1 / k each, so that it is one target however long it is: docs/numerics.md.
    """

    auto_class = "AutoModelForSequenceClassification"
    facts = ("problem_type", "label_counts")
    start = START

    def __init__(self, setting: Setting) -> None:
        config, tokenizer = setting.config, setting.processor
        assert isinstance(config.task, Options)
        self.labels = list(setting.labels)
        self._config, self._options = config, config.task
        self._tokenizer = tokenizer
        counts = setting.facts.get("label_counts") or ()
        self._classes = Classes(self.labels, counts, config.optim)
        self._ids = {label: number for number, label in enumerate(self.labels)}
        self._limit = setting.limit
        stride = self._options.doc_stride if self._options.long_texts == "windows" else None
        self._encoder = Encoder(tokenizer, setting.limit, stride)
        self._round_trip = RoundTrip(tokenizer)
        self._problem_type = setting.facts.get("problem_type") or SINGLE
        if setting.facts:
            self._check_options()
        outside = self._ids.get(self._options.out_of_scope_label or "")
        asked = self._options.decision_threshold
        threshold = None if asked == "tune" else asked
        self._decisions = Decisions(self._problem_type, self.labels, outside, threshold)

    def _check_options(self) -> None:
        """Raises BadInput for options that have no meaning for the labels that were found."""
        optim, options = self._config.optim, self._options
        is_single, is_regression = self._problem_type == SINGLE, self._problem_type == REGRESSION
        without = {
            "optim.label_smoothing_factor": optim.label_smoothing_factor > 0 and not is_single,
            "optim.class_weights": optim.class_weights is not None and is_regression,
            "optim.focal_gamma": optim.focal_gamma > 0 and is_regression,
            "task.out_of_scope_label": bool(options.out_of_scope_label) and not is_single,
            "task.decision_threshold": options.decision_threshold is not None
            and (is_regression or (is_single and not options.out_of_scope_label)),
        }
        fix = "leave it out"
        if is_single:
            fix = "leave it out, or name task.out_of_scope_label"
        what = f"given, but it has no meaning with {self._problem_type}"
        if problems := [Problem(key, what, fix) for key, bad in without.items() if bad]:
            raise BadInput(problems)

    # -- data ---------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: RunConfig, reading: Reading | None = None) -> Read:
        return read(config, reading or Reading())

    def encode(self, record: Record) -> list[Row]:
        return encode_one(self.encode_all, record)

    def encode_all(self, records: Iterable[Record]) -> Iterator[list[Row] | BadInput]:
        stream = iter(records)
        while group := list(islice(stream, TOGETHER)):
            encoded = self._encoder.encode(group)
            for record, windows in zip(group, encoded, strict=True):
                if isinstance(windows, BadInput):
                    yield windows
                    continue
                try:
                    yield self._rows(record, windows)
                except BadInput as refused:
                    yield refused

    def _rows(self, record: Record, windows: Sequence[Encoded]) -> list[Row]:
        labels: list[float] = []
        if "label" in record.fields:
            are_given = self._config.data.label_list is not None
            labels = target_of(record, self._problem_type, self._ids, are_given)
        notes = self._notes(record, windows)
        return [
            Row(
                record.index,
                number,
                len(windows),
                length=len(window.ids_T),
                num_targets=len(labels) - labels.count(IGNORE_INDEX),
                columns={
                    "input_ids": window.ids_T,
                    "types": window.types_T if any(window.types_T) else [],
                    "labels": labels,
                    "lost": [window.lost],
                },
                notes=() if number else notes,
            )
            for number, window in enumerate(windows)
        ]

    def _notes(self, record: Record, windows: Sequence[Encoded]) -> tuple[str, ...]:
        notes: tuple[str, ...] = ()
        if windows[0].lost:
            assert self._limit is not None
            notes = (f"are cut at {self._limit.tokens} tokens: {self._limit.source}",)
        ids_T = [token for window in windows for token in window.ids_T]
        return notes + self._round_trip.input_notes(" ".join(given(record).values()), ids_T)

    def collate(self, rows: Sequence[Row]) -> Batch:
        are_windows = self._options.long_texts == "windows"
        num_labels = len(self.labels)
        return collate(rows, self._tokenizer, self._problem_type, num_labels, are_windows)

    def preview(self, row: Row) -> list[tuple[str, bool]]:
        text = self._round_trip.text(input_ids(row), plain=False)
        labels = row.columns["labels"]
        if self._problem_type == SINGLE:
            said = self.labels[int(labels[0])]
        elif self._problem_type == MULTI:
            named = zip(self.labels, labels, strict=True)
            said = ", ".join(name for name, value in named if value == 1) or "no label"
        else:
            said = f"{labels[0]:g}"
        return [(f"{text} ", False), (said, True)]

    def targets(self, split: PreparedSplit) -> str:
        windows = np.bincount(split.record_of_row)[split.record_of_row]
        return f"{round((split.num_targets / windows).sum()):,} targets"

    def examples(self, train: PreparedSplit) -> list[str]:
        lines = []
        if counts := self._classes.counts:
            order = np.argsort(counts, kind="stable")[::-1]
            shown = [f"{self.labels[at]} {counts[at]:,}" for at in order[:FREQUENT]]
            rare = f" ... {self.labels[order[-1]]} {counts[order[-1]]:,}"
            more = rare if len(order) > FREQUENT else ""
            lines.append(f"{len(self.labels)} labels: {', '.join(shown)}{more}")
        lost_R = train.values("lost")
        if lost := int(lost_R.sum()):
            whole = lost + int(train.lengths.sum())
            lines.append(
                f"{int((lost_R > 0).sum()):,} of {len(train):,} texts lose {lost:,} of {whole:,} "
                f"tokens ({lost / whole:.1%}), which task.long_texts: windows would read"
            )
        return lines

    # -- model --------------------------------------------------------------------------------

    def model_options(self) -> dict[str, Any]:
        return {**self._classes.options, "problem_type": self._problem_type}

    def attach_head(self, model: PreTrainedModel) -> None:
        from bigft.models.heads.sequence import attach_sequence_head
        from bigft.models.heads.swap import base_model

        vars(base_model(model).config).pop(THRESHOLD, None)  # a base brings along another task's
        text_config = model.config.get_text_config()
        if text_config.pad_token_id is None:  # a decoder classifies at the last token before it
            text_config.pad_token_id = self._tokenizer.pad_token_id
        optim = self._config.optim
        attach_sequence_head(
            model,
            self._problem_type,
            label_smoothing=optim.label_smoothing_factor,
            class_weights=self._classes.weights,
            focal_gamma=optim.focal_gamma,
        )

    def uniform_loss(self) -> float | None:
        if self._problem_type == REGRESSION:
            return None
        classes = len(self.labels) if self._problem_type == SINGLE else 2
        return self._classes.largest_weight * math.log(classes)

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        output = engine(labels_BT=batch.labels, scale=scale, **batch.inputs)
        return Loss(output.loss, output.loss_sum)

    # -- predictions --------------------------------------------------------------------------

    def predict(self, engine: Any, batch: Batch) -> Predicted:
        output = engine(labels_BT=batch.labels, **batch.inputs)
        logits_BC = output.logits_BC.tolist()
        targets = [row.columns["labels"] for row in batch.rows]
        parts: list[Prediction] = [
            {"logits": logits, "target": target}
            for logits, target in zip(logits_BC, targets, strict=True)
        ]
        return Predicted(output.loss_sum, parts)

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        """Of the mean of the windows' logits."""
        logits_C = np.mean([part["logits"] for part in parts], axis=0).tolist()
        found = self._decisions.probabilities(logits_C)
        if "label" in record.fields:
            name = "value" if self._problem_type == REGRESSION else "probabilities"
            value = found[0] if self._problem_type == REGRESSION else found
            return {name: value, "target": parts[0]["target"]}
        return {**given(record), **self._answer(found)}

    def _answer(self, found: Sequence[float]) -> Prediction:
        """What a user reads: the label with its probability, and the next ones."""
        if self._problem_type == REGRESSION:
            return {self.labels[0]: found[0]}
        order = np.argsort(found, kind="stable")[::-1][: self._options.top_k]
        top = [{"label": self.labels[at], "score": found[at]} for at in order]
        if self._problem_type == MULTI:
            has = self._decisions.several(found)
            return {"labels": [name for name, is_so in zip(self.labels, has, strict=True) if is_so],
                    "top": top}  # fmt: skip
        answer = self._decisions.one(found)
        return {"label": self.labels[answer], "score": found[answer], "top": top}

    def metric(self, split: PreparedSplit | None = None) -> Metric:
        metric: Metric
        if self._problem_type == REGRESSION:
            metric = RegressionMetric()
        elif self._problem_type == MULTI:
            metric = MultiLabelMetric(self._decisions)
        else:
            metric = SingleLabelMetric(self._decisions)
        if self._config.data.group_column_name is None:
            return metric
        return GroupedMetric(metric, self._decisions, self._options.ndcg_at)

    def tuned(self, metric: Metric) -> dict[str, Any]:
        if self._options.decision_threshold != "tune":
            return {}
        assert isinstance(metric, Tunable)
        found = metric.tuned()
        return {THRESHOLD: found} if not (isinstance(found, float) and math.isnan(found)) else {}

    def use_tuned(self, values: Mapping[str, Any]) -> None:
        if self._options.decision_threshold == "tune" and values.get(THRESHOLD) is not None:
            self._decisions.threshold = values[THRESHOLD]

    # -- prompts ------------------------------------------------------------------------------

    def prompt(self, given: str | Mapping[str, Any], index: int, file: str, line: int) -> Record:
        """A text, or an object with the columns of the data."""
        fields = {"text": given} if isinstance(given, str) else dict(given)
        record = Record(index, fields, file, line)
        data = self._config.data
        is_plain = "text" in fields and not isinstance(data.text_column_name, tuple)
        if is_plain:
            data = data.model_copy(update={"text_column_name": "text"})
        found = texts(record, data)
        return Record(index, dict(zip(("text", "pair"), found, strict=False)), file, line)

    def encode_prompt(self, record: Record) -> list[Row]:
        return self.encode(record)

    def answer(self, engine: Any, batch: Batch) -> list[Prediction]:
        return self.predict(engine, batch).parts
