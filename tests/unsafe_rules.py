"""Constructs that run what a file or a user says, found by one function over a root.

No file is exempt. A forbidden name counts wherever it stands, not only where it is called: what is
handed to `partial` or kept under another name is called later.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from architecture_rules import parse, python_files

# Each runs text, or code that is named or held by the file that it reads.
FORBIDDEN = {
    "__import__",
    "asyncio.create_subprocess_shell",
    "compile",
    "eval",
    "exec",
    "numpy.lib.npyio.load",
    "os.popen",
    "os.system",
    "pandas.read_hdf",
    "pandas.read_pickle",
    "pty.spawn",
    "runpy.run_module",
    "runpy.run_path",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "torch.hub.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "torch.serialization.load",
    "yaml.CFullLoader",
    "yaml.CLoader",
    "yaml.CUnsafeLoader",
    "yaml.FullLoader",
    "yaml.Loader",
    "yaml.UnsafeLoader",
    "yaml.full_load",
    "yaml.full_load_all",
    "yaml.unsafe_load",
    "yaml.unsafe_load_all",
}
# And one that gives a name away before the file exists.
FORBIDDEN |= {"tempfile.mktemp"}
UNPICKLERS = {
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "jsonpickle",
    "marshal",
    "pickle",
    "shelve",
}
UNPICKLING = {"Shelf", "Unpickler", "decode", "load", "loads", "open"}
# Safe with the right arguments only, so a call is looked at and every other mention is refused.
CONDITIONAL = {"torch.load", "yaml.load", "yaml.load_all"}
# Nothing may be looked up in them by a name that is not in the text.
DANGEROUS = {name.partition(".")[0] for name in FORBIDDEN if "." in name} - {"numpy", "torch"}
DANGEROUS |= {"builtins", "importlib", *UNPICKLERS}
ALWAYS_THE_SAME = {"allow_pickle": False, "shell": False, "weights_only": True}
SHELLS = re.compile(r"(.*/)?(ba|da|k|z|)sh")
STARTERS = re.compile(r"os\.(exec|spawn|posix_spawn)\w*|subprocess\.\w+|asyncio\.create_\w+")


def unsafe_constructs(root: Path) -> list[str]:
    """What in the product can run a file's or a user's text as code."""
    paths = python_files(root, "bigft", "launch", "benchmarks", "examples")
    paths += [path for path in [root / "setup.py"] if path.is_file()]
    found = [(path, *where) for path in paths for where in unsafe_python(parse(path))]
    scripts = sorted(path for top in ("slurm", "tests") for path in (root / top).rglob("*.sh"))
    found += [(path, *where) for path in scripts for where in unsafe_shell(path.read_text())]
    return [f"{path.relative_to(root)}:{line}: {why}" for path, line, why in found]


def unsafe_shell(script: str) -> Iterator[tuple[int, str]]:
    """(line, why) of each place where a script runs text that it did not write itself."""
    for number, line in enumerate(script.splitlines(), 1):
        code = re.sub(r"(^|\s)#.*", "", line)
        if re.search(r"(^|[\s;&|({`])eval\s", code):
            yield number, "eval runs text"
        # What stands in single quotes is the script's own.
        if re.search(r"\b(ba|da|k|z|)sh\s+(-\w+\s+)*-\w*c\b(?!\s+')", code):
            yield number, "a shell is given text to run"


def unsafe_python(module: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, why) of each line with an unsafe construct."""
    names = Names(module)
    reasons: dict[int, str] = {}
    called = set()
    for node in ast.walk(module):  # a call comes before the name in it
        why = ""
        if isinstance(node, ast.Call):
            called.add(node.func)
            why = unsafe_call(node, names)
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            why = unsafe_options({constant(key): value for key, value in pairs})
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            why = "imports names unseen" if node.module in DANGEROUS else ""
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            why = unsafe_name(names.full(node), node in called)
        if why:
            reasons.setdefault(node.lineno, why)
    yield from sorted(reasons.items())


