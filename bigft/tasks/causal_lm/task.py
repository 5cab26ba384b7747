"""The next token: instruction tuning, chat, plain text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig
from bigft.config.tasks import CausalLM as Options
from bigft.data.prepare import encode_one
from bigft.data.records import IGNORE_INDEX, Batch, Record, Row
from bigft.data.source import stream_splits
from bigft.data.split import PreparedSplit
from bigft.runtime.seeding import address
from bigft.tasks.causal_lm.batch import collate
from bigft.tasks.causal_lm.chat_template import Renderer
from bigft.tasks.causal_lm.conversations import columns, last_prompt, normalised, prompt_record
from bigft.tasks.causal_lm.encoder import Encoder
from bigft.tasks.causal_lm.start import START
from bigft.tasks.causal_lm.template_source import use_template, writes_clock
from bigft.tasks.causal_lm.tokens import Tokenization
from bigft.tasks.generation import (
    fitted,
    generate,
    left_padded,
    positions_of,
    stop_ids,
    streamer,
)
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
from bigft.tasks.scores.language_model import LanguageModelMetric, compiled, target_sums
from bigft.tasks.text_rows import input_ids, labels, text_row

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CausalLM(Task):
    """See bigft.tasks.protocol.Task."""

    auto_class = "AutoModelForCausalLM"
    start = START

    def __init__(self, setting: Setting) -> None:
        """Raises BadInput if the template or an option cannot be used."""
        config, tokenizer = setting.config, setting.processor
        assert isinstance(config.task, Options)
        self._config = config
        self._options = config.task
        self.generation = config.task.generation
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
        self.renderer = Renderer(tokenizer, setting.clock)
        self._round_trip = RoundTrip(tokenizer)
        self._tokenization = Tokenization(tokenizer)
        self._encoder = Encoder(
            tokenizer,
            self._tokenization,
            self.renderer,
            self._round_trip,
            config.task,
            setting.limit,
        )

    # -- data ---------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: RunConfig, reading: Reading | None = None) -> Read:
        """All splits the config names as streams of records in one form; no labels."""
        data, notes = config.data, (reading or Reading()).notes
        names = (data.text_column, data.label_column)
        streams = stream_splits(data, config.task.reads, columns=columns(*names))
        splits: dict[str, Iterable[Record]] = {
            split: normalised(
                records,
                text_column_name=names[0],
                label_column_name=names[1],
                split=split,
                on_bad_record=data.on_bad_record,
                notes=notes,
            )
            for split, records in streams.items()
        }
        return Read(splits, [])

    @classmethod
    def writes_clock(cls, config: RunConfig, processor: Any) -> bool:
        return writes_clock(processor, config.data.chat_template)

    def encode(self, record: Record) -> list[Row]:
        return encode_one(self.encode_all, record)

    def encode_all(self, records: Iterable[Record]) -> Iterator[list[Row] | BadInput]:
        return self._encoder.encode(records)

    def preview(self, row: Row) -> list[tuple[str, bool]]:
        pieces: list[tuple[str, bool]] = []
        for sample in row.samples:
            ids_T, before = input_ids(sample), ""
            is_target_T = [False, *(label != IGNORE_INDEX for label in labels(sample)[:-1])]
            for end in range(1, len(ids_T) + 1):
                if end == len(ids_T) or is_target_T[end] != is_target_T[end - 1]:
                    # Cut from the whole: a token alone may lose the space before it.
                    text = self._round_trip.text(ids_T[:end], plain=False)
                    pieces.append((text[len(before) :], is_target_T[end - 1]))
                    before = text
        return pieces

    def collate(self, rows: Sequence[Row]) -> Batch:
        flatten = self._config.model.is_flash
        return collate(rows, self.tokenizer.pad_token_id, flatten=flatten)

    # -- model --------------------------------------------------------------------------------

    def attach_head(self, model: PreTrainedModel) -> None:
        from bigft.models.heads.lm import attach_lm_head

        # Saved with the model: other tools, too, must stop where the template ends an answer.
        self._ends = stop_ids(model, self.tokenizer) | self.renderer.turn_end_ids
        model.generation_config.eos_token_id = sorted(self._ends)
        attach_lm_head(model, label_smoothing=self._config.optim.label_smoothing_factor)

    def uniform_loss(self) -> float:
        return math.log(len(self.tokenizer))

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        output = self._forward(engine, batch, scale)
        return Loss(output.loss, output.loss_sum)

    def _forward(self, engine: Any, batch: Batch, scale: float) -> Any:
        rows_M = batch.target_rows_M.to(batch.labels.device, non_blocking=True)
        return engine(
            labels_BT=batch.labels,
            scale=scale,
            target_rows_M=rows_M,
            use_cache=False,
            **batch.inputs,
        )

    # -- predictions --------------------------------------------------------------------------

    def predict(self, engine: Any, batch: Batch) -> Predicted:
        output = self._forward(engine, batch, 1.0)
        parts = target_sums(output, batch.labels)
        if self._options.predict_with_generate:
            for part, answer in zip(parts, self.answer(engine, batch), strict=True):
                part |= answer
        return Predicted(output.loss_sum, parts)

    def answer(self, engine: Any, batch: Batch) -> list[Prediction]:
        """What the model writes after each row's prompt; nothing where that is empty."""
        prompts = [input_ids(row)[: row.columns["prompt"][0]] for row in batch.rows]
        asked = [prompt for prompt in prompts if prompt]
        filler = [[self.tokenizer.eos_token_id]]  # a rank without prompts runs along
        seed, device = self._config.train.seed, batch.labels.device
        rows = [row for row, prompt in zip(batch.rows, prompts, strict=True) if prompt]
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
        (tokens,) = self._tokenization.of([rendered.text])
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

    # -- prompts ------------------------------------------------------------------------------

    @property
    def _form(self) -> str:
        """How a lone message is written where there is no chat template: as what the model goes on
        with, or as the prompt of a pair where the config names columns of pairs."""
        return "prompt" if self._config.data.label_column_name is None else "instruction"

    def prompt(self, given: str | Mapping[str, Any], index: int, file: str, line: int) -> Record:
        """A text as a user's message; an object as a record of the data, without its answer."""
        text = given if isinstance(given, str) else given.get("text")
        if not isinstance(text, str):
            assert not isinstance(given, str)
            return prompt_record(Record(index, given, file, line))
        fields = {"messages": [{"role": "user", "content": text}], "form": self._form}
        return Record(index, fields, file, line)

    def encode_prompt(self, record: Record) -> list[Row]:
        text = self.renderer.prompt(record.fields, record.where)
        ids_T = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        ids_T = ids_T or [self.tokenizer.eos_token_id]
        labels_T = [IGNORE_INDEX] * len(ids_T)
        return [text_row(record.index, 0, 1, ids_T, labels_T, {"prompt": [len(ids_T)]})]

    def check_chat(self) -> None:
        if self._form == "prompt" and not self.renderer.has_template:
            what = "the run's tokenizer has no chat template"
            raise BadInput(Problem("--chat", what, "give --text, or train with data.chat_template"))

    def reply(
        self,
        engine: Any,
        messages: Sequence[Mapping[str, str]],
        draw: int,
        write: Callable[[str], object],
    ) -> str:
        record = Record(0, {"messages": list(messages), "form": self._form}, "chat", 1)
        (row,) = self.encode_prompt(record)
        comes_at_once = self.generation.num_beams > 1  # beams are not decided before the end
        settings = {} if comes_at_once else {"streamer": streamer(self.tokenizer, write)}
        device = next(engine.parameters()).device
        (answer,) = self.write(engine, [input_ids(row)], [draw], device, **settings)
        if comes_at_once:
            write(f"{answer}\n")
        return answer
