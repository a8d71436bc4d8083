"""The files of amendments: written, read, and rid of amendments of removed rows.

Each call makes one immutable Parquet file, `amendments/<number>-<SHA-256>.amendments`, beside the
writers' directories. One rename publishes it, and readers check it against the hash in its name.
The ending is not `.parquet`, so that a glob for the store's Parquet finds steps alone. Amendments
of older stores, which have that ending, are read as well.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from experience.errors import ShardError
from experience.shards.storage.disk import REAL, Disk
from experience.shards.storage.unpacked import unpacked
from experience.signal import SignalKind

FOLDER = "amendments"
SCHEMA = pa.schema(
    [
        pa.field("stream_id", pa.binary(16), nullable=False),
        pa.field("t", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("evidence", pa.string(), nullable=False),
        pa.field("reward_version", pa.string(), nullable=False),
        pa.field("t_ns", pa.int64(), nullable=False),
    ]
)


MOST_BYTES = 1 << 30
_ENDINGS = (".amendments", ".parquet")
Spans = Mapping[bytes, Sequence[tuple[int, int]]]
"""By stream, the runs of t that are there, each with its first and last."""


def publish(store: Path, number: int, table: pa.Table, disk: Disk) -> Path:
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="zstd")
    folder = store / FOLDER
    disk.make_directory(folder)
    # A name of its own: two processes may amend one store at once.
    draft = folder / f".draft-{secrets.token_hex(4)}"
    disk.write_file(draft, [sink.getvalue()])
    final = folder / f"{number:06d}-{hashlib.sha256(sink.getvalue()).hexdigest()}{_ENDINGS[0]}"
    disk.rename(draft, final)
    disk.sync_directory(folder)
    return final


def amendments(store: Path, disk: Disk = REAL) -> pa.Table:
    """All of them, oldest first. Raises ShardError if a byte of them is wrong."""
    tables = [read_amendments(path, disk) for path in files(store, disk)]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def declared(store: Path, name: str, disk: Disk = REAL) -> SignalKind | None:
    """Unit and source of signal `name` by the newest file that amends it; None if no file does."""
    for path in reversed(files(store, disk)):
        if name in (kinds := _kinds(read_amendments(path, disk))):
            return kinds[name]
    return None


def declared_all(store: Path, disk: Disk = REAL) -> dict[str, SignalKind]:
    """The unit and source of every signal that was amended."""
    return _kinds(amendments(store, disk))


def _kinds(table: pa.Table) -> dict[str, SignalKind]:
    said = table.filter(pc.equal(table.column("reward_version"), "")).select(
        ["name", "unit", "source"]
    )
    return {row["name"]: SignalKind(row["unit"], row["source"]) for row in said.to_pylist()}


def read_amendments(path: Path, disk: Disk = REAL) -> pa.Table:
    """Those of one file. Raises ShardError if a byte of it is wrong."""
    data = disk.read(path)
    if hashlib.sha256(data).hexdigest() != path.stem.partition("-")[2]:
        raise ShardError(
            f"{path} is damaged: it is not what its name says", "restore the file from a copy"
        )
    try:
        return _table(data)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ShardError(
            f"{path} holds no amendments: {str(error).partition(chr(10))[0]}",
            "the file was not written by xp",
        ) from error


def _table(data: bytes) -> pa.Table:
    """The table of a file, refused if it would take too much memory: it may be a stranger's."""
    words = [field.name for field in SCHEMA if pa.types.is_string(field.type)]
    file = parquet.ParquetFile(io.BytesIO(data), read_dictionary=words)
    # Sizes by the metadata come first: a group that lies about nothing is refused unread.
    groups = (
        file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups)
    )
    size, batches = max(groups, default=0), []
    for batch in file.iter_batches(batch_size=4096) if size <= MOST_BYTES else ():
        size += sum(map(unpacked, batch.columns))
        if size > MOST_BYTES:
            break
        batches.append(batch)
    if size > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_BYTES >> 20} MiB")
    return pa.Table.from_batches(batches).cast(SCHEMA) if batches else SCHEMA.empty_table()


def dangling(store: Path, steps: Spans, disk: Disk = REAL) -> Iterator[str]:
    """What amends a step that is not among `steps`, a sentence each."""
    for row in amendments(store, disk).to_pylist():
        if not holds(steps, row["stream_id"], row["t"]):
            step = f"step {row['t']} of stream {row['stream_id'].hex()}"
            yield f"{row['name']!r} amends {step}, which is not there"


def holds(steps: Spans, stream: bytes, t: int) -> bool:
    return any(first <= t <= last for first, last in steps.get(stream, ()))


def drop_amendments(
    store: Path, gone: Mapping[str, Sequence[tuple[int, int]]], disk: Disk = REAL
) -> int:
    """Removes the amendments of rows that are `gone`. Returns how many.

    gone: stream, hexadecimal -> runs of t. A file with such amendments is replaced by a file of the
    same number without them; the new file is written before the old file is removed.
    """
    steps, dropped = {bytes.fromhex(stream): spans for stream, spans in gone.items()}, 0
    for path in files(store, disk):
        table = read_amendments(path, disk)
        keys = zip(
            table.column("stream_id").to_pylist(), table.column("t").to_pylist(), strict=True
        )
        stays = np.array([not holds(steps, stream, t) for stream, t in keys], bool)
        if stays.all():
            continue
        dropped += int((~stays).sum())
        # The new file before the old one goes: a crash in between leaves both, never neither.
        if stays.any():
            publish(store, number_of(path), table.filter(pa.array(stays)), disk)
        disk.remove(path)
        disk.sync_directory(path.parent)
    return dropped


def files(store: Path, disk: Disk) -> list[Path]:
    folder = store / FOLDER
    names = disk.names(folder) if folder in disk.directories(store) else []
    found = [
        folder / name for name in names if name.endswith(_ENDINGS) and not name.startswith(".")
    ]
    return sorted(found, key=lambda path: (number_of(path), path.name))


def number_of(path: Path) -> int:
    number = path.stem.partition("-")[0]
    if not number.isdecimal():
        raise ShardError(
            f"{path} is no file of amendments: its name says no number", "move it elsewhere"
        )
    return int(number)
