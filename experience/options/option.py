"""Options (Sutton, Precup & Singh 1999), and libraries of them.

An option has an initiation set I, a policy π, and a termination probability β. A primitive action
is the option with β = 1. A policy starts another option by writing `use NAME`. That choice is a row
of its own (option_step 0), in which no time passes. Then the option acts until β stops it; its rows
carry the option's id and its age (option_step 1, 2, …). Options nest: an option's π may write
`use NAME` too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Literal, Protocol

from experience.errors import RecordError
from experience.step import state_key
from experience.text.strict_json import dumps

USE = "use "


class Option(Protocol):
    """I (`starts`), π (`act`) and β (`stops`) over observations.

    `age` is the number of actions that the option has taken.
    """

    @property
    def name(self) -> str: ...

    def starts(self, observation: str) -> bool: ...

    def act(self, observation: str, age: int) -> str | None:
        """The next action; None if the option has no action here, which ends it."""

    def stops(self, observation: str, age: int) -> float:
        """β in [0, 1]: the probability of stopping on arrival at `observation`."""


@dataclass(frozen=True)
class Condition:
    """A predicate over observations: a regular expression that must, or must not, be found."""

    pattern: str = ""
    found: bool = True

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise RecordError(
                f"{self.pattern!r} is not a regular expression: {error}", "see Python's `re`"
            ) from error

    def __call__(self, observation: str) -> bool:
        return bool(re.search(self.pattern, observation, re.MULTILINE)) is self.found


@dataclass(frozen=True)
class Program:
    """A verified skill: `actions` in their order, from where `precondition` holds.

    It ends with the last action, or as soon as `until` holds. `world` is the id of its environment;
    empty means any.
    """

    name: str
    actions: tuple[str, ...]
    precondition: Condition = Condition()
    until: Condition = Condition("", found=False)  # never
    world: str = ""
    kind: Literal["program"] = "program"

    def starts(self, observation: str) -> bool:
        return self.precondition(observation)

    def act(self, observation: str, age: int) -> str | None:
        # Ages count the option's own actions: after the last there is none, which ends the option.
        return self.actions[age] if age < len(self.actions) else None

    def stops(self, observation: str, age: int) -> float:
        return float(self.until(observation))


@dataclass(frozen=True)
class Learned:
    """A sub-policy in a table: `actions` by `state_key` of the observation, as text.

    It starts where the table has an action. It stops in the states of `stopping`, and where the
    table has no action.
    """

    name: str
    actions: Mapping[str, str]
    stopping: frozenset[str] = frozenset()
    kind: Literal["learned"] = "learned"

    @classmethod
    def over(cls, name: str, actions: Mapping[str, str], stopping: Iterable[str]) -> Learned:
        """Builds the option from observations instead of their keys."""
        return cls(name, {_key(o): a for o, a in actions.items()}, frozenset(map(_key, stopping)))

    def starts(self, observation: str) -> bool:
        return _key(observation) in self.actions

    def act(self, observation: str, age: int) -> str | None:
        return self.actions.get(_key(observation))

    def stops(self, observation: str, age: int) -> float:
        key = _key(observation)
        return float(key in self.stopping or key not in self.actions)


@dataclass(frozen=True)
class Subgoal:
    """A goal for a policy that reads: `goal` is written before each observation.

    It ends when `reached` holds, or after `most` turns. It has no actions of its own: the policy
    acts.
    """

    name: str
    goal: str
    reached: Condition
    precondition: Condition = Condition()
    most: int = 20
    kind: Literal["subgoal"] = "subgoal"

    def starts(self, observation: str) -> bool:
        # Not where it is reached already: the pursuit would end before its first turn.
        return self.precondition(observation) and not self.reached(observation)

    def act(self, observation: str, age: int) -> str | None:
        return None

    def stops(self, observation: str, age: int) -> float:
        return float(age >= self.most or self.reached(observation))

    def shown(self, observation: str) -> str:
        """The observation as the policy reads it during the pursuit."""
        return f"goal: {self.goal}\n{observation}"


@dataclass(frozen=True)
class Experiments:
    """A campaign of experiments in a laboratory.

    It ends with the episode, or after `most` turns. It has no actions of its own: the planner of
    experiments acts (`campaign.experiment`).
    """

    name: str
    precondition: Condition = Condition()
    most: int = 50
    kind: Literal["campaign"] = "campaign"

    def starts(self, observation: str) -> bool:
        return self.precondition(observation)

    def act(self, observation: str, age: int) -> str | None:
        return None

    def stops(self, observation: str, age: int) -> float:
        return float(age >= self.most)


def stages(option: Option) -> int:
    """The number of ages that the option's π tells apart: a program has one for each action."""
    return len(option.actions) if isinstance(option, Program) else 1


def stops_at(option: Option, observation: str, age: int) -> float:
    """β on arrival after `age` actions; 1 if the option has no further action."""
    return 1.0 if option.act(observation, age) is None else option.stops(observation, age)


Stored = Program | Learned | Subgoal | Experiments
Pursued = Subgoal | Experiments
"""Options without actions of their own: the policy or a planner acts for them."""


@dataclass(frozen=True)
class Record:
    """The history of an option: starts `n`, starts that reached the option's end, turns, and the
    sum of returns; `last_version` is that of the library when the option was last used."""

    n: int = 0
    reached: int = 0
    turns: int = 0
    earned: float = 0.0
    last_version: int = 0

    @property
    def success(self) -> float | None:
        return self.reached / self.n if self.n else None

    def after(self, reached: bool, turns: int, earned: float, version: int) -> Record:
        return Record(
            self.n + 1, self.reached + reached, self.turns + turns, self.earned + earned, version
        )


