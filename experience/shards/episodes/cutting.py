"""Cutting: the rows of a batch become records of episodes, by columns and not by steps.

The rule is that of EpisodeReader (`begins_anew`, closing rows); tests/test_episode_index.py
compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experience.episode import BEGINS
from experience.shards.episodes.prompt_refs import PromptRefs
from experience.shards.episodes.records import GOES_ON, RECORD, Records
from experience.shards.episodes.rewards import Rewards
from experience.step import LATE_INFO, Boundary

_WORDS = (
    "env_id",
    "task_id",
    "split",
    "source",
    "behaviour_id",
    "group_id",
    "reward_version",
    "agent_id",
)
_NO_VERSION = np.iinfo(np.int64).max


@dataclass
class Columns:
    """What is needed of a batch's rows, as numpy [rows]."""

    stream: np.ndarray
    t: np.ndarray
    begins: np.ndarray
    acted: np.ndarray
    numbers: dict[str, np.ndarray]
    words: dict[str, np.ndarray]
    work_id: np.ndarray
    ending: list[str]
    reward: np.ndarray
    unknown: np.ndarray
    aside: np.ndarray
    awaited: np.ndarray
    tells: np.ndarray
    prompts: np.ndarray = field(default_factory=lambda: np.empty((3, 0), np.int64))
    """int64 [3, rows]: tokens kept of the last context, new tokens, action tokens."""


def columns_of(batch: pa.RecordBatch, in_force: Rewards, records: Records) -> Columns:
    """The columns of rows, with the rewards that are in force."""
    rewards, versions = in_force.of_batch(batch)
    words = {name: _codes(batch.column(name), records) for name in _WORDS}
    if versions is not None:
        words["reward_version"] = _codes(pa.array(versions), records)
    acted = batch.column("action_text").is_valid().to_numpy(zero_copy_only=False)
    boundary = batch.column("boundary").to_numpy()
    aside = (boundary & int(Boundary.CONTEXT_COMPACTED)) > 0
    aside |= _filled(batch, "option_step", -1) == 0
    exact = _filled(batch, "token_exact", False) & acted
    numbers = {name: _filled(batch, name, 0) for name in ("episode", "seed")}
    numbers |= {name: batch.column(name).to_numpy() for name in ("t_start_ns", "t_end_ns")}
    numbers["policy_version"] = _filled(batch, "policy_version", -1)
    numbers["prompts_cut"] = (_filled(batch, "prompt_cut", 0) > 0) & acted
    numbers["actions_cut"] = _filled(batch, "action_cut", False) & acted
    exact &= _lengths(batch, "action_ids") > 0
    numbers["sampled"] = exact & _filled(batch, "sampled", False)
    lengths = [_lengths(batch, name) for name in ("prompt_ids", "action_ids")]
    return Columns(
        ids_of(batch.column("stream_id")),
        batch.column("t").to_numpy(),
        (boundary & int(BEGINS)) > 0,
        acted,
        numbers,
        words,
        ids_of(batch.column("work_id")),
        batch.column("ending").to_pylist(),
        np.where(np.isnan(rewards) | ~acted, 0.0, rewards),
        np.isnan(rewards) & acted,
        aside & acted,
        in_force.waits(batch),
        _that_tell(batch),
        np.stack([batch.column("prompt_prefix_len").to_numpy(), *lengths]).astype(np.int64),
    )


def ids_of(column: pa.Array) -> np.ndarray:
    """A column of 16 bytes each as V16 [rows]."""
    return np.frombuffer(column.buffers()[1], "V16", len(column), 16 * column.offset)


def _that_tell(batch: pa.RecordBatch) -> np.ndarray:
    """Which rows may tell late signals of earlier rows, bool [rows]."""
    info = batch.column("info")
    if info.null_count == len(info):
        return np.zeros(batch.num_rows, bool)
    found = pc.match_substring(info, f'"{LATE_INFO}"').fill_null(False)
    told: np.ndarray = found.to_numpy(zero_copy_only=False)
    return told


def _filled(batch: pa.RecordBatch, name: str, missing: int | bool) -> np.ndarray:
    column = batch.column(name)
    if column.null_count:
        column = column.fill_null(missing)
    found: np.ndarray = column.to_numpy(zero_copy_only=False)
    return found


