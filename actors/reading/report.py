"""The report of a run: one HTML file with its pictures inside, no server and nothing fetched."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.config.schema import Config
from actors.reading import figures
from actors.reading.examples import examples
from actors.reading.listing import (
    held_out_cells,
    number,
    resumptions,
    seconds_of,
    status_of,
    version_of,
    when,
)
from actors.reading.live import warnings
from actors.reading.survey import Survey, first_version, known_config, learns, survey
from actors.running.progress import Progress
from actors.runs.directory import RunDirectory
from actors.runs.writing import replace_file
from experience.errors import ShardError
from experience.evaluation.statistics import Mean
from experience.shards.redaction.redact import Redactor

_STYLE = """:root{color-scheme:light dark;--ink:#222;--soft:#595959;--line:#ccc;--box:#f5f5f2;
--bad:#9d1c0d}
@media(prefers-color-scheme:dark){
:root{--ink:#e8e6e1;--soft:#b0aca4;--line:#555;--box:#2a2926;--bad:#ffa394}
body{background:#1c1b19}svg{background:#fff;border-radius:6px;padding:.4em}}
body{font:1rem/1.5 system-ui,sans-serif;max-width:65rem;margin:2em auto;padding:0 1em;
color:var(--ink)}
h1{font-size:1.5em;margin-bottom:.2em;overflow-wrap:anywhere}h2{font-size:1.15em;margin:2em 0 .4em}
h3{font-size:1em;margin-bottom:0}.wide{overflow-x:auto}table{border-collapse:collapse}
td,th{padding:.25em .9em .25em 0;text-align:right;border-bottom:1px solid var(--line);
vertical-align:top}
td:not(:first-child){white-space:pre-line}td:first-child,th:first-child{text-align:left}
svg{max-width:100%;height:auto;box-sizing:border-box}
.note{color:var(--soft)}.bad{border-left:.3em solid var(--bad);padding:.1em 1em;
background:var(--box)}
pre{background:var(--box);padding:.6em;white-space:pre-wrap;overflow-wrap:anywhere;max-height:40em;
overflow-y:auto}
figure{display:inline-block;margin:.5em 1em .5em 0;max-width:100%}
figure img{max-width:min(15rem,100%);
border:1px solid var(--line)}figcaption{font-size:.85em;color:var(--soft)}"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The page may fetch nothing and run nothing, whatever a world wrote into it."""


@dataclass(frozen=True)
class _Facts:
    """What a report tells of: the run's files, and what was read from its shards."""

    directory: RunDirectory
    progress: Progress
    config: Config | None
    record: Mapping[str, Any]
    found: Survey
    counted: Mapping[str, int]
    damage: str
    """Why the shards cannot be read; empty where they can."""

    @property
    def learning(self) -> bool:
        return learns(self.config)


def write_report(directory: RunDirectory, progress: Progress) -> Path:
    """Writes report.html into the run directory and returns its path.

    Returns, counts, failures and examples are read from the shards, so that a run that was cut off
    is reported like any other; `progress` adds what the shards do not hold.
    """
    facts = _read(directory, progress)
    history = list(figures.in_one_time(directory.metrics()))
    body = [
        *_summary(facts),
        *_curves(facts),
        *_history(facts, history),
        _section("Kept", "", _kept(progress, facts.counted, facts.record)),
        _section(
            "Examples",
            "Whole episodes: of each world the best and the worst held-out one of its last "
            "evaluated version, from the first turn to the closing row.",
            examples(directory, facts.found),
        ),
        _section("Configuration", "", _configuration(directory)),
    ]
    path = directory.path / "report.html"
    # The whole page passes the redactor, since a secret may come from any of its sources.
    page = Redactor.current().text(_page(directory.name, "".join(body)))
    replace_file(path, page.encode(errors="replace"))
    return path


def _read(directory: RunDirectory, progress: Progress) -> _Facts:
    """The facts of a run. A damaged store is one of them: the report of that run must say so."""
    found, damage = Survey([]), ""
    counted = dict.fromkeys(("rows", "imagined_rows"), 0)
    try:
        found = survey(directory.shards)
        counted = directory.count()
    except ShardError as error:
        damage = str(error)
    config = known_config(directory)
    return _Facts(directory, progress, config, directory.record, found, counted, damage)


def _page(title: str, body: str) -> str:
    """The whole HTML page."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{_text(title)}</title>"
        '<meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _summary(facts: _Facts) -> list[str]:
    """The head of the page: what went wrong first, then one sentence and one table."""
    damage = ""
    if facts.damage:
        damage = f'<p class="bad">The shards cannot be read: {_text(facts.damage)}</p>'
    # A policy that does not learn is not warned about what only learning needs.
    warned = warnings(facts.progress) if facts.learning else []
    sentence = _sentence(facts.directory, facts.record, len(facts.found.episodes), facts.counted)
    return [
        f"<h1>{_text(facts.directory.name)}</h1>",
        damage,
        *_what_happened(facts.directory, facts.record, facts.found),
        *(f'<p class="bad">{_text(warning)}</p>' for warning in warned),
        f"<p>{_text(sentence)}</p>",
        _table(facts.found, facts.learning, facts.config),
    ]


def _curves(facts: _Facts) -> list[str]:
    """Returns per policy version, on held-out tasks and while training."""
    held_out, training = facts.found.held_out(), facts.found.training()
    first = first_version(facts.config).removesuffix(" (v0)")
    by_version = {world: returns.versions for world, returns in held_out.items()}
    return [
        _section(
            "Return on held-out tasks, per policy version",
            "Tasks that training never draws; n of them at each point; bands are 95 % intervals "
            "over the tasks of this one run (Student's t; none for fewer than five). The dotted "
            "line is a policy of well-formed random actions; version 0 is "
            f"{first} alone.",
            figures.held_out(held_out) + _numbers(by_version),
        ),
        _section(
            "Return while training",
            _beside_held_out(facts.config),
            figures.training(training) + _numbers(training),
        ),
    ]


def _history(facts: _Facts, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the metrics tell over time: the steps, the world model, the updates."""
    return [
        _section(
            "Where the data came from",
            "Steps in the shards by source, as the run went on. Acknowledged "
            "steps were lived; imagined ones are kept in shards of their own.",
            figures.sources(history),
        ),
        _section(
            "World model",
            "On real transitions it was never fitted to: share predicted exactly, of all and "
            "of those that pass the uncertainty gate, beside the copy baseline.",
            figures.model(history),
        ),
        _section(
            "Learning",
            "Of updates on real experience: losses, the gradient's length before it is cut, how "
            "far the policy moved from the one that acted (kl; clipped: share of tokens whose "
            "ratio was), and the age of the experience.",
            figures.learning(history) if facts.learning else "",
        ),
    ]


def _text(value: Any) -> str:
    return html.escape(str(value))


def _section(title: str, note: str, content: str) -> str:
    return f'<h2>{_text(title)}</h2><p class="note">{_text(note)}</p>{content}' if content else ""


def _rows(rows: Sequence[Sequence[Any]], heads: Sequence[str] = ()) -> str:
    """The rows as an HTML table; "" if there are none."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    lines = [f"<tr>{head}</tr>"] if heads else []
    for row in rows:
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _what_happened(directory: RunDirectory, record: Mapping[str, Any], found: Survey) -> list[str]:
    """What a reader must know first: a bad ending, resumptions, failures. As HTML paragraphs."""
    status = status_of(directory, dict(record))
    parts = []
    if status not in ("running", "succeeded", "imported"):
        why = _text(record.get("why") or "its process is gone, and left no reason")
        parts.append(
            f'<p class="bad"><b>This run was {_text(status)}: {why}. '
            "What follows is what it had done until then.</b></p>"
        )
    for again in resumptions(dict(record)):
        before = "what it had lived" if again["version"] is None else f"version {again['version']}"
        parts.append(
            f"<p>Resumed {_text(when(again['at']))} from {before}; "
            "seconds of all attempts are added up.</p>"
        )
    if found.failures:
        items = "".join(
            f"<li>{f.count} × {_text(f.env_id)}: {_text(f.kind)}"
            f"<pre>{_text(f.traceback or f.first)}</pre></li>"
            for f in found.failures
        )
        parts.append(
            '<div class="bad"><p>Episodes that failed, which learning and returns leave out; '
            f"of each kind the first:</p><ul>{items}</ul></div>"
        )
    return parts


def _sentence(
    directory: RunDirectory, record: Mapping[str, Any], episodes: int, counted: Mapping[str, int]
) -> str:
    attempts = int(number(record.get("attempts")) or 1)
    how = f" in {attempts} attempts" if attempts > 1 else ""
    version = version_of(directory, dict(record), status_of(directory, dict(record)))
    return (
        f"Policy version {version} after {seconds_of(directory) / 60:.1f} minutes{how}; "
        f"{episodes} episodes; {counted['rows'] - counted['imagined_rows']} acknowledged rows "
        f"on disk, and apart from them {counted['imagined_rows']} imagined ones; "
        f"source {record.get('revision') or 'unknown'}, seed {record.get('seed')}."
    )


def _table(found: Survey, learning: bool, config: Config | None) -> str:
    cells = held_out_cells(found, learning, first_version(config))
    heads = list(dict.fromkeys(name for row in cells.values() for name in row))
    rows = []
    for world, row in cells.items():
        rows.append([world, *(row.get(name, "") for name in heads)])
    return _rows(rows, ["world", *heads])


def _numbers(found: Mapping[str, Mapping[int, Mean]]) -> str:
    rows = [
        (world, version, mean, mean.n)
        for world, by in found.items()
        for version, mean in by.items()
    ]
    table = _rows(rows, ["world", "version", "return", "n"])
    return f"<details><summary>The numbers</summary>{table}</details>" if table else ""


def _beside_held_out(config: Config | None) -> str:
    """Why the two curves differ."""
    caption = (
        "Real training episodes by the version that began them; "
        "n of them at each point, bands as above. "
    )
    if config is None:
        return caption
    sampled, held = config.policy.temperature, config.evaluation.temperature
    if sampled == held or config.policy.engine == "table":
        return caption + "They are other tasks than the held-out ones."
    how = "takes its likeliest action" if held == 0 else f"samples at temperature {held:g}"
    return caption + (
        f"Here the policy samples its actions at temperature {sampled:g} to explore; on held-out "
        f"tasks it {how}. One unlucky draw can spoil an episode, so that these returns may be "
        "lower than the held-out ones of the same version."
    )


def _configuration(directory: RunDirectory) -> str:
    path = directory.path / "config.yaml"
    return f"<pre>{_text(path.read_text())}</pre>" if path.is_file() else ""


def _kept(progress: Progress, counted: Mapping[str, int], record: Mapping[str, Any]) -> str:
    rows = {
        "rows acknowledged": progress.acknowledged or "unknown: the run did not end by itself",
        "acknowledged rows on disk": counted["rows"] - counted["imagined_rows"],
        "imagined rows, in shards of their own": counted["imagined_rows"],
        "steps on disk": ", ".join(
            f"{counted.get(k, 0)} {k}" for k in ("real", "demonstration", "imagined")
        ),
        "imagined branches": ", ".join(f"{n} {why}" for why, n in progress.imagined.items())
        or "none",
        "episodes left out of learning": ", ".join(
            f"{n} {w}" for w, n in progress.dropped.items() if n
        )
        or "none",
        "updates skipped, not finite": progress.skipped,
        "failures": ", ".join(f"{n} × {why}" for why, n in progress.failures.items()) or "none",
        "collector restarts": progress.restarts,
        "machine": record.get("machine", ""),
    }
    return _rows(list(rows.items()))
