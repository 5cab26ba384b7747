"""Options that act when a batch is made change no row; a run that goes on must keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training.checkpoint.resuming import PACKED, RESUME, refusal, run_of, saved
from training.checkpoint.small import forge

from bigft.config.fields import Decides, options_that_decide
from bigft.config.tasks import CausalLM, MaskedLM
from bigft.training.checkpoint import checkpoint_to_resume


def masked(probability: float, *overrides: str) -> Any:
    """A run of a task that draws its targets when a batch is made."""
    run = run_of(*overrides)
    task = MaskedLM(mlm_probability=probability)
    run.config = run.config.model_copy(update={"task": task})
    return run


def test_an_option_that_acts_when_a_batch_is_made_must_stay(here: Path) -> None:
    directory = saved(masked(0.3), 3)
    going_on = RESUME + "true"
    assert checkpoint_to_resume(masked(0.3, going_on), directory, 1) is not None
    (said,) = refusal(masked(0.4, going_on), directory)
    assert "was trained with task.mlm_probability 0.3, this config says 0.4" in said


@pytest.mark.parametrize("key", ["task.mlm_probability", "optim.label_smoothing_factor"])
def test_a_checkpoint_that_lacks_an_option_ran_as_its_default(here: Path, key: str) -> None:
    """It was written before there was that option."""
    directory = saved(masked(0.15), 3)

    def older(told: Any) -> Any:
        del told["fingerprint"][key]
        return told

    forge(directory.path / "checkpoint-3", older)
    going_on = RESUME + "true"
    assert checkpoint_to_resume(masked(0.15, going_on), directory, 1) is not None
    changed = masked(0.2, going_on, "optim.label_smoothing_factor=0.1")
    said = refusal(changed, directory)
    assert any(f"was trained with {key} {'0.15' if 'mlm' in key else '0.0'}" in one for one in said)


def test_what_an_option_decides_stands_beside_its_type() -> None:
    data, task = run_of(*PACKED).config.data, CausalLM()
    batches = options_that_decide(data, Decides.BATCHES)
    assert batches == {
        "interleave_probs": None,
        "packing": True,
        "packing_strategy": "first_fit_decreasing",
    }
    assert set(options_that_decide(task, Decides.NEITHER)) == {"exact_match_pattern", "generation"}
    of_rows = options_that_decide(data, Decides.ROWS)
    assert {"max_seq_length", "train_file"} < of_rows.keys()
    assert not {"packing", "preprocessing_num_workers"} & of_rows.keys()
