"""A checkpoint that is not what was written is refused before anything of it is deserialised, and
the one before it is used. So is what somebody else may have put there."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from training.checkpoint.small import SmallEngine, forge, save, store_in
from training.scenarios import Canary

from bigft.config.errors import BadInput
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint.files import Stamp
from bigft.training.checkpoint.manifest import COMMIT, MANIFEST, Damaged, Manifest
from bigft.training.checkpoint.shards import SafeCheckpointEngine

NUM_FLIPS = 1000
FILES = ["ds/shard-0.pt", "rank-00000.json", "trainer.json", MANIFEST, COMMIT]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with checkpoints of steps 10, 20 and 30."""
    run = tmp_path / "run"
    run.mkdir()
    save(run, 10, 20, 30)
    return run


def resumed(run: Path, strict: bool = False) -> tuple[list[str], list[str]]:
    """What a resume does: the names of the checkpoints it deserialises, and what it says."""
    engine, store = SmallEngine(), store_in(run, strict=strict)
    *_, (_, newest) = RunDirectory(run).named_checkpoints()
    checkpoint, refused = store.verified(newest, fall_back=True)
    store.load(engine, checkpoint)
    return [path.name for path in engine.read], refused


def test_every_flipped_bit_is_seen(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit in any file, a thousand times. Until a checkpoint is found that is whole, torch
    loads nothing, and the previous checkpoint alone is given to it."""
    monkeypatch.setattr(torch, "load", lambda *given, **named: pytest.fail("deserialised"))
    source = random.Random(0)
    for flip in range(NUM_FLIPS):
        name = FILES[flip % len(FILES)]
        file = run / "checkpoint-30" / name
        whole = file.read_bytes()
        bit = source.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        read, refused = resumed(run)
        assert read == ["checkpoint-20"], (name, bit)
        assert len(refused) == 1
        assert name.rpartition("/")[2] in refused[0], (name, bit, refused)
        file.write_bytes(whole)
    assert resumed(run) == (["checkpoint-30"], [])


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut_short, Path.unlink, Path.touch], ids=lambda do: do.__name__)
def test_a_file_cut_short_or_missing_or_none(
    damage: Callable[[Path], None], name: str, run: Path
) -> None:
    file = run / "checkpoint-30" / name
    if damage is Path.touch:
        file.write_bytes(b"")
    else:
        damage(file)
    read, refused = resumed(run)
    assert read == ["checkpoint-20"]
    assert f"{run}/checkpoint-30 is not used: " in refused[0]


@pytest.mark.parametrize("content", [b"checkpoint-10", b"../../elsewhere", b"\x00\xff", None])
def test_latest_is_never_trusted(content: bytes | None, run: Path) -> None:
    (run / "latest").unlink()
    if content is not None:
        (run / "latest").write_bytes(content)
    assert resumed(run) == (["checkpoint-30"], [])


def test_two_damaged_ones_and_then_none(run: Path) -> None:
    for step, previous in ((30, 20), (20, 10)):
        cut_short(run / f"checkpoint-{step}" / "trainer.json")
        read, _ = resumed(run)
        assert read == [f"checkpoint-{previous}"]
    cut_short(run / "checkpoint-10" / "ds" / "shard-0.pt")
    with pytest.raises(BadInput) as refusal:
        resumed(run)
    assert [problem.what.partition(" ")[0] for problem in refusal.value.problems] == [
        f"{run}/checkpoint-{step}" for step in (30, 20, 10)
    ]


def test_strict_stops_at_the_first(run: Path) -> None:
    cut_short(run / "checkpoint-30" / "ds" / "shard-0.pt")
    with pytest.raises(BadInput, match=r"checkpoint-30 is not used: ds/shard-0\.pt: 39 bytes"):
        resumed(run, strict=True)


# -- what somebody else may have put there --------------------------------------------------------


def test_a_shard_with_foreign_code_does_not_run(run: Path, tmp_path: Path) -> None:
    """Its hashes are right: whoever can write a shard can write a manifest."""
    canary, shard = tmp_path / "canary", run / "checkpoint-30" / "ds" / "shard-0.pt"
    torch.save({"module": Canary(str(canary))}, shard)

    def agree(told: Any) -> Any:
        told["files"][0]["ds/shard-0.pt"] = asdict(stamp_of(shard))
        return told

    forge(run / "checkpoint-30", agree)
    assert resumed(run) == (["checkpoint-30"], [])  # nothing for hashes to find
    with pytest.raises(BadInput, match="damaged, or made by something else than bigft"):
        SafeCheckpointEngine().load(str(shard))
    assert not canary.exists()
    torch.load(shard, weights_only=False)
    assert canary.exists()  # it would have sung


def stamp_of(path: Path) -> Stamp:
    content = path.read_bytes()
    return Stamp(len(content), xxhash.xxh3_128(content).hexdigest())


@pytest.mark.parametrize(
    "name",
    [
        "../secret", "../../secret", "ds/../../secret", "/etc/passwd", "ds//etc/passwd", "ds/",
        "", ".", "..", "ds/..", "a/b", "ds/a/b", "ds/.hidden", "new\nline", "ds/nul\0", "ünicode",
    ],
)  # fmt: skip
def test_a_manifest_that_names_a_path_outside(name: str, run: Path) -> None:
    """Not even opened: the file that is named has the size and hash that the manifest says."""
    (run / "secret").write_text("token")

    def lead_outside(told: Any) -> Any:
        told["files"][0][name] = asdict(stamp_of(run / "secret"))
        return told

    forge(run / "checkpoint-30", lead_outside)
    read, refused = resumed(run)
    assert read == ["checkpoint-20"]
    assert f"names {name!r}, which is no file of a checkpoint" in refused[0]


@pytest.mark.parametrize(
    "told",
    [
        [], None, 7, "text", {}, {"format": 2}, {"format": 1}, {"format": 1, "step": 1},
        {"format": 1, "step": "1", "fingerprint": {}, "files": []},
        {"format": 1, "step": 1, "fingerprint": [], "files": []},
        {"format": 1, "step": 1, "fingerprint": {}, "files": [[]]},
        {"format": 1, "step": 1, "fingerprint": {}, "files": {"a": 1}},
        {"format": 1, "step": 1, "fingerprint": {}, "files": [{"ds/a": None}]},
        {"format": 1, "step": 1, "fingerprint": {}, "files": [], "more": 1},
        {"format": 1, "step": 1, "fingerprint": {}, "files": []},
        {"format": 1, "step": 1, "fingerprint": {}, "files": [{}]},
    ],
)  # fmt: skip
def test_a_manifest_of_another_shape(told: Any, run: Path) -> None:
    forge(run / "checkpoint-30", lambda _: told)
    read, refused = resumed(run)
    assert read == ["checkpoint-20"]
    assert "checkpoint-30 is not used: " in refused[0]


def link(path: Path) -> None:
    """The same bytes, elsewhere."""
    elsewhere = Path(str(path).partition("/run/")[0]) / f"elsewhere-{path.name}"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def open_to_all(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def of_another_user(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a file of another user: needs root")
    os.chown(path, 12345, -1)


@pytest.mark.parametrize("name", [*FILES, "ds", "."])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (link, "not a plain file or directory|Too many levels of symbolic links"),
        (open_to_all, "anyone may write to it"),
        (of_another_user, r"belongs to another user \(id 12345\)"),
    ],
)
def test_what_others_may_have_written(
    change: Callable[[Path], None], why: str, name: str, run: Path
) -> None:
    change(run / "checkpoint-30" / name)
    read, refused = resumed(run)
    assert read == ["checkpoint-20"]
    assert re.search(why, refused[0]), refused


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(run: Path) -> None:
    shard = run / "checkpoint-30" / "ds" / "shard-0.pt"
    shard.unlink()
    os.mkfifo(shard)
    read, refused = resumed(run)
    assert read == ["checkpoint-20"]
    assert "shard-0.pt: not a plain file" in refused[0]


def test_a_shard_that_was_added(run: Path) -> None:
    """DeepSpeed finds its files by their names."""
    (run / "checkpoint-30" / "ds" / "mp_rank_01_model_states.pt").write_bytes(b"")
    read, refused = resumed(run)
    assert read == ["checkpoint-20"]
    assert f"ds/mp_rank_01_model_states.pt: not in {MANIFEST}" in refused[0]


def test_whatever_the_umask_own_files_are_not_open_to_all(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        save(tmp_path, 10)
    finally:
        os.umask(before)
    manifest = Manifest.read(tmp_path / "checkpoint-10")
    assert manifest.problems(tmp_path / "checkpoint-10", [0]) == []
    with pytest.raises(Damaged):
        Manifest.read(tmp_path)
