"""File and overrides become a config, or every problem at once, each with its place and fix."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigft.config import BadInput, LoadedConfig, RunConfig, load_config, resolved_yaml
from bigft.config.errors import Problem
from bigft.config.tasks import AVAILABLE_TASKS
from bigft.config.yaml_text import parse

Load = Callable[..., LoadedConfig]
Refused = Callable[..., list[str]]
SMALLEST = """\
task: token-classification
model: {model_name_or_path: m}
data: {train_file: t, validation_file: v}
train: {output_dir: out}
"""
REPOSITORY = Path(__file__).resolve().parents[2]


def test_file_and_defaults_make_a_config(load: Load) -> None:
    config = load().config
    assert config.task.name == "token-classification"
    assert config.data.train_file == ("train.conll",)
    assert config.optim.learning_rate == 5e-5
    assert config.adapt.method == "full"


def test_overrides_stand_over_the_file_and_later_ones_win(load: Load) -> None:
    config = load(
        "optim.learning_rate=1e-4",
        "optim.learning_rate=3e-4",
        "task.return_entity_level_metrics=true",
        "data.train_file=[a.conll, b.conll]",
        "optim.class_weights.O=0.5",
        "optim={weight_decay: 0.1}",
        "model.config_overrides.hidden_size=32",
    ).config
    assert (config.optim.learning_rate, config.optim.weight_decay) == (3e-4, 0.1)
    assert config.task.model_dump()["return_entity_level_metrics"] is True
    assert config.data.train_file == ("a.conll", "b.conll")
    assert config.optim.class_weights == {"O": 0.5}
    assert config.model.config_overrides == {"hidden_size": 32}


def test_overrides_alone_are_a_config() -> None:
    loaded = load_config(
        None,
        [
            "task=token-classification",
            "model.model_name_or_path=~/m",
            "data.dataset_name=d",
            "train.output_dir=out",
        ],
    )
    assert loaded.config.model.model_name_or_path == str(Path("~/m").expanduser())
    assert loaded.source == "command line"


def test_a_section_of_comments_only_is_an_empty_one(load: Load) -> None:
    text = "optim:\n  # learning_rate: 1\ntask: token-classification\n"
    text += "model: {model_name_or_path: m}\ndata: {train_file: t}\ntrain: {output_dir: o}\n"
    assert load(text=text).config.optim.learning_rate == 5e-5


INNER = "model.config_overrides.hidden_size"


@pytest.mark.parametrize(
    ("model", "words", "place"),
    [
        ("{model_name_or_path: m,\n config_overrides: {hidden_size: 3}}", [],
         f"config.yaml:3: {INNER}"),
        ("\n  model_name_or_path: m\n  config_overrides:\n    hidden_act: a\n    hidden_size: 3",
         [], f"config.yaml:6: {INNER}"),
        ("{model_name_or_path: m}", [f"{INNER}=3"], f"command line: {INNER}=3"),
        ("{model_name_or_path: m}", ["model.config_overrides={hidden_size: 3}"],
         "command line: model.config_overrides={hidden_size: 3}"),
    ],
)  # fmt: skip
def test_a_problem_of_a_name_in_a_mapping_tells_where_it_is_given(
    model: str, words: list[str], place: str, load: Load
) -> None:
    text = f"task: token-classification\nmodel: {model}\n"
    loaded = load(*words, text=text + "data: {train_file: t}\ntrain: {output_dir: o}\n")
    with pytest.raises(BadInput) as caught, loaded.located():
        raise BadInput(Problem(INNER, "3, but"))
    assert str(caught.value) == f"{place}: 3, but"


def test_a_place_is_known_of_given_keys_and_of_defaults(load: Load) -> None:
    loaded = load("optim.learning_rate=1e-4")
    assert loaded.where("train.output_dir") == "config.yaml:4: train.output_dir"
    expected = "command line: optim.learning_rate=1e-4"
    assert loaded.where("optim.learning_rate") == expected
    assert loaded.where("train.seed") == "config.yaml: train.seed"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning_rate=-1", "found -1; it should be greater than or equal to 0"),
        ("optim.adam_beta1=1.0", "found 1.0; it should be less than 1"),
        ("optim.learning_rate=true", "found true; it should be a number"),
        ("optim.learning_rate=.nan", 'found ".nan"; it should be a number'),
        ("optim.learning_rate=1e999", "found Infinity; it should be a finite number"),
        ("optim.warmup_steps=1.5", "found 1.5; it should be a whole number of steps, or a ratio of"
         " all steps below 1"),
        ("train.seed=4.0", "found 4.0; it should be a whole number"),
        ("train.bf16=yes", 'found "yes"; it should be true or false'),
        ("train.run_name=2024", "found 2024; it should be text (numbers in quotes)"),
        ("train.output_dir=''", 'found ""; it should be text that is not empty'),
        ("train.max_time=soon", 'found "soon"; it should be text of the form '
         r"^(\d+-)?\d+:\d\d:\d\d$"),
        ("train.eval_strategy=step", "found \"step\"; it should be 'no', 'steps' or 'epoch'"
         " (did you mean steps?)"),
        ("parallel.zero_stage=4", "found 4; it should be less than or equal to 3"),
        ("model.fused_head=yes", "found \"yes\"; it should be 'auto' or true or false"),
        ("model.config_overrides=3", "found 3; it should be a mapping"),
        ("data.train_file=3", "found 3; it should be a list"),
        ("data.label_column_name=-1", "found -1; it should be greater than or equal to 0 or text"
         " (numbers in quotes) or a list"),
        ("optim=adamw", 'found "adamw"; it should be a mapping'),
        ("adapt=lora", 'found "lora"; it should be a mapping'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_shown_with_what_it_should_be(
    refused: Refused, override: str, message: str
) -> None:
    assert refused(override) == [f"command line: {override}: {message}"]


def test_a_short_optimizer_name_finds_the_whole_one(refused: Refused) -> None:
    (problem,) = refused("optim.optim=adamw")
    assert "it should be 'adamw_torch', " in problem
    assert problem.endswith("(did you mean adamw_torch?)")


def test_an_unknown_task_or_method_is_answered_with_all(refused: Refused) -> None:
    (task,) = refused("task=token-clasification")
    assert "found \"token-clasification\"; it should be 'token-classification', " in task
    assert task.endswith("(did you mean token-classification?)")
    (method,) = refused("adapt.method=lore", "adapt.r=4")
    assert "'qlora'" in method
    assert method.endswith("(did you mean lora?)")


def test_the_line_of_an_item_in_a_list_is_named(refused: Refused) -> None:
    text = "task: token-classification\nmodel: {model_name_or_path: m}\n"
    text += "train: {output_dir: o}\ndata:\n  train_file:\n  - a\n  - 5\n"
    assert refused(text=text) == [
        "config.yaml:7: data.train_file.1: found 5; it should be text (numbers in quotes)"
    ]


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("learning_rate", "did you mean optim.learning_rate?"),
        ("train.learning_rate", "did you mean optim.learning_rate?"),
        ("optim.learning_rat", "did you mean optim.learning_rate?"),
        ("train.save_step", "did you mean train.save_steps?"),
        ("trian", "did you mean train?"),
        ("train.deepspeed", "did you mean parallel.deepspeed?"),
        ("task.doc_strid", "did you mean task.doc_stride?"),
        ("task.n_best_size", "it is an option of question-answering"),
        ("adapt.lora_alpha", "it is an option of lora, dora, qlora"),
        ("checkpoint.xyzzy", "the keys here are strict, async_save"),
        ("xyzzy", "the keys here are task, model, data, adapt, optim, parallel, train, "
         "checkpoint, report"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_answered_with_the_nearest(refused: Refused, key: str, fix: str) -> None:
    assert refused(f"{key}=1") == [f"command line: {key}=1: unknown key; {fix}"]


def test_missing_keys_are_named_with_their_meaning(refused: Refused) -> None:
    assert refused(text="") == [
        f"config.yaml: task.name: missing; choose one of {', '.join(AVAILABLE_TASKS)}",
        "config.yaml: model.model_name_or_path: missing; give a directory, the id of a model on "
        "the hub, or a run directory, whose model is meant",
        "config.yaml: train.output_dir: missing; give the run's directory",
        "config.yaml: data.train_file: neither data.train_file nor data.dataset_name is given; "
        "name the file to train on",
    ]


def test_everything_wrong_is_told_at_once(refused: Refused) -> None:
    text = """\
