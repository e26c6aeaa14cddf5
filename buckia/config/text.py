"""Configuration text (YAML, TOML, JSON) to plain values, with the line of every key.

YAML is read as people mean it: only ``true``, ``false`` and nothing are special, all other plain words stay text
(``no`` is Norway, ``0123`` an id) until the schema asks for a number. Keys that stand twice are refused, and aliases
cannot be used to blow up memory.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from buckia.config.words import KeyPath, PlainWord
from buckia.errors import ConfigError

TextFormat = Literal["yaml", "toml", "json"]

TEXT_BYTES_MAX = 1 << 20
_VALUES_MAX = 100_000
_DEPTH_MAX = 32
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_TAGS = frozenset(
    _TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "seq", "map")
)


@dataclass(slots=True)
class Document:
    """Values, and the line (from 1) of each key and list item."""

    name: str
    values: Mapping[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """``name:line`` of a key, or of the nearest one around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name


def format_of(name: str, text: str) -> TextFormat:
    """The format of a file by its name; without a telling suffix JSON if it begins like it, else YAML."""
    suffix = name.rpartition(".")[2].lower()
    if suffix == "toml":
        return "toml"
    if suffix == "json" or (suffix not in ("yaml", "yml") and text.lstrip("\ufeff \t\r\n").startswith("{")):
        return "json"
    return "yaml"


def parse(text: str, *, name: str, text_format: TextFormat | None = None) -> Document:
    """Read configuration text; ``name`` is for messages. Raises ConfigError with file and line, and nothing else."""
    text = text.removeprefix("\ufeff")
    if len(text) > TEXT_BYTES_MAX:
        raise ConfigError(f"{name}: the configuration is larger than {TEXT_BYTES_MAX >> 20} MiB.")
    if not _is_unicode(text):
        raise ConfigError(f"{name}: the configuration is not valid Unicode.")
    try:
        document = _READERS[text_format or format_of(name, text)](text, name)
    except RecursionError:
        raise ConfigError(f"{name}: the configuration is nested too deeply.") from None
    if not isinstance(document.values, Mapping):
        raise ConfigError(f"{name}: the configuration must be a mapping of bucket names to settings.")
    return document


def _is_unicode(text: str) -> bool:
    """Whether text holds no lone surrogates, which escapes can make and no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Loader(yaml.SafeLoader):
    """Gives up where brackets are nested too deeply, before it looks through all of them for every one."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level > _DEPTH_MAX:
            raise yaml.MarkedYAMLError(problem="it is nested too deeply", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(token)


def _yaml(text: str, name: str) -> Document:
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{line}: no valid YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        reason = getattr(error, "reason", "it cannot be read")
        raise ConfigError(f"{name}: no valid YAML: {reason}.") from None
    if node is None:
        return Document(name, {})
    reader = _YamlReader(name)
    return Document(name, reader.value(node, ()), reader.lines)


class _YamlReader:
    """Turns a YAML node graph into values. Aliases are followed, against a budget."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[KeyPath, int] = {}
        self._left = _VALUES_MAX

    def fail(self, node: yaml.Node, problem: str) -> ConfigError:
        return ConfigError(f"{self.name}:{node.start_mark.line + 1}: {problem}.")

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        if node.tag not in _TAGS:
            raise self.fail(node, f"the tag '{node.tag.removeprefix(_TAG)}' is not allowed")
        self._left -= 1
        if self._left < 0 or len(path) > _DEPTH_MAX:
            raise self.fail(node, "the configuration holds too many values or is nested too deeply")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
        return self.mapping(node, path)

    def scalar(self, node: yaml.ScalarNode) -> str | bool | None:
        text = str(node.value)
        if not _is_unicode(text):
            raise self.fail(node, "an escape stands for no character")
        if node.style is not None or node.tag == f"{_TAG}str":
            return text
        if text in ("", "~", "null", "Null", "NULL"):
            return None
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        return PlainWord(text)

    def mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.fail(key_node, "a key must be text")
            key = str(key_node.value)
            if not _is_unicode(key):
                raise self.fail(key_node, "an escape stands for no character")
            if key in result:
                before = self.lines.get((*path, key))
                raise self.fail(key_node, f"the key '{key}' stands twice (first in line {before})")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, (*path, key))
        for other in merged:
            if not isinstance(other, yaml.MappingNode):
                raise self.fail(other, "'<<' needs a mapping")
            for key, value in self.mapping(other, (*path, "<<")).items():
                result.setdefault(key, value)
        return result


def _toml(text: str, name: str) -> Document:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"^(.*) \(at line (\d+), column \d+\)$", str(error))
        problem, line = (match.group(1), f":{match.group(2)}") if match else (str(error), "")
        raise ConfigError(f"{name}{line}: no valid TOML: {problem}.") from None
    except ValueError:
        raise ConfigError(f"{name}: no valid TOML: a number is too long.") from None
    return Document(name, values, _toml_lines(text))


_TOML_KEY_PART = re.compile(r"""[A-Za-z0-9_.\s-]+|"[^"]*"|'[^']*'""")


