"""The collector: keeps many environments going, asks the agents, and journals every step.

Each environment advances alone: those that wait for the model are answered together, and nobody
waits for those that are stepping. The same class runs in this process and inside a Ray actor.

In step (`in_step`), all environments are waited for, then answered together. Otherwise it depends
on which environment was faster which rows the model answers at once, and so the last bits of its
logits. The random numbers of a turn come from the run's seed, the work and the turn in either case.
"""

from __future__ import annotations

import math
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actors.collecting.described import describe_worlds
from actors.collecting.hosting import Failed, Hosting
from actors.collecting.lanes import Lanes
from actors.collecting.recorder import Recorder
from actors.collecting.slot import Slot
from actors.collecting.work import Agenda, Done, Work, done_before, in_step
from actors.config.schema import Config
from experience.errors import EngineError
from experience.models.weights import PolicyBundle
from experience.policy import Decision
from experience.reward import RewardModel
from experience.shards.journal import Journal
from experience.step import Boundary


class SlotLoop:
    """Keeps the slots going: gives them work, records their worlds' answers, asks the agents."""

    def __init__(
        self,
        slots: Sequence[Slot],
        agenda: Agenda,
        recorder: Recorder,
        lanes: Lanes,
        hosting: Hosting,
        waits_for_all: bool,
    ) -> None:
        self._slots = slots
        self._agenda = agenda
        self._recorder = recorder
        self._lanes = lanes
        self._hosting = hosting
        self._waits_for_all = waits_for_all

    def round(self, patience_seconds: float) -> None:
        """Finished worlds are recorded, waiting ones answered."""
        for slot in self._slots:
            if slot.work is None:
                self._begin(slot)
        self._take_finished(patience_seconds)
        if self._recorder.steps_left <= 0:
            # the limit of steps is reached: no further action of a training episode is taken
            self._agenda.drop_training()
            self.cancel(lambda work: work.lane == "train")
        self._answer([slot for slot in self._slots if slot.is_ready])

    def cancel(self, is_unwanted: Callable[[Work], bool]) -> None:
        """Ends the episodes of unwanted work, those that are stepping when their world answers."""
        for slot in self._slots:
            if slot.work is not None and is_unwanted(slot.work):
                slot.unwanted = True
                if slot.is_ready:
                    self._recorder.cancel(slot)

    def _begin(self, slot: Slot) -> None:
        work = self._agenda.next(may_train=self._recorder.steps_left > 0)
        if work is not None:
            slot.work = work
            slot.turn = 0
            slot.episode += 1
            slot.t_start_ns = time.time_ns()
            self._hosting.reset(slot, work)

    def _take_finished(self, patience_seconds: float) -> None:
        self._hosting.wait(self._slots, patience_seconds, for_all=self._waits_for_all)
        for slot, result in self._hosting.finished(self._slots):
            if isinstance(result, Failed):
                self._fail(slot, result)
            elif slot.decision is None:
                slot.observe(*result)
            else:
                self._recorder.turn(slot, *result)
            if slot.unwanted and slot.is_ready:
                self._recorder.cancel(slot)

    def _answer(self, ready: Sequence[Slot]) -> None:
        """Asks each lane's agent about all slots that wait for it."""
        asked = dict.fromkeys((s.work.lane, s.work.version) for s in ready if s.work is not None)
        for lane, version in asked:
            slots = [
                s for s in ready if s.work and (s.work.lane, s.work.version) == (lane, version)
            ]
            if lane == "train":
                slots = self._within_limit(slots)
            decisions = self._lanes.decide(lane, version, slots)
            for slot, decision in zip(slots, decisions, strict=True):
                if isinstance(decision, Exception):
                    self._fail(slot, Failed("env_error", decision))
                else:
                    self._act(slot, decision)
            if any(isinstance(decision, EngineError) for decision in decisions):
                time.sleep(self._lanes.pause_seconds)

    def _within_limit(self, slots: list[Slot]) -> list[Slot]:
        """The slots that may act without the steps under way passing the limit of steps."""
        if math.isinf(self._recorder.steps_left):
            return slots
        acting = [s for s in self._slots if s.future is not None and s.decision is not None]
        under_way = sum(s.work is not None and s.work.lane == "train" for s in acting)
        return slots[: max(int(self._recorder.steps_left) - under_way, 0)]

    def _act(self, slot: Slot, decision: Decision) -> None:
        slot.decision = decision
        slot.t_start_ns = time.time_ns()
        if slot.option_stack.is_choice:
            self._recorder.choice(slot)
        else:
            self._hosting.step(slot, decision.text)

    def _fail(self, slot: Slot, failed: Failed) -> None:
        """The world broke, or nobody acts in it: its episode ends, and the world is made anew."""
        env_id = slot.env_id
        self._recorder.failure(slot, failed.ending, failed.error)
        self._hosting.discard(slot, env_id)


