"""Options: ways of acting that may start, act, and may stop (Sutton, Precup & Singh 1999), and libraries of them.

A primitive action is the option with β = 1. To start another, a policy writes `use NAME`. That choice is a row of its
own (option_step 0), in which no time passes; then the collector lets the option act until β says stop, and its rows
carry the option's id and its age (option_step 1, 2, …). An option's π may itself write `use NAME`: so options nest.
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
from experience.strict_json import dumps

USE = "use "


class Option(Protocol):
    """I, π, β over observations and `age`, the number of actions that it has taken. `act` gives None where the option
    knows no way on: it is over there."""

    @property
    def name(self) -> str: ...

    def starts(self, observation: str) -> bool: ...

    def act(self, observation: str, age: int) -> str | None: ...

    def stops(self, observation: str, age: int) -> float:
        """β in [0, 1]: the probability of stopping on arrival at `observation`."""


@dataclass(frozen=True)
class Condition:
    """A predicate over what is seen: a regular expression that must, or must not, be found in the observation."""

    pattern: str = ""
    found: bool = True

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise RecordError(
                f"{self.pattern!r} is no regular expression: {error}", "see Python's `re`"
            ) from error

    def __call__(self, observation: str) -> bool:
        return bool(re.search(self.pattern, observation, re.MULTILINE)) is self.found


@dataclass(frozen=True)
class Program:
    """A verified skill: `actions` one after another where `precondition` holds; it ends with the last of them, or as
    soon as `until` holds. `world` is the environment that it is for; empty is any."""

    name: str
    actions: tuple[str, ...]
    precondition: Condition = Condition()
    until: Condition = Condition("", found=False)  # never
    world: str = ""
    kind: Literal["program"] = "program"

    def starts(self, observation: str) -> bool:
        return self.precondition(observation)

    def act(self, observation: str, age: int) -> str | None:
        return self.actions[age] if age < len(self.actions) else None

    def stops(self, observation: str, age: int) -> float:
        return float(self.until(observation))


@dataclass(frozen=True)
class Learned:
    """A sub-policy in a table: `actions` by the state's name (`state_key` of the observation, as text); it starts where
    it knows what to do and stops where `stopping` says so, or where it does not know."""

    name: str
    actions: Mapping[str, str]
    stopping: frozenset[str] = frozenset()
    kind: Literal["learned"] = "learned"

    @classmethod
    def over(cls, name: str, actions: Mapping[str, str], stopping: Iterable[str]) -> Learned:
        """From observations themselves."""
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
    """An intent for a policy that reads: `goal` is put before what it sees, until `reached` holds or `most` turns are
    gone. It gives no action of its own: who acts is the policy."""

    name: str
    goal: str
    reached: Condition
    precondition: Condition = Condition()
    most: int = 20
    kind: Literal["subgoal"] = "subgoal"

    def starts(self, observation: str) -> bool:
        return self.precondition(observation) and not self.reached(observation)

    def act(self, observation: str, age: int) -> str | None:
        return None

    def stops(self, observation: str, age: int) -> float:
        return float(age >= self.most or self.reached(observation))

    def shown(self, observation: str) -> str:
        """What the policy reads while it pursues this."""
        return f"goal: {self.goal}\n{observation}"


@dataclass(frozen=True)
class Experiments:
    """A campaign in a laboratory, from where it may start to the end of the episode or until `most` turns are gone. It
    gives no action of its own: who acts is whoever plans experiments (`campaign.experiment`)."""

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
    """How many ages of the option its π tells apart: a program is at another place in its list after each action."""
    return len(option.actions) if isinstance(option, Program) else 1


def stops_at(option: Option, observation: str, age: int) -> float:
    """β on arrival after `age` actions; 1 where the option knows no way on, as a program after its last action."""
    return 1.0 if option.act(observation, age) is None else option.stops(observation, age)


Stored = Program | Learned | Subgoal | Experiments
Pursued = Subgoal | Experiments
"""Options that are pursued by somebody else than themselves."""


@dataclass(frozen=True)
class Record:
    """How an option has done: starts n, how often it reached its end, turns it took, and what it earned per start."""

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
    """Options by name, each with its record. A new version for every change; never changed in place."""

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
        """Without the programs that are for other environments."""
        others = {
            n
            for n, o in self.options.items()
            if isinstance(o, Program) and o.world not in ("", env_id)
        }
        return (
            self
            if not others
            else replace(self, options={n: o for n, o in self.options.items() if n not in others})
        )

    def started(self, action: str, observation: str) -> Stored | None:
        """The option that an action's text starts here, if it is `use NAME` of one that may start."""
        if not action.startswith(USE):
            return None
        option = self.options.get(action[len(USE) :].strip())
        return option if option is not None and option.starts(observation) else None

    def admissible(self, observation: str) -> list[str]:
        """What can be written here to start an option."""
        return [USE + o.name for o in self if o.starts(observation)]

    def offered(self, observation: str) -> str:
        """What the policy reads where no option is under way: the subgoals that may be chosen, then what is seen."""
        names = self.subgoals(observation)
        return f"choose: {' '.join(names)}\n{observation}" if names else observation

    def subgoals(self, observation: str) -> list[str]:
        """The names of those that may be chosen here."""
        return [g.name for g in self.goals.values() if g.starts(observation)]

    @cached_property
    def goals(self) -> dict[int, Subgoal]:
        """Its subgoals, by the number that rows carry."""
        return {option_id(o.name): o for o in self if isinstance(o, Subgoal)}

    def add(self, option: Stored) -> Library:
        """Raises RecordError for a name that is taken by another option, or that cannot be written after `use`."""
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
            {option.name: Record()} | dict(self.records),
            self.version + 1,
        )

    def retire(self, names: Iterable[str]) -> Library:
        """Without those; their records stay, so that what failed is not proposed again as new."""
        gone = set(names)
        return replace(
            self,
            options={n: o for n, o in self.options.items() if n not in gone},
            version=self.version + 1,
        )

    def used(self, name: str, reached: bool, turns: int, earned: float) -> Library:
        """With one more use in the record."""
        record = self.records.get(name, Record()).after(reached, turns, earned, self.version)
        return replace(self, records={**self.records, name: record})

    def dump(self) -> bytes:
        """The library as JSON: data, never code, so that a stored one can be loaded from anybody."""
        return dumps(
            {
                "version": self.version,
                "options": [_plain(o) for o in self],
                "records": {n: asdict(r) for n, r in self.records.items()},
            },
            sort_keys=True,
        ).encode()

    @classmethod
    def load(cls, data: bytes) -> Library:
        """Raises RecordError for what `dump` did not write."""
        try:
            read = json.loads(data)
            options = [_built(dict(o)) for o in read["options"]]
            records = {str(n): Record(**r) for n, r in read["records"].items()}
            return cls({o.name: o for o in options}, records, int(read["version"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(
                f"this is no library of options: {error}", "give what Library.dump wrote"
            ) from error


@lru_cache(maxsize=4)
def library_in(data: bytes) -> Library:
    """What `Library.dump` wrote, read once for as long as it stays the same; none for no bytes. Raises RecordError."""
    return Library.load(data) if data else Library()


def option_id(name: str) -> int:
    """The number that rows carry: a hash of the name, so that it means the same in every version and run. int63."""
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
    match plain["kind"]:
        case "campaign":
            return Experiments(**plain)  # type: ignore[arg-type]
        case "program":
            return Program(**{**plain, "actions": tuple(plain["actions"])})  # type: ignore[arg-type]
        case "learned":
            stopping = frozenset(plain["stopping"])  # type: ignore[call-overload]
            return Learned(**{**plain, "stopping": stopping})  # type: ignore[arg-type]
        case "subgoal":
            return Subgoal(**plain)  # type: ignore[arg-type]
    raise ValueError(f"kind {plain['kind']!r} of option is not known")
