"""Token classification: one label per word (named entities, parts of speech, chunks)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from bigft.config.errors import BadInput, Problem, collect
from bigft.config.sections import RunConfig
from bigft.config.tasks import TokenClassification as Options
from bigft.data.records import IGNORE_INDEX, Batch, Record, Row
from bigft.data.source import SPLITS, read_split
from bigft.data.split import PreparedSplit
from bigft.data.tag_schemes import Scheme
from bigft.data.tag_spellings import detect_tagging, respelled, tagging_notes
from bigft.data.words import split_words
from bigft.tasks.labels import Classes
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
from bigft.tasks.text_rows import (
    attention_mask,
    input_ids,
    labels,
    padded,
    text_batch,
    text_row,
)
from bigft.tasks.token_classification.examples import examples
from bigft.tasks.token_classification.fields import (
    columns,
    label_set,
    normalise,
    place_of,
    tag_sequences,
    to_bio_records,
)
from bigft.tasks.token_classification.metric import TaggingMetric, entities
from bigft.tasks.token_classification.start import START
from bigft.tasks.token_classification.windows import NO_WORD, Window, Windower
from bigft.tasks.unlearnable import NO_INPUT, UNKNOWN_INPUT

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TokenClassification(Task):
    """The task for one label set and tokenizer. Members: see bigft.tasks.protocol.Task."""

    auto_class = "AutoModelForTokenClassification"
    facts = ("label_counts",)
    start = START

    def __init__(self, setting: Setting) -> None:
        config, tokenizer = setting.config, setting.processor
        assert isinstance(config.task, Options)
        self.labels = list(setting.labels)
        self._config, self._options = config, config.task
        counts = setting.facts.get("label_counts", ())
        self._classes = Classes(self.labels, counts, config.optim)
        self._tokenizer = tokenizer
        self._ids = {label: number for number, label in enumerate(self.labels)}
        self._windower = Windower(
            tokenizer, setting.max_length, self._options.doc_stride, setting.cut_by
        )
        self._names = set(tokenizer.model_input_names)

    # -- data ---------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: RunConfig, reading: Reading | None = None) -> Read:
        """All splits the config names, as {"tokens", "tags"} records, and the label set.

        reading: a tagging that is known there is not looked for in the data.
        Raises BadInput with file and line of every record that cannot be used.
        """
        reading = reading or Reading()
        read: dict[str, list[Record]] = {}
        splits: dict[str, list[Record]] = {}
        problems: list[Problem] = []
        used = columns(config.data.text_column, config.data.label_column)
        for split in SPLITS:
            with collect(problems):
                raw = read_split(config.data, split, config.task.reads, columns=used)
                if raw is not None:
                    read[split] = normalise(
                        raw,
                        text_column_name=config.data.text_column,
                        label_column_name=config.data.label_column,
                        label_list=config.data.label_list,
                        split=split,
                        on_bad_record=config.data.on_bad_record,
                        notes=reading.notes,
                    )
        if problems:
            raise BadInput(problems)
        if reading.tagging is None:
            evidence = tag_sequences(read.get("train", next(iter(read.values()), [])))
            reading.tagging = detect_tagging(evidence)
            reading.notes += tagging_notes(reading.tagging, evidence)
        scheme, spelling = reading.tagging
        for split, records in read.items():
            with collect(problems):
                splits[split] = to_bio_records(records, reading.tagging)
        if problems:
            raise BadInput(problems)
        named = config.data.label_list
        train = splits.get("train") or next(iter(splits.values()))
        if named is None or scheme not in (Scheme.BIO, Scheme.NONE):  # converted: other names now
            names = label_set(train)
        else:
            names = list(dict.fromkeys(respelled(named, spelling)))
        counts = Counter(tag for tags in tag_sequences(train) for tag in tags)
        reading.facts.setdefault("label_counts", [counts[name] for name in names])
        return Read({**splits}, names)

    def encode(self, record: Record) -> list[Row]:
        tags = record.fields.get("tags")
        self._check_known(tags or (), record)
        label_all = self._config.data.label_all_tokens
        windows = self._windower.windows(record.fields["tokens"])
        notes = self._unknown_words(record.fields["tokens"], windows)
        rows = []
        for number, window in enumerate(windows):
            labels_T = [IGNORE_INDEX] * len(window.input_ids_T)
            if tags is not None:
                for position, word in enumerate(window.words_T):
                    if word != NO_WORD and tags[word] is not None:
                        labels_T[position] = self._ids[tags[word]]
                for position, word in enumerate(window.continues_T):
                    if label_all and word != NO_WORD and tags[word] is not None:
                        labels_T[position] = self._inside(self._ids[tags[word]])
            rows.append(
                text_row(
                    record.index,
                    number,
                    len(windows),
                    window.input_ids_T,
                    labels_T,
                    {"words": window.words_T},
                    notes=() if number else notes,
                )
            )
        return rows

    def _unknown_words(self, tokens: Sequence[str], windows: Sequence[Window]) -> tuple[str, ...]:
        """A note where the tokenizer does not know how some words begin, or of none with a letter
        or digit does."""
        unknown, begun = self._tokenizer.unk_token_id, []
        if not any(unknown in window.input_ids_T for window in windows):
            return ()  # as of most records
        for window in windows:
            pairs = zip(window.words_T, window.input_ids_T, strict=True)
            begun += [(tokens[word], token == unknown) for word, token in pairs if word != NO_WORD]
        if not any(is_unknown for _, is_unknown in begun):
            return ()
        of_letters = [each for word, each in begun if any(map(str.isalnum, word))]
        return (NO_INPUT,) if of_letters and all(of_letters) else (UNKNOWN_INPUT,)

    def _check_known(self, tags: Sequence[str | None], record: Record) -> None:
        """Raises BadInput for each label that is not the model's, where it stands first."""
        unknown = {tag: at for at, tag in reversed([*enumerate(tags)]) if tag is not None}
        known = ", ".join(self.labels[:20])
        problems = [
            Problem(
                place_of(record, unknown[tag]),
                f"label {tag!r} does not occur in the training data ({known})",
                "correct it, or name every label in data.label_list",
            )
            for tag in sorted({*unknown} - {*self._ids}, key=lambda tag: unknown[tag])
        ]
        if problems:
            raise BadInput(problems)

    def _inside(self, label: int) -> int:
        """I-X for B-X, where the labels have it: what the later sub-tokens of a word carry."""
        name = self.labels[label]
        return self._ids.get(f"I-{name[2:]}", label) if name.startswith("B-") else label

    def collate(self, rows: Sequence[Row]) -> Batch:
        ids = [input_ids(row) for row in rows]
        inputs = {
            "input_ids": padded(ids, self._tokenizer.pad_token_id),
            "attention_mask": attention_mask(ids),
        }
        if "token_type_ids" in self._names:
            inputs["token_type_ids"] = np.zeros_like(inputs["input_ids"])
        return text_batch(rows, inputs, padded([labels(row) for row in rows], IGNORE_INDEX))

    # -- model --------------------------------------------------------------------------------

    def model_options(self) -> dict[str, Any]:
        """What the model's config must say of the labels."""
        return self._classes.options

    def attach_head(self, model: PreTrainedModel) -> None:
        from bigft.models.heads.token import attach_token_head

        optim = self._config.optim
        attach_token_head(
            model,
            label_smoothing=optim.label_smoothing_factor,
            class_weights=self._classes.weights,
        )

    def uniform_loss(self) -> float:
        return self._classes.largest_weight * math.log(len(self.labels))

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        output = engine(labels_BT=batch.labels, scale=scale, **batch.inputs)
        return Loss(output.loss, output.loss_sum)

    def examples(self, train: PreparedSplit) -> list[str]:
        return list(examples(train, self.labels))

    def preview(self, row: Row) -> list[tuple[str, bool]]:
        names = self._tokenizer.convert_ids_to_tokens(input_ids(row))
        marks = [label != IGNORE_INDEX for label in labels(row)]
        return [
            (" ".join(name for name, _ in group), is_target)
            for is_target, group in groupby(zip(names, marks, strict=True), key=lambda at: at[1])
        ]

    # -- predictions --------------------------------------------------------------------------

    def predict(self, engine: Any, batch: Batch) -> Predicted:
        output = engine(labels_BT=batch.labels, **batch.inputs)
        scores_BT = output.logits_BTC.softmax(dim=-1).amax(dim=-1).tolist()
        ids_BT = output.predictions_BT.tolist()
        parts = []
        for row, ids_T, scores_T in zip(batch.rows, ids_BT, scores_BT, strict=True):
            owned = [at for at, word in enumerate(row.columns["words"]) if word != NO_WORD]
            parts.append(
                {
                    "tags": [self.labels[ids_T[at]] for at in owned],
                    "scores": [scores_T[at] for at in owned],
                }
            )
        return Predicted(output.loss_sum, parts)

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        tags = [tag for part in parts for tag in part["tags"]]
        scores = [score for part in parts for score in part["scores"]]
        tokens = list(record.fields["tokens"])
        prediction = {"tokens": tokens, "tags": tags, "scores": scores}
        if "text" in record.fields and "offsets" in record.fields:
            text, offsets = record.fields["text"], record.fields["offsets"]
            prediction["text"] = text
            prediction["entities"] = [
                {
                    "type": name,
                    "text": text[offsets[first][0] : offsets[end - 1][1]],
                    "start": offsets[first][0],
                    "end": offsets[end - 1][1],
                    "score": min(scores[first:end]),
                }
                for name, first, end in entities(tags)
            ]
        return prediction

    def metric(self, split: PreparedSplit | None = None) -> Metric:
        return TaggingMetric(self.labels, self._options.return_entity_level_metrics)

    # -- prompts ------------------------------------------------------------------------------

    def prompt(self, given: str | Mapping[str, Any], index: int, file: str, line: int) -> Record:
        """Plain text as a record without labels: its words, and where they stand."""
        text = text_of(given, file, line)
        offsets = split_words(text)
        tokens = [text[start:end] for start, end in offsets]
        return Record(index, {"text": text, "tokens": tokens, "offsets": offsets}, file, line)

    def encode_prompt(self, record: Record) -> list[Row]:
        return self.encode(record)

    def answer(self, engine: Any, batch: Batch) -> list[Prediction]:
        return self.predict(engine, batch).parts
