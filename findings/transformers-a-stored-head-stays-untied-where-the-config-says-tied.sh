#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0, safetensors 0.8.0.
#
# Guess: config.json with `tie_word_embeddings: true` beside a stored lm_head.weight that differs from the embeddings is tied, as in
# version 4, or refused.
# Seen: the head is loaded and stays apart, so it trains apart too; the config in memory and the one that save_pretrained writes go on
# saying true. Whoever follows the config, as other programs do, drops the trained head.
# Output:
#   config says tied: True, tied: False
#   saved config says tied: True, lm_head.weight is stored: True
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 safetensors==0.8.0 numpy 2>/dev/null
cat >"$place/find.py" <<'PYTHON'
import json
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
place = Path(tempfile.mkdtemp())
shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
config = LlamaConfig(vocab_size=64, tie_word_embeddings=False, **shape)
LlamaForCausalLM(config).save_pretrained(place)
file = place / "config.json"
file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
model = AutoModelForCausalLM.from_pretrained(place)
is_tied = model.lm_head.weight is model.model.embed_tokens.weight
found = [f"config says tied: {model.config.tie_word_embeddings}, tied: {is_tied}"]
model.save_pretrained(place / "again")
saved = json.loads((place / "again/config.json").read_text())["tie_word_embeddings"]
with safe_open(place / "again/model.safetensors", "pt") as stored:
    is_stored = "lm_head.weight" in stored.keys()
found.append(f"saved config says tied: {saved}, lm_head.weight is stored: {is_stored}")
print("\n".join(found))
assert found == [
    "config says tied: True, tied: False",
    "saved config says tied: True, lm_head.weight is stored: True",
], "it has changed"
PYTHON
"$place/venv/bin/python" "$place/find.py"
