"""Parquet, and the same as a Hugging Face datasets folder: a row a step, columns that need no knowledge of ours.

In Parquet an unknown value is null. A Hugging Face row holds no null, as torch collates none: an unknown number is NaN
(whole numbers and yes or no, where they may be unknown, are float64 for that), an unknown text or list is empty, and so
is an unknown `option_id`, which is text: a name of 63 bits is no float64.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from experience.shards.exchange.episodes import Exchanged, Rows, library
from experience.shards.exchange.pictures import Pictures
from experience.shards.record.encode import to_batch
from experience.shards.record.prompts import PromptDeltas
from experience.shards.record.schema import FIELDS, schema
from experience.signal import SignalKind
from experience.step import Step

_LEAST_BLOCK = 1_000
_MOST_PICTURES = 64 << 20  # bytes that wait for their block
_PATHS = pa.list_(pa.string())
_IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
_COUNTED = ("episode", "step_in_episode")  # may be null by their type, and never are
_UNKNOWN_NUMBERS = {
    name
    for name, of, may_be_null in FIELDS
    if may_be_null and name not in _COUNTED and (pa.types.is_integer(of) or pa.types.is_boolean(of))
}
Shown = Callable[[Step], list[Any]]


class _WholePrompts(PromptDeltas):
    """Prompts are stored whole, each row on its own."""

    def shrink(
        self, stream: bytes, prompt: np.ndarray, action: np.ndarray
    ) -> tuple[int, np.ndarray]:
        return 0, prompt


def _flat(
    steps: list[Step], catalogue: Mapping[str, SignalKind], images: pa.Array
) -> pa.RecordBatch:
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
            column = pa.array([[b.hash.hex() for b in s.obs_blobs] for s in steps], _PATHS)
        columns[name] = column
    columns["images"] = images
    for name in sorted(catalogue):
        values = [next((g.value for g in s.signals if g.name == name), None) for s in steps]
        columns[f"signal.{name}"] = pa.array(values, pa.float64())
    return pa.RecordBatch.from_pydict(columns)


def _without_nulls(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            _known(name, column)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ],
        batch.schema.names,
    )


def _known(name: str, column: pa.Array) -> pa.Array:
    if name == "option_id":
        column = column.cast(pa.string())
    elif name in _UNKNOWN_NUMBERS:
        column = column.cast(pa.float64())
    of = column.type
    if pa.types.is_floating(of):
        return pc.fill_null(column, float("nan"))
    if pa.types.is_integer(of):
        return pc.fill_null(column, 0)  # never null: what may be is a float by now
    if pa.types.is_list(of):
        return pa.array([v or [] for v in column.to_pylist()], of) if column.null_count else column
    if pa.types.is_large_binary(of):
        return pc.fill_null(column.cast(pa.binary()), b"")
    if pa.types.is_large_string(of) or pa.types.is_string(of):
        return pc.fill_null(column.cast(pa.string()), "")
    return column


@dataclass
class _Writer:
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
        batch = self.finish(_flat(steps, self.catalogue, images))
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


def to_parquet(rows: Rows, out: Path) -> Exchanged:
    """One file a split. Pictures are files in `images/`, by their paths in the column `images`."""
    pictures = Pictures(rows.store, out)
    return _Writer(
        out, rows.catalogue(), _PATHS, lambda step: [pictures.save(b) for b in step.obs_blobs]
    ).write(rows)


def to_hf(rows: Rows, out: Path) -> Exchanged:
    """One folder a split, for `datasets.load_from_disk`. Pictures are in the rows, as `datasets` keeps images."""
    datasets = library("datasets", "datasets")
    pictures, draft = Pictures(rows.store, out), out / "draft"
    draft.mkdir()

    def shown(step: Step) -> list[Any]:
        return [
            {"bytes": pictures.read(b), "path": None}
            for b in step.obs_blobs
            if b.media.startswith("image/")
        ]

    done = _Writer(draft, rows.catalogue(), _IMAGES, shown, _without_nulls).write(rows)
    for file in done.files:
        split = file.partition(".")[0]
        table = datasets.Dataset.from_parquet(
            str(draft / file), cache_dir=str(out / "cache"), split="train"
        )
        table.cast_column("images", datasets.List(datasets.Image())).save_to_disk(str(out / split))
    shutil.rmtree(draft)
    shutil.rmtree(out / "cache", ignore_errors=True)
    done.files = [file.partition(".")[0] for file in done.files]
    return done


def ragged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as one batch, for `torch.utils.data.DataLoader(…, collate_fn=ragged)`: numbers as one array [rows], texts
    and what differs in length (tokens, log-probabilities, pictures) as lists."""

    def is_number(value: Any) -> bool:
        return not isinstance(value, str | bytes | list | dict) and np.ndim(value) == 0

    return {
        name: np.array([row[name] for row in rows])
        if is_number(value)
        else [row[name] for row in rows]
        for name, value in rows[0].items()
    }
