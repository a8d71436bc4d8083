"""The record: each column is documented where it is defined, and the reference page is made from
that."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa

from experience.shards.record.columns import COLUMNS
from experience.shards.record.schema import PLAIN

ROOT = Path(__file__).resolve().parent.parent


def test_the_reference_of_columns_is_what_the_command_makes() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "experience.shards.record.reference"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    again = (
        "run: .venv/bin/python -m experience.shards.record.reference > docs/reference-columns.md"
    )
    assert (ROOT / "docs/reference-columns.md").read_text() == made, again
    assert [line for line in made.splitlines() if line.startswith("| `stream_id`")]


def test_every_column_says_what_it_means_in_a_sentence() -> None:
    for column in COLUMNS:
        assert column.meaning.endswith(".") and len(column.meaning.split()) >= 4, column.name
        assert "|" not in column.meaning, f"{column.name}: it would end the cell of the table"
        if pa.types.is_floating(column.type) and column.name not in ("discount", "temperature"):
            assert column.unit, f"{column.name} is a quantity without a unit"


def test_a_column_that_came_later_may_be_null() -> None:
    assert all(column.nullable for column in COLUMNS if column.since > 1)
    assert Counter(column.since for column in COLUMNS) == {1: 46, 2: 1, 3: 6, 4: 10}


def test_the_columns_are_the_schema() -> None:
    assert [(f.name, f.type, f.nullable) for f in PLAIN] == [
        (c.name, c.type, c.nullable) for c in COLUMNS
    ]
