"""Masked tokens: an encoder learns a domain from texts without labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from bigft.config.sections import RunConfig
from bigft.config.tasks import MaskedLM as Options
from bigft.data.records import IGNORE_INDEX, Batch, Note, Record, Row
from bigft.data.source import stream_splits
from bigft.data.split import PreparedSplit
from bigft.tasks.masked_lm.encoder import Encoder
from bigft.tasks.masked_lm.fields import column, texts
from bigft.tasks.masked_lm.masking import Ids, Masking, masked
from bigft.tasks.masked_lm.metric import MaskedLMMetric
from bigft.tasks.masked_lm.start import START
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
from bigft.tasks.scores.language_model import target_sums
from bigft.tasks.text_rows import attention_mask, input_ids, padded, text_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MaskedLM(Task):
    """See bigft.tasks.protocol.Task."""

    auto_class = "AutoModelForMaskedLM"
    start = START

    def __init__(self, setting: Setting) -> None:
        config, tokenizer = setting.config, setting.processor
        assert isinstance(config.task, Options)
        self.labels: list[str] = []
        self._config, self._options = config, config.task
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer, self._options, setting.limit)
        special, known = set(tokenizer.all_special_ids), tokenizer.get_vocab().values()
        self._special_ids = np.array(sorted(special))
        self._masking = Masking(
            self._options.mlm_probability,
            self._options.mask_replace_prob,
            self._options.random_replace_prob,
            tokenizer.mask_token_id,
            random_ids=np.array(sorted({*known} - special)),
        )

    # -- data ---------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: RunConfig, reading: Reading | None = None) -> Read:
        """All splits the config names as streams of {"text"}; no labels."""
        data, notes = config.data, (reading or Reading()).notes
        streams = stream_splits(data, config.task.reads, columns=frozenset({column(data)}))
        splits: dict[str, Iterable[Record]] = {
            split: texts(records, data, split, notes) for split, records in streams.items()
        }
        return Read(splits, [])

    def encode(self, record: Record) -> list[Row]:
        (encoded,) = self.encode_all([record])
        return [row for row in encoded if isinstance(row, Row)]

    def encode_all(self, records: Iterable[Record]) -> Iterator[Sequence[Row | Note]]:
        return self._encoder.encode(records)

    def collate(self, rows: Sequence[Row]) -> Batch:
        pairs = [self._masked(row) for row in rows]
        ids, labels = ([pair[side].tolist() for pair in pairs] for side in (0, 1))
        inputs = {
            "input_ids": padded(ids, self._tokenizer.pad_token_id),
            "attention_mask": attention_mask(ids),
        }
        return text_batch(rows, inputs, padded(labels, IGNORE_INDEX))

    def _masked(self, row: Row) -> tuple[Ids, Ids]:
        """(input_ids_T, labels_T), as the row's draw has them."""
        ids_T = np.array(input_ids(row))
        is_maskable_T = ~np.isin(ids_T, self._special_ids)
        continues_T = np.array(row.columns.get("continues", [0] * len(ids_T)))
        return masked(ids_T, is_maskable_T, continues_T == 0, row.draw, self._masking)

    def targets(self, split: PreparedSplit) -> str:
        about = round(self._options.mlm_probability * int(split.num_targets.sum()))
        return f"about {about:,} targets, drawn anew whenever a row is trained on"

    def preview(self, row: Row) -> list[tuple[str, bool]]:
        """The row's tokens, and which of them one draw masks."""
        names = self._tokenizer.convert_ids_to_tokens(input_ids(row))
        is_target_T = self._masked(row)[1] != IGNORE_INDEX
        return [
            (" ".join(name for name, _ in group), bool(is_target))
            for is_target, group in groupby(
                zip(names, is_target_T, strict=True), key=lambda each: each[1]
            )
        ]

    # -- model --------------------------------------------------------------------------------

    def attach_head(self, model: PreTrainedModel) -> None:
        from bigft.models.heads.lm import attach_lm_head

        attach_lm_head(model, label_smoothing=self._config.optim.label_smoothing_factor)

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
        output = self._forward(engine, batch, 1.0)
        return Predicted(output.loss_sum, target_sums(output, batch.labels))

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        return {name: sum(part[name] for part in parts) for name in parts[0]}

    def metric(self, split: PreparedSplit | None = None) -> Metric:
        return MaskedLMMetric()
