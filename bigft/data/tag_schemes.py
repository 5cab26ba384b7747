"""Tagging schemes of sequence labelling: which one a corpus uses, and its tags as BIO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum

from bigft.config.tag_names import OUTSIDE, PREFIXES

BOUNDARY = ""  # stands beside the first and the last tag of a sequence; no tag is empty


class Scheme(StrEnum):
    """NONE is a label set without prefixes: parts of speech, for example."""

    BIO = "BIO"  # also called IOB2
    IOB1 = "IOB1"  # B- only between two adjacent entities of one type
    IOBES = "IOBES"  # also called BIOES
    BILOU = "BILOU"
    BMES = "BMES"
    NONE = "none"


# A scheme's prefixes and what each means in the letters of IOBES. The order settles ties in
# detect_scheme: what fits several schemes is the first of them.
_ROLES: dict[Scheme, dict[str, str]] = {
    Scheme.BIO: {"B": "B", "I": "I"},
    Scheme.IOB1: {"B": "B", "I": "I"},
    Scheme.IOBES: {"B": "B", "I": "I", "E": "E", "S": "S"},
    Scheme.BILOU: {"B": "B", "I": "I", "L": "E", "U": "S"},
    Scheme.BMES: {"B": "B", "M": "I", "E": "E", "S": "S"},
}


def split_tag(tag: str) -> tuple[str, str]:
    """(prefix, type): ("B", "PER") for "B-PER", ("O", "") for "O", ("", "NOUN") for "NOUN".

    A type may hold hyphens: only the first one splits. A bare "B" is a prefix without a type.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, _, entity_type = tag.partition("-")
    return (prefix, entity_type) if prefix in PREFIXES else ("", tag)


def are_bio(labels: Iterable[str]) -> bool:
    """Whether the labels tell entities by BIO tags: all of them, so that B-cell among T-cell and
    NK-cell is a plain label."""
    prefixes = {split_tag(label)[0] for label in labels}
    return "B" in prefixes and prefixes <= {"B", "I", OUTSIDE}


def detect_scheme(sequences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme that the fewest words of a corpus violate; of equals the first in Scheme's order.

    NONE where tags without a prefix are at least as many as tags with prefix and type. Counting
    keeps a few wrong tags from deciding: a stray I- in a BIO corpus is a violation of BIO, not
    evidence for IOB1.

    Args:
        sequences: the tags of a whole training set; a single sentence rarely tells BIO from IOB1.
    """
    neighbourhoods: Counter[tuple[str, str, str]] = Counter()
    for tags in sequences:
        neighbourhoods.update(_neighbourhoods(tags))
    num_plain = num_typed = 0
    for (_, tag, _), count in neighbourhoods.items():
        prefix, entity_type = split_tag(tag)
        if prefix == "":
            num_plain += count
        elif entity_type:
            num_typed += count
    if num_plain and num_plain >= num_typed:
        return Scheme.NONE

    def num_violations(scheme: Scheme) -> int:
        return sum(count for near, count in neighbourhoods.items() if _fault(*near, scheme))

    return min(_ROLES, key=num_violations)


def scheme_violations(tags: Sequence[str], scheme: Scheme) -> list[tuple[int, str]]:
    """(index, why) for each word whose tag the scheme does not allow there; [] for NONE."""
    if scheme is Scheme.NONE:
        return []
    faults = ((index, _fault(*near, scheme)) for index, near in enumerate(_neighbourhoods(tags)))
    return [(index, why) for index, why in faults if why]


def to_bio(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """The same entities in BIO.

    A word that begins an entity under the lenient convention of conlleval gets B-, so violations
    lose no entity. BIO and NONE come back as they are, violations too, and so do tags that are not
    of the scheme.
    """
    if scheme in (Scheme.BIO, Scheme.NONE):
        return list(tags)
    roles = _ROLES[scheme]
    bio = []
    open_type: str | None = None
    for tag in tags:
        prefix, entity_type = split_tag(tag)
        role = roles.get(prefix)
        if role is None:
            bio.append(tag)
            open_type = None
            continue
        begins = role in "BS" or entity_type != open_type
        bio.append(("B" if begins else "I") + (f"-{entity_type}" if entity_type else ""))
        open_type = None if role in "ES" else entity_type
    return bio


def _neighbourhoods(tags: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    """(tag before, tag, tag after) for each word: all that decides whether a tag is allowed."""
    return zip([BOUNDARY, *tags], tags, [*tags[1:], BOUNDARY], strict=False)


def _fault(before: str, tag: str, after: str, scheme: Scheme) -> str:
    """Why `tag` may not stand between its neighbours; "" if it may."""
    roles = _ROLES[scheme]
    prefix, entity_type = split_tag(tag)
    if prefix == OUTSIDE:
        return ""
    if tag.endswith("-") and not entity_type:
        return f"{tag!r} names no type"
    if prefix not in roles:
        return f"{tag!r} is no tag of {scheme}: O, {', '.join(f'{name}-' for name in roles)}"
    left = f"after {before!r}" if before else "at the beginning"
    right = f"before {after!r}" if after else "at the end"
    continues = _joined(before, tag, scheme)
    if scheme is Scheme.IOB1:
        if roles[prefix] == "B" and not continues:
            return f"{tag!r} separates no entities of its type {left}"
        return ""
    if roles[prefix] in "IE" and not continues:
        return f"{tag!r} continues no entity {left}"
    must_go_on = "E" in roles.values() and roles[prefix] in "BI"
    if must_go_on and not (_joined(tag, after, scheme) and roles[split_tag(after)[0]] in "IE"):
        return f"the entity of {tag!r} is not ended {right}"
    return ""


def _joined(left: str, right: str, scheme: Scheme) -> bool:
    """Whether `left` leaves an entity open that has the type of `right`."""
    roles = _ROLES[scheme]
    left_prefix, left_type = split_tag(left)
    right_prefix, right_type = split_tag(right)
    open_after_left = roles.get(left_prefix) in ("B", "I")
    return open_after_left and right_prefix in roles and left_type == right_type
