"""`bigft init`: what it writes is what `bigft check` accepts, or it says what is missing."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from waiting import PATIENCE

from bigft.cli import main
from bigft.tasks import TASKS

REPOSITORY = Path(__file__).resolve().parents[2]

WORDS = {"tokens": ["ann", "met", "bob"], "ner_tags": ["B-PER", "O", "B-PER"]}
SPANS = {"text": "ann met bob", "entities": [{"start": 0, "end": 3, "label": "PER"}]}
POS = {"forms": ["ann", "met", "bob"], "pos": ["NOUN", "VERB", "NOUN"], "heads": [1, 0, 1]}
TURNS = [{"role": "user", "content": "one?"}, {"role": "assistant", "content": "two"}]
SHARED = [{"from": "human", "value": "one?"}, {"from": "gpt", "value": "two"}]
PAIR = {"source": "hello", "target": "bonjour"}
CONLL = "ann B-PER\nmet O\nbob B-PER\n\nin O\nulm B-LOC\n\n"
NUMBERED = "1\tann\tB-PER\t-\tx\n2\tmet\tO\t-\tx\n\n1\tulm\tB-LOC\t-\tx\n\n"
CHUNKED = "ann NN B-NP B-PER\nmet VB B-VP O\n\nulm NN B-NP B-LOC\n\n"
TAGS_IN_BETWEEN = "ann B-PER NN\nmet O VB\n\nulm B-LOC NN\n\n"
CONLLU = "\n".join(
    "\t".join((str(n), word, word, tag, "_", "_", "0", "root", "_", "_"))
    for n, (word, tag) in enumerate((("ann", "NOUN"), ("met", "VERB")), 1)
)


def write(name: str, content: str | Sequence[dict[str, Any]]) -> str:
    """A file of the text, or of the rows as its suffix says; the name."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, str):
        rows = [json.dumps(row, ensure_ascii=False) for row in content]
        content = f"[{','.join(rows)}]" if path.suffix == ".json" else "\n".join(rows) + "\n"
    path.write_text(content, encoding="utf-8")
    return name


GOLD = {"text": ["ann"], "answer_start": [0]}
ASKED = {"id": "a", "question": "who?", "context": "ann met bob", "answers": GOLD}
SQUAD = json.dumps(
    {"data": [{"title": "t", "paragraphs": [{"context": "ann met bob", "qas": [
        {"id": "a", "question": "who?", "answers": [{"text": "ann", "answer_start": 0}]}]}]}]}
)  # fmt: skip
ANSWERING = "question-answering"
TOKENS, CHAT, TRANSLATE = "token-classification", "causal-lm", "seq2seq"
FIRST_TWO = {"text_column_name": 0, "label_column_name": 1}


@pytest.mark.parametrize(
    ("name", "content", "task", "keys"),
    [
        ("a.conll", CONLL, TOKENS, {}),
        ("a.tsv", CONLL.replace(" ", "\t"), TOKENS, {}),
        ("a.txt", CONLL, TOKENS, {}),
        ("numbered.conll", NUMBERED, TOKENS, {"text_column_name": 1, "label_column_name": 2}),
        ("chunked.conll", CHUNKED, TOKENS, {}),
        ("between.conll", TAGS_IN_BETWEEN, TOKENS,
         {"text_column_name": 0, "label_column_name": 1}),
        ("a.conllu", CONLLU + "\n\n", TOKENS, {}),
        ("a.jsonl", [WORDS] * 2, TOKENS, {}),
        ("a.json", [WORDS] * 2, TOKENS, {}),
        ("spans.jsonl", [SPANS] * 2, TOKENS, {}),
        ("pos.jsonl", [POS] * 2, TOKENS,
         {"text_column_name": "forms", "label_column_name": "pos"}),
        ("chat.jsonl", [{"messages": TURNS, "id": 1}] * 2, CHAT, {}),
        ("shared.json", [{"conversations": SHARED}] * 2, CHAT, {}),
        ("alpaca.csv", "instruction,input,output\none?,,two\nthree?,x,four\n", CHAT, {}),
        ("prompts.jsonl", [{"prompt": "one?", "completion": "two"}], CHAT, {}),
        ("maths.jsonl", [{"Question": "1+1?", "Answer": "2"}], CHAT,
         {"text_column_name": "Question", "label_column_name": "Answer"}),
        ("text.jsonl", [{"text": "to be or not to be", "url": "x"}] * 2, CHAT, {}),
        ("story.jsonl", [{"story": "to be or not to be", "year": 1600}] * 2, CHAT,
         {"text_column_name": "story"}),
        ("plain.txt", "to be\nor not to be, that is\nthe question\n", CHAT, {}),
        ("noname", "to be\nor not to be, that is\nthe question\n", CHAT, {}),
        ("pairs.jsonl", [PAIR] * 2, TRANSLATE, {}),
        ("pairs.tsv", "source\ttarget\nhello\tbonjour\n", TRANSLATE, {}),
        ("bare.tsv", "Hello you.\tBonjour, toi.\nBye.\tAdieu.\n", TRANSLATE, FIRST_TWO),
        ("bare.txt", "Hello you.\tBonjour, toi.\tby me\nBye.\tAdieu.\tby me\n", TRANSLATE,
         FIRST_TWO | {"format": "tsv"}),
        ("news.csv", "document,summary\nA long text.,A text.\n", TRANSLATE,
         {"text_column_name": "document", "label_column_name": "summary"}),
        ("pandas.csv", ",text,rating (1-5)\n0,hi there,5\n", CHAT, {}),
        ("asked.jsonl", [ASKED], ANSWERING, {}),
        ("squad.json", SQUAD, ANSWERING, {}),
        ("named.csv", "id,en,fr\n1,hello,bonjour\n", TRANSLATE,
         {"text_column_name": "en", "label_column_name": "fr"}),
    ],
)  # fmt: skip
def test_task_format_and_columns_of_a_file_are_found(
    accepted: Callable[..., dict[str, Any]],
    name: str,
    content: Any,
    task: str,
    keys: dict[str, Any],
) -> None:
    config = accepted(write(name, content))
    options = config["task"] if isinstance(config["task"], dict) else {"name": config["task"]}
    assert options["name"] == task
    assert config["data"] == {"train_file": name, **keys}
    assert config["train"] == {"output_dir": f"runs/{name.partition('.')[0]}"}


