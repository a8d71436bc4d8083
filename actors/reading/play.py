"""A person in a world, in the terminal or on a page; and episodes of a run, shown and lived again."""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from actors.output import emit
from actors.reading.page import serve
from actors.reading.survey import Lived
from experience.errors import XpError
from experience.reward import RewardModel
from experience.signal import Signal, read_signals
from experience.step import Step
from experience.text.strict_json import dumps
from experience.world import WorldCard, instructions_of


class Game:
    """One episode after another, acted by a person. Every command answers with text."""

    def __init__(self, world: Any, seed: int, split: str) -> None:
        self.world, self._seed, self._split = world, seed, split
        self._card = WorldCard.of(world)
        self.log: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.seen, self.info = self.world.reset(seed=self._seed, options={"split": self._split})
        self.ended, self.total = False, 0.0
        self._saved: list[tuple[bytes, float]] = []

    def do(self, command: str) -> str:
        """Acts, or obeys `:oracle`, `:back`, `:new`; returns what happened, besides the new observation."""
        if command == ":new" or (self.ended and command != ":back"):
            self._seed += 1
            self.begin()
            return f"seed {self._seed}"
        if command == ":back":
            if not self._saved:
                return (
                    "there is nothing to go back to"
                    if self._card.goes_back
                    else "this world cannot go back"
                )
            saved, self.total = self._saved.pop()
            self.seen, self.info = self.world.restore(saved)
            self.ended = False
            return "one turn back"
        if command == ":oracle" and not self._card.has_oracle:
            return "this world has no oracle"
        action = str(self.world.oracle_action()) if command == ":oracle" else command
        if self._card.goes_back:
            self._saved.append((self.world.snapshot(), self.total))
        self.seen, reward, terminated, truncated, self.info = self.world.step(action)
        self.ended, self.total = bool(terminated or truncated), self.total + float(reward)
        ending = " — terminated" if terminated else " — truncated" if truncated else ""
        return (
            f"> {action}\nreward {reward:+.3f}, in all {self.total:+.3f}{ending}; signals "
            + dumps(self.info.get("signals", {}), default=str)
        )


