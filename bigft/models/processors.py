"""What makes a model's inputs of a record: a tokenizer, or an image processor. What its task needs
of it, and whether it fits the model."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import ModelConfig
from bigft.config.tasks import Reads
from bigft.models.refusals import check_is_there, not_loaded
from bigft.runtime.pointers import pointer_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase
    from transformers.image_processing_utils import BaseImageProcessor

    Processor: TypeAlias = PreTrainedTokenizerBase | BaseImageProcessor

# Of tokenizer_config.json, what changes rows or notes and is in no tokenizer.json.
SETTINGS = (
    *("truncation_side", "padding_side", "split_special_tokens", "clean_up_tokenization_spaces"),
    *("add_bos_token", "add_eos_token", "src_lang", "tgt_lang"),
)
BYTE_LEVEL_SPACE = "\u0120"  # how byte-level vocabularies write the space


class Needs(NamedTuple):
    """tokens: that the tokenizer must have.  words: each word comes with its space, and the
    tokenizer is a fast one, which can tell what became of a word."""

    tokens: tuple[str, ...]
    words: bool = False


# Of a tokenizer, by what a task's model is given (`reads` in bigft/config/tasks.py). Running text
# is read as the model was pretrained to. What is not here is no text.
NEEDS: dict[Reads, Needs] = {
    "words": Needs(("pad",), words=True),
    "text": Needs(("pad",)),
    "masked-text": Needs(("pad", "mask")),
    "completion": Needs(("pad", "eos")),
}


def load_processor(model: ModelConfig, reads: Reads) -> Processor:
    """The run's tokenizer or image processor.

    Raises BadInput, naming the key, if it cannot be found or used.
    """
    return load_tokenizer(model, reads) if reads in NEEDS else _load_image_processor(model)


def is_tokenizer(processor: Processor) -> TypeGuard[PreTrainedTokenizerBase]:
    from transformers import PreTrainedTokenizerBase

    return isinstance(processor, PreTrainedTokenizerBase)


def identity(processor: Processor) -> Any:
    """All of a processor that decides what a record becomes, as JSON values."""
    if not is_tokenizer(processor):
        return processor.to_dict()
    if processor.is_fast:
        inner = processor.backend_tokenizer.to_str()
    else:
        with tempfile.TemporaryDirectory() as folder:
            files = sorted(map(Path, processor.save_vocabulary(folder)))
            inner = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    settings = [getattr(processor, name, None) for name in SETTINGS]
    return [inner, processor.special_tokens_map, processor.chat_template, settings]


def _load_image_processor(model: ModelConfig) -> BaseImageProcessor:
    from transformers import AutoImageProcessor

    name = model.model_name_or_path
    check_is_there("model.model_name_or_path", name)
    try:
        processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(
            name, revision=model.revision, trust_remote_code=False
        )
    except Exception as error:  # of every kind for files that are damaged, as of a tokenizer
        raise not_loaded("model.model_name_or_path", name, error) from error
    return processor


def load_tokenizer(model: ModelConfig, reads: Reads = "words") -> PreTrainedTokenizerBase:
    """The run's tokenizer, with the tokens that its task needs. Where running text has no pad token
    of its own, eos pads.

    Raises BadInput, naming the key, if it cannot be found or used.
    """
    from transformers import AutoTokenizer

    needs = NEEDS[reads]
    name = model.tokenizer_name or model.model_name_or_path
    key = "model.tokenizer_name" if model.tokenizer_name else "model.model_name_or_path"
    check_is_there(key, name)
    options = {"add_prefix_space": True} if needs.words else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=model.revision, trust_remote_code=False, **options
        )
    except Exception as error:  # of every kind, KeyError too, for files that are damaged
        raise not_loaded(key, name, error) from error
    template = Path(name, "chat_template.jinja")
    if template.is_file() and (pointer := pointer_in(template)):
        what = f"a {pointer.tool} pointer: it stands in the place of the template"
        raise BadInput(Problem(str(template), what, f"fetch it (git {pointer.fetch})"))
    problems = []
    if needs.words and not tokenizer.is_fast:
        problems.append(
            Problem(
                key,
                f"{name} has only a slow tokenizer, which cannot tell words from tokens",
                "set model.tokenizer_name to one with a tokenizer.json",
            )
        )
    if not needs.words and tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    problems += [
        Problem(
            key,
            f"the tokenizer of {name} has no {token} token",
            f'add "{token}_token" to its tokenizer_config.json or name another one in '
            "model.tokenizer_name",
        )
        for token in needs.tokens
        if getattr(tokenizer, f"{token}_token_id") is None
    ]
    if problems:
        raise BadInput(problems)
    if needs.words:
        _read_words_as_text(tokenizer)
    return tokenizer


def processor_notes(processor: Processor) -> list[str]:
    """What a user should know of a processor that was loaded, one sentence each."""
    if not is_tokenizer(processor) or processor.pad_token_id != processor.eos_token_id:
        return []
    return [f"rows are padded with the eos token {processor.eos_token}: padding is no target"]


def _read_words_as_text(tokenizer: PreTrainedTokenizerBase) -> None:
    """Byte-level vocabularies spell a word with the space before it: words must come with one.

    Not every class heeds add_prefix_space, so what counts is what a lone word becomes. The change
    is part of the tokenizer and is saved with it.
    """
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    (first, *_) = tokenizer(["a"], is_split_into_words=True, add_special_tokens=False).tokens()
    if "ByteLevel" in str(backend.pre_tokenizer) and not first.startswith(BYTE_LEVEL_SPACE):
        space = normalizers.Prepend(" ")
        before = backend.normalizer
        backend.normalizer = space if before is None else normalizers.Sequence([before, space])


def check_vocabulary(processor: Processor, config: PretrainedConfig) -> None:
    """Raises BadInput if a token id of a tokenizer has no row in the model's embedding."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is None or not is_tokenizer(processor):
        return
    pad = config.get_text_config().pad_token_id
    if pad is not None and pad >= rows:
        what = f"pad_token_id {pad} of config.json is none of the model's {rows} ids"
        fix = "set model.config_overrides {pad_token_id: ...} to that of the tokenizer"
        raise BadInput(Problem("model.model_name_or_path", what, fix))
    token, highest = max(processor.get_vocab().items(), key=lambda each: each[1])
    if highest >= rows:  # ids may have holes: their number says nothing
        raise BadInput(
            Problem(
                "model.tokenizer_name",
                f"the tokenizer's token {token!r} has the id {highest}, the model's embedding "
                f"{rows} rows (ids up to {rows - 1})",
                "use the model's own tokenizer",
            )
        )
