"""Tiny language models with data and a config in the current directory, for a run of any task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tasks.chat import CHATML, chat_tokenizer
from tiny import GROUPED, tiny_model
from tiny_seq2seq import eos_tokenizer, tiny_seq2seq
from transformers import NllbTokenizer

CAUSAL, SEQ2SEQ = "AutoModelForCausalLM", "AutoModelForSeq2SeqLM"
TIED: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "gpt2": {},
    "t5": {},
    "marian": {},
    "m2m_100": {},
}
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
}
TALK = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
PAIR = {"source": "a b", "target": "b"}
IDS_BT = torch.arange(4, 22).view(2, 9)


def is_seq2seq(architecture: str) -> bool:
    return architecture in ("t5", "marian", "m2m_100")


def auto_class(architecture: str) -> str:
    return SEQ2SEQ if is_seq2seq(architecture) else CAUSAL


def mixture(architecture: str) -> Any:
    """A mixture of experts, which files hold one by one and the model all together."""
    options = {**GROUPED, "num_experts_per_tok": 2, **MIXTURES[architecture]}
    config = transformers.AutoConfig.for_model(
        architecture, **options, vocab_size=300, pad_token_id=0
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def language_model(architecture: str) -> tuple[Any, Any]:
    """The model and its tokenizer. The config knows another end of a text than the template has."""
    if architecture in MIXTURES:
        return mixture(architecture), chat_tokenizer(CHATML)
    options = TIED.get(architecture, {})
    if architecture == "m2m_100":
        words = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", "\u2581a", "\u2581b", "a", "b"]
        vocabulary = {word: number for number, word in enumerate(words)}
        merges = [("\u2581", "a"), ("\u2581", "b")]
        return tiny_seq2seq(architecture, **options), NllbTokenizer(vocabulary, merges)
    if is_seq2seq(architecture):
        return tiny_seq2seq(architecture, **options), eos_tokenizer()
    options = {"vocab_size": 300, "num_labels": 2, **options}
    return tiny_model(architecture, CAUSAL, **options), chat_tokenizer(CHATML)


def write_run(place: Path, architecture: str) -> Path:
    """`config.yaml`, data and `base` in the directory; the config's path. Keys are added to it as
    overrides: it names train and validation, short rows and nothing else."""
    model, tokenizer = language_model(architecture)
    model.save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    task: dict[str, Any] = {"name": "causal-lm"}
    if is_seq2seq(architecture):
        task = {"name": "seq2seq", "max_target_length": 16, "generation": {"max_new_tokens": 4}}
    if architecture == "m2m_100":
        task |= {"source_lang": "eng_Latn", "target_lang": "zho_Hans"}
    data = place / "data.jsonl"
    row = PAIR if is_seq2seq(architecture) else TALK
    data.write_text(4 * (json.dumps(row) + "\n"))
    config = {
        "task": task,
        "model": {"model_name_or_path": str(place / "base"), "dropout": 0.0},
        "data": {**dict.fromkeys(("train_file", "validation_file"), str(data)),
                 "max_seq_length": 48},
        "train": {"output_dir": str(place / "out")},
    }  # fmt: skip
    path = place / "config.yaml"
    path.write_text(json.dumps(config))  # which YAML reads
    return path


def logits(model: Any, architecture: str) -> torch.Tensor:
    inputs = {"input_ids": IDS_BT}
    if is_seq2seq(architecture):
        inputs["decoder_input_ids"] = IDS_BT
    with torch.no_grad():
        answer: torch.Tensor = model.eval()(**inputs).logits
    return answer


def plain(directory: Path, architecture: str) -> Any:
    """What transformers, knowing nothing of bigft, loads; every weight of the files has its place,
    and none is new."""
    factory = getattr(transformers, auto_class(architecture))
    model, info = factory.from_pretrained(directory, output_loading_info=True)
    assert not any(info.values()), info
    return model
