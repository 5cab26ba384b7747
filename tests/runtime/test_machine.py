"""What of a machine decides the last bits of a run is told alike by all ranks."""

from __future__ import annotations

import pytest
import torch
from distributed.ranks import run_ranks
from runtime.arithmetic import peaks_of_a_large_rank, told_with_threads

from bigft.runtime.machine import KERNEL_VARIABLES, processor


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("threads", "said"), [([1, 1, 1], "1"), ([2, 1, 2], "2 on rank 0, 2; 1 on rank 1")]
)
def test_threads_are_told_by_rank_where_they_differ(threads: list[int], said: str) -> None:
    told = run_ranks(told_with_threads, 3, threads)
    assert [one["threads"] for one in told] == [said] * 3
    assert len({one["processor"] for one in told}) == 1


def test_a_cpu_is_told_with_what_chooses_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KERNEL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    plain = processor(torch.device("cpu"))
    assert plain.endswith(f", {torch.backends.cpu.get_cpu_capability()}")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert processor(torch.device("cpu")) == f"{plain}, MKL_CBWR=COMPATIBLE"


@pytest.mark.distributed
def test_the_memory_of_the_rank_that_needed_most_is_told_by_all() -> None:
    (before, after), others = run_ranks(peaks_of_a_large_rank, 2)
    assert others == (before, after)
    assert 290 < after - before < 400  # 300 MiB, and holes of malloc
