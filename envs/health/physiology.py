"""Bodies, from published equations: circadian phase, sleep, training, weight and glucose.

Plain functions on plain numbers, one step of time each; `Body` joins them. Units stand in the
names.
"""

from __future__ import annotations

import math

# Circadian phase: Hannay, Booth & Forger 2019, single population (J. Biol. Rhythms 34:658)
TAU_HOURS = 23.84
"""The clock's own period, in the dark."""
COUPLING = 0.06358
DECAY = 0.024
BETA1 = -0.09318
# The light's effect on the phase: sensitivities of first and second order, and their phases.
A1 = 0.3855
A2 = 0.1977
BETA_L1 = -0.0026
BETA_L2 = -0.957756
SIGMA = 0.0400692
# The light's way through the eye: gain, rates, and the half-saturation in lux.
G = 33.75
ALPHA0 = 0.05
DELTA = 0.0075
LIGHT_POWER = 1.5
LIGHT_HALF = 9325.0

Clock = tuple[float, float, float]
"""(amplitude R, phase ψ in radians, light adaptation n); core body temperature is lowest at ψ = π.
"""


def clock_rates(clock: Clock, lux: float) -> Clock:
    """d/dt of the clock, per hour, at a light of `lux`."""
    r, psi, n = clock
    powered: float = lux**LIGHT_POWER
    alpha = ALPHA0 * powered / (powered + LIGHT_HALF)
    b = G * (1 - n) * alpha
    r4 = r**4
    r8 = r4 * r4
    first = A1 * 0.5 * b * (1 - r4) * math.cos(psi + BETA_L1)
    second = A2 * 0.5 * b * r * (1 - r8) * math.cos(2 * psi + BETA_L2)
    phase = (
        SIGMA * b
        - A1 * 0.5 * b * (r**3 + 1 / r) * math.sin(psi + BETA_L1)
        - A2 * 0.5 * b * (1 + r8) * math.sin(2 * psi + BETA_L2)
    )
    return (
        -DECAY * r + COUPLING / 2 * math.cos(BETA1) * r * (1 - r4) + (first + second),
        2 * math.pi / TAU_HOURS + COUPLING / 2 * math.sin(BETA1) * (1 + r4) + phase,
        60 * (alpha * (1 - n) - DELTA * n),
    )


def step_clock(clock: Clock, lux: float, hours: float) -> Clock:
    """The clock `hours` later, by one step of Runge-Kutta 4."""
    r, psi, n = clock
    # The light's adaptation settles in minutes: Runge-Kutta would need steps as short. At constant
    # light it is linear, so it is solved exactly, and the slow part sees its mean.
    powered: float = lux**LIGHT_POWER
    alpha = ALPHA0 * powered / (powered + LIGHT_HALF)
    rate = 60 * (alpha + DELTA)
    settled = alpha / (alpha + DELTA)
    ahead = settled + (n - settled) * math.exp(-rate * hours)
    mean = settled + (n - settled) * (1 - math.exp(-rate * hours)) / (rate * hours)
    k1 = clock_rates((r, psi, mean), lux)
    k2 = clock_rates((r + hours / 2 * k1[0], psi + hours / 2 * k1[1], mean), lux)
    k3 = clock_rates((r + hours / 2 * k2[0], psi + hours / 2 * k2[1], mean), lux)
    k4 = clock_rates((r + hours * k3[0], psi + hours * k3[1], mean), lux)
    return (
        r + hours / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0]),
        psi + hours / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1]),
        ahead,
    )


# Sleep: the two-process model, Borbély 1982; time constants of Daan, Beersma & Borbély 1984 (Am. J.
# Physiol. 246:R161)
WAKE_HOURS = 18.2
SLEEP_HOURS = 4.2
UPPER = 0.67
LOWER = 0.17
CIRCADIAN_SWING = 0.1


def step_pressure(pressure: float, asleep: bool, hours: float) -> float:
    """Sleep pressure S in [0, 1]: S e^{−t/4.2} asleep, 1 − (1 − S) e^{−t/18.2} awake."""
    if asleep:
        return pressure * math.exp(-hours / SLEEP_HOURS)
    return 1 - (1 - pressure) * math.exp(-hours / WAKE_HOURS)


