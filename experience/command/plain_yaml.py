"""Plain YAML as nodes with places, bounded: the one reader of YAML that may come from a stranger.

At most 64 deep, 100 aliases, 20,000 values once aliases are written out; no tags, no whole number
beyond 64 bits, no NUL.

Scalars are read by the core schema of YAML 1.2 (spec 1.2.2, section 10.3.2), so a value is what
JSON would make of it: `1e-5` is a number, `0o10` is 8 and `010` is 10; `NO`, `yes`, `12:30`,
`1_000` and `2026-01-01` are texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from experience.command.secret_names import shown
from experience.errors import ConfigError
from experience.shards.redaction.redact import Redactor

_MOST_DEPTH, _MOST_ALIASES, _MOST_NODES = 64, 100, 20_000
_MOST_PROBLEMS = 100
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    word: value
    for value, words in ((True, ("true", "True", "TRUE")), (False, ("false", "False", "FALSE")))
    for word in words
}
_INTEGERS = (
    (10, re.compile(r"[-+]?[0-9]+")),
    (8, re.compile(r"0o[0-7]+")),
    (16, re.compile(r"0x[0-9a-fA-F]+")),
)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass
class Node:
    """A YAML value with where it stands."""

    value: Any  # scalar, list[Node] or dict[str, Node]
    place: str
    appends: bool = False
    is_path: bool = False
    """Whether it is a mapping that an override's key, `a.b`, wrote: of one key or one number of an
    item."""


@dataclass
class Problems:
    found: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    """Values that no message may hold."""

    def add(self, place: str, what: str, hint: str = "") -> None:
        """Notes one more problem. Raises ConfigError with all problems once there are too many."""
        self.found.append(f"error: {place}\n  {what}" + (f"\n  {hint}" if hint else ""))
        if len(self.found) >= _MOST_PROBLEMS:
            raise self.error()

    def hide(self, secret: str) -> None:
        """From now on no message holds `secret`; two letters are none, and hidden they would leave
        nothing to read."""
        if len(secret.strip()) > 2:
            self.secrets.add(secret)

    def shown(self, value: Any) -> str:
        """What a message may say of `value`: 80 characters of a scalar that holds no secret."""
        if isinstance(value, dict | list):
            return "a list" if isinstance(value, list) else "a mapping"
        said = str(value)
        if any(
            secret in said for secret in self.secrets
        ):  # first of all: a part that is cut off would not be found
            return "'***'"
        said = repr(shown(value)) if isinstance(value, str) else repr(value)
        return said if len(said) < 80 else said[:77] + "..."

    def error(self) -> ConfigError:
        text = Redactor.current().text("\n".join(self.found))
        count = len(self.found)
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return ConfigError(
            f"{text}\n{count} problem{'s' if count != 1 else ''}, nothing was started (exit 2)"
        )


def read_value(text: str, place: str) -> Any:
    """A YAML value by itself, as plain Python. Raises ConfigError."""
    problems = Problems()
    node = compose(text, place, problems, only=place)
    if problems.found or node is None:
        raise problems.error()
    return plain(node)


def write(value: Any) -> str:
    """Plain Python as YAML that `read_file`, and any YAML 1.1 reader, reads back unchanged."""
    return str(yaml.dump(value, Dumper=_Writer, sort_keys=False))


class _Writer(yaml.SafeDumper):
    """Puts quotes around every text that YAML 1.1 or 1.2 would take for something else."""


_Writer.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789")
)
_Writer.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^(?:0o[0-7]+|[-+]?[0-9]+)$"), list("-+0123456789")
)


def read_node(value: Any, place: str) -> Node:
    """Plain Python as nodes that all stand at `place`."""
    if isinstance(value, dict):
        return Node({key: read_node(inner, place) for key, inner in value.items()}, place)
    return Node(
        [read_node(inner, place) for inner in value] if isinstance(value, list) else value, place
    )


def plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {k: plain(v) for k, v in node.value.items()}
    return [plain(v) for v in node.value] if isinstance(node.value, list) else node.value


def compose(text: str, path: str, problems: Problems, only: str = "") -> Node | None:
    """`text` as nodes placed in `path`, or all placed at `only`.

    Returns None, and notes a problem, if the text is not plain YAML.
    """

    def where(mark: Any) -> str:
        return only or (f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path)

    try:
        for event, problem in _too_much(text):
            problems.add(where(event.start_mark), problem)
            return None
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        why = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        problems.add(where(getattr(error, "problem_mark", None)), f"not valid YAML: {why}")
        return None
    except (
        ValueError,
        OverflowError,
    ):  # "\\U00110000": the scanner makes a character of any number
        problems.add(only or path, "not valid YAML: an escape that is no character")
        return None
    if root is None:
        return Node(None if only else {}, only or path)
    try:
        return _Builder(where, problems).build(root)
    except _TooMany:
        problems.add(
            where(root.start_mark),
            f"more than {_MOST_NODES} values once its aliases are written out",
        )
        return None


def _too_much(text: str) -> Iterator[tuple[yaml.Event, str]]:
    """(event, what is wrong) where a text exceeds the bounds.

    Parsing is lazy, so a hostile text is refused before its values take memory.
    """
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > _MOST_DEPTH:
            yield event, "nested too deeply"
        elif aliases > _MOST_ALIASES:
            yield event, f"more than {_MOST_ALIASES} aliases"
        elif getattr(event, "tag", None) is not None:
            yield event, "tags are not taken: not a plain value"


class _TooMany(Exception):
    pass


class _Builder:
    def __init__(self, where: Any, problems: Problems) -> None:
        self._where = where
        self._problems = problems
        self._count = 0

    def build(self, node: yaml.Node, depth: int = 0) -> Node:
        self._count += 1
        if (
            self._count > _MOST_NODES or depth > _MOST_DEPTH
        ):  # an alias may lead back to where it stands
            raise _TooMany
        place = self._where(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, depth), place)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.build(n, depth + 1) for n in node.value], place)
        assert isinstance(node, yaml.ScalarNode)
        try:
            return Node(_scalar(node.value) if node.style is None else _text(node.value), place)
        except ValueError as error:
            self._problems.add(place, f"not a plain value: {error}")
            return Node(None, place)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        built: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = self._where(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.add(place, "a key is a word, not a list or a mapping")
                continue
            key = str(key_node.value)
            if key in built:
                self._problems.add(
                    place,
                    f"{key}: duplicate key (first set at {built[key].place})",
                    "keep one of them",
                )
                continue
            child = self.build(value_node, depth + 1)
            built[key] = Node(child.value, place)
        return built


def _scalar(text: str) -> Any:
    """The value of a scalar without quotes.

    Raises ValueError for a number that is too long or too large.
    """
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    for base, form in _INTEGERS:
        if form.fullmatch(text):
            if len(text) > 80 or (number := int(text, base)).bit_length() > 63:
                raise ValueError("a whole number beyond 64 bits")
            return number
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if _FLOAT.fullmatch(text):
        real = float(text)
        if math.isinf(real):
            raise ValueError(f"{text[:40]} is too large for a number; .inf is infinity")
        return real
    return _text(text)


def _text(text: str) -> str:
    """`text`, which can be written to any file. Raises ValueError where it cannot."""
    if not text.isprintable() and ("\0" in text or any("\ud800" <= c <= "\udfff" for c in text)):
        raise ValueError("a text with a NUL, or with bytes that are not UTF-8")
    return text