@dataclass(frozen=True)
class Library:
    """Options by name, each with its record. A library never changes: a change makes a new one."""

    options: Mapping[str, Stored] = field(default_factory=dict)
    records: Mapping[str, Record] = field(default_factory=dict)
    version: int = 0

    def __iter__(self) -> Iterator[Stored]:
        return iter(self.options.values())

    def __len__(self) -> int:
        return len(self.options)

    def __getitem__(self, name: str) -> Stored:
        return self.options[name]

    def within(self, env_id: str) -> Library:
        """The library without the programs of other environments."""
        kept = {
            name: option
            for name, option in self.options.items()
            if not isinstance(option, Program) or option.world in ("", env_id)
        }
        return self if len(kept) == len(self.options) else replace(self, options=kept)

    def started(self, action: str, observation: str) -> Stored | None:
        """The option that `action` starts here; None unless it is `use NAME` of one that fits."""
        if not action.startswith(USE):
            return None
        option = self.options.get(action[len(USE) :].strip())
        return option if option is not None and option.starts(observation) else None

    def admissible(self, observation: str) -> list[str]:
        """The actions that start an option here."""
        return [USE + o.name for o in self if o.starts(observation)]

    def offered(self, observation: str) -> str:
        """The observation as the policy reads it when no option acts: it begins with the subgoals
        that may be chosen."""
        names = self.subgoals(observation)
        return f"choose: {' '.join(names)}\n{observation}" if names else observation

    def subgoals(self, observation: str) -> list[str]:
        """The names of the subgoals that may be chosen here."""
        return [g.name for g in self.goals.values() if g.starts(observation)]

    @cached_property
    def goals(self) -> dict[int, Subgoal]:
        """The subgoals of the library, by the id that rows carry."""
        return {option_id(o.name): o for o in self if isinstance(o, Subgoal)}

    def add(self, option: Stored) -> Library:
        """The library with one more option.

        Raises RecordError if another option has the name, or the name cannot follow `use`.
        """
        if not re.fullmatch(r"[\w.:-]{1,60}", option.name):
            raise RecordError(
                f"option name {option.name!r}", "use 1 to 60 letters, digits and _ . : -"
            )
        if option.name in self.options and self.options[option.name] != option:
            raise RecordError(
                f"there is already another option {option.name!r}",
                "retire it first, or take a new name",
            )
        return Library(
            {**self.options, option.name: option},
            # The old record wins: an option that comes back after it was retired is not new.
            {option.name: Record()} | dict(self.records),
            self.version + 1,
        )

    def retire(self, names: Iterable[str]) -> Library:
        """The library without these options. Their records stay: a retired option is not new."""
        gone = set(names)
        return replace(
            self,
            options={n: o for n, o in self.options.items() if n not in gone},
            version=self.version + 1,
        )

    def used(self, name: str, reached: bool, turns: int, earned: float) -> Library:
        """The library with one more use in the record of an option."""
        record = self.records.get(name, Record()).after(reached, turns, earned, self.version)
        return replace(self, records={**self.records, name: record})

    def dump(self) -> bytes:
        """The library as JSON: data and no code, so that a file of a stranger is safe to load."""
        return dumps(
            {
                "version": self.version,
                "options": [_plain(o) for o in self],
                "records": {n: asdict(r) for n, r in self.records.items()},
            },
            # Equal libraries have equal bytes: bundles compare bytes to tell what must be sent.
            sort_keys=True,
        ).encode()

    @classmethod
    def load(cls, data: bytes) -> Library:
        """Reads what `dump` wrote. Raises RecordError for anything else."""
        try:
            read = json.loads(data)
            options = [_built(dict(o)) for o in read["options"]]
            records = {str(n): Record(**r) for n, r in read["records"].items()}
            return cls({o.name: o for o in options}, records, int(read["version"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(
                f"this is not a library of options: {error}", "give what Library.dump wrote"
            ) from error


@lru_cache(maxsize=4)
def library_in(data: bytes) -> Library:
    """`Library.load` with a cache; an empty library for no bytes."""
    return Library.load(data) if data else Library()


def option_id(name: str) -> int:
    """The id that rows carry, int63: a hash of the name, so that all versions and runs agree."""
    # The column is a signed integer of 64 bits: one bit less keeps the id positive.
    return state_key(f"option/{name}") >> 1


def _key(observation: str) -> str:
    return f"{state_key(observation):016x}"


def _plain(option: Stored) -> dict[str, object]:
    plain = asdict(option)
    return {n: sorted(v) if isinstance(v, frozenset) else v for n, v in plain.items()}


def _built(plain: dict[str, object]) -> Stored:
    for name in ("precondition", "until", "reached"):
        if name in plain:
            plain[name] = Condition(**plain[name])  # type: ignore[arg-type]
    # A closed list of kinds: a file can name no class of its own.
    match plain["kind"]:
        case "campaign":
            return Experiments(**plain)  # type: ignore[arg-type]
        case "program":
            plain["actions"] = tuple(plain["actions"])  # type: ignore[arg-type]
            return Program(**plain)  # type: ignore[arg-type]
        case "learned":
            stopping = frozenset(plain["stopping"])  # type: ignore[call-overload]
            return Learned(**{**plain, "stopping": stopping})  # type: ignore[arg-type]
        case "subgoal":
            return Subgoal(**plain)  # type: ignore[arg-type]
    raise ValueError(f"kind {plain['kind']!r} of option is not known")
