"""The report of a run: one HTML file with its pictures inside, no server and nothing fetched."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.live import warnings
from actors.parts import Progress
from actors.rundir import RunDirectory, replace_file
from experience.evaluation.statistics import Mean
from experience.shards.redact import Redactor

_COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#7a5195", "#b08900", "#444444")
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1040px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.1em;margin:2em 0 .4em}table{border-collapse:collapse}
td,th{padding:.25em .9em .25em 0;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child
{text-align:left}svg{max-width:100%;height:auto}.note{color:#666}code,pre{background:#f5f5f2;padding:.1em .3em}
pre{white-space:pre-wrap;padding:.6em}"""


def write_report(directory: RunDirectory, progress: Progress) -> Path:
    """Writes report.html into the run directory and gives its path."""
    history = list(_in_one_time(directory.metrics()))
    counted = directory.count()
    record = directory.record
    body = [f"<h1>{_text(directory.name)}</h1>", f"<p>{_text(_sentence(progress, record))}</p>",
            *(f"<p><b>{_text(warning)}</b></p>" for warning in warnings(progress)), _table(progress),
            _section("Return on held-out tasks, per policy version",
                     "Tasks that training never draws; bands are 95 % intervals over the tasks of this one run "
                     "(Student's t; none for fewer than five). The dotted line is a policy of well-formed random "
                     "actions; version 0 is imitation alone.", _plot_returns(progress)),
            _section("Return while training", "Mean of each world's newest 64 training episodes, sampled actions.",
                     _plot_history(history, "training", "return")),
            _section("Where the data came from", "Steps in the shards by source, as the run went on. Imagined steps "
                     "are kept in shards of their own.", _plot_sources(history)),
            _section("World model", "On real transitions it was never fitted to: share predicted exactly, of all and "
                     "of those that pass the uncertainty gate, beside the copy baseline.", _plot_model(history)),
            _section("Learning", "Loss, length of the gradient before it is cut, and how far the policy moved from the "
                     "one that acted (kl, clipped share), of updates on real experience.", _plot_learning(history)),
            _section("Lag", "Age of the experience learned from, in policy versions.", _plot_lag(history)),
            _section("Kept", "", _kept(progress, counted, record)),
            _section("Examples", "The newest whole held-out episode of each world.", _examples(directory)),
            _section("Configuration", "", _configuration(directory))]
    page = (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(directory.name)}</title>'
            f"<style>{_STYLE}</style><body>{''.join(body)}</body></html>")
    path = directory.path / "report.html"
    replace_file(path, Redactor.current().text(page).encode(errors="replace"))
    return path


def _text(value: Any) -> str:
    return html.escape(str(value))


def _section(title: str, note: str, content: str) -> str:
    return f"<h2>{_text(title)}</h2><p class=note>{_text(note)}</p>{content}" if content else ""


