"""The house keeps its shape: who may import whom and why, what core may touch, how long things may get."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "buckia"

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
PARAMETERS_MAX = 6

# part -> (what it may import besides itself, why no more). A part is a module or package directly under `buckia`;
# `sync.base` stands for that one module of `sync`.
LAYERS: dict[str, tuple[set[str], str]] = {
    "errors": (set(), "everything raises them: they stand on nothing"),
    "events": (set(), "values that everything returns: they stand on nothing"),
    "core": ({"errors", "events"}, "the format is pure: it can be tested, fuzzed and ported without the rest"),
    "location": ({"errors"}, "a location is text until the client opens it"),
    "config": ({"errors", "location"}, "a configuration is values: reading one touches no bucket and no state"),
    "credentials": ({"config", "errors"}, "where secrets come from is for one part to know; adapters are handed them"),
    "sync": ({"errors", "events"}, "adapters see keys and bytes; a third party can write one without the format"),
    "store": ({"core", "sync.base", "errors", "events"}, "one remote manager for all providers, and it has no disk"),
    "local": ({"core", "errors", "events"}, "the disk's side knows nothing of buckets"),
    "engine": (
        {"store", "local", "core", "errors", "events"},
        "written against interfaces: a fleet runs in one process",
    ),
    "client": (
        {"engine", "store", "local", "sync", "core", "credentials", "config", "location", "errors", "events"},
        "the only one that composes; it knows no command line",
    ),
    "app": (
        {"client", "config", "location", "errors", "events"},
        "an application's habits, by the client's public face",
    ),
    "cli": (
        {"buckia", "client", "app", "credentials", "config", "location", "errors", "events"},
        "a command is arguments, one call of the client, and what it printed: all else works from Python too",
    ),
    "buckia": ({"client", "app", "config", "location", "errors", "events"}, "the public names, nothing else"),
    "__main__": ({"cli"}, "python -m buckia is the command"),
}

# Time, chance, the environment and the outside world come into core as arguments.
IMPURE = {
    *("asyncio", "concurrent", "ctypes", "datetime", "fcntl", "getpass", "glob", "http", "io", "locale", "logging"),
    *("mmap", "multiprocessing", "os", "pathlib", "platform", "queue", "random", "secrets", "select", "shutil"),
    *("signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid"),
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint", "__import__"}

PROVIDER_SDKS = ("boto3", "botocore", "requests", "urllib3", "b2sdk", "keyring", "numpy")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def sources() -> dict[str, Path]:
    """Module name -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[tuple[str, int, str | None]]:
    """(imported module, line, imported name): all of them, also those inside functions and for type checkers."""
    package = module if sources()[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full, node.lineno, None) if full in sources() else (base, node.lineno, alias.name)


def part(module: str) -> str:
    """The part of the house that a module belongs to."""
    return module.split(".")[1] if "." in module else module


def functions(module: str) -> Iterator[Function]:
    return (node for node in ast.walk(tree(module)) if isinstance(node, Function))


def check(found: Iterator[str]) -> None:
    problems = "\n".join(found)
    assert not problems, f"\n{problems}"


def where(module: str, line: int) -> str:
    return f"{sources()[module].relative_to(ROOT)}:{line}"


def forbidden_imports() -> Iterator[str]:
    for module in sources():
        home = part(module)
        if home not in LAYERS:
            yield f"{module}: not in the table; say what it may import, and why no more"
            continue
        allowed, reason = LAYERS[home]
        for target, line, _ in imports(module):
            if target.split(".")[0] != "buckia" or part(target) == home:
                continue
            if not {part(target), target.removeprefix("buckia.")} & allowed:
                yield f"{where(module, line)}: {home} must not import {target}: {reason}"


def test_imports_go_downhill_only() -> None:
    check(forbidden_imports())


def test_no_module_imports_in_a_circle() -> None:
    graph = {
        module: {target for target, _, _ in imports(module) if target in sources() and target != module}
        for module in sources()
    }
    graphlib.TopologicalSorter(graph).prepare()


def private_imports() -> Iterator[str]:
    for module in sources():
        for target, line, name in imports(module):
            if target.startswith("buckia") and name and name.startswith("_") and name not in ("__version__", "_gear"):
                yield f"{where(module, line)}: {name} is private to {target}"


def test_private_names_stay_in_their_module() -> None:
    check(private_imports())


def impurities() -> Iterator[str]:
    for module in sources():
        if part(module) != "core":
            continue
        for target, line, _ in imports(module):
            if target.split(".")[0] in IMPURE:
                yield f"{where(module, line)}: core must not import {target}"
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                yield f"{where(module, node.lineno)}: core must not call {node.func.id}()"


def test_core_is_pure() -> None:
    check(impurities())


