"""What may be asked of the viewer: each address, and the function that answers it with data.

The same table answers over HTTP and fills an exported file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.reading.viewer.shelf.question import Question
from actors.reading.viewer.shelf.shelf import Shelf
from actors.reading.viewer.told import (
    episodes,
    groups,
    overview,
    planning,
    runs,
    storage,
    timeline,
    versions,
)
from actors.reading.viewer.turns import episode

Answer = Callable[[Shelf, dict[str, str], Question], Any]

QUESTIONS: dict[str, Answer] = {
    "/api/runs": lambda shelf, _, __: runs.list_runs(shelf),
    "/api/runs/{run}": lambda shelf, at, _: overview.overview(shelf, at["run"]),
    "/api/runs/{run}/episodes": lambda shelf, at, q: episodes.list_episodes(shelf, at["run"], q),
    "/api/runs/{run}/episodes/{key}": lambda shelf, at, q: episode.show(
        shelf, at["run"], at["key"], q
    ),
    "/api/runs/{run}/episodes/{key}/turns": lambda shelf, at, q: episode.turns(
        shelf, at["run"], at["key"], q
    ),
    "/api/runs/{run}/groups": lambda shelf, at, q: groups.list_groups(shelf, at["run"], q),
    "/api/runs/{run}/group": lambda shelf, at, q: groups.show(shelf, at["run"], q),
    "/api/runs/{run}/timeline": lambda shelf, at, q: timeline.timeline(shelf, at["run"], q),
    "/api/runs/{run}/imagined": lambda shelf, at, q: planning.imagined(shelf, at["run"], q),
    "/api/runs/{run}/options": lambda shelf, at, _: planning.options(shelf, at["run"]),
    "/api/runs/{run}/versions": lambda shelf, at, q: versions.compare(shelf, at["run"], q),
    "/api/runs/{run}/store": lambda shelf, at, _: storage.storage(shelf, at["run"]),
    "/api/runs/{run}/verified": lambda shelf, at, q: storage.verified(shelf, at["run"], q),
}
