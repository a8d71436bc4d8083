"""`xp bench collecting`: how near a collector comes to the ideal rate, and what a row costs.

calls: 64 streams at a server whose answers are log-normal (median 0.2 s, p99/p50 = 20), against
the ideal rate, at which every stream always waits for its own answer only: streams / mean.
rows: streams in a world that costs nothing, written durably; CPU time of the process a row. Beside
it Gymnasium's AsyncVectorEnv, which writes nothing. hosts: the same with a process for each world.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium

from actors.collecting.dispatcher import Dispatcher
from actors.collecting.loop.collector import Collector
from actors.collecting.loop.leases import DirectLine
from actors.collecting.work import Done, Work
from actors.config.schema import Config, load
from benchmarks.collecting.nothing_world import NothingInNumbers
from benchmarks.collecting.slow_server import sigma_of
from experience.models.weights import PolicyBundle, Weights
from experience.text.strict_json import dumps

_WORLD = "benchmarks.collecting.nothing_world:Nothing-v0"
_MEDIAN_SECONDS, _TAIL = 0.2, 20.0
_SECONDS = 20.0


def main(as_json: bool) -> bool:
    """Prints all figures; whether each goal was reached."""
    found: list[dict[str, Any]] = [calls(64)]
    found += [rows(streams, "inside") for streams in (8, 64, 256, 1024)]
    found += [rows(streams, "process") for streams in (8, 64)]
    found += [vector_env(streams) for streams in (8, 64)]
    for figure in found:
        print(dumps(figure) if as_json else _line(figure), flush=True)
    return all(figure["reached"] for figure in found if "reached" in figure)


def calls(streams: int) -> dict[str, Any]:
    """Answers a second, over the rate at which no stream ever waits for another."""
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.collecting.slow_server",
            str(_MEDIAN_SECONDS),
            str(_TAIL),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        one = _collector(
            streams,
            "inside",
            "policy.engine=openai",
            f"policy.base_url=http://127.0.0.1:{port}/v1",
            "policy.model=m",
            "policy.learns=false",
        )
        policy = PolicyBundle(Weights(0, b"", ""))
        one.dispatcher.order(_works(100_000, "evaluation"), 0, policy)
        taken, seconds, _ = _measure(one, warm_seconds=3.0)
    finally:
        server.kill()
    mean = _MEDIAN_SECONDS * math.exp(sigma_of(_TAIL) ** 2 / 2)
    share = taken / seconds / (streams / mean)
    return {
        "what": f"calls, {streams} streams",
        "calls a second": round(taken / seconds, 1),
        "share of the ideal": round(share, 3),
        "goal": 0.8,
        "reached": share >= 0.8,
    }


def rows(streams: int, isolation: str) -> dict[str, Any]:
    """What a durable row costs in CPU time, of this process alone."""
    one = _collector(streams, isolation)
    one.dispatcher.order(_works(1_000_000 // 10, "random"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken, seconds, cpu = _measure(one, warm_seconds=5.0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "what": f"rows, {streams} streams, {isolation}",
        "rows a second": round(taken / seconds),
        "CPU-µs a row": round(1e6 * cpu / taken, 1),
        "KiB a stream, at most": round(grown / streams, 1),
    }


def vector_env(streams: int) -> dict[str, Any]:
    """Gymnasium's own vector environment: a process each, in step, nothing written."""
    envs = gymnasium.vector.AsyncVectorEnv([NothingInNumbers for _ in range(streams)])
    envs.reset()
    action = envs.action_space.sample()
    began, taken = time.monotonic(), 0
    while time.monotonic() - began < _SECONDS / 4:
        envs.step(action)
        taken += streams
    seconds = time.monotonic() - began
    envs.close()
    return {
        "what": f"AsyncVectorEnv, {streams} streams, writes nothing",
        "rows a second": round(taken / seconds),
    }


class _Alone(Collector):
    def __init__(self, config: Config, folder: Path) -> None:
        self.dispatcher = Dispatcher(config, Done(), lease_seconds=math.inf)
        super().__init__(config, "bench", folder, 0, DirectLine(self.dispatcher))
        self.dispatcher.on_news = self.leases.hear


def _collector(streams: int, isolation: str, *settings: str) -> _Alone:
    config = load(
        [],
        [
            f"worlds=[{{id: '{_WORLD}', isolation: {isolation}, groups: 1, demonstrations: 0}}]",
            f"collecting.slots={streams}",
            "learning.max_lag=1",
            "policy.layers=1",
            "policy.width=16",
            "policy.heads=2",
            *settings,
        ],
    )[0]
    return _Alone(config, Path(tempfile.mkdtemp()) / "shards")


def _works(count: int, lane: Any) -> list[Work]:
    return [
        Work.named(f"{n}", env_id=_WORLD, lane=lane, seed=n, split="heldout", version=0)
        for n in range(count)
    ]


def _measure(one: _Alone, warm_seconds: float) -> tuple[int, float, float]:
    """(rows, seconds, seconds of CPU) of a stretch of time, after a stretch that is not counted."""
    _pump(one, warm_seconds)
    began, cpu, before = time.monotonic(), time.process_time(), _rows(one)
    _pump(one, _SECONDS)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    taken = _rows(one) - before
    one.close()
    return taken, seconds, cpu


def _pump(one: _Alone, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        one.pump()


def _rows(one: _Alone) -> int:
    return sum(t + 1 for t in one.journal.acknowledged.values())


def _line(figure: dict[str, Any]) -> str:
    return "  ".join(f"{value}" if k == "what" else f"{k} {value}" for k, value in figure.items())