def _toml_lines(text: str) -> dict[KeyPath, int]:
    """Lines of headers and keys as they usually stand; tomllib does not tell, and a miss only costs precision."""
    lines: dict[KeyPath, int] = {}
    section: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+([^\[\]]+)\]+\s*(#.*)?$", line):
            section = _toml_key(header.group(1))
            lines.setdefault(section, number)
            continue
        end = 0
        while part := _TOML_KEY_PART.match(line, end):
            end = part.end()
        if line[end : end + 1] == "=":
            lines.setdefault((*section, *_toml_key(line[:end])), number)
    return lines


def _toml_key(text: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""", text))


def _json(text: str, name: str) -> Document:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}:{error.lineno}: no valid JSON: {error.msg}.") from None
    except ValueError:
        raise ConfigError(f"{name}: no valid JSON: a number is too long.") from None
    return Document(name, values, _json_lines(text, name))


_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},\n]|[^\s\[\]{},:"]+')


def _json_lines(text: str, name: str) -> dict[KeyPath, int]:
    """Lines of keys and list items of valid JSON. Raises ConfigError for keys that stand twice."""
    lines: dict[KeyPath, int] = {}
    path: list[str | int] = []
    line, left, awaits_key = 1, _VALUES_MAX, False
    for match in _JSON_TOKEN.finditer(text):
        token = match.group()
        if token == "\n":
            line += 1
        elif token in "]}":
            path.pop()
            awaits_key = False
        elif token == ",":
            # Of an object the last part of the path is the key that the next one takes the place of.
            awaits_key = not isinstance(path[-1], int)
            if isinstance(path[-1], int):
                path[-1] += 1
        elif awaits_key:
            path[-1] = key = json.loads(token)
            if not _is_unicode(key):
                raise ConfigError(f"{name}:{line}: an escape stands for no character.")
            if tuple(path) in lines:
                before = lines[tuple(path)]
                raise ConfigError(f"{name}:{line}: the key '{key}' stands twice (first in line {before}).")
            lines[tuple(path)] = line
            awaits_key = False
        else:
            left -= 1
            if left < 0 or len(path) > _DEPTH_MAX:
                raise ConfigError(f"{name}:{line}: the configuration holds too many values or is nested too deeply.")
            if path and isinstance(path[-1], int):
                lines[tuple(path)] = line
            if token == "{":
                path.append("")
                awaits_key = True
            elif token == "[":
                path.append(0)
            elif token[0] == '"' and not _is_unicode(json.loads(token)):
                raise ConfigError(f"{name}:{line}: an escape stands for no character.")
    return lines


_READERS = {"yaml": _yaml, "toml": _toml, "json": _json}
