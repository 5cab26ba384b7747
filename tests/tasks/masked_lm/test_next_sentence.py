"""Pairs as rows and batches, and the loss of both heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tasks.masked import CLS, SEP, masked_task, texts
from tiny import distance, head_gradients, letter_tokenizer, tiny_model
from tokenizers import processors
from torch.nn import functional as F

from bigft.config.errors import BadInput
from bigft.data.records import IGNORE_INDEX, Batch, Row
from bigft.models.heads.choose import choose_head
from bigft.models.heads.swap import head_of
from bigft.runtime.process_group import World
from bigft.runtime.seeding import address

DOCUMENTS = [
    "abc\nde\nfgh\nij\nklm",
    "nop\nqrs\ntu\nvwx",
    "yz\nabcd\nefg",
]


def pair_tokenizer() -> Any:
    tokenizer = letter_tokenizer(mask_token="[MASK]")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return tokenizer


def pair_task(**options: Any) -> Any:
    keys = {"max_length": 14, "next_sentence_prediction": True, "mlm_probability": 0.4}
    return masked_task(pair_tokenizer(), **{**keys, **options})


def rows_of(one: Any) -> list[Row]:
    encoded = list(one.encode_all(texts(*DOCUMENTS)))
    return [row for rows in encoded for row in rows if isinstance(row, Row)]


def batch_of(one: Any) -> Batch:
    return one.collate([replace(row, draw=address(n)) for n, row in enumerate(rows_of(one))])


def test_a_row_is_a_pair_as_the_tokenizer_frames_it() -> None:
    one = pair_task(masking="whole_word")
    rows = rows_of(one)
    labels = [row.columns["next_sentence_label"] for row in rows]
    assert {*map(tuple, labels)} == {(0,), (1,)}
    for row in rows:
        ids_T, (second,) = row.columns["input_ids"], row.columns["second"]
        assert ids_T[0] == CLS
        assert [at for at, token in enumerate(ids_T) if token == SEP] == [
            second - 1,
            len(ids_T) - 1,
        ]
        assert len(ids_T) <= 14
        assert row.num_targets == len(ids_T) - 3
        assert row.columns["continues"][second] == 0
    batch = one.collate(rows)
    for row, types_T in zip(rows, batch.inputs["token_type_ids"].tolist(), strict=True):
        (second,) = row.columns["second"]
        assert types_T[: row.length] == [0] * second + [1] * (row.length - second)


def test_a_second_run_that_follows_does_so_and_a_foreign_one_is_of_another_document() -> None:
    one = pair_task(max_length=40)
    lines = [document.replace("\n", "") for document in DOCUMENTS]
    for row in rows_of(one):
        names = one._tokenizer.convert_ids_to_tokens(row.columns["input_ids"])
        text = "".join(name.removeprefix("##") for name in names)
        first, second, _ = text.removeprefix("[CLS]").split("[SEP]")
        own = lines[row.record]
        assert first in own
        if row.columns["next_sentence_label"] == [0]:
            assert first + second in own
        else:
            assert any(second in line for n, line in enumerate(lines) if n != row.record)


def test_the_loss_is_that_of_both_heads_and_a_pair_weighs_what_its_row_has_on_average() -> None:
    one = pair_task()
    batch = batch_of(one)
    model, plain = (tiny_model("bert", "AutoModelForPreTraining").double() for _ in range(2))
    one.attach_head(model)
    assert one.auto_class == "AutoModelForPreTraining"
    assert type(one).auto_class == "AutoModelForMaskedLM"
    with torch.no_grad():
        predicted = one.predict(model, batch)
        names = ("input_ids", "attention_mask", "token_type_ids")
        output = plain(**{name: batch.inputs[name] for name in names})
    pairs_B, labels_BT = batch.labels[:, 0], batch.labels[:, 1:]
    tokens = F.cross_entropy(
        output.prediction_logits.flatten(0, 1), labels_BT.flatten(), reduction="sum"
    )
    pairs = F.cross_entropy(output.seq_relationship_logits, pairs_B, reduction="none")
    weights = [0.4 * row.num_targets for row in batch.rows]
    expected = tokens + (pairs * torch.tensor(weights, dtype=torch.float64)).sum()
    assert predicted.loss_sum.item() == pytest.approx(expected.item(), rel=1e-6)
    assert batch.num_targets == int((labels_BT != IGNORE_INDEX).sum())
    metric = one.metric()
    metric.update([one.stitch([part], texts("x")[0]) for part in predicted.parts], [])
    scores = metric.compute()
    right = output.seq_relationship_logits.argmax(dim=-1) == pairs_B
    assert scores["perplexity"] == pytest.approx(
        float((tokens / batch.num_targets).exp()), rel=1e-6
    )
    assert scores["next_sentence_loss"] == pytest.approx(float(pairs.mean()), rel=1e-6)
    assert scores["next_sentence_accuracy"] == float(right.double().mean())
    merged = one.metric()
    for _ in range(2):
        merged.merge(metric.state())
    assert merged.compute() == pytest.approx(scores)


def test_gradients_are_those_of_plain_transformers_fused_and_not() -> None:
    one = pair_task()
    batch = batch_of(one)
    weight_B = batch.inputs["next_sentence_weight_B"]
    plain = tiny_model("bert", "AutoModelForPreTraining")
    names = ("input_ids", "attention_mask", "token_type_ids")
    output = plain(**{name: batch.inputs[name] for name in names})
    labels_BT = batch.labels[:, 1:]
    loss = F.cross_entropy(
        output.prediction_logits.flatten(0, 1), labels_BT.flatten(), reduction="sum"
    )
    pairs = F.cross_entropy(output.seq_relationship_logits, batch.labels[:, 0], reduction="none")
    (loss + (pairs * weight_B).sum()).backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    for fused in (False, True):
        model = tiny_model("bert", "AutoModelForPreTraining")
        one.attach_head(model)
        world = World(0, 0, 1, torch.device("cpu"), None)
        choice = choose_head(model, batch.inputs, batch.labels, fused, world)
        assert choice.fused == fused, choice
        head_of(model).model.training = True
        found = head_gradients(model, batch.inputs, batch.labels, None)
        assert distance(found, expected) < 1e-5, fused


def test_a_batch_without_targets_has_no_loss_of_pairs_either() -> None:
    one = pair_task()
    model = tiny_model("bert", "AutoModelForPreTraining")
    one.attach_head(model)
    output = one._forward(model, batch_of(one).without_targets(), 1.0)
    assert output.loss_sum.item() == 0.0
    output.loss.backward()
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


def test_a_model_without_that_head_is_refused() -> None:
    one = pair_task()
    with pytest.raises(BadInput) as refused:
        one.attach_head(tiny_model("roberta", "AutoModelForPreTraining"))
    assert str(refused.value) == (
        "task.next_sentence_prediction: true, but RobertaForMaskedLM has no head for it; set it to "
        "false, or choose a model that has one (BERT, MegatronBERT, ERNIE, FNet)"
    )


def test_a_document_that_is_alone_is_refused() -> None:
    (answer,) = pair_task().encode_all(texts(DOCUMENTS[0]))
    assert str(answer) == (
        "a.txt:1: no other document is read together with it: what could be foreign to it?; give "
        "more documents, or set data.sample_by to paragraph"
    )
