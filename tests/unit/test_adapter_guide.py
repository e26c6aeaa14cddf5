"""The adapter of `docs/developer/adapters.md` is whole: installed as a package it syncs, and keeps every promise."""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

from buckia import errors
from buckia.config import BucketConfig
from buckia.errors import AccessDenied, BucketError, BucketNotFound, Transient, UsageError
from buckia.sync import contract
from buckia.sync.base import BaseSync, Capabilities
from buckia.sync.factory import ENTRY_POINTS, BackendConfig
from tests.cli.test_docs import Block, Page, Step, blocks, pattern, squeezed

PAGE = Path(__file__).parents[2] / "docs" / "developer" / "adapters.md"
TEXT = PAGE.read_text(encoding="utf-8")
FILES = dict(re.findall(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))


def installed(directory: Path) -> Path:
    """The package of the page as an installer would leave it: the module, and metadata with its entry points."""
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    (directory / "buckia_sqlite.py").write_text(FILES["buckia_sqlite.py"], encoding="utf-8")
    about = directory / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The module of the page."""
    directory = installed(tmp_path_factory.mktemp("site"))
    spec = importlib.util.spec_from_file_location("buckia_sqlite", directory / "buckia_sqlite.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def fresh(module: ModuleType, tmp_path: Path) -> Callable[[], BaseSync]:
    numbers = count()
    return lambda: module.SqliteSync(str(tmp_path / f"{next(numbers)}.db"), create=True)


@pytest.mark.parametrize("check", contract.ALL, ids=lambda check: check.__name__)
def test_it_keeps_the_promise(check: contract.Check, fresh: Callable[[], BaseSync]) -> None:
    check(fresh)


def test_a_listing_goes_on_from_its_tokens(
    module: ModuleType, fresh: Callable[[], BaseSync], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    keys = ["a", "b/1", "b/2", "b/3", "b/4", "c"]
    with fresh() as bucket:
        for key in keys:
            bucket.put(key, b"x")
        assert [info.key for info in bucket.list()] == keys
        assert [info.key for info in bucket.list("b/")] == keys[1:5]
        page = bucket.list_page("b/")
        assert [info.key for info in page.objects] == ["b/1", "b/2"]
        (token,) = page.more
        assert bucket.list_page("b/", token) == bucket.list_page("b/", token)


def test_its_errors_are_of_the_closed_set(module: ModuleType, tmp_path: Path, fresh: Callable[[], BaseSync]) -> None:
    with module.SqliteSync(str(tmp_path / "none.db")) as missing, pytest.raises(BucketNotFound, match=r"none\.db"):
        missing.connect()
    (tmp_path / "text.db").write_text("no database, but long enough for one" * 100)
    with module.SqliteSync(str(tmp_path / "text.db")) as other, pytest.raises(BucketError, match="not a database"):
        other.connect()
    with fresh() as bucket:
        raised = {
            "SQLITE_BUSY_SNAPSHOT": Transient,
            "SQLITE_READONLY_DIRECTORY": AccessDenied,
            "SQLITE_FULL": errors.QuotaExceeded,
            "SQLITE_IOERR": BucketError,
        }
        for name, kind in raised.items():
            error = sqlite3.OperationalError("words of SQLite")
            error.sqlite_errorname = name
            assert type(bucket._translate(error, "key")) is kind
        assert bucket._translate(sqlite3.ProgrammingError("a bug"), "key") is None


def test_its_file_lies_where_the_configuration_does(module: ModuleType, tmp_path: Path) -> None:
    """Commands are run in other directories, too, and are to find the same bucket."""
    entry = BucketConfig(provider="sqlite", bucket_name="file.db").placed("b", tmp_path)
    with module.make(BackendConfig(**entry.backend())) as bucket:
        assert bucket.location == f"sqlite:{tmp_path / 'file.db'}"


def test_it_refuses_settings_that_it_does_not_know(module: ModuleType) -> None:
    with pytest.raises(UsageError, match="no setting creat"):
        module.make(BackendConfig("sqlite", "file.db", settings={"creat": True}))


def test_the_page_names_all_that_an_author_has_to_know() -> None:
    missing = [field.name for field in fields(Capabilities) if f"`{field.name}`" not in TEXT]
    missing += [name for name in sorted(BaseSync.__abstractmethods__) if f"`{name}(" not in TEXT]
    missing += [
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, BucketError | errors.AuthenticationError)
        if f"| `{name}` |" not in TEXT
    ]
    assert not missing
    assert ENTRY_POINTS in tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]


@pytest.fixture
def shell(tmp_path: Path) -> Page:
    """A shell in which the package is installed, and nothing else is."""
    (tmp_path / "site").mkdir()
    shell = Page(tmp_path)
    shell.environment["PYTHONPATH"] += os.pathsep + str(installed(tmp_path / "site"))
    return shell


@pytest.mark.slow
def test_the_page_does_what_it_shows(shell: Page) -> None:
    shown = [block for block in blocks(PAGE) if block.language == "console"]
    assert shown
    for block in shown:
        for step in block.steps():
            code, printed = shell.run(block, step)
            assert code == step.code, printed
            if step.output:
                assert pattern(step.output).fullmatch(squeezed(printed)), printed
    assert (shell.work / "notes.db").stat().st_size > 0


@pytest.mark.slow
def test_the_tests_of_the_page_pass(shell: Page) -> None:
    (shell.work / "test_contract.py").write_text(FILES["test_contract.py"], encoding="utf-8")
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider test_contract.py"
    code, printed = shell.run(Block("console", command, 0, True), Step(command, 0))
    assert code == 0, printed
    assert f"{len(contract.ALL)} passed" in printed
