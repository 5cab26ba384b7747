"""How a corpus writes its tags: PER-B, B_PER, b-per; recognised, and rewritten as B-PER."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from bigft.config.tag_names import OUTSIDE, OUTSIDE_NAMES, SPELLINGS, usual_name
from bigft.data.tag_schemes import Scheme, detect_scheme, scheme_violations, split_tag

BRACKETS = re.compile(r"\([^()*]+\*?\)*|\*\)+")  # (PER* and *) of CoNLL-2005 and 2012
OUTSIDE_LETTERS = frozenset({"o", "0"})  # an O mistyped; beside an O the other names may be types
# Of the words with a type. Plain labels that only look like tags (E_coli, S_aureus) break every
# scheme at most of their words; five published corpora break their own at none.
MAX_BROKEN_SHARE = 0.1
SHOWN = 5  # labels that a note names


class Tagging(NamedTuple):
    """How a training set writes its tags; every split of its run is read so.

    spelling: one of SPELLINGS; None: as bigft.data.tag_schemes reads them.
    """

    scheme: Scheme
    spelling: str | None = None

    @classmethod
    def of(cls, values: Sequence[Any] | None) -> Tagging | None:
        """What JSON made of one."""
        return None if values is None else cls(Scheme(values[0]), values[1])

    def __str__(self) -> str:
        return f"{self.scheme}" if self.spelling is None else f"{self.scheme} in {self.spelling}"


def detect_tagging(sequences: Sequence[Sequence[str]]) -> Tagging:
    """The scheme, and the spelling where B-X and O are written otherwise.

    Another spelling must read every label, two with a type at least where the tags keep no scheme
    as they are, and the tags must then keep one but for MAX_BROKEN_SHARE. What is in no spelling is
    plain: the scheme "none".

    Args:
        sequences: the tags of a whole training set.
    """
    scheme = detect_scheme(sequences)
    counts = Counter(tag for tags in sequences for tag in tags)
    if scheme is not Scheme.NONE and not _outside_otherwise(counts):
        return Tagging(scheme)
    best, least = Tagging(scheme), MAX_BROKEN_SHARE
    num_types = 2 if scheme is Scheme.NONE else 1
    for spelling in SPELLINGS:
        read = {tag: usual_name(tag, spelling) for tag in counts}
        typed = {tag for tag in read.values() if tag not in (None, OUTSIDE)}
        if None in read.values() or len(typed) < num_types:
            continue
        usual = [respelled(tags, spelling) for tags in sequences]
        scheme = detect_scheme(usual)
        num_broken = sum(len(scheme_violations(tags, scheme)) for tags in usual)
        share = num_broken / sum(count for tag, count in counts.items() if read[tag] != OUTSIDE)
        if share < least:
            best, least = Tagging(scheme, spelling), share
    return best


def respelled(tags: Iterable[str], spelling: str | None) -> list[str]:
    """The tags as B-X and O; those that are not of this spelling stay as they are."""
    if spelling is None:
        return list(tags)
    return [usual_name(tag, spelling) or tag for tag in tags]


def _outside_otherwise(labels: Collection[str]) -> bool:
    """Whether tags of a scheme have another name for what is outside of entities."""
    names = {label for label in labels if label.lower() in OUTSIDE_NAMES} - {OUTSIDE}
    return bool(names) and (OUTSIDE not in labels or names <= OUTSIDE_LETTERS)


def tagging_notes(tagging: Tagging, sequences: Iterable[Sequence[str]]) -> list[str]:
    """How a training set's labels were understood, where that needs a word: in another spelling,
    as different ones that differ in case only, or as plain labels, of which one names what is
    outside of entities or looks like a tag, or which are one label only."""
    labels = sorted({tag for tags in sequences for tag in tags})
    read = respelled(labels, tagging.spelling)
    notes = _case_notes(set(read))
    if tagging.spelling is not None:
        changed = [f"{a} as {b}" for a, b in zip(labels, read, strict=True) if a != b]
        return [f"{len(changed)} of {len(labels)} labels are respelled: {_listed(changed)}", *notes]
    return notes + _plain_notes(tagging, labels)


def _case_notes(labels: Collection[str]) -> list[str]:
    alike: dict[str, list[str]] = {}
    for label in sorted({split_tag(label)[1] for label in labels}):
        alike.setdefault(label.lower(), []).append(label)
    differing = [name for names in alike.values() if len(names) > 1 for name in names]
    if not differing:
        return []
    return [f"labels that differ in case only are different ones: {_listed(differing)}"]


def _plain_notes(tagging: Tagging, labels: list[str]) -> list[str]:
    if len(labels) == 1 and labels != [OUTSIDE]:
        return [f"every label of the training set is {labels[0]!r}: there is nothing to tell apart"]
    outside = [name for name in labels if name.isalnum() and name.lower() in OUTSIDE_NAMES]
    tags = [name for name in labels if _looks_like_a_tag(name) or BRACKETS.fullmatch(name)]
    if tagging.scheme is not Scheme.NONE or not (outside or tags):
        return []
    note = f"the {len(labels)} labels are read as plain ones ({_listed(labels)})"
    if tags:
        note += f", {len(tags)} of them in the form of a tag ({_listed(tags)})"
    note += ": words are scored, not entities; if entities are meant, write all labels as "
    return [note + f"{OUTSIDE}, B-X and I-X"]


def _looks_like_a_tag(label: str) -> bool:
    return any(usual_name(label, spelling) not in (None, OUTSIDE) for spelling in SPELLINGS)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