task: {name: token-classification, doc_strid: 3}
model: {model_name_or_path: m}
data: {train_file: t, format: imagefolder}
optim:
  learning_rate: 1e-4
  learning_rate: 1e-5
train:
  output_dir: o
  seed: x
  bf16: true
  fp16: true
"""
    assert refused("nonsense", text=text) == [
        "config.yaml:6: optim.learning_rate: given twice, in lines 5 and 6; remove one",
        "command line: nonsense: not section.key=value; write optim.learning_rate=3e-5, "
        "for example",
        "config.yaml:1: task.doc_strid: unknown key; did you mean task.doc_stride?",
        'config.yaml:9: train.seed: found "x"; it should be a whole number',
        "config.yaml:11: train.fp16: both fp16 and train.bf16 are true; choose one",
        "config.yaml:3: data.format: imagefolder is not available yet; there is auto or conll or "
        "conllu or json or jsonl or parquet or datasets or csv or tsv or text or textfolder or "
        "parallel or squad",
    ]


def test_a_wrong_value_makes_no_contradiction_besides(refused: Refused) -> None:
    assert refused("data.train_file=3") == [
        "command line: data.train_file=3: found 3; it should be a list"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- task", "config.yaml: does not hold sections; they are task, model, "),
        (b"task: x\nrun: \xff", "config.yaml:2: byte 0xFF is not UTF-8; save the file as UTF-8"),
        ("task: [", "config.yaml:1: while parsing a flow"),
        ("task: !!python/name:os.system ''", "config.yaml:1: the tag .* is not read"),
    ],
)
def test_a_file_that_is_no_config_is_refused(load: Load, text: str | bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(text=text)


def test_a_byte_order_mark_does_no_harm(load: Load) -> None:
    assert load(text="\ufeff" + SMALLEST).config.train.output_dir == "out"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml: cannot be read: No such file"):
        load_config(str(tmp_path / "none.yaml"))


def test_an_override_of_broken_yaml_or_below_a_value_is_refused(refused: Refused) -> None:
    (problem,) = refused("optim.class_weights={O: 1")
    assert problem.startswith("command line: optim.class_weights={O: 1: while parsing a flow")
    assert refused("train.output_dir.x=3") == [
        "command line: train.output_dir.x=3: train.output_dir is no mapping; "
        "see config.yaml:4: train.output_dir"
    ]


@pytest.mark.parametrize(
    ("alias", "value", "real"),
    [
        ("lr", 0.25, "optim.learning_rate"),
        ("optim.warmup_ratio", 0.25, "optim.warmup_steps"),
        ("train.warmup_ratio", 0.25, "optim.warmup_steps"),
        ("data.cutoff_len", 64, "data.max_seq_length"),
        ("max_length", 64, "data.max_seq_length"),
        ("micro_batch_size", 4, "train.per_device_train_batch_size"),
        ("batch_size", 4, "train.per_device_train_batch_size"),
        ("epochs", 2, "train.num_train_epochs"),
        ("model_name", "n", "model.model_name_or_path"),
    ],
)
def test_an_alias_is_read_as_the_real_key_with_a_note(
    load: Load, alias: str, value: object, real: str
) -> None:
    loaded = load(f"{alias}={value}")
    section, key = real.split(".")
    assert getattr(getattr(loaded.config, section), key) == value
    assert loaded.notes == [f"command line: {alias}={value}: read as {real}"]


def test_an_alias_beside_its_key_is_refused_and_both_are_named(refused: Refused) -> None:
    text = "lr: 1e-4\noptim:\n  learning_rate: 1e-5\n"
    assert refused(text=text)[0] == (
        "config.yaml:3: optim.learning_rate: the same key as config.yaml:1: lr; remove one"
    )


def test_lora_r_belongs_to_a_method_that_has_a_rank(refused: Refused) -> None:
    assert refused("lora_r=4") == [
        "command line: lora_r=4: unknown key; it is an option of lora, dora, qlora"
    ]


def test_a_warmup_ratio_of_one_or_more_is_no_number_of_steps(refused: Refused) -> None:
    assert refused("warmup_ratio=100") == [
        "command line: warmup_ratio=100: found 100, but a ratio is below 1; "
        "optim.warmup_steps takes a number of steps"
    ]


def test_an_override_by_an_alias_stands_over_the_file(load: Load) -> None:
    assert load("optim.learning_rate=1", "lr=0.5").config.optim.learning_rate == 0.5


SOME_TEXT = st.text(min_size=1, max_size=8).filter(lambda text: not text.startswith("~"))
CONFIGS = st.fixed_dictionaries(
    {
        "task": st.just("token-classification")
        | st.fixed_dictionaries(
            {"name": st.just("token-classification")},
            optional={"doc_stride": st.integers(0, 99)},
        ),
        "model": st.fixed_dictionaries(
            {"model_name_or_path": SOME_TEXT},
            optional={
                "dropout": st.none() | st.floats(0, 0.99),
                "fused_head": st.sampled_from(["auto", False, True]),
                "config_overrides": st.dictionaries(SOME_TEXT, st.integers() | SOME_TEXT),
            },
        ),
        "data": st.fixed_dictionaries(
            {"train_file": SOME_TEXT | st.lists(SOME_TEXT, min_size=1, max_size=3)},
            optional={
                "label_column_name": st.none() | st.integers(0, 9) | SOME_TEXT,
                "label_list": st.none() | st.lists(SOME_TEXT, max_size=3),
            },
        ),
        "train": st.fixed_dictionaries({"output_dir": SOME_TEXT}),
    },
    optional={
        "optim": st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": st.floats(0, 1e9),
                "class_weights": st.dictionaries(st.text(max_size=5), st.floats(0, 1e9)),
            },
        ),
        "report": st.sampled_from([{"report_to": "none"}, {"report_to": "tensorboard"}]),
    },
)


@settings(deadline=None, max_examples=60)
@given(CONFIGS)
def test_the_resolved_config_loads_again_to_an_equal_one(values: dict[str, object]) -> None:
    config = RunConfig.model_validate(values)
    again, _ = parse(resolved_yaml(config), str, [])
    assert RunConfig.model_validate(again) == config


def test_the_resolved_file_loads_without_notes(load: Load) -> None:
    config = load("optim.class_weights={no: 2.0}", "train.eval_strategy=no").config
    again = load(text=resolved_yaml(config))
    assert again.config == config
    assert again.notes == []


def test_a_config_is_refused_without_loading_torch(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: nonsense")
    script = (
        "import sys, bigft.cli\n"
        "code = bigft.cli.main(['config', 'config.yaml'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'deepspeed'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith('config.yaml:1: task: found "nonsense"; it should be')
