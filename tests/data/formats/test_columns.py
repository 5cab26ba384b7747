"""CoNLL and CoNLL-U: what is a token, what separates, what is a comment; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, read_records
from bigft.data.records import Record

Write = Callable[[str], str]


@pytest.fixture
def conll(tmp_path: Path) -> Write:
    """Writes its text to a file, byte for byte, and gives the path."""

    def write(text: str, name: str = "a.conll") -> str:
        (tmp_path / name).write_bytes(text.encode())
        return str(tmp_path / name)

    return write


def read(path: str, **options: Any) -> list[Record]:
    return read_records([path], ReadOptions(**options))


def sentences(path: str, **options: Any) -> list[list[str]]:
    return [record.fields["tokens"] for record in read(path, **options)]


def refusal(path: str, **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        read(path, **options)
    return str(caught.value).splitlines()


def test_first_column_is_the_token_and_last_the_label(conll: Write) -> None:
    (record,) = read(conll("EU NNP B-ORG\nrejects VBZ O\n"))
    assert record.fields == {
        "tokens": ["EU", "rejects"],
        "ner_tags": ["B-ORG", "O"],
        "lines": [1, 2],
    }


def test_columns_may_be_given_by_number(conll: Write) -> None:
    path = conll("1\tEU\tB-ORG\t-\tx\n2\tsays\tO\t-\tx\n")
    (record,) = read(path, text_column_name=1, label_column_name=2)
    assert record.fields["tokens"] == ["EU", "says"]
    assert record.fields["ner_tags"] == ["B-ORG", "O"]


def test_a_record_begins_in_the_line_of_its_first_token(conll: Write) -> None:
    records = read(conll("\n\na O\nb O\n\n# key = value\nc O\n"))
    assert [(record.index, record.line) for record in records] == [(0, 3), (1, 7)]


@pytest.mark.parametrize("blank", ["", "\t", " ", " \t ", "\r"])
def test_a_line_of_white_space_ends_a_sentence(conll: Write, blank: str) -> None:
    assert sentences(conll(f"a\tO\n{blank}\nb\tO\n")) == [["a"], ["b"]]


@pytest.mark.parametrize("space", ["\u00a0", "\u200b", "\u3000", "\u2028", "\x85", "\x1c", " "])
def test_other_spaces_within_a_token_stay_there(conll: Write, space: str) -> None:
    token = f"a{space}b"
    assert sentences(conll(f"{token}\tO\n")) == [[token]]
    if space != " ":
        assert sentences(conll(f"{token} O\n")) == [[token]]


def test_a_run_of_spaces_is_one_separator(conll: Write) -> None:
    (record,) = read(conll("EU     B-ORG \nrejects O\n"))
    assert record.fields["ner_tags"] == ["B-ORG", "O"]


def test_an_empty_token_keeps_its_place(conll: Write) -> None:
    assert sentences(conll("a\tO\n\tO\n \tO\n")) == [["a", "", " "]]


def test_document_starts_are_breaks(conll: Write) -> None:
    assert sentences(conll("-DOCSTART- -X- O\na x O\n-DOCSTART- -X- O\nb x O\n")) == [["a"], ["b"]]


@pytest.mark.parametrize("between", ["\t", " "])
def test_a_hash_with_a_label_is_a_token(conll: Write, between: str) -> None:
    path = conll("#_O\n#tag_B-X\n\na_O\n#_O\n".replace("_", between))
    assert sentences(path) == [["#", "#tag"], ["a", "#"]]


@pytest.mark.parametrize("between", ["\t", " "])
def test_a_comment_ahead_of_a_sentence_is_skipped(conll: Write, between: str) -> None:
    path = conll(
        "# sent_id = x 1\n# text = a b\na@O\nb@O\n\n# sent_id = 2\nc@O\n".replace("@", between)
    )
    assert sentences(path) == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    "text",
    [
        "#begin document (a/b); part 000\na _ _ O\n\nb _ _ O\n\n#end document\n",  # CoNLL-2012
        "# id 5239d808-f300 domain=en\na _ _ O\n\n# id 77 domain=en\nb _ _ O\n",  # MultiCoNER
        "#\thttp://de.example.org/x [2009-10-17]\n1\ta\tO\tO\n\n#\thttp://b [x]\n1\tb\tO\tO\n",
    ],
)
def test_what_corpora_write_ahead_of_a_sentence_is_no_token(conll: Write, text: str) -> None:
    columns = {"text_column_name": 1, "label_column_name": 2} if "\t" in text else {}
    assert sentences(conll(text), **columns) == [["a"], ["b"]]


def test_a_comment_within_a_sentence_is_a_forgotten_empty_line(conll: Write) -> None:
    (line,) = refusal(conll("a\tO\n# sent_id = 2\nb\tO\n"))
    assert "a.conll:2: 1 column where the file has 2: '# sent_id = 2'; " in line
    assert line.endswith("write 2 with a TAB between, and an empty line after a sentence")


def test_a_token_without_its_label_is_no_comment(conll: Write) -> None:
    (line,) = refusal(conll("a\tO\n\n#tag\n"))
    assert "a.conll:3: 1 column where the file has 2: '#tag'" in line


def test_a_missing_tab_does_not_make_a_label_of_a_word(conll: Write) -> None:
    (line,) = refusal(conll("a\tO\nNew York\n"))
    assert "a.conll:2: 1 column where the file has 2: 'New York'" in line


def test_line_ends_may_be_crlf(conll: Write) -> None:
    (first, second) = read(conll("a\tO\r\nb\tB-X\r\n\r\nc\tO"))
    assert first.fields["ner_tags"] == ["O", "B-X"]
    assert second.fields["tokens"] == ["c"]


def test_a_lone_carriage_return_is_refused(conll: Write) -> None:
    (line,) = refusal(conll("a O\rb O\n"))
    assert line.endswith("a.conll:1: a carriage return within the line; end lines with LF or CRLF")


def test_a_file_of_one_column_has_no_labels(conll: Write) -> None:
    (record,) = read(conll("#\nhello\n"))
    assert record.fields == {"tokens": ["#", "hello"], "lines": [1, 2]}


def test_numbered_tokens_ask_for_the_columns(conll: Write) -> None:
    path = conll("# sent_id = 1\n1\tEU\tB-ORG\t-\tx\n2\tsays\tO\t-\tx\n")
    (line,) = refusal(path)
    assert line.endswith(
        "the first of 5 columns seems to number the tokens; set data.text_column_name and "
        "data.label_column_name (0 is the first column)"
    )
    assert sentences(path, text_column_name=0) == [["1", "2"]]


@pytest.mark.parametrize("column", [2, -1])
def test_column_numbers_outside_of_the_file_are_refused(conll: Write, column: int) -> None:
    (line,) = refusal(conll("a\tO\n"), label_column_name=column)
    assert line.endswith(
        f"data.label_column_name: column {column} of a file of 2 columns; "
        "write a number from 0 to 1"
    )


def test_one_column_cannot_be_text_and_label(conll: Write) -> None:
    (line,) = refusal(conll("a\tO\n"), text_column_name=1)
    assert "text and label are both column 1 of 2; set data.text_column_name and" in line


def test_a_name_for_a_file_without_names_is_refused(conll: Write) -> None:
    (line,) = refusal(conll("a\tO\n"), label_column_name="ner")
    assert line.endswith(
        "data.label_column_name: 'ner', but this file names no columns; write a number from 0 to 1"
    )


# -- CoNLL-U --------------------------------------------------------------------------------------


def word(number: str, form: str, upos: str) -> str:
    return "\t".join([number, form, "lemma", upos, "XX", "_", "0", "dep", "_", "_"]) + "\n"


CONLLU = (
    "# sent_id = 1\n# text = vámonos al mar\n"
    + word("1-2", "vámonos", "_")
    + word("1", "vamos", "VERB")
    + word("2", "nos", "PRON")
    + word("2.1", "elided", "VERB")
    + word("3", "mar adentro", "NOUN")
)


def test_conllu_ranges_and_empty_nodes_are_no_words(conll: Write) -> None:
    (record,) = read(conll(CONLLU))
    assert record.fields["tokens"] == ["vamos", "nos", "mar adentro"]
    assert record.fields["ner_tags"] == ["VERB", "PRON", "NOUN"]
    assert record.fields["lines"] == [4, 5, 7]


def test_conllu_columns_have_names_and_numbers(conll: Write) -> None:
    (named,) = read(conll(CONLLU), label_column_name="XPOS")
    (numbered,) = read(conll(CONLLU), label_column_name=4)
    assert named == numbered
    assert named.fields["ner_tags"] == ["XX"] * 3


def test_conllu_plus_names_its_own_columns(conll: Write) -> None:
    path = conll("# global.columns = ID FORM NER\n1\tEU\tB-ORG\n2-3\tdon't\t_\n2\tdo\tO\n")
    (record,) = read(path, label_column_name="ner")
    assert record.fields["tokens"] == ["EU", "do"]
    (line,) = refusal(path)
    assert "data.label_column_name: no column 'upos'; there are id, form, ner; write one" in line


def test_conllu_names_the_nearest_column(conll: Write) -> None:
    (line,) = refusal(conll(CONLLU), label_column_name="uposs")
    assert line.endswith("deps, misc; did you mean upos?")


def test_conllu_refuses_what_numbers_no_word(conll: Write) -> None:
    lines = refusal(conll(CONLLU + word("x", "a", "X") + "4\tb\n"))
    assert "a.conll:8: 'x' numbers no word; write 3, a range 3-4 or 5.1" in lines[0]
    assert "a.conll:9: 2 columns where the file has 10: '4\\tb'" in lines[1]


# -- published corpora ----------------------------------------------------------------------------

UNER = {"text_column_name": 1, "label_column_name": 2}


@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "num_sentences", "num_tokens", "options"),
    [
        ("wnut17/wnut17train.conll", 3394, 62730, {}),
        ("wnut17/emerging.dev.conll", 1009, 15733, {}),
        ("wnut17/emerging.test.annotated", 1287, 23394, {}),
        ("broad_twitter_corpus/btc.train", 6338, 99933, {}),
        ("broad_twitter_corpus/btc.dev", 1001, 15027, {}),
        ("broad_twitter_corpus/btc.test", 2001, 35428, {}),
        ("ncbi_disease/train.tsv", 5424, 135701, {}),
        ("ncbi_disease/devel.tsv", 923, 23969, {}),
        ("ncbi_disease/test.tsv", 940, 24497, {}),
        ("wikigold/wikigold.conll.txt", 1696, 39007, {}),
        ("uner_english_ewt/en_ewt-ud-dev.iob2", 2001, 25149, UNER),
        ("uner_english_ewt/en_ewt-ud-test.iob2", 2077, 25097, UNER),
        ("uner_chinese_gsdsimp/zh_gsdsimp-ud-train.iob2", 3997, 98616, UNER),
        ("uner_chinese_gsdsimp/zh_gsdsimp-ud-dev.iob2", 500, 12663, UNER),
        ("uner_chinese_gsdsimp/zh_gsdsimp-ud-test.iob2", 500, 12012, UNER),
        ("ud_english_ewt/en_ewt-ud-train.every6thdoc.conllu", 2065, 33001 - 409 - 6, {}),
        ("ud_english_ewt/en_ewt-ud-dev.conllu", 2001, 25510 - 359 - 4, {}),
        ("ud_english_ewt/en_ewt-ud-test.conllu", 2077, 25450 - 354 - 2, {}),
    ],
)
def test_published_corpora_have_the_published_size(
    real_data: Callable[[str], Path],
    file: str,
    num_sentences: int,
    num_tokens: int,
    options: dict[str, int],
) -> None:
    folder, name = file.split("/")
    path = real_data(folder) / name
    if not path.is_file():
        pytest.skip(f"real data: no {path}")
    records = read(str(path), **options)
    assert len(records) == num_sentences
    assert sum(len(record.fields["tokens"]) for record in records) == num_tokens
    assert all("\n" not in tag for record in records for tag in record.fields["ner_tags"])


@pytest.mark.parametrize("header", ["Word\tTag", "token\tner_tags", "TOKENS\tPOS\tNER"])
def test_a_first_row_of_names_is_no_token(header: str, conll: Write) -> None:
    names = header.split("\t")
    row = "\t".join(["Ann", *["PER"] * (len(names) - 1)])
    (line,) = refusal(conll(f"{header}\n{row}\n"))
    assert line.endswith(
        f"its first row names the columns ({names[0]}, {names[-1]}): it is no token; "
        "delete that row"
    )
    assert sentences(conll(f"{row}\n{header}\n")) == [["Ann", names[0]]]  # only there
