"""The replay on an index chooses what the replay in memory chose from the same rows and seed."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from experience.step import Boundary, Step
from tests.conftest import make_step
from tests.stored import StoredReplay

KNOWN = json.loads((Path(__file__).parent / "golden" / "replay-choices.json").read_text())
"""Made by the replay that kept every episode in memory, before it was replaced."""
_ENDS = ("terminated", "truncated", "env_error", "cancelled")


def history() -> list[Step]:
    """Rows of 60 episodes in 12 streams: every source, both splits, failures, late and lost ones."""
    rng, rows = np.random.default_rng(11), list[Step]()
    t = [0] * 12
    for number in range(60):
        of = int(rng.integers(12))
        stream = uuid.UUID(int=of).bytes
        source = ("real", "real", "real", "demonstration", "human")[int(rng.integers(5))]
        ending = _ENDS[min(int(rng.integers(9)), 3)] if rng.random() < 0.5 else "terminated"
        split = "heldout" if rng.random() < 0.1 else "train"
        turns, is_lost = int(rng.integers(1, 9)), rng.random() < 0.1
        for turn in range(turns + (not is_lost)):
            closing = turn == turns
            rows.append(
                make_step(
                    t[of],
                    stream,
                    rng=rng,
                    closing=closing,
                    source=source,
                    split=split,
                    episode=number,
                    step_in_episode=turn,
                    work_id=uuid.UUID(int=1000 + number // 3 * 3 + int(rng.integers(3))).bytes
                    if not turn
                    else rows[-1].work_id,
                    group_id=f"g{number // 3}" if source == "real" else "",
                    boundary=Boundary.RESET if turn == 0 else Boundary.NONE,
                    option_step=0 if rng.random() < 0.1 and not closing else None,
                    reward=None if closing or rng.random() < 0.01 else float(rng.normal()),
                    ending=ending if closing else "none",
                )
            )
            t[of] += 1
    return rows


def choices(replay: Any) -> dict[str, Any]:
    """What a learner is given, as (stream, t) of each row, in the order of the draws."""

    def keys(steps: Any) -> list[str]:
        return [f"{step.stream_id.hex()[-2:]}:{step.t}" for step in steps]

    groups = replay.window(3, 4)
    found: dict[str, Any] = {
        "groups": [[g.group_id, [keys(e.rows) for e in g.episodes]] for g in groups],
        "steps": keys(replay.sample_steps(40)),
        "roots": keys(replay.sample_roots(40, 3)),
        "windows": [keys(w) for w in replay.windows(25, 3, ("real", "demonstration"))],
        "rest": [[g.group_id, [keys(e.rows) for e in g.episodes]] for g in replay.window(3)],
        "demonstrations": [keys(e.rows) for e in replay.demonstrations()],
        "transitions": [keys(pair) for pair in replay.transitions[:]],
        "episodes": {s: [keys(e.rows) for e in replay.episodes[s]] for s in ("real", "human")},
        "held_out": [e.total_reward for e in replay.held_out(3)],
        "returns": replay.recent_returns("envs:Test-v0", 5),
        "dropped": vars(replay.dropped),
        "consumed": [list(pair) for pair in replay.consumed],
        "finished": sorted(work.hex() for work in replay.finished),
        "steps_by_source": dict(replay.steps_by_source),
        "training_steps": replay.training_steps,
    }
    tokens = [s.decision.prompt_ids.tobytes() for g in groups for e in g.episodes for s in e.steps]
    found["tokens"] = hashlib.sha256(b"".join(tokens)).hexdigest()
    return found


def test_the_same_rows_and_seed_give_the_batches_of_the_replay_in_memory(tmp_path: Path) -> None:
    replay = StoredReplay(tmp_path, 2, 9, seed=4, takes_work_once=True)
    replay.add(history())
    found = json.loads(json.dumps(choices(replay)))
    for what, expected in KNOWN.items():
        assert found[what] == expected, what
    assert set(found) == set(KNOWN)


def test_a_block_at_a_time_or_from_a_saved_index_the_batches_are_the_same(tmp_path: Path) -> None:
    rows = history()
    replay = StoredReplay(tmp_path, 2, 9, seed=4, takes_work_once=True)
    for first in range(0, len(rows), 13):
        replay.add(rows[first : first + 13])
    replay.journal.close()
    replay.index.refresh()
    replay.index.save()
    again = StoredReplay(tmp_path, 2, 9, seed=4, takes_work_once=True)
    assert again.index.said == ""
    for one in (replay, again):
        found = json.loads(json.dumps(choices(one)))
        assert found == KNOWN
