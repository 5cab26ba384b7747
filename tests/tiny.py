"""Tokenizers and models that are built in milliseconds and behave like the big ones."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
POSITIONS = 64
SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": POSITIONS,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": SHAPE,
    "distilbert": {
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 32,
        "max_position_embeddings": POSITIONS,
    },
    # Positions are counted from pad_token_id + 1.
    "roberta": SHAPE | {"max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1},
    "electra": SHAPE | {"embedding_size": 16},
    "deberta-v2": SHAPE | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "modernbert": SHAPE | {"eos_token_id": 3, "bos_token_id": 2, "cls_token_id": 2,
                           "sep_token_id": 3},
}  # fmt: skip
GROUPED = SHAPE | {"num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3}
DECODERS: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS,
             "bos_token_id": 2, "eos_token_id": 3},
    # What these do to their logits is part of the loss.
    "gemma2": GROUPED | {"head_dim": 8, "final_logit_softcapping": 2.0},
    "granite": GROUPED | {"logits_scaling": 4.0},
    "cohere": GROUPED | {"logit_scale": 0.25},
}  # fmt: skip


def letter_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """BERT's kind, WordPiece: a word of n letters is n tokens; a zero-width space is dropped."""
    letters = string.ascii_lowercase
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    specials = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names_of_inputs = ["input_ids", "token_type_ids", "attention_mask"]
    defaults = {"pad_token": "[PAD]", "model_input_names": names_of_inputs}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **specials, **{**defaults, **options}
    )


def byte_tokenizer(
    merges: Sequence[tuple[str, str]] = (), **options: Any
) -> PreTrainedTokenizerFast:
    """RoBERTa's kind, byte-level: without merges a word of n letters is n + 1 tokens, its space
    the first."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", "<unk>", "<s>", "</s>", *letters, *map("".join, merges)]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 3), ("<s>", 2))
    specials = {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **specials, **{"pad_token": "<pad>", **options}
    )


def tiny_config(architecture: str = "bert", **options: Any) -> PretrainedConfig:
    """Room for both tokenizers; LABELS unless the options say otherwise."""
    labels = {} if "num_labels" in options else {"id2label": dict(enumerate(LABELS))}
    return AutoConfig.for_model(
        architecture,
        **{
            "vocab_size": 260,
            "pad_token_id": 0,
            **(ARCHITECTURES | DECODERS)[architecture],
            **labels,
            **options,
        },
    )


def tiny_model(
    architecture: str = "bert",
    auto_class: str = "AutoModelForTokenClassification",
    **options: Any,
) -> PreTrainedModel:
    """Random weights, the same at every call; in evaluation mode."""
    torch.manual_seed(0)
    factory = getattr(transformers, auto_class)
    model: PreTrainedModel = factory.from_config(tiny_config(architecture, **options)).eval()
    # Transformers starts biases at zero and weights at 0.02: nothing could tell them from nothing.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def save_tiny(
    directory: Path,
    architecture: str = "bert",
    tokenizer: PreTrainedTokenizerFast | None = None,
    **options: Any,
) -> Path:
    """The directory, with a model and a tokenizer that AutoModel and AutoTokenizer load."""
    tiny_model(architecture, **options).save_pretrained(directory)
    (tokenizer or letter_tokenizer()).save_pretrained(directory)
    return directory


def head_gradients(
    model: Any, inputs: dict[str, torch.Tensor], labels_BT: torch.Tensor, dtype: torch.dtype | None
) -> dict[str, torch.Tensor]:
    """By name, of a model with a head attached; dtype: of autocast, None without."""
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        output = model(labels_BT=labels_BT, **inputs)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm, all tensors together."""
    assert list(ours) == list(theirs)
    error = sum((ours[name] - theirs[name]).double().square().sum() for name in ours)
    size = sum(theirs[name].double().square().sum() for name in theirs)
    return float(error / size) ** 0.5
