"""Credit: every sampled turn of some groups with its advantage, as a recipe estimates it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experience.episode import Episode, Group
from experience.learning.advantages import ALIKE, as_sample, earned, return_of
from experience.learning.estimators.groups import (
    by_deviation,
    group_in_group,
    less_mean,
    over_roles,
    overlong_penalty,
    whitened,
)
from experience.learning.recipes.recipe import WHOLE, Recipe
from experience.learning.sequences.turn import Turn
from experience.learning.value import LogRatios, Valued, ValueFunction
from experience.options.hierarchy import split_levels
from experience.options.option import Library
from experience.returns import Floats, discounted_returns, leave_one_out
from experience.step import Step


@dataclass(frozen=True)
class _Credit:
    """The raw advantages of an episode's steps, float [T], in units of reward."""

    episode: Episode
    raw: Floats


class AdvantageEstimator:
    """Compares turns as a recipe's cells `estimator` and `scale` say.

    spread: the root mean square of raw advantages, by environment and level. running: other
    means that go on from update to update: the returns of roles, the rewards of worlds.
    """

    def __init__(
        self,
        recipe: Recipe,
        value: ValueFunction | None = None,
        log_ratios: LogRatios | None = None,
    ) -> None:
        self.spread: dict[str, float] = {}
        self.running: dict[str, float] = {}
        self._recipe = recipe
        self._is_whole = value is None and recipe.estimator in WHOLE
        kind = recipe.estimator if recipe.needs_values else "turn"
        self._valued = (
            None if value is None else Valued(value, kind, recipe.trace, self.running, log_ratios)
        )

    def __call__(
        self, groups: Sequence[Group], library: Library
    ) -> tuple[list[Turn], dict[str, float]]:
        """The turns of the groups with their advantages, and metrics; fits the value function."""
        groups = [_shaped(group, self._recipe) for group in groups]
        metrics = {"groups": float(len(groups))}
        if self._is_whole:
            found, flat = self._whole(groups)
            turns = self._scaled_by_world(found)
            metrics["flat_groups"] = float(flat)
        else:
            leveled = [
                replace(g, episodes=tuple(split_levels(g.episodes, library))) for g in groups
            ]
            if self._valued is None:
                credits, flat = self._by_state(leveled)
                metrics["flat_groups"] = float(flat)
            else:
                episodes = [e for g in leveled for e in g.episodes]
                # Before the fit: a value function that has seen these returns hides what was
                # better or worse than expected.
                better = self._valued.advantages(episodes)
                credits = [_Credit(e, raw) for e, raw in zip(episodes, better, strict=True)]
                # Imagined episodes are left out: they would teach it its own mistakes.
                metrics |= self._valued.fit([e for e in episodes if e.first.source == "real"])
            turns = self._scaled_by_level(credits)
        return turns, metrics | {"turns": float(len(turns))}

    def _whole(self, groups: Sequence[Group]) -> tuple[dict[str, list[_Credit]], int]:
        """One raw advantage an episode, by environment; and the number of flat groups."""
        found: dict[str, list[_Credit]] = defaultdict(list)
        flat = 0
        for group in groups:
            returns = np.array([return_of(e) for e in group.episodes])
            is_flat = np.ptp(returns) < ALIKE
            flat += is_flat
            if is_flat and not self._recipe.keep_flat:
                continue
            better = self._compared(group, returns)
            if self._recipe.scale == "group":
                better = by_deviation(better)
            for episode, value in zip(group.episodes, better, strict=True):
                raw = np.full(len(episode.steps), value)
                found[group.episodes[0].first.env_id].append(_Credit(episode, raw))
        return found, flat

    def _compared(self, group: Group, returns: Floats) -> Floats:
        kind = self._recipe.estimator
        if kind == "none":
            return returns
        if kind == "mean":
            return less_mean(returns)
        if kind == "rloo":
            return leave_one_out(returns)
        roles = [f"{e.first.env_id} as {e.first.agent_id}" for e in group.episodes]
        return over_roles(roles, returns, self.running)  # type: ignore[arg-type]

    def _by_state(self, groups: Sequence[Group]) -> tuple[list[_Credit], int]:
        """Group-in-group credit of groups with a difference; it needs states that repeat."""
        found: list[_Credit] = []
        flat = 0
        for group in groups:
            better = group_in_group(
                [_situation(e.steps[0]) for e in group.episodes],
                [_situation(s) for e in group.episodes for s in e.steps],
                [discounted_returns(*earned(e)) for e in group.episodes],
            )
            is_flat = max(np.abs(part).max() for part in better) < ALIKE
            flat += is_flat
            if not is_flat or self._recipe.keep_flat:
                found += [_Credit(e, b) for e, b in zip(group.episodes, better, strict=True)]
        return found, flat

    def _scaled_by_world(self, found: dict[str, list[_Credit]]) -> list[Turn]:
        """The turns; by environment, since rewards of different worlds have different units."""
        turns: list[Turn] = []
        for credits in found.values():
            whole = np.array([credit.raw[0] for credit in credits])
            spread = 1.0
            if self._recipe.scale == "world":
                spread = float(np.sqrt(np.mean(whole**2))) + 1e-6
            for credit, value in zip(credits, whole / spread, strict=True):
                turns += self._turns(credit.episode, [float(value)] * len(credit.raw))
        return self._whitened(turns)

    def _scaled_by_level(self, found: Iterable[_Credit]) -> list[Turn]:
        """The turns with their raw advantages, divided by the root mean square of their level.

        `spread` keeps that root mean square by environment and level. Imagined turns are divided by
        that of the last real ones: otherwise a small difference between values would grow to the
        size of a reward. Turns in pursuit of a subgoal are one level, and choices of subgoals
        another: the return of a choice spans many turns.
        """
        levels: dict[tuple[str, bool], list[_Credit]] = defaultdict(list)
        for credit in found:
            first = credit.episode.first
            pursues = first.option_id is not None and not first.is_choice
            level = first.env_id + " in pursuit" * pursues
            levels[level, first.source == "imagined"].append(credit)
        turns: list[Turn] = []
        for (level, imagined), of in levels.items():
            if not imagined or level not in self.spread:
                # Without any real turn yet, the imagined ones must set the scale themselves.
                squares = [a**2 for credit in of for a in credit.raw.tolist()]
                self.spread[level] = float(np.sqrt(np.mean(squares))) + 1e-6
            by = self.spread[level] if self._recipe.scale == "world" else 1.0
            for credit in of:
                turns += self._turns(credit.episode, [a / by for a in credit.raw.tolist()])
        return self._whitened(turns)

    def _turns(self, episode: Episode, advantages: Sequence[float]) -> list[Turn]:
        weights = [self._recipe.negative_weight if a < 0 else 1.0 for a in advantages]
        scaled = [a * w for a, w in zip(advantages, weights, strict=True)]
        return _samples(episode.steps, scaled)

    def _whitened(self, turns: list[Turn]) -> list[Turn]:
        if self._recipe.scale != "batch" or not turns:
            return turns
        raw = np.array([turn.advantage for turn in turns])
        white = whitened(raw, np.array([float(turn.chosen) for turn in turns]))
        pairs = zip(turns, white.tolist(), strict=True)
        return [replace(turn, advantage=value) for turn, value in pairs]


