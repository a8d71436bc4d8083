"""Two levels in one record: choices of subgoals, and the turns that pursue them.

One policy acts at both levels, and the levels are credited apart. A choice earns all rewards of its
pursuit, discounted over the time that the pursuit took (SMDP: Sutton, Precup & Singh 1999). A turn
of a pursuit earns its own reward and that of reaching the subgoal, where the pursuit ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experience.episode import Episode, Group
from experience.options.option import USE, Library, Subgoal, option_id
from experience.policy import Decision
from experience.returns import discounted_returns
from experience.step import Step

REACHED = 1.0
"""The reward of reaching a subgoal, for the turns of its pursuit, on top of the world's rewards."""

Write = Callable[[Step, str, str], Decision]
"""(row, observation, action) -> a decision to take this action on this observation."""


@dataclass(frozen=True)
class Pursuit:
    """The turns under a subgoal, as an episode whose observations begin with the goal.

    The episode terminates if the goal is reached.
    """

    goal: str
    episode: Episode
    reached: bool

    @property
    def earned(self) -> float:
        """The discounted return of the pursuit, without a value at its end."""
        rewards = np.array([step.reward or 0.0 for step in self.episode.steps])
        discounts = np.array([step.discount for step in self.episode.steps])
        return float(discounted_returns(rewards, discounts)[0])


@dataclass(frozen=True)
class Levels:
    """An episode without the turns of pursuits, and its pursuits of subgoals.

    `choices` is None if every turn belongs to a pursuit.
    """

    choices: Episode | None
    pursuits: tuple[Pursuit, ...] = ()

    @property
    def episodes(self) -> list[Episode]:
        return [*([self.choices] if self.choices else []), *(p.episode for p in self.pursuits)]


def levels(episode: Episode, library: Library) -> Levels:
    """Splits an episode into its two levels. An episode without subgoals is not changed."""
    goals = library.goals
    if not any(step.option_id in goals for step in episode.steps) or episode.closing is None:
        return Levels(episode)
    upper: list[Step] = []
    lower: list[Pursuit] = []
    pursuit: list[Step] = []
    for step, following in episode.transitions:
        goal = (
            goals.get(step.option_id) if step.option_id is not None and not step.is_choice else None
        )
        # A choice carries the id of the subgoal that it starts, yet belongs to the upper level.
        if goal is None:
            upper.append(step)
            continue
        if upper and upper[-1].is_choice and step.reward is not None:
            # The SMDP reward of the choice: Σ γ^k R over the pursuit, folded in turn by turn.
            chosen = upper[-1]
            upper[-1] = replace(
                chosen,
                reward=(chosen.reward or 0.0) + chosen.discount * step.reward,
                discount=chosen.discount * step.discount,
            )
        reached = goal.reached(following.obs_text)
        pursuit.append(
            replace(
                step,
                obs_text=goal.shown(step.obs_text),
                reward=None if step.reward is None else step.reward + REACHED * reached,
                # Reached is terminated: what comes after is the reward of the next choice.
                discount=0.0 if reached else step.discount,
            )
        )
        if (
            reached
            or following.is_choice
            or following.option_id != step.option_id
            or following is episode.closing
        ):
            closing = replace(following, decision=None, obs_text=goal.shown(following.obs_text))
            lower.append(Pursuit(goal.name, Episode(tuple(pursuit), closing), reached))
            pursuit = []
    return Levels(Episode(tuple(upper), episode.closing) if upper else None, tuple(lower))


def split_levels(episodes: Iterable[Episode], library: Library) -> list[Episode]:
    """The choices and the pursuits of all episodes, as episodes that are credited apart."""
    return [level for episode in episodes for level in levels(episode, library).episodes]


def best_pursuits(group: Group, library: Library) -> list[Episode]:
    """The best pursuit of each subgoal from each observation where the group's episodes began it.

    Only pursuits that reached their goal are taken. They are good parts of episodes that may have
    failed as a whole.
    """
    reached: dict[tuple[str, str], list[Pursuit]] = defaultdict(list)
    for episode in group.episodes:
        for pursuit in levels(episode, library).pursuits:
            if pursuit.reached:
                reached[pursuit.goal, pursuit.episode.first.obs_text].append(pursuit)
    return [max(alike, key=lambda p: p.earned).episode for alike in reached.values()]


def in_hindsight(episode: Episode, library: Library, write: Write) -> list[Step]:
    """Rewrites a demonstration as if its expert had chosen the library's subgoals.

    At each turn, the subgoal that may start and is reached soonest is chosen; the actions until
    then become its pursuit.
    """
    goals = list(library.goals.values())
    if not goals or episode.closing is None:
        return list(episode.steps)
    seen = [s.obs_text for s in episode.rows]
    shown = list[Step]()
    t = 0
    while t < len(episode.steps):
        arrivals = [(end, goal) for goal in goals if (end := _arrival(goal, seen, t)) is not None]
        if not arrivals:
            step = episode.steps[t]
            done = step.decision.text if step.decision else ""
            shown.append(replace(step, decision=write(step, library.offered(seen[t]), done)))
            t += 1
            continue
        end, goal = min(arrivals, key=lambda arrival: arrival[0])
        first = episode.steps[t]
        choice = write(first, library.offered(seen[t]), USE + goal.name)
        shown.append(
            replace(
                first,
                decision=choice,
                # No time passes in a choice: γ = 1, so that the pursuit's rewards count in full.
                reward=0.0,
                discount=1.0,
                signals=(),
                option_id=option_id(goal.name),
                option_step=0,
            )
        )
        for age, step in enumerate(episode.steps[t:end], 1):
            done = step.decision.text if step.decision else ""
            shown.append(
                replace(
                    step,
                    decision=write(step, goal.shown(step.obs_text), done),
                    option_id=option_id(goal.name),
                    option_step=age,
                )
            )
        t = end
    return shown


def _arrival(goal: Subgoal, seen: Sequence[str], start: int) -> int | None:
    """The turn at which a pursuit from `start` first reaches the goal; None if it never does."""
    if not goal.starts(seen[start]):
        return None
    # A pursuit takes one turn at least, and at most the turns after which β would stop it.
    last = min(start + goal.most, len(seen) - 1)
    return next((t for t in range(start + 1, last + 1) if goal.reached(seen[t])), None)
