"""Do stored weights fit the model that is to have them: what is refused, what is new, what is not
used. Both ways of loading decide by `check_fit`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.config.tag_names import usual_names
from bigft.models.heads.labels import Rows, label_parameters, labels_by_id
from bigft.models.heads.swap import base_model
from bigft.models.layers import body
from bigft.models.refusals import misnamed

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

GENERATES = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM")
POOLER = re.compile(r"(^|\.)pooler\.")  # stands in the body, but belongs to one of its heads
IN_REFUSAL, IN_NOTE = 3, 12  # names

Shapes = Mapping[str, tuple[list[int], list[int]]]
"""By name, the stored shape and that of the model, where they differ."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model's files fit it.

    notes: what a user should know of it, one sentence each.
    rows: the stored rows of a classifier's labels, where these are not the stored head's labels in
        their order.  None: the head is taken as it is stored, or none is.
    new: names of parameters that the files do not hold.
    """

    notes: tuple[str, ...] = ()
    rows: Rows | None = None
    new: tuple[str, ...] = ()


def fit_of(model: Any) -> Fit:
    """What `load_model` found in the model's files; nothing for one from scratch."""
    found: Fit = getattr(base_model(model), "bigft_fit", Fit())
    return found


def check_fit(
    model: PreTrainedModel,
    info: Mapping[str, Iterable[Any]],
    name: str,
    stored: PretrainedConfig,
    auto_class: str,
    is_cut: bool,
) -> Fit:
    """Whether all of the model is in the files, and all of the files in the model.

    The body must be. A head must be where the task goes on with what the files were made for: a
    language model that generates, a classifier of the same class with one of its labels, any other
    model of the same class. Elsewhere it may be new, and heads of other tasks are not used.

    info: transformers' loading info.  name: of the files.  stored: their config.  is_cut: weights
        without a place are those that the user's overrides of the config leave out.
    Raises BadInput, naming weights that are missing, have another shape, or have no place.
    """
    shapes = {key: (list(theirs), list(own)) for key, theirs, own in info["mismatched_keys"]}
    missing, unexpected = set(info["missing_keys"]), set(info["unexpected_keys"])
    is_classifier = auto_class.endswith("Classification")
    labels, stored_labels = labels_by_id(model.config), labels_by_id(stored)
    # Data that writes its tags otherwise is read as B-X and O, and so are the names of its models.
    spelled = (stored_labels, usual_names(stored_labels))
    stored_labels = max(spelled, key=lambda names: len({*labels}.intersection(names)))
    with_head = auto_class in GENERATES or (
        type(model).__name__ in (stored.architectures or ())
        and not (is_classifier and set(labels).isdisjoint(stored_labels))
    )
    rows = _rows(model, missing, shapes, labels, stored_labels) if is_classifier else None
    by_row: set[str] = set() if rows is None else {*label_parameters(model)}

    def belonging(keys: Iterable[str]) -> list[str]:
        return [key for key in _in_order(keys) if _belongs(model, key, with_head)]

    misfits = {
        "missing": belonging(missing),
        "of another shape": belonging(shapes.keys() - by_row),
        "without a place": [] if is_cut else belonging(unexpected),
    }
    problems = [
        Problem(
            "model.model_name_or_path",
            f"the weights of {name!r} do not fit its config: {_listed(keys, IN_REFUSAL)} ({how})",
            _fix(model, keys, auto_class),
        )
        for how, keys in misfits.items()
        if keys
    ]
    if problems:
        raise BadInput(misnamed(model, name, missing, unexpected) or problems)
    new = missing | (shapes.keys() - by_row)
    notes = [*_notes(new, unexpected, is_cut)]
    if rows is not None:
        notes.append(_rows_note(by_row, labels, stored_labels, rows))
    return Fit(tuple(notes), rows, tuple(_in_order(new)))


