"""What the documentation shows is what happens: commands run and print what it says, references name everything.

A block of `README.md` or a user's page that is marked ``console``, ``sh`` or ``python`` runs, unless the line above it
is ``<!-- not run: REASON -->``. Commands stand behind ``$ `` and go on behind ``> ``; the lines after one are its
output, in which ``...`` stands for any text, and a line of it for any lines. ``# exit code N`` states another exit code
than 0.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
import yaml

from buckia import errors
from buckia.cli import COMMANDS, cli
from buckia.cli.options import common_options
from buckia.config import BucketConfig, BuckiaConfig
from buckia.config.bucket import ALIASES
from buckia.config.options import default_workers

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / "README.md", ROOT / "docs" / "index.md"),
    *(page for part in ("user", "providers") for page in sorted((ROOT / "docs" / part).glob("*.md"))),
]
RUN = ("console", "sh", "python")
NOT_RUN_MAX = 6
SECONDS_MAX = 120
KEPT = ("PATH", "TMPDIR", "COVERAGE_PROCESS_START")
"""Of the environment; a user's settings must not decide what the pages show."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\n\Z")
EXIT_CODE = re.compile(r"# exit code (\d+)$")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


@dataclass
class Step:
    """A command, its exit code and what it should print; no lines: that is not shown."""

    command: str
    line: int
    code: int = 0
    output: list[str] = field(default_factory=list)


@dataclass
class Block:
    """A fenced block: its language, its text, the line of its first line, and whether it runs."""

    language: str
    text: str
    line: int
    runs: bool

    def steps(self) -> list[Step]:
        if self.language == "python":
            return [Step(self.text, self.line)]
        found: list[Step] = []
        for number, line in enumerate(self.text.splitlines(), self.line):
            if line.startswith("$ "):
                code = EXIT_CODE.search(line)
                found.append(Step(line[2:], number, int(code[1]) if code else 0))
            elif line.startswith("> ") and not found[-1].output:
                found[-1].command += f"\n{line[2:]}"
            else:
                found[-1].output.append(line)
        return found


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match[1] in RUN:
            before = text[: match.start()]
            yield Block(match[1], match[2], before.count("\n") + 2, NOT_RUN.search(before) is None)


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.runs]


def pattern(output: list[str]) -> re.Pattern[str]:
    """What printed text must match as a whole; runs of spaces are alike, as columns depend on what is in them."""
    parts = []
    for line in output:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*") + "\n")
    return re.compile("".join(parts))


def squeezed(text: str) -> str:
    return "".join(" ".join(line.split()) + "\n" for line in text.splitlines())


class Page:
    """A shell in an empty directory, with a home, a state and a ``buckia`` of its own."""

    def __init__(self, directory: Path) -> None:
        for name in ("bin", "home", "work"):
            (directory / name).mkdir()
        shim = directory / "bin" / "buckia"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m buckia "$@"\n', encoding="utf-8")
        shim.chmod(0o755)
        self.work = directory / "work"
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.environment = kept | {
            "PATH": f"{directory / 'bin'}{os.pathsep}{kept['PATH']}",
            "HOME": str(directory / "home"),
            "BUCKIA_STATE_DIR": str(directory / "state"),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "LC_ALL": "C.UTF-8",
        }

    def run(self, block: Block, step: Step) -> tuple[int, str]:
        arguments = [sys.executable, "-c", step.command]
        if block.language != "python":
            arguments = ["bash", "-c", f"umask 022; {step.command}"]
        done = subprocess.run(
            arguments,
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: page.stem)
def test_commands_of_the_documentation_do_what_it_says(page: Path, tmp_path: Path) -> None:
    shell = Page(tmp_path)
    for block in runnable(page):
        for step in block.steps():
            code, printed = shell.run(block, step)
            where = f"{page.relative_to(ROOT)}:{step.line}: {step.command}\n{printed}"
            assert code == step.code, where
            shown = "\n".join(step.output)
            if shown:
                assert pattern(step.output).fullmatch(squeezed(printed)), f"{where}--- instead of\n{shown}"


def test_few_commands_are_not_run() -> None:
    left_out = {page: [block for block in blocks(page) if not block.runs] for page in PAGES}
    accounts = {page for page in PAGES if page.parent.name == "providers"}
    assert sum(len(found) for page, found in left_out.items() if page not in accounts) <= NOT_RUN_MAX
    assert all(len(left_out[page]) <= NOT_RUN_MAX for page in accounts), "what needs an account cannot run here"
    assert sum(len(block.steps()) for page in PAGES for block in runnable(page)) > 5 * sum(map(len, left_out.values()))


def test_blocks_that_run_begin_with_a_command() -> None:
    for page in PAGES:
        for block in runnable(page):
            assert block.language == "python" or block.text.startswith("$ "), f"{page.name}:{block.line}"


