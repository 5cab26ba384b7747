"""A rank of a text task is killed by SIGKILL; the run that goes on is the one never killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed.texts import text_config, write_texts
from faults.harness import Config, Ranks, assert_same, finish, left_by, resumed

pytestmark = pytest.mark.distributed


def test_a_kill_loses_nothing_of_texts_in_windows(
    config_for: Callable[..., Config], tmp_path: Path
) -> None:
    files = write_texts(tmp_path)

    def config(name: str) -> Config:
        return text_config(
            config_for,
            name,
            "windows",
            files,
            model__dropout=0.1,
            data__validation_file=[str(files["windows"])],
            parallel__zero_stage=2,
            train__max_steps=6,
            train__global_batch_size=4,
            train__per_device_train_batch_size=1,
            train__eval_strategy="steps",
            train__eval_steps=3,
            train__save_strategy="steps",
            train__save_steps=2,
        )

    whole, killed = config("whole"), config("killed")
    finish(whole)
    with Ranks(killed, failpoints="train.step=stop@5#1") as ranks:
        ranks.wait_until_held(1)
        ranks.send(1, signal.SIGKILL)
        assert ranks.wait()[1] == -signal.SIGKILL
    finish(resumed(killed))
    assert_same(left_by(killed), left_by(whole))
