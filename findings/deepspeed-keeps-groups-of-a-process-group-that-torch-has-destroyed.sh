#!/usr/bin/env bash
# deepspeed 0.19.8, torch 2.13.0, on a CPU (gloo).
#
# Guess: after torch.distributed.destroy_process_group() a process is as before; a second engine in it trains as the first did.
# Seen: DeepSpeed keeps the groups that it made of the first one. The second initialize() finds them and hands them to torch, which
# no longer knows them. After DeepSpeed's own destroy_process_group(), which forgets them, the second engine trains.
# Output:
#   torch.distributed.destroy_process_group: the second engine fails, a group is not registered
#   deepspeed.comm.destroy_process_group: the second engine trains
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check setuptools wheel torch==2.13.0 numpy 2>/dev/null
DS_BUILD_OPS=0 "$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation deepspeed==0.19.8 2>/dev/null
cat >"$place/find.py" <<'PYTHON'
import contextlib
import io
import os
import socket
import sys

os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
import deepspeed
import torch
import torch.distributed as dist


def train():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    deepspeed.init_distributed("gloo", verbose=False)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = {"train_batch_size": 1, "zero_optimization": {"stage": 2}, "zero_allow_untested_optimizer": True}
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.backward(engine(torch.ones(1, 4)).sum())
    engine.step()


destroy = {"torch": dist.destroy_process_group, "deepspeed": deepspeed.comm.destroy_process_group}[sys.argv[1]]
said = io.StringIO()
with contextlib.redirect_stdout(said):
    train()
    destroy()
    try:
        train()
        answer = "trains"
    except Exception as error:
        assert "is not registered" in str(error), error
        answer = "fails, a group is not registered"
name = {"torch": "torch.distributed", "deepspeed": "deepspeed.comm"}[sys.argv[1]]
print(f"{name}.destroy_process_group: the second engine {answer}")
PYTHON
found=$(for which in torch deepspeed; do "$place/venv/bin/python" "$place/find.py" "$which" 2>/dev/null; done)
printf '%s\n' "$found"
[ "$found" = "torch.distributed.destroy_process_group: the second engine fails, a group is not registered
deepspeed.comm.destroy_process_group: the second engine trains" ] || { echo "it has changed" >&2; exit 1; }
