"""Exchange: experience to and from the formats of others.

    format    one file or folder holds                                   comes back
    jsonl     a step a line, everything                                  exactly
    atif      a trajectory an episode (Harbor's ATIF 1.7), everything    exactly
    parquet   a row a step: whole prompts, a column a signal             -
    hf        the same, as a Hugging Face datasets folder a split        -
    minari    a dataset a world: text, rewards, signals as infos         text, rewards and signals
    lerobot   a LeRobot v3 dataset a world: text and rewards             -
A failed episode, or one that a crash cut off, has no last observation: where a format must have one
(minari, lerobot, atif) the episode is left out and counted. Pictures go out as files in `images/`,
each once; in `hf` they are in the rows.

Imports were written by strangers. All of an import is checked before its first row is written:
every field's type and range, a gapless t, one unit a signal. Then it is written under another name
and renamed at the end: an import that fails leaves nothing. Lines, documents, memory and time are
bounded (see json_lines, atif, minari_dataset).
"""

from __future__ import annotations

import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from experience.errors import ShardError
from experience.shards.exchange.formats import EXPORTERS, IMPORTERS
from experience.shards.exchange.formats.hugging_face import ragged
from experience.shards.exchange.rows.episodes import Exchanged, Placed, Rows, checked
from experience.shards.exchange.rows.json_steps import as_plain, from_plain
from experience.shards.exchange.rows.pictures import find
from experience.shards.journal import Journal
from experience.signal import SignalKind

__all__ = [
    "EXPORTERS",
    "IMPORTERS",
    "Exchanged",
    "Rows",
    "as_plain",
    "import_from",
    "export",
    "from_plain",
    "ragged",
]


def export(store: Path, to: str, out: Path, *, as_written: bool = False) -> Exchanged:
    """Writes the store's committed rows in format `to` below `out`, a new folder.

    Signals and rewards are those of the newest amendments, as queries show them, or `as_written`.
    Raises ShardError if `out` exists, MissingPartError if the format needs a library that is not
    installed.
    """
    exporter = EXPORTERS.get(to)
    if exporter is None:
        raise ShardError(f"no format {to!r}", f"there are: {', '.join(EXPORTERS)}")
    if out.exists():
        raise ShardError(f"{out} exists already", "name a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.resolve().with_name(f".{out.name}-{secrets.token_hex(4)}")
    draft.mkdir()
    try:
        done = exporter.export(Rows(store, as_written), draft)
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return done


def import_from(source: Path, of: str, store: Path) -> Exchanged:
    """Reads `source` in format `of` into a new store.

    All steps are checked before the first row is written, into a draft that is renamed at the end.
    Raises ShardError, with the place, for a step that cannot be read or breaks the record's rules,
    and MissingPartError if a library is not installed; then nothing stays.
    """
    importer = IMPORTERS.get(of)
    if importer is None:
        raise ShardError(f"no format {of!r} to read", f"there are: {', '.join(IMPORTERS)}")
    if not source.exists():
        raise ShardError(
            f"{source} is not there", "name the file or folder that holds the experience"
        )
    if store.exists():
        raise ShardError(f"{store} exists already", "name a new folder")
    source = source.resolve()
    for entry in [source, *source.rglob("*")]:
        if not (entry.is_file() or entry.is_dir()):  # a pipe would hold its reader up
            raise ShardError(f"{entry} is neither a file nor a folder", "remove it")
    kinds = _check(importer.import_from(source), source)
    # The first folder that is not there yet: a failed import removes it with all below it.
    made = next((p for p in reversed(store.parents) if not p.exists()), None)
    draft = store.with_name(f".{store.name}-{secrets.token_hex(4)}")
    try:
        done = _fill(
            Journal(draft / "imported", kinds, metadata={"imported_from": of}),
            importer.import_from(source),
            source,
        )
        draft.rename(store)
    except BaseException:
        shutil.rmtree(draft if made is None else made, ignore_errors=True)
        raise
    return done


def _check(found: Iterable[Placed], source: Path) -> dict[str, SignalKind]:
    """The kinds of all signals in the steps.

    Raises ShardError, with the place, where a stream's t is not gapless, two units are given for
    one signal, a picture is missing, or there is no step at all.
    """
    folder = _folder(source)
    kinds: dict[str, SignalKind] = {}
    next_t: dict[bytes, int] = defaultdict(int)
    for where, step in found:
        expected = next_t[step.stream_id]
        if step.t != expected:
            kind = "twice" if step.t < expected else f"where {expected} is due"
            raise ShardError(
                f"{where}: stream {step.stream_id.hex()} gives t = {step.t} {kind}",
                "nothing was imported; a stream's t is 0, 1, 2 … in the order of the rows",
            )
        next_t[step.stream_id] += 1
        for signal in step.signals:
            kind_of = SignalKind(signal.unit, signal.source)
            if kinds.setdefault(signal.name, kind_of) != kind_of:
                raise ShardError(
                    f"{where}: signal {signal.name!r} is {kind_of}, and {kinds[signal.name]} "
                    "before",
                    "nothing was imported; a signal has one unit and one source",
                )
        for blob in step.obs_blobs:
            checked(where, partial(find, folder, blob))
    if not next_t:
        raise ShardError(f"{source}: no step in it", "nothing was imported")
    return kinds


def _fill(journal: Journal, found: Iterable[Placed], source: Path) -> Exchanged:
    done = Exchanged()
    folder = _folder(source)
    for where, step in found:
        for blob in step.obs_blobs:
            data = checked(where, partial(find, folder, blob))
            # Queued before its row: the journal commits no row whose picture is not on disk.
            journal.blobs.put(data, blob.media, blob.w, blob.h, role=blob.role)
        journal.append(step)
        done.rows += 1
        done.episodes += step.is_closing
    journal.close()
    return done


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent
