"""Chosen rows of stores, as they are known now: Arrow, Polars, pandas or a DuckDB relation.

Signals and rewards are those of the newest amendments. Nothing is read before it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from experience.errors import ConfigError, MissingPartError
from experience.reward import RewardModel, context_of
from experience.shards.sql import connect, literal, quoted
from experience.shards.storage.disk import REAL, Disk
from experience.step import FAILED
from experience.text.near import did_you_mean

Table = pa.Table
_REWARDED = pa.schema(
    [
        ("run", pa.string()),
        ("stream_id", pa.binary()),
        ("t", pa.int64()),
        ("reward", pa.float64()),
    ]
)
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Store:
    """One store: `name` stands in the column `run`, and `disk` reads what is below `path`."""

    name: str
    path: Path
    disk: Disk = REAL

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, and not in an object store."""
        return self.disk is REAL


class Steps:
    """Rows that were chosen; each method reads them. The order of rows is not defined.

    A row is one turn of a stream: docs/reference-columns.md lists the columns. Beside them are
    `run` (the run's name), and for each signal a float64 column `signal.NAME`, null where a row has
    none. Ids (`stream_id`, `work_id`) are binary, 16 bytes.
    """

    def __init__(self, rows: duckdb.DuckDBPyRelation) -> None:
        self._rows = rows

    @property
    def columns(self) -> list[str]:
        return list(self._rows.columns)

    def __len__(self) -> int:
        ((count,),) = self._rows.count("*").fetchall()
        return int(count)

    def relation(self) -> duckdb.DuckDBPyRelation:
        """For SQL: `steps.relation().query("rows", "select env_id, avg(reward) from rows …")`."""
        return self._rows

    def arrow(self) -> pa.Table:
        """All rows, in memory."""
        return pa.Table.from_batches(self.batches(), self._schema())

    def batches(self, rows: int = _ROWS_AT_ONCE) -> Iterator[pa.RecordBatch]:
        """The rows, at most `rows` at a time: for more than fits into memory."""
        yield from self._rows.to_arrow_reader(rows)

    def polars(self) -> Any:
        """A `polars.DataFrame`. Raises MissingPartError if Polars is not installed."""
        try:
            import polars
        except ImportError as error:
            raise _missing("polars", error) from error
        return polars.from_arrow(self.arrow())

    def pandas(self) -> Any:
        """A `pandas.DataFrame`. Raises MissingPartError if pandas is not installed."""
        try:
            return self.arrow().to_pandas()
        except ImportError as error:
            raise _missing("pandas", error) from error

    def _schema(self) -> pa.Schema:
        return self._rows.limit(0).to_arrow_table().schema


def select(
    stores: Sequence[Store],
    columns: Sequence[str] = (),
    where: str = "",
    reward: RewardModel | None = None,
) -> Steps:
    """The rows of all `stores` for which the SQL condition `where` holds.

    `columns`: some of them; empty: all. `reward`: rewards are computed by it from the signals as
    they are known now; None: each row's newest. Raises ConfigError for an unknown column and a
    condition that DuckDB refuses, ShardError where a byte of a store is wrong.
    """
    connection = connect(
        {f"run {number}": store.path for number, store in enumerate(stores)}, disk=stores[0].disk
    )
    named = (
        f"select {literal(store.name)} as run, * from {quoted(f'run {number}')}"
        for number, store in enumerate(stores)
    )
    connection.execute(f"create view steps as {' union all by name '.join(named)}")
    rows = connection.view("steps")
    if reward is not None:
        _reward_again(connection, reward)
        rows = connection.view("rewarded_steps")
    return Steps(chosen(rows, columns, where))


def choose(
    tables: Sequence[tuple[str, pa.Table]], where: str, order: str, limit: int | None, offset: int
) -> pa.Table:
    """The episodes of `tables` (name of the run, its table) for which the condition holds.

    They are in the SQL order `order`, or in that of the tables; `run` and `key` come first. Raises
    ConfigError for SQL that DuckDB refuses.
    """
    connection = duckdb.connect()
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    selects = []
    for number, (name, table) in enumerate(tables):
        connection.register(f"episodes {number}", table)
        key = "lower(hex(stream_id)) || ':' || first_t as key"
        place = quoted(f"episodes {number}")
        selects.append(f"select {key}, {literal(name)} as run, * from {place}")
    rows = chosen(connection.sql(" union all ".join(selects)), (), where)
    with refused("order", rows.columns):
        rows = rows.order(order) if order else rows
        rows = rows.limit(2**62 if limit is None else limit, offset)
        return rows.to_arrow_table()


def chosen(
    rows: duckdb.DuckDBPyRelation, columns: Sequence[str], where: str
) -> duckdb.DuckDBPyRelation:
    """Raises ConfigError for an unknown column, and a condition that DuckDB refuses."""
    known = list(rows.columns)
    for column in columns:
        if column not in known:
            near = did_you_mean(column, known)
            raise ConfigError(
                f"no column is called {column!r}", f"{near} there are: {', '.join(known)}".lstrip()
            )
    with refused("where", known):
        rows = rows.filter(where) if where else rows
    return rows.project(", ".join(map(quoted, columns))) if columns else rows


@contextmanager
def refused(what: str, columns: Sequence[str]) -> Iterator[None]:
    """Raises ConfigError, which names the columns, for SQL that DuckDB refuses."""
    try:
        yield
    except duckdb.Error as error:
        raise ConfigError(
            f"{what}: {str(error).strip()}",
            f"it is an SQL expression over {', '.join(columns)}",
        ) from error


def _reward_again(connection: duckdb.DuckDBPyConnection, model: RewardModel) -> None:
    """Makes the view `rewarded_steps`: the rows of `steps`, their rewards computed by `model`.

    As `reward_again` in amend.py, a failure of the machinery has no reward.
    """
    answered = connection.sql(
        "select run, stream_id, t, env_id, step_in_episode, ending, task_id, reward, signals "
        "from steps where action_text is not null"
    )
    found = [_rewarded(batch, model) for batch in answered.to_arrow_reader(_ROWS_AT_ONCE)]
    connection.register("rewarded", pa.Table.from_batches(found, _REWARDED))
    version = f"case when w.t is null then s.reward_version else {literal(model.version)} end"
    connection.execute(
        f"create view rewarded_steps as select s.* replace (w.reward as reward, {version} as "
        "reward_version) from steps s left join rewarded w on s.run = w.run and "
        "s.stream_id = w.stream_id and s.t = w.t"
    )


def _rewarded(batch: pa.RecordBatch, model: RewardModel) -> pa.RecordBatch:
    rewards = [_reward(row, model) for row in batch.to_pylist()]
    columns = [batch.column(name) for name in ("run", "stream_id", "t")]
    return pa.RecordBatch.from_arrays([*columns, pa.array(rewards, pa.float64())], schema=_REWARDED)


def _reward(row: dict[str, Any], model: RewardModel) -> float | None:
    if row["ending"] in FAILED or (row["reward"] is None and not row["signals"]):
        return None
    values = {signal["name"]: signal["value"] for signal in row["signals"] or ()}
    context = context_of(row["step_in_episode"] or 0, row["ending"], row["task_id"])
    return model.of_values(row["env_id"], values, context)


def _missing(package: str, error: ImportError) -> MissingPartError:
    return MissingPartError(f"{package} is not installed: {error}", f"pip install {package}")
