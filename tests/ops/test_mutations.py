"""Faults that are planted in a test build of the CPU sources are caught, by the check meant."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from ops.test_native import run

REPOSITORY = Path(__file__).resolve().parents[2]
CAUGHT_BY = {
    "skip_mask": "masked_rows_are_never_read",
    "drop_maximum": "large_logits_stay_finite",
    "wrong_target_gradient": "answers_are_exact",
    "accumulate_weight_in_bf16": "weight_gradient_is_summed_in_fp32",
    "read_one_row_too_far": "only_its_own_rows_are_read",
    "forget_upstream": "gradients_follow_the_upstream",
    "ignore_row_weight": "row_weights_multiply",
    "dropout_forward_only": "dropout_is_the_definitions",
}


@pytest.fixture(scope="module")
def failed() -> dict[str, dict[str, str]]:
    """By fault, which checks failed and how; "" is no fault. One build, one process.

    The build takes minutes on one core; it stays in build/, where ninja makes anew what changed.
    """
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler")
    folder = REPOSITORY / "build" / f"faults-{torch.__version__}"
    build = [sys.executable, "setup.py", "build_ext"]
    build += ["--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp")]
    done = subprocess.run(
        build,
        cwd=REPOSITORY,
        env={**os.environ, "BIGFT_FAULTS": "1", "BIGFT_CUDA": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    library = folder / "lib" / "bigft" / f"_ops{sysconfig.get_config_var('EXT_SUFFIX')}"
    done = run("-m", "ops.checks", "", *CAUGHT_BY, BIGFT_OPS_LIBRARY=str(library))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["cpu"].startswith("native")
    return report["failed"]


@pytest.mark.slow
def test_without_a_fault_every_check_passes(failed: dict[str, dict[str, str]]) -> None:
    assert failed[""] == {}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "check"), CAUGHT_BY.items())
def test_the_fault_is_caught(fault: str, check: str, failed: dict[str, dict[str, str]]) -> None:
    assert check in failed[fault], f"only these failed: {failed[fault]}"
