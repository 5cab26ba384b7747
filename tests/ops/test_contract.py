"""What the three operators promise alike, on every device and for the definition itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops.cases import (
    DATA,
    MASKS,
    OPERATORS,
    Answer,
    Case,
    answer,
    assert_as_exact_as_torch,
    make,
    needs_native,
)
from ops.checks import CHECKS, SUM_ONLY

from bigft import ops
from bigft.ops import reference

EVERY_OPTION = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0}
BOTH_REDUCTIONS = [name for name in OPERATORS if name != SUM_ONLY]

each_operator = pytest.mark.parametrize("operator", OPERATORS)
each_with_rows = pytest.mark.parametrize("operator", BOTH_REDUCTIONS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_claim(check: Callable[[torch.device], None], device: torch.device) -> None:
    check(device)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@each_operator
def test_as_exact_as_torch(
    operator: str, dtype: torch.dtype, data: str, device: torch.device
) -> None:
    """`confident` gradients are nearly zero: the rounding of the logits is much of them."""
    if operator == SUM_ONLY and dtype == torch.float16:
        pytest.skip("refused: test_token_classification_head.py")
    case = make(operator, num_rows=129, num_classes=9, data=data, dtype=dtype, device=device)
    signal = 2.0 if data == "confident" else 5.0
    assert_as_exact_as_torch(case.ours(), case.torchs(), case.exact(), signal=signal)


@pytest.mark.parametrize("options", [{name: x} for name, x in EVERY_OPTION.items()], ids=str)
@pytest.mark.parametrize("implementation", [ops, reference], ids=["public", "reference"])
@each_operator
def test_each_option(
    operator: str, implementation: Any, options: dict[str, float], device: torch.device
) -> None:
    case = make(operator, device=device)
    found = answer(getattr(implementation, operator), case, **options)
    assert_as_exact_as_torch(found, case.torchs(**options), case.exact(**options))


@pytest.mark.parametrize("mask", MASKS)
@each_operator
def test_each_mask(operator: str, mask: str, device: torch.device) -> None:
    case = make(operator, num_rows=127, mask=mask, device=device)
    signal = 0.0 if mask == "all" else 5.0
    assert_as_exact_as_torch(case.ours(), case.torchs(), case.exact(), signal=signal)


@pytest.mark.parametrize("operator", OPERATORS)
def test_scale_multiplies_the_sum_and_its_gradient_only(
    operator: str, device: torch.device
) -> None:
    case = make(operator, device=device)
    plain, scaled = case.ours(), case.ours(scale=0.25)
    for name, value in plain.items():
        unscaled = name in ("loss_N", "lse_N")
        torch.testing.assert_close(scaled[name], value * (1 if unscaled else 0.25), msg=name)


@each_with_rows
def test_rows_come_with_a_gradient_or_as_a_sum(operator: str, device: torch.device) -> None:
    """An upstream of stride 0, as sum() makes it, and the sum agree."""
    case = make(operator, device=device)
    upstream_N = torch.ones((), device=device).expand(len(case.rows))
    rows = case.ours(upstream_N, reduction="none", **EVERY_OPTION)
    whole = case.ours(**EVERY_OPTION)
    torch.testing.assert_close(rows["loss_N"].sum(), whole.pop("loss"))
    for name, value in whole.items():
        torch.testing.assert_close(rows[name], value, msg=name)
    output = case.call(reduction="none")
    assert output.loss is None


@each_operator
def test_what_is_returned(operator: str, device: torch.device) -> None:
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        case = make(operator, dtype=dtype, device=device)
        for tensor in case.tensors.values():
            tensor.requires_grad_()
        output = case.call()
        kept = torch.float64 if dtype == torch.float64 else torch.float32
        assert [t.dtype for t in output[:3]] == [kept] * 3
        assert [t.requires_grad for t in output[:3]] == [True, False, False]
        assert output.loss.shape == ()
        assert output.loss_N.shape == output.lse_N.shape == (len(case.rows),)
        output.loss.backward()
        for name, tensor in case.tensors.items():
            assert tensor.grad.dtype == dtype, name
            assert tensor.grad.stride() == torch.empty_like(tensor).stride(), name


@each_operator
def test_labels_of_32_bits(operator: str, device: torch.device) -> None:
    case = make(operator, device=device)
    narrow = Case(operator, case.tensors, case.labels_N.int())
    assert_equal(narrow.ours(), case.ours())


@pytest.mark.parametrize("num_rows", [0, 1])
@each_operator
def test_few_rows(operator: str, num_rows: int, device: torch.device) -> None:
    case = make(operator, num_rows, mask="none", device=device)
    assert_as_exact_as_torch(case.ours(), case.torchs(), case.exact(), signal=min(num_rows, 1) * 5)


@each_operator
def test_inputs_stay_and_outputs_are_new(operator: str, device: torch.device) -> None:
    case = make(operator, device=device)
    given = {**case.tensors, "labels_N": case.labels_N}
    before = {name: (tensor.clone(), tensor._version) for name, tensor in given.items()}
    leaves = [tensor.requires_grad_() for tensor in case.tensors.values()]
    output = case.call()
    gradients = torch.autograd.grad(output.loss * 2, leaves)
    inputs = {tensor.untyped_storage().data_ptr() for tensor in given.values()}
    for tensor in (*gradients, *(field for field in output if field is not None)):
        assert tensor.untyped_storage().data_ptr() not in inputs
    for name, tensor in given.items():
        values, version = before[name]
        assert torch.equal(tensor, values)
        assert tensor._version == version


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_operator
def test_strides_of_every_kind(operator: str, dtype: torch.dtype, device: torch.device) -> None:
    """Rows that lie apart, columns that do not lie side by side, one row for all."""
    case = make(operator, dtype=dtype, device=device)
    apart = {name: t.repeat_interleave(2, dim=0)[::2] for name, t in case.tensors.items()}
    columns = {name: t.t().contiguous().t() for name, t in case.tensors.items()}
    for tensors in (apart, columns):
        strided = Case(operator, tensors, case.labels_N.repeat_interleave(2)[::2])
        assert_as_exact_as_torch(strided.ours(), case.torchs(), case.exact())
    expanded = case.with_rows(case.rows[:1].expand_as(case.rows))
    assert_as_exact_as_torch(expanded.ours(), expanded.torchs(), expanded.exact())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_operator
def test_two_runs_are_bitwise_equal(
    operator: str, dtype: torch.dtype, device: torch.device
) -> None:
    case = make(operator, num_rows=700, num_classes=64, dtype=dtype, device=device)
    assert_equal(case.ours(), case.ours())


@pytest.mark.parametrize("operator", ["masked_cross_entropy", "token_classification_head"])
def test_the_number_of_threads_changes_nothing(operator: str) -> None:
    needs_native(torch.device("cpu"))
    case = make(operator, num_rows=1500, num_classes=64, mask="one row")
    threads = torch.get_num_threads()
    answers = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            answers.append(case.ours())
    finally:
        torch.set_num_threads(threads)
    assert_equal(*answers)


@each_operator
def test_a_second_backward_is_refused(operator: str, device: torch.device) -> None:
    """The first one used up the gradients; for once it must not be silently wrong."""
    needs_native(device)
    case = make(operator, device=device)
    for tensor in case.tensors.values():
        tensor.requires_grad_()
    loss = case.call().loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=f"{operator}.*first backward") as raised:
        loss.backward()
    # The head has no such reduction to offer.
    assert ('reduction="none"' in str(raised.value)) == (operator != SUM_ONLY)


@each_with_rows
def test_a_second_backward_of_rows_is_the_first(operator: str, device: torch.device) -> None:
    case = make(operator, device=device)
    leaves = [tensor.requires_grad_() for tensor in case.tensors.values()]
    loss = case.call(reduction="none").loss_N.sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    for one, other in zip(first, second, strict=True):
        assert one.any()
        assert torch.equal(one, other)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@each_operator
def test_a_gradient_of_the_gradient_is_refused(
    operator: str, reduction: str, device: torch.device
) -> None:
    needs_native(device)
    options = {} if operator == SUM_ONLY else {"reduction": reduction}
    case = make(operator, device=device)
    leaves = [tensor.requires_grad_() for tensor in case.tensors.values()]
    output = case.call(**options)
    loss = output.loss_N.sum() if output.loss is None else output.loss
    with pytest.raises(RuntimeError):
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        sum(gradient.square().sum() for gradient in gradients).backward()


class Anew(torch.autograd.Function):
    """function(*tensors).loss, computed once more for every backward: gradcheck wants several."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], *tensors: torch.Tensor) -> torch.Tensor:
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors).loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        leaves = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            loss = ctx.function(*leaves).loss
        return None, *torch.autograd.grad(loss, leaves, upstream)


