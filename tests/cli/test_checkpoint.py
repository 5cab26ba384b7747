"""`bigft checkpoint`: what there is to go on from, and what is damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from training.checkpoint.small import save

from bigft.cli import main
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint.manifest import Manifest
from bigft.training.checkpoint.retention import discard


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 5, 10 and 15; the best is the second."""
    directory = RunDirectory(tmp_path / "run")
    directory.claim(resume=False)
    save(directory.path, 5, 10, 15, best_step=10)
    directory.release()
    return directory.path


def damage(run: Path, step: int) -> None:
    shard = run / f"checkpoint-{step}" / "ds" / "shard-0.pt"
    shard.write_bytes(b"0" + shard.read_bytes()[1:])


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_list_shows_what_is_committed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "list", str(run)]) == 0
    rows = lines(capsys)
    assert [row[0] for row in rows] == ["checkpoint-5", "checkpoint-10", "checkpoint-15"]
    assert [row[5:] for row in rows] == [["committed"], ["committed", "best"],
                                         ["committed", "newest"]]  # fmt: skip
    assert rows[0][2] == "MB"


@pytest.mark.parametrize("action", ["list", "verify"])
def test_a_checkpoint_without_commit_is_told_of(
    run: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    (run / "checkpoint-15" / "COMMIT").unlink()
    assert main(["checkpoint", action, str(run)]) == 1
    *_, row, why = capsys.readouterr().out.splitlines()
    assert row.startswith("checkpoint-15")
    assert "damaged" in row
    assert why.strip().startswith("COMMIT: cannot be read")


def test_list_reads_no_shard(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(run, 5)
    assert main(["checkpoint", "list", str(run)]) == 0
    (run / "checkpoint-10" / "trainer.json").write_text("{}")
    assert main(["checkpoint", "list", str(run)]) == 1
    rows = lines(capsys)
    assert ["trainer.json:", "2", "bytes,"] in [row[:3] for row in rows]


def test_verify_names_the_damaged_files(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "verify", str(run)]) == 0
    assert [row[5] for row in lines(capsys)] == ["verified"] * 3
    damage(run, 10)
    assert main(["checkpoint", "verify", str(run)]) == 1
    told = capsys.readouterr().out
    assert "    ds/shard-0.pt: its bytes are not those that were written" in told
    assert told.count("damaged") == 1
    assert main(["checkpoint", "verify", str(run), "15"]) == 0
    assert main(["checkpoint", "verify", str(run), "10"]) == 1


def test_scripts_get_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(run, 15)
    assert main(["checkpoint", "verify", str(run), "15", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row["num_bytes"] > 40
    assert row.pop("time") > 1e9
    del row["num_bytes"]
    assert row == {
        "step": 15,
        "path": str(run / "checkpoint-15"),
        "newest": True,
        "best": False,
        "state": "damaged",
        "problems": ["ds/shard-0.pt: its bytes are not those that were written"],
    }


@pytest.mark.parametrize("action", ["list", "verify"])
def test_what_a_live_run_collects_meanwhile_is_left_out(
    run: Path, capsys: pytest.CaptureFixture[str], action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Manifest.read

    def collected(checkpoint: Path) -> Manifest:
        manifest = read(checkpoint)
        if checkpoint.name == "checkpoint-5":
            discard(checkpoint)
        return manifest

    monkeypatch.setattr(Manifest, "read", collected)
    assert main(["checkpoint", action, str(run)]) == 0
    assert [row[0] for row in lines(capsys)] == ["checkpoint-10", "checkpoint-15"]


def test_a_link_that_leads_nowhere_is_no_checkpoint(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoint-20").symlink_to("nowhere")
    assert main(["checkpoint", "list", str(run)]) == 1
    *_, why = capsys.readouterr().out.splitlines()
    assert why.strip() == "checkpoint-20: not a plain file or directory"


def test_what_is_not_there_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "verify", str(run), "7"]) == 2
    assert "no checkpoint of step 7" in (said := capsys.readouterr().err)
    assert "there are: 5, 10, 15" in said
    assert main(["checkpoint", "list", str(run / "nothing")]) == 2


def test_a_run_without_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDirectory(tmp_path).claim(resume=False)
    assert main(["checkpoint", "list", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no checkpoints\n"


def test_it_needs_no_torch(run: Path) -> None:
    code = (
        "import sys; from bigft.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    words = ["checkpoint", "verify", str(run)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
