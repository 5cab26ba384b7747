"""A prepared split reads as written, by however many processes, and goes on where it stopped."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prepared import prepare_split
from waiting import PATIENCE, wait_until

from bigft.config.errors import BadInput, Problem
from bigft.data import prepare
from bigft.data.cache import Interrupted, prepared
from bigft.data.records import IGNORE_INDEX, Record, Row
from bigft.data.split import PreparedSplit
from bigft.tasks.text_rows import text_row

FORKED = multiprocessing.get_context("fork")
PER_PART = 100
NUM_RECORDS = 950
PRINT = "0123abcd"

WORKERS = pytest.mark.parametrize("num_workers", [1, 2])


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "RECORDS_PER_PART", PER_PART)
    monkeypatch.setattr(prepare, "ROWS_PER_BATCH", 16)


def records(num_records: int = NUM_RECORDS) -> list[Record]:
    return [
        Record(index, {"tokens": ["é", "\ud800", None], "id": index}, "dir/a\udcff.txt", index + 1)
        for index in range(num_records)
    ]


def encode(record: Record) -> list[Row]:
    """Record i has i % 3 + 1 windows."""
    num_windows = record.index % 3 + 1
    return [
        text_row(
            record.index,
            window,
            num_windows,
            input_ids_T=list(range(record.index % 7 + window + 1)),
            labels_T=[IGNORE_INDEX, record.index],
            columns={"words": [window], "empty": []},
            lost_targets=record.index % 5,
        )
        for window in range(num_windows)
    ]


def encoding_process(record: Record) -> list[Row]:
    return [text_row(record.index, 0, 1, [os.getpid()], [0])]


def parts(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def texts(*said: dict[str, Any]) -> list[Record]:
    return [Record(index, fields, "f", index + 1) for index, fields in enumerate(said)]


# --- what is written ---


@WORKERS
def test_a_split_reads_as_it_was_written(tmp_path: Path, num_workers: int) -> None:
    split = prepare_split(tmp_path, "train", iter(records()), encode, num_workers)
    assert len(parts(tmp_path)) == 2 * 10
    expected = [feature for record in records() for feature in encode(record)]
    for read in (split, PreparedSplit(tmp_path, "train")):
        assert [read.row(row) for row in range(len(read))] == expected
        assert [read.record(index) for index in range(read.num_records)] == records()
    for array, values in [
        (split.lengths, [feature.length for feature in expected]),
        (split.num_targets, [1 for feature in expected]),
        (split.lost_targets, [feature.lost_targets for feature in expected]),
        (split.record_of_row, [feature.record for feature in expected]),
    ]:
        assert array.dtype == np.int64
        assert array.tolist() == values


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for num_workers in (1, 2, 3):
        (tmp_path / str(num_workers)).mkdir()
        prepare_split(tmp_path / str(num_workers), "train", records(), encode, num_workers)
    one, *others = (
        {path.name: path.read_bytes() for path in directory.iterdir()}
        for directory in tmp_path.iterdir()
    )
    assert others == [one, one]


def test_a_part_is_bounded_by_its_text_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "CHARACTERS_PER_PART", 1000)
    monkeypatch.setattr(prepare, "LENGTH_PER_BATCH", 500)
    lengths = [10, 2000, 10, 600, 600, 10]
    source = texts(*({"text": "a" * length} for length in lengths))
    split = prepare_split(
        tmp_path, "train", source, lambda r: [text_row(r.index, 0, 1, [1] * lengths[r.index], [0])]
    )
    assert len(parts(tmp_path)) == 2 * 3
    with pa.ipc.open_file(str(tmp_path / "train-000001-rows.arrow")) as file:
        assert [file.get_batch(n).num_rows for n in range(file.num_record_batches)] == [2, 1]
    assert split.lengths.tolist() == lengths
    assert [split.record(index) for index in range(6)] == source


def test_records_without_a_row_may_fill_a_whole_part(tmp_path: Path) -> None:
    def sparse(record: Record) -> list[Row]:
        return [] if 50 <= record.index < 300 else encode(record)

    split = prepare_split(tmp_path, "train", records(400), sparse)
    expected = [feature for record in records(400) for feature in sparse(record)]
    assert [split.row(row) for row in range(len(split))] == expected
    assert split.record(299) == records(400)[299]


@pytest.mark.parametrize("source", [[], records(3), records(250)])
def test_a_split_without_a_sample_is_refused(tmp_path: Path, source: list[Record]) -> None:
    with pytest.raises(BadInput, match="validation: has no sample"):
        prepare_split(tmp_path, "validation", source, lambda record: [])


def test_notes_are_counted_by_record(tmp_path: Path) -> None:
    def noted(record: Record) -> list[Row]:
        return [replace(row, notes=("odd",) * (record.index % 2)) for row in encode(record)]

    split = prepare_split(tmp_path, "train", records(150), noted, 2)
    assert split.notes() == {"odd": (75, split.record(1))}


def test_a_date_of_a_parquet_file_is_kept_as_text(tmp_path: Path) -> None:
    source = texts({"text": "a", "day": datetime.date(2024, 5, 17)})
    split = prepare_split(tmp_path, "train", source, encode)
    assert split.record(0).fields == {"text": "a", "day": "2024-05-17"}


# --- processes ---


def test_one_part_is_not_worth_a_process(tmp_path: Path) -> None:
    split = prepare_split(tmp_path, "train", records(PER_PART), encoding_process, 2)
    assert split.row(0).columns["input_ids"] == [os.getpid()]


@pytest.mark.parametrize(("cores", "num_processes"), [({0}, 1), ({0, 3}, 2), (set(range(9)), 3)])
def test_without_a_number_there_is_a_process_per_core_as_far_as_there_are_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: set[int], num_processes: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores)
    started = FORKED.Barrier(num_processes)

    def in_step(record: Record) -> list[Row]:
        if record.index % PER_PART == 0 and record.index // PER_PART < num_processes:
            started.wait(PATIENCE)  # each process has a part of its own
        return encoding_process(record)

    split = prepare_split(tmp_path, "train", records(3 * PER_PART), in_step)
    processes = {split.row(row).columns["input_ids"][0] for row in range(len(split))}
    assert len(processes) == num_processes
    assert (os.getpid() in processes) == (num_processes == 1)


def test_workers_leave_ctrl_c_and_the_threads_of_tokenizers_to_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")

    def encode_surroundings(record: Record) -> list[Row]:
        threads = os.environ["TOKENIZERS_PARALLELISM"] == "true"
        interrupted = signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        return [text_row(record.index, 0, 1, [int(threads), int(interrupted)], [0])]

    split = prepare_split(tmp_path, "train", records(PER_PART + 1), encode_surroundings, 2)
    assert split.row(0).columns["input_ids"] == [0, 0]
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


def test_a_fault_of_encode_comes_through_from_a_worker(tmp_path: Path) -> None:
    def faulty(record: Record) -> list[Row]:
        raise KeyError("no such column")

    with pytest.raises(KeyError, match="no such column"):
        prepare_split(tmp_path, "train", records(), faulty, 2)
    assert parts(tmp_path) == []


def test_a_worker_that_is_killed_is_told_and_leaves_what_was_done(tmp_path: Path) -> None:
    def hungry(record: Record) -> list[Row]:
        if record.index == 5 * PER_PART:
            while len(parts(tmp_path)) < 2 * 4:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(record)

    with pytest.raises(Interrupted) as caught:
        prepare_split(tmp_path, "train", records(), hungry, 2)
    assert str(caught.value) == (
        "data.preprocessing_num_workers: one of 2 processes was killed, most likely for want of "
        "memory; give fewer; what they had done is kept"
    )
    assert len(parts(tmp_path)) >= 2 * 4


# --- problems ---


@WORKERS
@pytest.mark.parametrize(("every", "num_reported"), [(300, 4), (2, 20)])
def test_problems_of_many_records_are_reported_at_once_in_order(
    tmp_path: Path, num_workers: int, every: int, num_reported: int
) -> None:
    def picky(record: Record) -> list[Row]:
        if record.index % every == 0:
            raise BadInput(Problem(record.where, "label out of range", "fix it"))
        return encode(record)

    with pytest.raises(BadInput) as caught:
        prepare_split(tmp_path, "train", records(), picky, num_workers)
    lines = [problem.where.rsplit(":", 1)[1] for problem in caught.value.problems]
    assert lines == [str(index * every + 1) for index in range(num_reported)]
    assert "label out of range; fix it" in str(caught.value)


@WORKERS
def test_what_a_stream_refuses_at_its_end_comes_with_what_encode_does(
    tmp_path: Path, num_workers: int
) -> None:
    def source() -> Iterator[Record]:
        yield from records(PER_PART + 10)
        raise BadInput(Problem("f:3", "no JSON"))

    with pytest.raises(BadInput, match=r"^f:3: no JSON$"):
        prepare_split(tmp_path, "train", source(), encode, num_workers)

    def picky(record: Record) -> list[Row]:
        if record.index in (5, PER_PART + 9):  # one of the part that is cut short
            raise BadInput(Problem(f"record {record.index}", "too long"))
        return encode(record)

    with pytest.raises(BadInput) as caught:
        prepare_split(tmp_path, "validation", source(), picky, num_workers)
    assert str(caught.value).splitlines() == [
        "f:3: no JSON",
        "record 5: too long",
        f"record {PER_PART + 9}: too long",
    ]


def test_records_are_read_as_workers_free_up_and_not_all_at_once(tmp_path: Path) -> None:
    num_read = 0

    def source() -> Iterator[Record]:
        nonlocal num_read
        for record in records(20_000):
            num_read += 1
            yield record

    def always_wrong(record: Record) -> list[Row]:
        raise BadInput(Problem(record.where, "wrong"))

    with pytest.raises(BadInput):
        prepare_split(tmp_path, "train", source(), always_wrong, 2)
    assert num_read <= 7 * PER_PART  # three parts for each of two processes, and the one in work


# --- going on ---


def counting(path: Path) -> Callable[[Record], list[Row]]:
    """`encode`, which notes in a file whom it has encoded, whichever process calls it."""

    def counted(record: Record) -> list[Row]:
        with path.open("a") as file:
            file.write(f"{record.index}\n")
        return encode(record)

    return counted


def encoded(path: Path) -> Counter[int]:
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("num_workers", "whole"),
    # The second worker is given two parts for each of the two, beside the one that is stuck.
    [(1, {0, 1, 2, 3}), (2, {0, 1, 2, 3, 5, 6, 7, 8})],
)
def test_a_killed_preparation_goes_on_behind_its_whole_parts(
    tmp_path: Path, num_workers: int, whole: set[int]
) -> None:
    log, root = tmp_path / "log", tmp_path / "cache"

    def gets_stuck(record: Record) -> list[Row]:
        if record.index == 4 * PER_PART + 50:
            time.sleep(1000)
        return encode(record)

    def prepare_with(encode: Any) -> Path:
        return prepared(
            root,
            PRINT,
            lambda directory: prepare_split(directory, "train", records(), encode, num_workers),
        )

    process = FORKED.Process(target=prepare_with, args=(gets_stuck,))
    process.start()
    building = root / f".tmp-{PRINT}"

    def left() -> set[int]:
        return {int(path.name.split("-")[1]) for path in building.glob("[!.]*-rows.arrow")}

    wait_until(lambda: left() == whole)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    split = PreparedSplit(prepare_with(counting(log)), "train")
    assert encoded(log) == Counter(i for i in range(NUM_RECORDS) if i // PER_PART not in whole)
    assert [split.record(index) for index in range(split.num_records)] == records()
    assert split.lengths.tolist() == [f.length for r in records() for f in encode(r)]


def cut_rows(directory: Path) -> None:
    os.truncate(directory / "train-000001-rows.arrow", 900)


def remove_rows(directory: Path) -> None:
    (directory / "train-000001-rows.arrow").unlink()


def cut_records(directory: Path) -> None:
    os.truncate(directory / "train-000001-records.arrow", 900)


@pytest.mark.parametrize("damage", [cut_rows, remove_rows, cut_records])
def test_a_part_that_is_not_whole_is_encoded_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    directory = tmp_path / "split"
    directory.mkdir()
    prepare_split(directory, "train", records(), encode)
    damage(directory)
    prepare_split(directory, "train", records(), counting(tmp_path / "log"))
    assert encoded(tmp_path / "log") == Counter(range(PER_PART, 2 * PER_PART))


def test_parts_of_other_records_are_not_taken_over(tmp_path: Path) -> None:
    """A data set of the hub may change under its name between two attempts."""
    directory = tmp_path / "split"
    directory.mkdir()
    prepare_split(directory, "train", records(), encode)
    fewer = records(3 * PER_PART)
    fewer[PER_PART + 5] = Record(PER_PART + 5, {"text": "new"}, "dir/a\udcff.txt", PER_PART + 6)
    split = prepare_split(directory, "train", fewer, counting(tmp_path / "log"))
    assert encoded(tmp_path / "log") == Counter(range(PER_PART, 2 * PER_PART))
    assert [split.record(index) for index in range(split.num_records)] == fewer
