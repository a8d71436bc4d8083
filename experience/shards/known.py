"""What a store knows: the kinds of its signals, and which steps it holds.

No more is read than a question needs. A stream is gapless, so that it holds every step up to its
last one, except those that retention removed. The snapshot names the last cold step of each stream;
hot segments are read from the newest back, until one answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from experience.errors import ShardError
from experience.shards.cold.parts import Part
from experience.shards.record.schema import signal_names
from experience.shards.storage.amendment_files import declared, declared_all
from experience.shards.storage.blocks import read_blocks
from experience.shards.storage.checked import open_checked
from experience.shards.storage.disk import REAL, Disk
from experience.shards.view import Segment, View, Viewer
from experience.signal import SignalKind

_KEYS = ("stream_id", "t")
_TRIES = 20


class Known:
    """One store at one instant: the committed rows that it held when this was made.

    Raises ShardError if a byte of what is read is wrong.
    """

    def __init__(self, store: Path, disk: Disk = REAL) -> None:
        self._store, self._disk, self._viewer = store, disk, Viewer(store, disk=disk)
        self._signals: dict[str, SignalKind] = {}
        self._last: dict[bytes, int] = {}
        self._tries = 0
        self._look()

    def _look(self) -> None:
        self._view = self._viewer.look()
        for part in self._view.snapshot.parts:
            for streams in part.streams.values():
                for stream, (_, last) in streams.items():
                    self._note(bytes.fromhex(stream), last)
        self._unread = _newest_first(self._view)

    def _note(self, stream: bytes, last: int) -> None:
        self._last[stream] = max(last, self._last.get(stream, -1))

    def holds(self, stream: bytes, t: int) -> bool:
        """Whether step t of `stream` is committed, and was not removed."""
        # Newest first: a step that is amended was lived lately, so that one segment mostly does.
        while self._last.get(stream, -1) < t and self._read_next():
            pass
        was_removed = any(
            first <= t <= last for first, last in self._view.snapshot.removed_spans.get(stream, ())
        )
        return 0 <= t <= self._last.get(stream, -1) and not was_removed

    def kind(self, name: str) -> SignalKind | None:
        """The unit and source of a signal; None if nothing declares it.

        The newest shard that has the signal says it, else the amendment that declared it.
        """
        if not self._signals:
            self._read_next()
        if (
            name not in self._signals
            and (kind := declared(self._store, name, self._disk)) is not None
        ):
            self._signals[name] = kind
        while name not in self._signals and self._read_next():
            pass
        return self._signals.get(name)

    def signals(self, *, amended: bool = True) -> dict[str, SignalKind]:
        """Every signal that a shard declares, or an amendment where `amended`. Reads all keys."""
        while self._read_next():
            pass
        if not amended:
            return dict(self._signals)
        return declared_all(self._store, self._disk) | self._signals

    def _read_next(self) -> bool:
        """Takes note of one more segment or part; False if there is none left."""
        found = next(self._unread, None)
        if found is None:
            return False
        try:
            schema, last = (
                _of_part(found, self._store, self._disk)
                if isinstance(found, Part)
                else _of_segment(found, self._disk)
            )
        except FileNotFoundError as error:  # it went cold meanwhile
            self._tries += 1
            if self._viewer.is_newest(self._view.snapshot) or self._tries > _TRIES:
                raise ShardError(
                    f"{error.filename or error} is missing", "restore the file from a copy"
                ) from error
            self._look()
            return True
        for name, unit, source in signal_names(schema) if schema is not None else ():
            # setdefault: what was read before is newer, and the newest shard says the kind.
            self._signals.setdefault(name, SignalKind(unit, source))  # type: ignore[arg-type]
        for stream, t in last.items():
            self._note(stream, t)
        return True


def _newest_first(view: View) -> Iterator[Segment | Part]:
    """Hot segments, each writer's last one first; then the parts."""
    depth = max(map(len, view.writers), default=0)
    for back in range(1, depth + 1):
        yield from (segments[-back] for segments in view.writers if len(segments) >= back)
    yield from reversed(view.snapshot.parts)


def _of_segment(segment: Segment, disk: Disk) -> tuple[pa.Schema | None, dict[bytes, int]]:
    """A segment's schema, and the last t of each of its streams.

    Of a sealed segment two columns are read, once its bytes agree with their SHA-256.
    """
    if not segment.is_sealed:
        batches = list(read_blocks(segment.path, disk, segment.rows))
        return (batches[0].schema, _last_of(batches)) if batches else (None, {})
    shard = open_checked(segment.expected, disk)
    try:
        schema = pa.ipc.open_file(shard).schema
        keys = pa.ipc.IpcReadOptions(
            included_fields=[schema.get_field_index(name) for name in _KEYS]
        )
        source = pa.ipc.open_file(shard, options=keys)
        return schema, _last_of([source.get_batch(n) for n in range(source.num_record_batches)])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(
            f"{segment.path} cannot be read: {error}", "restore the file from a copy"
        ) from error


def _last_of(batches: list[pa.RecordBatch]) -> dict[bytes, int]:
    rows = pa.Table.from_batches(
        [batch.select(_KEYS).replace_schema_metadata(None) for batch in batches]
    )
    found = rows.group_by("stream_id").aggregate([("t", "max")])
    return dict(
        zip(found.column("stream_id").to_pylist(), found.column("t_max").to_pylist(), strict=True)
    )


def _of_part(part: Part, store: Path, disk: Disk) -> tuple[pa.Schema | None, dict[bytes, int]]:
    """A part's schema; its streams are in the snapshot."""
    if part.is_lance:
        batch = next(iter(part.batches(store, disk)), None)
        return (None if batch is None else batch.schema), {}
    buffer = open_checked(part.expected(store), disk)
    try:
        return parquet.read_schema(pa.BufferReader(buffer)), {}
    except (pa.ArrowException, OSError) as error:
        raise ShardError(
            f"{part.path(store)} cannot be read: {error}", "restore the file from a copy"
        ) from error
