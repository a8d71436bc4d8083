"""The browser's fast path against BrowserGym, on the same pages of MiniWoB++ in one run: ./xp bench
browser [--json]

Random clicks; every step returns the accessibility tree. Rounds take turns; the figures are medians
of the rounds. CPU is that of all processes behind a world, its browser's too. BrowserGym runs in
its own Python (./xp setup peers), once as it is made and once without its half second of waiting
before each observation.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from experience.text.strict_json import dumps

PAGES = ("click-test", "click-button", "enter-text", "choose-list")
PYTHON = ".peers/browsergym/bin/python"
ROUNDS, SECONDS = 3, 6.0
GOAL_RATIO, GOAL_STEPS = 20.0, 100.0


def _ours(page: str) -> Any:
    return gymnasium.make("envs:MiniWoB-v0", pages=page, in_place=True).unwrapped


def _browser_gym(page: str, **more: Any) -> Any:
    from envs.browser.chromium import find_browser
    from envs.browser.miniwob import html

    options = {
        "id": f"browsergym/miniwob.{page}",
        "miniwob": str(html() / "miniwob"),
        "browser": find_browser(),
    } | more
    return gymnasium.make(
        "envs:Peer-v0", python=PYTHON, package="browser_gym", options=options
    ).unwrapped


WHO: dict[str, Callable[[str], Any]] = {
    "fast path": _ours,
    "BrowserGym": _browser_gym,
    "BrowserGym, no waiting": lambda page: _browser_gym(page, delay=0.0),
}


def lived(world: Any, seconds: float) -> dict[str, float]:
    """Steps a second of stepping, steps a second with resets, steps a core-second with resets."""
    import psutil

    def cpu() -> float:
        total = 0.0
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
        return total

    rng, steps, stepping, seed, ended = np.random.default_rng(0), 0, 0.0, 0, True
    world.reset(seed=0)
    spent, began = cpu(), time.perf_counter()
    while time.perf_counter() - began < seconds or not steps:
        if ended:
            world.reset(seed=(seed := seed + 1))
        action = world.random_action(rng)
        before = time.perf_counter()
        _, _, terminated, truncated, _ = world.step(action)
        stepping += time.perf_counter() - before
        steps, ended = steps + 1, terminated or truncated
    return {
        "steps_per_second": steps / stepping,
        "with_resets": steps / (time.perf_counter() - began),
        "per_core_second": steps / max(cpu() - spent, 1e-9),
    }


def main(as_json: bool) -> bool:
    """Prints the table; whether both goals were met."""
    if not Path(PYTHON).exists():
        from experience.errors import MissingPartError

        raise MissingPartError("BrowserGym is not installed", "./xp setup peers")
    found: dict[str, list[dict[str, float]]] = {who: [] for who in WHO}
    for _ in range(ROUNDS):
        for page in PAGES:
            for who, make in WHO.items():
                world = make(page)
                found[who].append(lived(world, SECONDS if who == "fast path" else SECONDS / 2))
                world.close()
    rows = {
        who: {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
        for who, rounds in found.items()
    }
    ours = rows["fast path"]
    if not as_json:
        print(
            f"{'':24}{'steps/s':>10}{'with resets':>13}{'a core-second':>15}{'ours / theirs':>15}"
        )
    for who, row in rows.items():
        ratio = ours["steps_per_second"] / row["steps_per_second"]
        record = {
            "name": f"browser, {who}",
            **row,
            "ratio": ratio,
            "rounds": ROUNDS,
            "pages": list(PAGES),
        }
        speeds = f"{row['steps_per_second']:10.1f}{row['with_resets']:13.1f}"
        plain = f"{who:24}{speeds}{row['per_core_second']:15.1f}{ratio:15.1f}"
        print(dumps(record) if as_json else plain)
    met = ours["per_core_second"] >= GOAL_STEPS and ours["steps_per_second"] >= (
        GOAL_RATIO * rows["BrowserGym"]["steps_per_second"]
    )
    if not as_json:
        verdict = "met" if met else "MISSED"
        print(
            f"goals: {GOAL_STEPS:g} steps a core-second, {GOAL_RATIO:g} times BrowserGym: {verdict}"
        )
    return met
