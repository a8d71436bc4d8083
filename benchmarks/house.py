"""Figures of the code: nodes a line, wide lines, comments, sizes, and the share of tests.

    python -m benchmarks.house [FOLDER ...]

`./xp test` prints the figures. Folders of other projects may be given for comparison.

A line of code holds a token that is neither a comment nor part of a docstring. Nodes are those of
Python's syntax tree without contexts (Load, Store, Del) and docstrings. Figures of ten projects
that are known for their style, measured by this script: 5.6 to 9.7 nodes a line, 16 to 186
comment lines per 1,000 lines of code.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("experience", "actors", "envs")
MOST_COLUMNS = 100
_SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Figures:
    """Counts of some files."""

    files: int
    longest_file: int
    longest_class: int
    code_lines: int
    nodes: int
    comment_lines: int
    wide_lines: int
    conditionals: int
    comprehensions: int

    @property
    def nodes_a_line(self) -> float:
        return self.nodes / max(self.code_lines, 1)

    def per_thousand(self, count: int) -> float:
        return 1000 * count / max(self.code_lines, 1)


def measure(paths: Iterable[Path]) -> Figures:
    found = [_of(path.read_text(encoding="utf-8")) for path in paths]
    return Figures(
        files=len(found),
        longest_file=max((f.longest_file for f in found), default=0),
        longest_class=max((f.longest_class for f in found), default=0),
        code_lines=sum(f.code_lines for f in found),
        nodes=sum(f.nodes for f in found),
        comment_lines=sum(f.comment_lines for f in found),
        wide_lines=sum(f.wide_lines for f in found),
        conditionals=sum(f.conditionals for f in found),
        comprehensions=sum(f.comprehensions for f in found),
    )


def _of(text: str) -> Figures:
    tree = ast.parse(text)
    lines = text.splitlines()
    docstrings = _docstrings(tree)
    in_docstring = {n for d in docstrings for n in range(d.lineno, (d.end_lineno or d.lineno) + 1)}
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        here = range(token.start[0], token.end[0] + 1)
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in _SILENT:
            code.update(here)
    # One Load or Store stands at every name: they would count each name twice.
    nodes = [n for n in ast.walk(tree) if not isinstance(n, ast.expr_context)]
    classes = [n for n in nodes if isinstance(n, ast.ClassDef)]
    comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    return Figures(
        files=1,
        longest_file=len(lines),
        longest_class=max(((c.end_lineno or 0) - c.lineno + 1 for c in classes), default=0),
        code_lines=len(code - in_docstring),
        nodes=len(nodes) - 2 * len(docstrings),  # a docstring is an Expr and its Constant
        comment_lines=len(comments),
        wide_lines=sum(len(line) > MOST_COLUMNS for line in lines),
        conditionals=sum(isinstance(n, ast.IfExp) for n in nodes),
        comprehensions=sum(isinstance(n, comprehensions) for n in nodes),
    )


def _docstrings(tree: ast.AST) -> list[ast.Expr]:
    """Texts that stand alone: docstrings, and those below an attribute or a constant."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if ".venv" not in path.parts)


def table(folders: dict[str, Path]) -> str:
    """One row for each folder, below the columns' names."""
    head = (
        "folder        files  code lines  nodes/line  wide  comments/1000  if-else/1000  "
        "comprehensions/1000  longest file  longest class"
    )
    rows = [head]
    for name, folder in folders.items():
        f = measure(python_files(folder))
        rows.append(
            f"{name[:13]:13}{f.files:6}{f.code_lines:12}{f.nodes_a_line:12.1f}{f.wide_lines:6}"
            f"{f.per_thousand(f.comment_lines):15.0f}{f.per_thousand(f.conditionals):14.0f}"
            f"{f.per_thousand(f.comprehensions):21.0f}{f.longest_file:14}{f.longest_class:15}"
        )
    return "\n".join(rows)


def main() -> None:
    if len(sys.argv) > 1:
        print(table({Path(name).name: Path(name) for name in sys.argv[1:]}))
        return
    print(table({name: ROOT / name for name in (*ROOMS, "tests", "benchmarks")}))
    source = sum(measure(python_files(ROOT / room)).code_lines for room in ROOMS)
    tests = measure(python_files(ROOT / "tests")).code_lines
    print(f"tests: {tests / source:.2f} of source")


if __name__ == "__main__":
    main()
