"""Benchmarks measure whole processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from processes import run

FOLDER = str(Path(processes.__file__).parent)
LARGE = """
import subprocess, sys, time
held = bytearray(b"1") * (200 * 2**20)
print("step 1/2", flush=True)
subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.4: pass"])
time.sleep(0.1)
"""


def test_seconds_cpu_and_memory_of_a_process_are_measured(tmp_path: Path) -> None:
    """By a process without torch: a child's peak is never below that of its parent."""
    measuring = f"import sys, json; sys.path.insert(0, {FOLDER!r}); from pathlib import Path\n"
    measuring += "from processes import run; code, folder = sys.argv[1:]\n"
    measuring += "print(json.dumps([run(['-c', code], Path(folder), until='step 1/')._asdict(),"
    measuring += " run(['-c', ''], Path(folder))._asdict()]))"
    words = [sys.executable, "-c", measuring, LARGE, str(tmp_path)]
    large, small = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert 0 < large["seconds_until"] <= large["wall_seconds"] - 0.5
    assert large["cpu_seconds"] > 0.4  # its child's too
    assert large["peak_rss_mib"] - small["peak_rss_mib"] == pytest.approx(200, abs=20)
    assert small["seconds_until"] is None


def test_a_process_has_its_own_cache_and_its_threads(tmp_path: Path) -> None:
    code = "import os; assert os.environ['OMP_NUM_THREADS'] == '7'; "
    code += f"assert os.environ['BIGFT_CACHE'] == {str(tmp_path / 'cache')!r}"
    run(["-c", code], tmp_path, threads=7)


@pytest.mark.parametrize(
    ("code", "until", "said"),
    [
        ("print('why'); raise SystemExit(3)", "", "exit code 3 of python -c .*\nwhy\n"),
        ("print('step 2/2')", "step 1/", "exit code 0 of python -c .*\nstep 2/2\n"),
    ],
)
def test_a_run_that_failed_or_never_came_to_its_line_ends_the_benchmark(
    tmp_path: Path, code: str, until: str, said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        run(["-c", code], tmp_path, until=until)


def test_what_measures_memory_loads_no_torch() -> None:
    """A child's peak of memory is never below that of the process that started it."""
    code = f"import sys; sys.path.insert(0, {FOLDER!r}); import bench_train_ner, bench_train_text\n"
    code += "assert not {'torch', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
