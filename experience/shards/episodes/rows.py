"""Rows of an episode, read back as steps: from its files, with its prompts whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from experience.errors import ShardError
from experience.shards.episodes.files import COLD, Files, GoneColdError
from experience.shards.episodes.prompt_refs import Ref
from experience.shards.episodes.records import Records
from experience.shards.record.decode import to_steps
from experience.shards.record.prompts import PromptDeltas
from experience.step import Step


class RowReader:
    """Reads the rows of episodes of `records` from `files`."""

    def __init__(self, records: Records, files: Files) -> None:
        self._records, self._files = records, files

    def batches(self, number: int) -> list[pa.RecordBatch]:
        """The rows of an episode, in order. Raises ShardError if one is missing or damaged."""
        record = self._records.rows[number]
        stream = self._records.streams.ids[record["stream"]].tobytes()
        first, last = int(record["first_t"]), int(record["last_t"])
        found = [batch for batch in self._lying(record, stream, first, last) if batch.num_rows]
        t = np.concatenate([batch.column("t").to_numpy() for batch in found] or [np.empty(0)])
        if len(t) != last - first + 1 or not np.array_equal(t, np.arange(first, last + 1)):
            raise ShardError(
                f"rows {first} to {last} of stream {stream.hex()} are not where they were",
                "./xp verify says what is missing; rows that were removed are no longer an episode",
            )
        return found

    def steps(self, number: int) -> list[Step]:
        """The rows of an episode as steps, as they were stored."""
        record = self._records.rows[number]
        stream = self._records.streams.ids[record["stream"]].tobytes()
        deltas, begun = PromptDeltas(), False
        steps: list[Step] = []
        for batch in self.batches(number):
            if not begun:
                context = self.context(stream, self._records.refs_of(number), record["first_file"])
                deltas.begin(stream, context)
                begun = True
            steps += to_steps(batch, deltas)
        return steps

    def last(self, number: int) -> Step:
        """The last row of an episode. Its prompt is what is new in it."""
        record = self._records.rows[number]
        stream = self._records.streams.ids[record["stream"]].tobytes()
        t, row = int(record["last_t"]), int(record["last_row"])
        batch = next(b for b in self._row(stream, t, row, record["last_file"]) if b.num_rows)
        deltas = PromptDeltas()
        deltas.begin(stream, np.zeros(batch.column("prompt_prefix_len")[0].as_py(), np.int32))
        return to_steps(batch, deltas)[0]

    def context(self, stream: bytes, refs: Sequence[Ref], file: int) -> np.ndarray:
        """The tokens that `refs` tell of, int32: the beginning of a prompt."""
        tokens, begin = [np.empty(0, np.int32)], 0
        for t, row, end in refs:
            tokens.append(self._tokens(stream, t, row, int(file), begin, end))
            begin = end
        return np.concatenate(tokens)

    def _tokens(
        self, stream: bytes, t: int, row: int, file: int, begin: int, end: int
    ) -> np.ndarray:
        batch = next(b for b in self._row(stream, t, row, file) if b.num_rows)
        kept = batch.column("prompt_prefix_len")[0].as_py()
        new = np.concatenate(
            [batch.column(name).flatten().to_numpy() for name in ("prompt_ids", "action_ids")]
        )
        return new[begin - kept : end - kept]

    def _row(self, stream: bytes, t: int, row: int, file: int) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._files.rows(file, row, row, stream)
        except GoneColdError:
            yield from self._files.cold_rows(stream, t, t)

    def _lying(
        self, record: np.void, stream: bytes, first: int, last: int
    ) -> Iterator[pa.RecordBatch]:
        """An episode's rows, from the segments that it spans, cold ones from their parts."""
        begin, end = int(record["first_file"]), int(record["last_file"])
        try:
            if begin == end:
                found = list(
                    self._files.rows(
                        begin, int(record["first_row"]), int(record["last_row"]), stream
                    )
                )
            else:
                found = self._across(record, stream, begin, end)
        except GoneColdError:
            # Some of it, or all, is cold by now: what is hot still comes after what is cold.
            cold = list(self._files.cold_rows(stream, first, last))
            known = max((int(b.column("t")[-1].as_py()) for b in cold), default=first - 1)
            yield from cold
            if known < last:
                yield from self._hot_after(record, stream, known)
            return
        yield from found

    def _across(self, record: np.void, stream: bytes, begin: int, end: int) -> list[pa.RecordBatch]:
        if COLD in (begin, end):
            raise GoneColdError
        found = list[pa.RecordBatch]()
        for file in self._files.between(begin, end):
            first = int(record["first_row"]) if file == begin else 0
            last = int(record["last_row"]) if file == end else self._files.last_row(file)
            found += self._files.rows(file, first, last, stream)
        return found

    def _hot_after(self, record: np.void, stream: bytes, known: int) -> Iterator[pa.RecordBatch]:
        """The rows after t = `known` that are hot still."""
        end = int(record["last_file"])
        for file in self._files.between(int(record["first_file"]), end):
            try:
                last = int(record["last_row"]) if file == end else self._files.last_row(file)
                for batch in self._files.rows(file, 0, last, stream):
                    yield batch.filter(pa.array(batch.column("t").to_numpy() > known))
            except GoneColdError:
                continue
