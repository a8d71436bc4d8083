"""Hosting: makes, resets, steps and closes worlds in threads, so that none waits for another."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from actors.collecting.slot import Slot
from actors.collecting.work import Work
from actors.worlds import close_worlds, make_world
from experience.answers import StepAnswer, read_reset, read_step
from experience.errors import EnvironmentFailure
from experience.reward import RewardModel
from experience.signal import SignalKind
from experience.step import Ending
from experience.world import WorldCard


@dataclass(frozen=True)
class Failed:
    """A call that gave no answer: it raised `error`, or was not over by its deadline."""

    ending: Ending
    error: BaseException


class Hosting:
    """The threads of a collector's worlds, one for each slot. Every call has a deadline."""

    def __init__(
        self,
        name: str,
        slots: int,
        arguments: Mapping[str, Mapping[str, Any]],
        catalogue: Mapping[str, SignalKind],
        rewards: RewardModel,
        timeout_seconds: float,
    ) -> None:
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix=name)
        self._arguments = arguments
        self._catalogue = catalogue
        self._rewards = rewards
        self._timeout_seconds = timeout_seconds

    def reset(self, slot: Slot, work: Work) -> None:
        """Begins a reset to the task of `work`; makes the world if the slot has none."""
        self._submit(slot, self._reset, slot, work)

    def step(self, slot: Slot, action: str) -> None:
        """Begins a step."""
        self._submit(slot, self._step, slot.env, slot.env_id, action)

    def wait(self, slots: Sequence[Slot], patience_seconds: float, for_all: bool) -> None:
        """Waits for all worlds that are busy, each until its deadline; or, if no slot is ready, for
        the first of them, at most `patience_seconds`."""
        pending = [slot.future for slot in slots if slot.future is not None]
        if pending and for_all:
            latest = max(slot.deadline for slot in slots)
            wait(pending, latest - time.monotonic(), ALL_COMPLETED)
        elif pending and not any(slot.is_ready for slot in slots):
            wait(pending, patience_seconds, FIRST_COMPLETED)

    def finished(self, slots: Sequence[Slot]) -> Iterator[tuple[Slot, Any]]:
        """(slot, what its call returned, or Failed) of every call that is over. A call past its
        deadline is left to itself: its thread cannot be stopped."""
        for slot in slots:
            future = slot.future
            if future is None:
                continue
            if future.done():
                slot.future = None
                error = future.exception()
                yield slot, future.result() if error is None else Failed("env_error", error)
            elif time.monotonic() >= slot.deadline:
                slot.future = None
                late = TimeoutError(f"no answer in {self._timeout_seconds:g} s")
                yield slot, Failed("timeout", late)

    def discard(self, slot: Slot, env_id: str) -> None:
        """Closes a world that failed: the slot makes another when it needs one."""
        slot.cards.pop(env_id, None)
        env = slot.envs.pop(env_id, None)
        if env is not None:
            self._threads.submit(env.close)

    def close(self, slots: Sequence[Slot]) -> list[str]:
        """Closes all worlds; what went wrong, by the type of the error."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        return close_worlds([env for slot in slots for env in slot.envs.values()])

    def _submit(self, slot: Slot, call: Callable[..., Any], *arguments: Any) -> None:
        slot.deadline = time.monotonic() + self._timeout_seconds
        slot.future = self._threads.submit(call, *arguments)

    def _reset(self, slot: Slot, work: Work) -> Any:
        if work.env_id not in slot.envs:
            env = make_world(work.env_id, self._arguments[work.env_id])
            slot.envs[work.env_id] = env
            slot.cards[work.env_id] = WorldCard.of(env.unwrapped)
        answer = slot.envs[work.env_id].reset(seed=work.seed, options={"split": work.split})
        return read_reset(work.env_id, answer)

    def _step(self, env: Any, env_id: str, action: str) -> tuple[StepAnswer, float | None]:
        """The world's answer and its reward. Raises EnvironmentFailure if the answer is none."""
        answer = read_step(env_id, env.step(action), self._catalogue)
        reward = self._rewards.reward(env_id, answer.signals)
        if reward is not None and not math.isfinite(reward):
            raise EnvironmentFailure(
                f"{env_id}: the weighted sum of its signals is {reward}; a reward is a finite "
                "number",
                "measure in a larger unit",
            )
        return answer, reward
