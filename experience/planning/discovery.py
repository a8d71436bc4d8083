"""Finding options: subtasks that respect the reward (STOMP), and programs that succeeded and
succeed again (skills).

Sutton, Machado, Holland, Timbers, Tanno & White 2022 (arXiv 2202.03466): a feature gives a subtask,
a subtask an option, an option a model, and models make planning shorter.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from experience.episode import Episode
from experience.options.option import Condition, Learned, Library, Program, option_id
from experience.planning.smdp import Bools, FiniteWorld, Floats, Model, backup
from experience.step import Boundary, Step, state_key


def reward_respecting(
    world: FiniteWorld, name: str, feature: Bools, values: Floats, bonus: float, sweeps: int = 200
) -> Learned:
    """The option that earns the true reward on its way and stops wherever v̂(s) + w̄·x(s) is worth
    more than going on.

    feature bool [S]: where the subtask's feature holds; values float [S]: the present v̂; bonus w̄
    in units of reward.
    """
    return _option(world, name, world.models, values + bonus * feature, sweeps)


def shortest_path(world: FiniteWorld, name: str, feature: Bools, sweeps: int = 200) -> Learned:
    """The option that attains the feature as soon as it can, whatever that costs: what
    reward-respecting ones are compared with."""
    blind = [Model(np.zeros(len(world.states)), m.arrival, m.starts) for m in world.models]
    return _option(world, name, blind, np.where(feature, 1.0, 0.0), sweeps)


def _option(
    world: FiniteWorld, name: str, models: Sequence[Model], stopping: Floats, sweeps: int
) -> Learned:
    """π and β of optimal stopping: u(s) = max_a r + γP max(stopping, u).

    Where no action may start, it has stopped.
    """
    u = np.full(len(world.states), -np.inf)
    for _ in range(sweeps):
        q = backup(models, np.maximum(stopping, u))
        u = q.max(0)
    known = np.flatnonzero(np.isfinite(u))
    return Learned.over(
        name,
        {world.states[i]: world.actions[int(q[:, i].argmax())] for i in known},
        [world.states[i] for i in known if stopping[i] >= u[i]],
    )


Replays = Callable[[Episode, Sequence[str]], float]
"""Does those actions again in the task of that episode, from its start, in the environment; the
return."""


def induce_skills(
    episodes: Iterable[Episode],
    replays: Replays,
    library: Library,
    *,
    shortest: int = 2,
    longest: int = 8,
    least_uses: int = 2,
    most: int = 4,
) -> Library:
    """`library` with the programs that most of the successful `episodes` of one environment share
    and that verify.

    Proposed: runs of `shortest` to `longest` actions found in at least `least_uses` episodes, by
    turns saved. Verified: the episode it came from is lived again in the environment and must earn
    what it earned. Kept: `most` at once, none that is part of one kept before it, none that was
    ever retired. Precondition: the first words that all observations before it share.
    """
    shown = [e for e in episodes if e.steps and not e.failed]
    uses: dict[tuple[str, tuple[str, ...]], dict[int, list[str]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for number, episode in enumerate(shown):
        turns = episode.acted
        for length in range(shortest, longest + 1):
            for start in range(len(turns) - length + 1):
                part = turns[start : start + length]
                uses[episode.first.env_id, tuple(a for _, a in part)][number].append(part[0][0])
    found = sorted(
        (skill for skill, where in uses.items() if len(where) >= least_uses),
        key=lambda skill: (-(len(skill[1]) - 1) * len(uses[skill]), skill),
    )
    kept: list[tuple[str, tuple[str, ...]]] = []
    for world, actions in found:
        if len(kept) == most:
            break
        if any(
            world == other and (_within(actions, longer) or _within(longer, actions))
            for other, longer in kept
        ):
            continue
        name = skill_name(world, actions)
        if name in library.records:
            continue
        source = shown[min(uses[world, actions])]
        again = replays(source, [action for _, action in source.acted])
        if source.total_reward is None or abs(again - source.total_reward) > 1e-6:
            continue
        seen = [o for where in uses[world, actions].values() for o in where]
        library = library.add(Program(name, actions, common_start(seen), world=world))
        kept.append((world, actions))
    return library


def skill_name(world: str, actions: Sequence[str]) -> str:
    """The same for the same actions in every run; 14 letters."""
    return f"skill-{state_key(chr(31).join((world, *actions))):016x}"[:14]


def retire(
    library: Library, episodes: Sequence[Episode], *, least_uses: int = 8, margin: float = 0.0
) -> Library:
    """Without the options whose uses, at least `least_uses`, ended in episodes that earned less on
    average than the others of the environments where it was used, by more than `margin`; none is
    judged on fewer."""
    returns: Mapping[int, list[float]] = defaultdict(list)
    used_in: Mapping[int, set[str]] = defaultdict(set)
    every = [(e, r) for e in episodes if not e.failed and (r := e.total_reward) is not None]
    for episode, earned in every:
        for used in {s.option_id for s in episode.steps if s.option_id is not None}:
            returns[used].append(earned)
            used_in[used].add(episode.first.env_id)
    bad = []
    for option in library:
        uses = returns.get(option_id(option.name), [])
        there = used_in[option_id(option.name)]
        others = [
            r
            for e, r in every
            if e.first.env_id in there
            and all(s.option_id != option_id(option.name) for s in e.steps)
        ]
        if (
            len(uses) >= least_uses
            and others
            and float(np.mean(uses)) < float(np.mean(others)) - margin
        ):
            bad.append(option.name)
    return library.retire(bad) if bad else library


def record_uses(library: Library, episodes: Sequence[Episode]) -> Library:
    """`library` with the uses of its options in those of `episodes` that are whole, which were not
    recorded before, in its records."""
    names = {option_id(option.name): option.name for option in library}
    for episode in (e for e in episodes if not e.failed):
        used: list[Step] = []
        for step in (*episode.steps, None):
            if used and (
                step is None or step.option_id != used[0].option_id or not step.option_step
            ):
                known = [s.reward for s in used[1:] if s.reward is not None]
                library = library.used(
                    names[used[0].option_id or 0],
                    bool(used[-1].boundary & Boundary.OPTION_END),
                    len(used) - 1,
                    sum(known),
                )
                used = []
            if step is not None and step.option_id in names and (used or step.option_step == 0):
                used.append(step)
    return library


def common_start(observations: Sequence[str]) -> Condition:
    """The condition that an observation begins with the words that all of `observations` begin
    with."""
    shared = observations[0]
    for other in observations[1:]:
        length = next(
            (i for i, (a, b) in enumerate(zip(shared, other, strict=False)) if a != b),
            min(len(shared), len(other)),
        )
        shared = shared[:length]
    whole = re.match(r"(?:.*\W)?", shared, re.DOTALL)
    return Condition(r"\A" + re.escape(whole[0] if whole else ""))


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    return any(
        tuple(whole[i : i + len(part)]) == tuple(part) for i in range(len(whole) - len(part) + 1)
    )
