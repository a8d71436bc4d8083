"""A run in progress: a table on a terminal, else a line every ten seconds, or JSON records.

All three are told again by the clock: seconds go on while nothing happens.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.config.schema import Config
from actors.running.progress import Progress
from experience.command.output import emit, plain, say, terminal
from experience.errors import XpError
from experience.evaluation.statistics import Mean

_SECONDS_A_LINE = 10.0


class LiveTable:
    """`update` may be called as often as one likes."""

    def __init__(self, run: str, as_json: bool = False) -> None:
        self._run = run
        self._as_json = as_json
        self._last = 0.0
        self._state = ("", False)
        self._shown = Progress(run)
        self._at = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._live: Any = None
        self._clock = threading.Thread(target=self._tick, daemon=True)
        # In a CI job's log, which may be a terminal, a redrawn table is thousands of lines.
        self._fancy = sys.stderr.isatty() and not os.environ.get("CI")

    def __enter__(self) -> LiveTable:
        say(f"run {self._run}")
        if self._fancy:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(file=terminal()),
                get_renderable=lambda: table(self.now),
                refresh_per_second=2,
            )
            self._live.__enter__()
        self._clock.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._over.set()
        self._clock.join()
        if self._live is not None:
            self._live.__exit__(*exc)

    def update(self, progress: Progress) -> None:
        # A copy: the run changes its own while the clock's thread draws.
        self._shown = deepcopy(progress)
        self._at = time.monotonic()
        self._tell()

    @property
    def now(self) -> Progress:
        """The newest progress, at this second."""
        shown = self._shown
        at = self._at
        return replace(shown, seconds=shown.seconds + time.monotonic() - at)

    def _tick(self) -> None:
        while not self._over.wait(0.5):
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            now = self.now
            state = now.phase, now.disk_is_full
            if time.monotonic() - self._last <= _SECONDS_A_LINE and state == self._state:
                return
            self._last = time.monotonic()
            self._state = state
            if self._as_json:
                emit({"kind": "progress", **now.record()})
            if self._live is None:
                say(line(now))


def table(progress: Progress) -> Any:
    from rich.table import Table

    drawn = Table(title=headline(progress), title_justify="left", box=None, pad_edge=False)
    first_name = "imitation" if progress.learns else "first"
    for name in ("world", "random", first_name, "now (held-out)", "training"):
        drawn.add_column(name, justify="left" if name == "world" else "right")
    for world, by_version in progress.returns.items():
        first, newest = (
            (by_version.get(0), by_version[max(by_version)]) if by_version else (None, None)
        )
        drawn.add_row(
            plain(world),
            str(progress.random.get(world, "")),
            str(first or ""),
            str(newest or ""),
            _mean(progress.training.get(world, [])),
        )
    return drawn


def headline(progress: Progress) -> str:
    steps = progress.steps
    error = progress.model_error
    real = f"{steps.get('real', 0)} real ({progress.training_steps} training)"
    counts = f"{real} + {steps.get('demonstration', 0)} shown + {steps.get('imagined', 0)} imagined"
    model = f"  world model {error.exact:.0%} right, {error.kept:.0%} believed" if error else ""
    cut = "".join(f"  {n} {what} cut short" for what, n in progress.cut.items() if n)
    skipped = f"  {progress.skipped} UPDATES SKIPPED (not finite)" if progress.skipped else ""
    failed = f"  {sum(progress.failures.values())} FAILURES" if progress.failures else ""
    full = ""
    if progress.disk_is_full:
        full = (
            "  THE DISK IS FULL: nothing new is lived until there is room; "
            "or Ctrl-C, and resume later"
        )
    return (
        f"{progress.seconds:4.0f} s  {where(progress)}{full}  policy v{progress.version}  "
        f"{counts} steps  "
        f"lag {progress.lag:.1f}{model}{cut}{skipped}{failed}"
    )


def where(progress: Progress) -> str:
    """The phase, and how many of how many are done in it."""
    counts = ", ".join(f"{what} {done} of {of}" for what, (done, of) in progress.done.items())
    if not counts:
        phase = progress.phase
    elif counts.startswith(progress.phase):
        phase = counts
    else:
        phase = f"{progress.phase}: {counts}"
    return phase + " (closing)" * progress.closing


def line(progress: Progress) -> str:
    worlds = "  ".join(
        f"{w.rpartition(':')[2]} {_mean(r)}" for w, r in progress.training.items() if r
    )
    return f"{headline(progress)}  {worlds}"


def summary_line(progress: Progress, report: Path) -> str:
    """What changed, in one line.

    Per world: the held-out return of random, imitation and the last version, and the gain over
    imitation task by task, with its 95 % interval over the tasks (with fewer than 5 tasks, the gain
    of each). Then what was cut short, and what failed.
    """
    parts = [f"{world.rpartition(':')[2]} {_change(progress, world)}" for world in progress.returns]
    first = ["imitation"] if progress.learns else []
    versions = " → ".join(["random", *first, f"v{progress.version}"])
    cut = "".join(f" · CUT SHORT: {phase} {how}" for phase, how in progress.cut_short.items())
    failed = f" · FAILURES: {causes(progress)} (failures.json)" if progress.failures else ""
    return (
        f"held-out return ({versions}): {', '.join(parts) or 'not evaluated'} · "
        f"{progress.acknowledged} rows acknowledged, 0 lost · "
        f"{progress.restarts} restarts{cut}{failed} · "
        f"report {report}"
    )


def _change(progress: Progress, world: str) -> str:
    by_version = progress.returns[world]
    last = by_version.get(max(by_version)) if by_version else None
    if last is None or not last.n:
        return "not evaluated"
    first = [by_version[min(by_version)]] if progress.learns else []
    random = progress.random.get(world)
    means = " → ".join(f"{m.mean:.2f}" if m and m.n else "unknown" for m in (random, *first, last))
    gain = progress.gain.get(world)
    return means + (
        f" (gain {gain})" if gain and gain.n and max(by_version) and progress.learns else ""
    )


def causes(progress: Progress) -> str:
    """The commonest failures, with what the first of each said."""
    told = {name: f"{first.world}: {first.what}"[:160] for name, first in progress.broken.items()}
    return ", ".join(
        f"{n} × {told.get(name, name)}" for name, n in progress.failures.most_common(3)
    )


def warnings(progress: Progress) -> list[str]:
    """What a user should know of a run that ended well, a sentence each.

    Phases that were cut short; no update for want of whole groups; what monitors warned of; and
    worlds whose training episodes all earned the same: equal returns have no advantage over each
    other, so they teach nothing.
    """
    found = []
    for phase, how in progress.cut_short.items():
        if phase == "final evaluation":
            found.append(f"{phase}: {how}; episodes that end soon count more in these means")
        else:
            found.append(
                f"{phase}: {how}; what was missing then was left out, "
                "and ./xp resume does not live it again"
            )
    found += [f"monitor {name}: {finding}" for name, finding in progress.warnings.items()]
    if not progress.learns:
        return found
    if progress.training_steps and not (progress.version or progress.groups["all"]):
        found.append(
            "no update: the limit of steps was reached before the groups of one were whole; "
            "a higher --limit, or a smaller collecting.group_size"
        )
    for world, returns in progress.training.items():
        # Eight equal returns by chance are rare enough to speak; three are not.
        if len(returns) > 7 and max(returns) - min(returns) < 1e-9:
            found.append(
                f"{world}: the last {len(returns)} training episodes all earned {returns[0]:g}, "
                "and groups that do not differ teach nothing: show more demonstrations, "
                "imitate longer, or begin with easier tasks"
            )
    return found


def check_learned(config: Config, progress: Progress) -> None:
    """Raises XpError if a run had nothing to learn from, or (for a fixed policy) to measure.

    A run whose limit of steps left room for only one update has done what it was asked.
    """
    # With a limit of steps there may be one update at most: too few to judge learning by.
    limited = config.budget.steps is not None and progress.training_steps >= config.budget.steps
    if not config.budget.updates or (limited and progress.version < 2):
        return
    failures = f"; failures: {causes(progress)}" if progress.failures else ""
    dropped = ", ".join(f"{n} {why}" for why, n in progress.dropped.items() if n)
    why = failures + (f"; left out: {dropped}" if dropped else "")
    look = "failures.json in the run directory has the first traceback; " if progress.broken else ""
    if not any(progress.training.values()):
        what = "nothing was learned" if progress.learns else "nothing was measured"
        raise XpError(
            f"{what}: no training episode of {progress.episodes} has a return{why}",
            look + "./xp env check says what is wrong with a world; "
            "./xp env replay shows what was lived",
        )
    if not progress.learns:
        return
    if not progress.version:
        raise XpError(
            f"nothing was learned: no {config.collecting.group_size} episodes of one group "
            f"ended in time for an update{why}",
            "raise budget.minutes, or lower collecting.group_size",
        )
    groups = progress.groups
    if (
        progress.version > 1
        and groups["all"]
        and groups["all"] == groups["flat"]
        and not _beats_random(progress)
    ):
        raise XpError(
            f"nothing was learned: in each of {groups['all']} groups all episodes earned the same, "
            "and groups that do not differ teach nothing; "
            f"held-out tasks are done no better than at random{why}",
            "show more demonstrations, imitate longer, or begin with easier tasks; "
            "./xp env replay shows what was lived",
        )


def _beats_random(progress: Progress) -> bool:
    """Whether some world's last held-out mean is above random: imitation has taught something."""
    nothing = Mean(math.nan, None, 0)
    pairs = [
        (by[max(by)], progress.random.get(world, nothing))
        for world, by in progress.returns.items()
        if by
    ]
    return any(last.mean > random.mean for last, random in pairs)


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2f}" if values and not math.isnan(values[0]) else "–"
