"""JSON lines: a step a line, everything; pictures in `images/`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from experience.errors import ShardError
from experience.shards.exchange.rows.episodes import MOST_BYTES, Exchanged, Placed, Rows, checked
from experience.shards.exchange.rows.json_steps import as_plain, from_plain
from experience.shards.exchange.rows.pictures import Pictures
from experience.step import Step
from experience.text.strict_json import dumps

NAME = "jsonl"


def export(rows: Rows, out: Path) -> Exchanged:
    done, pictures = Exchanged(files=["steps.jsonl"]), Pictures(rows.store, out)
    with open(out / "steps.jsonl", "w") as file:
        for step in rows.steps():
            file.write(dumps(as_plain(step)) + "\n")
            for blob in step.obs_blobs:
                pictures.save(blob)
            done.rows += 1
    return done


def import_from(source: Path) -> Iterator[Placed]:
    for path in sorted(source.glob("*.jsonl")) if source.is_dir() else [source]:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(MOST_BYTES + 1):
                number += 1
                where = f"{path}:{number}"
                if len(line) > MOST_BYTES:
                    raise ShardError(
                        f"{where}: longer than {MOST_BYTES >> 20} MiB", "nothing was imported"
                    )
                if line.strip():
                    yield where, checked(where, lambda line=line: _step(line))  # type: ignore[misc]


def _step(line: bytes) -> Step:
    return from_plain(json.loads(line.decode()))
