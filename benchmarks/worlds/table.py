"""`./xp bench worlds [--json]`: every bundled world in one table, each measured in a new process.

A row has the cost of a step and a reset (random actions; CPU includes all child processes), and the
mean returns over held-out tasks, with standard errors, of random actions, of doing nothing and of
the oracle. If a world lacks a part, its row says so. `write` puts the table into
docs/environments.md; with `only`, one world's row.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experience.errors import ConfigError
from experience.text.strict_json import dumps

PAGE = Path("docs/environments.md")
_BEGIN = "<!-- table -->"
_END = "<!-- /table -->"


def measured(env_id: str, seconds: float, episodes: int) -> dict[str, Any]:
    """One world's row. Call it in a new process: memory and CPU time are the process's."""
    from envs.check import Subject
    from envs.episode import do_nothing, do_oracle, do_random, live, measure

    checker = Subject(env_id)
    world = checker.world
    row: dict[str, Any] = {
        "id": env_id,
        **measure(world, seconds),
        "tier": getattr(world, "sandbox_tier", ""),
        "signals": sorted(world.signal_catalogue),
        "goes_back": bool(world.goes_back),
    }
    for name, choose in (("random", do_random), ("nothing", do_nothing), ("oracle", do_oracle)):
        try:
            returns = [live(world, seed, choose, "heldout").total for seed in range(episodes)]
        except NotImplementedError:  # a world without an oracle
            row[name] = row[f"{name}_error"] = None
            continue
        row[name] = statistics.mean(returns)
        row[f"{name}_error"] = statistics.stdev(returns) / math.sqrt(episodes)
    checker.close()
    return row


def rows(
    only: str | None = None, seconds: float = 3.0, episodes: int = 24
) -> Iterator[dict[str, Any]]:
    """One row a world. Raises ConfigError if `only` is not one of them."""
    import envs

    names = [n for n in envs.WORLDS if n not in envs.STRANGERS]
    if only is not None:
        name = only.removeprefix("envs:")
        if name not in names:
            raise ConfigError(f"no world {only!r} to measure", f"there are: {', '.join(names)}")
        names = [name]
    for name in names:
        words = ["-m", "benchmarks.worlds.table", f"envs:{name}", str(seconds), str(episodes)]
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, timeout=1200
        )
        # Such as a missing package: the other worlds are measured all the same.
        if done.returncode:
            yield {"id": f"envs:{name}", "missing": done.stderr.strip().splitlines()[-1][:160]}
        else:
            yield json.loads(done.stdout.splitlines()[-1])


HEAD = (
    "| world | step p50 / p99 ms | resets/s | CPU ms/step | MiB | goes back | random | nothing "
    "| oracle |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def line(row: dict[str, Any]) -> str:
    """A row as Markdown."""
    if "missing" in row:
        return f"| {row['id']} | {row['missing'].replace('|', '/')} | | | | | | | |"
    returns = [
        "—" if row[n] is None else f"{row[n]:.2f} ± {row[n + '_error']:.2f}"
        for n in ("random", "nothing", "oracle")
    ]
    rate = row["resets_per_second"]
    resets = f"{rate:,.0f}" if rate >= 1 else f"{rate:.1f}"
    return (
        f"| {row['id'].removeprefix('envs:')} | {row['step_p50_ms']:.2f} / "
        f"{row['step_p99_ms']:.1f} | "
        f"{resets} | {row['cpu_ms_per_step']:.2f} | {row['memory_mib']:.0f} | "
        f"{'yes' if row['goes_back'] else 'no'} | {' | '.join(returns)} |"
    )


def main(as_json: bool, write: bool = False, only: str | None = None) -> None:
    found = []
    if not as_json:
        print(HEAD)
    for row in rows(only):
        found.append(line(row))
        print(dumps(row) if as_json else found[-1], flush=True)
    if write:
        before, _, rest = PAGE.read_text().partition(_BEGIN)
        table, _, after = rest.partition(_END)
        kept = found if only is None else with_row(table.strip().splitlines()[2:], found[0])
        PAGE.write_text("\n".join([before + _BEGIN, HEAD, *kept, _END + after]))


def with_row(table: list[str], new: str) -> list[str]:
    """The lines of a table with one world's line in place of its old one, or at the end."""
    name = new.split("|")[1]
    if all(line.split("|")[1] != name for line in table):
        return [*table, new]
    return [new if line.split("|")[1] == name else line for line in table]


if __name__ == "__main__":
    print(dumps(measured(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))))