def in_terminal(game: Game) -> None:
    print(
        instructions_of(game.world) or "type an action",
        "(:oracle :back :new :quit)",
        file=sys.stderr,
    )
    emit(str(game.seen))
    for line in sys.stdin:
        command = line.strip()
        if command == ":quit":
            return
        emit(game.do(command))
        emit(str(game.seen))


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
body{{font:15px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d2a26}}
pre{{background:#f2f5f3;padding:1rem;border-radius:8px;white-space:pre-wrap}}
input{{font:inherit;padding:.5rem;width:60%}} button{{font:inherit;padding:.5rem .9rem}}
img{{max-width:100%;border:1px solid #ccd}} small{{color:#586}}
</style><h1>{title}</h1><p><small>{told}</small></p>{pictures}<pre>{seen}</pre>
<form method="post"><input name="do" autofocus placeholder="an action" aria-label="action"><button>Act</button>
<button name="do" value=":oracle">Oracle</button> <button name="do" value=":back">Back</button>
<button name="do" value=":new">New</button></form><h2>What happened</h2><pre>{log}</pre></html>"""


def on_a_page(game: Game, port: int) -> None:
    """Serves the game on loopback until interrupted."""
    serve(lambda: page(game), lambda command: game.log.append(game.do(command)), port)


def page(game: Game) -> str:
    """The game as it stands, as HTML; all that a world says is escaped."""
    pictures = "".join(
        f'<img alt="{html.escape(role)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        for role, data in game.info.get("images", {}).items()
    )
    return _PAGE.format(
        title=html.escape(type(game.world).__name__),
        pictures=pictures,
        told=html.escape(instructions_of(game.world)),
        seen=html.escape(str(game.seen)),
        log=html.escape("\n".join(reversed(game.log[-30:]))),
    )


def choose(
    found: Sequence[Lived],
    *,
    world: str | None = None,
    split: str | None = None,
    version: int | None = None,
    best: int = 0,
    worst: int = 0,
    episode: int = -1,
) -> list[Lived]:
    """Closed episodes of `found` as asked for: the `best` and the `worst` by their return, else the one at `episode`.

    Raises XpError if there is none.
    """
    left = [
        e
        for e in found
        if e.ending is not None
        and world in (None, e.env_id)
        and split in (None, e.split)
        and version in (None, e.version)
    ]
    ranked = sorted(
        (e for e in left if e.whole and e.total is not None), key=lambda e: -(e.total or 0.0)
    )
    if best or worst:
        chosen = [*ranked[:best], *ranked[max(len(ranked) - worst, 0) :]]
    else:
        chosen = left[episode:][:1] if -len(left) <= episode else []
    if not chosen:
        told = ", ".join(
            f"{name} {value}"
            for name, value in (("world", world), ("split", split), ("version", version))
            if value is not None
        )
        raise XpError(
            f"none of the {len(left)} closed episodes{f' of {told}' if told else ''} ({len(ranked)} of known "
            "return) is the one you asked for",
            "see: ./xp query RUN 'select * from episodes'",
        )
    return list(dict.fromkeys(chosen))


def relive(steps: Sequence[Step], world: Any, rewards: RewardModel) -> str:
    """What differs when the episode is lived again from its seed and actions, its signals weighed by `rewards`; empty
    if nothing does."""
    if steps[0].reward_version != rewards.version:
        return (
            f"its rewards are of version {steps[0].reward_version}, and the run's configuration gives "
            f"{rewards.version}: they cannot be compared"
        )
    observation, _ = world.reset(seed=steps[0].seed, options={"split": steps[0].split})
    for step in steps:
        if observation != step.obs_text:
            return f"turn {step.step_in_episode} shows something else"
        if step.decision is None:
            return ""
        if step.is_choice:
            continue
        observation, given, _, _, info = world.step(step.decision.text)
        reward = rewards.reward(step.env_id, answered(given, info, world))
        if (reward is None) != (step.reward is None) or abs(
            (reward or 0.0) - (step.reward or 0.0)
        ) > 1e-9:
            return f"turn {step.step_in_episode} is worth {reward}, not {step.reward}"
    return ""


def answered(reward: float, info: Mapping[str, Any], world: Any) -> tuple[Signal, ...]:
    """What a world measured in a step, as a collector takes it."""
    if "signals" in info:
        return read_signals(info, world.signal_catalogue)
    return (Signal("env_reward", float(reward), "1", "env_state"),)


def described(step: Step) -> str:
    """A turn for reading: what was seen, done and measured, and what it was worth."""
    head = f"--- {step.env_id} turn {step.step_in_episode}, {step.task_id}\n{step.obs_text}"
    if step.decision is None:
        return f"{head}\n    the episode's end: {step.ending}" + (
            f", {step.info['error']}" if "error" in step.info else ""
        )
    signals = "".join(
        f"  {s.name} {'unknown' if s.value is None else f'{s.value:g}'}" for s in step.signals
    )
    reward = "unknown" if step.reward is None else f"{step.reward:g}"
    return f"{head}\n> {step.decision.text}\n    reward {reward}{signals}"


def as_record(step: Step) -> dict[str, Any]:
    """The same as data."""
    return {
        "env_id": step.env_id,
        "stream": step.stream_id.hex(),
        "t": step.t,
        "task": step.task_id,
        "seed": step.seed,
        "split": step.split,
        "version": step.decision and step.decision.policy_version,
        "seen": step.obs_text,
        "action": step.decision and step.decision.text,
        "signals": {s.name: s.value for s in step.signals},
        "reward": step.reward,
        "ending": step.ending,
        "info": dict(step.info),
    }
