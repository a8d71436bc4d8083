"""Credit: what each turn of a group is worth, compared with others; and which turns are worth imitating."""

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


def of_decision(d: Decision, advantage: float = 0.0) -> Turn:
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
    """The step's exact tokens, to be imitated; None where the engine could not give them, or nothing stands before them
    that the first could be predicted from."""
    d = step.decision
    return (
        of_decision(d)
        if d is not None and d.token_exact and len(d.action_ids) and len(d.prompt_ids)
        else None
    )


def as_sample(step: Step, advantage: float) -> Turn | None:
    """The step as a sample of the policy that acted, to be weighed by its advantage; None where it is none, or its
    tokens are not known: no ratio of policies can be taken."""
    turn = as_turn(step)
    return (
        replace(turn, advantage=advantage)
        if turn is not None and step.decision and step.decision.sampled
        else None
    )


def planned_turns(groups: Iterable[Group]) -> list[Turn]:
    """What a planner chose in the groups' real episodes, to be imitated."""
    chosen = (
        s
        for g in groups
        for e in g.episodes
        for s in e.steps
        if s.source == "real"
        and s.decision
        and not s.decision.sampled
        and s.value_estimate is not None
    )
    return [turn for step in chosen if (turn := as_turn(step)) is not None]


def _return(episode: Episode) -> float:
    """The discounted return of its first state, with the value at its end where one was estimated. Its rewards are
    known: replay leaves out what is not."""
    return float(discounted_returns(*_earned(episode))[0])


def _earned(episode: Episode) -> tuple[Floats, Floats, float]:
    """Its rewards, discounts, and what was estimated to come after them."""
    end = episode.closing.value_estimate if episode.closing else None
    return (
        np.array([s.reward for s in episode.steps], float),
        np.array([s.discount for s in episode.steps], float),
        end or 0.0,
    )


def expert_returns(demonstrations: Iterable[Step]) -> dict[str, float]:
    """By environment, the return that nine of ten of its expert's episodes reach."""
    episodes: dict[tuple[bytes, int], list[Step]] = defaultdict(list)
    for step in demonstrations:
        episodes[step.stream_id, step.episode].append(step)
    returns: dict[str, list[float]] = defaultdict(list)
    for steps in episodes.values():
        if all(s.reward is not None for s in steps):
            returns[steps[0].env_id].append(_return(Episode(tuple(steps), None)))
    return {env_id: float(np.percentile(of, 10)) for env_id, of in returns.items()}


def best_turns(groups: Iterable[Group], bar: Mapping[str, float]) -> list[Turn]:
    """The turns of the best episode of each group that differs in return, if it is as good as an expert's (`bar`, by
    environment): one a task, so that easy tasks, solved by many episodes, do not drown the others. The best of a group
    that failed, or half succeeded, is learned from as every other is, and not imitated: it holds what made it fail."""
    turns = []
    for group in groups:
        returns = [_return(e) for e in group.episodes]
        if np.ptp(returns) >= 1e-9 and max(returns) >= bar.get(
            group.episodes[0].first.env_id, -np.inf
        ):
            turns += [
                t
                for s in group.episodes[int(np.argmax(returns))].steps
                if (t := as_turn(s)) is not None
            ]
    return turns


def advantages(
    groups: Sequence[Group], negative_weight: float = 1.0
) -> tuple[list[Turn], dict[str, float]]:
    """Turns of the groups whose episodes differ in return, each with its episode's advantage.

    Â = leave-one-out within the group, divided by its spread over the batch's groups of the same environment, and
    times `negative_weight` where it is below zero.
    """
    raw: dict[str, list[tuple[Group, np.ndarray]]] = defaultdict(list)
    flat = 0
    for group in groups:
        returns = np.array([_return(e) for e in group.episodes])
        if np.ptp(returns) < 1e-9:
            flat += 1
        else:
            raw[group.episodes[0].first.env_id].append((group, leave_one_out(returns)))
    turns = []
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
    """All turns of the groups, each with its own advantage: how much better it turned out than its state promised.

    Â_t = G^λ_t − v(O_t), divided by the root mean square of it over the environment's real turns of its level
    (Schulman et al. 2016, eq. 16). `spread` keeps that by environment and level: imagined turns are measured by the
    last real ones, so that a small difference between values is not blown up to the size of a reward, and turns in
    pursuit of a subgoal apart from the choices of one, whose returns span many of them.
    """
    episodes = [e for g in groups for e in g.episodes]
    better = [(target - v).tolist() for v, target in zip(*value.targets(episodes), strict=True)]
    turns = _scaled(zip(episodes, better, strict=True), spread, negative_weight)
    return turns, {"groups": float(len(groups)), "turns": float(len(turns))}


def state_advantages(
    groups: Sequence[Group], spread: dict[str, float], negative_weight: float = 1.0
) -> tuple[list[Turn], dict[str, float]]:
    """The turns of groups in which something differs, each with its episode's advantage and its own: group-in-group
    (GiGPO, arXiv 2505.10978, with leave-one-out for both baselines), which needs states that come again, and no value.

    Â_t = (R − mean of the others' R) + (G_t − mean of the others' G), over the group's episodes from the same start and
    over its turns in the same state; 0 for what is alone. Scaled as `turn_advantages` does.
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
        if np.abs(better).max() < 1e-9:
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
    """What turns that are compared have in common: the state, the subgoal pursued, and whether one is chosen."""
    return step.state_key, step.option_id if not step.is_choice else None, step.is_choice


def _over_alike(situations: Sequence[_Situation], returns: Floats) -> Floats:
    """float [N]: each return over the mean of the others from the same situation; 0 for what is alone."""
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
    """The turns of episodes with their raw advantages, over the root mean square of their environment and level."""
    raw: dict[tuple[str, bool], list[tuple[Step, float]]] = defaultdict(list)
    for episode, better in found:
        pursues = episode.first.option_id is not None and not episode.first.is_choice
        level = episode.first.env_id + " in pursuit" * pursues
        raw[level, episode.first.source == "imagined"] += zip(episode.steps, better, strict=True)
    turns: list[Turn] = []
    for (level, imagined), of in raw.items():
        if not imagined or level not in spread:
            spread[level] = float(np.sqrt(np.mean([a**2 for _, a in of]))) + 1e-6
        for step, advantage in of:
            scaled = advantage / spread[level] * (negative_weight if advantage < 0 else 1.0)
            turns += [t] if (t := as_sample(step, scaled)) is not None else []
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
