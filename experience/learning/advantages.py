"""Advantages of turns within groups, and the choice of turns that are worth imitating."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from experience.episode import Episode, Group
from experience.learning.batch import Turn
from experience.learning.value import ValueFunction
from experience.options.hierarchy import split_levels
from experience.options.option import Library
from experience.policy import Decision
from experience.returns import Floats, discounted_returns, leave_one_out
from experience.step import Step

_ALIKE = 1e-9
"""Returns that differ by less are equal: their difference is an error of rounding."""


def of_decision(d: Decision, advantage: float = 0.0) -> Turn:
    """The decision as a turn; a sample of unknown temperature is scored at 1."""
    temperature = 1.0 if d.temperature is None else d.temperature
    return Turn(
        d.prompt_ids,
        d.action_ids,
        d.logprobs,
        advantage,
        temperature,
        d.allowed_ids,
        d.allowed_counts,
    )


def as_turn(step: Step) -> Turn | None:
    """The step's exact tokens, to be imitated; None if the engine could not give them.

    Without prompt tokens it is None too: there is nothing to predict the first action token from.
    """
    d = step.decision
    if d is None or not d.token_exact or not len(d.action_ids) or not len(d.prompt_ids):
        return None
    return replace(of_decision(d), pictures=tuple(blob.hash for blob in step.obs_blobs))


def as_sample(step: Step, advantage: float) -> Turn | None:
    """The step as a sample of the policy that acted, with its advantage.

    None if the action is no sample, or its tokens are not known: no ratio of policies can be taken.
    """
    turn = as_turn(step)
    if turn is None or step.decision is None or not step.decision.sampled:
        return None
    return replace(turn, advantage=advantage)


def planned_turns(groups: Iterable[Group]) -> list[Turn]:
    """The turns of the groups' real episodes whose action a planner chose, to be imitated."""
    steps = (s for g in groups for e in g.episodes for s in e.steps)
    return [turn for s in steps if _is_planned(s) and (turn := as_turn(s)) is not None]


def _is_planned(step: Step) -> bool:
    """Whether a planner chose a real action: it is no sample, and a value spoke for it."""
    if step.source != "real" or step.decision is None:
        return False
    return not step.decision.sampled and step.value_estimate is not None


def _return(episode: Episode) -> float:
    """The discounted return of an episode, with the estimated value at its end if there is one.

    Its rewards are known: replay leaves out episodes with unknown rewards.
    """
    return float(discounted_returns(*_earned(episode))[0])


def _earned(episode: Episode) -> tuple[Floats, Floats, float]:
    """The rewards of an episode, its discounts, and the estimated value of what follows it."""
    rewards = np.array([s.reward for s in episode.steps], float)
    discounts = np.array([s.discount for s in episode.steps], float)
    end = episode.closing.value_estimate if episode.closing else None
    return rewards, discounts, end or 0.0


def expert_returns(demonstrations: Iterable[Step]) -> dict[str, float]:
    """For each environment, the return that nine of ten episodes of its expert reach."""
    episodes: dict[tuple[bytes, int], list[Step]] = defaultdict(list)
    for step in demonstrations:
        episodes[step.stream_id, step.episode].append(step)
    returns: dict[str, list[float]] = defaultdict(list)
    for steps in episodes.values():
        if all(s.reward is not None for s in steps):
            returns[steps[0].env_id].append(_return(Episode(tuple(steps), None)))
    # Not the minimum: one failed demonstration would make every success good enough.
    return {env_id: float(np.percentile(of, 10)) for env_id, of in returns.items()}


def best_turns(groups: Iterable[Group], bar: Mapping[str, float]) -> list[Turn]:
    """The turns of the best episode of each group, if it is as good as an expert's.

    `bar` gives, for each environment, the return that an expert reaches. Groups without a
    difference in return are left out.

    One episode a task is taken, so that easy tasks, which many episodes solve, do not drown the
    others. The best episode of a group that failed, or half succeeded, is not imitated: it holds
    the actions that made it fail.
    """
    turns: list[Turn] = []
    for group in groups:
        returns = [_return(e) for e in group.episodes]
        expert = bar.get(group.episodes[0].first.env_id, -np.inf)
        if np.ptp(returns) < _ALIKE or max(returns) < expert:
            continue
        best = group.episodes[int(np.argmax(returns))]
        turns += [turn for step in best.steps if (turn := as_turn(step)) is not None]
    return turns


def advantages(
    groups: Sequence[Group], negative_weight: float = 1.0
) -> tuple[list[Turn], dict[str, float]]:
    """The turns of groups whose episodes differ in return, each with its episode's advantage.

    Â = leave-one-out within the group, divided by the root mean square over the batch's groups of
    the same environment, and times `negative_weight` if it is below zero.
    """
    raw: dict[str, list[tuple[Group, np.ndarray]]] = defaultdict(list)
    flat = 0
    for group in groups:
        returns = np.array([_return(e) for e in group.episodes])
        if np.ptp(returns) < _ALIKE:
            flat += 1
        else:
            raw[group.episodes[0].first.env_id].append((group, leave_one_out(returns)))
    turns = []
    # By environment: rewards of different worlds have different units.
    for found in raw.values():
        spread = float(np.sqrt(np.mean(np.concatenate([a for _, a in found]) ** 2))) + 1e-6
        for group, advantage in found:
            for episode, value in zip(group.episodes, advantage / spread, strict=True):
                scaled = float(value) * (negative_weight if value < 0 else 1.0)
                turns += [t for s in episode.steps if (t := as_sample(s, scaled)) is not None]
    return turns, {
        "groups": float(len(groups)),
        "flat_groups": float(flat),
        "turns": float(len(turns)),
    }