@pytest.mark.parametrize("options", [{}, EVERY_OPTION], ids=["plain", "every option"])
@each_operator
def test_gradients_are_the_slopes(
    operator: str, options: dict[str, Any], device: torch.device
) -> None:
    """In fp64 against finite differences."""
    case = make(operator, 5, 4, hidden_size=3, dtype=torch.float64, device=device)
    options = {**options, "row_weight_N": torch.linspace(0.5, 2, 5, device=device)}
    tensors = [tensor.requires_grad_() for tensor in case.tensors.values()]

    def call(*given: torch.Tensor, **more: Any) -> Any:
        moved = Case(operator, dict(zip(case.tensors, given, strict=True)), case.labels_N)
        return moved.call(**options, **more)

    assert torch.autograd.gradcheck(lambda *given: Anew.apply(call, *given), tensors)
    if operator != SUM_ONLY:
        assert torch.autograd.gradcheck(lambda *given: call(*given, reduction="none")[1], tensors)


@each_with_rows
def test_half_precision_does_not_underflow(operator: str, device: torch.device) -> None:
    """Gradients of 1e-9 are nothing in fp16; the loss scale must reach them before that."""
    case = make(operator, dtype=torch.float16, mask="one row", device=device)
    upstream = torch.tensor(65536.0, device=device)
    sides = (case.ours, case.torchs, case.exact)
    assert_as_exact_as_torch(*(side(upstream, scale=1e-8) for side in sides))


