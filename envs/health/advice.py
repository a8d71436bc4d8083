"""What a coach can say to a person, and the reply: each function returns the reply's words."""

from __future__ import annotations

from envs.health.person import Person

INTENSITY = {"easy": 0.6, "moderate": 1.0, "hard": 1.8}
"""Training load of ten minutes."""


def propose_activity(person: Person, minutes: int, how: str) -> str:
    if not person.hears(_suits_activity(person, minutes)):
        return "not today"
    person.intentions.agree_to_train(minutes, minutes / 10 * INTENSITY[how])
    return f"will do {minutes}min"


def _suits_activity(person: Person, minutes: int) -> float:
    """How well so much activity suits the person now; below 0 it annoys."""
    if person.ill:
        fits = -1.0
    elif 10 <= person.local_hour <= 16:
        fits = 0.6
    else:
        fits = -0.2
    tired = max(0.0, person.body.fatigue - person.body.fitness / 2) / 20
    return fits - (tired + (minutes > 60) * 0.3)


def propose_bedtime(person: Person, hour: int) -> str:
    fits = -0.3  # in the morning nobody thinks of the evening
    if person.local_hour >= 16:
        fits = 0.6 - abs(hour - person.intentions.bedtime) / 4
    if not person.hears(fits):
        return "no"
    person.intentions.bedtime = float(hour)
    return f"bed at {hour % 24}h"


def propose_meals(person: Person, kcal: int) -> str:
    fits = -0.2  # between meals
    if person.local_hour in (8, 12):
        fits = 0.5 - abs(kcal) / 800
    if not person.hears(fits):
        return "no"
    person.intentions.diet_kcal = float(kcal)
    return "ok"


def ask(person: Person, about: str) -> str:
    """The answer to a question about sleep, mood or body."""
    person.is_asked()
    if about == "sleep":
        return f"bed at {person.intentions.bedtime % 24:.0f}h mostly"
    if about == "mood":
        return "annoyed" if person.attention.habituation > 0.5 else "open"
    if person.ill:
        return "ill"
    return "tired" if person.body.performance < 0 else "fine"
