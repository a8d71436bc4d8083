"""How options are found: subtasks that respect the reward (STOMP), and skills from episodes.

STOMP (Sutton, Machado, Holland, Timbers, Tanno & White 2022, arXiv 2202.03466): a feature gives a
subtask, the subtask an option, the option a model, and the models make planning shorter. A skill is
a program of actions that several successful episodes share, and that succeeds when it is repeated.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from experience.episode import Episode
from experience.options.option import Condition, Learned, Library, Program, option_id
from experience.planning.smdp import Bools, FiniteWorld, Floats, Model, backup
from experience.step import Boundary, Step, state_key


def reward_respecting(
    world: FiniteWorld, name: str, feature: Bools, values: Floats, bonus: float, sweeps: int = 200
) -> Learned:
    """The option that maximises the true reward on its way, and a stopping value at its end.

    It stops where v̂(s) + w̄·x(s) is worth at least as much as going on. feature: bool [S], x.
    values: float [S], the present v̂. bonus: w̄, in units of reward.
    """
    return _option(world, name, world.models, values + bonus * feature, sweeps)


def shortest_path(world: FiniteWorld, name: str, feature: Bools, sweeps: int = 200) -> Learned:
    """The option that reaches the feature, bool [S], as soon as it can, whatever that costs.

    It is the baseline that reward-respecting options are compared with.
    """
    without_reward = [Model(np.zeros(len(world.states)), m.arrival, m.starts) for m in world.models]
    return _option(world, name, without_reward, np.where(feature, 1.0, 0.0), sweeps)


def _option(
    world: FiniteWorld, name: str, models: Sequence[Model], stopping: Floats, sweeps: int
) -> Learned:
    """π and β of optimal stopping: u(s) = max_a r + γP max(stopping, u).

    stopping: float [S], the value of stopping in each state.
    """
    # −∞, not 0: where no action may start, the option can only stop, and is worth `stopping`.
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
"""Takes an episode and actions, repeats them in the episode's task from its start, in the
environment, and returns the return."""


@dataclass
class _Candidate:
    """A run of actions in one environment, and the observations before each of its uses.

    `uses` holds these observations by the number of the episode that contains them.
    """

    world: str
    actions: tuple[str, ...]
    uses: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def turns_saved(self) -> int:
        """Decisions that one choice of the skill replaces, over all episodes that use it."""
        return (len(self.actions) - 1) * len(self.uses)

    def is_nested_with(self, other: _Candidate) -> bool:
        """Whether one of the two is a part of the other, in the same environment."""
        if self.world != other.world:
            return False
        return _within(self.actions, other.actions) or _within(other.actions, self.actions)


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
    """Adds the programs to `library` that successful episodes share and that succeed again.

    Candidates are runs of `shortest` to `longest` actions that occur in at least `least_uses`
    episodes of one environment, those that save most turns first. A candidate is verified by
    repeating its first episode: the return must be the same. At most `most` are added; none that is
    a part of another one or contains it, and none whose name has a record already: what was retired
    is not proposed again. The precondition is the first words that all observations before it
    share.
    """
    whole = [episode for episode in episodes if episode.steps and not episode.failed]
    added: list[_Candidate] = []
    for candidate in _candidates(whole, shortest, longest, least_uses):
        if len(added) == most:
            break
        if any(candidate.is_nested_with(other) for other in added):
            continue
        name = skill_name(candidate.world, candidate.actions)
        if name in library.records or not _succeeds_again(whole[min(candidate.uses)], replays):
            continue
        seen = [text for before in candidate.uses.values() for text in before]
        program = Program(name, candidate.actions, common_start(seen), world=candidate.world)
        library = library.add(program)
        added.append(candidate)
    return library


def _candidates(
    episodes: Sequence[Episode], shortest: int, longest: int, least_uses: int
) -> list[_Candidate]:
    """The runs of actions that at least `least_uses` episodes contain, most turns saved first."""
    found: dict[tuple[str, tuple[str, ...]], _Candidate] = {}
    for number, episode in enumerate(episodes):
        world = episode.first.env_id
        for before, actions in _runs(episode.acted, shortest, longest):
            candidate = found.setdefault((world, actions), _Candidate(world, actions))
            candidate.uses[number].append(before)
    often = [candidate for candidate in found.values() if len(candidate.uses) >= least_uses]
    # The names break ties, so that the same episodes give the same skills in every process.
    return sorted(often, key=lambda c: (-c.turns_saved, c.world, c.actions))


def _runs(
    turns: Sequence[tuple[str, str]], shortest: int, longest: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each run of `shortest` to `longest` actions, after the observation before it."""
    for length in range(shortest, longest + 1):
        for start in range(len(turns) - length + 1):
            run = turns[start : start + length]
            yield run[0][0], tuple(action for _, action in run)


