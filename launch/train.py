"""What `deepspeed`, `torchrun` and `srun` start: one rank of `bigft train`.

deepspeed launch/train.py CONFIG [section.key=value ...]
torchrun --nproc-per-node N launch/train.py CONFIG [section.key=value ...]
"""

from __future__ import annotations

import sys

from bigft.cli import main
from bigft.runtime import imports

if __name__ == "__main__":
    imports.owns_process = True
    sys.exit(main(["train", *sys.argv[1:]]))
