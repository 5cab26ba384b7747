#!/usr/bin/env bash
# torch 2.13.0, a CPU with AVX512_BF16 or AMX (on others the script says so and ends with 0).
#
# Guess: ATEN_CPU_CAPABILITY=avx2 makes torch slower, and changes last bits.
# Seen: scaled_dot_product_attention in bf16 raises for rows of 64 tokens and more. The fused kernel asks oneDNN whether the CPU multiplies
# bf16, and packs for it, in code that was compiled without AVX-512. With ONEDNN_MAX_CPU_ISA=AVX2 beside it, in fp32, in fp16, for 33
# tokens, or with torch.backends.cuda.enable_flash_sdp(False), which is the CPU's switch too, it works.
# Output:
#   33 tokens, bf16: works
#   64 tokens, bf16: pack_vnni2 is only supported when avx512 is supported
#   64 tokens, fp32: works
#   64 tokens, bf16, no fused kernel: works
#   64 tokens, bf16, ONEDNN_MAX_CPU_ISA=AVX2: works
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy 2>/dev/null
cat >"$place/find.py" <<'PYTHON'
import os
import sys

import torch
from torch.nn.functional import scaled_dot_product_attention


def attend(tokens, dtype):
    rows = torch.randn(1, 2, tokens, 16).to(dtype)
    try:
        scaled_dot_product_attention(rows, rows, rows)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return "works"


if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
    print("this CPU does not multiply bf16: nothing to see")
    raise SystemExit
if "ONEDNN_MAX_CPU_ISA" in os.environ:
    found = [f"64 tokens, bf16, ONEDNN_MAX_CPU_ISA=AVX2: {attend(64, torch.bfloat16)}"]
    expected = ["64 tokens, bf16, ONEDNN_MAX_CPU_ISA=AVX2: works"]
else:
    found = [f"33 tokens, bf16: {attend(33, torch.bfloat16)}"]
    found += [f"64 tokens, bf16: {attend(64, torch.bfloat16)}"]
    found += [f"64 tokens, fp32: {attend(64, torch.float32)}"]
    torch.backends.cuda.enable_flash_sdp(False)
    found += [f"64 tokens, bf16, no fused kernel: {attend(64, torch.bfloat16)}"]
    expected = [
        "33 tokens, bf16: works",
        "64 tokens, bf16: pack_vnni2 is only supported when avx512 is supported",
        "64 tokens, fp32: works",
        "64 tokens, bf16, no fused kernel: works",
    ]
print("\n".join(found))
sys.exit(0 if found == expected else "it has changed")
PYTHON
ATEN_CPU_CAPABILITY=avx2 "$place/venv/bin/python" "$place/find.py"
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 "$place/venv/bin/python" "$place/find.py"
