"""SQL over a store's committed rows, by DuckDB; each file is checked before it is read.

A signal is addressed by name, whatever code a shard gave it: the column `"signal.<name>"` holds
its value (null if the row has none), and `signal(signals, 'done')` does the same for a name
computed in the query. `signals` itself is a list of structs (code, name, value, evidence). `steps`
and `imagined` show signals, rewards and reward versions as amended; `raw_steps` and `raw_imagined`
show the rows as written. The table `episodes` has a row for each episode of `steps`: its turns, its
return (null if a reward is unknown), its ending (null if a crash cut it off), and whether it is
whole, which means that it is learned from and evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from experience.shards.amend import InForce, in_force
from experience.shards.catalog import SIGNAL, Catalog
from experience.shards.record.schema import PLAIN
from experience.shards.storage.disk import REAL, Disk
from experience.step import FAILED, Boundary

_FAILED = ", ".join(f"'{ending}'" for ending in sorted(FAILED))
EPISODES = f"""
create view episodes as
with marked as (
    select stream_id, t, episode, env_id, split, source, group_id, task_id, seed,
           policy_version, behaviour_id, agent_id, work_id, reward, ending, t_end_ns,
           action_text is null as closing, boundary,
           lag(action_text is null, 1, true) over (partition by stream_id order by t) as first
    from steps),
numbered as (
    select *, sum((first or boundary & {int(Boundary.RESET | Boundary.WORKER_RESTART)} != 0)::int)
                  over (partition by stream_id order by t) as number
    from marked),
ended as (
    select stream_id, min(t) as t, max(t_end_ns) as ended_ns, {
    ", ".join(
        f"arg_min({name}, t) as {name}"
        for name in (
            "episode",
            "env_id",
            "split",
            "source",
            "group_id",
            "task_id",
            "seed",
            "policy_version",
            "behaviour_id",
            "agent_id",
            "work_id",
        )
    )
},
        count(*) filter (not closing) as turns,
        case when count(*) filter (not closing and reward is null) = 0
             then coalesce(sum(reward) filter (not closing), 0) end as total_reward,
        max(ending) filter (closing) as closing_says,
        arg_max(ending, t) filter (not closing) as acted_says
    from numbered group by stream_id, number)
select * exclude (closing_says, acted_says),
    case when closing_says = 'none' then coalesce(acted_says, 'none')
         else closing_says end as ending,
    turns > 0 and closing_says is not null and ending not in ({_FAILED}) as whole
from ended order by stream_id, t
"""
"""The episodes of a store in SQL: their begin, return and ending, as `EpisodeReader` cuts them."""


def connect(
    tables: Mapping[str, Path], *, checked: bool = True, disk: Disk = REAL
) -> duckdb.DuckDBPyConnection:
    """A connection with a view for each of `tables`, and the macro `signal`.

    `tables`: a table's name -> the store whose rows it has. `disk`: an object store, for example
    RemoteDisk. Where a table is called `steps`, there is `episodes` too.
    """
    connection = duckdb.connect()
    connection.execute("set enable_external_access = false")  # no files, no network, no extensions
    connection.execute(
        "set python_enable_replacements = false"
    )  # no variable of this program is a table
    connection.execute(
        "create macro signal(signals, wanted) as "
        "list_filter(signals, lambda s: s.name = wanted)[1].value"
    )
    first = next(iter(tables))
    for table, directory in tables.items():
        if table != first and not directory.is_dir():  # e.g. an imported run has nothing imagined
            for view in (table, f"raw_{table}"):
                connection.execute(
                    f"create view {quoted(view)} as select * from {quoted(first)} where false"
                )
            continue
        groups = Catalog(directory, checked=checked, disk=disk).by_catalogue()
        names = sorted({name for group in groups for name in group})
        selects = []
        for number, (catalogue, rows) in enumerate(groups.items()):
            connection.register(f"{table} {number}", rows)
            selects.append(_select(f"{table} {number}", catalogue, names))
        raw = quoted(f"raw_{table}")
        connection.execute(f"create view {raw} as {' union all '.join(selects)}")
        connection.execute(
            f"create view {quoted(table)} as {_amended(connection, table, raw, in_force(directory, disk), names)}"
        )
    if "steps" in tables:
        connection.execute(EPISODES)
    # Last: the SQL of a user must not open again what was closed above.
    connection.execute("set lock_configuration = true")
    return connection


def _amended(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    raw: str,
    later: InForce,
    names: Sequence[str],
) -> str:
    """SQL of the rows as amended: the latest signals, and each step's last reward and version."""
    if not later.signals.num_rows and not later.rewards.num_rows:
        return f"select * from {raw}"
    connection.register(f"later {table}", later.signals)
    connection.register(f"rewarded {table}", later.rewards)
    changed = [
        "case when l.t is null then r.signals else list_concat(list_filter(r.signals, lambda s: "
        "not list_contains(l.names, s.name)), l.signals) end as signals",
        "case when w.t is null then r.reward else w.reward end as reward",
        "coalesce(w.reward_version, r.reward_version) as reward_version",
    ]
    added = []
    for name in (n for n in later.names if _may_be_aquoted(n, [*{*names, *later.names}])):
        value = f"list_filter(l.signals, lambda s: s.name = {literal(name)})[1].value"
        column = quoted(SIGNAL + name)
        if name in names:
            changed.append(
                f"case when list_contains(l.names, {literal(name)}) then {value} "
                f"else r.{column} end as {column}"
            )
        else:
            added.append(f", {value} as {column}")
    return (
        f"select r.* replace ({', '.join(changed)}){''.join(added)} from {raw} r "
        f"left join {quoted(f'later {table}')} l on r.stream_id = l.stream_id and r.t = l.t "
        f"left join {quoted(f'rewarded {table}')} w on r.stream_id = w.stream_id and r.t = w.t"
    )


def _select(relation: str, catalogue: Sequence[str], names: Sequence[str]) -> str:
    """SQL of the rows of shards that share a catalogue, with a column for each of `names`."""
    known = ", ".join(map(literal, catalogue))
    named = (
        f"list_transform(signals, lambda s: {{code: s.code, name: ([{known}]"
        "::varchar[])[s.code + 1], value: s.value, evidence: s.evidence}) as signals"
    )
    columns = [named if column == "signals" else quoted(column) for column in PLAIN.names]
    for name in (n for n in names if _may_be_aquoted(n, names)):
        value = (
            f"list_filter(signals, lambda s: s.code = {catalogue.index(name)})[1].value"
            if name in catalogue
            else "null::double"
        )
        columns.append(f"{value} as {quoted(SIGNAL + name)}")
    return f"select {', '.join(columns)} from {quoted(relation)}"


def _may_be_aquoted(name: str, names: Sequence[str]) -> bool:
    """Whether a signal's name can be a column; signal() finds all others.

    DuckDB has no identifiers with NUL, and ignores the case of identifiers.
    """
    return "\0" not in name and sum(other.lower() == name.lower() for other in names) == 1


def literal(value: str) -> str:
    """A literal that no value can end early: its bytes in hex."""
    return f"decode(from_hex('{value.encode().hex()}'))"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