class Names:
    """What the names of one file stand for."""

    def __init__(self, module: ast.Module) -> None:
        self._aliases: dict[str, str] = {}
        self.safe_loaders = {"yaml.SafeLoader", "yaml.CSafeLoader"}
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                self._aliases |= {a.asname: a.name for a in node.names if a.asname}
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self._aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        for node in ast.walk(module):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                if (full := self.full(node.value)) in DANGEROUS | {"torch", "numpy"}:
                    self._aliases[node.targets[0].id] = full  # a module under another name
            elif isinstance(node, ast.ClassDef):
                bases = {self.full(base) for base in node.bases}
                self.safe_loaders |= {node.name} if bases and bases <= self.safe_loaders else set()

    def full(self, node: ast.AST) -> str:
        """ "pickle.loads" of what is that, however it is written down; "" of what has no name."""
        if isinstance(node, ast.Name):
            return self._aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            value = self.full(node.value)
            full = f"{value}.{node.attr}" if value else ""
            return full.removeprefix("builtins.")
        if isinstance(node, ast.Subscript) and self.full(node.value) == "sys.modules":
            return constant(node.slice)
        if isinstance(node, ast.Call) and node.args:
            name = self.full(node.func)
            if name in ("__import__", "importlib.import_module"):
                return constant(node.args[0])
            if name == "getattr" and len(node.args) > 1:
                attribute = constant(node.args[1])
                owner = self.full(node.args[0])
                return f"{owner}.{attribute}".removeprefix("builtins.") if attribute else ""
        return ""


def unsafe_name(name: str, is_called: bool) -> str:
    """Why the name may not be mentioned, or ""."""
    package, _, last = name.rpartition(".")
    if name in FORBIDDEN:
        return f"{name} runs text" if name != "tempfile.mktemp" else f"{name} is a race"
    if package in UNPICKLERS and last in UNPICKLING:
        return f"{name} runs what the file says"
    if name in CONDITIONAL and not is_called:
        return f"{name} is handed on, its arguments unseen"
    if package in DANGEROUS and last == "__dict__":
        return f"{name} hides what is called"
    return ""


def unsafe_call(call: ast.Call, names: Names) -> str:
    """Why the arguments of the call are unsafe, or ""."""
    name = names.full(call.func)
    keywords = {keyword.arg or "": keyword.value for keyword in call.keywords}
    if why := unsafe_options(keywords):
        return why
    if name in ("yaml.load", "yaml.load_all"):
        loader = keywords.get("Loader", call.args[1] if len(call.args) > 1 else None)
        if loader is None or names.full(loader) not in names.safe_loaders:
            return f"{name} without a SafeLoader"
    if name == "torch.load" and "weights_only" not in keywords:
        return "torch.load without weights_only=True"
    if name == "numpy.load" and len(call.args) > 2:
        return "numpy.load with allow_pickle"
    if name == "vars" and any(names.full(argument) in DANGEROUS for argument in call.args):
        return "vars hides what is called"
    if name == "getattr" and len(call.args) > 1:
        if names.full(call.args[0]) in DANGEROUS and not constant(call.args[1]):
            return "getattr hides what is called"
        return unsafe_name(names.full(call), False)
    if STARTERS.fullmatch(name):
        words = [word for word in ast.walk(call) if isinstance(word, ast.Constant)]
        if any(isinstance(word.value, str) and SHELLS.fullmatch(word.value) for word in words):
            return f"{name} starts a shell"
    return ""


def unsafe_options(options: dict[str, ast.expr]) -> str:
    """Why options, of a call or in a dict that may become one's, are unsafe, or ""."""
    for name, value in options.items():
        if name == "trust_remote_code" and isinstance(value, ast.Constant) and value.value:
            return f"{name}={value.value!r} runs foreign code"
        if name in ALWAYS_THE_SAME:
            safe = ALWAYS_THE_SAME[name]
            if not (isinstance(value, ast.Constant) and value.value is safe):
                return f"{name} is not {safe}"
    return ""


def constant(node: ast.AST | None) -> str:
    """The text that the node is; "" of any other."""
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text else ""  # type: ignore[union-attr]
