"""Parquet: a row a step and a file a split, with columns that need no knowledge of ours.

An unknown value is null.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from experience.shards.exchange.rows.episodes import Exchanged, Rows
from experience.shards.exchange.rows.pictures import Pictures
from experience.shards.exchange.rows.tables import TableWriter

NAME = "parquet"
_PATHS = pa.list_(pa.string())


def export(rows: Rows, out: Path) -> Exchanged:
    """Writes one file a split.

    Pictures are files in `images/`; the column `images` has their paths.
    """
    pictures = Pictures(rows.store, out)
    return TableWriter(
        out,
        rows.catalogue(),
        _PATHS,
        lambda step: [pictures.save(blob) for blob in step.obs_blobs],
    ).write(rows)
