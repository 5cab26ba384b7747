"""Prepared data appears whole or not at all, whoever else prepares it, and reads as written."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigft.config.errors import BadInput, Problem
from bigft.data.cache import STALE_SECONDS
from bigft.data.prepare import PreparedSplit, cache_root, fingerprint, prepare_split, prepared
from bigft.data.records import IGNORE_INDEX, Feature, Record

FORKED = multiprocessing.get_context("fork")
NUM_RECORDS = 1000  # several chunks
PRINT = "0123abcd"


def records(num_records: int = NUM_RECORDS) -> list[Record]:
    return [
        Record(index, {"tokens": ["é", "\ud800", None], "id": index}, "dir/a\udcff.txt", index + 1)
        for index in range(num_records)
    ]


def encode(record: Record) -> list[Feature]:
    """Record i has i % 3 + 1 windows."""
    num_windows = record.index % 3 + 1
    return [
        Feature(
            record.index,
            window,
            num_windows,
            input_ids_T=list(range(record.index % 7 + window + 1)),
            labels_T=[IGNORE_INDEX, record.index],
            columns={"words": [window], "empty": []},
        )
        for window in range(num_windows)
    ]


def build(directory: Path) -> None:
    prepare_split(directory, "train", records(), encode)
    (directory / "labels.json").write_text('["B", "O"]')


def assert_whole(directory: Path) -> None:
    split = PreparedSplit(directory, "train")
    assert split.num_records == NUM_RECORDS
    assert len(split) == sum(index % 3 + 1 for index in range(NUM_RECORDS))


def entries(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def killed(process: Any) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.join()


# --- splits ---


@pytest.mark.parametrize("num_workers", [None, 2])
def test_a_split_reads_as_it_was_written(tmp_path: Path, num_workers: int | None) -> None:
    prepare_split(tmp_path, "train", iter(records()), encode, num_workers)
    split = PreparedSplit(tmp_path, "train")
    expected = [feature for record in records() for feature in encode(record)]
    assert [split.feature(row) for row in range(len(split))] == expected
    assert [split.record(index) for index in range(split.num_records)] == records()
    for array, values in [
        (split.lengths, [feature.length for feature in expected]),
        (split.num_targets, [1 for feature in expected]),
        (split.record_of_row, [feature.record for feature in expected]),
    ]:
        assert array.dtype == np.int64
        assert array.tolist() == values


def test_workers_leave_ctrl_c_and_the_threads_of_tokenizers_to_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")

    def encode_surroundings(record: Record) -> list[Feature]:
        threads = os.environ["TOKENIZERS_PARALLELISM"] == "true"
        interrupted = signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        return [Feature(record.index, 0, 1, [int(threads), int(interrupted)], [os.getpid()])]

    prepare_split(tmp_path, "train", records(10), encode_surroundings, 2)
    split = PreparedSplit(tmp_path, "train")
    assert split.feature(0).input_ids_T == [0, 0]
    assert split.feature(0).labels_T != [os.getpid()]
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


@pytest.mark.parametrize("num_workers", [None, 2])
@pytest.mark.parametrize(("every", "num_reported"), [(300, 4), (2, 20)])
def test_problems_of_many_records_are_reported_at_once_in_order(
    tmp_path: Path, num_workers: int | None, every: int, num_reported: int
) -> None:
    def picky(record: Record) -> list[Feature]:
        if record.index % every == 0:
            raise BadInput(Problem(record.where, "label out of range", "mend it"))
        return encode(record)

    with pytest.raises(BadInput) as caught:
        prepare_split(tmp_path, "train", records(), picky, num_workers)
    lines = [problem.where.rsplit(":", 1)[1] for problem in caught.value.problems]
    assert lines == [str(index * every + 1) for index in range(num_reported)]
    assert "label out of range; mend it" in str(caught.value)


def test_a_fault_of_encode_comes_through_from_a_worker(tmp_path: Path) -> None:
    def faulty(record: Record) -> list[Feature]:
        raise KeyError("no such column")

    with pytest.raises(KeyError, match="no such column"):
        prepare_split(tmp_path, "train", records(), faulty, 2)


def test_records_are_read_as_workers_free_up_and_not_all_at_once(tmp_path: Path) -> None:
    num_read = 0

    def source() -> Any:
        nonlocal num_read
        for record in records(20_000):
            num_read += 1
            yield record

    def always_wrong(record: Record) -> list[Feature]:
        raise BadInput(Problem(record.where, "wrong"))

    with pytest.raises(BadInput):
        prepare_split(tmp_path, "train", source(), always_wrong, 2)
    assert num_read < 3000


@pytest.mark.parametrize("source", [[], records(3)])
def test_a_split_without_a_sample_is_refused(tmp_path: Path, source: list[Record]) -> None:
    with pytest.raises(BadInput, match="validation: has no sample"):
        prepare_split(tmp_path, "validation", source, lambda record: [])


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if not locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    num_built, start = FORKED.Value("i", 0), FORKED.Barrier(4)

    def build_counted(directory: Path) -> None:
        with num_built.get_lock():
            num_built.value += 1
        build(directory)
        time.sleep(0.2)

    def run() -> None:
        start.wait()
        assert_whole(prepared(tmp_path, PRINT, build_counted))

    processes = [FORKED.Process(target=run) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert num_built.value == (1 if locks else 4)
    assert entries(tmp_path) == {PRINT, f"{PRINT}.lock"}
    assert_whole(tmp_path / PRINT)


@pytest.mark.distributed
def test_a_killed_builder_frees_the_lock_and_the_next_one_succeeds(tmp_path: Path) -> None:
    begun = FORKED.Event()

    def encode_for_ever(record: Record) -> list[Feature]:
        begun.set()
        time.sleep(600)
        return []

    def never_ends(directory: Path) -> None:
        prepare_split(directory, "train", records(), encode_for_ever, num_workers=2)

    process = FORKED.Process(target=prepared, args=(tmp_path, PRINT, never_ends))
    process.start()
    assert begun.wait(60)
    killed(process)
    assert not (tmp_path / PRINT).exists()

    # In a process of its own: its workers' orphans would hold the lock, and this would never end.
    second = FORKED.Process(target=prepared, args=(tmp_path, PRINT, build))
    second.start()
    second.join(30)
    assert second.exitcode == 0
    assert_whole(tmp_path / PRINT)


def test_only_directories_left_for_a_day_are_removed(tmp_path: Path) -> None:
    for name, age in [("old", STALE_SECONDS + 60), ("young", 60), ("busy", STALE_SECONDS + 60)]:
        directory = tmp_path / f".tmp-x-host-1-{name}"
        directory.mkdir()
        (directory / "file").write_text("")
        then = time.time() - age
        os.utime(directory, (then, then))
        if name != "busy":  # its file is still being written
            os.utime(directory / "file", (then, then))
    prepared(tmp_path, PRINT, build)
    left = {name for name in entries(tmp_path) if name.startswith(".tmp")}
    assert left == {".tmp-x-host-1-young", ".tmp-x-host-1-busy"}


def truncate(directory: Path) -> None:
    os.truncate(directory / "train-features.arrow", 5000)


def overwrite_footer(directory: Path) -> None:
    path = directory / "train-records.arrow"
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))


def truncate_labels(directory: Path) -> None:
    os.truncate(directory / "labels.json", 5)


def remove_file(directory: Path) -> None:
    (directory / "train-records.arrow").unlink()


def cut_meta(directory: Path) -> None:
    os.truncate(directory / "meta.json", 10)


def state_other_rows(directory: Path) -> None:
    meta = json.loads((directory / "meta.json").read_text())
    meta["files"]["train-records.arrow"]["rows"] += 1
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