@pytest.mark.parametrize("reduction", ["sum", "none"])
@each_operator
def test_compiles_to_one_graph(operator: str, reduction: str, device: torch.device) -> None:
    needs_native(device)
    if operator == SUM_ONLY and reduction == "none":
        pytest.skip("sum only")
    case = make(operator, device=device)
    options: dict[str, Any] = {} if operator == SUM_ONLY else {"reduction": reduction}
    if operator == "linear_cross_entropy":
        options["target_rows_M"] = reference.target_rows(case.labels_N, -100)
    leaves = [tensor.requires_grad_() for tensor in case.tensors.values()]

    def loss_of(*given: torch.Tensor) -> torch.Tensor:
        moved = Case(operator, dict(zip(case.tensors, given, strict=True)), case.labels_N)
        output = moved.call(**options)
        return (output.loss_N.sum() if reduction == "none" else output.loss) * 3.7

    found = []
    torch.compiler.reset()
    for function in (loss_of, torch.compile(loss_of, fullgraph=True, backend="aot_eager")):
        loss = function(*leaves)
        found.append([loss, *torch.autograd.grad(loss, leaves)])
    for eager, compiled in zip(*found, strict=True):
        assert eager.any()
        assert torch.equal(eager, compiled)


def assert_equal(left: Answer, right: Answer) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name