@pytest.mark.parametrize(
    "rows",
    [
        [ASKED, ASKED | {"id": "b", "answers": {"text": [], "answer_start": []}}],
        [ASKED | {"is_impossible": False}],
    ],
)
def test_questions_that_may_have_no_answer_are_stated(
    accepted: Callable[..., dict[str, Any]], rows: list[dict[str, Any]]
) -> None:
    config = accepted(write("asked.jsonl", rows))
    assert config["task"] == {"name": "question-answering", "version_2_with_negative": True}
    assert "some questions have no answer" in Path("my.yaml").read_text()


def test_languages_are_stated_in_the_order_that_the_data_has(
    accepted: Callable[..., dict[str, Any]],
) -> None:
    texts = [{"translation": {"fr": "bonjour", "en": "hello"}}]
    config = accepted(write("pairs.jsonl", texts))
    assert config["task"] == {"name": "seq2seq", "source_lang": "fr", "target_lang": "en"}
    assert "exchange the two for the other direction" in Path("my.yaml").read_text()


def test_two_parallel_files_are_a_source_and_its_target(
    accepted: Callable[..., dict[str, Any]],
) -> None:
    for split in ("train", "dev"):
        write(f"talks/{split}.en", "hello\nbye\n")
        write(f"talks/{split}.fr", "bonjour\nadieu\n")
    config = accepted("talks")
    assert config["task"] == {"name": "seq2seq", "source_lang": "en", "target_lang": "fr"}
    assert config["data"] == {
        "train_file": ["talks/train.en", "talks/train.fr"],
        "validation_file": ["talks/dev.en", "talks/dev.fr"],
        "format": "parallel",
    }
    assert accepted("talks/train.en", "talks/train.fr")["data"] == {
        "train_file": ["talks/train.en", "talks/train.fr"],
        "format": "parallel",
    }


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train.jsonl", "dev.jsonl", "test.jsonl"),
        ("my-training.jsonl", "my-valid.jsonl", "my-eval.jsonl"),
        ("wnut17train.jsonl", "eval.jsonl", "testing.jsonl"),
        ("data/train-00000-of-00001.jsonl", "data/validation-0.jsonl", "data/test-0.jsonl"),
    ],
)
def test_the_files_of_a_folder_are_splits_by_their_names(
    accepted: Callable[..., dict[str, Any]], train: str, validation: str, test: str
) -> None:
    for name, row in ((train, WORDS), (validation, WORDS), (test, WORDS)):
        write(f"set/{name}", [row] * 2)
    write("set/README.md", "about it")
    write("set/LICENSE", "free")
    assert accepted("set")["data"] == {
        "train_file": f"set/{train}",
        "validation_file": f"set/{validation}",
        "test_file": f"set/{test}",
    }