def falls_asleep(pressure: float, psi: float) -> bool:
    return pressure > UPPER - CIRCADIAN_SWING * math.cos(psi - math.pi)


def wakes_up(pressure: float, psi: float) -> bool:
    return pressure < LOWER - CIRCADIAN_SWING * math.cos(psi - math.pi)


# Fitness and fatigue: Banister 1975; constants as in Clarke & Skiba 2013 (Adv. Physiol. Educ.
# 37:134)
FITNESS_DAYS = 42.0
FATIGUE_DAYS = 7.0
FITNESS_GAIN = 1.0
FATIGUE_GAIN = 2.0


def step_training(fitness: float, fatigue: float, load: float) -> tuple[float, float]:
    """(fitness, fatigue) a day later: g e^{−1/42} + w and h e^{−1/7} + w, for a load w."""
    fitter = fitness * math.exp(-1 / FITNESS_DAYS) + load
    wearier = fatigue * math.exp(-1 / FATIGUE_DAYS) + load
    return fitter, wearier


def performance(fitness: float, fatigue: float) -> float:
    """k1 g − k2 h, in load units: below 0, fatigue outweighs what training has built."""
    return FITNESS_GAIN * fitness - FATIGUE_GAIN * fatigue


# Weight: Hall et al. 2011 (Lancet 378:826): 100 kJ a day for ever is 1 kg, half of it within a
# year, 95 % in three.
KCAL_PER_KG_DAY = 23.9
KCAL_PER_KG = KCAL_PER_KG_DAY * 365


def step_weight(kg: float, balanced_kg: float, surplus_kcal: float) -> float:
    """The weight a day later: dW/dt = (ΔI − ε (W − W₀)) / ρ.

    W₀, `balanced_kg`, is the weight that usual intake and activity keep.
    """
    return kg + (surplus_kcal - KCAL_PER_KG_DAY * (kg - balanced_kg)) / KCAL_PER_KG


# Glucose: Bergman's minimal model (Am. J. Physiol. 236:E667, 1979), gut as in Hovorka et al. 2004
# (Physiol. Meas. 25:905)
GUT_MINUTES = 40.0
BIOAVAILABLE = 0.8
VOLUME_DL_PER_KG = 1.6
P1 = 0.025
P2 = 0.025
INSULIN_DECAY = 0.15

Sugar = tuple[float, float, float, float, float]
"""(plasma glucose mg/dL, insulin action 1/min, insulin above basal µU/mL, gut 1 mg, gut 2 mg)"""


def step_sugar(
    sugar: Sugar,
    carbs_g: float,
    kg: float,
    sensitivity: float,
    response: float,
    basal: float,
    minutes: float,
) -> Sugar:
    """Glucose `minutes` later, after eating `carbs_g` at the start.

    dG/dt = −(p1 + X) G + p1 Gb + Ra/V
    dX/dt = −p2 X + p2 SI (I − Ib)
    dI/dt = −n (I − Ib) + γ max(G − Gb, 0)

    `sensitivity` is SI in 1/min per µU/mL (some 5e-4 in health), `response` γ in µU/mL/min per
    mg/dL, `basal` Gb in mg/dL.
    """
    # Each equation is solved exactly for the others' present values: Euler steps of ten minutes
    # would not stay stable.
    glucose, action, insulin, gut1, gut2 = sugar
    gut1 += carbs_g * 1000 * BIOAVAILABLE
    out1 = gut1 * (1 - math.exp(-minutes / GUT_MINUTES))
    gut2 += out1
    out2 = gut2 * (1 - math.exp(-minutes / GUT_MINUTES))
    appearance = out2 / minutes / (VOLUME_DL_PER_KG * kg)
    secreted = response * max(glucose - basal, 0.0) / INSULIN_DECAY
    insulin = secreted + (insulin - secreted) * math.exp(-INSULIN_DECAY * minutes)
    wanted = sensitivity * insulin
    action = wanted + (action - wanted) * math.exp(-P2 * minutes)
    settled = (P1 * basal + appearance) / (P1 + action)
    glucose = settled + (glucose - settled) * math.exp(-(P1 + action) * minutes)
    return glucose, action, insulin, gut1 - out1, gut2 - out2
