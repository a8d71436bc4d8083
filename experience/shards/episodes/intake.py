"""Intake: the rows committed since go into the records, block by block, with where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experience.shards.cold.snapshot import read_snapshot
from experience.shards.episodes import saved
from experience.shards.episodes.cutting import Cutter, columns_of
from experience.shards.episodes.files import COLD, Files
from experience.shards.episodes.prompt_refs import PromptRefs
from experience.shards.episodes.records import Records
from experience.shards.episodes.rewards import Key, Rewards
from experience.shards.episodes.rows import RowReader
from experience.shards.follow import Follower, Found
from experience.shards.record.decode import to_steps
from experience.shards.record.prompts import PromptDeltas
from experience.shards.storage.disk import Disk
from experience.step import Step


class Intake:
    """Follows one store for its index: every committed row is added to exactly one record.

    `tellers`: the rows that may tell late signals of earlier rows. `unsaved_rows`: those that were
    read since the index was saved.
    """

    def __init__(
        self, store: Path, rewards: Rewards, known: saved.Saved | None, disk: Disk
    ) -> None:
        self.follower = Follower(store, disk=disk)
        self.changed = set[int]()
        self.unsaved_rows = 0
        self.coverage = saved.Coverage()
        self.records, self.tellers = Records(), list[Key]()
        self.files = Files(store, disk=disk)
        if known is None:
            self.follower.resume({}, (), read_snapshot(store, disk))
        else:
            self.records, self.tellers = known.records, known.tellers
            self.files = Files(store, known.files, disk)
            self.follower.resume(known.given, known.covered, known.snapshot)
            self.coverage.covered = dict(known.covered)
        self.cutter = Cutter(self.records)
        self.reader = RowReader(self.records, self.files)
        self._rewards = rewards
        self._refs: dict[str, PromptRefs] = {}
        self._deltas: dict[str, PromptDeltas] = {}

    @property
    def given(self) -> dict[bytes, int]:
        """By stream, the last t that was read."""
        return self.follower.given

    def refresh(self) -> None:
        """Takes all new rows. Raises ShardError if a row before them is missing."""
        for found in self.follower.found():
            self._deltas.pop(_name_of(found), None)
            self._take(found)

    def follow(self) -> Iterator[list[Step]]:
        """The same, and gives the rows as steps."""
        for found in self.follower.found():
            streams = set(found.rows.column("stream_id").to_pylist())
            last = {stream: self.given.get(stream, -1) for stream in streams}
            steps = to_steps(found.rows, self._deltas_of(found))
            self._take(found)
            yield [s for s in steps if s.t > last[s.stream_id]]

    def _deltas_of(self, found: Found) -> PromptDeltas:
        """The state of a file's prompts before the rows that come now."""
        name = _name_of(found)
        if name not in self._deltas:
            deltas, refs = PromptDeltas(), self._refs.get(name, PromptRefs())
            file = COLD if found.reader is None else self.files.number(found.reader.path)
            for stream in refs.streams():
                deltas.begin(stream, self.reader.context(stream, refs.all_of(stream), file))
            self._deltas[name] = deltas
        return self._deltas[name]

    def _take(self, found: Found) -> None:
        """Adds the new rows of a block or batch to the records."""
        name, (file, row) = _name_of(found), self._lies(found)
        if name not in self._refs:
            self._forget_before(name)
        refs = self._refs.setdefault(name, PromptRefs())
        rows = columns_of(found.rows, self._rewards, self.records)
        taken = []
        for stream, at in by_stream(rows.stream):
            last = self.given.get(stream, -1)
            known = at[rows.t[at] <= last]
            new = at[len(known) :]
            # Rows that are given again are not counted again, but later prompts continue them.
            self.cutter.note_prompts(stream, rows, known, row, refs)
            if not len(new):
                continue
            taken.append((stream, new))
            if file != COLD:
                going_on = self.cutter.open.get(stream, -1)
                self.coverage.note(name, stream, last, self.records, going_on)
            self.follower.note(stream, int(rows.t[new[0]]), int(rows.t[new[-1]]))
            self.unsaved_rows += len(new)
            self.tellers += [(stream, int(t)) for t in rows.t[new[rows.tells[new]]]]
        self.changed.update(self.cutter.take(rows, taken, file, row, refs))
        if file != COLD and len(row):
            self.coverage.rows[name] = int(row[-1]) + 1

    def _lies(self, found: Found) -> tuple[int, np.ndarray]:
        """The number of the file, and of each row in it, int64 [rows]."""
        if found.reader is None or found.block is None:
            return COLD, np.full(found.rows.num_rows, -1)
        commit = found.block.commit
        first = commit.last_seq - commit.rows + 1 + found.block.skip
        return self.files.number(found.reader.path), np.arange(first, commit.last_seq + 1)

    def _forget_before(self, name: str) -> None:
        """Drops what was kept of a writer's earlier segment, or of an earlier part."""
        writer = name.partition("/")[0]
        for kept in (self._refs, self._deltas):
            for old in [n for n in kept if n.partition("/")[0] == writer and n != name]:
                del kept[old]


def by_stream(ids: np.ndarray) -> Iterator[tuple[bytes, np.ndarray]]:
    """Each stream of V16 [rows], with the places of its rows, in order."""
    streams, of = np.unique(ids, return_inverse=True)
    order = np.argsort(of, kind="stable")
    bounds = np.searchsorted(of[order], np.arange(len(streams) + 1))
    for number, stream in enumerate(streams.tolist()):
        yield stream, order[bounds[number] : bounds[number + 1]]


def _name_of(found: Found) -> str:
    """ "writer/seg-…" of a block, "cold/part-…" of a part's batch."""
    if found.reader is not None:
        return f"{found.reader.path.parent.name}/{found.reader.path.stem}"
    return f"cold/{found.part.file if found.part else ''}"
