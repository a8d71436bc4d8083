"""Parquet, and the same as a Hugging Face datasets folder: a row a step, columns that need no knowledge of ours."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from experience.shards.catalog import Catalog
from experience.shards.exchange.episodes import Exchanged, catalogue_of, library
from experience.shards.schema import FIELDS, PromptDeltas, schema, to_batch
from experience.signal import SignalKind
from experience.step import Step

_LEAST_BLOCK = 1_000


class _WholePrompts(PromptDeltas):
    """Prompts are stored whole, each row on its own."""

    def shrink(self, stream: bytes, prompt: np.ndarray, action: np.ndarray) -> tuple[int, np.ndarray]:
        return 0, prompt


def _flat(steps: list[Step], catalogue: Mapping[str, SignalKind]) -> pa.RecordBatch:
    """Columns that need no knowledge of ours: ids as hexadecimal text, prompts whole, `signal.<name>` a signal."""
    batch = to_batch(steps, schema(catalogue), _WholePrompts())
    columns: dict[str, Any] = {}
    for name, of, _ in FIELDS:
        if name in ("prompt_prefix_len", "signals"):
            continue
        column = batch.column(name)
        if pa.types.is_fixed_size_binary(of):
            column = pa.array([v and v.hex() for v in column.to_pylist()], pa.string())
        elif name == "obs_blobs":
            column = pa.array([[b.hash.hex() for b in s.obs_blobs] for s in steps], pa.list_(pa.string()))
        columns[name] = column
    for name in sorted(catalogue):
        values = [next((g.value for g in s.signals if g.name == name), None) for s in steps]
        columns[f"signal.{name}"] = pa.array(values, pa.float64())
    return pa.RecordBatch.from_pydict(columns)


def to_parquet(store: Path, out: Path) -> Exchanged:
    """One file a split."""
    done, catalogue = Exchanged(), catalogue_of(store)
    writers: dict[str, parquet.ParquetWriter] = {}
    waiting: dict[str, list[Step]] = defaultdict(list)

    def flush(split: str) -> None:
        batch = _flat(waiting.pop(split), catalogue)
        if split not in writers:
            done.files.append(f"{split}.parquet")
            writers[split] = parquet.ParquetWriter(out / done.files[-1], batch.schema, compression="zstd",
                                                   write_page_checksum=True)
        writers[split].write_batch(batch)
        done.rows += batch.num_rows

    for step in (s for steps in Catalog(store).follow() for s in steps):
        waiting[step.split].append(step)
        if len(waiting[step.split]) >= _LEAST_BLOCK:
            flush(step.split)
    for split in sorted(waiting):
        flush(split)
    for writer in writers.values():
        writer.close()
    return done


def to_hf(store: Path, out: Path) -> Exchanged:
    datasets = library("datasets", "datasets")
    (out / "draft").mkdir()
    done = to_parquet(store, out / "draft")
    for file in done.files:
        split = file.partition(".")[0]
        rows = datasets.Dataset.from_parquet(str(out / "draft" / file), cache_dir=str(out / "cache"), split=split)
        rows.save_to_disk(str(out / split))
    shutil.rmtree(out / "draft")
    shutil.rmtree(out / "cache", ignore_errors=True)
    return replace(done, files=[file.partition(".")[0] for file in done.files])
