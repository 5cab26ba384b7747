"""Stored weights that do not fit are refused by name; what is new or not used is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.stored import (
    CAUSAL,
    MASKED,
    SEQ2SEQ,
    TOKENS,
    Weights,
    load,
    refusal,
    renamed,
    save,
    with_,
    without,
)
from tiny import LABELS, tiny_model

from bigft.config.sections import ModelConfig
from bigft.models.load import load_model, load_model_config
from bigft.models.weights import fit_of

# -- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "auto_class", "change", "config", "misfit"),
    [
        ("llama", CAUSAL, without("lm_head.weight"), {}, "lm_head.weight (missing)"),
        ("t5", SEQ2SEQ, without("shared.weight"), {},
         "decoder.embed_tokens.weight, encoder.embed_tokens.weight, lm_head.weight and 1 more"),
        ("llama", CAUSAL, without("model.norm.weight"), {}, "model.norm.weight (missing)"),
        ("qwen2", CAUSAL, without("model.embed_tokens.weight"), {}, "model.embed_tokens.weight"),
        ("bert", TOKENS, without("classifier.weight"), {}, "classifier.weight (missing)"),
        ("a masked LM", MASKED, without("cls.predictions.transform.dense.bias"), {},
         "cls.predictions.transform.dense.bias (missing)"),
        ("llama", CAUSAL, lambda w: w.update({"lm_head.weight": torch.ones(4, 16)}), {},
         "lm_head.weight (of another shape)"),
        ("bert", TOKENS, len, {"intermediate_size": 48},
         "bert.encoder.layer.0.intermediate.dense.bias"),
        ("llama", CAUSAL, len, {"num_hidden_layers": 1}, "model.layers.1.input_layernorm.weight"),
        ("a body", TOKENS, len, {"num_hidden_layers": 1},
         "encoder.layer.1.attention.output.LayerNorm.bias"),
        ("t5", SEQ2SEQ, with_("decoder.block.2.layer.0.layer_norm.weight"), {},
         "decoder.block.2.layer.0.layer_norm.weight (without a place)"),
        ("llama", CAUSAL, with_("model.layers.0.self_attn.q_proj.bias"), {},
         "model.layers.0.self_attn.q_proj.bias (without a place)"),
        ("llama", CAUSAL, with_("lm_head.bias"), {}, "lm_head.bias (without a place)"),
        ("bert", TOKENS, with_("bert.extra.weight"), {}, "bert.extra.weight (without a place)"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_name(
    name: str,
    auto_class: str,
    change: Callable[[Weights], Any],
    config: dict[str, Any],
    misfit: str,
    tmp_path: Path,
) -> None:
    labels = LABELS if auto_class == TOKENS else None
    said = refusal(save(tmp_path, name, change, **config), auto_class, labels)
    start = f"model.model_name_or_path: the weights of {str(tmp_path)!r} do not fit its config: "
    assert said.startswith(start)
    assert misfit in said


def test_a_missing_head_that_is_the_embedding_can_be_tied_as_the_refusal_says(
    tmp_path: Path,
) -> None:
    directory = save(tmp_path, "llama", without("lm_head.weight"))
    tie = {"tie_word_embeddings": True}
    assert "set model.config_overrides {tie_word_embeddings: true} if" in refusal(directory, CAUSAL)
    assert fit_of(load(directory, CAUSAL, config_overrides=tie)).notes == ()


# -- accepted -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "auto_class", "change"),
    [
        ("llama", CAUSAL, len),
        ("qwen2", CAUSAL, len),
        ("t5", SEQ2SEQ, len),
        ("mixtral", CAUSAL, len),  # stacked from one tensor per expert
        ("bert", TOKENS, renamed(("LayerNorm.weight", "LayerNorm.gamma"),
                                 ("LayerNorm.bias", "LayerNorm.beta"))),
        ("a masked LM", MASKED, len),
    ],
)  # fmt: skip
def test_files_that_hold_all_of_the_model_need_no_note(
    name: str, auto_class: str, change: Callable[[Weights], Any], tmp_path: Path
) -> None:
    labels = LABELS if auto_class == TOKENS else None
    assert fit_of(load(save(tmp_path, name, change), auto_class, labels)).notes == ()


def test_several_files_are_as_one(tmp_path: Path) -> None:
    tiny_model("llama", CAUSAL).save_pretrained(tmp_path, max_shard_size="10KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    assert fit_of(load(tmp_path, CAUSAL)).notes == ()


HEAD = "new, with random values, since the model's files hold none: "
UNUSED = "not used of the model's files (other heads, poolers, buffers): "


@pytest.mark.parametrize(
    ("name", "auto_class", "change", "notes"),
    [
        ("a body", TOKENS, len, [HEAD + "classifier.bias, classifier.weight"]),
        ("a body with a pooler", TOKENS, len,
         [HEAD + "classifier.bias, classifier.weight",
          UNUSED + "pooler.dense.bias, pooler.dense.weight"]),
        ("a masked LM", TOKENS, len,
         [HEAD + "classifier.bias, classifier.weight",
          UNUSED + "cls.predictions.bias, cls.predictions.transform.LayerNorm.bias, "
          "cls.predictions.transform.LayerNorm.weight, cls.predictions.transform.dense.bias, "
          "cls.predictions.transform.dense.weight"]),
        ("bert", TOKENS, with_("bert.pooler.dense.weight", "bert.embeddings.ages"),
         [UNUSED + "bert.embeddings.ages, bert.pooler.dense.weight"]),
        ("llama", TOKENS, len, [HEAD + "score.bias, score.weight", UNUSED + "lm_head.weight"]),
        ("llama", CAUSAL, with_("v_head.summary.weight"), [UNUSED + "v_head.summary.weight"]),
        ("gpt2", CAUSAL, with_("h.0.attn.masked_bias"), [UNUSED + "h.0.attn.masked_bias"]),
        ("a body", MASKED, len,
         [HEAD + "cls.predictions.bias, cls.predictions.decoder.bias, "
          "cls.predictions.transform.LayerNorm.bias, cls.predictions.transform.LayerNorm.weight, "
          "cls.predictions.transform.dense.bias, cls.predictions.transform.dense.weight"]),
    ],
)  # fmt: skip
def test_a_new_head_and_what_is_not_used_are_named(
    name: str,
    auto_class: str,
    change: Callable[[Weights], Any],
    notes: list[str],
    tmp_path: Path,
) -> None:
    labels = LABELS if auto_class == TOKENS else None
    assert [*fit_of(load(save(tmp_path, name, change), auto_class, labels)).notes] == notes


def test_layers_that_an_override_leaves_out_are_named(tmp_path: Path) -> None:
    directory = save(tmp_path, "llama")
    (note,) = fit_of(load(directory, CAUSAL, config_overrides={"num_hidden_layers": 1})).notes
    assert note.startswith("not used of the model's files (what model.config_overrides leaves out)")
    assert "model.layers.1.input_layernorm.weight" in note
    cut = save(tmp_path, "llama", num_hidden_layers=1)  # another override asks for no such thing
    assert "without a place" in refusal(cut, CAUSAL, config_overrides={"attention_dropout": 0.1})


def test_a_missing_head_is_new_where_no_label_is_one_of_the_files(tmp_path: Path) -> None:
    directory = save(tmp_path, "bert", without("classifier.weight", "classifier.bias"))
    (note,) = fit_of(load(directory, TOKENS, ["O ", "X", "Y"])).notes
    assert note == HEAD + "classifier.bias, classifier.weight"


# -- a classifier's labels ----------------------------------------------------------------------


ORDERS = {
    "another order": ([*reversed(LABELS)],
        "the rows of the head follow the names of the labels: 5 of 5 are stored"),
    "fewer": (LABELS[:3], "the rows of the head follow the names of the labels: 3 of 3 are stored; "
        "stored and not used: B-LOC, I-LOC"),
    "one for another": (["B-DRUG", *LABELS[1:]], "the rows of the head follow the names of the "
        "labels: 4 of 5 are stored; new, with random values: B-DRUG; stored and not used: O"),
    "more": ([*LABELS, "B-DRUG"], "the rows of the head follow the names of the labels: "
        "5 of 6 are stored; new, with random values: B-DRUG"),
    "others": (["a", "b", "c", "d", "e"], "new, with random values, since the stored head is for "
        f"other labels ({', '.join(LABELS)}): classifier.bias, classifier.weight"),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_rows_of_the_head_follow_the_names_of_the_labels(
    architecture: str, order: str, tmp_path: Path
) -> None:
    labels, note = ORDERS[order]
    stored = tiny_model(architecture)
    stored.save_pretrained(tmp_path)
    section = ModelConfig.model_validate({"model_name_or_path": str(tmp_path)})
    config = load_model_config(section, id2label=dict(enumerate(labels)))
    model = load_model(section, config, TOKENS)
    assert fit_of(model).notes == (note,)
    for row, label in enumerate(labels):
        old = [LABELS.index(label)] if label in LABELS else range(len(LABELS))
        for name in ("weight", "bias"):
            ours, theirs = (getattr(each.classifier, name) for each in (model, stored))
            taken = [torch.equal(ours[row], theirs[at]) for at in old]
            assert all(taken) if label in LABELS else not any(taken)
    body = f"{stored.base_model_prefix}."
    weights = model.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in stored.state_dict().items() if body in k)


@pytest.mark.parametrize(
    "stored",
    [
        ["O", "B_PER", "I_PER", "B_LOC", "I_LOC"],
        ["outside", "PER-B", "PER-I", "LOC-B", "LOC-I"],
        ["o", "b-PER", "i-PER", "b-LOC", "i-LOC"],
    ],
)
def test_rows_follow_the_names_of_labels_in_another_spelling(
    stored: list[str], tmp_path: Path
) -> None:
    names = dict(enumerate(stored))
    tiny_model("bert", id2label=names).save_pretrained(tmp_path)
    labels = [*reversed(LABELS), "B-DRUG"]
    fit = fit_of(load(tmp_path, TOKENS, labels))
    assert fit.rows == [4, 3, 2, 1, 0, None]
    (note,) = fit.notes
    assert note.endswith("5 of 6 are stored; new, with random values: B-DRUG")
    assert fit_of(load(tmp_path, TOKENS, LABELS)).notes == ()
    assert fit_of(load(tmp_path, TOKENS, stored)).notes == ()


def test_rows_without_names_are_not_taken(tmp_path: Path) -> None:
    directory = save(tmp_path, "bert", id2label=None, label2id=None)  # two labels then, by default
    (note,) = fit_of(load(directory, TOKENS, ["LABEL_0", "LABEL_1"])).notes
    assert note.startswith("new, with random values, since the stored head is for other labels")
