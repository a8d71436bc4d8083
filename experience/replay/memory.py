"""Replay in memory: which stored steps a learner sees."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experience.episode import Episode, EpisodeReader, Group
from experience.errors import ShardError
from experience.step import Source, Step
from experience.strict_json import dumps


@dataclass
class Dropped:
    """Experience that learning left out, by reason. Nothing is dropped without being counted here."""

    stale: int = 0
    cut_off: int = 0
    failed: int = 0
    unknown_reward: int = 0
    alone: int = 0


class Replay:
    """All steps read so far, and the samples taken from them.

    Invariants: only split `train` is ever given out; sources never mix unless asked for; a window never crosses
    an episode's end, a restart or a gap.
    """

    def __init__(self, group_size: int, max_lag: int, seed: int = 0) -> None:
        self.group_size, self.max_lag = group_size, max_lag
        self.dropped = Dropped()
        self.steps_by_source: dict[str, int] = defaultdict(int)
        self._reader = EpisodeReader()
        self._waiting: dict[str, list[Episode]] = defaultdict(list)
        self._ready: list[Group] = []
        self.episodes: dict[Source, list[Episode]] = defaultdict(list)
        self._held_out: list[Episode] = []
        self.transitions: list[tuple[Step, Step]] = []
        """(row, next row) of real and demonstrated training episodes: what a world model learns from."""
        self.finished: set[bytes] = set()
        self.consumed: list[tuple[str, bool]] = []
        """Groups given out, in order, each with whether it was learned from or dropped."""
        self.training_steps = 0
        self._lags: list[int] = []
        self._rng = np.random.default_rng(seed)

    def add(self, steps: Iterable[Step]) -> None:
        """Takes committed rows, in the order of their streams."""
        for step in steps:
            self._extend(step)

    def _extend(self, step: Step) -> None:
        if not step.is_closing:
            self.steps_by_source[step.source] += 1
            self.training_steps += step.is_training
        for episode in self._reader.take(step):
            if episode.closing is None:
                self.dropped.cut_off += 1  # it has no return
                continue
            if (
                episode.ending != "cancelled"
            ):  # else it is lived again, if its work is ordered again
                self.finished.add(step.work_id)
            self._file(episode)

    def _file(self, episode: Episode) -> None:
        first = episode.first
        if first.split != "train":
            self._held_out.append(episode)
            return
        self.episodes[first.source].append(episode)
        if not episode.failed and first.source in ("real", "demonstration"):
            self.transitions += [
                p for p in episode.transitions if not p[0].is_choice
            ]  # it changes nothing
        if first.source != "real" or not first.group_id:
            return
        waiting = self._waiting[first.group_id]
        waiting.append(episode)
        if len(waiting) == self.group_size:
            del self._waiting[first.group_id]
            self._ready.append(
                Group(first.group_id, tuple(sorted(waiting, key=lambda e: e.first.work_id)))
            )

    @property
    def ready_groups(self) -> int:
        return len(self._ready)

    def window(self, version: int, most: int | None = None) -> list[Group]:
        """The whole groups not given out yet (the oldest `most`, by id), less those older than `max_lag` versions.

        Failed episodes and episodes of unknown reward leave their group; each is counted in `dropped`.
        """
        given, self._ready = self._ready[:most], self._ready[most:] if most else []
        fresh = []
        for group in sorted(given, key=lambda g: (len(g.group_id), g.group_id)):
            kept = self._usable(group, version)
            self.consumed.append((group.group_id, kept is not None))
            fresh += [kept] if kept else []
        return fresh

    def _usable(self, group: Group, version: int) -> Group | None:
        if version - group.oldest_version > self.max_lag:
            self.dropped.stale += len(group.episodes)
            return None
        self._lags.append(version - group.oldest_version)
        for episode in group.episodes:
            self.dropped.failed += episode.failed
            self.dropped.unknown_reward += not episode.failed and episode.total_reward is None
        kept = _comparable(group)
        if len(kept.episodes) > 1:
            return kept
        self.dropped.alone += len(kept.episodes)  # nothing to compare it with
        return None

    def held_out(
        self, version: int, env_id: str | None = None, behaviour: str | None = None
    ) -> list[Episode]:
        """Held-out episodes acted by policy `version` (not the random baseline, unless `behaviour` names it):
        for evaluation, never for learning."""
        return [
            e
            for e in self._held_out
            if (d := e.first.decision)
            and d.policy_version == version
            and (d.behaviour_id == behaviour if behaviour else d.behaviour_id != "random")
            and (env_id is None or e.first.env_id == env_id)
        ]

    def evaluated_versions(self) -> list[int]:
        return sorted(
            {
                d.policy_version
                for e in self._held_out
                if (d := e.first.decision) and d.behaviour_id != "random"
            }
        )

    def sample_steps(self, n: int, sources: Sequence[Source] = ("real",)) -> list[Step]:
        """`n` steps drawn uniformly, with replacement, from training episodes of `sources`."""
        return [w[0] for w in self.windows(n, 1, sources)]

    def sample_roots(self, n: int, within: int) -> list[Step]:
        """`n` real steps, with replacement: first a training episode, then one of its first `within` steps. Drawn step
        by step, the long episodes of a policy that is stuck would be nearly all. Raises ShardError if there is none."""
        episodes = [e for e in self.episodes["real"] if e.steps and not e.failed]
        if not episodes:
            raise ShardError("no real training episode has a turn yet", "collect more")
        drawn = (episodes[int(i)] for i in self._rng.integers(len(episodes), size=n))
        return [e.steps[int(self._rng.integers(min(len(e.steps), within)))] for e in drawn]

    def windows(
        self, n: int, length: int, sources: Sequence[Source] = ("real",)
    ) -> list[tuple[Step, ...]]:
        """`n` uniform windows of `length` successive turns of one episode, with replacement.

        Raises ShardError if no training episode of `sources` is that long.
        """
        episodes = [
            e for s in sources for e in self.episodes[s] if len(e.steps) >= length and not e.failed
        ]
        if not episodes:
            raise ShardError(
                f"no training episode of {'/'.join(sources)} has {length} turns yet",
                "collect more, or ask for shorter windows",
            )
        starts = np.cumsum([len(e.steps) - length + 1 for e in episodes])
        windows = []
        for draw in self._rng.integers(starts[-1], size=n):
            which = int(np.searchsorted(starts, draw, side="right"))
            first = int(draw - (starts[which - 1] if which else 0))
            windows.append(episodes[which].steps[first : first + length])
        return windows

    def demonstrations(self) -> list[Episode]:
        """In an order that does not depend on who was faster: what is sampled from them is then the same on resume."""
        return sorted(
            (e for e in self.episodes["demonstration"] if not e.failed),
            key=lambda e: e.first.work_id,
        )

    def recent_returns(self, env_id: str, most: int = 64) -> list[float]:
        """Returns of the newest real training episodes of a world, oldest first."""
        newest = [
            e
            for e in self.episodes["real"][-8 * most :]
            if e.first.env_id == env_id and not e.failed
        ][-most:]
        return [r for e in newest if (r := e.total_reward) is not None]

    @property
    def mean_lag(self) -> float:
        """Mean age, in versions, of the groups given out lately."""
        return float(np.mean(self._lags[-64:])) if self._lags else 0.0

    def save(self) -> dict[str, bytes]:
        """The cursor: which groups were given out, and the sampler's random state. Belongs beside the weights."""
        about = {
            "consumed": self.consumed,
            "dropped": vars(self.dropped),
            "random": self._rng.bit_generator.state,
        }
        return {"replay.json": dumps(about).encode()}

    def restore(self, saved: Mapping[str, bytes], *, rows_removed: bool = False) -> list[Group]:
        """After the store was read again: what `save` knew as given out is not given out again, all else is.

        Returns the groups that were learned from, in their order. Raises ShardError if one is not there, unless
        `rows_removed` says that retention took rows: then the group is passed over.
        """
        about = json.loads(saved["replay.json"])
        self.consumed = [(group_id, used) for group_id, used in about["consumed"]]
        self.dropped, self._rng.bit_generator.state = Dropped(**about["dropped"]), about["random"]
        ready = {g.group_id: g for g in self._ready}
        missing = [group_id for group_id, _ in self.consumed if group_id not in ready]
        if missing and not rows_removed:
            raise ShardError(
                f"{len(missing)} groups that were learned from are not in the store, {missing[0]} first",
                "the checkpoint belongs to another store, or shards were lost: ./xp verify says which",
            )
        given = {group_id for group_id, _ in self.consumed}
        self._ready = [g for g in self._ready if g.group_id not in given]
        return [
            _comparable(ready[group_id])
            for group_id, used in self.consumed
            if used and group_id in ready
        ]


def _comparable(group: Group) -> Group:
    """The group less what says nothing about the agent: failed episodes, and those of unknown reward."""
    return Group(
        group.group_id,
        tuple(e for e in group.episodes if not e.failed and e.total_reward is not None),
    )
