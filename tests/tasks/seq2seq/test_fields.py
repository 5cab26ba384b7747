"""Which fields of a record are the source and the target."""

from __future__ import annotations

from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.config.sections import DataConfig, RunConfig
from bigft.data.records import Record
from bigft.tasks.seq2seq.fields import columns, pairs


def read(*rows: dict[str, Any], **keys: Any) -> list[tuple[str, str]]:
    config = RunConfig.model_validate(
        {
            "task": {
                "name": "seq2seq",
                **{key: keys.pop(key) for key in ("source_lang", "target_lang") if key in keys},
            },
            "model": {"model_name_or_path": "unused"},
            "data": keys,
            "train": {"output_dir": "unused"},
        }
    )
    records = [Record(at, row, "train.jsonl", at + 1) for at, row in enumerate(rows)]
    found = list(pairs(iter(records), config))
    assert [record.index for record in found] == list(range(len(rows)))
    assert all(list(record.fields) == ["source", "target"] for record in found)
    return [(record.fields["source"], record.fields["target"]) for record in found]


def refusal(*rows: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(BadInput) as caught:
        read(*rows, **keys)
    return str(caught.value)


def test_source_and_target_need_no_columns() -> None:
    assert read({"id": 7, "target": "b", "source": "a"}) == [("a", "b")]


def test_named_columns_win() -> None:
    row = {"document": "long", "summary": "short", "source": "web"}
    keys = {"text_column_name": "document", "label_column_name": "summary"}
    assert read(row, **keys) == [("long", "short")]


def test_numbers_name_the_columns_of_a_table() -> None:
    row = {"0": "hello", "1": "TAB", "2": "hallo"}
    assert read(row, text_column_name=2, label_column_name=0) == [("hallo", "hello")]


@pytest.mark.parametrize(
    ("source", "target"),
    [("en", "zh"), ("en_XX", "zh_CN"), ("en-GB", "zh-Hans"), ("eng_Latn", "zho_Hans")],
)
def test_translations_are_found_by_language(source: str, target: str) -> None:
    row = {"id": "1", "translation": {"zh": "你好", "en": "hello", "de": "hallo"}}
    assert read(row, source_lang=source, target_lang=target) == [("hello", "你好")]


def test_the_exact_language_is_found_first() -> None:
    row = {"translation": {"en": "hello", "zh": "?", "zh_TW": "!"}}
    assert read(row, source_lang="en", target_lang="zh_TW") == [("hello", "!")]


@pytest.mark.parametrize(("source", "target"), [("en", "zh"), ("en_XX", "cmn")])
def test_data_may_spell_languages_as_tokenizers_do(source: str, target: str) -> None:
    row = {"translation": {"zho_Hans": "你好", "eng_Latn": "hello", "deu_Latn": "hallo"}}
    assert read(row, source_lang=source, target_lang=target) == [("hello", "你好")]


def test_languages_of_a_translation_may_be_named_as_columns() -> None:
    row = {"id": "7", "translation": {"pt_BR": "oi", "pt_PT": "ola", "en": "hello"}}
    named = {"text_column_name": "en", "label_column_name": "pt_PT"}
    codes = {"source_lang": "en_XX", "target_lang": "pt_XX"}
    assert read(row, **named, **codes) == [("hello", "ola")]
    assert read(row, label_column_name="pt_BR", **codes) == [("hello", "oi")]


ROW = {"translation": {"en": "hello", "de": "hallo"}}


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        (
            ROW,
            {"source_lang": "en"},
            "task.target_lang: translations into 'en', 'de', but which is the target?; "
            "name its language",
        ),
        (
            ROW,
            {"source_lang": "en", "target_lang": "dk"},
            "train.jsonl:1: no translation in 'dk' (the target); "
            "there are 'en', 'de': set task.target_lang, or name one in data.label_column_name",
        ),
        (
            {"translation": {"pt_BR": "oi", "pt_PT": "ola", "en": "hello"}},
            {"source_lang": "en_XX", "target_lang": "pt_XX"},
            "train.jsonl:1: 'pt_XX' (the target) may be 'pt_BR' or 'pt_PT'; "
            "name one in data.label_column_name",
        ),
        (
            ROW,
            {"text_column_name": "en", "label_column_name": "da"},
            "train.jsonl:1: no field 'da' (the target); there are en, de, translation; "
            "set data.label_column_name to one of these",
        ),
        (
            {"source": "a", "targte": "b"},
            {},
            "train.jsonl:1: no field 'target' (the target); there are source, targte; "
            "did you mean targte?",
        ),
        (
            {"document": "a"},
            {"text_column_name": "document", "label_column_name": "summary"},
            "train.jsonl:1: no field 'summary' (the target); there are document; "
            "set data.label_column_name to one of these",
        ),
        (
            {"0": "a"},
            {"text_column_name": 0, "label_column_name": 1},
            "train.jsonl:1: no field '1' (the target); there are 0; "
            "set data.label_column_name to one of these",
        ),
        (
            {"source": "a", "target": " \t"},
            {},
            "train.jsonl:1: the target is empty; remove the line, or write a text",
        ),
        (
            {"source": "", "target": "b"},
            {},
            "train.jsonl:1: the source is empty; remove the line, or write a text",
        ),
        (
            {"source": ["a"], "target": "b"},
            {},
            'train.jsonl:1: the source is no string but ["a"]; write a text',
        ),
        (
            {"source": "a", "target": None},
            {},
            "train.jsonl:1: the target is no string but null; write a text",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_at_its_line(
    row: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    assert refusal(row, **keys) == message


def test_all_bad_lines_are_told_at_once_and_of_many_the_first() -> None:
    good, bad = {"source": "a", "target": "b"}, {"source": "a", "target": ""}
    lines = refusal(good, bad, good, bad).splitlines()
    assert [line.split(": ")[0].strip("- ") for line in lines] == ["train.jsonl:2", "train.jsonl:4"]
    many = refusal(*[bad] * 50)
    assert many.count("the target is empty") == 1
    assert "(19 more alike: train.jsonl:2, " in many
    assert "... and more" in many


@pytest.mark.parametrize(
    ("keys", "used"),
    [
        ({}, {"source", "target", "translation"}),
        ({"text_column_name": "document", "label_column_name": 1}, {"document", "1"}),
        ({"label_column_name": "summary"}, {"source", "summary"}),
    ],
)
def test_the_fields_that_may_be_taken_are_those_named_or_the_usual(
    keys: dict[str, Any], used: set[str]
) -> None:
    assert columns(DataConfig.model_validate(keys)) == used
