"""What every reader of a file format shares: options, rows, and lines of checked text."""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.files import check_file, open_data

Columns: TypeAlias = str | int | tuple[str | int, ...] | None

MAX_PROBLEMS = 20  # per file: enough to see a pattern, few enough to read
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read the files of one split; the names are those of the config's `data` section.

    format: a key of FORMATS, or "auto".
    text_column_name, label_column_name: a field's name or a column's 0-based number, or several;
        None means the format's default (CoNLL: first and last; CoNLL-U: form and upos).
    sample_by: what one sample of a plain text is: "line", "paragraph" or "document".
    of_words: whether "auto" may find a CoNLL file; without, such a file is a table or a text.
    max_samples: read no more than so many records; None reads all.
    key: of a JSON object, under which its rows stand; None: "data".
    columns: the fields that the task may use; None: any. A table's others need not be readable.
    """

    format: str = "auto"
    text_column_name: Columns = None
    label_column_name: Columns = None
    sample_by: str = "line"
    of_words: bool = True
    max_samples: int | None = None
    columns: frozenset[str] | None = None
    key: str | None = None

    def uses(self, column: str) -> bool:
        return self.columns is None or column in self.columns

    def asked(self) -> list[tuple[str, str | int]]:
        """The columns that the config names, each with its option."""
        named = {name: getattr(self, name) for name in ("text_column_name", "label_column_name")}
        return [(option, column) for option, value in named.items() for column in several(value)]


def several(value: Columns) -> tuple[str | int, ...]:
    """The columns, one or several or none, as a tuple."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


class RawRow(NamedTuple):
    """line: 1-based, where the row begins.  fields: column name -> value.

    notes: as of `Record`.  file: the one in a folder that it stands in; "": the file that is read.
    """

    line: int
    fields: dict[str, Any]
    notes: tuple[str, ...] = ()
    file: str = ""


Reader: TypeAlias = Callable[..., Iterator[RawRow | Problem]]
"""reader(path, options), of a format of file pairs reader(source, target, options).

Yields the rows, and a Problem in place of what it cannot read; holds a few rows at a time.

Raises BadInput where nothing of the file can be read.
"""


def text_lines(path: str) -> Iterator[tuple[int, str] | Problem]:
    """(1-based number, text without its line end) per line of a UTF-8 file, read as a stream and
    decompressed where it is compressed.

    Only LF and CRLF end a line: U+2028 and its like occur inside of tokens.
    """
    offset = 0
    with open_data(path) as file:
        for number, raw in enumerate(file, 1):
            where = f"{path}:{number}"
            if number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                yield Problem(where, "UTF-16", "save it as UTF-8")
                return
            if number == 1 and raw.startswith(BYTE_ORDER_MARK):
                yield Problem(where, "a byte order mark (BOM)", "save it as UTF-8 without BOM")
            elif b"\0" in raw:
                found = f"a NUL byte at byte {offset + raw.index(0)} of the file"
                yield Problem(where, found, "save it as UTF-8 text")
            else:
                try:
                    yield number, raw.decode().removesuffix("\n").removesuffix("\r")
                except UnicodeDecodeError as error:
                    found = f"byte {offset + error.start} of the file"
                    found += f" (0x{raw[error.start]:02x}) is not UTF-8"
                    yield Problem(where, found, "save it as UTF-8")
            offset += len(raw)


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """The fix that names the nearest of `names`; "" where none is near."""
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {nearest[0]}?" if nearest else ""


def check_path(path: str, *, directory: bool) -> None:
    """Raises BadInput unless `path` is a directory (or a file of data).

    It names what lies nearby.
    """
    place = Path(path)
    if not place.exists():
        raise BadInput(Problem(path, "no such file", _nearest_path(place)))
    if directory and not place.is_dir():
        fix = "name the directory that `save_to_disk` wrote (datasets), or that holds a folder for "
        fix += "each label (textfolder), or set another data.format"
        raise BadInput(Problem(path, "a file, but this data.format is a directory", fix))
    if not directory and place.is_dir():
        names = [child.name for child in sorted(place.iterdir()) if child.is_file()]
        data = [name for name in names if not name.startswith(".") and not name.endswith(".md")]
        fix = f"name a file in it, such as {data[0]}" if data else "name its files"
        fix += ", or a data set's whole directory as data.dataset_name"
        raise BadInput(Problem(path, "a directory, not a file", fix))
    if not directory:
        check_file(path)


def _nearest_path(place: Path) -> str:
    parent = place.parent
    if not parent.is_dir():
        return f"there is no directory {parent} either"
    fix = did_you_mean(place.name, sorted(child.name for child in parent.iterdir()))
    return fix or f"its directory {parent} exists"


def capped(problems: Sequence[Problem], where: str) -> list[Problem]:
    """The first MAX_PROBLEMS, and a line that says so if there are more."""
    shown = list(problems[:MAX_PROBLEMS])
    if len(problems) > MAX_PROBLEMS:
        shown.append(Problem(where, f"... and more; these are the first {MAX_PROBLEMS} problems"))
    return shown
