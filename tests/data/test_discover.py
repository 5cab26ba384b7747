"""Which files of a folder are which split, by their names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigft.config.errors import BadInput
from bigft.data.discover import Found, find_data, split_of


def folder(*names: str) -> str:
    for name in names:
        path = Path("set") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return "set"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("Train.CSV", "train"),
        ("wnut17train.conll", "train"),
        ("zh_gsdsimp-ud-dev.iob2", "validation"),
        ("devel.tsv", "validation"),
        ("emerging.test.annotated", "test"),
        ("train-00000-of-00002.parquet", "train"),
        ("eval.json", "eval"),
        ("restrain.txt", None),
        ("latest.jsonl", None),
        ("contest.conll", None),
    ],
)
def test_a_word_of_the_name_tells_the_split(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["only.jsonl"], {"train": ["only.jsonl"]}),
        (["train.a", "train-2.a", "dev.a"],
         {"train": ["train-2.a", "train.a"], "validation": ["dev.a"]}),
        (["train.a", "eval.a"], {"train": ["train.a"], "validation": ["eval.a"]}),
        (["train.a", "dev.a", "eval.a"],
         {"train": ["train.a"], "validation": ["dev.a"], "test": ["eval.a"]}),
        (["data/train.a", "README.md"], {"train": ["data/train.a"]}),
        (["a.en", "a.fr"], {"train": ["a.en", "a.fr"]}),
        (["train.src", "train.tgt"], {"train": ["train.src", "train.tgt"]}),
        (["train.en.gz", "train.fr.gz"], {"train": ["train.en.gz", "train.fr.gz"]}),
    ],
)  # fmt: skip
def test_files_of_a_folder(here: Path, names: list[str], files: dict[str, list[str]]) -> None:
    found = find_data([folder(*names)])
    assert found.files == {
        split: [f"set/{name}" for name in inner] for split, inner in files.items()
    }
    ends = {tuple(name.split(".")[1] for name in inner) for inner in files.values()}
    assert (found.format == "parallel") == (ends <= {("en", "fr"), ("src", "tgt")})


def test_what_has_no_splits_name_is_left_out_where_others_have_one(here: Path) -> None:
    found = find_data([folder("train.csv", "categories.json", "LICENSE", "SHA256SUMS", ".hidden")])
    assert found == Found({"train": ["set/train.csv"]}, None, ["categories.json"])


def test_files_that_are_named_are_all_meant(here: Path) -> None:
    folder("a.jsonl", "b.jsonl", "dev.jsonl")
    assert find_data(["set/a.jsonl"]).files == {"train": ["set/a.jsonl"]}
    assert find_data(["set/dev.jsonl"]).files == {"train": ["set/dev.jsonl"]}
    both = find_data(["set/a.jsonl", "set/b.jsonl"])
    assert both.files == {"train": ["set/a.jsonl", "set/b.jsonl"]}
    assert both.format is None


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.jsonl", "b.jsonl"],
         "set: 2 files, none of them named for a split: a.jsonl, b.jsonl; name the file to train "
         "on: bigft init set/a.jsonl"),
        (["dev.jsonl", "test.jsonl"],
         "set: nothing to train on (validation: dev.jsonl, test: test.jsonl); name the file to "
         "train on: bigft init set/dev.jsonl"),
        (["train.csv", "train.json"],
         "set: files of several kinds for train: train.csv, train.json; name the files that are "
         "meant: bigft init FILE FILE"),
        (["train.en", "train.fr", "dev.csv"],
         "set: pairs of files for some splits, and other files for others; name the files that "
         "are meant: bigft init FILE FILE"),
        (["en/train.tsv", "zh/train.tsv"],
         "set: no data file, but folders: en, zh; name one of them: bigft init set/en"),
        (["cat/1.JPG", "dog/1.JPG"],
         "set: folders of images, and no file of text; image-classification is not available yet"),
        (["README.md"],
         "set: no data file in it; known are .json, .jsonl, .ndjson, .conllu, .conllup, .parquet, "
         ".csv, .tsv, .txt, .conll, .bz2, .gz, .xz, .zst and files of columns"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(here: Path, names: list[str], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        find_data([folder(*names)])
    assert str(refused.value) == said


def test_texts_are_no_pair_for_a_suffix_that_is_a_languages_code_too(here: Path) -> None:
    folder("a.txt", "a.en")
    assert find_data(["set/a.txt", "set/a.en"]).format is None


def test_a_folder_stands_alone(here: Path) -> None:
    folder("a.txt")
    Path("b.txt").touch()
    with pytest.raises(BadInput, match="set: a folder beside others; name one folder alone"):
        find_data(["b.txt", "set"])
