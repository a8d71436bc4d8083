"""The figures of a report, as SVG to stand in a page."""

from __future__ import annotations

import html
import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from actors.reading.survey import Returns
from experience.evaluation.statistics import Mean

_COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#7a5195", "#b08900", "#444444")
_MOST_LABELS = 40
"""Points up to which each carries its n; all of them stand in the table below the figure."""
_numbers = itertools.count(1)
Record = Mapping[str, Any]


def in_one_time(history: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """The records on one time axis: the seconds of a resumed run continue, not restart from 0.

    A record belongs to a new attempt if that attempt began after the previous record was written.
    """
    before = last = written = 0.0
    for record in history:
        now = float(record.get("seconds") or 0.0)
        at = float(record.get("t") or 0.0)
        if now < last or (written and at - now > written):
            before += last
        last = now
        written = at
        yield {**record, "seconds": before + now}


def draw(alt: str, paint: Callable[[Any], None], panels: int = 1, height: float = 3.0) -> str:
    """An SVG of `panels` axes side by side, painted by `paint`; `alt` says what it shows."""
    import matplotlib

    # Without a screen; the library's default would look for one.
    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    pyplot.rcParams |= {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        # Text stays text, so that it can be searched and read aloud.
        "svg.fonttype": "none",
    }
    figure, axes = pyplot.subplots(
        1, panels, figsize=(10, height), squeeze=False, layout="constrained"
    )
    paint(axes[0])
    for axis in axes[0]:
        axis.ticklabel_format(useOffset=False, style="plain")
        if axis.get_xlabel() == "policy version":
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    out = io.StringIO()
    figure.savefig(
        out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    pyplot.close(figure)
    svg = out.getvalue()
    own = f"f{next(_numbers)}-"  # no id twice in a page
    svg = re.sub(r'(\bid="|url\(#|href="#)', lambda found: found[1] + own, svg[svg.index("<svg") :])
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)


def _short(world: str) -> str:
    """As a label: matplotlib reads $ as mathematics."""
    return world.rpartition(":")[2].replace("$", r"\$")[:60]


def _curve(axis: Any, points: Mapping[int, Mean], colour: str) -> None:
    versions = list(points)
    means = [m.mean for m in points.values()]
    # Too few tasks give no interval: the band has no width there.
    halves = [m.half or 0.0 for m in points.values()]
    axis.plot(versions, means, "o-", color=colour, ms=4)
    axis.fill_between(
        versions,
        [m - h for m, h in zip(means, halves, strict=True)],
        [m + h for m, h in zip(means, halves, strict=True)],
        color=colour,
        alpha=0.18,
        lw=0,
    )
    for version, measured in points.items() if len(points) <= _MOST_LABELS else ():
        axis.annotate(
            f"n={measured.n}",
            (version, measured.mean),
            xytext=(0, 6),
            fontsize=6,
            color="#555",
            textcoords="offset points",
            ha="center",
        )


def held_out(found: Mapping[str, Returns]) -> str:
    shown = {world: returns for world, returns in found.items() if returns.versions}
    if not shown:
        return ""

    def paint(axes: Any) -> None:
        for axis, (world, returns), colour in zip(axes, shown.items(), itertools.cycle(_COLOURS)):
            _curve(axis, returns.versions, colour)
            if returns.random.n:
                axis.axhline(returns.random.mean, color="#777", ls=":", lw=1)
            axis.set(
                title=_short(world),
                xlabel="policy version",
                ylabel="held-out return (sum of rewards)",
            )

    return draw("Held-out return per policy version", paint, len(shown))


def training(found: Mapping[str, Mapping[int, Mean]]) -> str:
    shown = {world: points for world, points in found.items() if points}
    if not shown:
        return ""

    def paint(axes: Any) -> None:
        for axis, (world, points), colour in zip(axes, shown.items(), itertools.cycle(_COLOURS)):
            _curve(axis, points, colour)
            axis.set(
                title=_short(world),
                xlabel="policy version",
                ylabel="training return (sum of rewards)",
            )

    return draw("Return of training episodes per policy version", paint, len(shown))


def sources(history: Sequence[Record]) -> str:
    """Acknowledged and imagined steps in two panels, because they are not the same kind of data."""
    points = [(r["seconds"] / 60, r["steps"]) for r in history if r.get("steps")]

    def lived(*names: str) -> list[str]:
        return [name for name in names if any(steps.get(name) for _, steps in points)]

    panels = [names for names in (lived("demonstration", "real"), lived("imagined")) if names]
    if not panels:
        return ""

    def counts_of(name: str) -> list[int]:
        return [steps.get(name, 0) for _, steps in points]

    def paint(axes: Any) -> None:
        for axis, names in zip(axes, panels, strict=True):
            colours = ["#b08900"] if names == ["imagined"] else list(_COLOURS)
            axis.stackplot(
                [minutes for minutes, _ in points],
                [counts_of(name) for name in names],
                labels=names,
                colors=colours,
                alpha=0.8,
            )
            axis.set(
                xlabel="minutes, all attempts",
                ylabel="steps",
                ylim=(0, None),
                title="imagined" if names == ["imagined"] else "acknowledged",
            )
            axis.legend(frameon=False, loc="upper left")

    return draw("Steps by source over time", paint, len(panels))


def model(history: Sequence[Record]) -> str:
    points = [(r["version"], r["model_error"]) for r in history if r.get("model_error")]
    if not points:
        return ""

    def paint(axes: Any) -> None:
        for key, label, colour in (
            ("exact_kept", "kept by the gate", _COLOURS[0]),
            ("exact", "all", _COLOURS[1]),
            ("copy", "copy baseline", "#888"),
        ):
            shares = [math.nan if e.get(key) is None else e[key] for _, e in points]
            axes[0].plot([v for v, _ in points], shares, "o-", ms=3, label=label, color=colour)
        axes[0].set(xlabel="policy version", ylabel="share predicted exactly", ylim=(-0.02, 1.02))
        axes[0].legend(frameon=False)

    return draw("How often the world model predicts exactly", paint)


_PANELS = (
    ("loss", "nats a token", ("policy_loss", "nll", "model_nll")),
    ("value loss", "squared return", ("value_loss",)),
    ("gradient before it is cut", "Euclidean norm", ("gradient_norm",)),
    ("mismatch with the acting policy", "kl in nats, shares", ("kl", "clipped", "ratio")),
    ("lag of what was learned from", "policy versions", ("lag",)),
)


def learning(history: Sequence[Record]) -> str:
    found: dict[str, list[tuple[float, float]]] = {}
    for record in (r for r in history if "version" in r):
        values = {
            **(record.get("metrics") or {}),
            **{k: record[k] for k in ("lag",) if k in record},
        }
        for name, value in values.items():
            # A metric that is not finite is null in the file; the line leaves it out.
            if isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, []).append((record["version"], value))
    panels = []
    for title, unit, names in _PANELS:
        if measured := [name for name in names if name in found]:
            panels.append((title, unit, measured))
    if not panels:
        return ""

    def paint(axes: Any) -> None:
        for axis, (title, unit, names) in zip(axes, panels, strict=True):
            for name, colour in zip(names, _COLOURS, strict=False):
                axis.plot(
                    *zip(*found[name], strict=True), "o-", ms=2, color=colour, label=name, lw=1
                )
            axis.set(xlabel="policy version", ylabel=unit)
            axis.set_title(title, fontsize=8)
            axis.legend(frameon=False, fontsize=7)

    return draw(
        "Loss, gradient, mismatch and lag per policy version", paint, len(panels), height=2.6
    )
