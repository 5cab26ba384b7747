"""The native library itself: its schemas, its paths through the CPU, and life without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops.cases import OPERATORS, Case, make, needs_native
from waiting import PATIENCE

from bigft.ops import native, reference

ISAS = ("plain", "avx2", "avx512")
CPU = torch.device("cpu")
# Not about tensors: there is nothing for opcheck to check.
TALK = {"built_isa", "plant_fault", "take_bad_label"}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own: the library reads its environment once."""
    paths = [*sys.path, os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def options() -> tuple[Any, ...]:
    """ignore_index, label_smoothing, z_loss, softcap."""
    return -100, 0.1, 0.01, 5.0


def masked_cross_entropy(device: torch.device) -> list[tuple[Any, ...]]:
    case = make("masked_cross_entropy", device=device)
    weight_N = torch.ones(len(case.rows), device=device)
    given = (case.rows, case.labels_N)
    return [(*given, weight_N, *options(), 1.0, True), (*given, None, *options(), 0.5, False)]


def masked_cross_entropy_(device: torch.device) -> list[tuple[Any, ...]]:
    return [arguments[:-1] for arguments in masked_cross_entropy(device)]


def masked_cross_entropy_backward(device: torch.device) -> list[tuple[Any, ...]]:
    rows, labels_N, weight_N, *rest = masked_cross_entropy(device)[0]
    lse_N = torch.ops.bigft.masked_cross_entropy(rows, labels_N, weight_N, *rest)[2]
    upstream_N = torch.linspace(-1, 1, len(lse_N), device=device)
    return [(upstream_N, rows, labels_N, weight_N, lse_N, *options())]


def linear_cross_entropy(device: torch.device) -> list[tuple[Any, ...]]:
    case = make("linear_cross_entropy", device=device)
    hidden_NH, weight_VH, bias_V = case.tensors.values()
    rows_M = (case.labels_N != -100).nonzero().squeeze(1)
    weight_N = torch.ones(len(case.rows), device=device)
    whole = (hidden_NH, weight_VH, bias_V, case.labels_N, rows_M, weight_N)
    bare = (hidden_NH, weight_VH, None, case.labels_N, None, None)
    return [
        (*whole, *options(), 1.0, 0, False, True, True, True, True),
        (*bare, *options(), 0.5, 1, True, False, True, False, False),
    ]


def linear_cross_entropy_backward(device: torch.device) -> list[tuple[Any, ...]]:
    arguments = linear_cross_entropy(device)[0]
    lse_N = torch.ops.bigft.linear_cross_entropy(*arguments)[2]
    upstream_N = torch.linspace(-1, 1, len(lse_N), device=device)
    return [(upstream_N, *arguments[:6], lse_N, *options(), 0, True, True, True)]


def token_classification_head(device: torch.device) -> list[tuple[Any, ...]]:
    case = make("token_classification_head", device=device)
    hidden_NH, weight_CH, bias_C = case.tensors.values()
    weight_N = torch.ones(len(case.rows), device=device)
    seed = torch.tensor([1, 2], device=device)
    whole = (hidden_NH, weight_CH, bias_C, case.labels_N, weight_N, seed)
    bare = (hidden_NH, weight_CH, None, case.labels_N, None, None)
    return [
        (*whole, 0.1, *options(), 1.0, True, True, True),
        (*bare, 0.0, *options(), 0.5, False, True, False),
    ]


def scale_(device: torch.device) -> list[tuple[Any, ...]]:
    return [(torch.ones(5, 3, device=device), torch.tensor(2.5, device=device))]


SAMPLES: dict[str, Callable[[torch.device], list[tuple[Any, ...]]]] = {
    sample.__name__: sample
    for sample in (
        masked_cross_entropy,
        masked_cross_entropy_,
        masked_cross_entropy_backward,
        linear_cross_entropy,
        linear_cross_entropy_backward,
        token_classification_head,
        scale_,
    )
}
# Those that a user's tensors, which require gradients, go to.
DIFFERENTIABLE = ("masked_cross_entropy", "linear_cross_entropy", "token_classification_head")


def test_every_schema_has_a_sample_here() -> None:
    needs_native(CPU)
    schemas = {
        schema.name.removeprefix("bigft::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("bigft::")
    }
    assert schemas - TALK == SAMPLES.keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(name: str, device: torch.device) -> None:
    """Schema, fake, autograd registration and AOT dispatch, as torch wants them."""
    needs_native(device)
    for arguments in SAMPLES[name](device):
        torch.library.opcheck(getattr(torch.ops.bigft, name).default, arguments)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_opcheck_with_gradients(name: str, device: torch.device) -> None:
    """All but the AOT test, which runs one backward twice."""
    needs_native(device)
    arguments = [
        argument.clone().requires_grad_() if is_differentiable(argument, position) else argument
        for position, argument in enumerate(SAMPLES[name](device)[0])
    ]
    torch.library.opcheck(
        getattr(torch.ops.bigft, name).default,
        tuple(arguments),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def is_differentiable(argument: Any, position: int) -> bool:
    """Logits; hidden, weight and bias. Row weights come later and are constants."""
    return isinstance(argument, torch.Tensor) and position < 3 and argument.dim() != 1


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
@pytest.mark.parametrize("operator", OPERATORS)
def test_another_device_than_the_current_one(operator: str) -> None:
    needs_native(torch.device("cuda"))
    first, second = (make(operator, device=f"cuda:{index}").ours() for index in (0, 1))
    assert torch.cuda.current_device() == 0
    for name, value in first.items():
        assert second[name].device.index == 1
        assert torch.equal(value.cpu(), second[name].cpu()), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_captured_cuda_graph_sees_new_rows(operator: str) -> None:
    """With a fixed number of rows with a target, forward and backward sync nothing."""
    needs_native(torch.device("cuda"))
    case, other = (make(operator, device="cuda", seed=seed) for seed in (0, 1))
    more = {}
    if operator == "linear_cross_entropy":
        more["target_rows_M"] = reference.target_rows(case.labels_N, -100)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        case.ours(**more)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    leaves = [tensor.requires_grad_() for tensor in case.tensors.values()]
    with torch.cuda.graph(graph):
        output = case.call(**more)
        gradients = torch.autograd.grad(output.loss, leaves)
    with torch.no_grad():
        case.rows.copy_(other.rows)
    graph.replay()
    expected = Case(operator, case.tensors, case.labels_N).ours(**more)
    assert torch.equal(output.loss_N, expected["loss_N"])
    for name, gradient in zip(case.tensors, gradients, strict=True):
        assert gradient.any()
        assert torch.equal(gradient, expected[f"grad_{name}"]), name


@pytest.mark.parametrize("isa", ISAS)
def test_each_path_through_the_cpu_keeps_the_promises(isa: str) -> None:
    needs_native(CPU)
    widest = torch.backends.cpu.get_cpu_capability().lower()
    if isa != "plain" and isa not in (widest, "avx2" if widest == "avx512" else widest):
        pytest.skip(f"this CPU has no {isa}")
    done = run("-m", "ops.checks", BIGFT_CPU_ISA=isa)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["cpu"] == f"native, {isa}"
    assert report["failed"] == {"": {}}


def test_an_unknown_path_through_the_cpu_is_refused() -> None:
    needs_native(CPU)
    done = run("-m", "ops.checks", BIGFT_CPU_ISA="sse")
    assert done.returncode != 0
    assert "BIGFT_CPU_ISA is 'sse'" in done.stderr
    assert "plain, avx2 or avx512" in done.stderr


def test_without_the_library_the_definition_serves(tmp_path: Any) -> None:
    """A library that cannot be loaded: bigft says so, and answers all the same."""
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    done = run("-m", "ops.checks", BIGFT_OPS_LIBRARY=str(broken))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["cpu"].startswith("plain torch")
    assert str(broken) in report["cpu"]
    assert report["failed"] == {"": {}}


def test_build_info_says_what_computes() -> None:
    info = native.build_info()
    assert set(info) == {"cpu", "cuda"}
    assert info["cpu"].startswith(
        "native, " if native.is_built(OPERATORS[0], CPU) else "plain torch"
    )
    assert native.is_built(OPERATORS[0], torch.device("cuda")) == info["cuda"].startswith("native")
    assert not native.is_built(OPERATORS[0], torch.device("meta"))
    assert not native.is_built("not_an_operator", CPU)
