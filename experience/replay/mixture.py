"""Mixtures: other runs, imported stores and cold stores, learned from beside a run's own rows.

Each store has an index; its rows are read when they are drawn. Whole groups whose samples have
exact tokens are learned from by any objective, since their log-probabilities correct for the policy
that acted. From a store without them only actions can be imitated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experience.episode import Episode, Group
from experience.replay.choosing import Facts
from experience.replay.groups import Members
from experience.shards.episodes.index import EpisodeIndex
from experience.shards.sampling.samplers import Sampler, Uniform
from experience.text.strict_json import dumps


class OtherRun:
    """The groups and the successes of one store, marked by the run's name.

    share: of what is learned from. can_correct: whether its tokens are those of the policy that
    learns, so that its log-probabilities may be used.
    """

    def __init__(self, name: str, share: float, index: EpisodeIndex, can_correct: bool) -> None:
        self.name, self.share, self.index = name, share, index
        facts = Facts(index.records)
        rows, words = index.records.rows, index.records.words
        over = index.records.over.view
        over = over[~facts.have_failed(over)]
        known = over[(rows["unknown"][over] == 0) & (rows["split"][over] == words.find("train"))]
        self._shown = known[np.isin(rows["source"][known], words.numbers(_SHOWN))]
        real = known[rows["source"][known] == words.find("real")]
        ended = rows["ending"][real] == words.find("terminated")
        self._successes = real[ended & (rows["reward"][real] > 0)]
        self.groups = _groups(index, real) if can_correct else []

    @property
    def shown(self) -> int:
        """How many episodes may be imitated: demonstrations, and successes."""
        return len(self._shown) + len(self._successes)

    def to_imitate(self, most_turns: int) -> Iterator[Episode]:
        """The newest episodes that may be imitated, up to `most_turns` turns; demonstrations first.

        A success is an episode that its world ended, with a return above 0.
        """
        left = most_turns
        for numbers in (self._shown, self._successes):
            for number in numbers[::-1].tolist():
                left -= int(self.index.records.rows["steps"][number])
                if left < 0:
                    return
                yield self.index.read(number)

    def draw(self, n: int, sampler: Sampler, rng: np.random.Generator) -> list[Group]:
        """`n` of its groups, with replacement, their ids marked by the run."""
        places = sampler.propose(n, len(self.groups), rng).tolist()
        return [self._read(self.groups[place]) for place in places]

    def _read(self, group: Members) -> Group:
        episodes = tuple(self.index.read_many(group.numbers))
        return Group(f"{self.name}/{group.group_id}", episodes)


_SHOWN = ("demonstration", "human")


def _groups(index: EpisodeIndex, real: np.ndarray) -> list[Members]:
    """Groups of two episodes or more that have exact samples, oldest first."""
    rows, words = index.records.rows, index.records.words
    usable = real[(rows["sampled"][real] > 0) & (rows["group_id"][real] != words.find(""))]
    if not len(usable):
        return []
    usable = usable[np.argsort(rows["group_id"][usable], kind="stable")]
    starts = np.flatnonzero(np.diff(rows["group_id"][usable], prepend=-1))
    found = [
        Members(index.records.word("group_id", int(of[0])), tuple(of.tolist()))
        for of in np.split(usable, starts[1:])
        if len(of) > 1
    ]
    return sorted(found, key=lambda group: group.numbers[-1])


@dataclass(frozen=True)
class Drawn:
    """How many groups and turns came from a run."""

    groups: int = 0
    turns: int = 0


class Mixture:
    """Draws groups of other runs, each run its share. The same seed draws the same groups."""

    def __init__(
        self, runs: Sequence[OtherRun], seed: int = 0, sampler: Sampler | None = None
    ) -> None:
        self.runs, self._sampler = list(runs), sampler or Uniform()
        self.drawn: dict[str, Drawn] = {run.name: Drawn() for run in runs}
        self._rng = np.random.default_rng([seed, 5])
        self._owed = np.zeros(len(self.runs))

    def beside(self, own: int) -> list[Group]:
        """The groups that belong beside `own` groups of the run itself, by the shares."""
        shares = self._shares()
        total = shares.sum()
        return self._draw(shares * own / (1 - total)) if total else []

    def alone(self, n: int) -> list[Group]:
        """`n` groups, where nothing else is learned from; none where no run has groups."""
        shares = self._shares()
        return self._draw(shares * n / shares.sum()) if shares.sum() else []

    def _shares(self) -> np.ndarray:
        return np.array([run.share if run.groups else 0.0 for run in self.runs])

    def _draw(self, wanted: np.ndarray) -> list[Group]:
        # What rounding leaves over is owed to the next draw: shares hold over time.
        self._owed += wanted
        counts = np.floor(self._owed + 1e-9).astype(int)
        self._owed -= counts
        found: list[Group] = []
        for run, count in zip(self.runs, counts.tolist(), strict=True):
            if not count:
                continue
            groups = run.draw(count, self._sampler, self._rng)
            turns = sum(len(e.steps) for g in groups for e in g.episodes)
            known = self.drawn[run.name]
            self.drawn[run.name] = replace(
                known, groups=known.groups + count, turns=known.turns + turns
            )
            found += groups
        return found

    def save(self) -> dict[str, bytes]:
        about = {
            "random": self._rng.bit_generator.state,
            "owed": self._owed.tolist(),
            "drawn": {name: vars(drawn) for name, drawn in self.drawn.items()},
        }
        return {"mixture.json": dumps(about).encode()} if self.runs else {}

    def restore(self, saved: Mapping[str, bytes]) -> None:
        """Goes on where `save` was called; runs that came or went since begin anew."""
        if "mixture.json" not in saved:
            return
        about = json.loads(saved["mixture.json"])
        if set(about["drawn"]) != set(self.drawn):
            return
        self._rng.bit_generator.state = about["random"]
        self._owed = np.array(about["owed"])
        self.drawn = {name: Drawn(**drawn) for name, drawn in about["drawn"].items()}
