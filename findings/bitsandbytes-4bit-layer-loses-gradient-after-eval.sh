#!/usr/bin/env bash
# bitsandbytes 0.50.2, torch 2.13.0, a CPU with AVX512_BF16 (others keep the usual path: the script says so and ends with 0).
#
# Guess: a Linear4bit layer is the same before and after an evaluation.
# Seen: its first forward in eval() packs the weight anew, in place, and rounds to bf16 although compute_dtype is fp32. In train()
# afterwards the layer still multiplies with the packed weight, its output differs by 0.3 % from before, and the gradient of its input is
# None: nothing below the layer trains, and nothing is raised. A layer of 16 x 16 fails in eval() with an AssertionError.
# Output on such a CPU:
#   packed anew in eval: True
#   output before and after eval, relative difference above 1e-3: True
#   gradient of the input before eval: True, after eval: False
#   16 x 16 in eval: AssertionError: N must be divisible by block_n
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 bitsandbytes==0.50.2 numpy 2>/dev/null
cat >"$place/find.py" <<'PYTHON'
import warnings

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import has_avx512bf16

warnings.simplefilter("ignore")
if not has_avx512bf16():
    print("this CPU has no AVX512_BF16: nothing to see")
    raise SystemExit


def layer(size):
    made = bnb.nn.Linear4bit(size, size, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    made.load_state_dict({"weight": torch.randn(size, size)})
    return made.to("cpu")


def has_gradient(linear):
    rows = torch.randn(3, linear.in_features, requires_grad=True)
    output = linear.train()(rows)
    if output.requires_grad:
        output.sum().backward()
    return rows.grad is not None


torch.manual_seed(0)
linear, rows = layer(64), torch.randn(3, 64)
before, codes, learnt = linear.train()(rows), linear.weight.data.clone(), has_gradient(linear)
linear.eval()(rows)
after = linear.train()(rows)
found = [
    f"packed anew in eval: {not torch.equal(codes.flatten(), linear.weight.data.flatten())}",
    "output before and after eval, relative difference above 1e-3: "
    f"{((after - before).norm() / before.norm()).item() > 1e-3}",
    f"gradient of the input before eval: {learnt}, after eval: {has_gradient(linear)}",
]
try:
    layer(16).eval()(torch.randn(2, 16))
    found.append("16 x 16 in eval: no error")
except AssertionError as error:
    found.append(f"16 x 16 in eval: AssertionError: {error}")
print("\n".join(found))
assert found == [
    "packed anew in eval: True",
    "output before and after eval, relative difference above 1e-3: True",
    "gradient of the input before eval: True, after eval: False",
    "16 x 16 in eval: AssertionError: N must be divisible by block_n",
], "it has changed"
PYTHON
"$place/venv/bin/python" "$place/find.py"
