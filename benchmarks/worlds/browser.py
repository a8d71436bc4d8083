"""`./xp bench browser [--json]`: the browser's fast path against BrowserGym on pages of MiniWoB++.

Actions are random clicks; every step returns the accessibility tree. Rounds take turns; the figures
are medians of the rounds. CPU includes all processes of a world, its browser's too. BrowserGym runs
in its own Python (./xp setup peers): once with its defaults, and once without its wait of half a
second before each observation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from experience.text.strict_json import dumps

PAGES = ("click-test", "click-button", "enter-text", "choose-list")
PYTHON = ".peers/browsergym/bin/python"
ROUNDS = 3
SECONDS = 6.0
GOAL_RATIO = 20.0
GOAL_STEPS = 100.0


def _ours(page: str) -> Any:
    return gymnasium.make("envs:MiniWoB-v0", pages=page, in_place=True).unwrapped


def _browser_gym(page: str, **more: Any) -> Any:
    from envs.browser.chrome.chromium import find_browser
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
            except psutil.Error:  # a renderer may end before it is asked
                continue
            total += times.user + times.system
        return total

    rng = np.random.default_rng(0)
    steps = 0
    stepping = 0.0
    seed = 0
    ended = True
    world.reset(seed=0)  # the first reset starts the browser, and is not measured
    spent = cpu()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or not steps:
        if ended:
            seed += 1
            world.reset(seed=seed)
        action = world.random_action(rng)
        before = time.perf_counter()
        _, _, terminated, truncated, _ = world.step(action)
        stepping += time.perf_counter() - before
        steps += 1
        ended = terminated or truncated
    return {
        "steps_per_second": steps / stepping,
        "with_resets": steps / (time.perf_counter() - began),
        "per_core_second": steps / max(cpu() - spent, 1e-9),
    }


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    found = {}
    for name in rounds[0]:
        found[name] = float(np.median([figures[name] for figures in rounds]))
    return found


def main(as_json: bool) -> bool:
    """Prints the table; returns whether both goals were met."""
    if not Path(PYTHON).exists():
        from experience.errors import MissingPartError

        raise MissingPartError("BrowserGym is not installed", "./xp setup peers")
    found: dict[str, list[dict[str, float]]] = {who: [] for who in WHO}
    # In turns: what else the machine does slows both alike.
    for _ in range(ROUNDS):
        for page in PAGES:
            for who, make in WHO.items():
                world = make(page)
                found[who].append(lived(world, SECONDS if who == "fast path" else SECONDS / 2))
                world.close()
    rows = {who: medians(rounds) for who, rounds in found.items()}
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
