"""The rules of docs/architecture.md as functions over a repository's root.

Each returns its complaints, one line each. A package that does not exist yet breaks no rule.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

# Imports between packages go strictly down. launch stands on cli, cli on api.
LAYERS = {
    "config": 0,
    "runtime": 1,
    "ops": 2,
    "data": 3,
    "models": 3,
    "tasks": 4,
    "training": 5,
    "api": 6,
    "cli": 7,
    "launch": 8,
}
# Packages outside the layers: who may import them, and what they may import.
BESIDE = {"plan", "report"}
ABOVE_BESIDE = {"api", "cli", "launch"}
BELOW_BESIDE = {"config", "runtime"}
DATA_TYPES = "bigft.data.records"
# bigft itself (its version) and the compiled module know nothing of the packages: all may use them.
FOR_ALL = {"", "_host"}

# Slow to import: `bigft --help` and a config error must not wait for them.
HEAVY = {"accelerate", "bitsandbytes", "datasets", "deepspeed", "peft", "torch", "transformers"}

MAX_SOURCE_LINES, MAX_PACKAGE_LINES = 400, 350  # the latter of bigft/
LAUNCH_LINES_BELOW = 60
SOURCES = (
    "setup.py",
    "bigft/**/*.py",
    "bigft/**/*.pyi",
    "csrc/**/*.cpp",
    "csrc/**/*.cu",
    "csrc/**/*.cuh",
    "csrc/**/*.h",
    "launch/**/*.py",
    "tests/**/*.py",
    "benchmarks/**/*.py",
    "examples/**/*.py",
)

REGISTRIES = {
    "TASKS": "bigft/tasks/__init__.py",
    "OPTIMIZERS": "bigft/training/optimizers.py",
    "SCHEDULES": "bigft/training/optimizers.py",
    "ADAPTERS": "bigft/models/adapt.py",
    "FORMATS": "bigft/data/formats/read.py",
    "VERBS": "bigft/cli/__init__.py",
}
NOT_OPERATORS = {"common", "host"}


@dataclass(frozen=True, slots=True)
class Arrow:
    """`importer` imports `imported`, both dotted names. `where` is "path:line"."""

    importer: str
    imported: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.importer} imports {self.imported}"


def python_files(root: Path, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package(module: str) -> str:
    """The package of a module: "tasks" of bigft.tasks.protocol; "" of bigft itself."""
    top, _, rest = module.partition(".")
    return top if top != "bigft" else rest.partition(".")[0]


def arrows(root: Path) -> list[Arrow]:
    """Every import of bigft and launch: at the top, in functions and under TYPE_CHECKING."""
    modules = {module_name(root, path): path for path in python_files(root, "bigft", "launch")}
    found = []
    for module, path in modules.items():
        for node in ast.walk(parse(path)):
            for name in imported_names(node, module, path.name == "__init__.py"):
                # `from bigft.tasks import protocol` is the module, `import TASKS` is its package.
                is_attribute = name not in modules and name.rpartition(".")[0] in modules
                target = name.rpartition(".")[0] if is_attribute else name
                where = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
                found.append(Arrow(module, target, where))
    return found


def imported_names(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names that the node imports; `from a import b` gives a.b."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = module.split(".")
            parents = parents[: len(parents) - node.level + is_package]
            base = ".".join([*parents, *filter(None, [node.module])])
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif (
        isinstance(node, ast.Call)
        and dotted(node.func).endswith("import_module")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ):
        yield str(node.args[0].value)


def dotted(node: ast.AST) -> str:
    """ "a.b.c" of such an expression, "" of any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        value = dotted(node.value)
        return f"{value}.{node.attr}" if value else ""
    return ""


def layers(root: Path) -> list[str]:
    """Arrows that do not go down."""
    complaints = []
    for arrow in arrows(root):
        upper, lower = package(arrow.importer), package(arrow.imported)
        ours = arrow.imported.partition(".")[0] in ("bigft", "launch")
        if not ours or upper == lower or lower in FOR_ALL:
            continue
        if why := forbidden(upper, lower, arrow.imported):
            complaints.append(f"{arrow}: {why}")
    return complaints


def forbidden(upper: str, lower: str, imported: str) -> str:
    """Why the package `upper` may not import from `lower`; "" if it may."""
    if upper == "":
        return "" if lower == "api" else "bigft/__init__.py imports api only"
    if upper == "__main__":
        return "" if lower == "cli" else "bigft/__main__.py imports cli only"
    for name in (upper, lower):
        if name not in LAYERS and name not in BESIDE:
            return f"{name} is not a package of docs/architecture.md"
    if lower in BESIDE:
        return "" if upper in ABOVE_BESIDE else f"only api, cli and launch import {lower}"
    if upper in BESIDE:
        below = lower in BELOW_BESIDE or imported == DATA_TYPES
        return "" if below else f"{upper} stands on config, runtime and {DATA_TYPES} only"
    return "" if LAYERS[lower] < LAYERS[upper] else "imports only go down"


def task_folders(root: Path) -> list[str]:
    """Imports of a task's folder by anything in bigft/tasks/ but that folder and the table."""
    folders = {path.parent.name for path in root.glob("bigft/tasks/*/task.py")}
    complaints = []
    for arrow in arrows(root):
        importer, imported = (_in_tasks(name) for name in (arrow.importer, arrow.imported))
        outside = importer not in (None, "", imported)
        if imported in folders and outside:
            complaints.append(f"{arrow}: what two tasks share lies in bigft/tasks/")
    return complaints


