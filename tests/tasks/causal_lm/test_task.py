"""What a conversation or a text becomes, what is learnt of it, and what is generated."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tasks.causal import causal_model, causal_task, config, talk, targets
from tasks.chat import BARE, CHATML, GEMMA, LLAMA, MISTRAL, THINKING, chat_tokenizer
from tiny import byte_tokenizer
from tokenizers import processors

from bigft.config.errors import BadInput
from bigft.data.records import IGNORE_INDEX, Record
from bigft.tasks.causal_lm import CausalLM

TEMPLATES = [CHATML, LLAMA, MISTRAL, GEMMA, THINKING, BARE, None]


def without_bos() -> Any:
    tokenizer = chat_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()
    return tokenizer


def text_of(task: CausalLM, feature: Any) -> str:
    return "".join(text for text, _ in task.preview(feature))


# -- conversations ------------------------------------------------------------------------------


def test_labels_are_the_next_tokens_of_the_answers() -> None:
    task = causal_task()
    (feature,) = task.encode(talk("ab", "cd", "e", "f"))
    ids_T = feature.columns["input_ids"]
    assert targets(task, feature) == ["cd<|im_end|>", "f<|im_end|>"]
    assert feature.num_targets == 5
    assert feature.columns["labels"][-1] == IGNORE_INDEX
    for at, label in enumerate(feature.columns["labels"][:-1]):
        assert label in (IGNORE_INDEX, ids_T[at + 1])
    assert (feature.window, feature.num_windows, feature.lost_targets) == (0, 1, 0)


def test_what_follows_the_last_target_is_no_token_of_the_row() -> None:
    task = causal_task()
    (feature,) = task.encode(talk("ab", "cd"))
    assert text_of(task, feature).endswith("cd<|im_end|>")


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_prompt_is_what_the_model_is_asked_with(template: str | None) -> None:
    """So it is generated from what it was trained on; without BARE's space, which it writes."""
    task = causal_task(template=template)
    form = {"form": "instruction"} if template is None else {}
    (feature,) = task.encode(talk("ab", "cd", **form))
    (asked,) = task.encode_prompt(talk("ab", **form))
    (n,) = feature.columns["prompt"]
    assert feature.columns["input_ids"][:n] == asked.columns["input_ids"]
    assert asked.columns["prompt"] == [asked.length]
    assert asked.num_targets == 0


@pytest.mark.parametrize("template", [LLAMA, MISTRAL, GEMMA, None])
def test_bos_stands_once(template: str | None) -> None:
    task = causal_task(template=template)
    form = {"form": "prompt"} if template is None else {}
    (feature,) = task.encode(talk("ab", "cd", **form))
    assert [at for at, token in enumerate(feature.columns["input_ids"]) if token == 2] == [0]


def test_only_the_last_answer_with_mask_history() -> None:
    task = causal_task(task={"mask_history": True})
    (feature,) = task.encode(talk("ab", "cd", "e", "f"))
    assert targets(task, feature) == ["f<|im_end|>"]


@pytest.mark.parametrize("assistant_only_loss", [True, False])
def test_a_turn_marked_as_not_to_be_learnt_is_no_target(assistant_only_loss: bool) -> None:
    task = causal_task(task={"assistant_only_loss": assistant_only_loss})
    marked = talk("ab", "cd", "e", "f")
    marked.fields["messages"][1]["weight"] = 0
    (feature,) = task.encode(marked)
    (whole,) = task.encode(talk("ab", "cd", "e", "f"))
    assert feature.columns["input_ids"] == whole.columns["input_ids"]
    pairs = zip(feature.columns["labels"], whole.columns["labels"], strict=True)
    left_out = [label for ours, label in pairs if ours != label]
    assert task.tokenizer.decode(left_out) == "cd<|im_end|>"


def test_every_token_without_assistant_only_loss() -> None:
    task = causal_task(task={"assistant_only_loss": False, "predict_with_generate": True})
    (feature,) = task.encode(talk("ab", "cd"))
    assert feature.columns["labels"] == [*feature.columns["input_ids"][1:], IGNORE_INDEX]
    before = feature.columns["input_ids"][: feature.columns["prompt"][0]]
    assert task.tokenizer.decode(before).endswith("<|im_start|>assistant\n")


