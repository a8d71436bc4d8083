"""Prints docs/reference-columns.md, which is made from the schema.

python -m experience.shards.record.reference > docs/reference-columns.md
"""

from __future__ import annotations

from itertools import groupby

from experience.shards.record.column import Column
from experience.shards.record.columns import COLUMNS
from experience.shards.record.schema import SCHEMA_ID

_HEAD = f"""# The columns of a row

One row is one turn of a stream: what was seen, what was done, and what answered it. Schema
`{SCHEMA_ID}`, {len(COLUMNS)} columns. O_{{t+1}} is the next row's observation, and the last
observation of an episode is a closing row without an action.

This page is made by `python -m experience.shards.record.reference > docs/reference-columns.md`.
"""


def page() -> str:
    """The page as Markdown: a table for each group of columns, in the order of the schema."""
    tables = []
    for group, columns in groupby(COLUMNS, key=lambda column: column.group):
        rows = "\n".join(_row(column) for column in columns)
        tables.append(
            f"## {group.capitalize()}\n\n"
            "| column | type | null | unit | meaning |\n|---|---|---|---|---|\n"
            f"{rows}\n"
        )
    return "\n".join([_HEAD, *tables])


def _row(column: Column) -> str:
    null = "may be" if column.nullable else "never"
    since = f" Since v{column.since}." if column.since > 1 else ""
    return (
        f"| `{column.name}` | `{column.type}` | {null} | {column.unit} | {column.meaning}{since} |"
    )


if __name__ == "__main__":
    print(page(), end="")
