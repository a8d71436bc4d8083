"""The files of a run directory: its record, metrics, failures, checkpoints and shards."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from actors.config.section import absolute
from actors.runs.checkpoint_store import CheckpointStore
from actors.runs.trust import read_bounded, read_json
from actors.runs.writing import replace_file
from experience.errors import ShardError
from experience.shards.catalog import Catalog
from experience.shards.redaction.redact import Redactor
from experience.text.strict_json import dumps


class RunFiles:
    """Reads and writes the files of one run. `run.json` is replaced, never edited.

    Everything written passes through the redactor, so that no file holds a secret.
    """

    def __init__(self, path: Path) -> None:
        self.path = absolute(path)  # a world may change the working directory
        self.shards = self.path / "shards"
        self.checkpoints = CheckpointStore(self.path / "checkpoints")
        self._metrics = self.path / "metrics" / "metrics.jsonl"
        self._failures = self.path / "failures.json"

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def record(self) -> dict[str, Any]:
        """What run.json holds. Raises ShardError for a file that is no record of a run."""
        path = self.path / "run.json"
        record = read_json(read_bounded(path), str(path))
        if not isinstance(record, dict):
            raise ShardError(f"{path} is no record of a run", "restore it from a copy")
        return record

    def write_record(self, **entries: Any) -> None:
        """Sets entries of run.json; the other entries stay."""
        path = self.path / "run.json"
        old = self.record if path.exists() else {}
        new = old | Redactor.current().value(entries)
        replace_file(path, dumps(new, indent=1).encode())

    def log(self, record: dict[str, Any]) -> None:
        """Appends one line to metrics.jsonl, with the time `t` in seconds since the epoch."""
        line = dumps({"t": time.time()} | Redactor.current().value(record))
        with open(self._metrics, "a") as file:
            file.write(line + "\n")

    def note(self, record: dict[str, Any]) -> None:
        """Appends one line to phases.jsonl, beside the metrics: a phase that began, a warning."""
        line = dumps({"t": time.time()} | Redactor.current().value(record))
        with open(self._metrics.with_name("phases.jsonl"), "a") as file:
            file.write(line + "\n")

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The records of metrics.jsonl in the order of writing; none if there is no such file."""
        if not self._metrics.exists():
            return
        for number, line in enumerate(read_bounded(self._metrics).splitlines(), 1):
            record = read_json(line, f"{self._metrics}:{number}")
            if isinstance(record, dict):
                yield record

    def write_failures(self, failures: Iterable[Mapping[str, Any]]) -> None:
        """Writes failures.json, in the form that `failures` returns. Writes nothing if empty."""
        found = [Redactor.current().value(dict(failure)) for failure in failures]
        if found:
            replace_file(self._failures, dumps(found, indent=1).encode())

    def failures(self) -> list[dict[str, Any]]:
        """The failures of worlds: one record per world and type of error; empty if none failed.

        world: the id. what: type and message of the first error. count: errors over the whole run.
        traceback: the whole traceback of the first error.
        """
        if not self._failures.exists():
            return []
        found = read_json(read_bounded(self._failures), str(self._failures))
        if not isinstance(found, list):
            return []
        return [row for row in found if isinstance(row, dict)]

    def keep_batch(self, version: int, batch: Mapping[str, Any]) -> Path:
        """Writes arrays by name to diverged-VERSION.npz for inspection. Returns the path."""
        path = self.path / f"diverged-{version:06d}.npz"
        packed = io.BytesIO()
        np.savez_compressed(packed, **batch)
        replace_file(path, packed.getvalue())
        return path

    def count(self) -> dict[str, int]:
        """Counts what the shards hold.

        rows: all rows. imagined_rows: rows in the shards of imagined experience. real,
        demonstration, imagined and other sources: steps (rows with an action) of that source.
        """
        counts = {"rows": 0, "imagined_rows": 0, "real": 0, "demonstration": 0, "imagined": 0}
        for folder in (self.shards, self.path / "imagined"):
            if not folder.is_dir():
                continue
            for batch in Catalog(folder).batches():
                counts["rows"] += len(batch)
                counts["imagined_rows"] += len(batch) if folder != self.shards else 0
                acted = batch.column("action_text").is_valid().to_pylist()
                for source in compress(batch.column("source").to_pylist(), acted):
                    counts[source] = counts.get(source, 0) + 1
        return counts