def _succeeds_again(episode: Episode, replays: Replays) -> bool:
    """Whether the episode's actions earn the same return in the environment once more.

    A return that chance or a fault gave is not confirmed, and neither is an unknown one.
    """
    again = replays(episode, [action for _, action in episode.acted])
    return episode.total_reward is not None and abs(again - episode.total_reward) <= 1e-6


def skill_name(world: str, actions: Sequence[str]) -> str:
    """The name of a skill, 14 characters: the same for the same actions in every run."""
    return f"skill-{state_key(chr(31).join((world, *actions))):016x}"[:14]


def retire(
    library: Library, episodes: Sequence[Episode], *, least_uses: int = 8, margin: float = 0.0
) -> Library:
    """Drops options whose mean return is below that of episodes without them by over `margin`.

    The other episodes are those of the environments where the option was used. An option with fewer
    than `least_uses` episodes is kept: so few say little.
    """
    known = [(e, r) for e in episodes if not e.failed and (r := e.total_reward) is not None]
    bad = []
    for option in library:
        with_it, without = _returns_with_and_without(known, option_id(option.name))
        if len(with_it) < least_uses or not without:
            continue
        if float(np.mean(with_it)) < float(np.mean(without)) - margin:
            bad.append(option.name)
    return library.retire(bad) if bad else library


def _returns_with_and_without(
    episodes: Sequence[tuple[Episode, float]], number: int
) -> tuple[list[float], list[float]]:
    """Returns of the episodes that use option `number`, and of others in the same environments."""
    using = [any(step.option_id == number for step in e.steps) for e, _ in episodes]
    worlds = {e.first.env_id for (e, _), used in zip(episodes, using, strict=True) if used}
    with_it: list[float] = []
    without: list[float] = []
    for (episode, earned), used in zip(episodes, using, strict=True):
        if used:
            with_it.append(earned)
        elif episode.first.env_id in worlds:  # a harder environment must not speak for the option
            without.append(earned)
    return with_it, without


def record_uses(library: Library, episodes: Sequence[Episode]) -> Library:
    """Adds the uses of the library's options in whole `episodes` to its records.

    Give each episode once: it is not remembered which were recorded.
    """
    names = {option_id(option.name): option.name for option in library}
    for episode in episodes:
        if episode.failed:
            continue
        for choice, turns in _uses(episode, names):
            earned = sum(step.reward for step in turns if step.reward is not None)
            reached = bool((turns[-1] if turns else choice).boundary & Boundary.OPTION_END)
            library = library.used(names[choice.option_id or 0], reached, len(turns), earned)
    return library


def _uses(episode: Episode, known: Container[int]) -> Iterator[tuple[Step, list[Step]]]:
    """Each choice of an option in `known`, with the turns that the option then took."""
    choice: Step | None = None
    turns: list[Step] = []
    for step in episode.steps:
        # A turn goes on with the use if it carries the same id and an age above 0.
        if choice is not None and (step.option_id != choice.option_id or not step.option_step):
            yield choice, turns
            choice, turns = None, []
        if choice is not None:
            turns.append(step)
        elif step.option_id in known and step.option_step == 0:
            choice = step
    if choice is not None:
        yield choice, turns


def common_start(observations: Sequence[str]) -> Condition:
    """The condition that an observation begins with the words that all `observations` share."""
    shared = observations[0]
    for other in observations[1:]:
        shared = shared[: _same_characters(shared, other)]
    # Back to the end of a word: "inbox 3" and "inbox 32" share "inbox ", not "inbox 3".
    whole_words = re.match(r"(?:.*\W)?", shared, re.DOTALL)
    return Condition(r"\A" + re.escape(whole_words[0] if whole_words else ""))


def _same_characters(one: str, other: str) -> int:
    """The number of characters that both texts begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    differing = next((i for i, (a, b) in pairs if a != b), None)
    return min(len(one), len(other)) if differing is None else differing


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether `part` stands somewhere in `whole`, in one piece."""
    starts = range(len(whole) - len(part) + 1)
    return any(tuple(whole[i : i + len(part)]) == tuple(part) for i in starts)
