"""A small run as a viewer meets it: screens with clicks, calls of tools, thoughts, groups, failures.

Written by the real journal. `say` is put into every text that a world, a model or a user can fill,
so that the tests of injected markup reach each of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actors.runs.checkpoint_store import CheckpointStore
from experience.policy import Decision
from experience.shards.journal import Journal
from experience.shards.storage.pictures import png
from experience.signal import Signal, SignalKind
from experience.step import Boundary, Ending, Step
from experience.text.tools import ToolCall, ToolResult

CATALOGUE = {
    "done": SignalKind("fraction", "verifier"),
    "cost": SignalKind("count", "env_state"),
    "late": SignalKind("count", "instrument"),
}
WEIGHTS = {"done": 1.0, "cost": -0.1}
VERSION = "linear-0123456789ab"
SCREEN, SHELL, PROOF = "tests.no_such:Screen-v0", "tests.no_such:Shell-v0", "tests.no_such:Proof-v0"
WIDTH, HEIGHT = 320, 200
CLICK = (123, 77)
_SECOND = 1_000_000_000
_BEGIN = 1_790_000_000 * _SECOND
Say = Callable[[str], str]


def picture(shade: int) -> bytes:
    pixels = np.full((HEIGHT, WIDTH, 3), 235, np.uint8)
    pixels[60:95, 100:150] = (40, 90, shade)
    return png(pixels)


class LivedRun:
    """A run directory; `episode` appends one whole episode to it."""

    def __init__(self, runs: Path, name: str = "office-1", say: Say = str, **record: Any) -> None:
        self.path, self._say, self._now = runs / name, say, _BEGIN
        self._episodes = 0
        for folder in ("imagined", "metrics", "logs"):
            (self.path / folder).mkdir(parents=True)
        known = {
            "status": "succeeded",
            "seed": 0,
            "started": _BEGIN / _SECOND,
            "seconds": 120.0,
            "version": 3,
            "acked_steps": 0,
            "argv": ["run", say("argument")],
            "machine": say("machine"),
            "revision": say("revision"),
            "rewards": {VERSION: {"weights": dict.fromkeys((SCREEN, SHELL, PROOF), WEIGHTS)}},
        }
        (self.path / "run.json").write_text(json.dumps(known | record))
        self.journal = Journal(self.path / "shards" / "collector-0000", CATALOGUE, batch_rows=5)

    def episode(
        self,
        rewards: list[float | None],
        turn: Callable[[int], dict[str, Any]],
        *,
        stream: bytes = b"\x01" * 16,
        ending: Ending = "terminated",
        closing: dict[str, Any] | None = None,
        version: int = 0,
        seconds_between: float = 1.0,
        **same: Any,
    ) -> str:
        """One episode; `turn(i)` gives what is special of each row. Returns its key."""
        first = self.journal.next_t(stream)
        self._episodes += 1
        same = {"stream_id": stream, "episode": self._episodes, "reward_version": VERSION} | same
        for i, reward in enumerate(rewards):
            special = turn(i)
            decision = special.pop("decision", None) or Decision(
                special.pop("text", f"act {i}"), version, behaviour_id="small"
            )
            self._append(
                same
                | {
                    "t": first + i,
                    "step_in_episode": i,
                    "decision": decision,
                    "reward": reward,
                    "signals": () if reward is None else self._signals(reward),
                    "boundary": Boundary.RESET if i == 0 else Boundary.NONE,
                    "ending": ending if i == len(rewards) - 1 and not closing else "none",
                }
                | special,
                seconds_between,
            )
        end = {"t": first + len(rewards), "step_in_episode": len(rewards), "ending": ending}
        self._append(same | end | {"obs_text": "over", "decision": None} | (closing or {}), 0.01)
        return f"{stream.hex()}:{first}"

    def _signals(self, reward: float) -> tuple[Signal, ...]:
        """Signals whose weighted sum is the reward: done − 0.1 cost."""
        cost = 1.0
        done = reward + 0.1 * cost
        return (
            Signal("done", done, "fraction", "verifier", self._say("evidence")),
            Signal("cost", cost, "count", "env_state"),
        )

    def _append(self, fields: dict[str, Any], seconds: float) -> None:
        begun = self._now
        self._now += int(seconds * _SECOND)
        self.journal.append(Step(**(fields | {"t_start_ns": begun, "t_end_ns": self._now})))

    def log(self, *records: dict[str, Any]) -> None:
        with open(self.path / "metrics" / "metrics.jsonl", "a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)

    def close(self) -> Path:
        self.journal.close()
        return self.path


def clicking(run: LivedRun, say: Say) -> Callable[[int], dict[str, Any]]:
    def turn(i: int) -> dict[str, Any]:
        shown = run.journal.blobs.put(
            picture(60 + 40 * i), "image/png", WIDTH, HEIGHT, role=say("screen")
        )
        return {
            "obs_text": say(f"button Save #{i}"),
            "obs_blobs": (shown,),
            "text": f"click {CLICK[0]} {CLICK[1]}",
        }

    return turn


def calling(say: Say) -> Callable[[int], dict[str, Any]]:
    def turn(i: int) -> dict[str, Any]:
        arguments = json.dumps({"code": say(f"def f(x):\n    return x + {i}"), "path": "f.py"})
        return {
            "obs_text": say("write f"),
            "decision": Decision(
                json.dumps({"name": "write", "arguments": arguments}),
                1,
                behaviour_id=say("model"),
                model=say("a-model"),
                reasoning=say(f"I think that step {i} is next."),
                content=say("I write the file."),
                finish_reason=say("stop"),
                tool_calls=(ToolCall(f"call-{i}", say("write_file"), arguments),),
            ),
            "tool_results": (ToolResult(f"call-{i}", say(f"wrote {i} lines")),),
        }

    return turn


def rich_run(runs: Path, name: str = "office-1", say: Say = str) -> tuple[LivedRun, dict[str, str]]:
    """A run with episodes of every kind, not yet closed, and their keys by what they show."""
    run = LivedRun(runs, name, say)
    keys = {}
    for attempt in range(4):
        how = [-0.1, 1.0] if attempt == 1 else [-0.1, -0.1, -0.1]
        keys[f"attempt {attempt}"] = run.episode(
            list(how),
            clicking(run, say)
            if attempt % 2
            else lambda i, a=attempt: {"obs_text": say("screen"), "text": say(f"type {a} {i}")},
            env_id=SCREEN,
            task_id=say("save the form"),
            group_id=say("g-1"),
            version=attempt // 2,
            sandbox_tier=say("tier"),
            ending="terminated" if attempt == 1 else "truncated",
        )
    keys["calls"] = run.episode(
        [0.0, 0.5, 0.9],
        calling(say),
        env_id=SHELL,
        task_id=say("shell"),
        stream=b"\x02" * 16,
        version=1,
        info={"note": say("note")},
    )
    keys["proof"] = run.episode(
        [0.9],
        lambda i: {"obs_text": "n : Nat\n⊢ n + 0 = n", "text": say("tactic rfl")},
        env_id=PROOF,
        task_id=say("zero"),
        split="heldout",
        version=0,
    )
    keys["proof later"] = run.episode(
        [0.2],
        lambda i: {"obs_text": "⊢ n + 0 = n", "text": "tactic skip"},
        env_id=PROOF,
        task_id=say("zero"),
        split="heldout",
        version=3,
    )
    keys["failed"] = run.episode(
        [],
        lambda i: {},
        env_id=SHELL,
        task_id="broken",
        ending="env_error",
        closing={
            "info": {
                "error": say("OSError: the disk is gone"),
                "traceback": say("Traceback (most recent call last): …"),
            }
        },
    )
    keys["unknown"] = run.episode(
        [None], lambda i: {"obs_text": "wait"}, env_id=SHELL, task_id="late"
    )
    return run, keys


def imagine(run: LivedRun, say: Say = str) -> None:
    """A branch of the world model: it foresees the answer to `type 0 0`, then does something else."""
    dreams = Journal(run.path / "imagined" / "model", CATALOGUE)
    same = {"stream_id": b"\x05" * 16, "env_id": SCREEN, "task_id": say("save the form")}
    same |= {"source": "imagined", "parent": (b"\x01" * 16, 0), "model_version": 3}
    seen, done = (say("screen"), say("screen")), (say("type 0 0"), say("type other"))
    for t in range(2):
        decision = Decision(done[t], 0, behaviour_id="small")
        more = {"decision": decision, "uncertainty": 0.125, "reward": 0.2, "step_in_episode": t}
        mark = Boundary.RESET if t == 0 else Boundary.NONE
        dreams.append(Step(t=t, obs_text=seen[t], boundary=mark, **same, **more))
    dreams.append(Step(t=2, obs_text=say("dreamt"), ending="truncated", step_in_episode=2, **same))
    dreams.close()


def with_metrics(run: LivedRun, say: Say = str) -> None:
    """Lines of metrics as a run writes them, notes of phases, and options in a checkpoint."""
    mean = {"mean": 0.5, "half": 0.1, "n": 8}
    for version in range(4):
        run.log(
            {
                "t": 1_790_000_000.0 + version,
                "version": version,
                "seconds": 10.0 * version,
                "lag": 0.5,
                "steps": {"real": 10 * version, "imagined": version},
                "episodes": version,
                "skills": version,
                "returns": {SCREEN: {str(v): mean | {"mean": 0.1 * v} for v in range(version + 1)}},
                "random": {SCREEN: mean | {"mean": 0.0}},
                "gain": {SCREEN: mean},
                "training": {SCREEN: 0.1 * version},
                "model_error": {
                    "exact": 0.2 * version,
                    "exact_kept": 0.9,
                    "kept": 0.3,
                    "copy": 0.1,
                    "n": 12,
                },
                "metrics": {"policy_loss": 1.0 / (version + 1), "kl": 0.01 * version},
            }
        )
    notes = [
        {
            "t": 1_790_000_000.0,
            "phase": say("demonstrations"),
            "counts": {"demonstrations": [3, 3]},
        },
        {"t": 1_790_000_004.0, "phase": "acting and learning", "counts": {}},
        {
            "t": 1_790_000_005.0,
            "monitor": say("flat_groups"),
            "finding": say("groups do not differ"),
        },
    ]
    (run.path / "metrics" / "phases.jsonl").write_text("".join(json.dumps(n) + "\n" for n in notes))
    library = {
        "options": [{"name": say("fetch"), "kind": "program"}],
        "records": {say("fetch"): {"uses": 4, "gain": 0.2}},
        "version": 2,
    }
    CheckpointStore(run.path / "checkpoints").save(
        3, {"options.json": json.dumps(library).encode()}
    )
    (run.path / "config.yaml").write_text(
        f"name: office\nworlds: [{{id: '{SCREEN}'}}]\n# {say('comment')}\n"
    )
