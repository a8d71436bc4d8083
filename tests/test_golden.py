"""Old shards are readable for ever: each released format's store gives what was written to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.shards.verify import verify
from tests.conftest import CATALOGUE, make_step
from tests.golden.make import HERE, plain

VERSIONS = sorted(p.parent.name for p in HERE.glob("*/expected.json"))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_of_an_older_format_gives_what_was_written(version: str) -> None:
    expected = json.loads((HERE / version / "expected.json").read_text())
    fields = expected[0].keys()  # later formats add some
    found = [{name: value for name, value in plain(s).items() if name in fields}
             for block in Catalog(HERE / version).follow() for s in block]
    assert sorted(found, key=lambda s: (s["stream_id"], s["t"])) == sorted(
        expected, key=lambda s: (s["stream_id"], s["t"]))
    assert not verify(HERE / version, deep=True).problems
    assert Catalog(HERE / version).dataset().count_rows() == len(expected)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_writer_of_today_goes_on_with_it(version: str, tmp_path: Path) -> None:
    shutil.copytree(HERE / version / "writer", tmp_path / "writer")
    journal = Journal(tmp_path / "writer", CATALOGUE)
    stream = b"A" * 16
    assert journal.next_t(stream) == 6
    journal.append(make_step(6, stream))
    journal.close()
    assert not verify(tmp_path, deep=True).problems


def test_the_first_format_is_kept() -> None:
    assert "v1" in VERSIONS
