"""Masked tokens: an encoder learns a domain from texts without labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig
from bigft.config.tasks import MaskedLM as Options
from bigft.data.prepare import Encoded, encode_one
from bigft.data.records import IGNORE_INDEX, Batch, Record, Row
from bigft.data.source import stream_splits
from bigft.data.split import PreparedSplit
from bigft.tasks.masked_lm.encoder import Encoder, JoinedEncoder, PairEncoder
from bigft.tasks.masked_lm.fields import column, texts
from bigft.tasks.masked_lm.masking import Ids, Masking, masked
from bigft.tasks.masked_lm.metric import MaskedLMMetric, PretrainingMetric
from bigft.tasks.masked_lm.start import START
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
from bigft.tasks.scores.language_model import target_sums
from bigft.tasks.text_rows import attention_mask, input_ids, padded, text_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LIKELIEST = 5  # tokens that are told of a mask


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
        self._of_pairs = self._options.next_sentence_prediction
        if self._of_pairs:
            self.auto_class = "AutoModelForPreTraining"
        kind = JoinedEncoder if not self._options.line_by_line else Encoder
        kind = PairEncoder if self._of_pairs else kind
        self._encoder = kind(tokenizer, self._options, setting.limit)
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
        streams = stream_splits(data, config.task.reads, columns=frozenset({column(config)}))
        splits: dict[str, Iterable[Record]] = {
            split: texts(records, config, split, notes) for split, records in streams.items()
        }
        return Read(splits, [])

    def encode(self, record: Record) -> list[Row]:
        return encode_one(self.encode_all, record)

    def encode_all(self, records: Iterable[Record]) -> Iterator[Encoded]:
        return self._encoder.encode(records)

    def collate(self, rows: Sequence[Row]) -> Batch:
        drawn = [self._masked(row) for row in rows]
        ids, labels = ([pair[side].tolist() for pair in drawn] for side in (0, 1))
        inputs = {
            "input_ids": padded(ids, self._tokenizer.pad_token_id),
            "attention_mask": attention_mask(ids),
        }
        if self._of_pairs:
            inputs["token_type_ids"] = padded([_segments(row) for row in rows], 0)
        batch = text_batch(rows, inputs, padded(labels, IGNORE_INDEX))
        return self._with_pairs(batch) if self._of_pairs else batch

    def _with_pairs(self, batch: Batch) -> Batch:
        """The batch as `attach_pretraining_head` wants it. It counts the masked tokens alone; a
        pair weighs as many of them as its row has on average (docs/numerics.md)."""
        import torch

        labels_B1 = torch.tensor([row.columns["next_sentence_label"] for row in batch.rows])
        weights = [self._options.mlm_probability * row.num_targets for row in batch.rows]
        batch.inputs["next_sentence_weight_B"] = torch.tensor(weights)
        return replace(batch, labels=torch.cat([labels_B1, batch.labels], dim=1))

    def _masked(self, row: Row) -> tuple[Ids, Ids]:
        """(input_ids_T, labels_T), as the row's draw has them."""
        ids_T = np.array(input_ids(row))
        is_maskable_T = ~np.isin(ids_T, self._special_ids) & bool(row.num_targets)  # no prompt
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
        from bigft.models.heads.pretraining import attach_pretraining_head, predicts_next_sentence
        from bigft.models.heads.swap import base_model

        smoothing = self._config.optim.label_smoothing_factor
        if not self._of_pairs:
            attach_lm_head(model, label_smoothing=smoothing)
            return
        if not predicts_next_sentence(model):
            what = f"true, but {type(base_model(model)).__name__} has no head for it"
            fix = (
                "set it to false, or choose a model that has one (BERT, MegatronBERT, ERNIE, FNet)"
            )
            raise BadInput(Problem("task.next_sentence_prediction", what, fix))
        attach_pretraining_head(model, label_smoothing=smoothing)

    def uniform_loss(self) -> float:
        return math.log(len(self._tokenizer)) + self._of_pairs * math.log(2)

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
        if not self._of_pairs:
            return Predicted(output.loss_sum, target_sums(output, batch.labels))
        parts = target_sums(output, batch.labels[:, 1:])
        right_B = output.next_sentence_predictions_B == batch.labels[:, 0]
        pairs = zip(output.next_sentence_loss_B.tolist(), right_B.tolist(), strict=True)
        for part, (loss, is_right) in zip(parts, pairs, strict=True):
            part |= {"pairs": 1, "pair_loss": loss, "pairs_correct": int(is_right)}
        return Predicted(output.loss_sum, parts)

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        if "masks" in parts[0]:  # of `bigft predict`
            return {"text": record.fields["text"], **parts[0]}
        return {name: sum(part[name] for part in parts) for name in parts[0]}

    def metric(self, split: PreparedSplit | None = None) -> Metric:
        return PretrainingMetric() if self._of_pairs else MaskedLMMetric()

    # -- prompts ------------------------------------------------------------------------------

    def prompt(self, given: str | Mapping[str, Any], index: int, file: str, line: int) -> Record:
        text, mask = text_of(given, file, line), self._tokenizer.mask_token
        if mask not in text:
            fix = f"write {mask} where a token is to be found"
            raise BadInput(Problem(f"{file}:{line}", f"no {mask} in the text", fix))
        return Record(index, {"text": text}, file, line)

    def encode_prompt(self, record: Record) -> list[Row]:
        return [self._encoder.prompt(record)]

    def answer(self, engine: Any, batch: Batch) -> list[Prediction]:
        """For each mask of a row the likeliest tokens, as transformers' fill-mask has them."""
        output = engine(**batch.inputs)
        logits_BTV = output.prediction_logits if self._of_pairs else output.logits
        answers: list[Prediction] = []
        for row, logits_TV in zip(batch.rows, logits_BTV, strict=True):
            is_mask_T = np.array(input_ids(row)) == self._tokenizer.mask_token_id
            chances_MV = logits_TV[np.flatnonzero(is_mask_T)].float().softmax(dim=-1)
            best_MK = chances_MV.topk(min(LIKELIEST, chances_MV.shape[1]), dim=-1)
            pairs = zip(best_MK.indices.tolist(), best_MK.values.tolist(), strict=True)
            answers.append({"masks": [self._tokens(ids, scores) for ids, scores in pairs]})
        return answers

    def _tokens(self, ids: Sequence[int], scores: Sequence[float]) -> list[dict[str, Any]]:
        return [
            {"token_str": self._tokenizer.decode([token]), "score": score}
            for token, score in zip(ids, scores, strict=True)
        ]


def _segments(row: Row) -> list[int]:
    """0 for a token of the first run of sentences, 1 for one of the second."""
    (second,) = row.columns["second"]
    return [0] * second + [1] * (row.length - second)
