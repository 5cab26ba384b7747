"""Ranks on nodes that hold other files are told, and not averaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed.ranks import RankFailed, run_ranks
from distributed.scenarios import train_apart

pytestmark = pytest.mark.distributed


def test_ranks_that_read_other_data_do_not_train(
    config_for: Callable[..., dict[str, Any]], write_data: Callable[..., Path]
) -> None:
    configs = [config_for("run", write_data(targets)) for targets in ([3, 5, 2], [3, 5, 4])]
    told = "data: rank 1 made other training rows of it than rank 0; give all nodes the same files"
    with pytest.raises(RankFailed, match=told):
        run_ranks(train_apart, 2, configs)
    run_ranks(train_apart, 2, [configs[0]] * 2)
