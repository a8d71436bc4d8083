"""Steps as flat tables: a row a step, in Parquet files, a file a split."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from experience.shards.exchange.rows.episodes import Exchanged, Rows
from experience.shards.record.encode import to_batch
from experience.shards.record.prompts import PromptDeltas
from experience.shards.record.schema import FIELDS, schema
from experience.signal import SignalKind
from experience.step import Step

_LEAST_BLOCK = 1_000
_MOST_PICTURES = 64 << 20  # bytes that wait for their block
_PATHS = pa.list_(pa.string())
Shown = Callable[[Step], list[Any]]


class _WholePrompts(PromptDeltas):
    """Prompts are stored whole, each row on its own."""

    def shrink(
        self, stream: bytes, prompt: np.ndarray, action: np.ndarray
    ) -> tuple[int, np.ndarray]:
        return 0, prompt


def flat(
    steps: list[Step], catalogue: Mapping[str, SignalKind], images: pa.Array
) -> pa.RecordBatch:
    """Columns that any reader knows: ids as hexadecimal text, whole prompts, a column a signal."""
    batch = to_batch(steps, schema(catalogue), _WholePrompts())
    columns: dict[str, Any] = {}
    for name, of, _ in FIELDS:
        if name in ("prompt_prefix_len", "signals"):
            continue
        column = batch.column(name)
        if pa.types.is_fixed_size_binary(of):
            column = pa.array([v and v.hex() for v in column.to_pylist()], pa.string())
        elif name == "obs_blobs":
            column = pa.array([[b.hash.hex() for b in s.obs_blobs] for s in steps], _PATHS)
        columns[name] = column
    columns["images"] = images
    for name in sorted(catalogue):
        values = [next((g.value for g in s.signals if g.name == name), None) for s in steps]
        columns[f"signal.{name}"] = pa.array(values, pa.float64())
    return pa.RecordBatch.from_pydict(columns)


@dataclass
class TableWriter:
    """Parquet files, one a split, written a block at a time."""

    out: Path
    catalogue: Mapping[str, SignalKind]
    images: pa.DataType
    shown: Shown
    finish: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda batch: batch
    done: Exchanged = field(default_factory=Exchanged)

    def write(self, rows: Rows) -> Exchanged:
        self._writers: dict[str, parquet.ParquetWriter] = {}
        waiting: dict[str, list[Step]] = defaultdict(list)
        sizes: dict[str, int] = defaultdict(int)
        for step in rows.steps():
            split = re.sub(r"\W", "-", step.split) or "none"  # a stranger's word is no path
            waiting[split].append(step)
            sizes[split] += sum(b.nbytes for b in step.obs_blobs)
            if len(waiting[split]) >= _LEAST_BLOCK or sizes[split] >= _MOST_PICTURES:
                self._flush(split, waiting.pop(split))
                del sizes[split]
        for split in sorted(waiting):
            self._flush(split, waiting[split])
        for writer in self._writers.values():
            writer.close()
        return self.done

    def _flush(self, split: str, steps: list[Step]) -> None:
        images = pa.array([self.shown(step) for step in steps], self.images)
        batch = self.finish(flat(steps, self.catalogue, images))
        if split not in self._writers:
            self.done.files.append(f"{split}.parquet")
            self._writers[split] = parquet.ParquetWriter(
                self.out / self.done.files[-1],
                batch.schema,
                compression="zstd",
                write_page_checksum=True,
            )
        self._writers[split].write_batch(batch)
        self.done.rows += batch.num_rows
