"""The collector: keeps many environments going, asks the agent, and journals every step.

Each environment advances alone: those that wait for the model are answered together, those that are stepping are
waited for by nobody. The same class runs in this process and inside a Ray actor.

In step (`in_step`) all environments are waited for, then answered together: which rows the model answers at once, and
so the last bits of its logits, do not depend on which environment was faster. The random numbers of a turn come from
the run's seed, the work and the turn in either case.
"""

from __future__ import annotations

import math
import os
import time
import traceback
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from actors.agents.agent import Agent, Expert, Random
from actors.agents.options import OptionStack
from actors.agents.planner import Planner
from actors.collecting.described import describe_worlds
from actors.collecting.slot import Slot
from actors.collecting.work import Lane, Work, done_before, in_step
from actors.config.schema import Config
from actors.engines.engine import Engine
from actors.engines.registry import make_engine
from actors.worlds import close_worlds, make_world
from experience.answers import StepAnswer, read_reset, read_step
from experience.errors import EngineError, EnvironmentFailure, XpError
from experience.models.weights import PolicyBundle
from experience.planning.world_models.change import Outcome
from experience.policy import Decision
from experience.reward import RewardModel
from experience.shards.journal import Journal
from experience.shards.storage.blobs import media_and_size
from experience.step import Boundary, Ending, Source, Step, discount_after, state_key
from experience.world import WorldCard

_PATIENCE = 5
"""Rounds in a row that an engine may fail before the collector gives up."""