class Collector:
    """Lives episodes: training groups up to a quota, and ordered work before them.

    Invariant: a step counts as taken when the journal has acknowledged it, and never twice.
    """

    def __init__(
        self, config: Config, run_id: str, directory: Path, index: int, collectors: int
    ) -> None:
        self.config = config
        self.index = index
        # the worlds know no configuration: they read the weakest tier from the environment
        os.environ["XP_MIN_TIER"] = config.sandbox.min_tier
        name = f"collector-{index:04d}"
        described = describe_worlds(config)
        rewards = RewardModel(described.weights)
        directory.mkdir(parents=True, exist_ok=True)  # a node that shares no disk has none yet
        done = done_before(directory / name, config.collecting.group_size)
        self.journal = Journal(
            directory / name,
            described.catalogue,
            durability=config.collecting.durability,
            commit_seconds=config.collecting.commit_seconds,
            seal_bytes=config.collecting.seal_bytes,
            seal_seconds=config.collecting.seal_seconds,
            metadata={"run": run_id, "rewards": rewards.version},
        )
        self._agenda = Agenda(config, index, collectors, done)
        self._recorder = Recorder(
            self.journal,
            rewards.version,
            config.collecting.discount,
            steps_left(config.budget.steps, index, collectors, done),
            remembers=config.planning.lookahead.candidates > 0,
            done=done.work_ids,
        )
        # an incarnation after a crash does not draw the numbers of the one before again
        seed = config.seed + 1000 * (index + 1) + self.journal.epoch
        self._lanes = Lanes(config, rewards, seed)
        self._hosting = Hosting(
            name,
            config.collecting.slots,
            {world.id: world.arguments for world in config.worlds},
            described.catalogue,
            rewards,
            config.collecting.step_timeout_seconds,
        )
        self._slots = make_slots(config, run_id, index, done, self.journal)
        self._loop = SlotLoop(
            self._slots,
            self._agenda,
            self._recorder,
            self._lanes,
            self._hosting,
            waits_for_all=in_step(config),
        )
        self.failures: Counter[str] = Counter()
        """Of the machinery around the worlds; what a world failed in stands in its rows."""

    @property
    def closed(self) -> int:
        """Episodes closed so far."""
        return self._recorder.closed

    @property
    def idle(self) -> bool:
        return self._agenda.is_empty and all(slot.work is None for slot in self._slots)

    def load(self, policy: PolicyBundle | None, quota: int) -> None:
        """The policy for training steps from now on, and how many groups may have been started in
        all."""
        if policy is not None:
            self._lanes.load(policy)
        self._agenda.quota = quota

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        """Work to be done before training goes on; an evaluation is pinned to `policy`."""
        if policy is not None:
            self._lanes.pin(policy)
        under_way = [slot.work for slot in self._slots if slot.work is not None]
        self._lanes.keep_pinned(self._agenda.order(works, under_way))

    def drop(self) -> None:
        """Ordered work that is not done is not lived any more; its episodes under way end as
        cancelled."""
        self._agenda.drop_orders()
        self._loop.cancel(lambda work: work.lane != "train")

    def status(self) -> dict[str, Any]:
        """Acknowledged steps per stream (the highest t), the policy version in use, failures by
        cause."""
        return {
            "acknowledged": dict(self.journal.acknowledged),
            "version": self._lanes.version,
            "failures": dict(self.failures),
            "idle": self.idle,
            "paused": self.journal.paused,
        }

    def pump(self, patience_seconds: float = 0.05) -> bool:
        """One round: finished worlds are recorded, waiting ones answered. False if there was
        nothing to do.

        On a full disk nothing new is begun and nothing in memory grows, until there is room again.
        """
        if self.journal.paused:
            time.sleep(patience_seconds)
            self.journal.commit()
            return True
        self._loop.round(patience_seconds)
        self.journal.commit_if_due()
        return any(slot.work is not None for slot in self._slots)

    def close(self) -> None:
        """Acknowledges and seals what there is. Episodes under way end here, as cancelled."""
        for slot in self._slots:
            if slot.work is not None:
                self._recorder.cancel(slot)
        self.journal.close()
        self._lanes.close()
        self.failures.update(f"close: {why}" for why in self._hosting.close(self._slots))


def make_slots(config: Config, run_id: str, index: int, done: Done, journal: Journal) -> list[Slot]:
    """The slots of a collector. Their streams go on where an earlier incarnation left them."""
    restart = Boundary.WORKER_RESTART if journal.acknowledged else Boundary.NONE
    streams = [
        uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}/{index}/{n}").bytes
        for n in range(config.collecting.slots)
    ]
    return [
        Slot(
            stream,
            boundary=restart,
            episode=done.next_episode.get(stream, 0) - 1,
            seed=config.seed,
        )
        for stream in streams
    ]


def steps_left(limit: int | None, index: int, collectors: int, done: Done) -> float:
    """Real training steps that a collector may still take: its share of the run's limit."""
    if limit is None:
        return math.inf
    share, rest = divmod(limit, collectors)
    return share + (index < rest) - done.training_steps
