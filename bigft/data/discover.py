"""Which files of a folder hold data, and which split each is: by their names."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.base import check_path
from bigft.data.formats.detect import SUFFIXES
from bigft.data.formats.files import COMPRESSED_SUFFIXES, data_suffix
from bigft.data.source import SPLITS

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "eval"),  # one of the latter two, whichever is missing
}
# Endings of a source and its target, beside those of languages.
SIDES = (("src", "tgt"), ("src", "trg"), ("source", "target"))
NO_DATA = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog|source|makefile|sha\d+sums|md5sums)\b"
    r"|.*\.(md|rst|html|pdf|yaml|yml|toml|py|sh|ipynb|bib|png|jpe?g|gif|webp|svg|zip|tar|tgz|lock)$",
    re.I,
)
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"
INNER = "data"  # the folder of a hub's data set that holds its files
SHOWN = 8


@dataclass(frozen=True)
class Found:
    """files: by split, in the order of SPLITS; in pairs where format is `parallel`.

    format: None where each file tells its own.  unused: names of files that may be data too.
    """

    files: Mapping[str, Sequence[str]]
    format: str | None = None
    unused: Sequence[str] = ()


def find_data(paths: Sequence[str]) -> Found:
    """The data of a folder, of a file to train on, or of several files of one or more splits.

    Raises BadInput that says what is missing, or which files could be meant.
    """
    for path in paths:
        if not Path(path).exists():
            check_path(path, directory=False)
    first = Path(paths[0])
    if len(paths) > 1:
        if folders := [path for path in paths if Path(path).is_dir()]:
            fix = "name one folder alone, or files"
            raise BadInput(Problem(folders[0], "a folder beside others", fix))
        files = [Path(path) for path in paths]
        return _sorted_out(files, str(first.parent), all_meant=True)
    if not first.is_dir() or (first / SAVED).is_file():
        return Found({"train": [paths[0]]})
    if (first / SAVED_SPLITS).is_file():
        return _saved_splits(first)
    files = _data_files(first)
    if not files and (first / INNER).is_dir():
        files = _data_files(first / INNER)
    if not files:
        raise BadInput(_no_files(first))
    return _sorted_out(files, paths[0], all_meant=False)


def split_of(name: str) -> str | None:
    """The split that the last word of a file's name tells; None if none does."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((WORDS[word] for word in reversed(words) if word in WORDS), None)


def _data_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and not NO_DATA.match(path.name)
    )


def _saved_splits(folder: Path) -> Found:
    try:
        names = json.loads((folder / SAVED_SPLITS).read_text(encoding="utf-8"))["splits"]
        of_name = [(str(name), split_of(str(name))) for name in names]
    except (ValueError, KeyError, TypeError) as error:
        found = f"no list of splits ({error})"
        raise BadInput(Problem(str(folder / SAVED_SPLITS), found, "save it again")) from error
    by_split = {split: [str(folder / name)] for name, split in of_name if split is not None}
    return _with_training(by_split, None, [name for name, split in of_name if not split], folder)


def _sorted_out(files: Sequence[Path], where: str, all_meant: bool) -> Found:
    """all_meant: whether each file was named by the user, and so is data."""
    by_split: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_split[split_of(path.name) or ""].append(path)
    unnamed = by_split.pop("", [])
    if not by_split:
        pairs = _pairs(unnamed)
        if len(unnamed) > 1 and not pairs and not all_meant:
            what = f"{len(unnamed)} files, none of them named for a split: {_listed(unnamed)}"
            fix = f"name the file to train on: bigft init {unnamed[0]}"
            raise BadInput(Problem(where, what, fix))
        by_split, unnamed = {"train": list(unnamed)}, []
    chosen: dict[str, Sequence[str]] = {}
    formats = set()
    for split, those in by_split.items():
        pairs = _pairs(those)
        formats.add("parallel" if pairs else None)
        kinds = {data_suffix(str(path)) for path in those}
        if len(kinds) > 1 and not pairs and not all_meant:
            what = f"files of several kinds for {split}: {_listed(those)}"
            fix = "name the files that are meant: bigft init FILE FILE"
            raise BadInput(Problem(where, what, fix))
        chosen[split] = list(map(str, pairs or those))
    if len(formats) > 1:
        what = "pairs of files for some splits, and other files for others"
        raise BadInput(Problem(where, what, "name the files that are meant: bigft init FILE FILE"))
    return _with_training(chosen, formats.pop(), [path.name for path in unnamed], Path(where))


def _with_training(
    named: Mapping[str, Sequence[str]], format: str | None, unused: Sequence[str], where: Path
) -> Found:
    by_split = dict(named)
    other = by_split.pop("eval", None)
    if other is not None:
        by_split["test" if "validation" in by_split else "validation"] = other
    if "train" not in by_split:
        splits = ", ".join(f"{split}: {_listed(files)}" for split, files in by_split.items())
        fix = f"name the file to train on: bigft init {next(iter(by_split.values()), ['FILE'])[0]}"
        raise BadInput(Problem(str(where), f"nothing to train on ({splits or 'no split'})", fix))
    ordered = {split: by_split[split] for split in SPLITS if split in by_split}
    return Found(ordered, format, unused)


def _pairs(files: Sequence[Path]) -> list[Path]:
    """source, target, source, target, ... where all files make such pairs, by endings that are
    languages or name the sides; else none."""
    from langcodes import tag_is_valid

    by_stem: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in files:
        ending = data_suffix(str(path))
        by_stem[path.name[: path.name.lower().rfind(ending)]][ending.removeprefix(".")] = path
    endings = {tuple(sorted(those)) for those in by_stem.values()}
    if len(endings) != 1 or len(ends := endings.pop()) != 2:
        return []
    is_known = tuple(ends) in SIDES
    if not is_known and any(f".{end}" in SUFFIXES or not tag_is_valid(end) for end in ends):
        return []
    return [those[end] for those in by_stem.values() for end in ends]


def _no_files(folder: Path) -> Problem:
    inner = sorted(path.name for path in folder.iterdir() if path.is_dir())
    images = any(re.search(r"\.(jpe?g|png|webp)$", path.name, re.I) for path in folder.glob("*/*"))
    if images:
        fix = "image-classification is not available yet"
        return Problem(str(folder), "folders of images, and no file of text", fix)
    if inner:
        fix = f"name one of them: bigft init {folder / inner[0]}"
        return Problem(str(folder), f"no data file, but folders: {_listed(inner)}", fix)
    known = ", ".join([*SUFFIXES, ".conll", *sorted(COMPRESSED_SUFFIXES)])
    return Problem(str(folder), "no data file in it", f"known are {known} and files of columns")


def _listed(files: Sequence[Path | str]) -> str:
    names = [Path(file).name for file in files]
    return ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