def test_answers_whose_history_is_rewritten_are_rows_of_one_record() -> None:
    task = causal_task(template=THINKING)
    features = task.encode(talk("a", "<think>x</think>b", "c", "<think>y</think>d", index=5))
    assert [(f.record, f.window, f.num_windows) for f in features] == [(5, 0, 2), (5, 1, 2)]
    assert [targets(task, f) for f in features] == [
        ["<think>x</think>b<|im_end|>"],
        ["<think>y</think>d<|im_end|>"],
    ]
    assert features[0].columns["prompt"] == [0]
    assert features[1].columns["prompt"] != [0]


def test_a_token_over_the_border_is_learnt() -> None:
    joined = BARE.replace(": ", "").replace("assistant:", "assistant")
    tokenizer = byte_tokenizer([("t", "c")], eos_token="</s>", chat_template=joined)
    task = causal_task(tokenizer=tokenizer)
    (feature,) = task.encode(talk("ab", "cd"))
    first = feature.columns["labels"].index(
        next(x for x in feature.columns["labels"] if x != IGNORE_INDEX)
    )
    assert tokenizer.convert_ids_to_tokens(feature.columns["labels"][first]) == "tc"


def test_a_long_conversation_is_cut_at_the_right() -> None:
    whole = causal_task().encode(talk("ab", "cdefgh", "i", "jk"))[0]
    task = causal_task(whole.columns["prompt"][0] - 20)
    (cut,) = task.encode(talk("ab", "cdefgh", "i", "jk"))
    assert cut.columns["input_ids"] == whole.columns["input_ids"][: cut.length]
    assert targets(task, cut) == ["cdefgh<|im_end|>"]
    assert cut.lost_targets == 3
    assert cut.columns["prompt"] == [0]


def test_the_first_token_beyond_the_bound_is_lost_as_a_target() -> None:
    whole = causal_task().encode(talk("ab", "cdefgh"))[0]
    (cut,) = causal_task(whole.length - 2).encode(talk("ab", "cdefgh"))
    assert (cut.num_targets, cut.lost_targets) == (whole.num_targets - 2, 2)
    assert cut.length == whole.length - 2
    assert cut.columns["labels"][-1] == IGNORE_INDEX


def test_an_answer_beyond_the_bound_is_refused_by_name() -> None:
    with pytest.raises(BadInput) as caught:
        causal_task(10).encode(talk("a long question", "cd"))
    assert str(caught.value) == (
        "d.jsonl:1: its 3 targets stand beyond the first 10 tokens: nothing is left to learn; "
        "raise data.max_seq_length, or delete the sample"
    )


def test_a_row_that_lost_all_is_left_out_and_counted() -> None:
    record = talk("a", "<think>x</think>b", "c" * 40, "<think>y</think>d")
    rows = causal_task(template=THINKING).encode(record)
    (kept,) = causal_task(rows[0].length, template=THINKING).encode(record)
    assert (kept.window, kept.num_windows) == (0, 1)
    assert kept.lost_targets == rows[1].num_targets


def test_an_answer_to_an_empty_prompt_is_refused() -> None:
    task = causal_task(tokenizer=without_bos())
    with pytest.raises(BadInput, match=r"d\.jsonl:1: every token is a target: nothing stands "):
        task.encode(talk("", "cd", form="prompt"))


# -- plain text ---------------------------------------------------------------------------------


def plain(text: str) -> Record:
    return Record(0, {"text": text}, "d.txt", 3)


def test_a_text_is_windows_that_do_not_overlap_and_ends_with_eos() -> None:
    task = causal_task(5)
    features = task.encode(plain("abcdefgh"))
    assert [text_of(task, f) for f in features] == ["<s>abcd", "efgh</s>"]
    assert [targets(task, f) for f in features] == [["abcd"], ["fgh</s>"]]
    assert [(f.window, f.num_windows) for f in features] == [(0, 2), (1, 2)]


def test_a_window_of_a_lone_token_teaches_nothing_and_is_left_out() -> None:
    task = causal_task(5)
    (feature,) = task.encode(plain("abcd"))
    assert text_of(task, feature) == "<s>abcd"


