"""Bad input: an error that names the argument, what it should be and what it is. Never a crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops.cases import OPERATORS, make, needs_native
from ops.checks import SUM_ONLY

from bigft import ops
from bigft.ops import native

GIVEN, LINEAR, HEAD = OPERATORS
assert HEAD == SUM_ONLY

Arguments = dict[str, Any]
# A change of good arguments (33 rows, 20 hidden units, 9 classes), the error, and what it says.
Bad = tuple[Arguments | Callable[[Arguments], Arguments], type[Exception], str]


# How csrc names a dtype, and how Python does.
DTYPES = {"Long": "torch.int64", "Int": "torch.int32", "Float": "torch.float32"}
DTYPES |= {"Double": "torch.float64"}


@pytest.fixture(params=["native", "plain torch"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "native":
        needs_native(torch.device("cpu"))
    else:
        monkeypatch.setattr(native, "BUILT", frozenset())


def labels_with(row: int, label: int) -> Callable[[Arguments], Arguments]:
    def change(given: Arguments) -> Arguments:
        labels_N = given["labels_N"].clone()
        labels_N[row] = label
        return {"labels_N": labels_N}

    return change


def changed(kind: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The argument whose name starts with `kind`; "rows" is the first one."""

    def of(given: Arguments) -> Arguments:
        names = [name for name in given if name.startswith(kind)]
        name = next(iter(names or given))
        return {name: change(given[name])}

    return of


def meta(*size: int) -> torch.Tensor:
    return torch.ones(size, device="meta")


ONES = torch.ones(33)
SEED = torch.zeros(2, dtype=torch.int64)

# {rows} and {weight} stand for the names of these arguments.
EVERYWHERE: dict[str, Bad] = {
    "label 9": (labels_with(3, 9), IndexError, r"labels_N\[3\] is 9.*\[0, 9\)"),
    "label -1": (labels_with(5, -1), IndexError, r"labels_N\[5\] is -1"),
    "label -101": (labels_with(5, -101), IndexError, r"labels_N\[5\] is -101.*-100"),
    "float labels": (changed("labels", torch.Tensor.float), TypeError, "labels_N.*int64"),
    "a label too few": (changed("labels", lambda t: t[1:]), ValueError, "labels_N.*33.*32"),
    "labels 2-D": (changed("labels", lambda t: t[:, None]), ValueError, "labels_N.*33.*33, 1"),
    "labels elsewhere": (changed("labels", lambda t: t.to("meta")), ValueError, "labels_N.*meta"),
    "rows 1-D": (changed("rows", lambda t: t[0]), ValueError, "{rows}"),
    "rows 3-D": (changed("rows", lambda t: t[None]), ValueError, "{rows}.*1, 33"),
    "integer rows": (changed("rows", torch.Tensor.long), TypeError, "{rows}.*float32.*Long"),
    "a weight too few": ({"row_weight_N": ONES[1:]}, ValueError, "row_weight_N.*33.*32"),
    "integer weights": ({"row_weight_N": ONES.int()}, TypeError, "row_weight_N.*float32.*Int"),
    "weights elsewhere": ({"row_weight_N": meta(33)}, ValueError, "row_weight_N.*meta"),
    "weights to learn": (
        {"row_weight_N": torch.ones(33, requires_grad=True)},
        ValueError,
        "row_weight_N must not require",
    ),
    "smoothing 1": ({"label_smoothing": 1.0}, ValueError, r"label_smoothing.*\[0, 1\).*1"),
    "smoothing -0.1": ({"label_smoothing": -0.1}, ValueError, r"label_smoothing.*-0\.1"),
    "z-loss -1": ({"z_loss": -1.0}, ValueError, "z_loss.*0 or more.*-1"),
    "z-loss nan": ({"z_loss": float("nan")}, ValueError, "z_loss.*nan"),
    "softcap -1": ({"softcap": -1.0}, ValueError, "softcap.*-1"),
}
WITH_ROWS: dict[str, Bad] = {
    "mean": ({"reduction": "mean"}, ValueError, "reduction.*sum.*none.*mean"),
    "scaled rows": ({"reduction": "none", "scale": 0.5}, ValueError, r"scale.*none.*0\.5"),
}
WITH_LOGITS: dict[str, Bad] = {
    "rows in place": ({"reduction": "none", "inplace": True}, ValueError, "inplace.*sum.*none"),
}
WITH_WEIGHT: dict[str, Bad] = {
    "another H": (changed("weight", lambda t: t[:, 1:]), ValueError, "{weight}.*20.*19"),
    "1-D": (changed("weight", lambda t: t[0]), ValueError, "{weight}.*any, 20"),
    "another dtype": (changed("weight", torch.Tensor.double), TypeError, "{weight}.*Float.*Double"),
    "elsewhere": (changed("weight", lambda t: t.to("meta")), ValueError, "{weight}.*meta"),
    "bias of 8": (changed("bias", lambda t: t[1:]), ValueError, "bias_.*9.*8"),
    "bias fp64": (changed("bias", torch.Tensor.double), TypeError, "bias_.*Float.*Double"),
}
WITH_VOCABULARY: dict[str, Bad] = {
    "row 33": ({"target_rows_M": torch.tensor([0, 33])}, IndexError, r"target_rows_M\[1\] is 33"),
    "row -1": ({"target_rows_M": torch.tensor([-1, 0])}, IndexError, r"target_rows_M\[0\] is -1"),
    "descending": ({"target_rows_M": torch.tensor([2, 0])}, IndexError, "target_rows_M.*ascend"),
    "one lacks": ({"target_rows_M": torch.arange(32)}, ValueError, "target_rows_M.*16.*17"),
    "float rows": ({"target_rows_M": ONES}, TypeError, "target_rows_M.*int64.*Float"),
    "workspace -1": ({"workspace_bytes": -1}, ValueError, "workspace_bytes.*-1"),
    "workspace 0": ({"workspace_bytes": 0}, ValueError, "workspace_bytes.*0"),
    "lean rows": ({"reduction": "none", "lean": True}, ValueError, "lean.*sum.*none"),
}
WITH_DROPOUT: dict[str, Bad] = {
    "1 class": (
        {"weight_CH": torch.ones(1, 20), "bias_C": torch.ones(1)},
        ValueError,
        "weight_CH.*2.*128.*1",
    ),
    "129 classes": (
        {"weight_CH": torch.ones(129, 20), "bias_C": torch.ones(129)},
        ValueError,
        "weight_CH.*2.*128.*129",
    ),
    "dropout 1": ({"dropout_p": 1.0, "seed": SEED}, ValueError, r"dropout_p.*\[0, 1\).*1"),
    "dropout -0.1": ({"dropout_p": -0.1, "seed": SEED}, ValueError, r"dropout_p.*-0\.1"),
    "no seed": ({"dropout_p": 0.1}, ValueError, "seed must be given"),
    "no labels": ({"dropout_p": 0.1, "labels_N": None}, ValueError, "dropout_p.*labels_N"),
    "3 words": ({"dropout_p": 0.1, "seed": torch.zeros(3).long()}, ValueError, "seed.*2.*3"),
    "float seed": ({"dropout_p": 0.1, "seed": SEED.float()}, TypeError, "seed.*int64.*Float"),
}
ALL: list[tuple[tuple[str, ...], dict[str, Bad]]] = [
    (OPERATORS, EVERYWHERE),
    ((GIVEN, LINEAR), WITH_ROWS),
    ((GIVEN,), WITH_LOGITS),
    ((LINEAR, HEAD), WITH_WEIGHT),
    ((LINEAR,), WITH_VOCABULARY),
    ((HEAD,), WITH_DROPOUT),
]


