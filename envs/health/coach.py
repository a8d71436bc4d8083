"""health/coach: accompany a person for months; what you say today pays in weeks, and saying too
much ends it.

Four decisions a day (08, 12, 16 and 21 h). The agent sees what a watch and the person tell (some
days the watch is not worn). It may send one message, ask, or be quiet. Rewards are the body's
measurements: each day's sleep, glucose in range and training balance, and the person's own goal at
28, 90 and 180 days. Each is the difference to the same person's first four weeks without a coach.
Messages are a burden. A stream never resets: `reset(options={"continue": True})` goes on with the
same life, and an episode is only a window of `days`. The person is a deterministic response model
(see `person`), no language model.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from envs.authoring import Outcome, Range, SignalKind, ToolWorld, action
from envs.health import advice
from envs.health.outcomes import Baseline, in_range, signals_of
from envs.health.person import Person
from envs.health.persona import FAMILIES, Persona

_DECISIONS = (8, 12, 16, 21)
_HELD_OUT_FAMILIES = ("retired", "founder")
_LEAVES_AT = 0.05
"""The engagement at which a person ends the coaching."""


@dataclass(frozen=True)
class Client:
    persona: Persona
    seed: int


class Coach(ToolWorld[Client]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "sleep": SignalKind("fraction", "instrument"),
        "sleep_regularity": SignalKind("fraction", "instrument"),
        "glucose_in_range": SignalKind("fraction", "instrument"),
        "training": SignalKind("fraction", "instrument"),
        "overtrained": SignalKind("count", "instrument"),
        "messages": SignalKind("count", "env_state"),
        "left": SignalKind("count", "env_state"),
        "goal": SignalKind("fraction", "instrument"),
    }
    reward_weights: ClassVar[dict[str, float]] = {
        "sleep": 0.02,
        "sleep_regularity": 0.01,
        "glucose_in_range": 0.01,
        "training": 0.03,
        "overtrained": -0.05,
        "messages": -0.003,
        "left": -0.5,
        "goal": 0.5,
    }
    briefing: ClassVar[str] = (
        "You coach one person for some weeks, with four decisions a day (at 8, 12, 16 and 21 "
        "h). What you say today shows in the body days later. Propose something only when it fits "
        "the moment: every message makes the next one count less, a message that does not fit "
        "annoys, and a person who is annoyed too often leaves. On most turns say nothing. Gains are "
        "measured against the same person's four weeks without a coach."
    )
    forms: ClassVar[dict[str, str]] = {
        "quiet": "Say nothing until the next decision",
        "suggest_activity": "Propose so many minutes of activity today",
        "suggest_bedtime": "Propose an hour to go to bed; 24 is midnight, 25 is one at night",
        "suggest_meals": "Propose to eat so many kcal more a day, or less if KCAL is negative",
        "ask": "Ask how it goes",
    }
    meanings: ClassVar[dict[str, str]] = {
        "sleep": "times each day's gain in sleep",
        "sleep_regularity": "times each day's gain in the regularity of sleep",
        "glucose_in_range": "times each day's gain in time with healthy blood sugar",
        "training": "times each day's gain in training",
        "overtrained": "for each day of too much training",
        "messages": "for each message or question",
        "left": "if the person leaves, which ends the episode",
        "goal": "times the progress towards the person's own goal, measured on days 28, 90 and 180",
    }
    goes_back: ClassVar[bool] = True
    oracle_target: ClassVar[float] = 0.35
    cheats = (
        "suggest_activity 90 hard",
        "suggest_meals -600",
        "suggest_bedtime 20",
        "ask mood",
        "suggest_activity nan easy",
        '{"name": "quiet", "arguments": {"goal": 1}}',
    )

    def __init__(self, days: int = 28) -> None:
        super().__init__()
        self.days = days
        self._person: Person | None = None

    @property
    def max_turns(self) -> int:  # type: ignore[override]
        return self.days * len(_DECISIONS)

    @property
    def person(self) -> Person:
        assert self._person is not None
        return self._person

    def tasks(self, split: str, rng: np.random.Generator) -> Client:
        """Families of people are either for training or held out."""
        held_out = split == "heldout"
        families = [f for f in FAMILIES if (f in _HELD_OUT_FAMILIES) == held_out]
        return Client(Persona.drawn(families, rng), int(rng.integers(2**31)))

    def signature(self, task: Client) -> str:
        return f"{task.persona.name} {task.persona.age} for {task.persona.goal}, {task.seed}"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        given = dict(options or {})
        goes_on = given.pop("continue", False)
        if not goes_on or self._person is None:
            return super().reset(seed=seed, options=given)
        self._turn = 0
        self._note = ""
        self._ended = False
        return self._seen(), self._info({})

    def begin(self) -> None:
        self._person = Person.born(self.task.persona, self.task.seed)
        self._person.live(2)  # a person is born at six; the first decision is at eight
        self._reply = ""
        self._baseline = Baseline.of(self._person)

    def observe(self) -> str:
        lines = [_headline(self.person), *_watch(self.person)]
        return "\n".join([*lines, self._reply] if self._reply else lines)

    def describe(self) -> str:
        person = self.person
        who = f"The person: a {person.persona.name} of {person.persona.age} years"
        lines = [
            f"{who}, whose goal is {_GOALS[person.persona.goal]}.",
            f"It is day {person.day}, {person.local_hour} h.",
            *_watch_in_words(person),
        ]
        if self._reply:
            lines.append(f'The answer to your last message: "{self._reply}".')
        return "\n".join(lines)

    def example(self) -> str:
        return "ask mood"

    @action
    def quiet(self) -> Outcome:
        """Say nothing."""
        return self._until_the_next_decision("")

    @action
    def suggest_activity(
        self, minutes: Annotated[int, Range(5, 90, 5)], how: Literal["easy", "moderate", "hard"]
    ) -> Outcome:
        """Propose so many minutes of activity today."""
        return self._until_the_next_decision(advice.propose_activity(self.person, minutes, how))

    @action
    def suggest_bedtime(self, hour: Annotated[int, Range(20, 25)]) -> Outcome:
        """Propose an hour to go to bed (25 is one at night)."""
        return self._until_the_next_decision(advice.propose_bedtime(self.person, hour))

    @action
    def suggest_meals(self, kcal: Annotated[int, Range(-600, 300, 100)]) -> Outcome:
        """Propose to eat so many kcal more or less a day."""
        return self._until_the_next_decision(advice.propose_meals(self.person, kcal))

    @action
    def ask(self, about: Literal["sleep", "mood", "body"]) -> Outcome:
        """Ask how it goes."""
        return self._until_the_next_decision(advice.ask(self.person, about))

    def _until_the_next_decision(self, reply: str) -> Outcome:
        """Lives on; a day's measurements are reported when the day is over."""
        self._reply = reply
        signals: dict[str, Any] = {"messages": float(bool(reply))}
        day = self.person.day
        self.person.live(_hours_to_the_next_decision(self.person.local_hour))
        if self.person.day != day and self.person.days:
            signals |= signals_of(self.person, self._baseline)
        if self.person.attention.engagement <= _LEAVES_AT:
            return signals | {"left": 1.0}, True
        return signals, False

    def expert_action(self) -> str:
        """A coach with a routine: activity at noon, bedtime on Sunday evenings, else quiet."""
        hour = self.person.local_hour
        if hour == 12 and "ill" not in self._reply:
            return "suggest_activity 30 moderate"
        return "suggest_bedtime 23" if hour == 21 and self.person.day % 7 == 6 else "quiet"

    def oracle_action(self) -> str:
        """The best proposal for the next two days, each tried on a copy of the person.

        The copy shares the person's random numbers: the oracle knows tomorrow.
        """
        # So few proposals are followed at this habituation that trials are not worth their time.
        if self.person.attention.habituation > 0.6:
            return "quiet"
        return max(["quiet", *_PROPOSALS[self.person.local_hour]], key=self._foreseen)

    def _foreseen(self, proposal: str) -> float:
        """The rewards of two days that begin with `proposal`, and the value of what follows."""
        trial = copy.copy(self)
        trial._person = copy.deepcopy(self.person)
        total = 0.0
        for step in [proposal, *["quiet"] * 8]:
            signals, ended = trial.act(step)
            total += sum(
                self.reward_weights.get(name, 0) * (v[0] if isinstance(v, tuple) else v)
                for name, v in signals.items()
            )
            if ended:
                break
        return total + _later(trial.person, self._baseline.start.kg)


