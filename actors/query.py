"""SQL over what a run holds, by DuckDB, on committed rows only.

`signal(signals, 'done')` is the value that a step's signals hold under that name, null where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import duckdb

from experience.errors import ConfigError
from experience.shards.catalog import Catalog


def run_query(tables: Mapping[str, Path], sql: str, as_json: bool) -> None:
    """Prints the answer: a table, or one JSON object a row. Raises ConfigError for SQL that DuckDB refuses."""
    connection = duckdb.connect()
    connection.execute("set enable_external_access = false")
    for table, directory in tables.items():
        connection.register(table, Catalog(directory).dataset(growing=True))
    names = Catalog(tables["steps"]).signal_names()
    connection.execute("create macro signal(signals, name) as list_filter(signals, lambda s: s.code = "
                       f"list_position([{', '.join(map(repr, names))}]::varchar[], name) - 1)[1].value")
    try:
        answer = connection.sql(sql)
        if answer is None:
            return
        if as_json:
            for row in answer.fetchall():
                print(json.dumps(dict(zip(answer.columns, row, strict=True)), default=_plain))
        else:
            answer.show(max_width=200, max_rows=1000)
    except duckdb.Error as error:
        raise ConfigError(f"the query failed: {error}", "the tables are steps and imagined; their columns: "
                          './xp query latest "describe steps"') from error


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