def section(page: str, title: str) -> str:
    """The text of a section, without that of sections of the same level."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert match is not None, f"There is no section “{title}”."
    return match[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables."""
    table = re.findall(r"^\| *(`.*) *\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in table]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def reference(name: str) -> str:
    return (ROOT / "docs" / "user" / name).read_text(encoding="utf-8")


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield from below(name, command)


def below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for part, each in command.commands.items():
            yield from below(f"{name} {part}", each)


def spellings(command: click.Command) -> set[str]:
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return {spelling for option in options for spelling in (*option.opts, *option.secondary_opts)}


def common() -> set[str]:
    @click.command()
    @common_options
    def nothing() -> None:
        """Only the options that all have."""

    return spellings(nothing)


TRANSFER = {"--limit-up", "--limit-down", "--retries"}


def documented(text: str) -> set[str]:
    return {spelling for row in rows(text) for name in names(row[0]) for spelling in OPTION.findall(name)}


def test_the_reference_names_every_command_and_no_other() -> None:
    titles = re.findall(r"^## buckia (.*)$", reference("cli-reference.md"), re.MULTILINE)
    assert titles == [name for name, _ in commands()]


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_the_reference_names_every_option_and_no_other(name: str) -> None:
    own = spellings(dict(commands())[name]) - common() - TRANSFER
    assert documented(section(reference("cli-reference.md"), f"buckia {name}")) == own


def test_the_reference_names_the_common_options() -> None:
    text = section(reference("cli-reference.md"), "Options of every command")
    assert documented(text) == common() | {"-h", "--help"}


def test_the_reference_names_the_options_of_transfers() -> None:
    text = section(reference("cli-reference.md"), "Options of commands that use a bucket")
    assert documented(text) == TRANSFER
    with_bucket = {name for name, command in commands() if {"--to", "--from"} & spellings(command)}
    assert with_bucket >= {"sync", "status", "restore", "verify"}
    assert {name for name, command in commands() if spellings(command) >= TRANSFER} == with_bucket


def test_the_reference_names_the_values_of_options() -> None:
    for name, command in commands():
        text = section(reference("cli-reference.md"), f"buckia {name}")
        for parameter in command.params:
            if isinstance(parameter.type, click.Choice):
                assert all(f"`{choice}`" in text for choice in parameter.type.choices), f"{name}: {parameter.name}"


def test_the_configuration_page_names_every_key_once_and_no_other() -> None:
    text = section(reference("configuration.md"), "Every key of a bucket entry")
    keys = [name for row in rows(text) for name in names(row[0])]
    assert sorted(keys) == sorted(BucketConfig.model_fields)


def test_the_configuration_page_states_the_defaults() -> None:
    text = section(reference("configuration.md"), "Every key of a bucket entry")
    stated = {names(row[0])[0]: row[2] for row in rows(text) if len(row) == 4}
    assert names(stated["max_workers"]) == [str(default_workers({"provider": name})) for name in ("local", "s3")]
    for key in ("delete_orphaned", "conflict_resolution", "checksum_algorithm"):
        assert names(stated[key]) == [yaml.safe_dump(BucketConfig.model_fields[key].default).split("\n")[0]], key
    required = {key for key, default in stated.items() if default == "required"}
    assert required == {key for key, info in BucketConfig.model_fields.items() if info.is_required()}


def test_the_configuration_page_names_every_alias() -> None:
    text = section(reference("configuration.md"), "Other names for keys")
    assert {names(row[0])[0]: names(row[1])[0] for row in rows(text)} == dict(ALIASES)


def test_the_configuration_page_says_what_is_not_there_yet() -> None:
    text = section(reference("configuration.md"), "Every key of a bucket entry")
    later = {names(row[0])[0] for row in rows(text) if row[-1].startswith("*later*")}
    samples = {"files": {"a": "b"}, "upload_files": {"a": "b"}, "sync_rules": [{"a": "b"}]}
    assert later == set(samples)
    for key, value in samples.items():
        config = BuckiaConfig.from_mapping({"x": {"provider": "local", "bucket_name": "b", key: value}})
        with pytest.raises(Exception, match="not there yet"):
            config["x"].require_supported()


def test_the_readme_and_the_reference_state_the_same_exit_codes() -> None:
    stated = section(reference("cli-reference.md"), "Exit codes").strip()
    assert stated == section((ROOT / "README.md").read_text(encoding="utf-8"), "Exit codes").strip().split("\n\n")[0]
    first = " ".join(re.findall(r"^\|([^|]*)\|", stated, re.MULTILINE))
    codes = {value.exit_code for value in vars(errors).values() if isinstance(value, type)}
    assert {int(code) for code in re.findall(r"\d+", first)} == codes | {0, 143}


def test_every_area_is_proven_by_files_that_exist() -> None:
    text = (ROOT / "tests" / "AREAS.md").read_text(encoding="utf-8")
    areas = re.findall(r"^\| ([A-Z]) [^|]*\|[^|]*\|([^|]*)\|", text, re.MULTILINE)
    assert "".join(letter for letter, _ in areas) == "ABCDEFGHIJKLMNOPQRSTUV"
    missing = [name for _, files in areas for name in names(files) if not (ROOT / "tests" / name).is_file()]
    assert not missing


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, *sorted((ROOT / "docs" / "developer").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