def _in_tasks(module: str) -> str | None:
    """The name below bigft.tasks; "" for the package itself, None elsewhere."""
    package, _, rest = module.partition("bigft.tasks")
    return None if package or (not rest and module != "bigft.tasks") else rest[1:].partition(".")[0]


def circles(root: Path) -> list[str]:
    """The first circle of modules that import each other. bigft itself imports its api when that is
    asked for, never while it is imported: see `light_packages`."""
    graph: dict[str, set[str]] = {}
    for arrow in arrows(root):
        if arrow.importer not in ("bigft", arrow.imported):
            graph.setdefault(arrow.importer, set()).add(arrow.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # It names the imported before the importer.
        return ["a circle: " + " -> ".join(reversed(error.args[1]))]
    return []


def light_packages(root: Path) -> list[str]:
    """Heavy packages in config, or at the top of api, of the verbs and of bigft/__init__.py, which
    imports nothing of bigft there either."""
    complaints = [
        f"{arrow}: config imports no heavy package"
        for arrow in arrows(root)
        if package(arrow.importer) == "config" and arrow.imported.partition(".")[0] in HEAVY
    ]
    top = root / "bigft/__init__.py"
    for path in [top, *python_files(root, "bigft/api", "bigft/cli")]:
        refused = {*HEAVY, "bigft"} if path == top else HEAVY
        if path.is_file():
            for node in run_at_import(parse(path)):
                for name in imported_names(node, module_name(root, path), False):
                    if name.partition(".")[0] in refused:
                        where = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
                        complaints.append(f"{where}: {name} at the top; import it in the function")
    return complaints


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those inside functions and under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and dotted(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from run_at_import(child)


def file_lengths(root: Path) -> list[str]:
    """Files that no longer fit in the head, and a launch script that does more than start."""
    complaints = []
    for path in sorted(path for pattern in SOURCES for path in root.glob(pattern)):
        num_lines = len(path.read_text(encoding="utf-8").splitlines())
        name = str(path.relative_to(root))
        most = MAX_PACKAGE_LINES if name.startswith("bigft/") else MAX_SOURCE_LINES
        if num_lines > most:
            complaints.append(f"{name}: {num_lines} lines, over {most}")
        if name == "launch/train.py" and num_lines >= LAUNCH_LINES_BELOW:
            complaints.append(f"{name}: {num_lines} lines, not under {LAUNCH_LINES_BELOW}")
    return complaints


def registries(root: Path) -> list[str]:
    """Registries that are not one plain dict literal in the file where one looks for them."""
    complaints = []
    for name, home in REGISTRIES.items():
        if not (root / home).is_file():
            continue
        values = [value for target, value in assignments(parse(root / home)) if target == name]
        if len(values) != 1 or not is_plain_dict(values[0]):
            complaints.append(f"{home}: {name} is not one dict literal with strings as keys")
    for path in python_files(root, "bigft"):
        for node in ast.walk(parse(path)):
            if (name := changed_registry(node)) in REGISTRIES:
                where = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
                complaints.append(f"{where}: changes {name}; write the row into its literal")
    return complaints


def assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    for node in module.body:
        if isinstance(node, ast.Assign):
            yield from ((dotted(target), node.value) for target in node.targets)
        elif isinstance(node, ast.AnnAssign):
            yield dotted(node.target), node.value


def is_plain_dict(value: ast.expr | None) -> bool:
    """A literal whose keys are all strings; `**other` shows as a key None."""
    return isinstance(value, ast.Dict) and all(
        isinstance(key, ast.Constant) and isinstance(key.value, str) for key in value.keys
    )


def changed_registry(node: ast.AST) -> str:
    """The last name of what `X[…] = …`, `del X[…]`, `X |= …` or `X.update(…)` changes."""
    changed: ast.AST | None = None
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        changed = node.value
    elif isinstance(node, ast.AugAssign):
        changed = node.target
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("update", "setdefault", "pop", "popitem", "clear")
    ):
        changed = node.func.value
    return dotted(changed).rpartition(".")[2] if changed else ""


def operator_mirrors(root: Path) -> list[str]:
    """Operators that lack one of their five mirrored places."""
    folders = [path for path in (root / "csrc").glob("*") if path.is_dir()]
    operators = {path.name for path in folders} - NOT_OPERATORS
    operators |= {
        path.stem.removeprefix("_")
        for path in (root / "bigft/ops").glob("_*.py")
        if not path.stem.startswith("__")
    }
    library = root / "csrc/library.cpp"
    schemas = library.read_text(encoding="utf-8") if library.is_file() else ""
    complaints = []
    for name in sorted(operators):
        places = (
            f"csrc/{name}",
            f"bigft/ops/_{name}.py",
            f"tests/ops/test_{name}.py",
            f"benchmarks/bench_{name}.py",
        )
        complaints += [
            f"operator {name}: no {place}" for place in places if not (root / place).exists()
        ]
        if name not in schemas:
            complaints.append(f"operator {name}: no schema in csrc/library.cpp")
    return complaints
