"""Two levels in one record: which subgoal is chosen, and what is done to reach it, by one policy and credited apart.

A choice is credited with all that was earned while its subgoal was pursued, discounted over the time that it took
(SMDP: Sutton, Precup & Singh 1999); a turn within it with whether the subgoal was reached, which is an end of its own.
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
"""What reaching a subgoal is worth to the turns that led there, beside what the world gave for them."""

Write = Callable[[Step, str, str], Decision]
"""(row, observation, action) -> the action as a decision taken on reading the observation."""


@dataclass(frozen=True)
class Pursuit:
    """The turns under a subgoal as an episode, which reads its goal first and ends where that is reached."""

    goal: str
    episode: Episode
    reached: bool

    @property
    def earned(self) -> float:
        """Its discounted return; nothing is expected after it."""
        rewards = np.array([step.reward or 0.0 for step in self.episode.steps])
        return float(
            discounted_returns(rewards, np.array([step.discount for step in self.episode.steps]))[0]
        )


@dataclass(frozen=True)
class Levels:
    """An episode as its choices see it (None if it has no turn of its own), and the pursuits of subgoals within it."""

    choices: Episode | None
    pursuits: tuple[Pursuit, ...] = ()

    @property
    def episodes(self) -> list[Episode]:
        return [*([self.choices] if self.choices else []), *(p.episode for p in self.pursuits)]


def levels(episode: Episode, library: Library) -> Levels:
    """The two levels of an episode; one without subgoals has only the upper, and is left as it is."""
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
        if goal is None:
            upper.append(step)
            continue
        if upper and upper[-1].is_choice and step.reward is not None:
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
    """Of each subgoal, from each situation in which episodes of the group took it up, the pursuit that earned most of
    those that reached it: parts that went well of what may have failed as a whole."""
    reached: dict[tuple[str, str], list[Pursuit]] = defaultdict(list)
    for episode in group.episodes:
        for pursuit in levels(episode, library).pursuits:
            if pursuit.reached:
                reached[pursuit.goal, pursuit.episode.first.obs_text].append(pursuit)
    return [max(alike, key=lambda p: p.earned).episode for alike in reached.values()]


def in_hindsight(episode: Episode, library: Library, write: Write) -> list[Step]:
    """A demonstration as it would have been given with the library's subgoals: wherever one of them may start and is
    reached soonest, it is chosen, and pursued by what was done until then."""
    goals = list(library.goals.values())
    if not goals or episode.closing is None:
        return list(episode.steps)
    seen, shown, t = [s.obs_text for s in episode.rows], list[Step](), 0
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
    """When what was seen first reaches the goal that is pursued from `start`; None if never in its time."""
    if not goal.starts(seen[start]):
        return None
    return next(
        (
            t
            for t in range(start + 1, min(start + goal.most, len(seen) - 1) + 1)
            if goal.reached(seen[t])
        ),
        None,
    )
