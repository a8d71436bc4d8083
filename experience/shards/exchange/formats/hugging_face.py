"""Hugging Face: a `datasets` folder a split, a row a step, pictures in the rows.

A row holds no null, as torch collates none. An unknown number is NaN, and whole numbers and
booleans that may be unknown are float64 for that. An unknown text or list is empty, and so is an
unknown `option_id`, which is text: its 63 bits do not fit into a float64.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experience.shards.exchange.rows.episodes import Exchanged, Rows, library
from experience.shards.exchange.rows.pictures import Pictures
from experience.shards.exchange.rows.tables import TableWriter
from experience.shards.record.schema import FIELDS
from experience.step import Step

NAME = "hf"
_IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
_COUNTED = ("episode", "step_in_episode")  # may be null by their type, and never are
_UNKNOWN_NUMBERS = {
    name
    for name, of, may_be_null in FIELDS
    if may_be_null and name not in _COUNTED and (pa.types.is_integer(of) or pa.types.is_boolean(of))
}


def export(rows: Rows, out: Path) -> Exchanged:
    """Writes one folder a split, for `datasets.load_from_disk`.

    Pictures are in the rows, as `datasets` keeps images.
    """
    datasets = library("datasets", "datasets")
    pictures, draft = Pictures(rows.store, out), out / "draft"
    draft.mkdir()

    def shown(step: Step) -> list[Any]:
        return [
            {"bytes": pictures.read(b), "path": None}
            for b in step.obs_blobs
            if b.media.startswith("image/")
        ]

    done = TableWriter(draft, rows.catalogue(), _IMAGES, shown, without_nulls).write(rows)
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


def without_nulls(batch: pa.RecordBatch) -> pa.RecordBatch:
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


def ragged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as one batch, for `torch.utils.data.DataLoader(…, collate_fn=ragged)`.

    Numbers are one array [rows]; texts, and values that differ in length (tokens,
    log-probabilities, pictures), are lists.
    """

    def is_number(value: Any) -> bool:
        return not isinstance(value, str | bytes | list | dict) and np.ndim(value) == 0

    return {
        name: np.array([row[name] for row in rows])
        if is_number(value)
        else [row[name] for row in rows]
        for name, value in rows[0].items()
    }
