"""Episodes of one world for a client elsewhere: what it sees, and what each action has earned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from envs.bridges.serving.world_thread import ANSWER_SECONDS, WorldThread
from envs.contract import INVALID
from experience.answers import read_reset, read_step, step_parts
from experience.signal import as_number
from experience.world import WorldCard, instructions_of, tools_of


@dataclass(frozen=True)
class About:
    """What a world says of itself once it is made.

    tools: its typed actions, each with `name`, `description` and `parameters` (JSON Schema).
    """

    name: str
    version: str
    instructions: str
    splits: tuple[str, ...]
    tools: tuple[Mapping[str, Any], ...]
    segment_turns: int

    @classmethod
    def of(cls, world: Any) -> About:
        card = WorldCard.of(world)
        return cls(
            name=type(world).__name__,
            version=card.env_version,
            instructions=instructions_of(world),
            splits=card.splits,
            tools=tuple(tool["function"] for tool in _schemas(world)),
            segment_turns=card.segment_turns,
        )


@dataclass(frozen=True)
class Turn:
    """What answered an action. `reward` and a signal's value are None where they are unknown.

    tag: the world's name for this step. late: signals of earlier steps that are known only now, by
    the step's tag or its number since the reset; sums do not hold them.
    """

    seen: str
    reward: float | None
    signals: Mapping[str, float | None]
    terminated: bool
    truncated: bool
    images: Mapping[str, bytes] = field(default_factory=dict)
    tag: str = ""
    late: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated

    @property
    def refused(self) -> bool:
        """Whether the action could not be read."""
        return INVALID in self.signals


class Play:
    """One world on a thread of its own, and the episode that is played in it.

    `reward` and `signals` are sums over the episode so far; a sum with an unknown part is None, not
    the sum of the rest. Every method but `close` raises what the world raises, and
    EnvironmentFailure for a world that hangs or answers in another form than Gymnasium's.
    """

    def __init__(self, make: Callable[[], Any], seconds: float = ANSWER_SECONDS) -> None:
        self._thread = WorldThread(make, seconds)
        self.about = About("", "", "", (), (), 0)
        self.reward: float | None = 0.0
        self.signals: dict[str, float | None] = {}
        self.task_id = ""
        self.turns = 0
        self.ended = True

    @property
    def is_lost(self) -> bool:
        """Whether the world has hung: this play is over, and another one can be made."""
        return self._thread.is_lost

    async def look(self) -> About:
        """Makes the world, if it is not made yet, and reads what it says of itself."""
        self.about = await self._thread.answer("making the world", About.of)
        return self.about

    async def begin(self, seed: int | None, split: str = "") -> Turn:
        """Starts an episode. Without `seed` its task is random; without `split` the world's first
        split is taken."""
        self.ended = True  # until the reset has answered, nothing can be done
        about = await self.look()
        options = {"split": split or about.splits[0]}
        answer = await self._thread.answer("reset", lambda w: w.reset(seed=seed, options=options))
        seen, info = read_reset(about.name, answer)
        self.reward, self.signals, self.turns, self.ended = 0.0, {}, 0, False
        self.task_id = str(info.get("task_id", seed))
        # The rules may change from task to task.
        await self.look()
        return Turn(seen, None, {}, False, False, info.get("images", {}))

    async def do(self, action: str) -> Turn:
        """Does an action, and adds up what it earned.

        Raises RuntimeError if no episode is under way. After any error the episode is over.
        """
        if self.ended:
            raise RuntimeError("no episode is under way")
        self.ended = True
        turn = await self._thread.answer("step", lambda w: _read(w, w.step(action)))
        self.turns += 1
        if self.turns == self.about.segment_turns and not turn.ended:
            turn = replace(turn, truncated=True)
        self.ended = turn.ended
        self.reward = _plus(self.reward, turn.reward)
        for name, value in turn.signals.items():
            self.signals[name] = _plus(self.signals.get(name, 0.0), value)
        return turn

    def close(self) -> None:
        """Closes the world, on its thread."""
        self._thread.close()


def _schemas(world: Any) -> Sequence[Mapping[str, Any]]:
    # A ToolWorld that reads its actions in a way of its own tells models of no tools, because its
    # instructions tell of that way; it reads tool calls all the same.
    return tools_of(world) or [tool.schema() for tool in getattr(world, "tools", {}).values()]


def _read(world: Any, answer: Any) -> Turn:
    name = type(world).__name__
    _, reward, *_ = step_parts(name, answer)
    number = as_number(reward)
    known = None if number is None or not math.isfinite(number) else number
    found = read_step(name, answer, WorldCard.of(world).signals)
    return Turn(
        seen=found.observation,
        reward=known,
        signals={signal.name: signal.value for signal in found.signals},
        terminated=found.terminated,
        truncated=found.truncated,
        images=found.info.get("images", {}),
        tag=found.tag,
        late={str(late.of): {s.name: s.value for s in late.signals} for late in found.late},
    )


def _plus(total: float | None, more: float | None) -> float | None:
    """The sum; None, unknown, if a part of it is unknown."""
    return None if total is None or more is None else total + more