def test_parquet_and_saved_directories_are_read_as_they_are(
    accepted: Callable[..., dict[str, Any]],
) -> None:
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-PER"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "tags": tags})
    rows = {"tokens": [["ann", "met"], ["bob"]], "tags": [[1, 0], [1]]}
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet("a.parquet")
    table.save_to_disk("saved")
    datasets.DatasetDict({"train": table, "validation": table}).save_to_disk("splits")
    assert accepted("a.parquet")["data"] == {"train_file": "a.parquet"}
    assert accepted("saved")["data"] == {"train_file": "saved"}
    assert accepted("splits")["data"] == {
        "train_file": "splits/train",
        "validation_file": "splits/validation",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", CONLL * 4),
        ("a.jsonl", [{"messages": TURNS}] * 8),
        ("a.tsv", "".join(f"Hello {n}.\tBonjour, {n}.\n" for n in range(8))),
    ],
)
def test_what_is_written_trains(
    accepted: Callable[..., dict[str, Any]], name: str, content: Any
) -> None:
    config = accepted(write(name, content))
    words = ["train", "my.yaml", "train.max_steps=2", "parallel.zero_stage=0"]
    finished = subprocess.run(
        [sys.executable, "-m", "bigft", *words],
        env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **os.environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    results = json.loads(Path(config["train"]["output_dir"], "all_results.json").read_text())
    assert results["step"] == 2


def test_the_config_has_a_comment_where_something_is_chosen(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("set/train.conll", CONLL)
    write("set/more.conll", CONLL)
    assert main(["init", "set"]) == 0
    assert capsys.readouterr().out == (
        "# `bigft check FILE` shows what it does, `bigft train FILE` does it.\n"
        "task: token-classification\n"
        "model:\n"
        "  # for English; for other languages bert-base-multilingual-cased\n"
        "  model_name_or_path: bert-base-cased\n"
        "data:\n"
        "  # the first column and the last: B-LOC, B-PER, O\n"
        "  train_file: set/train.conll\n"
        "  # validation_file: a file to evaluate on during training\n"
        "  # test_file: a file to evaluate on at the end\n"
        "  # not used: more.conll\n"
        "train:\n"
        "  output_dir: runs/set\n"
    )


def test_keys_of_the_command_line_go_into_the_config(
    accepted: Callable[..., dict[str, Any]],
) -> None:
    write("a.csv", "talk,reply to it\none?,two\n")
    columns = ["data.text_column_name=talk", "data.label_column_name=reply to it"]
    more = ["train.output_dir=out", "adapt.method=lora", "train.max_steps=3"]
    config = accepted("a.csv", "--task", "causal-lm", *columns, *more)
    assert config["task"] == "causal-lm"
    assert config["data"] == {
        "train_file": "a.csv",
        "text_column_name": "talk",
        "label_column_name": "reply to it",
    }
    assert config["adapt"] == {"method": "lora"}
    assert config["train"] == {"output_dir": "out", "max_steps": 3}


def test_names_may_hold_any_character(accepted: Callable[..., dict[str, Any]]) -> None:
    name = write("\U0001f600 'a': #1.csv", 'text,"a\nb\u2028c\x07"\nto be or not,1\n')
    assert accepted(name)["data"] == {"train_file": name}
    assert "# plain text; not read: a?b?c?\n" in Path("my.yaml").read_text(encoding="utf-8")


def test_compressed_files_are_read(accepted: Callable[..., dict[str, Any]]) -> None:
    with gzip.open("a.conll.gz", "wt") as file:
        file.write(CONLL)
    assert accepted("a.conll.gz")["data"] == {"train_file": "a.conll.gz"}


def test_a_split_that_is_given_is_not_said_to_be_missing(
    accepted: Callable[..., dict[str, Any]],
) -> None:
    write("a.conll", CONLL)
    files = {"train_file": "a.conll", "test_file": "a.conll"}
    assert accepted("a.conll", "data.test_file=a.conll")["data"] == files
    assert "# test_file" not in Path("my.yaml").read_text()
    assert "# validation_file" in Path("my.yaml").read_text()


def test_an_existing_file_is_not_written_over(refused: Callable[..., list[str]]) -> None:
    write("a.conll", CONLL)
    write("my.yaml", "mine")
    answer = "my.yaml: exists already; choose another file, or --force"
    assert refused("a.conll", "-o", "my.yaml") == [answer]
    assert Path("my.yaml").read_text() == "mine"


WANTS = [f"{task}: wants {TASKS[task].start.wants}" for task in TASKS if TASKS[task].start.by_data]
NAMING = (
    "bigft init: other columns: --task NAME data.text_column_name=... data.label_column_name=..."
)


def test_data_of_no_task_is_told_what_the_tasks_want(refused: Callable[..., list[str]]) -> None:
    write("a.csv", "utterance,reaction\nhello there,hi to you\n")
    first = "a.csv: no task takes its columns: utterance, reaction"
    assert refused("a.csv") == [first, *WANTS, NAMING]
    assert refused("a.csv", "--task", "seq2seq") == [
        "a.csv: task seq2seq does not take its columns: utterance, reaction",
        WANTS[-1],
        NAMING,
    ]


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("a.jsonl", [{"tokens": ["ann"], "ner_tags": [3]}],
         "a.jsonl:1: token 1: the tag 3 in ner_tags is a number; list the labels in "
         "data.label_list, in the order of their numbers"),
        ("a.jsonl", [{"translation": {"en": "a", "fr": "b", "de": "c"}}],
         "task.source_lang: translations into 'en', 'fr', 'de', but which is the source?; "
         "name its language"),
        ("a.jsonl", [{"messages": TURNS} | PAIR],
         "a.jsonl: fits several tasks: causal-lm, seq2seq; say --task causal-lm or --task seq2seq"),
        ("a.jsonl", [{"messages": [{"role": "wizard", "content": "a"}]}],
         "a.jsonl:1: message 1 of `messages` has the unknown role 'wizard'; "
         "there are system, developer, user, assistant, tool, human, gpt, bot, chatgpt, model, "
         "function_call, function, function_response, observation"),
        ("a.jsonl", "{broken\n", "a.jsonl:1:2: no JSON (Expecting property name enclosed in "
         "double quotes); write one JSON object a line"),
        ("a.jsonl", "", "a.jsonl: an empty file"),
        ("set/a.jsonl", [PAIR], "absent: no such file; did you mean set?"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(
    refused: Callable[..., list[str]], name: str, content: Any, answer: str
) -> None:
    write(name, content)
    assert answer in refused("absent" if "/" in name else name)


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("a.csv", "text,category\nhello,greeting\n", {}),
        ("a.jsonl", [{"premise": "a", "hypothesis": "b", "label": 0}], {}),
        ("a.tsv", "".join(f"It is {n} now.\t{'ab'[n % 2]}\n" for n in range(9)),
         {"text_column_name": 0, "label_column_name": 1}),
        ("a.csv", "".join(["said,mood\n", *(f"it is {n} today,{'ab'[n % 2]}\n" for n in range(9))]),
         {"text_column_name": "said", "label_column_name": "mood"}),
        ("a.jsonl", [{"text": "a", "labels": ["x", "y"]}], {}),
        ("a.jsonl", [{"text": "a", "score": 0.5}], {}),
    ],
)  # fmt: skip
def test_texts_with_labels_are_found(
    accepted: Callable[..., dict[str, Any]], name: str, content: Any, keys: dict[str, Any]
) -> None:
    write(name, content)
    config = accepted(name)
    assert config["task"] == "text-classification"
    assert {key: value for key, value in config["data"].items() if key != "train_file"} == keys


def test_what_the_command_line_says_settles_it(accepted: Callable[..., dict[str, Any]]) -> None:
    write("both.jsonl", [{"messages": TURNS} | PAIR])
    assert accepted("both.jsonl", "--task", "seq2seq")["task"] == "seq2seq"
    write("classes.csv", "text,category\nhello,greeting\n")
    assert accepted("classes.csv", "--task", "causal-lm")["task"] == "causal-lm"
    write("numbers.jsonl", [{"tokens": ["ann", "met"], "ner_tags": [1, 0]}])
    labels = accepted("numbers.jsonl", "data.label_list=[O, B-PER]")["data"]["label_list"]
    assert labels == ["O", "B-PER"]
    write("three.jsonl", [{"translation": {"en": "a", "fr": "b", "de": "c"}}])
    config = accepted("three.jsonl", "task.source_lang=de", "task.target_lang=en")
    assert config["task"] == {"name": "seq2seq", "source_lang": "de", "target_lang": "en"}


def test_a_task_that_is_not_there_is_refused(refused: Callable[..., list[str]]) -> None:
    write("a.conll", CONLL)
    (line,) = refused("a.conll", "--task", "image-classification")
    assert "image-classification is not available yet" in line
    (line,) = refused("a.conll", "a=3")
    assert line.startswith("command line: a=3: unknown key")


def test_it_is_quick_on_a_large_file_and_loads_no_torch(here: Path) -> None:
    """A file of 200 MB that is broken behind its first records."""
    row = json.dumps({"messages": TURNS}) + "\n"
    with open("large.jsonl", "w", encoding="utf-8") as file:
        file.write(row * 200)
        for _ in range(200):
            file.write("{" * 1_000_000)
    code = (
        "import sys; from bigft.cli import main; code = main(['init', 'large.jsonl']); "
        "sys.exit(code or 'torch' in sys.modules or 'transformers' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(REPOSITORY), **os.environ}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=PATIENCE)
