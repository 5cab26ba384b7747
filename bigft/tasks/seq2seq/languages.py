"""Which codes name the same language, and in which script it is written.

Tokenizers and data sets spell codes as they like: en, en_XX, eng_Latn, __en_XX__. What they mean is
for langcodes to say, which knows ISO 639, ISO 15924 and CLDR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from langcodes import Language
from langcodes.tag_parser import LanguageTagError

NO_REGION = "XX"  # of fairseq's codes: en_XX


class _Tag(NamedTuple):
    """language: ISO 639-1 where it has a code there.  script: ISO 15924, what the language is
    usually written in where the code does not say.  bare: the code says a language and no more."""

    language: str
    script: str | None
    region: str | None
    bare: bool


# From the nearest on; the first that holds for any name decides.
NEAR: tuple[Callable[[_Tag, _Tag], bool], ...] = (
    lambda wanted, tag: wanted[:3] == tag[:3],
    lambda wanted, tag: wanted[:2] == tag[:2] and tag.bare,
    lambda wanted, tag: wanted[:2] == tag[:2],
    lambda wanted, tag: wanted.language == tag.language and (wanted.bare or tag.bare),
)


def matching(code: str, names: Iterable[str]) -> list[str]:
    """The names that mean the code's language, the nearest only: one, none, or several that are
    as near as each other."""
    names, wanted = list(names), _tag(code)
    found = [name for name in names if _spelling(name) == _spelling(code)]
    if found or wanted is None:
        return found
    tags = {name: tag for name in names if (tag := _tag(name)) is not None}
    for near in NEAR:
        if found := [name for name, tag in tags.items() if near(wanted, tag)]:
            break
    return found


def script_of(code: str) -> str | None:
    """The script that the code names or that its language is usually written in; None: no code."""
    tag = _tag(code)
    return None if tag is None else tag.script


def _spelling(code: str) -> str:
    return code.strip("_<>").replace("-", "_").casefold()


def _tag(code: str) -> _Tag | None:
    try:
        tag = Language.get(_spelling(code))
    except LanguageTagError:
        return None
    region = None if tag.territory == NO_REGION else tag.territory
    plain = Language.make(tag.language, script=tag.script, territory=region)
    if tag.extlangs or tag.variants or not plain.is_valid():  # eng_Lat is a slip, and so is jp
        return None
    language = tag.prefer_macrolanguage().language or ""
    language = {"nb": "no"}.get(language, language)  # what is Norwegian and no more is Bokmål
    return _Tag(language, tag.maximize().script, region, plain.script is None and region is None)
