"""A model and its tokenizer load as the config says, or are refused by the key to change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    LABELS,
    POSITIONS,
    byte_tokenizer,
    letter_tokenizer,
    save_tiny,
    tiny_config,
    tiny_model,
)
from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from transformers import BertModel, PreTrainedModel, T5Config

from bigft.config.errors import BadInput
from bigft.config.sections import ModelConfig
from bigft.config.tasks import Reads
from bigft.models.limits import max_positions, tokenizer_limit
from bigft.models.load import load_model, load_model_config
from bigft.models.processors import check_vocabulary, load_tokenizer, processor_notes
from bigft.runtime.seeding import seed_everything

AUTO_CLASS = "AutoModelForTokenClassification"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("bert"))


def options(directory: Path, **keys: Any) -> ModelConfig:
    return ModelConfig.model_validate({"model_name_or_path": str(directory), **keys})


def load(directory: Path, num_labels: int = len(LABELS), **keys: Any) -> PreTrainedModel:
    config = load_model_config(options(directory, **keys), num_labels=num_labels)
    return load_model(options(directory, **keys), config, AUTO_CLASS)


def refusal(call: Callable[..., Any], *args: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        call(*args)
    return str(caught.value).splitlines()


def same(ours: PreTrainedModel, theirs: PreTrainedModel, prefix: str) -> bool:
    pairs = zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for (name, a), b in pairs if name.startswith(prefix))


# -- the model ----------------------------------------------------------------------------------


def test_the_weights_are_the_files(bert: Path) -> None:
    assert same(load(bert), tiny_model(), "")


def test_overrides_change_the_config_and_nothing_else(bert: Path) -> None:
    overrides = {"num_hidden_layers": 1, "layer_norm_eps": 1e-5}
    before = load_model_config(options(bert)).to_dict()
    after = load_model_config(options(bert, config_overrides=overrides)).to_dict()
    assert after == before | overrides
    assert len(load(bert, config_overrides=overrides).bert.encoder.layer) == 1


def test_an_override_of_a_field_that_does_not_exist_is_refused(bert: Path) -> None:
    (line,) = refusal(load_model_config, options(bert, config_overrides={"hiden_size": 3}))
    assert line == (
        "model.config_overrides: BertConfig has no field 'hiden_size'; did you mean hidden_size?"
    )


def test_an_override_of_the_wrong_type_is_refused(bert: Path) -> None:
    (line,) = refusal(load_model_config, options(bert, config_overrides={"hidden_size": "big"}))
    assert line.startswith("model.config_overrides: ")
    assert "hidden_size" in line


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta", "electra", "deberta-v2"])
def test_dropout_reaches_every_dropout_of_the_model(architecture: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, architecture)
    for rate in (0.0, 0.3):
        model = load(tmp_path, dropout=rate)
        rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
        rates |= {
            value for module in model.modules() for name, value in vars(module).items()
            if "drop" in name and isinstance(value, float)
        }  # fmt: skip
        assert rates == {rate}


def test_without_an_override_dropout_is_the_models_own(tmp_path: Path) -> None:
    save_tiny(tmp_path, hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.5)
    config = load_model_config(options(tmp_path))
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.5)


def test_from_scratch_gives_random_weights_of_the_seed(bert: Path) -> None:
    models = []
    for seed in (1, 1, 2):
        seed_everything(seed, "model")
        models.append(load(bert, from_scratch=True))
    assert same(models[0], models[1], "")
    weights = [model.bert.encoder.layer[0].output.dense.weight for model in models]
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], tiny_model().bert.encoder.layer[0].output.dense.weight)
    assert {parameter.dtype for parameter in models[0].parameters()} == {torch.float32}


def test_from_scratch_needs_no_weights(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((bert / "config.json").read_bytes())
    assert load(tmp_path, from_scratch=True).num_parameters() == tiny_model().num_parameters()


@pytest.mark.parametrize("num_labels", [2, 9])
def test_a_head_for_other_labels_is_replaced(num_labels: int, bert: Path) -> None:
    model = load(bert, num_labels=num_labels)
    assert model.classifier.weight.shape == (num_labels, 16)
    assert model.classifier.weight.isfinite().all()
    assert same(model, load(bert), "bert.")


def test_a_body_without_any_head_gets_one(tmp_path: Path) -> None:
    body = BertModel(tiny_model().config)
    body.save_pretrained(tmp_path)
    model = load(tmp_path)
    trained = body.state_dict()
    assert all(torch.equal(t, trained[name]) for name, t in model.bert.state_dict().items())


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({"intermediate_size": 48}, "bert.encoder.layer.0.intermediate.dense"),
        ({"num_hidden_layers": 3}, "bert.encoder.layer.2."),
    ],
)
def test_weights_that_do_not_fit_the_body_are_refused(
    overrides: dict[str, int], name: str, bert: Path
) -> None:
    with pytest.raises(BadInput) as caught:
        load(bert, config_overrides=overrides)
    (line,) = str(caught.value).splitlines()
    ((key, value),) = overrides.items()
    assert line.startswith(f"model.config_overrides.{key}: {value}, where config.json says ")
    assert name in line


@pytest.mark.parametrize(
    ("saved", "asked", "loaded"),
    [("bfloat16", "float32", torch.float32), ("bfloat16", "auto", torch.bfloat16)],
)
def test_dtype_is_what_is_asked_for(
    saved: str, asked: str, loaded: torch.dtype, tmp_path: Path
) -> None:
    tiny_model().to(getattr(torch, saved)).save_pretrained(tmp_path)
    config = load_model_config(options(tmp_path))
    model = load_model(options(tmp_path), config, AUTO_CLASS, dtype=asked)
    assert {parameter.dtype for parameter in model.parameters()} == {loaded}


def test_the_attention_asked_for_is_used(bert: Path) -> None:
    assert load(bert, attn_implementation="eager").config._attn_implementation == "eager"


@pytest.mark.parametrize("call", [load_model_config, load_tokenizer])
def test_a_model_that_is_not_there_is_refused_by_its_key(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    missing = tmp_path / "none"
    missing.mkdir()
    (line,) = refusal(call, options(missing))
    assert line.startswith(f"model.model_name_or_path: {str(missing)!r} cannot be loaded (")


def test_pickled_weights_are_not_loaded(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((bert / "config.json").read_bytes())
    torch.save(tiny_model().state_dict(), tmp_path / "pytorch_model.bin")
    config = load_model_config(options(tmp_path))
    (line,) = refusal(load_model, options(tmp_path), config, AUTO_CLASS)
    assert "are pytorch_model.bin, a pickle, which may run code; load it where you" in line


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 438012727\n"
ANNEX = "/annex/objects/SHA256E-s438012727--4d7a2146\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize(
    ("text", "tool", "fetch"), [(LFS, "Git LFS", "lfs pull"), (ANNEX, "git-annex", "annex get")]
)
def test_a_pointer_is_called_one(
    text: str, tool: str, fetch: str, name: str, bert: Path, tmp_path: Path
) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_text(text)
    call = {"model.safetensors": load, "tokenizer.json": load_tokenizer}.get(name, load)
    (line,) = refusal(call, tmp_path if call is load else options(tmp_path))
    assert line == (
        f"model.model_name_or_path: {name} in {str(tmp_path)!r} is a pointer of {tool}, not the "
        f"file itself; fetch it (git -C {tmp_path} {fetch}), or give the hub id"
    )


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8"])
def test_a_base_that_is_quantised_already_is_refused(
    method: str, bert: Path, tmp_path: Path
) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (line,) = refusal(load, tmp_path)
    assert line == (
        f"model.model_name_or_path: the weights of {str(tmp_path)!r} are quantised already "
        f"({method}); name the model that they were made from; adapt.method qlora quantises it to "
        "4 bits"
    )


# -- the tokenizer ------------------------------------------------------------------------------


def test_a_tokenizer_of_its_own_is_taken(bert: Path, tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    assert "<s>" in load_tokenizer(options(bert, tokenizer_name=str(tmp_path))).get_vocab()
    assert "[CLS]" in load_tokenizer(options(bert)).get_vocab()


def test_a_tokenizer_without_a_pad_token_is_refused(tmp_path: Path) -> None:
    letter_tokenizer(pad_token=None).save_pretrained(tmp_path)
    (line,) = refusal(load_tokenizer, options(Path("m"), tokenizer_name=str(tmp_path)))
    assert line.startswith(f"model.tokenizer_name: the tokenizer of {tmp_path} has no pad token; ")


@pytest.mark.parametrize(
    ("pad", "notes"), [("[PAD]", []), (None, ["rows are padded with the eos"])]
)
def test_eos_pads_running_text_where_nothing_else_does_and_says_so(
    pad: str | None, notes: list[str], tmp_path: Path
) -> None:
    letter_tokenizer(pad_token=pad, eos_token="[SEP]").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(options(tmp_path), "completion")
    assert tokenizer.pad_token == (pad or "[SEP]")
    told = processor_notes(tokenizer)
    assert [note[: len(start)] for note, start in zip(told, notes, strict=True)] == notes


def test_a_language_models_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    letter_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BadInput, match='has no eos token; add "eos_token" to its'):
        load_tokenizer(options(tmp_path), "completion")


@pytest.mark.parametrize("reads", ["words", "text", "masked-text"])
def test_an_encoders_tokenizer_needs_no_eos(reads: Reads, tmp_path: Path) -> None:
    """BERT's has none."""
    tokenizer = letter_tokenizer(mask_token="[MASK]")
    assert tokenizer.eos_token_id is None
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(options(tmp_path), reads)
    assert (loaded.eos_token_id, loaded.pad_token) == (None, "[PAD]")


