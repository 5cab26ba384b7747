"""Constructs that run what a file says, found by one function over a root. No file is exempt."""

from __future__ import annotations

import ast
from pathlib import Path

from architecture_rules import dotted, parse, python_files

FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.popen",
    "os.system",
    "yaml.full_load",
    "yaml.full_load_all",
    "yaml.unsafe_load",
    "yaml.unsafe_load_all",
}
# Reading any of these formats runs code that the file names.
UNPICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
UNPICKLING = {"load", "loads", "open", "Unpickler", "Shelf"}
FORBIDDEN_KEYWORDS = {"shell", "allow_pickle", "trust_remote_code"}


def unsafe_constructs(root: Path) -> list[str]:
    """Calls in the product that can run a file's or a user's text as code."""
    paths = python_files(root, "bigft", "launch", "benchmarks", "examples")
    paths += [path for path in [root / "setup.py"] if path.is_file()]
    complaints = []
    for path in paths:
        module = parse(path)
        aliases, loaders = import_aliases(module), safe_loaders(module)
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and (why := unsafe(node, aliases, loaders)):
                complaints.append(f"{path.relative_to(root)}:{node.lineno}: {why}")
    return complaints


def import_aliases(module: ast.Module) -> dict[str, str]:
    """The full name behind each imported one: {"loads": "pickle.loads"}."""
    aliases = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return aliases


def full_name(node: ast.AST, aliases: dict[str, str]) -> str:
    first, dot, rest = dotted(node).partition(".")
    return aliases.get(first, first) + dot + rest


def safe_loaders(module: ast.Module) -> set[str]:
    """YAML's safe loaders and the classes of this file that derive from them, in order."""
    aliases = import_aliases(module)
    loaders = {"yaml.SafeLoader", "yaml.CSafeLoader"}
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and node.bases:
            safe = all(full_name(base, aliases) in loaders for base in node.bases)
            loaders |= {node.name} if safe else set()
    return loaders


def unsafe(call: ast.Call, aliases: dict[str, str], loaders: set[str]) -> str:
    """Why the call is unsafe, or ""."""
    name = full_name(call.func, aliases)
    package, _, last = name.rpartition(".")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in FORBIDDEN_CALLS:
        return f"{name} runs text"
    if package in UNPICKLERS and last in UNPICKLING:
        return f"{name} runs what the file says"
    for keyword in FORBIDDEN_KEYWORDS & keywords.keys():
        value = keywords[keyword]
        if isinstance(value, ast.Constant) and value.value:
            return f"{keyword}={value.value!r} runs foreign code"
    if name in ("yaml.load", "yaml.load_all"):
        loader = keywords.get("Loader", call.args[1] if len(call.args) > 1 else None)
        if loader is None or full_name(loader, aliases) not in loaders:
            return f"{name} without a SafeLoader"
    if name == "torch.load":
        value = keywords.get("weights_only")
        if not (isinstance(value, ast.Constant) and value.value is True):
            return "torch.load without weights_only=True"
    return ""