def _lengths(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return np.diff(batch.column(name).offsets.to_numpy())


def _codes(column: pa.Array, records: Records) -> np.ndarray:
    """The numbers of the words of a column, int32 [rows]."""
    encoded = column.fill_null("").dictionary_encode()
    numbers = np.array([records.words.number(w or "") for w in encoded.dictionary.to_pylist()])
    codes: np.ndarray = numbers.astype(np.int32)[encoded.indices.to_numpy()]
    return codes


@dataclass(frozen=True)
class _Piece:
    """Successive rows of one episode. starts: whether they are its first."""

    stream: bytes
    at: np.ndarray
    starts: bool


class Cutter:
    """Adds rows to records, stream by stream, and notes where they lie."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.open: dict[bytes, int] = {}
        """By stream, the record of the episode that goes on."""
        rows = records.rows
        for number in np.flatnonzero(rows["closed"] == GOES_ON).tolist():
            self.open[records.streams.ids[rows["stream"][number]].tobytes()] = number

    def take(
        self,
        rows: Columns,
        new: Sequence[tuple[bytes, np.ndarray]],
        file: int,
        row: np.ndarray,
        refs: PromptRefs,
    ) -> list[int]:
        """Takes the rows of a batch that are `new`: by stream, their places. Returns the records
        that were begun or changed.

        row: int64 [rows], where each row lies in `file`.
        """
        pieces = [piece for stream, at in new for piece in self._pieces(stream, rows, at)]
        # By their rows: the order of episodes does not depend on how rows are cut into blocks.
        pieces.sort(key=lambda piece: int(piece.at[0]))
        changed, over = list[int](), list[tuple[int, int]]()
        for piece in pieces:
            if piece.starts and piece.stream in self.open:
                cut_off = self.open.pop(piece.stream)
                self.records.cut(cut_off)
                changed.append(cut_off)
            changed.append(self._piece(piece.stream, rows, piece.at, file, row, refs))
            self.note_prompts(piece.stream, rows, piece.at, row, refs)
            if not rows.acted[piece.at[-1]]:
                over.append((int(piece.at[-1]), self.open.pop(piece.stream)))
        for last, number in sorted(over):
            self._close(number, rows, last)
        return changed

    def _pieces(self, stream: bytes, rows: Columns, at: np.ndarray) -> list[_Piece]:
        """The rows `at` of one stream, cut where an episode begins."""
        starts = rows.begins[at] | np.r_[False, ~rows.acted[at[:-1]]]
        pieces = np.split(at, np.flatnonzero(starts[1:]) + 1)
        return [
            _Piece(stream, piece, bool(starts[0]) or number > 0)
            for number, piece in enumerate(pieces)
        ]

    def _piece(
        self,
        stream: bytes,
        rows: Columns,
        piece: np.ndarray,
        file: int,
        row: np.ndarray,
        refs: PromptRefs,
    ) -> int:
        """Adds rows of one episode to its record, which is made if they are its first."""
        number = self.open.get(stream, -1)
        if number < 0:
            record = _begun(rows, piece[0], file, int(row[piece[0]]))
            kept = int(rows.prompts[0, piece[0]]) if rows.acted[piece[0]] else 0
            found = refs.of(stream, kept) if kept else []
            record["refs"], record["n_refs"] = self.records.add_refs(found), len(found)
            number = self.open[stream] = self.records.add(stream, record)
        record = self.records.rows[number]
        self._add(record, rows, piece)
        record["last_file"], record["last_row"] = file, row[piece[-1]]
        return number

    def _add(self, record: np.void, rows: Columns, piece: np.ndarray) -> None:
        acted = piece[rows.acted[piece]]
        record["last_t"], record["ended_ns"] = (
            rows.t[piece[-1]],
            rows.numbers["t_end_ns"][piece[-1]],
        )
        if not len(acted):
            return
        if not record["steps"]:  # what acted rows alone know
            record["behaviour_id"] = rows.words["behaviour_id"][acted[0]]
            record["first_version"] = rows.numbers["policy_version"][acted[0]]
            record["oldest_version"] = record["first_version"]
        versions = rows.numbers["policy_version"][acted]
        record["last_version"] = versions[-1]
        record["oldest_version"] = min(int(record["oldest_version"]), int(versions.min()))
        record["steps"] += len(acted)
        words = self.records.words.words
        self.records.steps[words[record["source"]], words[record["split"]]] += len(acted)
        record["asides"] += rows.aside[acted].sum()
        for name in ("prompts_cut", "actions_cut", "sampled"):
            record[name] += rows.numbers[name][acted].sum()
        # One after another, as a sum over steps adds them: returns are equal to the last bit.
        for reward in rows.reward[acted].tolist():
            record["reward"] += reward
        record["unknown"] += rows.unknown[acted].sum()
        record["awaited"] |= rows.awaited[acted].any()
        record["reward_version"] = rows.words["reward_version"][acted[-1]]
        record["ending"] = self.records.words.number(rows.ending[acted[-1]])

    def note_prompts(
        self, stream: bytes, rows: Columns, piece: np.ndarray, row: np.ndarray, refs: PromptRefs
    ) -> None:
        """Takes the prompts of rows of one stream, which later prompts may continue."""
        acted = piece[rows.acted[piece]]
        kept, new, action = rows.prompts[:, acted].tolist()
        lies = zip(rows.t[acted].tolist(), row[acted].tolist(), strict=True)
        for (t, at), k, n, a in zip(lies, kept, new, action, strict=True):
            refs.take(stream, t, at, k, k + n + a)

    def count_again(self, number: int, rows: Iterable[Columns]) -> None:
        """Takes all rows of an episode, whose rewards are other ones now."""
        record = self.records.rows[number]
        record["reward"], record["unknown"], record["awaited"] = 0.0, 0, False
        for of in rows:
            acted = np.flatnonzero(of.acted)
            for reward in of.reward[acted].tolist():
                record["reward"] += reward
            record["unknown"] += of.unknown.sum()
            record["awaited"] |= of.awaited[acted].any()
            if len(acted):
                record["reward_version"] = of.words["reward_version"][acted[-1]]

    def _close(self, number: int, rows: Columns, last: int) -> None:
        record, said = self.records.rows[number], rows.ending[last]
        # As ending_of has it: a closing row that says `none` leaves it to the last acted row.
        if said != "none" or not record["steps"]:
            record["ending"] = self.records.words.number(said)
        self.records.close(number)


def _begun(rows: Columns, first: int, file: int, row: int) -> np.ndarray:
    record = np.zeros(1, RECORD)
    record["first_t"], record["work_id"] = rows.t[first], rows.work_id[first]
    record["episode"], record["seed"] = rows.numbers["episode"][first], rows.numbers["seed"][first]
    record["started_ns"] = rows.numbers["t_start_ns"][first]
    for name in _WORDS:
        record[name] = rows.words[name][first]
    for name in ("first_version", "last_version", "oldest_version"):
        record[name] = -1
    record["closed"] = GOES_ON
    record["first_file"], record["first_row"] = file, row
    return record
