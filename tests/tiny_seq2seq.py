"""Encoder-decoders and their tokenizers, as small as those of tiny.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import POSITIONS, byte_tokenizer
from tokenizers import decoders, processors
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    MarianTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

PAD, START, EOS = 0, 2, 3
BART = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": POSITIONS,
    "decoder_start_token_id": START,
    "bos_token_id": START,
    "forced_eos_token_id": None,
}
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": PAD,
}
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": T5,
    "mt5": T5 | {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"},
    "bart": BART,
    "mbart": BART,
    "marian": BART,
    "pegasus": BART,
    "m2m_100": BART,
}


def tiny_seq2seq(architecture: str = "t5", **options: Any) -> PreTrainedModel:
    """Random weights, the same at every call; in evaluation mode."""
    shape = {"vocab_size": 260, "pad_token_id": PAD, "eos_token_id": EOS}
    config = AutoConfig.for_model(
        architecture, **{**shape, **ENCODER_DECODERS[architecture], **options}
    )
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def eos_tokenizer(add_eos: bool = True, **options: Any) -> PreTrainedTokenizerFast:
    """T5's manner: an eos behind every text. A character of ASCII is a token, so is each space."""
    tokenizer = byte_tokenizer(eos_token="</s>", **options)
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>" if add_eos else "$A", special_tokens=[("</s>", EOS)]
    )
    return tokenizer


def marian_tokenizer(directory: Path, **options: Any) -> MarianTokenizer:
    """Marian's kind: a SentencePiece model per side, and a vocabulary of both sides' pieces."""
    sentencepiece = pytest.importorskip("sentencepiece")
    directory.mkdir(parents=True, exist_ok=True)
    pieces: dict[str, int] = {}
    for side, texts in (
        ("source", ["abc", "bcd", "a b"]),
        ("target", ["\u4f60\u597d", "\u518d\u89c1"]),
    ):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 10),
            model_prefix=str(directory / side),
            model_type="char",
            vocab_size=12 if side == "source" else 8,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        model = sentencepiece.SentencePieceProcessor(model_file=str(directory / f"{side}.model"))
        for number in range(model.vocab_size()):
            pieces.setdefault(model.id_to_piece(number), len(pieces))
    names = ["<pad>", "<unk>", "<s>", "</s>"]  # as the ids of the tiny models have them
    names += [piece for piece in pieces if piece not in names]
    (directory / "vocab.json").write_text(json.dumps({name: at for at, name in enumerate(names)}))
    return MarianTokenizer(
        str(directory / "source.model"),
        str(directory / "target.model"),
        str(directory / "vocab.json"),
        **options,
    )