def _shaped(group: Group, recipe: Recipe) -> Group:
    """The group, where a recipe punishes length with that taken off each last reward."""
    if not recipe.most_tokens:
        return group
    episodes = []
    for episode in group.episodes:
        tokens = sum(turn.chosen for turn in _samples(episode.steps, [0.0] * len(episode.steps)))
        lost = overlong_penalty(tokens, recipe.most_tokens, recipe.soft_tokens)
        last = episode.steps[-1]
        last = replace(last, reward=None if last.reward is None else last.reward + lost)
        episodes.append(replace(episode, steps=(*episode.steps[:-1], last)))
    return replace(group, episodes=tuple(episodes))


_Situation = tuple[int, int | None, bool]


def _situation(step: Step) -> _Situation:
    """The state, the pursued subgoal, and whether a subgoal is chosen: compared turns share all."""
    # Choices in one state are compared with each other, whatever each of them chose.
    return step.state_key, step.option_id if not step.is_choice else None, step.is_choice


def _samples(steps: Sequence[Step], advantages: Sequence[float]) -> list[Turn]:
    """The steps that are samples of a policy, as the turns of one response."""
    pairs = zip(steps, advantages, strict=True)
    turns = [t for step, a in pairs if (t := as_sample(step, a)) is not None]
    tokens = sum(turn.chosen for turn in turns)
    return [replace(turn, response_tokens=tokens) for turn in turns]
