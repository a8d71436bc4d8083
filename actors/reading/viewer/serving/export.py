"""A run as one HTML file: the same pages, with the answers and pictures that they need inside.

Nothing is fetched, and only our own script may run: the file's policy names it by its hash. Data
stand in a block of JSON in which no `<` can end the block.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from actors.reading.viewer.serving.pages import bundle, styles
from actors.reading.viewer.serving.questions import QUESTIONS
from actors.reading.viewer.serving.server import picture_kind, read_picture
from actors.reading.viewer.shelf.columns import Columns
from actors.reading.viewer.shelf.question import Question
from actors.reading.viewer.shelf.shelf import Shelf
from actors.runs.writing import replace_file
from experience.errors import ConfigError
from experience.shards.redaction.redact import Redactor
from experience.text.strict_json import dumps

_MOST_EPISODES = 60
_MOST_TURNS = 200
_MOST_PICTURE_BYTES = 40 << 20


def write_export(shelf: Shelf, name: str, path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Writes the file; returns counts of what it holds.

    keys: the episodes; if none is named, of each world the best, the worst, a typical one and the
    failed ones. Raises ConfigError for too many, and for a key that no episode has.
    """
    columns = shelf.run(name).lived.columns()
    chosen = list(dict.fromkeys(keys)) or _some_of_each(columns)
    if len(chosen) > _MOST_EPISODES:
        raise ConfigError(f"{len(chosen)} episodes", f"one file holds {_MOST_EPISODES} at most")
    answers = _answers(shelf, name, columns, chosen)
    shown = [answers[where] for where in answers if "/episodes/" in where]
    hashes = {p["hash"] for a in shown for turn in a.get("turns", ()) for p in turn["pictures"]}
    pictures = _pictures(shelf, name, sorted(hashes))
    text = Redactor.current().text(
        dumps({"answers": answers, "pictures": pictures}, ensure_ascii=False, default=str)
    )
    page = _page(name, text)
    replace_file(path, page.encode(errors="replace"))
    return {
        "file": str(path),
        "run": name,
        "episodes": len(chosen),
        "of": len(columns),
        "pictures": len(pictures),
        "bytes": path.stat().st_size,
    }


def _some_of_each(columns: Columns) -> list[str]:
    """Of each world the best, the worst and the middle episode of its newest version, and failed
    ones."""
    places: list[int] = []
    version = columns.numbers["first_version"]
    for world in columns.words["env_id"].words:
        own = np.flatnonzero(columns.words["env_id"].are(world))
        known = own[~np.isnan(columns.reward[own]) & ~columns.failed[own]]
        newest = known[version[known] == version[known].max()] if len(known) else known
        ranked = newest[np.argsort(columns.reward[newest], kind="stable")]
        if len(ranked):
            places += [ranked[-1], ranked[len(ranked) // 2], ranked[0]]
        places += own[columns.failed[own]][:2].tolist()
    return [columns.key(int(place)) for place in dict.fromkeys(places)][:_MOST_EPISODES]


def _answers(
    shelf: Shelf, name: str, columns: Columns, keys: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Address -> answer, for each question that the file's pages ask."""
    run = f"/api/runs/{quote(name, safe='')}"
    at = {"run": name}
    listed = QUESTIONS["/api/runs"](shelf, {}, Question())
    answers = {
        "/api/runs": {"runs": [row for row in listed["runs"] if row["name"] == name]},
        run: QUESTIONS["/api/runs/{run}"](shelf, at, Question()),
    }
    rows = []
    for key in keys:
        # As the browser writes it: encodeURIComponent.
        where = f"{run}/episodes/{quote(key, safe='')}"
        asked = {**at, "key": key}
        told = QUESTIONS["/api/runs/{run}/episodes/{key}"](shelf, asked, Question())
        answers[where] = told | {"before": None, "after": None}
        place = columns.place(key)
        rows.append(columns.row(place if place is not None else 0))
        size, all_turns = told["page_size"], min(len(told["strip"]), _MOST_TURNS)
        for first in range(size, all_turns, size):
            page = Question({"from": str(first), "count": str(size)})
            turns = QUESTIONS["/api/runs/{run}/episodes/{key}/turns"](shelf, asked, page)
            answers[f"{where}/turns?count={size}&from={first}"] = turns
    page = QUESTIONS["/api/runs/{run}/episodes"](shelf, at, Question())
    few = {"rows": rows, "total": len(rows), "page": 0, "pages": 1}
    answers[f"{run}/episodes"] = page | few
    return answers


def _pictures(shelf: Shelf, name: str, hashes: Sequence[str]) -> dict[str, str]:
    """Hash -> data address. Once they are too large together, the rest is left out."""
    found, size = {}, 0
    for digest in hashes:
        data = read_picture(shelf, name, digest)
        kind = picture_kind(data)
        size += len(data)
        if size > _MOST_PICTURE_BYTES:
            break
        if kind.startswith("image/"):
            found[digest] = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return found


def _page(name: str, data: str) -> str:
    script, style = bundle(), styles()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    # "<" in JSON stands within texts only, where this means the same.
    safe = data.replace("<", "\\u003c")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
        f"<title>{html.escape(name)}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<style>{style}</style></head><body>"
        '<a class="skip" href="#content">To the content</a><header id="head"></header>'
        '<main id="content" tabindex="-1"><p class="loading">Loading…</p></main>'
        '<div id="said" role="status" aria-live="polite"></div>'
        f'<script id="data" type="application/json">{safe}</script>'
        f'<script type="module">{script}</script></body></html>'
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
