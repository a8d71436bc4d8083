"""The coached person: the body against published values, and a life that never resets."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from envs.health import physiology as body
from envs.health.circumstances import Attention
from envs.health.coach import Coach


def days_in_the_light(days: int, hours: float) -> body.Clock:
    clock = (0.5, 1.0, 0.1)
    for i in range(round(24 * days / hours)):
        clock = body.step_clock(clock, 500.0 if 7 <= i * hours % 24 < 23 else 0.0, hours)
    return clock


def test_the_clock_agrees_with_the_circadian_packages_within_minutes_over_20_days() -> None:
    models = pytest.importorskip("circadian.models", reason="./xp setup worlds")
    t = np.arange(0, 24 * 20 + 0.05, 0.1)
    theirs = models.Hannay19().integrate(
        t,
        initial_condition=np.array([0.5, 1.0, 0.1]),
        input=np.where((t % 24 >= 7 - 1e-9) & (t % 24 < 23 - 1e-9), 500.0, 0.0),
    )
    r, psi, _ = days_in_the_light(20, 1.0)
    assert r == pytest.approx(theirs.states[-1][0], abs=2e-3)
    assert (psi - theirs.states[-1][1]) * 24 / (2 * math.pi) * 60 == pytest.approx(0, abs=8), (
        "minutes"
    )


def test_the_clock_follows_the_sun_and_drifts_in_the_dark() -> None:
    dark = (0.5, 1.0, 0.1)
    start = None
    for hour in range(24 * 40):
        dark = body.step_clock(dark, 0.0, 1.0)
        if hour == 24 * 20 - 1:
            start = dark[1]
    assert start is not None
    assert 2 * math.pi * 480 / (dark[1] - start) == pytest.approx(24.2, abs=0.3), (
        "the free-running period in hours"
    )
    assert (days_in_the_light(40, 1.0)[1] - days_in_the_light(20, 1.0)[1]) == pytest.approx(
        2 * math.pi * 20, abs=0.05
    )


def test_two_processes_give_eight_hours_of_sleep_a_day() -> None:
    """Daan et al. 1984: with its constants and thresholds, sleep takes about a third of the day."""
    pressure, asleep, slept = 0.3, False, 0
    for step in range(24 * 10 * 30):
        psi = 2 * math.pi * (step / 240 + 0.4)
        asleep = not body.wakes_up(pressure, psi) if asleep else body.falls_asleep(pressure, psi)
        pressure = body.step_pressure(pressure, asleep, 0.1)
        slept += asleep
    assert slept / (10 * 30) == pytest.approx(8, abs=1.2)


def test_form_peaks_when_fatigue_is_gone_but_fitness_is_not() -> None:
    """After one hard day: τ1 τ2 / (τ1 − τ2) · ln(k2 τ1 / (k1 τ2)) = 20.9 days later."""
    g, h = 1.0, 1.0
    course = []
    for _ in range(60):
        course.append(body.performance(g, h))
        g, h = body.step_training(g, h, 0.0)
    expected = 42 * 7 / 35 * math.log(2 * 42 / 7)
    assert int(np.argmax(course)) == pytest.approx(expected, abs=1) and course[0] < 0


def test_a_hundred_kilojoules_a_day_are_a_kilogram_most_of_it_in_a_year() -> None:
    kg = 80.0
    course = []
    for _ in range(365 * 6):
        kg = body.step_weight(kg, 80.0, -23.9)
        course.append(80 - kg)
    assert course[-1] == pytest.approx(1.0, abs=0.01)
    assert 0.5 < course[364] < 0.66 and course[365 * 3 - 1] == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(
    ("sensitivity", "peak", "after_two_hours"),
    [(1.0, (120, 180), (80, 140)), (0.3, (180, 300), (140, 260))],
)
def test_75_grams_of_glucose_come_and_go(
    sensitivity: float, peak: tuple[float, float], after_two_hours: tuple[float, float]
) -> None:
    """The oral test's bands in mg/dL: healthy below 140 after two hours, impaired above; the peak
    in an hour or so."""
    basal = 88 + 40 * (1 - sensitivity)
    sugar: body.Sugar = (basal, 0.0, 0.0, 0.0, 0.0)
    course = []
    for i in range(24):
        sugar = body.step_sugar(
            sugar,
            75.0 if i == 0 else 0.0,
            80.0,
            5e-4 * sensitivity,
            0.12 * (0.4 + 0.6 * sensitivity),
            basal,
            10.0,
        )
        course.append(sugar[0])
    assert peak[0] <= max(course) <= peak[1] and int(np.argmax(course)) <= 8
    assert after_two_hours[0] <= course[11] <= after_two_hours[1]


_PATIENTS = """
import json
from simglucose.patient.t1dpatient import Action, T1DPatient
for n in range(1, 11):
    person = T1DPatient.withName(f"adult#{n:03d}")
    held = person._params.u2ss * person._params.BW / 6000
    for _ in range(60):
        person.step(Action(CHO=0, insulin=held))
    before, course = person.observation.Gsub, []
    for t in range(300):
        person.step(Action(CHO=5 if t < 15 else 0, insulin=held))
        course.append(person.observation.Gsub - before)
    print(json.dumps([person._params.BW, max(course), course[119]]))
