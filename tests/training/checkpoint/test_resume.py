"""A run that goes on keeps what its checkpoint depends on, and is told which key it changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training.checkpoint.resuming import (
    PACKED,
    RESUME,
    fingerprint_of,
    refusal,
    run_of,
    saved,
)
from training.checkpoint.small import SmallEngine, SmallWorld, forge

from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import (
    CheckpointStore,
    TrainerState,
    checkpoint_to_resume,
    resume_fingerprint,
    resume_notes,
)

LORA, HEAD = "adapt={method: lora, lora_alpha: 8}", "adapt={method: head}"


@pytest.mark.parametrize(
    ("before", "after", "key", "then", "now"),
    [
        ([LORA], ["adapt={method: lora, lora_alpha: 64}"], "adapt.lora_alpha", "8", "64"),
        ([LORA], ["adapt={method: qlora, lora_alpha: 8}"], "adapt.method", "lora", "qlora"),
        ([LORA], [LORA, "model.revision=abc"], "model.revision", "null", "abc"),
        ([HEAD, "model.from_scratch=true"], [HEAD, "model.from_scratch=true", "train.seed=7"],
         "model.from_scratch", "42", "7"),
        ([], ["model.config_overrides={hidden_act: gelu}"],
         "architecture.hidden_act", "silu", "gelu"),
        ([], ["model.dropout=0.5"], "architecture.attention_dropout", "0.0", "0.5"),
        ([], ["train.global_batch_size=16"], "train.global_batch_size", "null", "16"),
        (["train.global_batch_size=8"], ["train.global_batch_size=16"],
         "train.global_batch_size", "8", "16"),
        (["train.global_batch_size=8"], ["train.per_device_train_batch_size=4"],
         "train.global_batch_size", "8", "null"),
        ([], ["train.per_device_train_batch_size=4"],
         "train.per_device_train_batch_size", "8", "4"),
        ([], ["train.gradient_accumulation_steps=2"],
         "train.gradient_accumulation_steps", "1", "2"),
        ([], ["train.seed=7"], "train.seed", "42", "7"),
        ([], ["optim.optim=lion_8bit"], "optim.optim", "adamw_torch", "lion_8bit"),
        ([], ["optim.layerwise_lr_decay=0.9"], "optim.layerwise_lr_decay", "null", "0.9"),
        ([], ["optim.learning_rate=1e-3"], "optim.learning_rate", "5e-05", "0.001"),
        ([], ["optim.label_smoothing_factor=0.1"], "optim.label_smoothing_factor", "0.0", "0.1"),
    ],
)  # fmt: skip
def test_a_changed_key_is_refused_by_name(
    before: list[str], after: list[str], key: str, then: str, now: str, here: Path
) -> None:
    directory = saved(run_of(*before), 3)
    said = refusal(run_of(*after, RESUME + "true"), directory)
    about = f"was trained with {key} {then}, this config says {now}; keep {key} of the run that"
    assert sum(about in line for line in said) == 1, said
    assert all(line.startswith("train.resume_from_checkpoint: run/checkpoint-3") for line in said)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    ("before", "after", "key", "then", "now"),
    [
        (PACKED, [*PACKED, "data.max_seq_length=128"], "data.max_seq_length", "64", "128"),
        (PACKED, [*PACKED, "data.packing_strategy=length_ordered"],
         "data.packing_strategy", "first_fit_decreasing", "length_ordered"),
        (PACKED, PACKED[1:], "data.packing", "true", "false"),
        (PACKED[1:], [*PACKED, "data.max_seq_length=128"], "data.packing", "false", "true"),
        (PACKED, [*PACKED, "train.per_device_train_batch_size=4"],
         "train.per_device_train_batch_size", "8", "4"),
    ],
)  # fmt: skip
def test_a_packed_run_is_told_the_one_key_that_changed(
    older: bool, before: list[str], after: list[str], key: str, then: str, now: str, here: Path
) -> None:
    """And not what follows from it: the tokens of a step."""
    directory = saved(run_of(*before), 3)
    if older:
        forge(directory.path / "checkpoint-3", as_before_rows_were_named)
    run = run_of(*before, RESUME + "true")
    assert checkpoint_to_resume(run, directory, 1) == Path("run/checkpoint-3")
    (said,) = refusal(run_of(*after, RESUME + "true"), directory)
    assert said == (
        "train.resume_from_checkpoint: run/checkpoint-3 was trained with "
        f"{key} {then}, this config says {now}; keep {key} of the run that continues"
    )


def as_before_rows_were_named(told: Any) -> Any:
    """The manifest as it was when one key held all of packing."""
    kept = told["fingerprint"]
    del kept["rows"]
    if kept["data.packing"]:
        options = ("data.packing_strategy", "data.max_seq_length")
        kept["data.packing"] = [kept.pop(key) for key in options]
    return told


@pytest.mark.parametrize(
    ("before", "after", "key", "then", "now"),
    [
        ([], ["data.max_seq_length=64"], "data.max_seq_length", "null", "64"),
        ([], ["data.max_train_samples=9"], "data.max_train_samples", "null", "9"),
        (["task={name: causal-lm, mask_history: true}"], [], "task.mask_history", "true", "false"),
        (PACKED, [PACKED[0], "data.max_seq_length=96"], "data.max_seq_length", "64", "96"),
    ],
)
def test_other_rows_are_told_by_the_option_that_makes_them(
    before: list[str], after: list[str], key: str, then: str, now: str, here: Path
) -> None:
    directory = saved(run_of(*before), 3)
    (said,) = refusal(run_of(*after, RESUME + "true", data="other"), directory)
    assert f"was trained with {key} {then}, this config says {now}; keep {key} of the run" in said
    same = run_of(*after, RESUME + "true")  # and the rows are the same
    if before != PACKED:
        assert checkpoint_to_resume(same, directory, 1) == Path("run/checkpoint-3")
    (other,) = refusal(run_of(*before, RESUME + "true", data="other"), directory)
    assert "was trained on other data, tokenizer or task options" in other


@pytest.mark.parametrize(
    ("key", "then", "now"),
    [("parallel.zero_stage", 3, 0), ("train.bf16", "false", "true")],
)
def test_what_shards_are_tied_to_is_not_supported_yet(
    key: str, then: Any, now: Any, here: Path
) -> None:
    directory = saved(run_of(f"{key}={then}"), 3)
    (said,) = refusal(run_of(f"{key}={now}", RESUME + "true"), directory)
    assert f"was saved with {key} {then}, here it is {now}; keep {key} of the run" in said
    assert said.endswith("(another is not supported yet)")


def test_every_difference_is_told_at_once(here: Path) -> None:
    directory = saved(run_of(), 3, world_size=2)
    run = run_of("train.seed=7", "optim.weight_decay=0.5", RESUME + "true", data="other")
    said = "\n".join(refusal(run, directory, world_size=4))
    for part in (
        "was trained on other data, tokenizer or task options; restore them, or start anew",
        "keep train.seed of the run that continues, or branch off: another train.output_dir",
        "keep optim.weight_decay of the run",
        "was saved by 2 ranks, these are 4; start 2 ranks (another number is not supported yet)",
    ):
        assert part in said
    assert "global_batch" not in said  # which follows from the ranks


def test_every_key_that_changed_is_told_with_its_two_values(here: Path) -> None:
    directory = saved(run_of(*PACKED), 3)
    changed = ["data.max_seq_length=128", "train.per_device_train_batch_size=2", "train.seed=7"]
    said = refusal(run_of(*PACKED, *changed, RESUME + "true"), directory)
    for key, then, now in (
        ("train.seed", 42, 7),
        ("data.max_seq_length", 64, 128),
        ("train.per_device_train_batch_size", 8, 2),
    ):
        about = f"was trained with {key} {then}, this config says {now}; keep {key} of"
        assert sum(about in line for line in said) == 1
    assert len(said) == 3


def test_a_step_of_the_same_size_may_be_made_otherwise(here: Path) -> None:
    directory = saved(run_of(), 3)
    words = ["train.per_device_train_batch_size=4", "train.gradient_accumulation_steps=2"]
    assert checkpoint_to_resume(run_of(*words, RESUME + "true"), directory, 1)
    assert checkpoint_to_resume(run_of("train.global_batch_size=8", RESUME + "true"), directory, 1)


def test_what_changes_no_number_may_change(here: Path) -> None:
    directory = saved(run_of("train.global_batch_size=8"), 3)
    run = run_of(
        *("train.logging_steps=1", "train.save_steps=3", "train.run_name=other"),
        *("train.global_batch_size=8", "parallel.ddp_timeout=7", RESUME + "true"),
    )
    checkpoint = checkpoint_to_resume(run, directory, 1)
    assert checkpoint == Path("run/checkpoint-3")
    assert resume_notes(run, directory, checkpoint, fingerprint_of(run)) == []


@pytest.mark.parametrize(
    "word",
    [
        *("train.num_train_epochs=9", "train.max_steps=50", "train.per_device_train_batch_size=2"),
        *("train.gradient_checkpointing=true", "model.attn_implementation=eager"),
    ],
)
def test_what_makes_other_bits_or_another_schedule_is_noted(here: Path, word: str) -> None:
    directory = saved(run_of("train.global_batch_size=8"), 3)
    run = run_of("train.global_batch_size=8", word, RESUME + "true")
    checkpoint = checkpoint_to_resume(run, directory, 1)
    assert checkpoint is not None
    (note,) = resume_notes(run, directory, checkpoint, fingerprint_of(run))
    assert note.startswith(f"{checkpoint} was written with {word.partition('=')[0]} ")
    rounds = "gradient_checkpointing" in word
    differ = "the last bits of losses and weights may differ"
    assert note.endswith(differ if rounds else ": losses will not be those of a run that kept it")


def test_a_checkpoint_without_commit_is_told_of(here: Path) -> None:
    directory = saved(run_of(), 3, 6)
    run = run_of(RESUME + "true")
    Path("run/checkpoint-6/COMMIT").unlink()
    checkpoint = checkpoint_to_resume(run, directory, 1)
    assert checkpoint == Path("run/checkpoint-3")
    (note,) = resume_notes(run, directory, checkpoint, fingerprint_of(run))
    assert note.startswith("run/checkpoint-6 is not used: COMMIT: cannot be read")
    Path("run/checkpoint-3/COMMIT").unlink()
    said = [problem.partition(" (")[0] for problem in refusal(run, directory)]
    no_commit = "COMMIT: cannot be read"
    assert said == [f"{RESUME[:-1]}: run/checkpoint-{step}: {no_commit}" for step in (6, 3)]


def test_strict_stops_at_the_newest_whatever_it_lacks(here: Path) -> None:
    directory = saved(run_of(), 3, 6)
    strict = run_of(RESUME + "true", "checkpoint.strict=true")
    Path("run/checkpoint-6/COMMIT").unlink()
    (said,) = refusal(strict, directory)
    assert said.startswith(f"{RESUME[:-1]}: run/checkpoint-6: COMMIT: cannot be read")


def test_a_link_that_is_named_as_a_checkpoint_is_none(here: Path) -> None:
    directory = saved(run_of(), 3)
    Path("run/checkpoint-6").symlink_to("checkpoint-3")
    assert directory.latest_checkpoint == Path("run/checkpoint-3")
    assert checkpoint_to_resume(run_of(RESUME + "true"), directory, 1) == Path("run/checkpoint-3")
    (said,) = refusal(run_of(RESUME + "true", "checkpoint.strict=true"), directory)
    assert "checkpoint-6: not a plain file or directory" in said


def test_who_branches_off_may_choose_rates_schedule_and_seed(here: Path) -> None:
    saved(run_of(), 3)
    elsewhere = RunDirectory("branch")
    words = ["optim.learning_rate=1e-3", "optim.lr_scheduler_type=cosine", "train.seed=7"]
    run = run_of(*words, RESUME + "run/checkpoint-3")
    checkpoint = checkpoint_to_resume(run, elsewhere, 1)
    assert checkpoint == here / "run" / "checkpoint-3"
    notes = resume_notes(run, elsewhere, checkpoint, fingerprint_of(run))
    assert notes == [
        f"optim.learning_rate is 0.001 from here on; {checkpoint} had 5e-05",
        f"optim.lr_scheduler_type is cosine from here on; {checkpoint} had linear",
        f"train.seed is 7 from here on; {checkpoint} had 42",
    ]
    for word in ("optim.optim=sgd", "optim.layerwise_lr_decay=0.5", "model.dropout=0.5"):
        assert refusal(run_of(word, RESUME + "run/checkpoint-3"), elsewhere)


def test_a_run_that_branched_off_goes_on_from_there_until_it_has_its_own(here: Path) -> None:
    origin = saved(run_of(), 3).path.resolve() / "checkpoint-3"
    branch = RunDirectory("branch")
    words = ["train.output_dir=branch", "optim.learning_rate=1e-3"]
    run = run_of(*words, RESUME + "true")
    for resume in ("run/checkpoint-3", True):  # and each time it dies
        branch.claim(resume=resume)
        branch.release()
        assert branch.observe()["status"] == "resumable"
        assert checkpoint_to_resume(run, branch, 1) == origin
    (note,) = resume_notes(run, branch, origin, fingerprint_of(run))
    assert note.startswith("optim.learning_rate is 0.001 from here on")
    assert refusal(run_of(*words, "optim.optim=sgd", RESUME + "true"), branch)
    assert checkpoint_to_resume(run_of(*words, RESUME + "false"), branch, 1) is None
    origin.rename(origin.with_name("gone"))
    (said,) = refusal(run, branch)  # and not from the pretrained weights, in silence
    assert f"{origin}: checkpoint-3: cannot be read (No such file" in said
    origin.with_name("gone").rename(origin)
    store = CheckpointStore(branch, SmallWorld(), None, resume_fingerprint(run, 1), False)
    assert store.save(SmallEngine(), TrainerState(step=5)).path
    assert checkpoint_to_resume(run, branch, 1) == Path("branch/checkpoint-5")


def test_a_start_from_the_beginning_forgets_what_the_run_branched_off_from(here: Path) -> None:
    branch = RunDirectory("branch")
    for resume in (here / "run" / "checkpoint-3", False, True):
        branch.claim(resume=resume)
        branch.release()
    assert branch.branched_from is None


@pytest.mark.parametrize(
    ("key", "then", "now"),
    [
        ("threads", "1", "2"),
        ("threads", "1", "1 on rank 0; 2 on rank 1"),
        ("processor", "a CPU, AVX512", "another CPU, AVX2"),
        ("torch", "1.0", None),
    ],
)
def test_what_may_change_the_last_bits_is_noted(
    key: str, then: str, now: str | None, here: Path
) -> None:
    directory = saved(run_of(), 3)

    def older(told: Any) -> Any:
        told["fingerprint"]["recorded"][key] = then
        return told

    forge(directory.path / "checkpoint-3", older)
    run = run_of(RESUME + "true")
    checkpoint = checkpoint_to_resume(run, directory, 1)
    assert checkpoint is not None
    ours = fingerprint_of(run, **({key: now} if now else {}))
    (note,) = resume_notes(run, directory, checkpoint, ours)
    here_it_is = ours["recorded"][key]
    assert note == (
        f"{checkpoint} was written with {key} {then}, this is {here_it_is}: "
        "the last bits of losses and weights may differ"
    )


def test_what_an_earlier_version_did_not_record_is_not_noted(here: Path) -> None:
    directory = saved(run_of(), 3)

    def older(told: Any) -> Any:
        del told["fingerprint"]["recorded"]["processor"]
        return told

    forge(directory.path / "checkpoint-3", older)
    run = run_of(RESUME + "true")
    checkpoint = checkpoint_to_resume(run, directory, 1)
    assert checkpoint is not None
    assert resume_notes(run, directory, checkpoint, fingerprint_of(run)) == []


# -- which one ------------------------------------------------------------------------------------


def test_the_newest_that_is_whole_and_what_is_not_is_told(here: Path) -> None:
    directory = saved(run_of(), 3, 6, 9)
    (directory.path / "checkpoint-9" / "COMMIT").write_text("0" * 64 + "\n")
    (directory.path / "checkpoint-6" / "trainer.json").write_text("{}")
    run = run_of(RESUME + "true")
    checkpoint = checkpoint_to_resume(run, directory, 1)
    assert checkpoint == Path("run/checkpoint-3")
    commit, state = resume_notes(run, directory, checkpoint, fingerprint_of(run))
    assert commit == "run/checkpoint-9 is not used: COMMIT is not the hash of MANIFEST.json"
    assert state.startswith("run/checkpoint-6 is not used: trainer.json: 2 bytes, ")
    strict = run_of(RESUME + "true", "checkpoint.strict=true")
    assert len(refusal(strict, directory)) == 1
    (directory.path / "checkpoint-3" / "MANIFEST.json").unlink()
    said = refusal(run, directory)  # and not from the beginning, in silence
    assert len(said) == 3
    assert "run/checkpoint-3: MANIFEST.json: cannot be read (No such file" in said[2]


def test_nothing_to_continue(here: Path) -> None:
    directory = saved(run_of())
    assert checkpoint_to_resume(run_of(), directory, 1) is None
    assert checkpoint_to_resume(run_of(RESUME + "true"), directory, 1) is None
    (said,) = refusal(run_of(RESUME + "run/checkpoint-7"), directory)
    assert f"{here}/run/checkpoint-7: checkpoint-7: cannot be read (No such file" in said


def test_the_link_best_names_a_checkpoint(here: Path) -> None:
    directory = saved(run_of(), 3)
    (directory.path / "best").symlink_to("checkpoint-3")
    run = run_of(RESUME + "run/best")
    assert checkpoint_to_resume(run, directory, 1) == here / "run" / "checkpoint-3"
