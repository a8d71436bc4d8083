"""W4: a scan for rows with reward > 0 (2 %), which hands over all their columns.

Each function prepares once and returns the scan.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as parquet

from benchmarks.store.append import as_table, ours_append
from experience.shards.catalog import Catalog


def ours_filter(rows: list[dict[str, Any]], folder: Path) -> Callable[[], int]:
    ours_append(rows, folder, "os")  # how the rows were made durable does not change the scan
    return lambda: int(Catalog(folder).dataset().to_table(filter=pc.field("reward") > 0.0).num_rows)


def lance_filter(rows: list[dict[str, Any]], folder: Path) -> Callable[[], int]:
    import lance

    lance.write_dataset(as_table(rows), str(folder / "lance"))
    return lambda: int(lance.dataset(str(folder / "lance")).to_table(filter="reward > 0").num_rows)


def parquet_filter(rows: list[dict[str, Any]], folder: Path) -> Callable[[], int]:
    parquet.write_table(
        as_table(rows), folder / "rows.parquet", compression="zstd", row_group_size=4000
    )
    return lambda: int(
        parquet.read_table(folder / "rows.parquet", filters=[("reward", ">", 0)]).num_rows
    )
