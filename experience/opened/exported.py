"""A store as a dataset of another library, by way of that library's own files."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from experience.errors import ConfigError
from experience.shards.exchange import export
from experience.shards.exchange.rows.episodes import library


def hugging_face(store: Path, split: str, to: str | Path | None) -> Any:
    """One split of the export `hf` of a store; exports it first where `to` is not there yet.

    to: None exports into a temporary folder that is deleted when this process ends.
    """
    datasets = library("datasets", "datasets")
    if to is None:
        folder = tempfile.mkdtemp(prefix="xp-hf-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        to = Path(folder) / "hf"
    out = Path(to)
    if not out.exists():
        export(store, "hf", out)
    if not (out / split).is_dir():
        there_are = ", ".join(sorted(p.name for p in out.iterdir() if p.is_dir()))
        raise ConfigError(f"{out} has no split {split!r}", f"there are: {there_are}")
    return datasets.load_from_disk(str(out / split))
