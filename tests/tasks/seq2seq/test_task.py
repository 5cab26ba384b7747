"""Text from text: what encoder and decoder get, what is asked of a model, what is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tasks.pairs import config, record, refusal, task
from tiny_seq2seq import EOS, eos_tokenizer, marian_tokenizer, tiny_seq2seq
from transformers import MBart50Tokenizer, MBartTokenizer, NllbTokenizer

from bigft.data.records import IGNORE_INDEX
from bigft.tasks.seq2seq import Seq2Seq

EN_ZH = {"source_lang": "en_XX", "target_lang": "zh_CN"}
EN_ZHO = {"source_lang": "en", "target_lang": "zho"}
ENG_ZHO = {"source_lang": "eng_Latn", "target_lang": "zho_Hans"}


def test_source_and_target_are_rows_of_their_own_lengths() -> None:
    tokenizer = eos_tokenizer()
    (feature,) = task(tokenizer).encode(record("abc", "de", 4))
    assert (feature.record, feature.window, feature.num_windows) == (4, 0, 1)
    assert tokenizer.decode(feature.columns["input_ids"]) == " abc</s>"
    assert tokenizer.decode(feature.columns["labels"]) == " de</s>"
    assert feature.num_targets == len(feature.columns["labels"]) == 4
    assert feature.lost_targets == 0


def test_what_is_too_long_is_cut_before_its_eos_and_counted() -> None:
    tokenizer = eos_tokenizer()
    (feature,) = task(tokenizer, max_length=6, max_target_length=5).encode(
        record("abcdefgh", "klmnopqr")
    )
    assert tokenizer.decode(feature.columns["input_ids"]) == " abcd</s>"
    assert tokenizer.decode(feature.columns["labels"]) == " klm</s>"
    assert feature.lost_targets == 5


@pytest.mark.parametrize(
    ("source", "target", "notes"),
    [
        ("abcd", "klm", ()),
        ("abcde", "klm", ("have their source cut at 6 tokens: data.max_seq_length",)),
        ("abcd", "klmn", ("have their target cut at 5 tokens: task.max_target_length",)),
        (
            "abcde",
            "klmn",
            (
                "have their source cut at 6 tokens: data.max_seq_length",
                "have their target cut at 5 tokens: task.max_target_length",
            ),
        ),
    ],
)
def test_each_side_that_is_cut_names_the_key_that_cuts_it(
    source: str, target: str, notes: tuple[str, ...]
) -> None:
    one = task(max_length=6, max_target_length=5)
    (feature,) = one.encode(record(source, target))
    assert feature.notes == notes


def test_the_prefix_stands_before_the_source_alone() -> None:
    tokenizer = eos_tokenizer()
    one = task(tokenizer, source_prefix="tell: ")
    (feature,) = one.encode(record("abc", "de"))
    assert tokenizer.decode(feature.columns["input_ids"]) == " tell: abc</s>"
    assert tokenizer.decode(feature.columns["labels"]) == " de</s>"
    (prompt,) = one.encode_prompt(one.prompt("abc", 3, "texts", 4))
    assert prompt.columns["input_ids"] == feature.columns["input_ids"]
    assert (prompt.record, prompt.num_targets) == (3, 0)


def test_each_side_has_its_own_sentencepiece_model(tmp_path: Path) -> None:
    tokenizer = marian_tokenizer(tmp_path)
    (feature,) = task(tokenizer).encode(record("abc", "你好"))
    pieces = tokenizer.convert_ids_to_tokens(feature.columns["input_ids"])
    assert pieces == ["\u2581", "a", "b", "c", "</s>"]
    assert tokenizer.convert_ids_to_tokens(feature.columns["labels"]) == [
        "\u2581",
        "你",
        "好",
        "</s>",
    ]
    (cut,) = task(tokenizer, max_target_length=3).encode(record("abc", "你好"))
    assert tokenizer.convert_ids_to_tokens(cut.columns["labels"]) == ["\u2581", "你", "</s>"]
    assert cut.lost_targets == 1


@pytest.mark.parametrize(
    ("kind", "languages", "source", "target"),
    [
        (MBartTokenizer, EN_ZH, ["</s>", "en_XX"], ["</s>", "zh_CN"]),
        (MBart50Tokenizer, EN_ZH, ["en_XX", "</s>"], ["zh_CN", "</s>"]),
        (
            NllbTokenizer,
            ENG_ZHO,
            ["eng_Latn", "</s>"],
            ["zho_Hans", "</s>"],
        ),
        # As the data spells them.
        (MBart50Tokenizer, EN_ZHO, ["en_XX", "</s>"], ["zh_CN", "</s>"]),
        (NllbTokenizer, EN_ZHO, ["eng_Latn", "</s>"], ["zho_Hans", "</s>"]),
    ],
)
def test_languages_are_tokens_where_the_tokenizer_has_them(
    kind: Any, languages: dict[str, str], source: list[str], target: list[str]
) -> None:
    tokenizer = kind()
    one = task(tokenizer, tiny_seq2seq("mbart"), **languages)
    (feature,) = one.encode(record("a", "b"))

    def specials(ids_T: list[int]) -> list[str]:
        names = tokenizer.convert_ids_to_tokens(ids_T)
        return [name for name in names if name not in ("\u2581", "<unk>")]

    assert specials(feature.columns["input_ids"]) == source
    assert specials(feature.columns["labels"]) == target


def test_a_preview_shows_both_sides() -> None:
    one = task()
    (feature,) = one.encode(record("abc", "de"))
    assert one.preview(feature) == [(" abc</s>", False), (" de</s>", True)]


# -- collate ------------------------------------------------------------------------------------


def test_the_decoder_sees_the_labels_one_later() -> None:
    one = task(model=tiny_seq2seq("bart"), tokenizer=eos_tokenizer(pad_token="<unk>"))
    batch = one.collate(one.encode(record("abcdef", "d")) + one.encode(record("a", "efg", 1)))
    long, short = batch.rows[1].columns["labels"], batch.rows[0].columns["labels"]
    start, pad = 2, 1
    assert batch.labels.tolist() == [short + [IGNORE_INDEX] * 2, long]
    assert batch.inputs["decoder_input_ids"].tolist() == [
        [start, *short, pad],
        [start, *long[:-1]],
    ]
    assert batch.inputs["attention_mask"].tolist() == [[1] * 8, [1] * 3 + [0] * 5]
    assert batch.inputs["input_ids"][1].tolist() == [
        *batch.rows[1].columns["input_ids"],
        *[pad] * 5,
    ]
    assert batch.target_rows_M.tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert (batch.num_targets, batch.size) == (8, 8 + 3 + 3 + 5)
    tensors = [*batch.inputs.values(), batch.labels, batch.target_rows_M]
    assert {tensor.dtype for tensor in tensors} == {torch.int64}


@pytest.mark.parametrize("architecture", ["t5", "bart", "marian", "pegasus"])
def test_inputs_are_what_transformers_makes_of_the_labels(architecture: str) -> None:
    model = tiny_seq2seq(architecture)
    one = task(model=model)
    batch = one.collate(one.encode(record("abcdef", "d")) + one.encode(record("a", "efg", 1)))
    theirs = model.prepare_decoder_input_ids_from_labels(batch.labels)
    real = batch.labels != IGNORE_INDEX
    assert torch.equal(batch.inputs["decoder_input_ids"][real], theirs[real])


def test_mbart_begins_with_the_language_that_ends_a_text() -> None:
    model = tiny_seq2seq("mbart", decoder_start_token_id=None, pad_token_id=1)
    tokenizer = MBartTokenizer()
    one = task(tokenizer, model, **EN_ZH)
    batch = one.collate(one.encode(record("a", "b c")) + one.encode(record("a", "b", 1)))
    theirs = model.prepare_decoder_input_ids_from_labels(batch.labels)
    real = batch.labels != IGNORE_INDEX
    assert torch.equal(batch.inputs["decoder_input_ids"][real], theirs[real])
    assert model.config.decoder_start_token_id == tokenizer.convert_tokens_to_ids("zh_CN")


# -- the model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["t5", "marian"])
def test_the_loss_is_the_sum_of_transformers_own(architecture: str) -> None:
    one, model, stock = task(), tiny_seq2seq(architecture), tiny_seq2seq(architecture)
    one.attach_head(model)
    batch = one.collate(one.encode(record("abcdef", "d")) + one.encode(record("a", "efg", 1)))
    with torch.no_grad():
        inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
        expected = stock(**inputs, labels=batch.labels).loss.item() * batch.num_targets
        loss = one.loss(model, batch, 0.5)
        predicted = one.predict(model, batch)
    assert loss.loss_sum.item() == pytest.approx(expected)
    assert loss.scaled.item() == pytest.approx(expected / 2)
    assert predicted.loss_sum.item() == pytest.approx(expected)
    assert sum(part["loss"] for part in predicted.parts) == pytest.approx(expected)
    assert [part["targets"] for part in predicted.parts] == [3, 5]


def test_correct_targets_are_counted() -> None:
    one, model = task(predict_with_generate=False), tiny_seq2seq()
    one.attach_head(model)
    (feature,) = one.encode(record("abc", "defgh"))
    batch = one.collate([feature])
    with torch.no_grad():
        best_T = model(**batch.inputs).logits[0].argmax(dim=-1).tolist()
    feature.columns["labels"][1] = best_T[1]
    again = one.collate([feature])
    again.inputs["decoder_input_ids"] = batch.inputs["decoder_input_ids"]
    expected = sum(a == b for a, b in zip(feature.columns["labels"], best_T, strict=True))
    (part,) = one.predict(model, again).parts
    assert part["correct"] == expected > 0
    assert "generated" not in part


@pytest.mark.parametrize("num_beams", [1, 3])
def test_answers_are_those_of_transformers(num_beams: int) -> None:
    tokenizer, model, stock = eos_tokenizer(), tiny_seq2seq("bart"), tiny_seq2seq("bart")
    one = task(tokenizer, model, generation={"max_new_tokens": 7, "num_beams": num_beams})
    asked = [record("abcdef", "d"), record("xy", "efg", 1)]
    batch = one.collate([feature for each in asked for feature in one.encode(each)])
    expected = []
    for each in asked:  # one by one: padding changes no answer
        ids = tokenizer(each.fields["source"], return_tensors="pt").input_ids
        answer = stock.generate(
            input_ids=ids, max_new_tokens=7, num_beams=num_beams, eos_token_id=EOS
        )
        expected.append(tokenizer.decode(answer[0], skip_special_tokens=True).strip())
    parts = one.predict(model, batch).parts
    assert [part["generated"] for part in parts] == expected
    assert any(expected)
    prompts = [
        one.encode_prompt(one.prompt(e.fields["source"], e.index, "texts", 1))[0] for e in asked
    ]
    assert one.answer(model, one.collate(prompts)) == [{"generated": text} for text in expected]


@pytest.mark.parametrize("codes", [EN_ZH, ENG_ZHO, EN_ZHO])
@pytest.mark.parametrize("kind", [MBart50Tokenizer, NllbTokenizer])
def test_an_answer_begins_with_its_language(kind: Any, codes: dict[str, str]) -> None:
    tokenizer, model = kind(), tiny_seq2seq("m2m_100")
    one = task(tokenizer, model, generation={"max_new_tokens": 4}, **codes)
    batch = one.collate(one.encode_prompt(one.prompt("a b", 0, "texts", 1)))
    inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    ids_T = model.generate(**inputs, max_new_tokens=4)[0].tolist()  # by transformers alone
    spelled = "zh_CN" if kind is MBart50Tokenizer else "zho_Hans"
    assert ids_T[1] == tokenizer.convert_tokens_to_ids(spelled)


def test_an_answer_is_told_beside_its_source() -> None:
    part = {"generated": "de"}
    assert task().stitch([part], record("abc", "xy")) == {"source": "abc", **part}
    part |= {"loss": 2.0, "targets": 3, "correct": 1}
    expected = {"source": "abc", "reference": "xy", **part}
    assert task().stitch([part], record("abc", "xy")) == expected


def test_the_metric_has_bleu_only_where_text_is_generated() -> None:
    assert next(iter(task().metric().compute())) == "bleu"
    assert "bleu" not in task(predict_with_generate=False).metric().compute()


# -- refused ------------------------------------------------------------------------------------


def test_a_missing_start_of_targets_is_refused() -> None:
    assert refusal(task, model=tiny_seq2seq(decoder_start_token_id=None)) == (
        "model.config_overrides: the model's config has no decoder_start_token_id: what does a "
        "target begin with?; set decoder_start_token_id; T5's is its pad token, BART's its eos"
    )


def test_targets_longer_than_the_decoder_takes_are_refused() -> None:
    long = {"max_target_length": 65, "generation": {"max_new_tokens": 66}}
    assert refusal(task, model=tiny_seq2seq("bart"), **long) == (
        "task.max_target_length: 65 tokens, but the decoder takes 64 "
        "(max_position_embeddings in config.json); give at most 64\n"
        "task.generation.max_new_tokens: 66 tokens, but the decoder takes 64 "
        "(max_position_embeddings in config.json); give at most 64"
    )
    task(model=tiny_seq2seq("t5"), **long)  # relative positions


def test_a_tokenizer_without_an_end_is_refused() -> None:
    assert "the tokenizer puts no eos token behind a target" in refusal(
        task, eos_tokenizer(add_eos=False)
    )


def several_portuguese() -> Any:
    return NllbTokenizer(extra_special_tokens=["en_XX", "pt_BR", "pt_PT"])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            MBartTokenizer,
            {"source_lang": "en_XX", "target_lang": "zh_TW"},
            "task.target_lang: the tokenizer has no language 'zh_TW'; did you mean zh_CN?",
        ),
        (
            NllbTokenizer,
            {"source_lang": "eng_Lat", "target_lang": "zho_Hans"},
            "task.source_lang: the tokenizer has no language 'eng_Lat'; did you mean eng_Latn?",
        ),
        (
            several_portuguese,
            {"source_lang": "en", "target_lang": "pt"},
            "task.target_lang: 'pt' may be pt_BR or pt_PT of the tokenizer's languages; give one "
            "of them",
        ),
        (
            MBart50Tokenizer,
            {"source_lang": "en_XX"},
            "task.target_lang: not given, but the tokenizer has 52 languages; give one, as ar_AR",
        ),
    ],
)
def test_languages_that_the_tokenizer_lacks_are_refused(
    kind: Any, options: dict[str, str], message: str
) -> None:
    assert refusal(task, kind(), tiny_seq2seq("mbart"), **options) == message


# -- read ---------------------------------------------------------------------------------------


def test_every_split_is_read_as_pairs(tmp_path: Path) -> None:
    train, dev = tmp_path / "train.tsv", tmp_path / "dev.jsonl"
    train.write_text("Hi.\t你好。\tby A\nGo.\t走吧。\tby B\n", encoding="utf-8")
    dev.write_text('{"0": "Yes.", "1": "是。"}\n', encoding="utf-8")
    columns = {"text_column_name": 0, "label_column_name": 1}
    splits, labels = Seq2Seq.read(
        config(data={"train_file": str(train), "validation_file": str(dev), **columns})
    )
    assert {name: [dict(each.fields) for each in split] for name, split in splits.items()} == {
        "train": [
            {"source": "Hi.", "target": "你好。"},
            {"source": "Go.", "target": "走吧。"},
        ],
        "validation": [{"source": "Yes.", "target": "是。"}],
    }
    assert labels == []