def _rows(
    model: PreTrainedModel,
    missing: Set[str],
    shapes: Shapes,
    labels: Sequence[str],
    stored_labels: Sequence[str],
) -> Rows | None:
    """See Fit.rows."""
    own = label_parameters(model)
    if not own or missing & own.keys():
        return None
    both = [shapes.get(key, (list(p.shape), list(p.shape))) for key, p in own.items()]
    if any(theirs[1:] != needed[1:] for theirs, needed in both):
        return None  # rows of another width are none for this head
    num_stored = both[0][0][0]
    if len(stored_labels) != num_stored:
        return [None] * len(labels)  # nobody knows which label a row is for
    row_of = {label: row for row, label in enumerate(stored_labels)}
    rows = [row_of.get(label) for label in labels]
    return None if rows == [*range(num_stored)] else rows


def _belongs(model: PreTrainedModel, key: str, with_head: bool) -> bool:
    """Whether the name, the model's or a stored one, is that of a weight of the body; with_head:
    of the body or the head. Poolers and the buffers of older versions are neither."""
    inner: Any = body(model)
    path = key if inner is model else key.removeprefix(f"{model.base_model_prefix}.")
    if POOLER.search(key):
        return False
    if path != key or path.partition(".")[0] in _parts(inner):
        return not _is_buffer(inner, path)
    return with_head and key.partition(".")[0] in _parts(model) and not _is_buffer(model, key)


def _parts(module: nn.Module) -> set[str]:
    """What names of the module's parameters begin with."""
    return {name.partition(".")[0] for name, _ in module.named_parameters(remove_duplicate=False)}


def _is_buffer(root: nn.Module, path: str) -> bool:
    """Whether a tensor of this name is a buffer: a module that has no parameter of its own, as
    attention has none beside its linear layers, can hold nothing else."""
    try:
        owner = root.get_submodule(path.rpartition(".")[0])
    except AttributeError:
        return False
    return next(owner.parameters(recurse=False), None) is None


# -- messages -----------------------------------------------------------------------------------


def _fix(model: PreTrainedModel, keys: Sequence[str], auto_class: str) -> str:
    if any(_belongs(model, key, with_head=False) for key in keys):
        return "give the config.json that belongs to the weights, or set model.from_scratch"
    fix = "name files that hold the whole head"
    if auto_class in GENERATES and not model.config.get_text_config().tie_word_embeddings:
        tie = "model.config_overrides {tie_word_embeddings: true}"
        fix += f", or set {tie} if the embeddings are the head"
    return fix


def _notes(new: Set[str], unused: Set[str], is_cut: bool) -> Iterator[str]:
    if new:
        names = _listed(_in_order(new))
        yield f"new, with random values, since the model's files hold none: {names}"
    if unused:
        what = (
            "what model.config_overrides leaves out" if is_cut else "other heads, poolers, buffers"
        )
        yield f"not used of the model's files ({what}): {_listed(_in_order(unused))}"


def _rows_note(
    weights: Set[str], labels: Sequence[str], stored_labels: Sequence[str], rows: Rows
) -> str:
    known = [label for label, row in zip(labels, rows, strict=True) if row is not None]
    new = [label for label, row in zip(labels, rows, strict=True) if row is None]
    unused = [label for label in stored_labels if label not in known]
    if not known:
        why = f"the stored head is for other labels ({_listed(unused)})"
        return f"new, with random values, since {why}: {_listed(_in_order(weights))}"
    share = f"{len(known)} of {len(labels)} are stored"
    parts = [f"the rows of the head follow the names of the labels: {share}"]
    if new:
        parts.append(f"new, with random values: {_listed(new)}")
    if unused:
        parts.append(f"stored and not used: {_listed(unused)}")
    return "; ".join(parts)


def _in_order(keys: Iterable[str]) -> list[str]:
    from transformers.core_model_loading import dot_natural_key

    return sorted(keys, key=dot_natural_key)


def _listed(names: Sequence[str], limit: int = IN_NOTE) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
