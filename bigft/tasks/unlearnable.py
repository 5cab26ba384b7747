"""What leaves nothing of a record to learn, or to learn it from: a note where it is so of some
records, a refusal where it is so of the whole training set."""

from __future__ import annotations

from collections.abc import Iterator

from bigft.config.errors import Problem
from bigft.data.split import PreparedSplit

NO_TEXT = "learn nothing that their answers say: the chat template writes none of it"
NO_TOKEN = "learn no letter of their targets: the tokenizer has no token for any of them"
NO_INPUT = "hold no letter that the tokenizer has a token for"
UNKNOWN_INPUT = "hold characters that the tokenizer has no token for: the model does not see them"
# Note -> key, what is wrong, how to fix it.
OF_ALL = {
    NO_TEXT: (
        "data.chat_template",
        "the chat template writes nothing of what the answers say: only the marks around them "
        "could be learnt",
        "name a template that writes a message's content where it is a string (one for images or "
        "sound may want a list of parts)",
    ),
    NO_TOKEN: (
        "model.model_name_or_path",
        "the tokenizer has no token for any letter of the targets: only unknown tokens could be "
        "learnt",
        "choose a model whose tokenizer knows the script of the targets",
    ),
    NO_INPUT: (
        "model.model_name_or_path",
        "the tokenizer has no token for any letter of the texts: the model would see unknown "
        "tokens only",
        "choose a model whose tokenizer knows the script of the texts",
    ),
}


def unlearnable(train: PreparedSplit) -> Iterator[Problem]:
    """Why no record of the training set teaches anything, if none does."""
    notes = train.notes()
    for note, (key, what, fix) in OF_ALL.items():
        count, first = notes.get(note, (0, None))
        if first is not None and count == train.num_records:
            where = f"in all {count} records of train (first {first.where})"
            yield Problem(key, f"{what}, {where}", fix)
