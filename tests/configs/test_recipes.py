"""Every recipe takes a step on a tiny model of its architecture: its own keys, other sizes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from configs.scenarios import train
from distributed.ranks import run_ranks
from tiny import letter_tokenizer, tiny_model
from tiny_seq2seq import marian_tokenizer, tiny_seq2seq
from transformers import (
    AutoTokenizer,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from bigft.config import load_config, resolved_yaml

pytestmark = pytest.mark.distributed

REPOSITORY = Path(__file__).resolve().parents[2]
# Of 8B and 70B, as of Qwen2.5 7B: several heads share keys and values, the head is not tied.
SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}
CHAT = [
    [("user", "What is 2 plus 3?"), ("assistant", "5")],
    [("system", "Be short."), ("user", "Hello!"), ("assistant", "Hi."), ("user", "And you?"),
     ("assistant", "Fine.")],
    [("user", "Sort: 3 1 2."), ("assistant", "1 2 3")],
]  # fmt: skip
REASONING = [
    {"question": "Ann has 2 pens and buys 3. How many?", "answer": "2 + 3 = 5\n#### 5"},
    {"question": "Bob eats 1 of 4 figs. How many are left?", "answer": "4 - 1 = 3\n#### 3"},
]
INTENTS = [["is it here", "arrival"], ["pay it", "payment"], ["when is it here", "arrival"]]
PAIRS = [("ab c", "你好"), ("bcd", "再见"), ("a b", "你好。"), ("abc", "再见。")]


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`stand_in("llama")`: the directory of a tiny model and its tokenizer."""

    def made(architecture: str) -> Path:
        directory = tmp_path_factory.mktemp(architecture)
        if architecture == "marian":
            tokenizer = marian_tokenizer(directory / "pieces", model_max_length=512)
            model = tiny_seq2seq("marian", max_position_embeddings=512, vocab_size=len(tokenizer))
        elif architecture == "bert":
            tokenizer = letter_tokenizer(mask_token="[MASK]")
            model = tiny_model("bert", "AutoModel", max_position_embeddings=512)
        else:
            tokenizer = AutoTokenizer.from_pretrained(REPOSITORY / "examples/tiny_llama")
            model = {
                "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_theta=500000.0)),
                "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE | {"vocab_size": 2056})),
            }[architecture]()
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return directory

    return made


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    roles = ("role", "content")
    chats = [{"messages": [dict(zip(roles, turn, strict=True)) for turn in chat]} for chat in CHAT]
    for name, rows in {"chat.jsonl": chats * 2, "reasoning.jsonl": REASONING * 2}.items():
        lines = [json.dumps(row) + "\n" for row in rows]
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    lines = [f"{source}\t{target}\tby hand\n" for source, target in PAIRS]
    (tmp_path / "domain.txt").write_text("the pain is in the knee\n\nno fever\n\n" * 9)
    (tmp_path / "ner.conll").write_text("pain B-SIGN\nin O\nknee B-PART\n\nno O\nfever B-SIGN\n\n")
    (tmp_path / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def run_of(recipe: str, place: Path, **overrides: Any) -> dict[str, Any]:
    """One step of the recipe with what a tiny machine needs changed, and nothing else."""
    changed = {
        "train.output_dir": place / "run",
        "train.max_steps": 1,
        "train.per_device_train_batch_size": 2,
        **{name.replace("__", "."): value for name, value in overrides.items()},
    }
    words = [f"{key}={json.dumps(value, default=str)}" for key, value in changed.items()]
    config = load_config(str(REPOSITORY / "configs" / f"{recipe}.yaml"), words).config
    (answer,) = run_ranks(train, 1, yaml.safe_load(resolved_yaml(config)))
    assert answer["results"]["step"] == 1
    assert 0 < answer["results"]["train_loss"] < 20
    (step,) = [event for event in answer["log"] if event["event"] == "log"]
    assert math.isfinite(step["grad_norm"])
    assert step["grad_norm"] > 0
    return answer


def chat_files(data: Path) -> dict[str, Any]:
    return {
        "data__train_file": data / "chat.jsonl",
        "data__validation_file": data / "chat.jsonl",
        "data__max_seq_length": 128,
    }


def trainable(answer: dict[str, Any]) -> int:
    (start,) = [event for event in answer["log"] if event["event"] == "start"]
    number: int = start["trainable_parameters"]
    return number


def test_llama3_8b_lora(stand_in: Any, data: Path) -> None:
    answer = run_of(
        "llama3_8b_lora",
        data,
        model__model_name_or_path=stand_in("llama"),
        data__dataset_name=None,
        data__dataset_config_name=None,
        data__train_file=data / "reasoning.jsonl",
        data__test_file=data / "reasoning.jsonl",
        data__max_seq_length=128,
        task__generation__max_new_tokens=4,
        train__global_batch_size=4,
    )
    # Of both layers q, o: 64x64; k, v: 64x16; gate, up, down: 64x128, each with a pair of rank 8.
    assert trainable(answer) == 2 * 8 * (2 * (64 + 64) + 2 * (64 + 16) + 3 * (64 + 128))
    assert "test_exact_match" in answer["results"]
    assert (data / "run/model/adapter_model.safetensors").is_file()


def test_llama3_8b_full_zero3(stand_in: Any, data: Path) -> None:
    llama = stand_in("llama")
    answer = run_of(
        "llama3_8b_full_zero3",
        data,
        model__model_name_or_path=llama,
        model__tokenizer_name=llama,
        train__global_batch_tokens=256,
        train__per_device_eval_batch_size=2,
        **chat_files(data),
    )
    (start,) = [event for event in answer["log"] if event["event"] == "start"]
    assert start["zero_stage"] == 3
    assert trainable(answer) == sum(
        p.numel() for p in LlamaForCausalLM.from_pretrained(llama).parameters()
    )
    assert "eval_perplexity" in answer["results"]
    saved = LlamaForCausalLM.from_pretrained(data / "run/model")
    assert saved.lm_head.weight is not saved.model.embed_tokens.weight


def test_llama3_70b_qlora(stand_in: Any, data: Path) -> None:
    answer = run_of(
        "llama3_70b_qlora",
        data,
        model__model_name_or_path=stand_in("llama"),
        train__global_batch_size=2,
        train__per_device_train_batch_size=1,
        **chat_files(data),
    )
    assert (
        answer["kinds"]["bitsandbytes.Linear4bit"] == 2 * 7
    )  # each with an adapter, and really in 4 bits
    assert trainable(answer) == 2 * 64 * (2 * (64 + 64) + 2 * (64 + 16) + 3 * (64 + 128))
    assert (data / "run/model/adapter_model.safetensors").is_file()


def test_qwen2_5_7b_lora(stand_in: Any, data: Path) -> None:
    answer = run_of(
        "qwen2_5_7b_lora",
        data,
        model__model_name_or_path=stand_in("qwen2"),
        train__global_batch_size=4,
        **chat_files(data),
    )
    assert trainable(answer) == 2 * 64 * (2 * (64 + 64) + 2 * (64 + 16) + 3 * (64 + 128))
    assert "eval_token_accuracy" in answer["results"]


def test_opus_mt_en_zh(stand_in: Any, data: Path) -> None:
    answer = run_of(
        "opus_mt_en_zh",
        data,
        model__model_name_or_path=stand_in("marian"),
        **{f"data__{split}_file": data / "pairs.tsv" for split in ("train", "validation", "test")},
        task__generation__max_new_tokens=4,
        train__global_batch_size=4,
    )
    results = answer["results"]
    assert {"eval_bleu", "eval_chrf", "test_bleu", "test_perplexity"} <= set(results)
    reports = [event["text"] for event in answer["log"] if event["event"] == "report"]
    assert all("|tok:zh|" in text for text in reports)


def test_tiny_llama(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    answer = run_of(
        "tiny_llama",
        data,
        task__generation__max_new_tokens=2,
        data__max_train_samples=100,
        data__max_eval_samples=4,
    )
    assert trainable(answer) == 1_262_720
    assert {"eval_exact_match", "test_exact_match"} <= set(answer["results"])


def test_banking77(stand_in: Any, data: Path) -> None:
    lines = ["text,category", *map(",".join, INTENTS * 2)]
    (data / "intents.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    answer = run_of(
        "banking77",
        data,
        model__model_name_or_path=stand_in("bert"),
        data__train_file=data / "intents.csv",
        data__test_file=data / "intents.csv",
    )
    assert {"test_accuracy", "test_macro_f1", "test_calibration_error"} <= set(answer["results"])


def test_clinc150(stand_in: Any, data: Path) -> None:
    file = data / "data_full.json"
    foreign = [["a b", "oos"], ["c", "oos"]]
    lists = {"train": INTENTS, "val": INTENTS, "test": INTENTS}
    lists |= {"oos_train": foreign, "oos_val": foreign, "oos_test": foreign}
    file.write_text(json.dumps(lists), encoding="utf-8")
    parts = {"train": "train", "validation": "val", "test": "test"}
    answer = run_of(
        "clinc150",
        data,
        model__model_name_or_path=stand_in("bert"),
        **{f"data__{split}_file": [f"{file}#{name}", f"{file}#oos_{name}"]
           for split, name in parts.items()},
    )  # fmt: skip
    scores = {"in_scope_accuracy", "out_of_scope_recall", "out_of_scope_roc_auc"}
    assert {f"{split}_{name}" for split in ("eval", "test") for name in scores} <= {
        *answer["results"]
    }
    config = json.loads((data / "run/model/config.json").read_text())
    assert config["id2label"] == {"0": "arrival", "1": "oos", "2": "payment"}
    assert 0 < config["decision_threshold"] < 1


def test_dapt_text_and_dapt_ner_that_goes_on_from_it(stand_in: Any, data: Path) -> None:
    """The second takes the first one's run directory for its model."""
    answer = run_of(
        "dapt_text",
        data,
        model__model_name_or_path=stand_in("bert"),
        data__train_file=data / "domain.txt",
        data__validation_file=data / "domain.txt",
    )
    assert {"eval_perplexity", "eval_masked_lm_accuracy"} <= set(answer["results"])
    (data / "run").rename(data / "adapted")
    (data / "adapted/run.json").write_text("{}")
    splits = {
        f"data__{split}_file": data / "ner.conll" for split in ("train", "validation", "test")
    }
    model = {"model__model_name_or_path": data / "adapted"}
    answer = run_of("dapt_ner", data, train__output_dir=data / "tagged", **model, **splits)
    assert "test_f1" in answer["results"]
    adapted, tagged = (
        BertModel.from_pretrained(data / name / "model").encoder.layer[1].output.dense.weight
        for name in ("adapted", "tagged")
    )
    assert torch.equal(adapted, tagged)  # the first step of a warm-up has the rate 0


def write_squad(path: Path, context: str, answers: list[tuple[str, int]]) -> Path:
    asked = [
        {"id": str(at), "question": "who?", "answers": [{"text": text, "answer_start": start}]}
        for at, (text, start) in enumerate(answers)
    ]
    document = {"data": [{"paragraphs": [{"context": context, "qas": asked}]}]}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("recipe", "context", "answers"),
    [
        ("qa_xquad_en", "ann met bob in ulm", [("ann", 0), ("bob", 8)]),
        # One of them stands elsewhere, and is dropped.
        ("qa_cmrc2018", "ann 来到乌尔姆 bob 没有", [("乌尔姆", 6), ("没有", 14), ("没有", 13)]),
    ],
)
def test_question_answering(
    stand_in: Any, data: Path, recipe: str, context: str, answers: list[tuple[str, int]]
) -> None:
    file = write_squad(data / "squad.json", context, answers)
    answer = run_of(
        recipe,
        data,
        model__model_name_or_path=stand_in("bert"),
        data__train_file=file,
        data__test_file=file,
    )
    assert {"test_exact_match", "test_f1"} <= {*answer["results"]}
    assert answer["results"]["test_samples"] == 2
    (report,) = [event["text"] for event in answer["log"] if event["event"] == "report"]
    name = "CMRC 2018's" if recipe == "qa_cmrc2018" else "SQuAD's"
    assert report.startswith(f"Answers, as {name} script scores them")
