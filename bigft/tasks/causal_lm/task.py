"""The next token: instruction tuning, chat, plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig
from bigft.config.tasks import CausalLM as Options
from bigft.data.prepare import PreparedSplit
from bigft.data.records import IGNORE_INDEX, Batch, Feature, Record
from bigft.data.source import SPLITS, stream_split
from bigft.runtime.seeding import address
from bigft.tasks import lm_batch
from bigft.tasks.causal_lm.chat_template import Rendered, Renderer
from bigft.tasks.causal_lm.conversations import columns, last_prompt, normalised
from bigft.tasks.causal_lm.start import START
from bigft.tasks.causal_lm.template_source import use_template
from bigft.tasks.causal_lm.tokens import Tokens
from bigft.tasks.causal_lm.turns import is_learnt
from bigft.tasks.generation import fitted, generate, left_padded, positions_of, stop_ids
from bigft.tasks.protocol import Loss, Metric, Predicted, Prediction, Reading
from bigft.tasks.round_trip import RoundTrip
from bigft.tasks.scores.language_model import LanguageModelMetric, compiled
from bigft.tasks.unlearnable import NO_TEXT, NO_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class CausalLM:
    """See bigft.tasks.protocol.Task.

    A feature's column `prompt` holds one number: how many of its tokens stand before the record's
    last answer; 0 where none is generated from this row.
    """

    auto_class = "AutoModelForCausalLM"
    start = START

    def __init__(
        self,
        config: RunConfig,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        max_length: int | None,
        cut_by: str = "data.max_seq_length",
        clock: date | None = None,
    ) -> None:
        """Raises BadInput if the template or an option cannot be used."""
        assert isinstance(config.task, Options)
        self._config = config
        self._options = config.task
        self.generation = config.task.generation
        self._max_length, self._cut_by = max_length, cut_by
        self.labels: list[str] = []
        self._pattern = compiled(self._options.exact_match_pattern)
        if not tokenizer.is_fast:
            raise BadInput(
                Problem(
                    "model.model_name_or_path",
                    "its tokenizer is a slow one, which cannot tell where a token stands in a text",
                    "set model.tokenizer_name to one with a tokenizer.json",
                )
            )
        self.tokenizer = tokenizer
        use_template(tokenizer, config.data.chat_template)
        self.renderer = Renderer(tokenizer, clock)
        self._round_trip = RoundTrip(tokenizer)

    # -- data ---------------------------------------------------------------------------------

    @classmethod
    def read(
        cls, config: RunConfig, reading: Reading | None = None
    ) -> tuple[dict[str, Iterable[Record]], list[str]]:
        """All splits the config names as streams of records in one form; no labels."""
        data = config.data
        splits: dict[str, Iterable[Record]] = {}
        used = columns(data.text_column_name, data.label_column_name)
        for split in SPLITS:
            records = stream_split(data, split, of_words=False, columns=used)
            if records is not None:
                splits[split] = normalised(
                    records,
                    text_column_name=data.text_column_name,
                    label_column_name=data.label_column_name,
                )
        return splits, []

    def encode(self, record: Record) -> list[Feature]:
        """Of a conversation one row, cut at the right; several where the template rewrites its
        history. Of plain text windows that do not overlap."""
        notes: list[str] = []
        if "text" in record.fields:
            rows = self._windows(record)
        else:
            texts = self._rendered(record)
            rows = [self._row(record, rendered) for rendered in texts]
            notes += [note for rendered in texts for note in rendered.notes]
            notes += [NO_TEXT] if all(rendered.is_empty for rendered in texts) else []
        lost = sum(row.lost_targets for row in rows)
        rows = [row for row in rows if row.num_targets]
        if not rows:
            raise BadInput(_no_target(record, lost, self._max_length, self._cut_by))
        rows = [
            replace(row, window=window, num_windows=len(rows), lost_targets=0)
            for window, row in enumerate(rows)
        ]
        if lost:
            notes.append(f"are cut at {self._max_length} tokens: {self._cut_by}")
        learnt = ([token for token in row.labels_T if token != IGNORE_INDEX] for row in rows)
        if all(self._round_trip.is_unknown(_said(record.fields), ids_T) for ids_T in learnt):
            notes.append(NO_TOKEN)
        notes = [*rows[-1].notes, *notes]
        return [*rows[:-1], replace(rows[-1], lost_targets=lost, notes=tuple(notes))]

    def _rendered(self, record: Record) -> list[Rendered]:
        if self._options.assistant_only_loss:
            last_only = self._options.mask_history
            return self.renderer.answers(record.fields, record.where, last_only)
        with_prompt = self._options.predict_with_generate
        return [self.renderer.whole(record.fields, record.where, with_prompt)]

    def _row(self, record: Record, rendered: Rendered) -> Feature:
        """A token that holds a character of an answer is a target, at a border too."""
        tokens = Tokens.of(self.tokenizer, rendered.text)
        is_target_T = np.zeros(len(tokens.ids_T), dtype=bool)
        notes: list[str] = []
        for start, end in rendered.answers:
            answer = tokens.holding(start, end)
            is_target_T[answer] = True
            learnt = rendered.text[tokens.extent(start, end)]
            notes += self._round_trip.notes(learnt, tokens.ids_T[answer], rendered=True)
        if self._options.assistant_only_loss and is_target_T.all():
            raise BadInput(
                Problem(
                    record.where,
                    "every token is a target: nothing stands before the answer",
                    "give it a prompt, or set task.assistant_only_loss to false",
                )
            )
        # What follows the last target teaches nothing.
        length = int(is_target_T.nonzero()[0][-1]) + 1 if is_target_T.any() else 0
        prompt = 0
        if rendered.prompt:
            prompt = tokens.holding(rendered.prompt, len(rendered.text)).start
        row = self._cut(record, tokens.ids_T[:length], is_target_T[:length], prompt)
        return replace(row, notes=tuple(notes))

    def _cut(self, record: Record, ids_T: list[int], is_target_T: Any, prompt: int = 0) -> Feature:
        """The row up to its bound; position t's label is token t + 1, if that is a target."""
        following = zip(ids_T[1:], is_target_T[1:], strict=True)
        labels_T = [token if wanted else IGNORE_INDEX for token, wanted in following]
        end = len(ids_T) if self._max_length is None else min(self._max_length, len(ids_T))
        kept_T = [*labels_T[: end - 1], IGNORE_INDEX][:end]
        lost = sum(label != IGNORE_INDEX for label in labels_T[end - 1 :]) if end else 0
        columns = {"prompt": [prompt if prompt < end else 0]}
        return Feature(record.index, 0, 1, ids_T[:end], kept_T, columns, lost)

    def _windows(self, record: Record) -> list[Feature]:
        """Every token is a target once, but the first of a window; bos begins the record and eos
        ends it, unless its text says so itself."""
        if self._options.predict_with_generate:
            raise BadInput(
                Problem(
                    "task.predict_with_generate",
                    "plain text holds no prompt to answer",
                    "set it to false",
                )
            )
        text, bos, eos = record.fields["text"], self.renderer.bos, self.tokenizer.eos_token
        text = text if text.lstrip().startswith(bos) else bos + text
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        notes = self._round_trip.notes(text, ids, rendered=True)
        ids += [] if text.rstrip().endswith(eos) else [self.tokenizer.eos_token_id]
        length = self._max_length or len(ids)
        return [
            replace(self._cut(record, window, [True] * len(window)), notes=notes)
            for window in (ids[start : start + length] for start in range(0, len(ids), length))
        ]

    def preview(self, feature: Feature) -> list[tuple[str, bool]]:
        pieces: list[tuple[str, bool]] = []
        for sample in feature.samples:
            ids_T, before = sample.input_ids_T, ""
            is_target_T = [False, *(label != IGNORE_INDEX for label in sample.labels_T[:-1])]
            for end in range(1, len(ids_T) + 1):
                if end == len(ids_T) or is_target_T[end] != is_target_T[end - 1]:
                    # Cut from the whole: a token alone may lose the space before it.
                    text = self._round_trip.text(ids_T[:end], plain=False)
                    pieces.append((text[len(before) :], is_target_T[end - 1]))
                    before = text
        return pieces

    def collate(self, features: Sequence[Feature]) -> Batch:
        flatten = self._config.model.is_flash
        return lm_batch.collate(features, self.tokenizer.pad_token_id, flatten=flatten)

    # -- model --------------------------------------------------------------------------------

    def model_options(self) -> dict[str, Any]:
        return {}

    def attach_head(self, model: PreTrainedModel) -> None:
        from bigft.models.heads.lm import attach_lm_head

        # Saved with the model: other tools, too, must stop where the template ends an answer.
        self._ends = stop_ids(model, self.tokenizer) | self.renderer.turn_end_ids
        model.generation_config.eos_token_id = sorted(self._ends)
        attach_lm_head(model, label_smoothing=self._config.optim.label_smoothing_factor)

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        output = self._forward(engine, batch, scale)
        return Loss(output.loss, output.loss_sum)

    def _forward(self, engine: Any, batch: Batch, scale: float) -> Any:
        rows_M = batch.target_rows_M.to(batch.labels_BT.device, non_blocking=True)
        return engine(
            labels_BT=batch.labels_BT,
            scale=scale,
            target_rows_M=rows_M,
            use_cache=False,
            **batch.inputs,
        )

    # -- predictions --------------------------------------------------------------------------

    def predict(self, engine: Any, batch: Batch) -> Predicted:
        import torch

        output = self._forward(engine, batch, 1.0)
        targets_BT = batch.labels_BT != IGNORE_INDEX
        right_BT = targets_BT & (output.predictions_BT == batch.labels_BT)
        sums = [output.loss_BT, targets_BT, right_BT]
        numbers_B3 = torch.stack([each.double().sum(dim=1) for each in sums], dim=1).tolist()
        parts: list[Prediction] = [
            {"loss": loss, "targets": int(targets), "correct": int(right)}
            for loss, targets, right in numbers_B3
        ]
        if self._options.predict_with_generate:
            for part, answer in zip(parts, self.answer(engine, batch), strict=True):
                part |= answer
        return Predicted(output.loss_sum, parts)

    def answer(self, engine: Any, batch: Batch) -> list[Prediction]:
        """What the model writes after each row's prompt; nothing where that is empty."""
        prompts = [row.input_ids_T[: row.columns["prompt"][0]] for row in batch.features]
        asked = [prompt for prompt in prompts if prompt]
        filler = [[self.tokenizer.eos_token_id]]  # a rank without prompts runs along
        seed, device = self._config.train.seed, batch.labels_BT.device
        rows = [row for row, prompt in zip(batch.features, prompts, strict=True) if prompt]
        draws = [address(seed, "generation", row.record) for row in rows] or [0]
        answers = iter(self.write(engine, asked or filler, draws, device=device))
        return [{"generated": next(answers) if prompt else ""} for prompt in prompts]

    def write(
        self,
        engine: Any,
        prompts: Sequence[list[int]],
        draws: Sequence[int],
        device: Any = None,
        **settings: Any,
    ) -> list[str]:
        """The text after each prompt. draws, settings: of `generate` (a streamer).

        Prompts that leave no room for an answer lose their beginning.
        """
        prompts, options = fitted(prompts, self.generation, positions_of(engine))
        inputs = left_padded(prompts, self.tokenizer.pad_token_id, device)
        ids_BT = generate(
            engine,
            inputs,
            options,
            stop_ids=self._ends,
            pad_token_id=self.tokenizer.pad_token_id,
            draws=draws,
            **settings,
        )
        width = inputs["input_ids"].shape[1]
        return [self._written(ids_T[width:]) for ids_T in ids_BT.tolist()]

    def _reference(self, record: Record) -> str:
        """What `write` returns of a model that has learnt the record's last answer: what the
        template makes of it, which may be more than the message holds, or less."""
        (rendered,) = self.renderer.answers(record.fields, record.where, last_only=True)
        tokens = Tokens.of(self.tokenizer, rendered.text)
        return self._written(tokens.ids_T[tokens.holding(*rendered.answers[-1])])

    def _written(self, ids_T: list[int]) -> str:
        """The text up to the first token that ends an answer."""
        return self._round_trip.text(list(takewhile(lambda token: token not in self._ends, ids_T)))

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        if "loss" not in parts[0]:  # of `bigft predict`
            (part,) = parts
            return {"prompt": record.fields["messages"][-1].get("content", ""), **part}
        names = ("loss", "targets", "correct")
        prediction: Prediction = {name: sum(part[name] for part in parts) for name in names}
        if "generated" in parts[-1]:
            prediction |= {
                "prompt": last_prompt(record.fields),
                "generated": parts[-1]["generated"],
                "reference": self._reference(record),
            }
        return prediction

    def metric(self, split: PreparedSplit | None = None) -> Metric:
        return LanguageModelMetric(self._options.predict_with_generate, self._pattern)

    def notes(self, split: PreparedSplit) -> list[str]:
        return []

    def text_record(self, text: str, index: int) -> Record:
        """The text as a user's message. Without a chat template it is what the model goes on with,
        or the prompt of a pair where the config names columns of pairs."""
        form = "prompt" if self._config.data.label_column_name is None else "instruction"
        fields = {"messages": [{"role": "user", "content": text}], "form": form}
        return Record(index, fields, "text", index + 1)

    def encode_prompt(self, record: Record) -> list[Feature]:
        text = self.renderer.prompt(record.fields, record.where)
        ids_T = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        ids_T = ids_T or [self.tokenizer.eos_token_id]
        labels_T = [IGNORE_INDEX] * len(ids_T)
        return [Feature(record.index, 0, 1, ids_T, labels_T, {"prompt": [len(ids_T)]})]


def _said(fields: Mapping[str, Any]) -> str:
    """The texts that are to be learnt, one behind the other."""
    learnt = [message for message in fields.get("messages", ()) if is_learnt(message)]
    return "".join([fields.get("text", ""), *(each.get("content", "") for each in learnt)])


def _no_target(record: Record, lost: int, max_length: int | None, cut_by: str) -> Problem:
    if not lost:
        return Problem(record.where, "no token to learn in it", "write an answer, or delete it")
    return Problem(
        record.where,
        f"its {lost} targets stand beyond the first {max_length} tokens: nothing is left to learn",
        f"raise {cut_by}, or delete the sample",
    )
