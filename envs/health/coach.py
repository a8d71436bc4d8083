"""health/coach: accompany a person for months; what you say today pays in weeks, and saying too
much ends it.

Four decisions a day (08, 12, 16 and 21 h). The agent sees what a watch and the person tell (some
days the watch is not worn) and may send one message, ask, or be quiet. Rewards are the body's
measured facts: each day's sleep, glucose in range and training balance, and the person's own goal
at 28, 90 and 180 days, each less what the same person's first four weeks without a coach would have
measured; messages are a burden. A stream never resets: `reset(options={"continue": True})` goes on
with the same life, and an episode is only a window of `days`. The person is a deterministic
response model (see person), no language model.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from envs.authoring import Outcome, Range, SignalKind, ToolWorld, action
from envs.health import physiology as body
from envs.health.person import FAMILIES, GOALS, Day, Person, Persona

_DECISIONS = (8, 12, 16, 21)
_HELD_OUT_FAMILIES = ("retired", "founder")
MILESTONES = (28, 90, 180)


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

    def tasks(self, split: str, rng: np.random.Generator) -> Client:
        """Families of people are either for training or held out."""
        families = [f for f in FAMILIES if (f in _HELD_OUT_FAMILIES) == (split == "heldout")]
        persona = Persona(
            str(rng.choice(families)),
            str(rng.choice(GOALS)),
            int(rng.integers(20, 75)),
            round(float(rng.normal(80, 10)), 1),
            float(rng.integers(44, 51)) / 2,
            round(float(rng.uniform(0.2, 1.5)), 2),
            round(float(rng.uniform(0.3, 0.9)), 2),
            round(float(rng.uniform(0.4, 1.0)), 2),
            float(rng.integers(0, 3)),
        )
        return Client(persona, int(rng.integers(2**31)))

    def signature(self, task: Client) -> str:
        return f"{task.persona.name} {task.persona.age} for {task.persona.goal}, {task.seed}"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        if options and options.get("continue") and self._person is not None:
            self._turn, self._note, self._ended = 0, "", False
            return self._seen(), self._info({})
        return super().reset(
            seed=seed, options={k: v for k, v in (options or {}).items() if k != "continue"}
        )

    def begin(self) -> None:
        self._person = Person.born(self.task.persona, self.task.seed)
        self._person.live(2)
        self._start = self._person.kg, self._person.fitness
        self._said = ""
        twin = copy.deepcopy(self._person)
        twin.live(28 * 24)
        self._alone = {
            name: float(
                np.mean([_facts_of(twin.days[:i])[name] for i in range(7, len(twin.days) + 1)])
            )
            for name in ("sleep", "sleep_regularity", "glucose_in_range", "training")
        }
        self._alone["goal"] = self.goal_reached(twin)

    @property
    def person(self) -> Person:
        assert self._person is not None
        return self._person

    def observe(self) -> str:
        p = self.person
        lines = [
            f"{p.persona.name} {p.persona.age}, wants {p.persona.goal}; day {p.hour // 24} "
            f"{p.hour % 24:02d}h"
        ]
        if not p.worn:
            lines.append("watch not worn")
        elif p.days:
            last = p.days[-1]
            lines.append(
                f"slept {last.asleep_hours:.0f}h from {last.bedtime % 24:.0f}h, heart "
                f"{p.heart_rate:.0f}, "
                f"active {last.active_minutes:.0f}min, {p.kg:.1f}kg, in range "
                f"{last.in_range / max(last.glucose_steps, 1):.0%}"
            )
        return "\n".join([*lines, *([self._said] if self._said else [])])

    @action
    def quiet(self) -> Outcome:
        """Say nothing."""
        return self._after("")

    @action
    def suggest_activity(
        self, minutes: Annotated[int, Range(5, 90, 5)], how: Literal["easy", "moderate", "hard"]
    ) -> Outcome:
        """Propose so many minutes of activity today."""
        p = self.person
        fits = -1.0 if p.ill else 0.6 if 10 <= p.hour % 24 <= 16 else -0.2
        fits -= max(0.0, p.fatigue - p.fitness / 2) / 20 + (minutes > 60) * 0.3
        if p.hears(fits):
            p.planned_minutes += minutes
            p.planned_load += minutes / 10 * {"easy": 0.6, "moderate": 1.0, "hard": 1.8}[how]
            return self._after(f"will do {minutes}min")
        return self._after("not today")

    @action
    def suggest_bedtime(self, hour: Annotated[int, Range(20, 25)]) -> Outcome:
        """Propose an hour to go to bed (25 is one at night)."""
        p = self.person
        if p.hears(0.6 - abs(hour - p.wanted_bedtime) / 4 if p.hour % 24 >= 16 else -0.3):
            p.wanted_bedtime = float(hour)
            return self._after(f"bed at {hour % 24}h")
        return self._after("no")

    @action
    def suggest_meals(self, kcal: Annotated[int, Range(-600, 300, 100)]) -> Outcome:
        """Propose to eat so many kcal more or less a day."""
        p = self.person
        if p.hears(0.5 - abs(kcal) / 800 if p.hour % 24 in (8, 12) else -0.2):
            p.diet_kcal = float(kcal)
            return self._after("ok")
        return self._after("no")

    @action
    def ask(self, about: Literal["sleep", "mood", "body"]) -> Outcome:
        """Ask how it goes."""
        p = self.person
        p.today.messages += 1
        p.habituation = min(1.0, p.habituation + 0.05)
        told = {
            "sleep": f"bed at {p.wanted_bedtime % 24:.0f}h mostly",
            "body": "ill"
            if p.ill
            else "tired"
            if body.performance(p.fitness, p.fatigue) < 0
            else "fine",
            "mood": "annoyed" if p.habituation > 0.5 else "open",
        }[about]
        return self._after(told)

    def _after(self, said: str) -> Outcome:
        """Lives on to the next decision; a day's facts are told when it is over."""
        p, self._said = self.person, said
        signals: dict[str, Any] = {"messages": float(bool(said))}
        before = len(p.days), p.hour // 24
        here = p.hour % 24
        later = next((h for h in _DECISIONS if h > here), _DECISIONS[0] + 24)
        p.live(later - here)
        if p.hour // 24 != before[1] and p.days:
            signals |= self._facts(p)
        if p.engagement <= 0.05:
            return signals | {"left": 1.0}, True
        return signals, False

    def _facts(self, p: Person) -> dict[str, Any]:
        found = _facts_of(p.days)
        signals: dict[str, Any] = {
            name: (value - self._alone[name], f"{value:.2f}") for name, value in found.items()
        }
        signals["overtrained"] = float(p.fatigue > p.fitness)
        if p.hour // 24 in MILESTONES:
            reached = self.goal_reached(p)
            signals["goal"] = (
                reached - self._alone["goal"],
                f"{p.persona.goal} {reached:.2f} at day {p.hour // 24}",
            )
        return signals

    def goal_reached(self, p: Person) -> float:
        """How much of the person's own goal is there, in [0, 1]."""
        weeks = max(p.hour / 168, 1.0)
        recent = p.days[-14:]
        reached: Any = {
            "sleep": np.mean([1 - abs(d.asleep_hours - 8) / 4 for d in recent]),
            "fitness": (p.fitness - self._start[1]) / 60 + 0.3,
            "weight": (self._start[0] - p.kg) / (0.15 * weeks),
            "glucose": np.mean([d.in_range / max(d.glucose_steps, 1) for d in recent]) * 2 - 1,
        }[p.persona.goal]
        return min(max(float(reached), 0.0), 1.0)

    def expert_action(self) -> str:
        """A coach with a routine: activity at noon every day, bedtime on Sunday evenings, otherwise
        quiet."""
        hour, day = self.person.hour % 24, self.person.hour // 24
        if hour == 12 and "ill" not in self._said:
            return "suggest_activity 30 moderate"
        return "suggest_bedtime 23" if hour == 21 and day % 7 == 6 else "quiet"

    def oracle_action(self) -> str:
        """Sees the body and the mood, and knows tomorrow: tries each proposal on a copy of the
        person for two days."""
        if self.person.habituation > 0.6:
            return "quiet"
        tries = {
            8: ("suggest_meals -300",),
            12: (
                "suggest_activity 30 moderate",
                "suggest_activity 45 moderate",
                "suggest_activity 30 hard",
            ),
            16: ("suggest_activity 30 moderate",),
            21: ("suggest_bedtime 23",),
        }
        options = ["quiet", *tries[self.person.hour % 24]]
        return max(options, key=self._foreseen)

    def _foreseen(self, what: str) -> float:
        kept, said = self._person, self._said
        self._person = copy.deepcopy(kept)
        total = 0.0
        try:
            for step in [what, *["quiet"] * 8]:
                name, arguments = self.read(step)
                signals, ended = getattr(self, name)(**arguments)
                total += sum(
                    self.reward_weights.get(n, 0) * (v[0] if isinstance(v, tuple) else v)
                    for n, v in signals.items()
                )
                if ended:
                    break
            p = self.person
            total += (
                0.004 * min(p.fitness, 80)
                - 0.02 * max(p.kg - self._start[0], 0)
                + 0.05 * p.engagement
            )
        finally:
            self._person, self._said = kept, said
        return total


def _facts_of(days: list[Day]) -> dict[str, float]:
    """The last day's sleep, glucose and training, and the week's regularity, each in [0, 1]."""
    day, beds = days[-1], [d.bedtime for d in days[-7:]]
    return {
        "sleep": max(0.0, 1 - abs(day.asleep_hours - 8) / 4),
        "sleep_regularity": max(0.0, 1 - float(np.std(beds))),
        "glucose_in_range": day.in_range / max(day.glucose_steps, 1),
        "training": min(day.load / 6, 1.0),
    }
