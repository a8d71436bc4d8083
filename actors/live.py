"""The live table of a run, on stderr: redrawn on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from actors.config import Config
from actors.output import plain, terminal
from actors.parts import Progress
from experience.errors import XpError


class LiveTable:
    """`update` may be called as often as one likes."""

    def __init__(self, run: str) -> None:
        self._run, self._last, self._state = run, 0.0, ("", False)
        self._live: Any = None
        self._fancy = sys.stderr.isatty() and not os.environ.get("CI")

    def __enter__(self) -> LiveTable:
        print(f"run {self._run}", file=sys.stderr, flush=True)
        if self._fancy:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=terminal()), refresh_per_second=2)
            self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*exc)

    def update(self, progress: Progress) -> None:
        if self._live is not None:
            self._live.update(table(progress))
        elif time.monotonic() - self._last > 10 or (progress.phase, progress.disk_is_full) != self._state:
            self._last, self._state = time.monotonic(), (progress.phase, progress.disk_is_full)
            print(line(progress), file=sys.stderr, flush=True)


def table(progress: Progress) -> Any:
    from rich.table import Table

    drawn = Table(title=headline(progress), title_justify="left", box=None, pad_edge=False)
    for name in ("world", "random", "imitation", "now (held-out)", "training"):
        drawn.add_column(name, justify="left" if name == "world" else "right")
    for world, by_version in progress.returns.items():
        first, newest = (by_version.get(0), by_version[max(by_version)]) if by_version else (None, None)
        drawn.add_row(plain(world), str(progress.random.get(world, "")), str(first or ""), str(newest or ""),
                      _mean(progress.training.get(world, [])))
    return drawn


def headline(progress: Progress) -> str:
    steps = progress.steps
    error = progress.model_error
    counts = " + ".join(f"{steps.get(kind, 0)} {word}" for kind, word in (
        ("real", "real"), ("demonstration", "shown"), ("imagined", "imagined")))
    model = f"  world model {error.exact:.0%} right, {error.kept:.0%} believed" if error else ""
    cut = "".join(f"  {n} {what} cut short" for what, n in progress.cut.items() if n)
    skipped = f"  {progress.skipped} UPDATES SKIPPED (not finite)" if progress.skipped else ""
    full = ""
    if progress.disk_is_full:
        full = "  THE DISK IS FULL: nothing new is lived until there is room; or Ctrl-C, and resume later"
    return (f"{progress.seconds:4.0f} s  {progress.phase}{full}  policy v{progress.version}  {counts} steps  "
            f"lag {progress.lag:.1f}{model}{cut}{skipped}")


def line(progress: Progress) -> str:
    worlds = "  ".join(f"{w.rpartition(':')[2]} {_mean(r)}" for w, r in progress.training.items() if r)
    return f"{headline(progress)}  {worlds}"


def summary_line(progress: Progress, report: Path) -> str:
    """What changed, in one line: held-out return of random, imitation and the last version, per world, and the gain
    over imitation, taken task by task, with its 95 % interval over the tasks (each task's gain, of fewer than 5)."""
    parts = []
    for world, by_version in progress.returns.items():
        if by_version:
            means = (progress.random[world].mean, by_version[min(by_version)].mean, by_version[max(by_version)].mean)
            gain = progress.gain.get(world)
            parts.append(f"{world.rpartition(':')[2]} " + " → ".join(f"{m:.2f}" for m in means)
                         + (f" (gain {gain})" if gain and gain.n and max(by_version) else ""))
    return (f"held-out return (random → imitation → v{progress.version}): {', '.join(parts) or 'not evaluated'} · "
            f"{progress.acknowledged} rows acknowledged, 0 lost · {progress.restarts} restarts · report {report}")


def warnings(progress: Progress) -> list[str]:
    """What a run should not end without saying: worlds whose training episodes all earned the same teach nothing."""
    return [f"{world}: the last {len(returns)} training episodes all earned {returns[0]:g}, and groups that do not "
            "differ teach nothing: show more demonstrations, imitate longer, or begin with easier tasks"
            for world, returns in progress.training.items() if len(returns) > 7 and max(returns) - min(returns) < 1e-9]


def check_learned(config: Config, progress: Progress) -> None:
    """Raises XpError where a run that was to learn had nothing to learn from: that is no success."""
    if not (config.policy.learns and config.budget.updates) or any(progress.training.values()):
        return
    causes = ", ".join(f"{n} × {why}" for why, n in progress.failures.most_common(3))
    dropped = ", ".join(f"{n} {why}" for why, n in progress.dropped.items() if n)
    raise XpError(f"nothing was learned: no training episode of {progress.episodes} has a return"
                  + (f"; failures: {causes}" if causes else "") + (f"; left out: {dropped}" if dropped else ""),
                  "./xp env check says what is wrong with a world; ./xp env replay shows what was lived")


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2f}" if values and not math.isnan(values[0]) else "–"
