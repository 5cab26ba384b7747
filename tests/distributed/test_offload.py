"""Where optimizer and parameters live changes nothing that is computed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from distributed.ranks import run_ranks
from distributed.sharded_runs import Steps, Way, train_steps
from tiny import tiny_model
from waiting import PATIENCE

pytestmark = pytest.mark.distributed

OPTIMIZER = {"offload_optimizer": "cpu"}
PARAMETERS = {"offload_param": "cpu"}
HALF = "ZeRO-3, both, bf16"
LORA = {"method": "lora", "r": 4, "lora_alpha": 8}
# Each with the way that it is compared with.
OFFLOADED = {
    "ZeRO-1": (Way(1, offload=OPTIMIZER), Way(1)),
    "ZeRO-2": (Way(2, offload=OPTIMIZER), Way(2)),
    "ZeRO-3": (Way(3, born=True, offload=OPTIMIZER), Way(3, born=True)),
    "ZeRO-3, parameters": (Way(3, born=True, offload=PARAMETERS), Way(3, born=True)),
    "ZeRO-3, both": (Way(3, born=True, offload=OPTIMIZER | PARAMETERS), Way(3, born=True)),
    "ZeRO-3, both, LoRA": (
        Way(3, born=True, adapt=LORA, offload=OPTIMIZER | PARAMETERS),
        Way(3, born=True, adapt=LORA),
    ),
    HALF: (
        Way(3, born=True, train={"bf16": True}, offload=OPTIMIZER | PARAMETERS),
        Way(3, born=True, train={"bf16": True}),
    ),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory: Path = tmp_path_factory.mktemp("llama")
    tiny_model("llama", "AutoModelForCausalLM").save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def seen(llama: str) -> dict[str, tuple[Steps, Steps]]:
    ways = [way for pair in OFFLOADED.values() for way in pair]
    steps = [Steps(*answer) for answer in run_ranks(train_steps, 2, llama, ways)[0]]
    return dict(zip(OFFLOADED, zip(steps[::2], steps[1::2], strict=True), strict=True))


@pytest.mark.parametrize("case", [case for case in OFFLOADED if case != HALF])
def test_offloading_changes_neither_losses_nor_norms(
    case: str, seen: dict[str, tuple[Steps, Steps]]
) -> None:
    offloaded, plain = seen[case]
    assert offloaded.losses == pytest.approx(plain.losses, rel=1e-6)
    assert offloaded.norms == pytest.approx(plain.norms, rel=1e-5)


def test_in_bf16_offloading_changes_less_than_bf16_itself(
    seen: dict[str, tuple[Steps, Steps]],
) -> None:
    """A last bit of a master weight may round to another bf16 number, which depends on the CPU."""
    (offloaded, plain), (_, exact) = seen[HALF], seen["ZeRO-3"]
    for ours, theirs, true in (
        (offloaded.losses, plain.losses, exact.losses),
        (offloaded.norms, plain.norms, exact.norms),
    ):
        rounding = max(abs(a - b) for a, b in zip(theirs, true, strict=True))
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < rounding
    steps = [abs(after - before) for before, after in pairwise(plain.losses)]
    assert min(steps) > max(abs(a - b) for a, b in zip(plain.losses, exact.losses, strict=True))


@pytest.mark.parametrize("case", OFFLOADED)
def test_an_offloaded_run_goes_on_from_a_checkpoint_to_the_last_bit(
    case: str, seen: dict[str, tuple[Steps, Steps]]
) -> None:
    offloaded, _ = seen[case]
    assert offloaded.again == offloaded.losses[2:]


@pytest.mark.slow
def test_deepspeeds_cpu_adam_trains_as_torchs_adamw(llama: str) -> None:
    """The first run on a machine compiles it: two minutes of a core. It goes on from a checkpoint
    within rounding, not to the last bit: it multiplies up the powers of its betas."""
    ways = [
        Way(stage, born=stage == 3, offload=OPTIMIZER, optim=optim)
        for stage in (2, 3)
        for optim in ("cpu_adam", "adamw_torch")
    ]
    answers = run_ranks(train_steps, 2, llama, ways, timeout=2 * PATIENCE)[0]
    steps = [Steps(*answer) for answer in answers]
    for ours, theirs in (steps[:2], steps[2:]):
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-6)
        assert ours.again == pytest.approx(ours.losses[2:], rel=1e-6)