def test_a_text_without_a_bound_is_one_row() -> None:
    (feature,) = causal_task().encode(plain("ab" * 500))
    assert feature.length == 1002


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("<s>ab</s>", "<s>ab</s>"),
        ("<s>ab", "<s>ab</s>"),
        ("ab</s>", "<s>ab</s>"),
        ("<s>ab</s>\n", "<s>ab</s>\n"),  # as templates end a turn
        ("\n<s>ab", "\n<s>ab</s>"),
        ("<s>ab</s><s>cd", "<s>ab</s><s>cd</s>"),
    ],
)
def test_bos_and_eos_are_added_where_a_text_lacks_them(text: str, row: str) -> None:
    task = causal_task()
    (feature,) = task.encode(plain(text))
    assert text_of(task, feature) == row


def test_a_pair_that_holds_bos_and_eos_gets_no_second_ones() -> None:
    task = causal_task(template=None)
    (expected,) = task.encode(talk("ab", "cd", form="prompt"))
    assert text_of(task, expected) == "<s>abcd</s>"
    (feature,) = task.encode(talk("<s>ab", "cd</s>", form="prompt"))
    assert (feature.columns["input_ids"], feature.columns["labels"]) == (
        expected.columns["input_ids"],
        expected.columns["labels"],
    )
    (asked,) = task.encode_prompt(talk("<s>ab", form="prompt"))
    assert text_of(task, asked) == "<s>ab"
    (expected,) = task.encode(talk("ab", "cd", form="instruction"))
    assert text_of(task, expected).startswith("<s>### Instruction:\nab")
    for turns in (("ab", "cd</s>"), ("<s>ab", "cd"), ("<s>ab", "cd</s>")):
        (feature,) = task.encode(talk(*turns, form="instruction"))
        assert (feature.columns["input_ids"], feature.notes) == (expected.columns["input_ids"], ())
    (asked,) = task.encode_prompt(talk("<s>ab", form="instruction"))
    assert text_of(task, asked) == "<s>### Instruction:\nab\n\n### Response:\n"
    task = causal_task(tokenizer=without_bos(), template=None)
    (feature,) = task.encode(talk(" ab", "cd", form="instruction"))
    assert text_of(task, feature).startswith("### Instruction:\n ab")


def test_nothing_is_generated_from_plain_text() -> None:
    task = causal_task(task={"predict_with_generate": True})
    with pytest.raises(BadInput) as caught:
        task.encode(plain("ab"))
    assert str(caught.value) == (
        "task.predict_with_generate: plain text holds no prompt to answer; set it to false"
    )


# -- options ------------------------------------------------------------------------------------


def test_a_pattern_that_is_no_regular_expression() -> None:
    with pytest.raises(BadInput) as caught:
        causal_task(task={"exact_match_pattern": "(a"})
    assert str(caught.value) == (
        "task.exact_match_pattern: '(a' is no regular expression (missing ), unterminated "
        "subpattern at position 0); fix it"
    )


def test_the_splits_that_the_config_names_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"q": "a", "r": "b"}\n{"q": "c", "r": ""}\n')
    names = {"text_column_name": "q", "label_column_name": "r"}
    data = {"train_file": [str(file)], "test_file": [str(file)], **names}
    splits, labels = CausalLM.read(config(data=data))
    assert (list(splits), labels) == (["train", "test"], [])
    with pytest.raises(BadInput, match=r"a.jsonl:2: `r`, the assistant's answer, is empty"):
        list(splits["test"])


# -- answers ------------------------------------------------------------------------------------


def test_a_prediction_counts_what_the_stock_model_says() -> None:
    task, model = causal_task(), causal_model()
    rows = [talk("ab", "cd"), talk("e", "fgh", "i", "j", index=1)]
    features = [feature for row in rows for feature in task.encode(row)]
    batch = task.collate(features)
    with torch.no_grad():
        logits_BTV = model(**batch.inputs).logits
    task.attach_head(model)
    predicted = task.predict(model, batch)
    for row, part in enumerate(predicted.parts):
        at = batch.labels[row] != IGNORE_INDEX
        loss = torch.nn.functional.cross_entropy(
            logits_BTV[row][at], batch.labels[row][at], reduction="sum"
        )
        right = (logits_BTV[row][at].argmax(-1) == batch.labels[row][at]).sum()
        assert part["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert (part["targets"], part["correct"]) == (int(at.sum()), int(right))
    total = sum(part["loss"] for part in predicted.parts)
    assert predicted.loss_sum.item() == pytest.approx(total, rel=1e-6)


def test_the_loss_is_scaled_and_its_gradient_is_the_stock_models() -> None:
    task, ours, theirs = causal_task(), causal_model(), causal_model()
    batch = task.collate(task.encode(talk("ab", "cd")))
    logits_BTV = theirs(**batch.inputs).logits
    loss = torch.nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1), batch.labels.flatten(), reduction="sum"
    )
    (0.25 * loss).backward()
    task.attach_head(ours.train())
    answer = task.loss(ours, batch, 0.25)
    answer.scaled.backward()
    assert answer.loss_sum.item() == pytest.approx(loss.item(), rel=1e-6)
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6), name


