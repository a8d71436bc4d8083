"""What is said of a column of the record: its type, its meaning, and the format that added it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Group = Literal[
    "whose",
    "where",
    "when",
    "from what",
    "seen",
    "asked",
    "done",
    "under which intent",
    "answered",
    "marks",
    "about whom",
    "how it was decoded",
    "by which model",
]


@dataclass(frozen=True)
class Column:
    """One column. `since`: the version of the schema that added it; `unit`: "" where there is none.

    A column that came after the first version may always be null: older files do not have it.
    """

    name: str
    type: pa.DataType
    nullable: bool
    group: Group
    meaning: str
    unit: str = ""
    since: int = 1
