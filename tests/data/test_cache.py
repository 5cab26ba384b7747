"""A cached directory appears whole or not at all, whoever else builds it, and is gone on with."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prepared import prepare_split
from waiting import PATIENCE

from bigft.config.errors import BadInput, Problem
from bigft.data.cache import (
    STALE_SECONDS,
    Interrupted,
    appearing,
    cache_root,
    fingerprint,
    prepared,
)
from bigft.data.records import Record, Row
from bigft.data.split import PreparedSplit
from bigft.tasks.text_rows import text_row

FORKED = multiprocessing.get_context("fork")
NUM_RECORDS = 500
PRINT = "0123abcd"
ROWS, RECORDS = "train-000002-rows.arrow", "train-000002-records.arrow"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigft.data.prepare.RECORDS_PER_PART", 100)


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def records() -> list[Record]:
    return [Record(index, {"text": "a" * 100}, "f", index + 1) for index in range(NUM_RECORDS)]


def encode(record: Record) -> list[Row]:
    return [text_row(record.index, 0, 1, [record.index] * 9, [record.index] * 9)]


def build(directory: Path) -> None:
    prepare_split(directory, "train", records(), encode, num_workers=1)
    with appearing(directory / "labels.json") as path:
        path.write_text('["B", "O"]')


def assert_whole(directory: Path) -> None:
    split = PreparedSplit(directory, "train")
    assert split.num_records == len(split) == NUM_RECORDS
    assert split.row(NUM_RECORDS - 1) == encode(records()[-1])[0]


def entries(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def killed(process: Any) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.join()


# --- fingerprints ---


def test_a_fingerprint_changes_with_options_names_and_contents_only(tmp_path: Path) -> None:
    file, copy = tmp_path / "a.txt", tmp_path / "b.txt"
    file.write_text("one")
    copy.write_text("one")
    first = fingerprint({"length": 128, "names": {"b": 1, "a": 2}}, [file])
    assert first == fingerprint({"names": {"a": 2, "b": 1}, "length": 128}, [str(file)])
    assert len(first) == 64
    others = [
        fingerprint({"length": 129, "names": {"b": 1, "a": 2}}, [file]),
        fingerprint({"length": 128, "names": {"b": 1, "a": 2}}, [copy]),
        fingerprint({"length": 128, "names": {"b": 1, "a": 2}}, [file, copy]),
    ]
    os.utime(file, (0, 0))
    assert first == fingerprint({"length": 128, "names": {"b": 1, "a": 2}}, [file])
    file.write_text("One")
    others.append(fingerprint({"length": 128, "names": {"b": 1, "a": 2}}, [file]))
    assert len({first, *others}) == 5


def test_files_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        fingerprint({}, [tmp_path / "missing.txt", tmp_path])
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/missing.txt: cannot be read: No such file or directory",
        f"{tmp_path}: cannot be read: Is a directory",
    ]


# --- the cache ---


def test_the_place_of_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    for name in ("BIGFT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_root() == Path("/home/u/.cache/bigft/prepared")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/bigft/prepared")
    monkeypatch.setenv("BIGFT_CACHE", "~/space")
    assert cache_root() == Path("/home/u/space/prepared")


def test_a_committed_directory_is_not_built_again(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    assert prepared(root, PRINT, build) == root / PRINT
    assert prepared(root, PRINT, lambda directory: pytest.fail("built again")) == root / PRINT
    assert_whole(root / PRINT)
    assert entries(root) == {PRINT, f"{PRINT}.lock"}


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    def half(directory: Path) -> None:
        (directory / "some").write_text("bytes")
        raise BadInput(Problem("train.txt:3", "malformed"))

    with pytest.raises(BadInput, match=r"train\.txt:3: malformed"):
        prepared(tmp_path, PRINT, half)
    assert entries(tmp_path) == {f"{PRINT}.lock"}


@pytest.mark.distributed
@pytest.mark.parametrize("locks", [True, False])
def test_processes_that_prepare_at_once_end_with_one_whole_directory(
    tmp_path: Path, request: pytest.FixtureRequest, locks: bool
) -> None:
    if not locks:
        request.getfixturevalue("no_locks")
    num_built, together = FORKED.Value("i", 0), FORKED.Barrier(4)

    def build_counted(directory: Path) -> None:
        with num_built.get_lock():
            num_built.value += 1
        if not locks:
            together.wait(PATIENCE)
        build(directory)

    def run() -> None:
        if locks:
            together.wait(PATIENCE)
        assert_whole(prepared(tmp_path, PRINT, build_counted))

    processes = [FORKED.Process(target=run) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * 4
    assert num_built.value == (1 if locks else 4)
    assert entries(tmp_path) == {PRINT, f"{PRINT}.lock"}
    assert len(entries(tmp_path / PRINT)) == 2 * 5 + 2  # nothing private is left in it
    assert_whole(tmp_path / PRINT)


def test_a_build_goes_on_where_one_that_was_killed_has_stopped(tmp_path: Path) -> None:
    begun = FORKED.Event()

    def never_ends(directory: Path) -> None:
        with appearing(directory / "first") as path:
            path.write_text("1")
        with appearing(directory / "second") as path:
            path.write_text("half of i")
            begun.set()
            time.sleep(1000)

    process = FORKED.Process(target=prepared, args=(tmp_path, PRINT, never_ends))
    process.start()
    assert begun.wait(PATIENCE)
    killed(process)
    assert not (tmp_path / PRINT).exists()

    def go_on(directory: Path) -> None:
        assert (directory / "first").read_text() == "1"
        assert not (directory / "second").exists()

    assert entries(prepared(tmp_path, PRINT, go_on)) == {"first", "meta.json"}
    assert entries(tmp_path) == {PRINT, f"{PRINT}.lock"}


@pytest.mark.distributed
def test_a_killed_builder_frees_the_lock_though_it_had_workers(tmp_path: Path) -> None:
    begun = FORKED.Event()

    def encode_for_ever(record: Record) -> list[Row]:
        begun.set()
        time.sleep(1000)
        return []

    def never_ends(directory: Path) -> None:
        prepare_split(directory, "train", records(), encode_for_ever, num_workers=2)

    process = FORKED.Process(target=prepared, args=(tmp_path, PRINT, never_ends))
    process.start()
    assert begun.wait(PATIENCE)
    killed(process)

    # In a process of its own: its workers' orphans would hold the lock, and this would never end.
    second = FORKED.Process(target=prepared, args=(tmp_path, PRINT, build))
    second.start()
    second.join(PATIENCE)
    assert second.exitcode == 0
    assert_whole(tmp_path / PRINT)


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (Interrupted(Problem("data.key", "killed", "give less")), "data.key: killed; give less"),
        (KeyboardInterrupt(), ""),
    ],
)
def test_an_interrupted_build_keeps_its_files(
    tmp_path: Path, stop: BaseException, told: str
) -> None:
    def interrupted(directory: Path) -> None:
        (directory / "part").touch()
        raise stop

    with pytest.raises((BadInput, KeyboardInterrupt)) as caught:
        prepared(tmp_path, PRINT, interrupted)
    assert str(caught.value) == told
    assert entries(tmp_path / f".tmp-{PRINT}") == {"part"}


# --- without locks ---


def test_who_finds_that_another_has_committed_takes_that(tmp_path: Path, no_locks: None) -> None:
    def overtaken(directory: Path) -> None:
        with appearing(directory / "labels.json") as path:
            path.write_text("[]")
            prepared(tmp_path, PRINT, build)
        pytest.fail("wrote into a directory that is not there any more")

    assert_whole(prepared(tmp_path, PRINT, overtaken))
    assert (tmp_path / PRINT / "labels.json").read_text() == '["B", "O"]'
    assert entries(tmp_path) == {PRINT, f"{PRINT}.lock"}


def test_whose_directory_another_has_removed_builds_again(tmp_path: Path, no_locks: None) -> None:
    attempts = 0

    def robbed_once(directory: Path) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            shutil.rmtree(directory)
        build(directory)

    assert_whole(prepared(tmp_path, PRINT, robbed_once))
    assert attempts == 2


def test_a_file_that_the_build_misses_is_no_sign_of_another_process(tmp_path: Path) -> None:
    attempts = iter([1])

    def careless(directory: Path) -> None:
        assert next(attempts, None), "tried again"
        (directory / "nothing").read_text()

    with pytest.raises(FileNotFoundError, match="nothing"):
        prepared(tmp_path, PRINT, careless)
    assert entries(tmp_path) == {f"{PRINT}.lock"}


# --- leftovers and damage ---


def test_only_others_directories_left_for_a_day_are_removed(tmp_path: Path) -> None:
    for name, age in [("old", STALE_SECONDS + 60), ("young", 60), ("busy", STALE_SECONDS + 60)]:
        directory = tmp_path / f".tmp-{name}"
        directory.mkdir()
        (directory / "file").write_text("")
        then = time.time() - age
        os.utime(directory, (then, then))
        if name != "busy":  # its file is still being written
            os.utime(directory / "file", (then, then))
    ours = tmp_path / f".tmp-{PRINT}"
    ours.mkdir()
    (ours / "part").touch()
    for path in (ours / "part", ours):
        os.utime(path, (0, 0))

    def go_on(directory: Path) -> None:
        assert entries(directory) == {"part"}

    prepared(tmp_path, PRINT, go_on)
    left = {name for name in entries(tmp_path) if name.startswith(".tmp")}
    assert left == {".tmp-young", ".tmp-busy"}


def truncate(directory: Path) -> None:
    os.truncate(directory / ROWS, 2000)


def overwrite_footer(directory: Path) -> None:
    path = directory / RECORDS
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))


def truncate_labels(directory: Path) -> None:
    os.truncate(directory / "labels.json", 5)


def remove_file(directory: Path) -> None:
    (directory / RECORDS).unlink()


def cut_meta(directory: Path) -> None:
    os.truncate(directory / "meta.json", 10)


def state_other_rows(directory: Path) -> None:
    meta = json.loads((directory / "meta.json").read_text())
    meta["files"][RECORDS]["rows"] += 1
    (directory / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    "damage",
    [truncate, overwrite_footer, truncate_labels, remove_file, cut_meta, state_other_rows],
)
def test_a_damaged_directory_is_prepared_again_with_a_warning(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(prepared(tmp_path, PRINT, build))
    with caplog.at_level(logging.WARNING):
        assert_whole(prepared(tmp_path, PRINT, build))
    assert "is damaged: preparing the data again" in caplog.text
    assert entries(tmp_path) == {PRINT, f"{PRINT}.lock"}


def test_a_place_that_cannot_be_written_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    root = tmp_path / "file" / "prepared"
    with pytest.raises(BadInput, match="Not a directory; set BIGFT_CACHE to") as caught:
        prepared(root, PRINT, build)
    assert str(caught.value).startswith(f"{root}: prepared data cannot be written")


def test_a_full_disk_is_refused_with_the_way_out_and_leaves_nothing(tmp_path: Path) -> None:
    def full(directory: Path) -> None:
        (directory / "some").write_text("bytes")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(BadInput, match="No space left on device; set BIGFT_CACHE"):
        prepared(tmp_path, PRINT, full)
    assert entries(tmp_path) == {f"{PRINT}.lock"}


def test_a_data_file_without_permission_is_not_blamed_on_the_cache(tmp_path: Path) -> None:
    def forbidden(directory: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/data/train.txt")

    with pytest.raises(PermissionError, match=r"/data/train\.txt"):
        prepared(tmp_path, PRINT, forbidden)
