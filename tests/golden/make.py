"""Golden shards: a small store of each released format, kept for ever, and what it must be read as.

python -m tests.golden.make v4      # once a format, when it is released; never again
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experience.shards.journal import Journal
from experience.step import Boundary, Step
from experience.text.tools import ToolCall, ToolResult
from tests.conftest import CATALOGUE, make_step

HERE = Path(__file__).parent


def plain(value: Any) -> Any:
    """A step's contents as JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return int(value) if isinstance(value, Boundary) else value


def steps() -> list[Step]:
    made = [make_step(t, bytes([71 + t % 2]) * 16, closing=t % 6 == 5) for t in range(12)]
    made = [dataclasses.replace(s, t=i // 2) for i, s in enumerate(made)]
    made[3] = dataclasses.replace(
        made[3],
        source="imagined",
        parent=(b"G" * 16, 1),
        model_version=4,
        uncertainty=0.5,
        option_id=2,
        option_step=1,
        plan_id=9,
        value_estimate=0.25,
    )
    made[4] = dataclasses.replace(
        made[4],
        ending="env_error",
        reward=None,
        discount=0.0,
        info={"error": "TimeoutError: no answer"},
        action_struct=b"\x00\x01",
    )
    made[6] = dataclasses.replace(made[6], subject="user-7")
    listed = made[7].decision
    assert listed is not None
    counts = np.arange(len(listed.action_ids), dtype=np.int32) % 3
    made[7] = dataclasses.replace(
        made[7],
        decision=dataclasses.replace(
            listed,
            temperature=0.5,
            allowed_counts=counts,
            allowed_ids=np.arange(counts.sum(), dtype=np.int32),
            prompt_cut=3,
            action_cut=True,
        ),
    )
    called = made[8].decision
    assert called is not None
    made[8] = dataclasses.replace(
        made[8],
        agent_id="player_1",
        boundary=Boundary.CONTINUES,
        tool_results=(ToolResult("abc123def0", '{"rows": 3}'),),
        decision=dataclasses.replace(
            called,
            tool_calls=(ToolCall("abc123def0", "look", '{"where": "desk"}'),),
            reasoning="Look first.",
            content="I look at the desk.",
            finish_reason="tool_calls",
            model="a-model",
            prompt_tokens=40,
            answer_tokens=9,
            seconds=0.5,
            first_token_seconds=0.125,
        ),
    )
    return made


def make(version: str) -> None:
    journal = Journal(
        HERE / version / "writer", CATALOGUE, batch_rows=2, seal_bytes=20_000, low_water_bytes=0
    )
    for step in steps():
        journal.append(step)
    journal.close()
    (HERE / version / "expected.json").write_text(json.dumps([plain(s) for s in steps()]))


if __name__ == "__main__":
    make(sys.argv[1])
