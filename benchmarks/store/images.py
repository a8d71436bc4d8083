"""W2: one screenshot a row, 60 KB each as from a browser; 60 % of them were seen before."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from benchmarks.store.append import CATALOGUE
from benchmarks.store.rows import COMMIT_ROWS
from experience.shards.journal import Journal
from experience.step import Step


def make_images(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    images: list[bytes] = []
    for _ in range(count):
        if images and rng.random() < 0.6:
            images.append(images[rng.integers(len(images))])
        else:
            # Random bytes: a PNG cannot be compressed again, so the store must not gain by trying.
            images.append(b"\x89PNG\r\n\x1a\n" + rng.bytes(int(rng.integers(40_000, 80_000))))
    return images


def ours_images(images: list[bytes], folder: Path) -> None:
    journal = Journal(
        folder / "w", CATALOGUE, batch_rows=COMMIT_ROWS, commit_seconds=3600, durability="os"
    )
    for t, image in enumerate(images):
        blob = journal.blobs.put(image, "image/png", role="screenshot")
        journal.append(Step(bytes(16), t, "bench", "", obs_blobs=(blob,)))
    journal.close()


def parquet_images(images: list[bytes], folder: Path) -> None:
    of = pa.schema([("t", pa.int64()), ("image", pa.large_binary())])
    with parquet.ParquetWriter(
        folder / "rows.parquet", of, compression="none", use_dictionary=False
    ) as writer:
        for i in range(0, len(images), COMMIT_ROWS):
            part = images[i : i + COMMIT_ROWS]
            writer.write_table(
                pa.table(
                    {
                        "t": list(range(i, i + len(part))),
                        "image": pa.array(part, pa.large_binary()),
                    },
                    schema=of,
                )
            )


def lance_images(images: list[bytes], folder: Path) -> None:
    import lance

    for i in range(0, len(images), COMMIT_ROWS):
        part = images[i : i + COMMIT_ROWS]
        lance.write_dataset(
            pa.table(
                {"t": list(range(i, i + len(part))), "image": pa.array(part, pa.large_binary())}
            ),
            str(folder / "lance"),
            mode="append",
        )


def file_images(images: list[bytes], folder: Path) -> None:
    """A file a frame, as most recorders do."""
    for t, image in enumerate(images):
        (folder / f"{t:06d}.png").write_bytes(image)


def raw_images(images: list[bytes], folder: Path) -> None:
    """The limit: each different picture written once, nothing else."""
    descriptor = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT)
    for image in dict.fromkeys(images):
        os.write(descriptor, image)
    os.close(descriptor)
