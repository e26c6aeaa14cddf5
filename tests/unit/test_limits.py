"""``specs/limits.md`` lists every bound of the format, with the value that the code enforces."""

from __future__ import annotations

import ast
import re
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| `(\w+)\.([\w.]+)` \| ([\d,]+) \| \S", (ROOT / "specs" / "limits.md").read_text(), re.MULTILINE)
MODULES = ("canonical", "chunker", "codec", "content", "directory", "index", "manifest", "merkle", "pack", "record")


def constants(module: str) -> set[str]:
    """The names of the public bounds that a module defines itself."""
    tree = ast.parse((ROOT / "buckia" / "core" / f"{module}.py").read_text())
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if re.fullmatch(r"[A-Z].*_(MAX|MIN)", name)}


@pytest.mark.parametrize(("module", "name", "value"), ROWS, ids=[f"{row[0]}.{row[1]}" for row in ROWS])
def test_the_page_states_what_the_code_enforces(module: str, name: str, value: str) -> None:
    constant = reduce(getattr, name.split("."), import_module(f"buckia.core.{module}"))
    assert f"{constant:,}" == value


@pytest.mark.parametrize("module", MODULES)
def test_the_page_lists_every_bound(module: str) -> None:
    assert constants(module) <= {name for listed, name, _ in ROWS if listed == module}


def test_every_row_of_the_page_is_understood() -> None:
    rows = re.findall(r"^\| `", (ROOT / "specs" / "limits.md").read_text(), re.MULTILINE)
    assert len(rows) == len(ROWS) > 30
