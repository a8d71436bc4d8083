"""Exchange: experience to and from the formats of others.

    format    one file or folder holds                                   comes back
    jsonl     a step a line, everything                                  exactly
    atif      a trajectory an episode (Harbor's ATIF 1.7), everything    exactly
    parquet   a row a step: whole prompts, a column a signal             -
    hf        the same, as a Hugging Face datasets folder a split        -
    minari    a dataset a world: text, rewards, signals as infos         text, rewards and signals
    lerobot   a LeRobot v3 dataset a world: text and rewards             -
A failed episode, or one that a crash cut off, has no last observation: where a format must have one (minari, lerobot,
atif) it is left out and counted. Pictures stay behind as their hashes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from experience.errors import ShardError
from experience.shards.exchange.atif import from_atif, to_atif
from experience.shards.exchange.episodes import Exchanged, episodes
from experience.shards.exchange.jsonl import from_jsonl, to_jsonl
from experience.shards.exchange.lerobot_data import to_lerobot
from experience.shards.exchange.minari_data import from_minari, to_minari
from experience.shards.exchange.plain import as_plain, from_plain
from experience.shards.exchange.tables import to_hf, to_parquet
from experience.shards.journal import Journal
from experience.signal import SignalKind
from experience.step import Step

__all__ = ["EXPORTS", "IMPORTS", "Exchanged", "as_plain", "bring_in", "episodes", "export", "from_plain"]


def export(store: Path, to: str, out: Path) -> Exchanged:
    """Writes the store's committed rows in format `to` below `out`, a new folder. Raises ShardError if `out` exists,
    MissingPartError if the format needs a library that is not installed."""
    write = _EXPORTS.get(to)
    if write is None:
        raise ShardError(f"no format {to!r}", f"there are: {', '.join(_EXPORTS)}")
    if out.exists():
        raise ShardError(f"{out} exists already", "name a new folder")
    out.mkdir(parents=True)
    try:
        return write(store, out)
    except BaseException:
        shutil.rmtree(out)
        raise


_EXPORTS: dict[str, Callable[[Path, Path], Exchanged]] = {
    "jsonl": to_jsonl, "atif": to_atif, "parquet": to_parquet, "hf": to_hf, "minari": to_minari,
    "lerobot": to_lerobot}
EXPORTS = tuple(_EXPORTS)


def bring_in(source: Path, of: str, store: Path) -> Exchanged:
    """Reads `source` in format `of` into a new store. Raises ShardError, with the place, for what cannot be read, and
    MissingPartError if a library is not installed; then nothing stays."""
    read = _IMPORTS.get(of)
    if read is None:
        raise ShardError(f"no format {of!r} to read", f"there are: {', '.join(_IMPORTS)}")
    if not source.exists():
        raise ShardError(f"{source} is not there", "name the file or folder that holds the experience")
    kinds: dict[str, SignalKind] = {}
    for step in read(source):
        kinds |= {g.name: SignalKind(g.unit, g.source) for g in step.signals}
    done, writer = Exchanged(), store / "imported"
    try:
        journal = Journal(writer, kinds, metadata={"imported_from": of})
        for step in read(source):
            journal.append(step)
            done.rows += 1
            done.episodes += step.is_closing
        journal.close()
    except BaseException:
        shutil.rmtree(store, ignore_errors=True)
        raise
    return done


_IMPORTS: dict[str, Callable[[Path], Iterable[Step]]] = {
    "jsonl": from_jsonl, "atif": from_atif, "minari": from_minari}
IMPORTS = tuple(_IMPORTS)
