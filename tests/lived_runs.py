"""Run directories written as a run writes them, episode by episode, for those that read runs."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experience.shards.journal import Journal
from experience.step import Boundary, Ending
from tests.conftest import CATALOGUE, make_step

COIN_RUN = (
    "worlds=[{id: 'tests.slow_world:Coin-v0', groups: 1, demonstrations: 0}]",
    "policy.layers=1",
    "policy.width=32",
    "policy.heads=4",
    "policy.max_tokens=4",
    "policy.context=64",
    "budget.updates=1",
    "evaluation.episodes=0",
    "evaluation.final_episodes=0",
    "planning.enabled=false",
)
"""The smallest real run, as settings: one update in a world of one turn."""


class WrittenRun:
    """A run's directory whose episodes a test chooses; `streams` of them are under way at a time."""

    def __init__(
        self, runs: Path, name: str = "small-1", streams: int = 2, config: str = "", **record: Any
    ) -> None:
        self.path = runs / name
        for folder in ("imagined", "checkpoints", "metrics"):
            (self.path / folder).mkdir(parents=True)
        (self.path / "run.json").write_text(
            json.dumps({"status": "succeeded", "seed": 0, "started": 1.0} | record)
        )
        if config:
            (self.path / "config.yaml").write_text(config)
        self.journal = Journal(self.path / "shards" / "collector-0000", CATALOGUE, batch_rows=5)
        self._streams = [bytes([n + 1]) * 16 for n in range(streams)]
        self._clock, self._episodes = itertools.count(1_000), itertools.count()

    def live(self, rewards: Sequence[float | None], **how: Any) -> None:
        """One whole episode: a turn for each reward, and its closing row. `how`: as for `turns`."""
        for _ in self.turns(rewards, **how):
            pass

    def turns(
        self,
        rewards: Sequence[float | None],
        *,
        version: int = 0,
        ending: Ending = "terminated",
        stream: int = 0,
        behaviour: str = "small",
        error: str = "",
        seen: str = "page",
        **changes: Any,
    ) -> Any:
        """One episode, a row at a time, so that episodes may interleave."""
        of, number = self._streams[stream], next(self._episodes)
        same = {
            "episode": number,
            "work_id": uuid.UUID(int=number).bytes,
            "info": {"error": error, "traceback": f"Traceback of {error}"} if error else {},
        }
        for turn, reward in enumerate(rewards):
            step = make_step(self.journal.next_t(of), of)
            assert step.decision
            self._append(
                replace(
                    step,
                    reward=reward,
                    obs_text=f"{seen} {turn}",
                    step_in_episode=turn,
                    boundary=Boundary.RESET if turn == 0 else Boundary.NONE,
                    decision=replace(
                        step.decision,
                        policy_version=version,
                        behaviour_id=behaviour,
                        text=f"act {turn}",
                    ),
                    **same | changes,
                )
            )
            yield
        closing = make_step(self.journal.next_t(of), of, closing=True)
        self._append(
            replace(
                closing,
                ending=ending,
                step_in_episode=len(rewards),
                obs_text=f"{seen} end",
                boundary=Boundary.RESET if not rewards else Boundary.NONE,
                **same | changes,
            )
        )
        yield

    def _append(self, step: Any) -> None:
        self.journal.append(replace(step, t_end_ns=next(self._clock)))

    def log(self, *records: dict[str, Any]) -> None:
        with open(self.path / "metrics" / "metrics.jsonl", "a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)

    def close(self) -> Path:
        self.journal.close()
        return self.path
