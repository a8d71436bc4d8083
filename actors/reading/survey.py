"""A survey of a run's store: its episodes, returns and failures, however the run ended."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from actors.config.schema import Config
from actors.runs.directory import RunDirectory
from experience.episode import Episode
from experience.errors import XpError
from experience.evaluation.statistics import Mean, mean_with_interval
from experience.shards.catalog import Catalog
from experience.step import Step

_RANDOM = "random"
"""The behaviour of the baseline."""


@dataclass(frozen=True, slots=True)
class Lived:
    """One episode as the store has it.

    `total` is the sum of its rewards, None if a reward is unknown. `ending` is None, and `whole`
    False, if a crash cut the episode off. `version` is None if nothing was decided.
    """

    stream: bytes
    t: int
    turns: int
    env_id: str
    split: str
    source: str
    behaviour: str
    version: int | None
    seed: int
    task: str
    total: float | None
    ending: str | None
    whole: bool
    agent: str = ""


@dataclass(frozen=True)
class Failure:
    """One kind of failure of a world: its count, the first message and, if kept, the traceback."""

    env_id: str
    kind: str
    count: int
    first: str
    traceback: str = ""


@dataclass(frozen=True)
class Returns:
    """Held-out returns of one world.

    Of the random baseline, of each evaluated version, and the gain of the last version over the
    first, task by task.
    """

    random: Mean
    versions: dict[int, Mean]
    gain: Mean


@dataclass
class Survey:
    """All episodes of a run in the order of their ends, and its failures."""

    episodes: list[Lived]
    failures: list[Failure] = field(default_factory=list)

    @property
    def worlds(self) -> list[str]:
        return list(dict.fromkeys(e.env_id for e in self.episodes))

    def held_out(self) -> dict[str, Returns]:
        """Per world with held-out episodes; leaves out failed episodes and unknown returns."""
        by_world: dict[str, list[Lived]] = defaultdict(list)
        for episode in self.episodes:
            if episode.split == "heldout" and episode.whole and episode.total is not None:
                by_world[episode.env_id].append(episode)
        return {world: _returns(episodes) for world, episodes in by_world.items()}

    def of_one_policy(self) -> dict[str, tuple[Mean, Mean]]:
        """(random baseline, policy) per world, for a policy that never changes.

        Each is the mean over tasks of the mean return of a task.
        """
        found: dict[str, tuple[Mean, Mean]] = {}
        for world, returns in self.held_out().items():
            by_task: dict[int, list[float]] = defaultdict(list)
            # A task lived again in every round of evaluation is still one task of the n.
            for episode in self._acted(world, "heldout"):
                by_task[episode.seed].append(episode.total or 0.0)
            found[world] = (
                returns.random,
                mean_with_interval([sum(r) / len(r) for r in by_task.values()]),
            )
        return found

    def training(self) -> dict[str, dict[int, Mean]]:
        """Returns of real training episodes, per world and policy version that began them."""
        found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for world in self.worlds:
            for episode in self._acted(world, "train"):
                found[world][episode.version or 0].append(episode.total or 0.0)
        means = {}
        for world, by_version in found.items():
            means[world] = {v: mean_with_interval(r) for v, r in sorted(by_version.items())}
        return means

    def _acted(self, world: str, split: str) -> list[Lived]:
        return [
            e
            for e in self.episodes
            if e.env_id == world
            and e.split == split
            and e.source == "real"
            and e.whole
            and e.total is not None
            and e.behaviour != _RANDOM
        ]


def _returns(episodes: Sequence[Lived]) -> Returns:
    by_version: dict[int, dict[tuple[int, str], float]] = defaultdict(dict)
    random = []
    for episode in episodes:
        if episode.behaviour == _RANDOM:
            random.append(episode.total or 0.0)
        elif episode.version is not None:
            by_version[episode.version][episode.seed, episode.agent] = episode.total or 0.0
    versions = {v: mean_with_interval(list(by_version[v].values())) for v in sorted(by_version)}
    first, last = (
        (by_version[min(versions)], by_version[max(versions)]) if len(versions) > 1 else ({}, {})
    )
    # Task by task: tasks differ more than versions do, and a paired gain leaves that out.
    gain = mean_with_interval(
        [last[task] - first[task] for task in sorted(first.keys() & last.keys())]
    )
    return Returns(mean_with_interval(random), versions, gain)


_EPISODES = """select stream_id, t, turns, env_id, split, source, coalesce(behaviour_id, ''),
    policy_version, seed, task_id, total_reward, ending, whole, coalesce(agent_id, '') from episodes
    order by ended_ns, stream_id, t"""
_FAILURES = """select env_id, ending, decode(info) from steps where action_text is null
    and ending in ('env_error', 'engine_error', 'timeout') order by t_end_ns, stream_id, t"""


def survey(shards: Path) -> Survey:
    """Reads the store. Raises ShardError if a byte of it is wrong."""
    from actors.reading.query import connect  # DuckDB costs 15 MB, which a viewer never needs

    connection = connect({"steps": shards})
    episodes = [Lived(*row) for row in connection.sql(_EPISODES).fetchall()]
    return Survey(episodes, _failures(connection.sql(_FAILURES).fetchall()))


def _failures(rows: Iterable[tuple[str, str, str | None]]) -> list[Failure]:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    first: dict[tuple[str, str], str] = {}
    traces: dict[tuple[str, str], str] = {}
    for env_id, ending, info in rows:
        told = json.loads(info) if info else {}
        said = str(told.get("error", ending))
        key = env_id, said.partition(":")[0]
        counts[key] += 1
        first.setdefault(key, said)
        if "traceback" in told:
            traces.setdefault(key, str(told["traceback"]))
    return [Failure(*key, count, first[key], traces.get(key, "")) for key, count in counts.items()]


def whole_episodes(shards: Path, wanted: Sequence[Lived]) -> list[Episode]:
    """The rows of each `wanted` episode, in that order, closing row included, in one pass."""
    spans: dict[bytes, list[tuple[int, int, int]]] = defaultdict(list)
    for number, episode in enumerate(wanted):
        spans[episode.stream].append((episode.t, episode.t + episode.turns, number))
    rows: list[list[Step]] = [[] for _ in wanted]
    for block in Catalog(shards).follow():
        for step in block:
            for start, end, number in spans.get(step.stream_id, ()):
                if start <= step.t <= end:
                    rows[number].append(step)
    return [_as_episode(found) for found in rows]


def _as_episode(rows: Sequence[Step]) -> Episode:
    acted = tuple(step for step in rows if not step.is_closing)
    return Episode(acted, rows[-1] if rows and rows[-1].is_closing else None)


def known_config(directory: RunDirectory) -> Config | None:
    """The run's configuration; None for an imported run, or one of an older schema."""
    try:
        return directory.config()
    except XpError:
        return None


def first_version(config: Config | None) -> str:
    """What version 0 is."""
    imitates = config is None or (
        config.learning.imitation_passes and any(w.demonstrations for w in config.worlds)
    )
    return "imitation (v0)" if imitates else "untrained (v0)"


def learns(config: Config | None) -> bool:
    return config is None or config.policy.learns
