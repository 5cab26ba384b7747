"""The lint for unsafe constructs sees through the ways around it. Each case is planted and found;
the plain forms are in tests/test_architecture.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from unsafe_rules import unsafe_constructs

REPOSITORY = Path(__file__).resolve().parents[2]


def complaints(root: Path, name: str, text: str) -> list[str]:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return unsafe_constructs(root)


def test_the_repository_has_none() -> None:
    assert unsafe_constructs(REPOSITORY) == []


@pytest.mark.parametrize(
    "text",
    [
        # under another name
        "import torch\nread = torch.load",
        "import torch\nt = torch; t.load(file)",
        "from torch import load as read\nread(file)",
        "from torch.serialization import load\nload(file, weights_only=True)",
        "import functools, torch\nfunctools.partial(torch.load, weights_only=True)",
        "import torch\nmap(torch.load, files)",
        "import yaml\nread = yaml.load",
        "import os\nrun = os.system",
        "import builtins\nbuiltins.eval(text)",
        "import builtins as b\nb.exec(text)",
        "from os import *",
        # looked up
        "import torch\ngetattr(torch, 'load')(file)",
        "import os\ngetattr(os, 'system')(text)",
        "import os\ngetattr(os, name)(text)",
        "import pickle\ngetattr(pickle, 'lo' + 'ads')(text)",
        "import os\nvars(os)['system'](text)",
        "import os\nos.__dict__['system'](text)",
        "import sys\nsys.modules['pickle'].loads(text)",
        "import importlib\nimportlib.import_module('pickle').loads(text)",
        "from importlib import import_module\nimport_module('os').system(text)",
        "__import__('os').system(text)",
        "__import__(name)",
        "compile(text, 'file', 'exec')",
        "import runpy\nrunpy.run_path(file)",
        # unpickling by others
        "import marshal\nmarshal.loads(text)",
        "import joblib\njoblib.load(file)",
        "import pandas as pd\npd.read_pickle(file)",
        "import pandas\npandas.read_hdf(file)",
        "import pickle\nclass Mine(pickle.Unpickler): ...",
        "import numpy as np\nnp.load(file, allow_pickle=flag)",
        "import numpy as np\nnp.load(file, None, True)",
        "import torch\ntorch.jit.load(file)",
        "import torch\ntorch.hub.load(name, model)",
        "import torch\ntorch.load(file, **options)",
        "read(file, weights_only=False)",
        "read(file, weights_only=flag)",
        "options = {'weights_only': False}",
        "options = {'allow_pickle': True}",
        "import yaml\nloader = yaml.UnsafeLoader",
        # shells
        "import subprocess\nsubprocess.run(text, shell=flag)",
        "import subprocess\nsubprocess.Popen(text, **{'shell': True})",
        "import subprocess\nsubprocess.getoutput(text)",
        "import subprocess\nsubprocess.run(['bash', '-c', text])",
        "import subprocess as s\ns.check_call(['/bin/sh', '-c', text])",
        "import os\nos.execvp('sh', ['sh', '-c', text])",
        "import os\nos.spawnl(os.P_WAIT, '/bin/bash', 'bash', '-c', text)",
        "import asyncio\nasyncio.create_subprocess_shell(text)",
        "import os\nos.popen(text)",
        # files whose name is known before they exist
        "import tempfile\ntempfile.mktemp()",
    ],
)
@pytest.mark.parametrize("file", ["bigft/data/a.py"])
def test_a_way_around_is_found(file: str, text: str, tmp_path: Path) -> None:
    (complaint,) = complaints(tmp_path, file, text)
    assert complaint.startswith(f"{file}:{len(text.splitlines())}: ")


@pytest.mark.parametrize("file", ["launch/a.py", "benchmarks/a.py", "examples/x/a.py", "setup.py"])
def test_no_file_of_the_product_is_exempt(file: str, tmp_path: Path) -> None:
    assert len(complaints(tmp_path, file, "# noqa\neval('1')  # noqa")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import os, sys\nos.execv(sys.executable, [sys.executable, *arguments])",
        "import subprocess\nsubprocess.run(['srun', 'bash.txt'], check=False)",
        "import torch\ngetattr(torch, dtype)",
        "from pickle import UnpicklingError\nraise UnpicklingError",
        "from importlib import import_module\nimport_module(f'bigft.cli.{verb}')",
        "import re\nre.compile('x')\nmodel.eval()\ntorch.compile(model)",
        "import json, numpy\njson.load(file)\nnumpy.load(file, allow_pickle=False)",
        "import tempfile\ntempfile.mkstemp()",
    ],
)
def test_what_is_safe_is_left_alone(text: str, tmp_path: Path) -> None:
    assert complaints(tmp_path, "bigft/data/a.py", text) == []


@pytest.mark.parametrize("folder", ["slurm", "tests/slurm"])
@pytest.mark.parametrize(
    "line",
    [
        'eval "$command"',
        "true && eval $x",
        "(eval $x)",
        "x=$(eval echo $y)",
        'bash -c "$command"',
        "srun bash -lc $command",
        'sh -e -c "cd $1"',
    ],
)
def test_a_script_that_runs_text_is_found(folder: str, line: str, tmp_path: Path) -> None:
    (complaint,) = complaints(tmp_path, f"{folder}/a.sh", f"#!/bin/bash\n{line}\n")
    assert complaint.startswith(f"{folder}/a.sh:2: ")


def test_safe_scripts_are_left_alone(tmp_path: Path) -> None:
    script = """#!/usr/bin/env bash
# eval is not used; bash -c "$x" neither
bash -c 'cd -- "$0" && exec "$@"' "$PWD" "$@"
bigft evaluate "$run"; retrieval=1; echo eval-loss
"""
    assert complaints(tmp_path, "slurm/a.sh", script) == []
