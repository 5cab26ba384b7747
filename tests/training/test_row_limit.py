"""How long a row may be: by the config, else by model and tokenizer, which are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import letter_tokenizer, save_tiny
from tiny_seq2seq import eos_tokenizer, tiny_seq2seq
from transformers import T5Config

from bigft.config.errors import BadInput
from bigft.config.sections import RunConfig
from bigft.models.load import load_model_config
from bigft.training.batch import row_limit
from bigft.training.inputs import prepare

IN_CONFIG = "max_position_embeddings in config.json (model.config_overrides overrides it)"
IN_TOKENIZER = "model_max_length in tokenizer_config.json (data.max_seq_length overrides it)"
OVERRIDDEN = "max_position_embeddings in model.config_overrides"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def config(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """config(section={key: value}, ...) over one sentence of three tokens; a cache of its own."""
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps({"tokens": ["bob"], "tags": ["B-PER"]}))

    def call(**sections: dict[str, Any]) -> RunConfig:
        given: dict[str, Any] = {
            "task": {"name": "token-classification"},
            "model": {"model_name_or_path": str(bert)},
            "data": {"train_file": str(train)},
            "train": {"output_dir": str(tmp_path / "run")},
        }
        for name, keys in sections.items():
            given[name] = given.get(name, {}) | keys
        return RunConfig.model_validate(given)

    return call


@pytest.mark.parametrize(
    ("asked", "of_tokenizer", "overrides", "expected"),
    [
        (None, None, {}, (64, IN_CONFIG)),
        (None, 16, {}, (16, IN_TOKENIZER)),
        (None, 512, {}, (64, IN_CONFIG)),
        (None, 16, {"max_position_embeddings": 48}, (48, OVERRIDDEN)),
        (24, None, {}, (24, "data.max_seq_length")),
        (24, 16, {}, (24, "data.max_seq_length")),
        (64, 16, {}, (64, "data.max_seq_length")),
        (12, 16, {"max_position_embeddings": 48}, (12, "data.max_seq_length")),
    ],
)
def test_a_row_is_as_long_as_the_config_says_else_as_model_and_tokenizer_say(
    asked: int | None,
    of_tokenizer: int | None,
    overrides: dict[str, int],
    expected: tuple[int, str],
    config: Callable[..., RunConfig],
) -> None:
    settings = config(data={"max_seq_length": asked}, model={"config_overrides": overrides})
    tokenizer = letter_tokenizer(model_max_length=of_tokenizer)
    assert row_limit(settings, tokenizer, load_model_config(settings.model)) == expected


def test_a_model_without_positions_takes_what_the_config_says(
    config: Callable[..., RunConfig],
) -> None:
    t5, tokenizer = T5Config(d_model=16, num_layers=1), letter_tokenizer(model_max_length=16)
    assert row_limit(config(), tokenizer, t5) == (16, IN_TOKENIZER)
    assert row_limit(config(), letter_tokenizer(), t5) is None
    asked = config(data={"max_seq_length": 10_000})
    assert row_limit(asked, tokenizer, t5) == (10_000, "data.max_seq_length")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, f"65 tokens, but the model takes 64: {IN_CONFIG}; give at most 64"),
        ({"max_position_embeddings": 48},
         f"65 tokens, but the model takes 48: {OVERRIDDEN}; give at most 48"),
    ],
)  # fmt: skip
def test_rows_longer_than_the_positions_are_refused_by_file_and_field(
    overrides: dict[str, int], message: str, config: Callable[..., RunConfig]
) -> None:
    with pytest.raises(BadInput) as caught:
        prepare(config(data={"max_seq_length": 65}, model={"config_overrides": overrides}))
    assert str(caught.value) == f"data.max_seq_length: {message}; longer samples are cut"


def test_the_trained_tokenizer_is_meant_for_the_rows_that_it_was_trained_on(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    short = save_tiny(tmp_path / "short", tokenizer=letter_tokenizer(model_max_length=16))
    model = {"model_name_or_path": str(short)}
    run = prepare(config(model=model, data={"max_seq_length": 24}))
    assert run.processor.model_max_length == 24
    assert (
        "rows hold up to 24 tokens (data.max_seq_length), though model_max_length in "
        "tokenizer_config.json is 16; the trained model's says 24"
    ) in run.notes
    for fits in ({}, {"max_seq_length": 9}):
        run = prepare(config(model=model, data=fits))
        assert run.processor.model_max_length == 16
        assert not [note for note in run.notes if "rows hold" in note]


def test_what_is_cut_is_counted_per_side_with_the_key_that_cuts(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """In seq2seq, and how BLEU will find words in the targets."""
    model, data = tmp_path / "t5", tmp_path / "pairs.jsonl"
    tiny_seq2seq("t5").save_pretrained(model)
    eos_tokenizer(model_max_length=16).save_pretrained(model)
    pairs = [("a", "是"), ("a" * 30, "是"), ("a" * 40, "你好。" * 3), ("b", "好")]
    lines = [json.dumps({"source": source, "target": target}) for source, target in pairs]
    data.write_text("\n".join(lines))

    def notes(length: int | None) -> list[str]:
        files = dict.fromkeys(("train_file", "validation_file"), str(data))
        run = prepare(
            config(
                task={"name": "seq2seq", "max_target_length": 20},
                model={"model_name_or_path": str(model)},
                data={**files, "max_seq_length": length},
            )
        )
        return [note for note in run.notes if "validation" not in note]

    target = (
        f"1 of 4 records of train (first {data}:3) have their target cut at 20 tokens: "
        "task.max_target_length"
    )
    words = "BLEU splits texts into words by sacrebleu's zh (by the script of the targets)"
    for length, tokens, key in ((None, 16, IN_TOKENIZER), (12, 12, "data.max_seq_length")):
        source, *rest = notes(length)
        assert source == (
            f"2 of 4 records of train (first {data}:2) have their source cut at {tokens} tokens: "
            f"{key}"
        )
        assert rest[0] == target
        assert rest[-1] == words
        (lost,) = rest[1:-1]
        assert "targets of train are cut away (" in lost
        assert "data.max_seq_length" not in lost
    longer = notes(64)
    assert longer[0].startswith("rows hold up to 64 tokens (data.max_seq_length), though")
    assert longer[1] == target