def _in_one_time(history: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The records with seconds that go on where a run was resumed: each attempt counts its own from 0."""
    before = last = 0.0
    for record in history:
        now = float(record.get("seconds") or 0.0)
        before += last if now < last else 0.0
        last = now
        yield record | {"seconds": before + now}


def _configuration(directory: RunDirectory) -> str:
    path = directory.path / "config.yaml"
    return f"<pre>{_text(path.read_text())}</pre>" if path.is_file() else ""


def _sentence(progress: Progress, record: dict[str, Any]) -> str:
    attempts, status = record.get("attempts", 1), record.get("status")
    how = "" if status in ("running", "succeeded") else f"This run was {status}: {record.get('why') or 'no reason'}. "
    how += f"It was resumed {attempts - 1} times. " if attempts > 1 else ""
    return (f"{how}{progress.version} policy versions in {progress.seconds / 60:.1f} minutes; "
            f"{progress.episodes} episodes; "
            f"{progress.acknowledged} rows acknowledged and found on disk; "
            f"source {record.get('revision') or 'unknown'}, seed {record.get('seed')}.")


def _table(progress: Progress) -> str:
    heads = ("world", "random", "imitation (v0)", "last version", "gain over imitation, task by task")
    rows = ["<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"]
    for world, by_version in progress.returns.items():
        if not by_version:
            continue
        first, last = by_version[min(by_version)], by_version[max(by_version)]
        gain = progress.gain.get(world) or ""
        cells = [world, progress.random.get(world, ""), first, f"{last} (v{max(by_version)})", gain]
        rows.append("<tr>" + "".join(f"<td>{_text(c)}</td>" for c in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>" if len(rows) > 1 else ""


def _draw(paint: Callable[[Any], None], panels: int = 1, height: float = 3.0) -> str:
    """An SVG of `panels` axes side by side, painted by `paint`."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    pyplot.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
    figure, axes = pyplot.subplots(1, panels, figsize=(10, height), squeeze=False, layout="constrained")
    paint(axes[0])
    for axis in axes[0]:
        axis.ticklabel_format(useOffset=False, style="plain")
        if axis.get_xlabel() == "policy version":
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    out = io.StringIO()
    figure.savefig(out, format="svg")
    pyplot.close(figure)
    svg = out.getvalue()
    return svg[svg.index("<svg"):]


def _plot_returns(progress: Progress) -> str:
    worlds = [w for w, by in progress.returns.items() if any(m.n for m in by.values())]
    if not worlds:
        return ""

    def paint(axes: Any) -> None:
        for axis, world, colour in zip(axes, worlds, _COLOURS * len(worlds), strict=False):
            points = sorted((v, m) for v, m in progress.returns[world].items() if m.n)
            versions = [v for v, _ in points]
            means, halves = [m.mean for _, m in points], [m.half or 0.0 for _, m in points]
            axis.plot(versions, means, "o-", color=colour)
            for version, measured in points:
                axis.annotate(f"n={measured.n}", (version, measured.mean), xytext=(0, 6), fontsize=6, color="#666",
                              textcoords="offset points", ha="center")
            axis.fill_between(versions, [m - h for m, h in zip(means, halves, strict=True)],
                              [m + h for m, h in zip(means, halves, strict=True)], color=colour, alpha=0.18, lw=0)
            random: Mean | None = progress.random.get(world)
            if random and random.n:
                axis.axhline(random.mean, color="#888", ls=":", lw=1)
            axis.set(title=world.rpartition(":")[2], xlabel="policy version", ylabel="held-out return")

    return _draw(paint, len(worlds))


def _plot_history(history: Sequence[dict[str, Any]], key: str, label: str) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for record in history:
        for name, value in (record.get(key) or {}).items():
            if isinstance(value, int | float) and math.isfinite(value) and "version" in record:
                series.setdefault(name, []).append((record["version"], value))
    if not series:
        return ""

    def paint(axes: Any) -> None:
        for (name, points), colour in zip(series.items(), _COLOURS * len(series), strict=False):
            axes[0].plot(*zip(*points, strict=True), color=colour, label=name.rpartition(":")[2])
        axes[0].set(xlabel="policy version", ylabel=label)
        axes[0].legend(frameon=False)

    return _draw(paint)


def _plot_sources(history: Sequence[dict[str, Any]]) -> str:
    points = [(r["seconds"], r["steps"]) for r in history if r.get("steps")]
    names = [n for n in ("demonstration", "real", "imagined") if any(s.get(n) for _, s in points)]
    if not points or not names:
        return ""

    def paint(axes: Any) -> None:
        axes[0].stackplot([t for t, _ in points], [[s.get(n, 0) for _, s in points] for n in names], labels=names,
                          colors=_COLOURS, alpha=0.8)
        axes[0].set(xlabel="seconds", ylabel="steps")
        axes[0].legend(frameon=False, loc="upper left")

    return _draw(paint)


def _plot_model(history: Sequence[dict[str, Any]]) -> str:
    points = [(r["version"], r["model_error"]) for r in history if r.get("model_error")]
    if not points:
        return ""

    def paint(axes: Any) -> None:
        for key, label, colour in (("exact_kept", "kept by the gate", _COLOURS[0]), ("exact", "all", _COLOURS[1]),
                                   ("copy", "copy baseline", "#888")):
            shares = [math.nan if e[key] is None else e[key] for _, e in points]
            axes[0].plot([v for v, _ in points], shares, label=label, color=colour)
        axes[0].set(xlabel="policy version", ylabel="predicted exactly", ylim=(-0.02, 1.02))
        axes[0].legend(frameon=False)

    return _draw(paint)


_CURVES = (("loss", ("policy_loss", "nll", "value_loss", "model_nll")), ("gradient", ("gradient_norm",)),
           ("from the acting policy", ("kl", "clipped")))


def _plot_learning(history: Sequence[dict[str, Any]]) -> str:
    found: dict[str, list[tuple[float, float]]] = {}
    for record in history:
        for name, value in (record.get("metrics") or {}).items():
            if isinstance(value, int | float) and math.isfinite(value) and "version" in record:
                found.setdefault(name, []).append((record["version"], value))
    panels = [(title, [n for n in names if n in found]) for title, names in _CURVES]
    panels = [(title, names) for title, names in panels if names]
    if not panels:
        return ""

    def paint(axes: Any) -> None:
        for axis, (title, names) in zip(axes, panels, strict=True):
            for name, colour in zip(names, _COLOURS, strict=False):
                axis.plot(*zip(*found[name], strict=True), color=colour, label=name, lw=1)
            axis.set(title=title, xlabel="policy version")
            axis.legend(frameon=False, fontsize=7)

    return _draw(paint, len(panels), height=2.4)


def _plot_lag(history: Sequence[dict[str, Any]]) -> str:
    points = [(r["version"], r["lag"]) for r in history if "lag" in r]
    if not points:
        return ""

    def paint(axes: Any) -> None:
        axes[0].plot(*zip(*points, strict=True), color=_COLOURS[0])
        axes[0].set(xlabel="policy version", ylabel="versions", ylim=(0, None))

    return _draw(paint, height=2.0)


def _kept(progress: Progress, counted: dict[str, int], record: dict[str, Any]) -> str:
    rows = {"rows acknowledged": progress.acknowledged, "of them on disk": counted["rows"] - counted["imagined_rows"],
            "imagined rows, in shards of their own": counted["imagined_rows"],
            "steps on disk": ", ".join(f"{counted.get(k, 0)} {k}" for k in ("real", "demonstration", "imagined")),
            "imagined branches": ", ".join(f"{n} {why}" for why, n in progress.imagined.items()) or "none",
            "episodes left out of learning": ", ".join(f"{n} {w}" for w, n in progress.dropped.items() if n) or "none",
            "updates skipped, not finite": progress.skipped,
            "failures": ", ".join(f"{n} × {why}" for why, n in progress.failures.items()) or "none",
            "collector restarts": progress.restarts, "machine": record.get("machine", "")}
    return "<table>" + "".join(f"<tr><td>{_text(k)}</td><td>{_text(v)}</td></tr>" for k, v in rows.items()) + "</table>"


def _examples(directory: RunDirectory) -> str:
    """The newest whole held-out episode of each world, as it stands in the shards."""
    from experience.shards.catalog import Catalog
    from experience.shards.replay import EpisodeReader

    reader, newest = EpisodeReader(), dict[str, Any]()
    for episode in (e for steps in Catalog(directory.shards).follow() for step in steps for e in reader.take(step)):
        decision = episode.first.decision
        if episode.first.split == "heldout" and not episode.failed and decision and decision.behaviour_id != "random":
            newest[episode.first.env_id] = episode
    parts = []
    for world, episode in newest.items():
        turns = []
        for step in episode.steps:
            signals = ", ".join(f"{s.name}={'unknown' if s.value is None else f'{s.value:g}'}" for s in step.signals)
            turns.append(f"{step.obs_text}\n→ {step.decision.text}\n   {signals}")
        parts.append(f"<p>{_text(world)}, policy v{episode.first.decision.policy_version}</p>"
                     f"<pre>{_text(chr(10).join(turns))}</pre>")
    return "".join(parts)

