"""Turns of steps: which can be learned from, what they earned, which are worth imitating."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from experience.episode import Episode, Group
from experience.learning.sequences.turn import Turn
from experience.policy import Decision
from experience.preferences.losses import Rule, agreement, answer_weights, implied_rewards
from experience.preferences.rankings import Ranking, by_people, by_return
from experience.returns import Floats, discounted_returns
from experience.step import Step

ALIKE = 1e-9
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
        versions=np.repeat(
            np.array([span.version for span in d.version_spans], np.int32),
            [span.tokens for span in d.version_spans],
        ),
    )


def as_turn(step: Step) -> Turn | None:
    """The step's exact tokens, to be imitated; None if the engine could not give them.

    Without prompt tokens it is None too: there is nothing to predict the first action token from.
    """
    d = step.decision
    if d is None or not d.token_exact or not len(d.action_ids) or not len(d.prompt_ids):
        return None
    seen = tuple(blob.hash for blob in step.obs_blobs)
    return replace(of_decision(d), pictures=seen, stream=step.stream_id, t=step.t)


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


def return_of(episode: Episode) -> float:
    """The discounted return of an episode, with the estimated value at its end if there is one.

    Its rewards are known: replay leaves out episodes with unknown rewards.
    """
    return float(discounted_returns(*earned(episode))[0])


def earned(episode: Episode) -> tuple[Floats, Floats, float]:
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
            returns[steps[0].env_id].append(return_of(Episode(tuple(steps), None)))
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
        returns = [return_of(e) for e in group.episodes]
        expert = bar.get(group.episodes[0].first.env_id, -np.inf)
        if np.ptp(returns) < ALIKE or max(returns) < expert:
            continue
        best = group.episodes[int(np.argmax(returns))]
        turns += [turn for step in best.steps if (turn := as_turn(step)) is not None]
    return turns


Likelihoods = Callable[[Sequence[Turn]], tuple[Tensor, Tensor]]
"""Turns -> log π and log π_ref of their actions, float [N] each."""


def ranked(groups: Sequence[Group]) -> list[Ranking]:
    """The groups' rankings by people where they said something, else by return."""
    found = []
    for group in groups:
        found += by_people([group]) or by_return([group])
    return found


def ranked_turns(
    rankings: Sequence[Ranking], rule: Rule, beta: float, likelihoods: Likelihoods
) -> tuple[list[Turn], dict[str, float]]:
    """The turns of ranked episodes; as advantages, −∂L/∂log π of their episode, L the rule's mean.

    An episode's log-probability is the sum over its turns. Episodes whose tokens are not known are
    left out. Advantages are multiplied by the number of tokens that a loss divides its sum by.
    """
    answers = [[_turns_of(e) for e in ranking.episodes] for ranking in rankings]
    flat = [turn for turns in answers for some in turns for turn in some]
    if not flat:
        return [], {"rankings": 0.0}
    widest = max(len(turns) for turns in answers)
    grades = torch.full((len(answers), widest), torch.nan)
    sums = torch.zeros(2, len(answers), widest)
    scored = torch.stack(likelihoods(flat))
    start = 0
    for row, (ranking, turns) in enumerate(zip(rankings, answers, strict=True)):
        for column, some in enumerate(turns):
            if some:
                grades[row, column] = ranking.grades[column]
                sums[:, row, column] = scored[:, start : start + len(some)].sum(1)
                start += len(some)
    weights, loss, count = answer_weights(rule, sums[0], sums[1], grades, beta)
    implied = implied_rewards(sums[0], sums[1], beta)
    right, _ = agreement(implied, grades)
    tokens = max(sum(turn.chosen for turn in flat), 1)
    found = [
        replace(turn, advantage=float(weights[row, column]) * tokens)
        for row, turns in enumerate(answers)
        for column, some in enumerate(turns)
        for turn in some
    ]
    return found, {
        "rankings": count,
        "preference_loss": loss,
        "preference_agreement": float(right) / max(count, 1.0),
        "turns": float(len(found)),
    }


def _turns_of(episode: Episode) -> list[Turn]:
    """All turns of an episode; empty if the tokens of one of them are not known."""
    turns = [as_turn(step) for step in episode.steps if step.decision is not None]
    known = [turn for turn in turns if turn is not None]
    return known if len(known) == len(turns) else []