def oversized() -> Iterator[str]:
    for module, path in sources().items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > FILE_LINES_MAX:
            yield f"{where(module, 1)}: {lines} lines; a folder of the same name has room"
        for function in functions(module):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{where(module, function.lineno)}: {function.name} has {length} lines"
            arguments = function.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            if len([name for name in names if name not in ("self", "cls")]) > PARAMETERS_MAX:
                yield f"{where(module, function.lineno)}: {function.name} has more than {PARAMETERS_MAX} parameters"


# click hands every option of a command to its function as a parameter: their number is the command's, not the code's.
CLICK_DECORATORS = {"command", "group"}


def is_command(function: Function) -> bool:
    called = (node.func for node in function.decorator_list if isinstance(node, ast.Call))
    return any(isinstance(f, ast.Attribute) and f.attr in CLICK_DECORATORS for f in called)


def test_files_functions_and_signatures_stay_small() -> None:
    commands = {
        f"{where(module, function.lineno)}: {function.name} has more than {PARAMETERS_MAX} parameters"
        for module in sources()
        if part(module) == "cli"
        for function in functions(module)
        if is_command(function)
    }
    check(problem for problem in oversized() if problem not in commands)


def undocumented() -> Iterator[str]:
    for module in sources():
        if not ast.get_docstring(tree(module)):
            yield f"{where(module, 1)}: the module has no docstring"
        queue: list[ast.Module | ast.ClassDef] = [tree(module)]
        while queue:
            for node in queue.pop().body:
                if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                    continue
                inherits = any(
                    isinstance(d, ast.Name) and d.id in ("override", "overload") for d in node.decorator_list
                )
                setter = any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in node.decorator_list)
                if not ast.get_docstring(node) and not inherits and not setter:
                    yield f"{where(module, node.lineno)}: {node.name} is public and has no docstring"
                if isinstance(node, ast.ClassDef):
                    queue.append(node)


def test_everything_public_has_a_docstring() -> None:
    check(undocumented())


def does_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in body
    )


def is_everything(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("Exception", "BaseException")


def swallowed() -> Iterator[str]:
    for module in sources():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ExceptHandler):
                if does_nothing(node.body):
                    yield f"{where(module, node.lineno)}: the handler does nothing with the error"
                if node.type is None:
                    yield f"{where(module, node.lineno)}: the handler does not say what it expects"
            elif (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in ("suppress", "contextlib.suppress")
                and any(is_everything(argument) for argument in node.args)
            ):
                yield f"{where(module, node.lineno)}: suppresses every error"


def test_no_error_is_swallowed() -> None:
    check(swallowed())


def test_the_public_names_are_there_and_are_all() -> None:
    package = import_module("buckia")
    names = list(package.__all__)
    assert names == sorted(set(names))
    assert {"BuckiaClient", "BuckiaConfig", "BucketConfig", "SyncResult", "Conflict", "BuckiaError"} <= set(names)
    assert not [name for name in names if name != "__version__" and not getattr(package, name).__doc__]
    errors = import_module("buckia.errors")
    public_errors = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert public_errors <= set(names)


def test_a_module_that_lists_its_names_has_them() -> None:
    for module in sources():
        if any(isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__" for n in tree(module).body):
            loaded = import_module(module)
            assert not [name for name in loaded.__all__ if not hasattr(loaded, name)], module


@pytest.mark.parametrize(
    "module",
    ["buckia", "buckia.cli", "buckia.config", "buckia.credentials", "buckia.sync.factory", "buckia.client"],
)
def test_no_provider_sdk_is_imported_before_it_is_used(module: str) -> None:
    script = f"import {module}, sys; print(*[m for m in {PROVIDER_SDKS!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_top_level_holds_what_it_should() -> None:
    card = {"pyproject.toml", "buckia", "tests", "fuzz", "specs", "docs", "LICENSE"}
    custom = {"README.md", "CHANGELOG.md", "NOTICE", "SECURITY.md", "mkdocs.yml", "MANIFEST.in", "setup.py"}
    made_by_tools = {"build", "dist", "site", "htmlcov", "__pycache__"}
    there = {p.name for p in ROOT.iterdir() if not p.name.startswith(".") and p.suffix != ".egg-info"}
    assert there - made_by_tools == card | custom


def test_the_metadata_says_what_was_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "AGPL-3.0-or-later"
    assert (ROOT / "LICENSE").read_bytes().count(b"\n") == 661
    assert set(project["optional-dependencies"]) == {"s3", "linode", "b2", "bunny", "keyring", "all", "dev"}
    assert project["scripts"] == {"buckia": "buckia.cli:main"}
    version = import_module("buckia").__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"[{version}]" in changes or "[Unreleased]" in changes
