"""How fast a viewer answers, and how much memory it takes, over a store of many episodes.

    ./xp bench viewer

Writes a run of so many episodes with the real journal, of two turns and a closing row each, serves
it with `./xp view`, and asks what its pages ask. The goals are those of the first page of a list
(300 ms), of one episode (150 ms) and of the server's memory (200 MB). Each figure is the median of
many requests that differ, so that no answer is remembered; the first look at a store, which makes
the index that is then kept beside it, is given by itself.
"""

from __future__ import annotations

import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from experience.command.output import emit, say
from experience.policy import Decision
from experience.shards.journal import Journal
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Step
from experience.text.strict_json import dumps

EPISODES = 100_000
_TIMES = 15
_CATALOGUE = {"done": SignalKind("fraction", "verifier")}
_STREAMS = 32
_SECOND = 1_000_000_000
_ROOT = Path(__file__).resolve().parents[2]
_GOALS = {"first page": 300.0, "one episode": 150.0, "server": 200.0}
_WORDS = "the form has a name a street and a button that saves it all at once".split()  # noqa: SIM905


def main(as_json: bool, episodes: int = EPISODES) -> bool:
    """Prints each figure beside its goal; whether all goals are met."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run = write_run(Path(folder) / "many-1", episodes)
        say(f"{episodes} episodes written in {time.perf_counter() - begun:.0f} s")
        figures = measured(run, episodes)
    kept = True
    for name, value, unit in figures:
        goal = _GOALS.get(name)
        kept &= goal is None or value < goal
        if as_json:
            emit({"what": name, "value": round(value, 1), "unit": unit, "goal": goal})
        else:
            emit(f"{name:<44} {value:9.1f} {unit:<3} {'' if goal is None else f'goal {goal:.0f}'}")
    return kept


def write_run(path: Path, episodes: int) -> Path:
    """A run directory of `episodes` episodes of known and unknown returns, over 90 days."""
    for name in ("metrics", "imagined", "checkpoints"):
        (path / name).mkdir(parents=True)
    (path / "run.json").write_text(dumps({"status": "succeeded", "started": 1.7e9}))
    journal = Journal(
        path / "shards" / "collector-0000", _CATALOGUE, durability="os", batch_rows=512
    )
    chance = np.random.default_rng(0)
    rewards = chance.normal(0.3, 0.4, (episodes, 2))
    for number in range(episodes):
        for step in _episode(journal, number, episodes, rewards[number]):
            journal.append(step)
    journal.close()
    return path


def _episode(journal: Journal, number: int, of: int, rewards: np.ndarray) -> Iterator[Step]:
    stream = bytes([number % _STREAMS]) * 16
    first = journal.next_t(stream)
    at = 1_700_000_000 * _SECOND + number * (90 * 86_400 * _SECOND // of)
    version = number * 200 // of
    same: dict[str, Any] = {
        "stream_id": stream,
        "env_id": f"bench.no_such:World{number % 3}-v0",
        "task_id": f"task {number % 997}",
        "group_id": f"g-{number // 8}",
        "split": "heldout" if number % 10 == 0 else "train",
        "episode": number,
        "reward_version": "linear-bench",
    }
    for turn in range(2):
        words = " ".join(_WORDS[(number + i * 7) % len(_WORDS)] for i in range(40))
        reward = float(rewards[turn])
        yield Step(
            t=first + turn,
            step_in_episode=turn,
            obs_text=f"page {number} {words}",
            decision=Decision(f"click {number % 50}", version, behaviour_id="small"),
            signals=(Signal("done", reward, "fraction", "verifier", "by the form"),),
            reward=reward,
            boundary=Boundary.RESET if turn == 0 else Boundary.NONE,
            t_start_ns=at + turn * _SECOND,
            t_end_ns=at + (turn + 1) * _SECOND,
            **same,
        )
    yield Step(
        t=first + 2,
        step_in_episode=2,
        obs_text="over",
        ending="terminated",
        t_start_ns=at + 2 * _SECOND,
        t_end_ns=at + 2 * _SECOND,
        **same,
    )


def measured(run: Path, episodes: int) -> list[tuple[str, float, str]]:
    """(what, value, unit) of one server from its start to the last of many requests."""
    with serving(run.parent) as (_, home):
        begun = time.perf_counter()
        _ask(f"{home}/api/runs/{run.name}/episodes")
        first_ever = (time.perf_counter() - begun) * 1000
    with serving(run.parent) as (process, home):
        api = f"{home}/api/runs/{run.name}"
        begun = time.perf_counter()
        _ask(f"{api}/episodes")
        opening = (time.perf_counter() - begun) * 1000
        pages = _ask(f"{api}/episodes")["pages"]
        keys = [
            row["key"]
            for page in range(0, pages, max(1, pages // _TIMES))
            for row in _ask(f"{api}/episodes?page={page}")["rows"][:1]
        ]
        return [
            ("first look ever, which makes the index", first_ever, "ms"),
            ("first look of a new server", opening, "ms"),
            ("first page", _median(lambda i: f"{api}/episodes?low=-{i}"), "ms"),
            ("last page", _median(lambda i: f"{api}/episodes?page={pages - 1 - i}"), "ms"),
            ("filtered and sorted page", _median(_filtered(api)), "ms"),
            (
                "one episode",
                _median(lambda i: f"{api}/episodes/{keys[i % len(keys)]}"),
                "ms",
            ),
            (
                "groups, largest difference first",
                _median(lambda i: f"{api}/groups?sort=spread&page={i}", 3),
                "ms",
            ),
            (
                "timeline of 90 days",
                _median(lambda i: f"{api}/timeline?to={1_707_000_000 + i}000000000"),
                "ms",
            ),
            (
                "text in all rows",
                _median(lambda i: f"{api}/episodes?text=page+{episodes - 1 - i}+the", 1),
                "ms",
            ),
            ("server", _megabytes(process), "MB"),
        ]


def _filtered(api: str) -> Callable[[int], str]:
    return lambda i: (
        f"{api}/episodes?world=bench.no_such:World{i % 3}-v0&sort=-reward&task=task+{i}"
    )


@contextmanager
def serving(runs: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`./xp view` of a folder, in a process of its own, and its address."""
    words = [
        sys.executable,
        "-m",
        "actors",
        "view",
        "--json",
        "--port",
        "0",
        "--runs-dir",
        str(runs),
    ]
    with subprocess.Popen(words, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        yield process, address.partition("/#")[0]
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _ask(address: str) -> Any:
    with urllib.request.urlopen(address.replace(" ", "%20"), timeout=600) as answer:
        return json.load(answer)


def _median(address: Callable[[int], str], times: int = _TIMES) -> float:
    """The median of `times` requests, in milliseconds; no two ask the same."""
    took = []
    for i in range(times):
        begun = time.perf_counter()
        _ask(address(i))
        took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)


def _megabytes(process: subprocess.Popen[str]) -> float:
    """The memory that the process holds: its resident set."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 / 1e6
