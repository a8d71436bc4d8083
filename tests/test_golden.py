"""Old shards are readable for ever: each released format's store gives what was written to it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from actors.reading.query import connect
from experience.errors import ShardError
from experience.shards.catalog import Catalog
from experience.shards.cold.compaction import compact
from experience.shards.journal import Journal
from experience.shards.record.decode import first_decoding
from experience.shards.record.schema import PLAIN, check_schema
from experience.shards.sampling.windows import WindowReader
from experience.shards.storage.blocks import Commit, read_blocks
from experience.shards.storage.manifest import append_manifest
from experience.shards.verify import verify
from experience.shards.writing.sealing import Encoder
from experience.signal import Signal, SignalKind
from tests.conftest import CATALOGUE, make_step
from tests.golden.make import HERE, plain

VERSIONS = sorted(p.parent.name for p in HERE.glob("*/expected.json"))


def known(found: Any, of: Any) -> Any:
    """What `of` has too of what was found: later formats add fields."""
    if not isinstance(found, dict) or not isinstance(of, dict):
        return found
    return {name: known(value, of[name]) for name, value in found.items() if name in of}


def test_a_row_of_the_first_format_is_a_sample_where_its_decoder_says_so() -> None:
    """`listed` actions were drawn from a list, but their log-probabilities were those of the whole
    vocabulary."""
    for decoder, exact, sampled, temperature in (
        ("temperature=0.7", True, True, 0.7),
        ("temperature=0", True, False, 0.0),
        ("epsilon=0.1", True, True, None),
        ("temperature=1 listed", True, False, None),
        ("", True, False, None),
        ("temperature=1", False, False, 1.0),
        ("temperature=1 lookahead in forks m=4 h=3 n=1", True, False, None),
    ):
        assert first_decoding(decoder, exact) == {"sampled": sampled, "temperature": temperature}, (
            decoder
        )
    old = [s for block in Catalog(HERE / "v1").follow() for s in block if s.decision]
    assert old and all(
        s.decision.sampled and s.decision.temperature == 1 for s in old if s.decision
    )
    assert all(
        s.decision.prompt_cut is None and len(s.decision.allowed_ids) == 0
        for s in old
        if s.decision
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_of_an_older_format_gives_what_was_written(version: str) -> None:
    expected = json.loads((HERE / version / "expected.json").read_text())
    found = [plain(s) for block in Catalog(HERE / version).follow() for s in block]
    for rows in (found, expected):
        rows.sort(key=lambda s: (s["stream_id"], s["t"]))
    assert [known(row, of) for row, of in zip(found, expected, strict=True)] == expected
    assert not verify(HERE / version, deep=True).problems
    assert Catalog(HERE / version).dataset().count_rows() == len(expected)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_writer_of_today_goes_on_with_it(version: str, tmp_path: Path) -> None:
    shutil.copytree(HERE / version / "writer", tmp_path / "writer")
    journal = Journal(tmp_path / "writer", CATALOGUE)
    stream = bytes.fromhex(
        json.loads((HERE / version / "expected.json").read_text())[0]["stream_id"]
    )
    assert journal.next_t(stream) == 6
    journal.append(make_step(6, stream))
    journal.close()
    assert not verify(tmp_path, deep=True).problems


def test_every_released_format_is_kept() -> None:
    assert VERSIONS == ["v1", "v2", "v3", "v4"]
    assert (HERE / "v2" / "writer" / "seg-000000-000000.blocks").exists(), (
        "v2's blocks are rewritten"
    )


@pytest.mark.parametrize("cold", [False, True])
def test_stores_of_all_formats_are_read_together_by_every_reader(
    cold: bool, tmp_path: Path
) -> None:
    for version in VERSIONS:
        shutil.copytree(HERE / version / "writer", tmp_path / version)
    if cold:
        compact(tmp_path)
        assert not list(tmp_path.glob("v*/*.arrow"))
        journal = Journal(tmp_path / "v2", CATALOGUE)
        journal.append(make_step(6, b"C" * 16))
        journal.commit()
    rows, catalog = 12 * len(VERSIONS) + cold, Catalog(tmp_path)
    followed = [s for block in catalog.follow() for s in block]
    assert len(followed) == rows and [s.subject for s in followed if s.subject] == 3 * ["user-7"]
    assert Counter(catalog.dataset().to_table().column("subject").to_pylist()) == {
        None: rows - 3,
        "user-7": 3,
    }
    table = catalog.table(["t", "subject", "signal.done"])
    assert table.num_rows == rows and table.column("subject").null_count == rows - 3
    assert sum(b.num_rows for b in catalog.batches()) == rows
    reader = WindowReader(tmp_path, ("t", "value_estimate"))
    assert reader.refresh() == rows
    assert connect({"steps": tmp_path}).sql(
        'select count(*), count(subject), sum("signal.done") from steps'
    ).fetchall() == [(rows, 3, 0.5 * (10 * len(VERSIONS) + cold))]
    assert not verify(tmp_path, deep=True).problems


def without(store: Path, column: str) -> None:
    """Writes the only shard of `store` again as a format would that had no such column yet."""
    shard = next(store.glob("*/*.arrow"))
    encoder, commits, data = None, [], b""
    for batch in read_blocks(shard):
        older = batch.drop_columns([column])
        encoder = encoder or Encoder(older.schema)
        block = encoder.block(older)
        commits.append(
            Commit.of(
                block, len(data), sum(c.rows for c in commits) + len(older) - 1, len(older), 1
            )
        )
        data += block
    assert encoder is not None
    data += encoder.footer()
    shard.write_bytes(data)
    for log in shard.parent.glob("*.[cb]*"):
        log.unlink()
    shard.with_suffix(".commit").write_bytes(b"".join(c.pack() for c in commits))
    (shard.parent / "MANIFEST").unlink()
    append_manifest(shard, commits[-1].last_seq + 1, len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("column", ["value_estimate", "tool_calls", "obs_struct", "subject"])
def test_a_column_that_was_added_later_reads_as_null_in_older_shards(
    column: str, tmp_path: Path
) -> None:
    for writer in ("old", "new"):
        journal = Journal(tmp_path / writer, CATALOGUE, batch_rows=4)
        for t in range(12):
            journal.append(
                make_step(t, writer.encode().ljust(16), value_estimate=0.5, subject="user")
            )
        journal.close()
        if writer == "old":
            without(tmp_path, column)
    assert len([s for block in Catalog(tmp_path).follow() for s in block]) == 24
    known = 12 if column in ("value_estimate", "subject") else 0
    assert Catalog(tmp_path).table([column]).column(column).null_count == 24 - known
    reader = WindowReader(tmp_path, ("t", "value_estimate", "obs_text"))
    assert reader.refresh() == 24
    drawn = reader.gather(reader.draw(200, 3))
    assert (np.diff(drawn.numbers["t"], axis=1) == 1).all()
    assert np.isnan(drawn.numbers["value_estimate"]).any() == (column == "value_estimate")
    assert not verify(tmp_path, deep=True).problems
    compact(tmp_path)
    assert Catalog(tmp_path).table([column]).column(column).null_count == 24 - known


def test_a_column_that_no_format_has_is_refused(tmp_path: Path) -> None:
    schema = PLAIN.append(pa.field("mood", pa.string())).with_metadata({"signals": "[]"})
    with pytest.raises(ShardError, match="'mood'"):
        check_schema(schema, "here")
    with pytest.raises(ShardError, match="column t is missing"):
        check_schema(schema.remove(PLAIN.get_field_index("t")).remove(len(PLAIN) - 1), "here")


def test_signals_are_found_by_name_whatever_code_a_shard_gave_them(tmp_path: Path) -> None:
    said = Signal("done", 0.25, "fraction", "env_state")
    for writer, extra in (("a", ()), ("b", ("bonus",)), ("c", ("a \\' \" name", "NUL\0", "Ünï\n"))):
        catalogue = {
            "done": SignalKind("fraction", "env_state"),
            **{n: SignalKind("count", "env_state") for n in extra},
        }
        journal = Journal(tmp_path / writer, catalogue)
        signals = (said, *(Signal(name, 7.0, "count", "env_state") for name in extra))
        journal.append(make_step(0, writer.encode() * 16, signals=signals))
        journal.append(make_step(1, writer.encode() * 16, closing=True))
        journal.close() if writer != "b" else journal.commit()
    query = connect({"steps": tmp_path})
    assert query.sql(
        "select sum(signal(signals, 'done')), sum(signal(signals, 'bonus')), "
        "count(signal(signals, 'no')), "
        'sum("signal.done"), sum("signal.bonus"), sum("signal.a \\\' "" name"), '
        "sum(signal(signals, 'NUL' || chr(0))) from steps"
    ).fetchall() == [(0.75, 7.0, 0, 0.75, 7.0, 7.0, 7.0)]
    table = Catalog(tmp_path).table(["t", "signal.done", "signal.bonus", "signal.NUL\0"])
    assert [pc.sum(table.column(i)).as_py() for i in (1, 2, 3)] == [0.75, 7.0, 7.0]
    assert table.column("signal.done").null_count == 3
    assert pl.from_arrow(Catalog(tmp_path).table())["signal.bonus"].sum() == 7.0
    with pytest.raises(ShardError, match=r"no column 'signal\.dome'"):
        Catalog(tmp_path).table(["signal.dome"])
