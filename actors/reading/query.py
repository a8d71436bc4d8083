"""`xp query`: SQL over a run's committed rows, printed; the tables stand in experience/shards/sql.py."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path

import duckdb

from experience.command.output import emit
from experience.errors import ConfigError
from experience.shards.sql import EPISODES, connect, literal
from experience.text.strict_json import dumps

__all__ = ["EPISODES", "connect", "literal", "run_query"]

_HINT = (
    'the tables are steps, imagined and episodes; their columns: ./xp query latest "describe steps"'
)


def run_query(tables: Mapping[str, Path], sql: str, as_json: bool, *, checked: bool = True) -> None:
    """Prints the answer as a table, or as one JSON object a row.

    With `checked` False, sealed files are not verified against their SHA-256, and a line says so.
    Raises ConfigError for SQL that DuckDB refuses, ShardError if a byte of the store is wrong.
    """
    if not checked:
        print("unchecked: sealed files were not held against their SHA-256", file=sys.stderr)
    connection = connect(tables, checked=checked)
    try:
        answer = connection.sql(sql)
        if answer is None:
            return
        if as_json:
            for row in answer.fetchall():
                emit(dumps(dict(zip(answer.columns, row, strict=True)), default=_plain))
        else:
            # DuckDB prints a table itself, past the redactor: it is caught and emitted.
            with contextlib.redirect_stdout(io.StringIO()) as table:
                answer.show(max_width=200, max_rows=1000)
            emit(table.getvalue(), end="")
    except duckdb.Error as error:
        raise ConfigError(f"the query failed: {error}", _HINT) from error


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