"""


def test_a_meal_without_insulins_answer_raises_glucose_as_in_simglucoses_ten_adults() -> None:
    """75 g, insulin held at its basal rate, rises in mg/dL after two hours and at most. What
    follows is not compared: in a diabetic glucose itself brings little of it down again, in the
    body modelled here (P1) much."""
    python = Path(__file__).resolve().parent.parent / ".peers/simglucose/bin/python"
    if not python.exists():
        pytest.skip("./xp setup peers")
    done = subprocess.run(
        [python, "-W", "ignore", "-c", _PATIENTS], capture_output=True, text=True, check=True
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("[")]
    patients = np.array([json.loads(row) for row in rows])
    assert len(patients) == 10
    ours = []
    for kg in patients[:, 0]:
        sugar: body.Sugar = (120.0, 0.0, 0.0, 0.0, 0.0)
        course = []
        for i in range(300):
            sugar = body.step_sugar(sugar, 75.0 if i == 0 else 0.0, kg, 5e-4, 0.0, 120.0, 1.0)
            course.append(sugar[0] - 120)
        ours.append((max(course), course[119]))
    low, high = patients[:, 1:].min(0), patients[:, 1:].max(0)
    assert np.all(np.array(ours) > low) and np.all(np.array(ours) < high)
    assert np.mean(ours, 0) == pytest.approx(patients[:, 1:].mean(0), rel=0.25)


def test_a_life_goes_on_bit_by_bit_from_a_snapshot_and_over_episodes() -> None:
    rng, world = np.random.default_rng(0), gymnasium.make("envs:Coach-v0", days=3).unwrapped
    world.reset(seed=4)
    actions = [world.random_action(rng) if rng.random() < 0.15 else "quiet" for _ in range(300)]

    def live(world: Coach, actions: list[str]) -> list[str]:
        seen = []
        for action in actions:
            observation, _, terminated, truncated, _ = world.step(action)
            seen.append(observation)
            if terminated:
                break
            if truncated:
                seen.append(world.reset(options={"continue": True})[0])
        return seen

    first = live(world, actions[:50])
    saved, hour = world.snapshot(), world.person.hour
    assert hour > 24 * 9 and len(first) > 40, "four windows, one life"
    whole = live(world, actions[50:90])
    elsewhere = gymnasium.make("envs:Coach-v0", days=3).unwrapped
    elsewhere.reset(seed=99)
    elsewhere.restore(saved)
    assert live(elsewhere, actions[50:90]) == whole


def test_the_oracle_tries_its_proposals_on_a_copy_of_the_person() -> None:
    world = Coach()
    world.reset(seed=3)
    before = pickle.dumps(world.person)
    seen = world.observe()
    assert world.oracle_action() in ("quiet", "suggest_meals -300")
    assert pickle.dumps(world.person) == before and world.observe() == seen


def test_messages_wear_attention_out_and_a_night_restores_some_of_it() -> None:
    rng = np.random.default_rng(0)
    attention = Attention()
    followed = sum(attention.follows(-0.5, 0.5, False, rng) for _ in range(20))
    assert followed < 5
    assert (attention.engagement, attention.habituation) == (0.0, 1.0)
    attention.recover()
    assert (attention.engagement, attention.habituation) == (0.02, 0.85)


def test_an_ill_person_follows_no_proposal_that_does_not_suit_illness() -> None:
    rng = np.random.default_rng(0)
    assert not any(Attention().follows(0.4, 0.9, True, rng) for _ in range(50))
    assert any(Attention().follows(0.4, 0.9, False, rng) for _ in range(50))


def test_a_thousand_days_are_lived_in_a_second_of_cpu() -> None:
    world = Coach()
    world.reset(seed=1)
    started = time.process_time()
    world.person.live(24 * 300)
    assert 300 / (time.process_time() - started) > 300, (
        "a floor for a busy machine; ./xp bench worlds says the figure"
    )
