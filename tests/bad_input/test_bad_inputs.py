"""Every bad input is refused before training, by name, with the fix, and with exit code 2."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
from safetensors.torch import load_file, save_file
from tiny import letter_tokenizer, save_tiny

Refused = Callable[..., list[str]]
Notes = Callable[..., list[str]]


def test_what_is_spoilt_here_is_accepted_as_it_is(notes: Notes) -> None:
    assert notes() == []


# -- config ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("  sed: 1", "config.yaml:9: train.sed: unknown key; did you mean train.seed?"),
        (
            "  output_dir: b",
            "config.yaml:9: train.output_dir: given twice, in lines 8 and 9; remove one",
        ),
        ("  seed: abc", 'config.yaml:9: train.seed: found "abc"; it should be a whole number'),
        ("  seed: -1", "config.yaml:9: train.seed: found -1; "
         "it should be greater than or equal to 0"),
        ("  bf16: true\n  fp16: true",
         "config.yaml:10: train.fp16: both fp16 and train.bf16 are true; choose one"),
        ("parallel: {offload_optimizer: nvme}", "config.yaml:9: parallel.offload_optimizer: nvme "
         "is not available yet; cpu offloads to memory"),
        ("adapt: {method: lora, r: 0}",
         "config.yaml:9: adapt.r: found 0; it should be greater than 0"),
        ("  load_best_model_at_end: true", "config.yaml:9: train.load_best_model_at_end: needs "
         "evaluations, but data.validation_file is not given; name the file to evaluate on"),
        ("parallel: {deepspeed: ds.json}",
         "config.yaml:9: parallel.deepspeed: ds.json: No such file or directory; "
         "give a JSON file"),
    ],
)  # fmt: skip
def test_config(place: Path, refused: Refused, line: str, answer: str) -> None:
    with Path("config.yaml").open("a") as file:
        file.write(line + "\n")
    assert refused() == [answer]


def test_all_that_is_wrong_with_the_values_is_told_at_once(refused: Refused) -> None:
    assert refused("train.seed=x", "optim.learning_rate=-1", "data.nothing=1") == [
        "command line: data.nothing=1: unknown key; the keys here are train_file, "
        "validation_file, test_file, dataset_name, dataset_config_name, dataset_revision, format, "
        "text_column_name, label_column_name, group_column_name, label_all_tokens, label_list, "
        "max_seq_length, max_train_samples, max_eval_samples, on_bad_record, sample_by, "
        "interleave_probs, chat_template, preprocessing_num_workers, packing, packing_strategy",
        "command line: optim.learning_rate=-1: found -1; it should be greater than or equal to 0",
        'command line: train.seed=x: found "x"; it should be a whole number',
    ]


def test_remote_code_without_a_pinned_commit(refused: Refused) -> None:
    first, _ = refused("model.trust_remote_code=true", "model.revision=main")
    assert first == (
        "command line: model.trust_remote_code=true: true, but model.revision pins no commit: "
        "the code could change under you; set model.revision to a commit's 40 hex digits"
    )


def test_a_global_batch_that_the_ranks_do_not_make(refused: Refused) -> None:
    batch = ("per_device_train_batch_size=4", "gradient_accumulation_steps=2")
    words = ["train.global_batch_size=16", *(f"train.{word}" for word in batch)]
    assert refused(*words) == [
        "command line: train.global_batch_size=16: 16, but train.per_device_train_batch_size (4) "
        "* train.gradient_accumulation_steps (2) * processes (1) is 8; "
        "leave train.gradient_accumulation_steps out: it is derived"
    ]


@pytest.mark.parametrize("key", ["global_batch_tokens", "per_device_train_batch_tokens"])
def test_a_row_that_fits_into_no_batch(refused: Refused, key: str) -> None:
    assert refused(f"train.{key}=8") == [
        f"command line: train.{key}=8: 8 tokens, but the longest row has 11; "
        "give at least 11, or set data.max_seq_length"
    ]


@pytest.mark.parametrize(
    ("metric", "fix"),
    [
        ("eval_macro-f1", "did you mean macro_f1?"),
        ("bleu", "there are accuracy, f1, loss, macro_f1, precision, recall, strict_f1, "
         "strict_macro_f1, strict_precision, strict_recall, strict_weighted_f1, weighted_f1"),
    ],
)  # fmt: skip
def test_a_metric_that_no_evaluation_has(refused: Refused, metric: str, fix: str) -> None:
    word = f"train.metric_for_best_model={metric}"
    assert refused("data.validation_file=test.jsonl", word) == [
        f"command line: {word}: no metric {metric!r}; {fix}"
    ]


# -- data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b'{"tokens": ["a"], "ner_tags": ["O"]}\n{"tokens": ["a"\n',
         "bad:2:16: no JSON (Expecting ',' delimiter); write one JSON object a line"),
        (b"EU B-ORG\nrejects\n", "bad:2: 1 column where the file has 2: 'rejects'; "
         "write 2 with spaces between, and an empty line after a sentence"),
        (b'\xef\xbb\xbf{"tokens": ["a"], "ner_tags": ["O"]}\n',
         "bad:1: a byte order mark (BOM); save it as UTF-8 without BOM"),
        (b'{"tokens": ["a\0"], "ner_tags": ["O"]}\n',
         "bad:1: a NUL byte at byte 14 of the file; save it as UTF-8 text"),
        (b'{"tokens": ["\xe9"], "ner_tags": ["O"]}\n',
         "bad:1: byte 13 of the file (0xe9) is not UTF-8; save it as UTF-8"),
        (b"", "bad: an empty file"),
        (b"\n\n", "bad: no sample in it (read as conll)"),
        (b'{"wrods": ["a"], "ner_tags": ["O"]}\n',
         "bad:1: no field tokens or words or text; there are wrods, ner_tags; "
         "did you mean wrods? (data.text_column_name)"),
        (b'{"tokens": ["a"]}\n', "bad:1: no field ner_tags or tags or labels; there are tokens; "
         "name the field (data.label_column_name)"),
        (b'{"tokens": ["a"], "ner_tags": ["O", "O"]}\n',
         "bad:1: 1 tokens, but 2 tags in ner_tags; write one tag per token"),
        (b'{"tokens": ["a"], "ner_tags": [3]}\n', "bad:1: token 1: the tag 3 in ner_tags is a "
         "number; list the labels in data.label_list, in the order of their numbers"),
        (b'{"id": 7, "tokens": ["a"], "ner_tags": ["O"]}\n' * 2,
         "bad:2: the id 7 is also that of bad:1 in the train set; give each record its own id"),
        (b'{"tokens": ["a"], "ner_tags": [null]}\n', "command line: data.train_file=bad: "
         "every label of the train set is masked: there is nothing to learn or measure; "
         "check data.label_column_name"),
    ],
)  # fmt: skip
def test_training_data(place: Path, refused: Refused, content: bytes, answer: str) -> None:
    Path("bad").write_bytes(content)
    assert refused("data.train_file=bad", "data.test_file=null") == [answer]


def test_files_that_do_not_exist_are_told_at_once(refused: Refused) -> None:
    assert refused("data.train_file=trian.jsonl", "data.test_file=tset.jsonl") == [
        "trian.jsonl: no such file; did you mean train.jsonl?",
        "tset.jsonl: no such file; did you mean test.jsonl?",
    ]


def test_a_label_that_training_does_not_know(place: Path, refused: Refused) -> None:
    Path("other.jsonl").write_text('{"tokens": ["a"], "ner_tags": ["B-ORG"]}\n')
    words = ["data.validation_file=other.jsonl", "data.test_file=other.jsonl"]
    answer = (
        "other.jsonl:1: token 1: label 'B-ORG' does not occur in the training data "
        "(O, B-LOC, I-LOC, B-PER, I-PER); correct it, or name every label in data.label_list"
    )
    assert refused(*words) == [answer]


def test_tags_of_another_scheme_than_the_training_sets(place: Path, refused: Refused) -> None:
    Path("test.jsonl").write_text('{"tokens": ["a", "b"], "ner_tags": ["B-PER", "E-PER"]}\n')
    (answer,) = refused()
    assert answer.startswith("test.jsonl:1: token 2: ")
    assert answer.endswith("; fix the tag; the training set is read as BIO")


def test_a_label_that_the_label_list_lacks(refused: Refused) -> None:
    assert refused("data.label_list=[O,B-PRE,B-LOC]") == [
        "train.jsonl:1: token 1: the label 'B-PER' is not in data.label_list; did you mean B-PRE?",
        "train.jsonl:1: token 3: the label 'B-PER' is not in data.label_list; did you mean B-PRE?",
        "test.jsonl:1: token 1: the label 'B-PER' is not in data.label_list; did you mean B-PRE?",
    ]


def test_a_label_list_that_names_a_label_twice(refused: Refused) -> None:
    assert refused("data.label_list=[O,B-PER,B-PER,B-LOC]") == [
        "command line: data.label_list=[O,B-PER,B-PER,B-LOC]: B-PER given twice; "
        "a label has one number: remove one"
    ]


def test_a_test_set_without_any_label_to_measure(place: Path, refused: Refused) -> None:
    Path("test.jsonl").write_text('{"tokens": ["a"], "ner_tags": [null]}\n')
    assert refused() == [
        "config.yaml:6: data.test_file: every label of the test set is masked: there is nothing "
        "to learn or measure; check data.label_column_name"
    ]


def test_class_weights_of_a_label_that_does_not_exist(refused: Refused) -> None:
    assert refused("optim.class_weights={B-PRE: 2.0}") == [
        "command line: optim.class_weights={B-PRE: 2.0}: no label 'B-PRE'; "
        "the labels are O, B-LOC, I-LOC, B-PER, I-PER"
    ]


@pytest.mark.parametrize(
    ("length", "answer"),
    [
        (65, "65 tokens, but the model takes 64: max_position_embeddings in config.json "
         "(model.config_overrides overrides it); give at most 64; longer samples are cut"),
        (2, "2, but 2 special tokens go in first; give at least 3"),
    ],
)  # fmt: skip
def test_a_length_that_the_model_cannot_take(refused: Refused, length: int, answer: str) -> None:
    word = f"data.max_seq_length={length}"
    assert refused(word) == [f"command line: {word}: {answer}"]


def test_long_sentences_are_cut_and_counted(place: Path, notes: Notes) -> None:
    row = {"tokens": ["a"] * 100, "ner_tags": ["O"] * 99 + ["B-PER"]}
    with Path("train.jsonl").open("a") as file:
        print(json.dumps(row), file=file)
    assert notes() == ["1 of 3 records of train became several rows, 3 in all"]


def test_records_of_both_sets_are_counted(place: Path, notes: Notes) -> None:
    Path("test.jsonl").write_text(
        Path("test.jsonl").read_text() + Path("train.jsonl").read_text().splitlines()[1] + "\n"
    )
    assert notes() == [
        "1 of 2 records of test occur in train too: scores on test flatter the model"
    ]


# -- model ----------------------------------------------------------------------------------------


@pytest.fixture
def own_model(place: Path) -> Path:
    """A model that the test may change."""
    target = Path("model").resolve()
    Path("model").unlink()
    return shutil.copytree(target, place / "model")


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_tokenizer_without_a_pad_token(place: Path, refused: Refused) -> None:
    save_tiny(Path("padless"), tokenizer=letter_tokenizer(pad_token=None))
    assert refused("model.model_name_or_path=padless") == [
        "command line: model.model_name_or_path=padless: the tokenizer of padless has no pad "
        'token; add "pad_token" to its tokenizer_config.json or name another one in '
        "model.tokenizer_name"
    ]


def test_a_tokenizer_larger_than_the_embedding(place: Path, refused: Refused) -> None:
    save_tiny(Path("small"), vocab_size=20)
    assert refused("model.model_name_or_path=small") == [
        "config.yaml: model.tokenizer_name: the tokenizer's token '##z' has the id 55, the "
        "model's embedding 20 rows (ids up to 19); use the model's own tokenizer"
    ]


def test_weights_of_another_size(own_model: Path, refused: Refused) -> None:
    edit(own_model / "config.json", hidden_size=32)
    (answer,) = refused()
    assert answer == (
        "config.yaml:3: model.model_name_or_path: the weights of 'model' do not fit its config: "
        "bert.embeddings.LayerNorm.bias, bert.embeddings.LayerNorm.weight, "
        "bert.embeddings.position_embeddings.weight and 33 more (of another shape); "
        "give the config.json that belongs to the weights, or set model.from_scratch"
    )


def test_weights_that_lack_a_layer(own_model: Path, refused: Refused) -> None:
    path = own_model / "model.safetensors"
    tensors = load_file(path)
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, path, {"format": "pt"})
    (answer,) = refused()
    assert "do not fit its config: bert.encoder.layer.1.output.dense.weight (missing);" in answer


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", b"{", "(It looks like the config file at 'model/config.json' is not"),
        ("config.json", b'{"model_type": "nope"}', "has model type `nope`"),
        ("config.json", b'{"model_type": "whisper"}', "(Unrecognized configuration class"),
        ("config.json", b'{"model_type": "bert", "hidden_size": "big"}', "'hidden_size'"),
        ("tokenizer.json", b"{}", "(KeyError: "),
        ("tokenizer.json", b"{", "(Expecting property name enclosed in double quotes"),
    ],
)
def test_a_damaged_model(
    own_model: Path, refused: Refused, name: str, content: bytes | None, reason: str
) -> None:
    if content is None:
        (own_model / name).unlink()
    else:
        (own_model / name).write_bytes(content)
    answers = refused()
    before, after = answers[0].split("'model' cannot be loaded ")
    assert before == "config.yaml:3: model.model_name_or_path: "
    assert reason in after
    fix = "it should hold config.json, tokenizer.json and model.safetensors"
    if b"whisper" in (content or b""):
        fix = "give a model of this task, or the task of this model"
    assert after.endswith(f"; {fix}")


def test_a_directory_without_weights_may_be_meant_for_training_from_scratch(
    own_model: Path, refused: Refused
) -> None:
    (own_model / "model.safetensors").unlink()
    assert refused() == [
        "config.yaml:3: model.model_name_or_path: 'model' holds no weights; put model.safetensors "
        "there, or set model.from_scratch to true to train new ones"
    ]


def test_damaged_weights(own_model: Path, refused: Refused) -> None:
    (own_model / "model.safetensors").write_bytes(b"\x08")
    (answer,) = refused()
    assert answer.startswith("model/model.safetensors: truncated or damaged (SafetensorError: ")
    assert answer.endswith("; fetch or copy it again")


def test_a_model_directory_that_does_not_exist(refused: Refused) -> None:
    assert refused("model.model_name_or_path=./nothing/here") == [
        "command line: model.model_name_or_path=./nothing/here: "
        "there is no directory './nothing/here'; give a model's directory, or a hub id"
    ]


def test_a_hub_model_that_is_not_in_the_cache_of_an_offline_machine(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (answer,) = refused("model.model_name_or_path=somebody/some-model")
    assert answer.startswith(
        "command line: model.model_name_or_path=somebody/some-model: "
        "'somebody/some-model' cannot be loaded ("
    )
    fix = "give a directory, or a hub id (HF_HUB_OFFLINE=1 takes only what is in the cache)"
    assert answer.endswith(f"; {fix}")
    Path("somebody/sone-model").mkdir(parents=True)
    (answer,) = refused("model.model_name_or_path=somebody/some-model")
    assert answer.endswith(f"; did you mean the directory somebody/sone-model? or {fix}")


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("{hidden_dropuot: 0.1}",
         "BertConfig has no field 'hidden_dropuot'; did you mean hidden_dropout_prob?"),
        ("{hidden_size: big}", "Field 'hidden_size' expected int, got str (value: 'big')"),
    ],
)  # fmt: skip
def test_an_override_that_the_architecture_lacks(refused: Refused, value: str, answer: str) -> None:
    word = f"model.config_overrides={value}"
    assert refused(word) == [f"command line: {word}: {answer}"]


def test_model_and_data_and_options_are_told_at_once(own_model: Path, refused: Refused) -> None:
    (own_model / "model.safetensors").unlink()
    Path("file").write_text("")
    words = ["data.max_seq_length=65", "data.test_file=tset.jsonl", "train.output_dir=file"]
    places = [line.partition(": ")[2].partition(": ")[0] for line in refused(*words)]
    assert places == [
        "train.output_dir=file",
        "data.max_seq_length=65",
        "no such file; did you mean test.jsonl?",
        "model.model_name_or_path",
    ]


def test_a_head_for_other_labels_is_told_once(
    place: Path,
    notes: Notes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    save_tiny(Path("other"), num_labels=3)
    (note,) = notes("model.model_name_or_path=other")
    assert note == (
        "new, with random values, since the stored head is for other labels (LABEL_0, LABEL_1, "
        "LABEL_2): classifier.bias, classifier.weight"
    )
    assert caplog.messages == []