def test_what_fills_masks_needs_a_mask_token(tmp_path: Path) -> None:
    letter_tokenizer(eos_token="[SEP]").save_pretrained(tmp_path)
    with pytest.raises(BadInput, match='has no mask token; add "mask_token" to its'):
        load_tokenizer(options(tmp_path), "masked-text")


def test_text_that_nothing_pads_is_refused(tmp_path: Path) -> None:
    letter_tokenizer(pad_token=None).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="has no pad token"):
        load_tokenizer(options(tmp_path), "text")


def test_a_slow_tokenizer_is_refused_for_words(tmp_path: Path) -> None:
    # CANINE has no other: its tokens are characters, and transformers counts them in Python.
    settings = {"tokenizer_class": "CanineTokenizer", "model_max_length": 64}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "canine"}))
    (line,) = refusal(load_tokenizer, options(tmp_path))
    assert line.startswith(f"model.model_name_or_path: {tmp_path} has only a slow tokenizer")


# As most are published: the space before a word is the text's own, not the tokenizer's.
BYTE_LEVEL = {
    "GPT-2": ByteLevel(add_prefix_space=False),
    "Llama 3": Sequence(
        [
            Split(Regex(r"'s| ?\p{L}+| ?[^\s\p{L}]+"), "isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


@pytest.mark.parametrize("kind", BYTE_LEVEL)
def test_a_byte_level_tokenizer_reads_words_as_running_text(kind: str, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(merges=[("Ġ", "a"), ("Ġ", "'"), ("'", "s")])
    tokenizer.backend_tokenizer.pre_tokenizer = BYTE_LEVEL[kind]
    tokenizer.save_pretrained(tmp_path / "published")
    expected = tokenizer(" a it's a").tokens()
    assert expected == ["<s>", "Ġa", "Ġ", "i", "t", "'s", "Ġa", "</s>"]
    loaded = load_tokenizer(options(tmp_path / "published"))
    assert loaded(["a", "it's", "a"], is_split_into_words=True).tokens() == expected
    loaded.save_pretrained(tmp_path / "exported")  # as a run leaves it in model/
    again = load_tokenizer(options(tmp_path / "exported"))
    assert again(["a", "it's", "a"], is_split_into_words=True).tokens() == expected


@pytest.mark.parametrize("kind", BYTE_LEVEL)
def test_running_text_is_read_as_the_model_was_pretrained_to(kind: str, tmp_path: Path) -> None:
    """A space put before a conversation's first letter would be one that nobody wrote."""
    tokenizer = byte_tokenizer(merges=[("\u0120", "a")], eos_token="</s>")
    tokenizer.backend_tokenizer.pre_tokenizer = BYTE_LEVEL[kind]
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(options(tmp_path), "completion")
    assert loaded("a a").tokens() == ["<s>", "a", "\u0120a", "</s>"]
    as_words = load_tokenizer(options(tmp_path), "words")
    assert as_words("a a").tokens() == ["<s>", "\u0120a", "\u0120a", "</s>"]


def test_more_tokens_than_embeddings_are_refused() -> None:
    tokenizer = letter_tokenizer()
    config = tiny_model(vocab_size=len(tokenizer)).config
    check_vocabulary(tokenizer, config)
    tokenizer.add_tokens(["zzz"])
    (line,) = refusal(check_vocabulary, tokenizer, config)
    assert line == (
        "model.tokenizer_name: the tokenizer's token 'zzz' has the id 56, the model's embedding "
        "56 rows (ids up to 55); use the model's own tokenizer"
    )


def test_an_id_beyond_the_embedding_is_refused_where_ids_have_holes() -> None:
    tokenizer = letter_tokenizer()
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    inner["model"]["vocab"]["zzz"] = 100
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(inner))
    assert len(tokenizer) == 57
    check_vocabulary(tokenizer, tiny_model(vocab_size=101).config)
    (line,) = refusal(check_vocabulary, tokenizer, tiny_model(vocab_size=100).config)
    assert "the tokenizer's token 'zzz' has the id 100, the model's embedding 100 rows" in line


# -- positions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "field"),
    [
        ("bert", "max_position_embeddings"),
        ("roberta", "max_position_embeddings"),
        ("gpt2", "n_positions"),
    ],
)
def test_a_row_of_max_positions_is_the_longest_that_the_model_takes(
    architecture: str, field: str
) -> None:
    model = tiny_model(architecture, "AutoModel", pad_token_id=1)
    tokens, source = max_positions(model.config, ModelConfig(model_name_or_path="unused"))
    assert tokens == POSITIONS
    assert source == f"{field} in config.json (model.config_overrides overrides it)"
    model(input_ids=torch.full((1, tokens), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, tokens + 1), 7))


@pytest.mark.parametrize("spelled", ["n_positions", "max_position_embeddings"])
def test_positions_that_the_config_overrides_are_told_as_its_own(spelled: str) -> None:
    section = ModelConfig(model_name_or_path="unused", config_overrides={spelled: POSITIONS})
    source = "n_positions in model.config_overrides"
    assert max_positions(tiny_config("gpt2"), section) == (POSITIONS, source)


def test_where_neither_states_a_limit_there_is_none() -> None:
    section = ModelConfig(model_name_or_path="unused")
    assert max_positions(T5Config(d_model=16, num_layers=1), section) is None
    assert tokenizer_limit(letter_tokenizer()) is None