def turn_advantages(
    groups: Sequence[Group],
    value: ValueFunction,
    spread: dict[str, float],
    negative_weight: float = 1.0,
) -> tuple[list[Turn], dict[str, float]]:
    """All turns of the groups, each with its own advantage over the value of its observation.

    Â_t = G^λ_t − v(O_t), divided by its root mean square over the environment's real turns of the
    same level (Schulman et al. 2016, eq. 16).

    `spread` keeps that root mean square by environment and level. Imagined turns are divided by
    that of the last real ones: otherwise a small difference between values would grow to the size
    of a reward. Turns in pursuit of a subgoal are one level, and choices of subgoals another: the
    return of a choice spans many turns.
    """
    episodes = [e for g in groups for e in g.episodes]
    values, targets = value.targets(episodes)
    better = [(target - v).tolist() for v, target in zip(values, targets, strict=True)]
    turns = _scaled(zip(episodes, better, strict=True), spread, negative_weight)
    return turns, {"groups": float(len(groups)), "turns": float(len(turns))}


def state_advantages(
    groups: Sequence[Group], spread: dict[str, float], negative_weight: float = 1.0
) -> tuple[list[Turn], dict[str, float]]:
    """The turns of groups with a difference, each with its episode's advantage plus its own.

    This is group-in-group credit (GiGPO, arXiv 2505.10978), with leave-one-out for both baselines.
    It needs states that repeat, and no value function.

    Â_t = (R − mean of the others' R) + (G_t − mean of the others' G)

    The first difference is over the group's episodes from the same start, the second over its
    turns in the same state; a difference is 0 if there are no others. Advantages are scaled as in
    `turn_advantages`.
    """
    found: list[tuple[Episode, list[float]]] = []
    flat = 0
    for group in groups:
        to_go = [discounted_returns(*_earned(e)) for e in group.episodes]
        whole = _over_alike(
            [_situation(e.steps[0]) for e in group.episodes], np.array([g[0] for g in to_go])
        )
        lengths = [len(e.steps) for e in group.episodes]
        better = np.repeat(whole, lengths) + _over_alike(
            [_situation(s) for e in group.episodes for s in e.steps], np.concatenate(to_go)
        )
        if np.abs(better).max() < _ALIKE:
            flat += 1
        else:
            parts = np.split(better, np.cumsum(lengths)[:-1])
            found += zip(group.episodes, [part.tolist() for part in parts], strict=True)
    turns = _scaled(found, spread, negative_weight)
    return turns, {
        "groups": float(len(groups)),
        "flat_groups": float(flat),
        "turns": float(len(turns)),
    }


_Situation = tuple[int, int | None, bool]


def _situation(step: Step) -> _Situation:
    """The state, the pursued subgoal, and whether a subgoal is chosen: compared turns share all."""
    # Choices in one state are compared with each other, whatever each of them chose.
    return step.state_key, step.option_id if not step.is_choice else None, step.is_choice


def _over_alike(situations: Sequence[_Situation], returns: Floats) -> Floats:
    """Each return less the mean of the others in its situation, float [N]; 0 without others."""
    alike: dict[_Situation, list[int]] = defaultdict(list)
    for place, situation in enumerate(situations):
        alike[situation].append(place)
    better = np.zeros(len(returns))
    for places in alike.values():
        if len(places) > 1:
            better[places] = leave_one_out(returns[places])
    return better


def _scaled(
    found: Iterable[tuple[Episode, Sequence[float]]],
    spread: dict[str, float],
    negative_weight: float,
) -> list[Turn]:
    """The turns with their raw advantages, divided by the root mean square of their level."""
    raw: dict[tuple[str, bool], list[tuple[Step, float]]] = defaultdict(list)
    for episode, better in found:
        pursues = episode.first.option_id is not None and not episode.first.is_choice
        level = episode.first.env_id + " in pursuit" * pursues
        raw[level, episode.first.source == "imagined"] += zip(episode.steps, better, strict=True)
    turns: list[Turn] = []
    for (level, imagined), of in raw.items():
        if not imagined or level not in spread:
            # Without any real turn yet, the imagined ones must set the scale themselves.
            spread[level] = float(np.sqrt(np.mean([a**2 for _, a in of]))) + 1e-6
        for step, advantage in of:
            scaled = advantage / spread[level] * (negative_weight if advantage < 0 else 1.0)
            turn = as_sample(step, scaled)
            if turn is not None:
                turns.append(turn)
    return turns


class AdvantageEstimator:
    """Compares turns as `kind` says: "group", "state" or "turn"; a value function means "turn".

    `spread` is the root mean square of raw advantages, by environment and level.
    """

    def __init__(self, kind: str, negative_weight: float, value: ValueFunction | None) -> None:
        self.spread: dict[str, float] = {}
        self._by_state = kind == "state"
        self._negative_weight = negative_weight
        self._value = value

    def __call__(
        self, groups: Sequence[Group], library: Library
    ) -> tuple[list[Turn], dict[str, float]]:
        """The turns of the groups with their advantages, and metrics; fits the value function."""
        if self._value is None and not self._by_state:
            return advantages(groups, self._negative_weight)
        leveled = [replace(g, episodes=tuple(split_levels(g.episodes, library))) for g in groups]
        if self._value is None:
            return state_advantages(leveled, self.spread, self._negative_weight)
        # Before the fit: a value function that has seen these returns hides what was better or
        # worse than expected.
        turns, metrics = turn_advantages(leveled, self._value, self.spread, self._negative_weight)
        # Imagined episodes are left out: they would teach the value function its own mistakes.
        real = [e for g in leveled for e in g.episodes if e.first.source == "real"]
        return turns, metrics | self._value.fit(real)
