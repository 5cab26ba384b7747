"""The repository keeps the rules of docs/architecture.md; each rule fails on a planted tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from architecture_rules import (
    REGISTRIES,
    circles,
    file_lengths,
    layers,
    light_packages,
    operator_mirrors,
    registries,
    task_folders,
)
from unsafe_rules import unsafe_constructs

REPOSITORY = Path(__file__).resolve().parents[1]
Rule = Callable[[Path], list[str]]
RULES: list[Rule] = [
    layers,
    task_folders,
    circles,
    light_packages,
    file_lengths,
    registries,
    operator_mirrors,
    unsafe_constructs,
]
GUARDED = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_repository_keeps_the_rule(rule: Rule) -> None:
    complaints = rule(REPOSITORY)
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_packages_that_do_not_exist_yet_break_no_rule(rule: Rule, tmp_path: Path) -> None:
    assert rule(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("bigft/config/a.py", "import bigft.runtime.seeding", "imports only go down"),
        ("bigft/data/a.py", "from bigft.models import load", "imports only go down"),
        ("bigft/models/a.py", "from ..data.records import Batch", "imports only go down"),
        ("bigft/ops/a.py", "def f():\n    from bigft.tasks import TASKS", "a.py:2:"),
        ("bigft/tasks/a.py", GUARDED + "from bigft.training.loop import Run", "a.py:3:"),
        ("bigft/tasks/a.py", "import_module('bigft.training.loop')", "imports only go down"),
        ("bigft/cli/a.py", "import launch.train", "imports only go down"),
        (
            "bigft/training/a.py",
            "from bigft import report",
            "only api, cli and launch import report",
        ),
        ("bigft/report/a.py", "import bigft.plan.memory", "only api, cli and launch import plan"),
        ("bigft/plan/a.py", "from bigft.models.load import load", "plan stands on"),
        ("bigft/__init__.py", "from bigft.cli import main", "imports api only"),
        ("bigft/api/a.py", "def f():\n    from bigft.cli import main", "imports only go down"),
        ("bigft/__main__.py", "from bigft.training import loop", "imports cli only"),
        ("bigft/utils/a.py", "import bigft.config.load", "utils is not a package"),
    ],
)
def test_an_arrow_that_does_not_go_down_is_found(
    path: str, text: str, complaint: str, tmp_path: Path
) -> None:
    complaints = layers(plant(tmp_path, {path: text}))
    assert len(complaints) == 1
    assert complaint in complaints[0]


def test_arrows_that_go_down_are_allowed(tmp_path: Path) -> None:
    files = {
        "bigft/__init__.py": "__version__ = '1'",
        "bigft/config/a.py": "from bigft import __version__\nfrom .b import x\nimport config",
        "bigft/data/a.py": "import bigft.ops\nfrom bigft._host import pack",
        "bigft/data/records.py": "class Batch: ...",
        "bigft/plan/a.py": "from bigft.data.records import Batch\nimport bigft.config.load",
        "bigft/api/a.py": "from bigft.report.page import write\nimport bigft.training.loop",
        "bigft/cli/a.py": "from bigft.report.page import write\nimport bigft.api.session",
        "launch/train.py": "from bigft.cli.train import main",
    }
    assert layers(plant(tmp_path, files)) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("bigft/tasks/a/fields.py", "from bigft.tasks.b.fields import find"),
        ("bigft/tasks/a/task.py", "def f():\n    from ..b import B"),
        ("bigft/tasks/shared.py", "import bigft.tasks.a.task"),
        ("bigft/tasks/scores/tables.py", "from bigft.tasks import a"),
    ],
)
def test_a_task_that_imports_anothers_folder_is_found(path: str, text: str, tmp_path: Path) -> None:
    files = {f"bigft/tasks/{name}/{file}.py": "" for name in "ab" for file in ("__init__", "task")}
    files |= {"bigft/tasks/__init__.py": "from bigft.tasks.a import A\nfrom bigft.tasks.b import B"}
    files |= {"bigft/tasks/b/fields.py": "from . import task\nimport bigft.tasks.shared"}
    files |= {"bigft/cli/a.py": "from bigft.tasks.a.task import A"}
    assert task_folders(plant(tmp_path, files)) == []
    (complaint,) = task_folders(plant(tmp_path, {path: text}))
    assert complaint.startswith(path)


def test_a_circle_is_found_and_named(tmp_path: Path) -> None:
    files = {
        "bigft/tasks/a.py": "def f():\n    from bigft.tasks.b import x",
        "bigft/tasks/b.py": "from bigft.tasks import c",
        "bigft/tasks/c.py": "from .a import f",
    }
    (complaint,) = circles(plant(tmp_path, files))
    for arrow in (
        "tasks.a -> bigft.tasks.b",
        "tasks.b -> bigft.tasks.c",
        "tasks.c -> bigft.tasks.a",
    ):
        assert arrow in complaint


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("bigft/config/a.py", "def f():\n    import torch"),
        ("bigft/config/a.py", GUARDED + "from transformers import AutoModel"),
        ("bigft/cli/a.py", "import torch.distributed as dist"),
        ("bigft/cli/a.py", "try:\n    import deepspeed\nexcept ImportError:\n    deepspeed = None"),
        ("bigft/__init__.py", "from torch import nn"),
        ("bigft/__init__.py", "from bigft import api"),
        ("bigft/api/a.py", "import torch"),
    ],
)
def test_a_heavy_import_in_a_light_package_is_found(path: str, text: str, tmp_path: Path) -> None:
    (complaint,) = light_packages(plant(tmp_path, {path: text}))
    assert path in complaint


def test_a_verb_may_import_torch_inside_a_function_or_for_its_types(tmp_path: Path) -> None:
    text = GUARDED + "import torch\ndef main():\n    import torch"
    assert light_packages(plant(tmp_path, {"bigft/cli/a.py": text})) == []


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("bigft/ops/a.py", 350),
        ("csrc/op/kernels.cu", 400),
        ("tests/ops/test_a.py", 400),
        ("setup.py", 400),
    ],
)
def test_a_file_of_a_line_too_many_is_found(path: str, most: int, tmp_path: Path) -> None:
    assert file_lengths(plant(tmp_path, {path: "\n" * most})) == []
    complaint = f"{path}: {most + 1} lines, over {most}"
    assert file_lengths(plant(tmp_path, {path: "\n" * (most + 1)})) == [complaint]


def test_a_launch_script_of_60_lines_is_found(tmp_path: Path) -> None:
    assert file_lengths(plant(tmp_path, {"launch/train.py": "\n" * 59})) == []
    assert len(file_lengths(plant(tmp_path, {"launch/train.py": "\n" * 60}))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TASKS = dict(a=1)",
        "TASKS = {'a': 1, **MORE}",
        "TASKS = {name: 1 for name in NAMES}",
        "TASKS = {A: 1}",
        "TASKS: dict[str, int] = build()",
        "TASKS = {'a': 1}\nTASKS = {'b': 1}",
        "TASKS = {'a': 1}\nTASKS['b'] = 2",
        "TASKS = {'a': 1}\nTASKS |= MORE",
        "TASKS = {'a': 1}\ndef register(name):\n    TASKS.update(name)",
    ],
)
def test_a_registry_that_is_not_one_plain_literal_is_found(text: str, tmp_path: Path) -> None:
    (complaint,) = registries(plant(tmp_path, {REGISTRIES["TASKS"]: text}))
    assert "TASKS" in complaint


def test_a_row_registered_from_another_file_is_found(tmp_path: Path) -> None:
    files = {
        REGISTRIES["TASKS"]: "TASKS: dict[str, int] = {'a': 1}",
        "bigft/training/a.py": "import bigft.tasks\nbigft.tasks.TASKS['b'] = 2",
    }
    (complaint,) = registries(plant(tmp_path, files))
    assert "bigft/training/a.py:2: changes TASKS" in complaint


OPERATOR = {
    "csrc/library.cpp": 'm.def("scale(Tensor x) -> Tensor");',
    "csrc/scale/op.cpp": "",
    "csrc/common/check.h": "",
    "csrc/host/module.cpp": "",
    "bigft/ops/__init__.py": "",
    "bigft/ops/_scale.py": "",
    "tests/ops/test_scale.py": "",
    "benchmarks/bench_scale.py": "",
}


@pytest.mark.parametrize("missing", [path for path in OPERATOR if "scale" in path])
def test_an_operator_without_one_of_its_places_is_found(missing: str, tmp_path: Path) -> None:
    plant(tmp_path, {path: text for path, text in OPERATOR.items() if path != missing})
    (complaint,) = operator_mirrors(tmp_path)
    assert complaint.startswith("operator scale: no ")
    assert missing.startswith(complaint.removeprefix("operator scale: no "))


def test_an_operator_without_a_schema_is_found(tmp_path: Path) -> None:
    assert operator_mirrors(plant(tmp_path, OPERATOR)) == []
    plant(tmp_path, {"csrc/library.cpp": ""})
    assert operator_mirrors(tmp_path) == ["operator scale: no schema in csrc/library.cpp"]


@pytest.mark.parametrize(
    "text",
    [
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "eval('1')",
        "exec('1')",
        "import pickle\npickle.load(file)",
        "from pickle import loads as read\nread(text)",
        "import cloudpickle as c\nc.loads(text)",
        "import numpy\nnumpy.load(file, allow_pickle=True)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "import yaml\nclass Mine(yaml.FullLoader): ...\nyaml.load(text, Loader=Mine)",
        "from yaml import unsafe_load\nunsafe_load(text)",
        "import torch\ntorch.load(file)",
        "import torch\ntorch.load(file, weights_only=False)",
        "import torch as t\nt.load(file, weights_only=flag)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_an_unsafe_construct_is_found(text: str, tmp_path: Path) -> None:
    complaints = unsafe_constructs(plant(tmp_path, {"bigft/data/a.py": text}))
    assert complaints
    assert all(complaint.startswith("bigft/data/a.py:") for complaint in complaints)


def test_the_safe_forms_are_allowed(tmp_path: Path) -> None:
    text = """
import json, subprocess, torch, yaml
class Mine(yaml.SafeLoader): ...
yaml.load(text, Loader=Mine)
yaml.load(text, yaml.CSafeLoader)
yaml.safe_load(text)
json.loads(text)
torch.load(file, weights_only=True)
subprocess.run(["ls"], shell=False)
model.eval()
AutoModel.from_pretrained(name, trust_remote_code=config.trust_remote_code)
"""
    assert unsafe_constructs(plant(tmp_path, {"bigft/data/a.py": text})) == []