_PROPOSALS = {
    8: ("suggest_meals -300",),
    12: (
        "suggest_activity 30 moderate",
        "suggest_activity 45 moderate",
        "suggest_activity 30 hard",
    ),
    16: ("suggest_activity 30 moderate",),
    21: ("suggest_bedtime 23",),
}
"""What the oracle tries at each hour."""


def _later(person: Person, start_kg: float) -> float:
    """A rough value of body and mood beyond the two days that the oracle tries."""
    fitness = 0.004 * min(person.body.fitness, 80)
    weight = 0.02 * max(person.body.kg - start_kg, 0)
    return fitness - weight + 0.05 * person.attention.engagement


def _hours_to_the_next_decision(hour: int) -> int:
    later = next((decision for decision in _DECISIONS if decision > hour), _DECISIONS[0] + 24)
    return later - hour


def _headline(person: Person) -> str:
    who = f"{person.persona.name} {person.persona.age}, wants {person.persona.goal}"
    return f"{who}; day {person.day} {person.local_hour:02d}h"


_GOALS = {
    "sleep": "better sleep",
    "fitness": "more fitness",
    "weight": "to lose weight",
    "glucose": "healthier blood sugar",
}
"""The goals of people, as a coach would say them."""


def _watch_in_words(person: Person) -> list[str]:
    """What the watch and the scales show of yesterday, with units."""
    if not person.worn:
        return ["The watch was not worn; there are no measurements of yesterday."]
    if not person.days:
        return ["There are no measurements before the first night."]
    last = person.days[-1]
    return [
        f"Yesterday's measurements: {last.asleep_hours:.0f} h of sleep from "
        f"{last.bedtime % 24:.0f} h on; resting heart rate {person.heart_rate:.0f} a minute; "
        f"{last.active_minutes:.0f} min of activity; weight {person.body.kg:.1f} kg; blood sugar "
        f"in the healthy range {in_range(last):.0%} of the time."
    ]


def _watch(person: Person) -> list[str]:
    """What the watch and the scales show of yesterday; nothing before the first night."""
    if not person.worn:
        return ["watch not worn"]
    if not person.days:
        return []
    last = person.days[-1]
    slept = f"slept {last.asleep_hours:.0f}h from {last.bedtime % 24:.0f}h"
    moved = f"heart {person.heart_rate:.0f}, active {last.active_minutes:.0f}min"
    return [f"{slept}, {moved}, {person.body.kg:.1f}kg, in range {in_range(last):.0%}"]
