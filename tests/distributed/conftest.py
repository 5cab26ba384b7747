"""A small model and uneven data: what every distributed test trains."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = [f"word{number}" for number in range(60)]
TAGS = ["O", "B-PER", "I-PER", "B-LOC"]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT with random weights and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    vocabulary = {token: n for n, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    directory = tmp_path_factory.mktemp("tiny_bert")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(directory)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )
    BertForTokenClassification(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def write_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[int], list[int]], Path]:
    """`write_data(targets, blanks)`: JSONL, one sentence per number of targets, then `blanks`
    sentences of that many words without any target. The seed of the words is fixed."""

    def write(targets: list[int], blanks: list[int] = ()) -> Path:  # type: ignore[assignment]
        source = random.Random(0)
        path = tmp_path_factory.mktemp("data") / "train.jsonl"
        with path.open("w") as file:
            for count in targets:
                length = count + source.randrange(4)
                tags: list[str | None] = [source.choice(TAGS) for _ in range(length)]
                for masked in source.sample(range(length), length - count):
                    tags[masked] = None
                _legal(tags)
                words = source.choices(WORDS, k=length)
                print(json.dumps({"tokens": words, "ner_tags": tags}), file=file)
            for length in blanks:
                words = source.choices(WORDS, k=length)
                print(json.dumps({"tokens": words, "ner_tags": [None] * length}), file=file)
        return path

    return write


def _legal(tags: list[str | None]) -> None:
    """Makes every I- a continuation, as BIO wants it; in place."""
    before = "O"
    for at, tag in enumerate(tags):
        if tag is None:
            continue
        if tag == "I-PER" and before not in ("B-PER", "I-PER"):
            tags[at] = tag = "B-PER"
        before = tag


@pytest.fixture
def config_for(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """`config_for(name, train_file, "section.key"=value, ...)`: a run's config as a dict."""
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))

    def config(name: str, train_file: Path, **keys: Any) -> dict[str, Any]:
        sections: dict[str, Any] = {
            "task": {"name": "token-classification"},
            "model": {"model_name_or_path": str(tiny_bert), "dropout": 0.0},
            "data": {"train_file": [str(train_file)]},
            "optim": {"learning_rate": 1e-3},
            "parallel": {},
            "train": {
                "output_dir": str(tmp_path / name),
                "logging_steps": 1,
                "save_strategy": "no",
                "num_train_epochs": 2.0,
            },
        }
        for key, value in keys.items():
            section, leaf = key.split("__")
            sections[section][leaf] = value
        return sections

    return config
