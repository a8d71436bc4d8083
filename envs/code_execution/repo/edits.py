"""Edits of one line: the faults that are put into a module, and what an agent may write.

An agent's edit may use only names that the file already has, and no imports, strings or underscored
names. The tests run in one process with the code, and nothing else keeps the code from writing
their report. A fault is made only where an agent may write both the line and its mend.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from envs.code_execution.repo.package import source

MOST_CHARACTERS = 200
_CHANGES: tuple[tuple[type, str, str], ...] = (
    (ast.Lt, "<", "<="),
    (ast.LtE, "<=", "<"),
    (ast.Gt, ">", ">="),
    (ast.GtE, ">=", ">"),
    (ast.Eq, "==", "!="),
    (ast.NotEq, "!=", "=="),
    (ast.In, " in ", " not in "),
    (ast.NotIn, " not in ", " in "),
    (ast.Is, " is ", " is not "),
    (ast.IsNot, " is not ", " is "),
    (ast.Add, "+", "-"),
    (ast.Sub, "-", "+"),
    (ast.Mult, "*", "+"),
    (ast.And, " and ", " or "),
    (ast.Or, " or ", " and "),
)
_KEYWORDS = {"True", "False", "None", "not", "and", "or", "in", "is"}
_WORD = r"[A-Za-z_]\w*"


@dataclass(frozen=True)
class Fault:
    """One changed line of a module: its number (from 1), and what stands there now."""

    module: str
    line: int
    text: str

    def lines(self) -> list[str]:
        """The whole module with the fault."""
        lines = list(source(self.module))
        lines[self.line - 1] = self.text
        return lines


@dataclass(frozen=True)
class _Replacement:
    """`new` for the first `old` of a line, between the columns `start` and `end`."""

    line: int
    start: int
    end: int
    old: str
    new: str


@lru_cache(maxsize=64)
def faults(module: str) -> tuple[Fault, ...]:
    """Every change of one operator or small constant, in the order of the file.

    Docstrings are left alone.
    """
    lines = source(module)
    found = []
    for node in ast.walk(ast.parse("\n".join(lines))):
        for change in _replacements(node, lines):
            text = lines[change.line - 1]
            where = text.find(change.old, change.start, change.end)
            if where >= 0 and _may_be_written(text, lines):
                changed = text[:where] + change.new + text[where + len(change.old) :]
                found.append(Fault(module, change.line, changed))
    in_order = sorted(found, key=lambda fault: (fault.line, fault.text))
    return tuple(dict.fromkeys(in_order))


def _replacements(node: ast.AST, lines: Sequence[str]) -> Iterator[_Replacement]:
    if isinstance(node, ast.Constant):
        if type(node.value) in (int, bool) and node.lineno == node.end_lineno:
            old = lines[node.lineno - 1][node.col_offset : node.end_col_offset]
            yield _Replacement(
                node.lineno, node.col_offset, node.end_col_offset or 0, old, _another(node.value)
            )
        return
    for operator, left, right in _operators(node):
        if left.end_lineno != right.lineno:
            continue
        for kind, old, new in _CHANGES:
            if type(operator) is kind:
                start = left.end_col_offset or 0
                yield _Replacement(left.end_lineno or 0, start, right.col_offset, old, new)


def _another(value: object) -> str:
    if isinstance(value, bool):
        return str(not value)
    return str(int(str(value)) + 1)


def _operators(node: ast.AST) -> list[tuple[ast.AST, ast.expr, ast.expr]]:
    """The operators of an expression, each with the operands on its left and right."""
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        return list(zip(node.ops, operands, node.comparators, strict=False))
    if isinstance(node, ast.BinOp):
        return [(node.op, node.left, node.right)]
    if isinstance(node, ast.BoolOp):
        pairs = zip(node.values, node.values[1:], strict=False)
        return [(node.op, left, right) for left, right in pairs]
    return []


def _may_be_written(line: str, lines: Sequence[str]) -> bool:
    """Whether an agent could write `line` if it were not there: else no agent could mend it."""
    try:
        check_edit(line.strip(), "\n".join(lines), "\n".join(lines))
    except ValueError:
        return False
    return True


def check_edit(text: str, before: str, after: str) -> None:
    """Raises ValueError for a line `text` that an agent may not write.

    That is a line with words that the file `before` does not have, or one that makes the file
    `after` no Python.
    """
    if not text.isascii():
        raise ValueError("only ASCII: Python reads many a letter for another")
    if "_" in "".join(re.findall(r"\b_\w*", text)) or re.search(
        r"[\"'#;\\]|\bimport\b|\bexec\b|\beval\b", text
    ):
        raise ValueError("no imports, strings, comments or underscored names")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"at most {MOST_CHARACTERS} characters")
    known = set(re.findall(_WORD, before)) | _KEYWORDS
    unknown = _words(text) - known
    if unknown:
        raise ValueError(f"the file has no {min(unknown)}")
    try:
        ast.parse(after)
    except SyntaxError as wrong:
        raise ValueError(f"line {wrong.lineno}: {wrong.msg}") from None
    except (RecursionError, MemoryError):
        # Python's own parser, which is not caged, gives up on deep nesting.
        raise ValueError("that is nested too deeply") from None


def changed(before: Sequence[str], after: str) -> list[str]:
    """The lines of a file that somebody changed freely, if each change is one that `edit` allows.

    Raises ValueError for a file with more or fewer lines, and as `check_edit` does.
    """
    lines = after.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    if len(lines) != len(before):
        raise ValueError(f"the file had {len(before)} lines, and has {len(lines)}")
    for number, (old, new) in enumerate(zip(before, lines, strict=True), 1):
        if old != new:
            if old[: len(old) - len(old.lstrip())] != new[: len(new) - len(new.lstrip())]:
                raise ValueError(f"line {number}: its indentation was changed")
            try:
                check_edit(new.strip(), "\n".join(before), "\n".join(lines))
            except ValueError as refused:
                raise ValueError(f"line {number}: {refused}") from None
    return lines


def _words(text: str) -> set[str]:
    """The names and keywords of a line.

    A line within an expression over several lines may be no Python by itself; then its words are
    taken by their letters.
    """
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, IndentationError):
        return set(re.findall(_WORD, text))
    return {token.string for token in tokens if token.type == tokenize.NAME}
