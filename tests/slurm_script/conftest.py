"""What the tests of this folder share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slurm_script.stage import NOTE, PROGRAMS, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    for name in ("bin", "calls", "spool", "submitted", "checkout"):
        (tmp_path / name).mkdir()
    for name, text in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.write_text(NOTE + text)
        program.chmod(0o755)
    return Stage(
        tmp_path,
        {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "STAGE": str(tmp_path),
            "STAGE_SCRIPT": f"{tmp_path}/checkout/finetune.sh",
            "TMPDIR": str(tmp_path),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_NTASKS": "4",
            "SLURM_CPUS_PER_TASK": "3",
        },
    )