@pytest.mark.parametrize(
    ("operator", "bad"),
    [
        pytest.param(operator, bad, id=f"{operator}-{name}")
        for operators, table in ALL
        for operator in operators
        for name, bad in table.items()
    ],
)
@pytest.mark.usefixtures("implementation")
def test_bad_input_is_named(operator: str, bad: Bad) -> None:
    change, error, says = bad
    for name, dtype in DTYPES.items():
        says = says.replace(name, f"({name}|{dtype})")
    case = make(operator)
    given = {**case.tensors, "labels_N": case.labels_N}
    for name in given:
        says = says.replace("{weight}", name) if name.startswith("weight_") else says
    says = says.replace("{rows}", next(iter(given)))
    for tensor in case.tensors.values():
        tensor.requires_grad_()
    with pytest.raises(error, match=says):
        getattr(ops, operator)(**{**given, **(change(given) if callable(change) else change)})


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("operator", [LINEAR, HEAD])
def test_autocast_does_not_make_integers_right(operator: str) -> None:
    case = make(operator)
    integers = case.with_rows(case.rows.long())
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(TypeError, match=r"hidden_NH.*(Long|torch.int64)"),
    ):
        integers.call()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_bad_label_on_a_gpu_makes_the_loss_nan_and_is_kept(operator: str) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    needs_native(device)
    case = make(operator, device=device)
    given = {**case.tensors, "labels_N": case.labels_N}
    output = getattr(ops, operator)(**{**given, **labels_with(4, 9)(given)})
    assert output.loss.isnan()
    assert output.loss_N.isnan().nonzero().flatten().tolist() == [4]
    with pytest.raises(IndexError, match=r"labels_N\[4\] is 9"):
        native.check_labels(device)
    native.check_labels(device)
