"""JSON lines: a step a line, everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from experience.shards.catalog import Catalog
from experience.shards.exchange.episodes import Exchanged, checked
from experience.shards.exchange.plain import as_plain, from_plain
from experience.step import Step


def to_jsonl(store: Path, out: Path) -> Exchanged:
    done = Exchanged(files=["steps.jsonl"])
    with open(out / "steps.jsonl", "w") as file:
        for step in (s for steps in Catalog(store).follow() for s in steps):
            file.write(json.dumps(as_plain(step)) + "\n")
            done.rows += 1
    return done


def from_jsonl(source: Path) -> Iterator[Step]:
    for path in sorted(source.glob("*.jsonl")) if source.is_dir() else [source]:
        with open(path) as file:
            for number, line in enumerate(file, 1):
                yield checked(f"{path}:{number}", lambda line=line: from_plain(json.loads(line)))  # type: ignore[misc]