class Collector:
    """Lives episodes: training groups as far as `quota` allows, and ordered work before them.

    Invariant: a step counts as taken when the journal has acknowledged it, and never twice.
    """

    def __init__(
        self, config: Config, run_id: str, directory: Path, index: int, collectors: int
    ) -> None:
        self.config, self.index, self._collectors = config, index, collectors
        os.environ["XP_MIN_TIER"] = (
            config.sandbox.min_tier
        )  # for the worlds, which know no configuration
        self._name = f"collector-{index:04d}"
        described = describe_worlds(config)
        self._catalogue = described.catalogue
        self._rewards = RewardModel(described.weights)
        self._arguments = {w.id: w.arguments for w in config.worlds}
        directory.mkdir(
            parents=True, exist_ok=True
        )  # on a node that shares no disk it is not there yet
        done = done_before(directory / self._name, config.collecting.group_size)
        self.journal = Journal(
            directory / self._name,
            self._catalogue,
            durability=config.collecting.durability,
            commit_seconds=config.collecting.commit_seconds,
            seal_bytes=config.collecting.seal_bytes,
            seal_seconds=config.collecting.seal_seconds,
            metadata={"run": run_id, "rewards": self._rewards.version},
        )
        self._done = done.work_ids
        self._next_group, self._void_groups = done.next_group, done.void_groups
        share, rest = divmod(config.budget.steps or 0, collectors)
        self._steps_left = (
            math.inf
            if config.budget.steps is None
            else share + (index < rest) - done.training_steps
        )
        """Real training steps that this collector may still take."""
        self.quota = self.closed = 0
        """Groups that may have been started; episodes closed so far."""
        self._in_step = in_step(config)
        self._orders: deque[Work] = deque()
        self._group: deque[Work] = deque()
        self._agents: dict[Lane, Agent | Expert | Random] = {}
        self._pinned: dict[int, PolicyBundle] = {}
        self._evaluating: int | None = None
        self._engine = make_engine(
            config.policy, config.seed + 1000 * (index + 1) + self.journal.epoch
        )
        self._acting = self._agent(self._engine, config.policy.temperature)
        self._agents["train"] = self._acting
        restart = Boundary.WORKER_RESTART if self.journal.acknowledged else Boundary.NONE
        streams = [
            uuid.uuid5(uuid.NAMESPACE_OID, f"{run_id}/{index}/{n}").bytes
            for n in range(config.collecting.slots)
        ]
        self._slots = [
            Slot(s, boundary=restart, episode=done.next_episode.get(s, 0) - 1, seed=config.seed)
            for s in streams
        ]
        self._threads = ThreadPoolExecutor(len(self._slots), thread_name_prefix=self._name)
        self.failures: Counter[str] = Counter()
        """Of the machinery around the worlds; what a world failed in stands in its rows."""
        self._failed: set[str] = set()
        self._engine_failures = 0

    def _agent(self, engine: Engine, temperature: float) -> Agent:
        """The policy as an agent, with a planner if the configuration wants one."""
        thinks = self.config.planning.lookahead.candidates > 0
        return Agent(engine, temperature, Planner(self.config, self._rewards) if thinks else None)

    def load(self, policy: PolicyBundle | None, quota: int) -> None:
        """The policy for training steps from now on, and how many groups may have been started in all."""
        if policy is not None and self.config.policy.learns:
            self._acting.load(policy)
        self.quota = quota

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        """Work to be done before training goes on; evaluation is pinned to `policy`."""
        if policy is not None:
            if "evaluation" not in self._agents:
                self._agents["evaluation"] = self._agent(
                    make_engine(self.config.policy, self.config.seed),
                    self.config.evaluation.temperature,
                )
            self._pinned[policy.version] = policy
        waiting = {w.work_id for w in [*self._orders, *(s.work for s in self._slots if s.work)]}
        wanted = {
            w.version for w in [*self._orders, *works, *(s.work for s in self._slots if s.work)]
        }
        self._pinned = {
            version: pinned for version, pinned in self._pinned.items() if version in wanted
        }
        self._orders.extend(
            w for w in works if w.work_id not in self._done and w.work_id not in waiting
        )

    def drop(self) -> None:
        """What was ordered and is not done is not lived any more; episodes under way end as cancelled."""
        self._orders.clear()
        for slot in self._slots:
            if slot.work is not None and slot.work.lane != "train":
                self._unwant(slot)

    def _unwant(self, slot: Slot) -> None:
        slot.unwanted = True
        if slot.is_ready:
            self._cancel(slot)

    def _cancel(self, slot: Slot) -> None:
        """Ends an episode that nobody waits for; one without a turn leaves no row."""
        if slot.turn:
            self._close_episode(slot, slot.observation, "cancelled", {})
        else:
            self._free(slot)

    def _end_training(self) -> None:
        """The limit of steps is reached: no further action of a training episode is taken."""
        self._group.clear()
        for slot in self._slots:
            if slot.work is not None and slot.work.lane == "train":
                self._unwant(slot)

    def status(self) -> dict[str, Any]:
        """Acknowledged steps per stream (the highest t), the policy version in use, failures by cause."""
        return {
            "acknowledged": dict(self.journal.acknowledged),
            "version": self._engine.version,
            "failures": dict(self.failures),
            "idle": self.idle,
            "paused": self.journal.paused,
        }

    @property
    def idle(self) -> bool:
        return not self._orders and not self._group and all(s.work is None for s in self._slots)

    def pump(self, patience_seconds: float = 0.05) -> bool:
        """One round: finished environments are recorded, waiting ones answered. False if there was nothing to do.

        On a full disk nothing new is begun and nothing in memory grows, until there is room again.
        """
        if self.journal.paused:
            time.sleep(patience_seconds)
            self.journal.commit()
            return True
        for slot in self._slots:
            if slot.work is None:
                self._begin(slot)
        self._take_finished(patience_seconds)
        if self._steps_left <= 0:
            self._end_training()
        ready = [s for s in self._slots if s.is_ready]
        for lane, version in dict.fromkeys((s.work.lane, s.work.version) for s in ready if s.work):
            if lane == "evaluation" and version in self._pinned and self.config.policy.learns:
                agent = self._agents[lane]
                assert isinstance(agent, Agent)
                if self._evaluating != version:
                    agent.load(self._pinned[version])
                    self._evaluating = version
            self._answer(
                lane,
                [s for s in ready if s.work and (s.work.lane, s.work.version) == (lane, version)],
            )
        self.journal.commit_if_due()
        return any(s.work is not None for s in self._slots)

    def close(self) -> None:
        """Acknowledges and seals what there is. Episodes under way end here, as cancelled."""
        for slot in self._slots:
            if slot.work is not None:
                self._cancel(slot)
        self.journal.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for agent in self._agents.values():
            if isinstance(agent, Agent):
                agent.close()
        worlds = [env for slot in self._slots for env in slot.envs.values()]
        self.failures.update(f"close: {why}" for why in close_worlds(worlds))

    def _begin(self, slot: Slot) -> None:
        work = self._next_work()
        if work is not None:
            slot.work, slot.turn = work, 0
            slot.episode += 1
            slot.t_start_ns = time.time_ns()
            self._submit(slot, self._reset, slot, work)

    def _next_work(self) -> Work | None:
        if self._orders:
            return self._orders.popleft()
        if (
            not self._group
            and self._steps_left > 0
            and self._next_group - self._void_groups < self.quota
        ):
            self._group.extend(self._new_group())
        return self._group.popleft() if self._group else None

    def _new_group(self) -> Iterator[Work]:
        """The next training group: worlds in turn by their share, tasks by a counter that no crash rewinds."""
        shares = [w.id for w in self.config.worlds for _ in range(w.groups)]
        number = self._next_group * self._collectors + self.index
        env_id = shares[number % len(shares)]
        seed = int(np.random.default_rng([self.config.seed, 1, number]).integers(2**31))
        group_id = f"{self.index}-{self._next_group}"
        self._next_group += 1
        for n in range(self.config.collecting.group_size):
            yield Work.named(
                f"{self.config.seed}/train/{number}/{n}",
                env_id=env_id,
                seed=seed,
                group_id=group_id,
            )

    def _submit(self, slot: Slot, call: Any, *arguments: Any) -> None:
        slot.deadline = time.monotonic() + self.config.collecting.step_timeout_seconds
        slot.future = self._threads.submit(call, *arguments)

    def _reset(self, slot: Slot, work: Work) -> Any:
        if work.env_id not in slot.envs:
            env = make_world(work.env_id, self._arguments[work.env_id])
            slot.envs[work.env_id] = env
            slot.cards[work.env_id] = WorldCard.of(env.unwrapped)
        answer = slot.envs[work.env_id].reset(seed=work.seed, options={"split": work.split})
        return read_reset(work.env_id, answer)

    def _step(self, env: Any, env_id: str, action: str) -> tuple[StepAnswer, float | None]:
        """The world's answer and its reward. Raises EnvironmentFailure where the answer is none."""
        answer = read_step(env_id, env.step(action), self._catalogue)
        reward = self._rewards.reward(env_id, answer.signals)
        if reward is not None and not math.isfinite(reward):
            raise EnvironmentFailure(
                f"{env_id}: the weighted sum of its signals is {reward}; a reward is a finite "
                "number",
                "measure in a larger unit",
            )
        return answer, reward

    def _take_finished(self, patience_seconds: float) -> None:
        pending = [s.future for s in self._slots if s.future is not None]
        if pending and self._in_step:
            wait(pending, max(s.deadline for s in self._slots) - time.monotonic(), ALL_COMPLETED)
        elif pending and not any(s.is_ready for s in self._slots):
            wait(pending, patience_seconds, FIRST_COMPLETED)
        for slot in self._slots:
            if slot.future is None:
                continue
            if slot.future.done():
                future, slot.future = slot.future, None
                error = future.exception()
                if error is not None:
                    self._fail(slot, "env_error", error)
                elif slot.decision is None:
                    slot.observation, slot.info = future.result()
                    slot.state = slot.info.get("state", slot.observation)
                    slot.subject = slot.info.get("subject", "")
                else:
                    self._record(slot, *future.result())
                if slot.unwanted and slot.is_ready:
                    self._cancel(slot)
            elif time.monotonic() >= slot.deadline:
                slot.future = None
                self._fail(
                    slot,
                    "timeout",
                    TimeoutError(f"no answer in {self.config.collecting.step_timeout_seconds:g} s"),
                )

    def _answer(self, lane: Lane, slots: Sequence[Slot]) -> None:
        if lane == "train":
            slots = self._within_limit(slots)
        if lane in ("demonstration", "random"):
            self._answer_by_script(lane, slots)
            return
        try:
            decisions = self._agents[lane].act(slots) if slots else []
        except EngineError as error:
            self._engine_failures += 1
            if self._engine_failures >= _PATIENCE:
                raise
            for slot in slots:
                self._fail(slot, "env_error", error)
            time.sleep(min(2.0**self._engine_failures, 30.0) / 10)
            return
        self._engine_failures = 0
        for slot, decision in zip(slots, decisions, strict=True):
            self._act(slot, decision)

    def _answer_by_script(self, lane: Lane, slots: Sequence[Slot]) -> None:
        """The world's own expert, or actions at random: where its code fails, the world failed."""
        agent = self._agents.setdefault(
            lane, Expert(self._engine) if lane == "demonstration" else Random()
        )
        for slot in slots:
            try:
                (decision,) = agent.act([slot])
            except XpError:
                raise
            except Exception as error:  # noqa: BLE001  a stranger's code may raise anything
                self._fail(slot, "env_error", error)
                continue
            self._act(slot, decision)

    def _within_limit(self, slots: Sequence[Slot]) -> Sequence[Slot]:
        """Those that may act without the limit of training steps being passed by what is under way."""
        if math.isinf(self._steps_left):
            return slots
        acting = [s for s in self._slots if s.future is not None and s.decision is not None]
        under_way = sum(s.work is not None and s.work.lane == "train" for s in acting)
        return slots[: max(int(self._steps_left) - under_way, 0)]

    def _act(self, slot: Slot, decision: Decision) -> None:
        slot.decision, slot.t_start_ns = decision, time.time_ns()
        if slot.option_stack.is_choice:
            self._record_choice(slot)
        else:
            self._submit(slot, self._step, slot.env, slot.env_id, decision.text)

    def _record_choice(self, slot: Slot) -> None:
        """An option was started: a row of its own, in which nothing was measured and no time passed."""
        self._append(slot, slot.decision, reward=0.0, discount=1.0)
        slot.turn += 1
        slot.decision = None

    def _record(self, slot: Slot, answer: StepAnswer, reward: float | None) -> None:
        observation, signals = answer.observation, answer.signals
        ending: Ending = (
            "terminated" if answer.terminated else "truncated" if answer.truncated else "none"
        )
        marks = slot.option_stack.mark
        if slot.option_stack.running and (  # a generator costs as much as the row
            slot.option_stack.arrived(observation, np.random.default_rng([slot.draw, 1]))
            or ending != "none"
        ):
            slot.boundary |= Boundary.OPTION_END
        self._append(
            slot,
            slot.decision,
            signals=signals,
            reward=reward,
            ending=ending,
            discount=discount_after(ending, self.config.collecting.discount),
            marks=marks,
        )
        if slot.decision is not None and self.config.planning.lookahead.candidates:
            known = {s.name: s.value for s in signals if s.value is not None}
            slot.option_stack.remember(
                slot.observation, slot.decision.text, Outcome(observation, known, answer.terminated)
            )
        slot.turn += 1
        slot.decision = None
        slot.observation, slot.info = observation, answer.info
        slot.state = answer.info.get("state", observation)
        if ending != "none":
            self._close_episode(slot, observation, ending, {})

    def _fail(self, slot: Slot, ending: Ending, error: BaseException) -> None:
        """The world broke: the turn is kept without a reward, and the environment is made anew."""
        assert slot.work is not None
        name = f"{slot.work.env_id}: {type(error).__name__}"
        why = {"error": f"{type(error).__name__}: {error}"[:500]}
        first = (
            why
            if name in self._failed
            else why | {"traceback": "".join(traceback.format_exception(error))}
        )
        self._failed.add(name)
        if slot.decision is not None:
            self._append(slot, slot.decision, ending=ending, info=why)
            slot.turn += 1
        work = slot.work
        self._close_episode(slot, slot.observation, ending, first)
        slot.cards.pop(work.env_id, None)
        env = slot.envs.pop(work.env_id, None)
        if env is not None:
            self._threads.submit(env.close)

    def _close_episode(
        self, slot: Slot, observation: str, ending: Ending, info: Mapping[str, Any]
    ) -> None:
        assert slot.work is not None
        slot.decision, slot.option_stack = None, OptionStack()
        mark = {"terminated": Boundary.TERMINATED, "truncated": Boundary.TRUNCATED}.get(
            ending, Boundary.NONE
        )
        slot.boundary |= mark
        slot.observation = observation
        self._append(slot, None, ending=ending, info=info)
        self._done.add(slot.work.work_id)
        self.closed += 1
        self._free(slot)

    def _free(self, slot: Slot) -> None:
        slot.work, slot.observation, slot.info, slot.subject, slot.unwanted = (
            None,
            "",
            {},
            "",
            False,
        )

    def _append(
        self,
        slot: Slot,
        decision: Decision | None,
        *,
        marks: tuple[int | None, int | None] | None = None,
        **answer: Any,
    ) -> None:
        work = slot.work
        assert work is not None
        option_id, option_step = marks or slot.option_stack.mark
        source: Source = "demonstration" if work.lane == "demonstration" else "real"
        boundary = slot.boundary | (Boundary.RESET if slot.turn == 0 else Boundary.NONE)
        slot.boundary = Boundary.NONE
        card = slot.cards.get(work.env_id)
        seen = tuple(
            self.journal.blobs.put(data, *media_and_size(data), role=role)
            for role, data in slot.info.get("images", {}).items()
        )
        row = Step(
            stream_id=slot.stream_id,
            t=self.journal.next_t(slot.stream_id),
            env_id=work.env_id,
            obs_text=slot.observation,
            obs_blobs=seen,
            source=source,
            episode=slot.episode,
            step_in_episode=slot.turn,
            work_id=work.work_id,
            group_id=work.group_id,
            env_version="" if card is None else card.env_version,
            task_id=str(slot.info.get("task_id", work.seed)),
            split=slot.info.get("split", work.split),
            seed=work.seed,
            sandbox_tier="" if card is None else card.sandbox_tier,
            t_start_ns=slot.t_start_ns,
            t_end_ns=time.time_ns(),
            state_key=state_key(slot.state),
            decision=decision,
            option_id=option_id,
            option_step=option_step,
            value_estimate=slot.option_stack.value_estimate,
            subject=slot.subject,
            reward_version=self._rewards.version,
            boundary=boundary,
            **answer,
        )
        self._steps_left -= row.is_training
        self.journal.append(row)