def test_a_batch_without_targets_weighs_nothing() -> None:
    task, model = causal_task(), causal_model()
    task.attach_head(model)
    batch = task.collate(task.encode(talk("ab", "cd"))).without_targets()
    assert task.loss(model, batch, 1.0).loss_sum.item() == 0
    assert task.predict(model, batch).parts == [{"loss": 0.0, "targets": 0, "correct": 0}]


def test_evaluation_generates_from_the_prompt_of_the_last_answer() -> None:
    options = {"predict_with_generate": True, "generation": {"max_new_tokens": 4}}
    task, model = causal_task(task=options), causal_model()
    task.attach_head(model)
    record = talk("ab", "cd", "e", "fg")
    (part,) = task.predict(model, task.collate(task.encode(record))).parts
    (asked,) = task.encode_prompt(talk("ab", "cd", "e"))
    (answer,) = task.answer(model, task.collate([asked]))
    assert part["generated"] == answer["generated"] != ""
    prediction = task.stitch([part], record)
    assert (prediction["prompt"], prediction["reference"]) == ("e", "fg")
    metric = task.metric()
    metric.update([prediction], [record])
    assert metric.compute()["exact_match"] == 0
    mean = prediction["loss"] / prediction["targets"]
    assert metric.compute()["perplexity"] == pytest.approx(math.exp(mean))


def test_an_answer_in_several_rows_is_added_up() -> None:
    task = causal_task(template=THINKING)
    record = talk("a", "<think>x</think>b", "c", "d")
    parts = [{"loss": 1.5, "targets": 3, "correct": 1}, {"loss": 2.0, "targets": 2, "correct": 2}]
    assert task.stitch(parts, record) == {"loss": 3.5, "targets": 5, "correct": 3}


def test_a_text_is_a_users_message_or_goes_on_without_a_template() -> None:
    task = causal_task(template=None)
    (feature,) = task.encode_prompt(task.prompt("Once", 0, "texts", 1))
    assert text_of(task, feature) == "<s>Once"
    pairs = causal_task(template=None, data={"text_column_name": "q", "label_column_name": "a"})
    (feature,) = pairs.encode_prompt(pairs.prompt("Add", 0, "texts", 1))
    assert text_of(pairs, feature) == "<s>### Instruction:\nAdd\n\n### Response:\n"


def test_an_empty_prompt_is_answered_too() -> None:
    task, model = causal_task(tokenizer=without_bos()), causal_model()
    task.attach_head(model)
    (feature,) = task.encode_prompt(task.prompt("", 0, "texts", 1))
    assert len(task.answer(model, task.collate([feature]))) == 1


# -- real data ----------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("template", [CHATML, None])
@pytest.mark.parametrize(
    ("folder", "file", "columns"),
    [
        ("gsm8k", "test.first500.jsonl",
         {"text_column_name": "question", "label_column_name": "answer"}),
        ("self_instruct", "seed_tasks.jsonl", {}),
        ("self_instruct", "user_oriented_instructions.jsonl", {}),
    ],
)  # fmt: skip
def test_the_targets_of_real_data_are_its_answers(
    real_data: Callable[[str], Path],
    folder: str,
    file: str,
    columns: dict[str, str],
    template: str | None,
) -> None:
    path = real_data(folder) / file
    task = causal_task(template=template, data={"train_file": [str(path)], **columns})
    splits, _ = CausalLM.read(config(data={"train_file": [str(path)], **columns}))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    answers = [
        row["answer"] if columns else instance["output"]
        for row in rows
        for instance in (row.get("instances") or [None])
    ]
    records = list(splits["train"])
    assert len(records) == len(answers) > 100
    end = "</s>" if template is None else "<|im_end|>"
    for record, answer in zip(records, answers, strict=True):
        (feature,) = task.encode(record)
        learnt = [label for label in feature.columns["labels"] if label != IGNORE_INDEX]
        assert task.tokenizer.decode(learnt) == answer + end
