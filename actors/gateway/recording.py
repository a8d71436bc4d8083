"""The gateway by itself: programs anywhere on this machine are answered, and kept in a store.

A rollout is one episode of a stream of its own, whose id is in its token. It is begun by its first
call, and ends when somebody says how it ended and what was measured; what is measured later still
becomes an amendment. Covers: a gateway that is killed and started again goes on with every rollout
that had not ended, from the rows of the store.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, get_args

from actors.agents.context import Context
from actors.collecting.endings import Endings
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.hosts.messages import Failed
from actors.collecting.loop.desk import Broken
from actors.collecting.loop.lanes import Lanes
from actors.collecting.recorder import Recorder
from actors.collecting.slot import Slot
from actors.collecting.work import Work
from actors.config.schema import Config
from actors.gateway.calls import CONVERSATION, CallDesk, Rollout
from actors.gateway.messages import Asked, BadRequest, Said, a_mapping, a_number, a_text
from actors.gateway.tokens import Signer, Ticket
from actors.runs.directory import RunDirectory
from experience.answers import StepAnswer
from experience.episode import EpisodeReader
from experience.models.weights import PolicyBundle
from experience.policy import Decision
from experience.reward import RewardModel
from experience.shards.amend import Amendment, amend_held
from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.signal import Signal, SignalKind
from experience.step import FAILED, Ending, Step

ENV_ID = "gateway:Program-v0"
"""The environment that rows name: a program that nobody here has started."""
WRITER = "gateway-0000"
_ROUND_SECONDS = 0.2
_MOST_THREADS = 64
_ENDED_BY = "its program"


class Recording:
    """Answers and keeps rollouts until `close`. Its own thread owns the journal.

    policy: what the engine samples from; None: what it has. label: what programs call the model.
    signals: what may be measured of a rollout, by name, with its weight in the reward.
    """

    def __init__(
        self,
        config: Config,
        policy: PolicyBundle | None,
        label: str,
        directory: RunDirectory,
        signals: Mapping[str, float],
    ) -> None:
        self.seconds = config.policy.timeout_seconds
        self.url = ""
        self.signer = Signer.kept_in(directory.path / "gateway.key")
        self.failed: BaseException | None = None
        self._store = directory.shards
        self._label = label
        self._rewards = RewardModel({ENV_ID: dict(signals)})
        self._kinds = {name: SignalKind("1", "verifier") for name in signals}
        self._mailbox = Mailbox()
        self._journal = Journal(
            directory.shards / WRITER,
            self._kinds,
            durability=config.collecting.durability,
            commit_seconds=config.collecting.commit_seconds,
            seal_bytes=config.collecting.seal_bytes,
            seal_seconds=config.collecting.seal_seconds,
            metadata={"run": directory.name, "rewards": self._rewards.version},
        )
        self._recorder = Recorder(
            self._journal, self._rewards.version, config.collecting.discount, remembers=False
        )
        self._lanes = Lanes(config, self._rewards, config.seed + self._journal.epoch)
        if policy is not None:
            self._lanes.load(policy)
        room = config.policy.context - config.policy.max_tokens
        self._endings = Endings(self._recorder)
        at = self._lanes, self._mailbox, False, _MOST_THREADS, self._recorder, self._journal
        self._desk = CallDesk(*at, room)
        self._rollouts: dict[str, Rollout] = {}
        self._ended: dict[str, tuple[int, Ending]] = {}
        """By rollout: the row that its signals belong to, and how it ended."""
        self._restore()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="recording")
        self._thread.start()

    def models(self, token: str) -> list[str]:
        self._ticket(token)
        return [self._label]

    def begin(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A new rollout's URLs. Raises BadRequest without the token that allows it."""
        if not self.signer.is_master(token):
            raise BadRequest(
                "rollouts are begun with the gateway's token: Authorization: Bearer TOKEN",
                401,
                "unauthorized",
            )
        task, group = (a_text(body.get(name, ""), name) for name in ("task", "group"))
        if len(task) + len(group) > 400:
            raise BadRequest("task and group: at most 400 characters together")
        return self.urls(Ticket.new(task, group))

    def urls(self, ticket: Ticket) -> dict[str, Any]:
        """Where the program of a ticket finds its model, and where its end is told."""
        address = f"{self.url}/r/{self.signer.sign(ticket)}"
        return {
            "rollout": ticket.rollout,
            "OPENAI_BASE_URL": f"{address}/v1",
            "ANTHROPIC_BASE_URL": address,
            "end": f"{address}/end",
        }

    def call(self, token: str, asked: Asked) -> Future[Said]:
        ticket = self._ticket(token)
        self._check_alive()
        if ticket.rollout in self._ended:
            raise BadRequest("this rollout has ended: begin another", 410, "rollout_ended")
        if ticket.rollout not in self._rollouts:
            self._rollouts[ticket.rollout] = _rollout(ticket, len(self._rollouts))
        return self._desk.call(self._rollouts[ticket.rollout], asked)

    def finish(self, token: str, body: Mapping[str, Any]) -> Future[dict[str, Any]]:
        """Ends a rollout as told: {"signals": {name: number}, "ending": …, "evidence": text}.
        Signals of a rollout that has ended before are amendments."""
        ticket = self._ticket(token)
        self._check_alive()
        ending = body.get("ending") or "terminated"
        if ending == "none" or ending not in get_args(Ending):
            known = ", ".join(e for e in get_args(Ending) if e != "none")
            raise BadRequest(f"ending: {str(ending)[:40]!r}; there are {known}")
        evidence = a_text(body.get("evidence", ""), "evidence")[:500]
        signals = self._signals(a_mapping(body.get("signals") or {}, "signals"), evidence)
        if signals and ending in FAILED:
            raise BadRequest(
                f"signals: an ending {ending} says nothing of the agent; leave one out"
            )
        done: Future[dict[str, Any]] = Future()
        self._mailbox.put(lambda: self._answer(done, self._finish, ticket, ending, signals))
        return done

    def load(self, policy: PolicyBundle) -> None:
        """A newer policy answers from now on."""
        self._desk.load(policy)

    def close(self) -> None:
        """Acknowledges and seals; rollouts that have not ended go on when the gateway does."""
        self._is_closing.set()
        self._thread.join()
        self._desk.close()
        self._mailbox.close()

    @property
    def rows(self) -> int:
        """Acknowledged rows of all attempts."""
        return sum(t + 1 for t in self._journal.acknowledged.values())

    @property
    def open_rollouts(self) -> int:
        return len(self._rollouts)

    def _ticket(self, token: str) -> Ticket:
        ticket = self.signer.read(token)
        if ticket is None:
            raise BadRequest("no such rollout: the token was not given out here", 404, "not_found")
        return ticket

    def _check_alive(self) -> None:
        if self.failed is not None or self._is_closing.is_set():
            raise BadRequest("the gateway is ending", 503, "ending")

    def _signals(self, given: Mapping[str, Any], evidence: str) -> tuple[Signal, ...]:
        found = []
        for name, value in given.items():
            kind = self._kinds.get(name)
            if kind is None:
                raise BadRequest(
                    f"signals.{name[:40]}: not declared; there are {', '.join(self._kinds)} "
                    "(xp gateway --signal NAME)"
                )
            number = a_number(value, f"signals.{name}", -1e9, 1e9)
            found.append(Signal(name, number, kind.unit, kind.source, evidence))
        return tuple(found)

    def _serve(self) -> None:
        """The journal's thread: does what is in the mailbox, and commits."""
        try:
            while not self._is_closing.is_set():
                for item in self._mailbox.take(_ROUND_SECONDS):
                    if isinstance(item, Broken):
                        raise item.error
                    item()
                self._desk.acknowledge()
                self._journal.commit_if_due()
        except BaseException as error:  # noqa: BLE001  the command's own thread raises it again
            self.failed = error
        finally:
            for rollout in self._rollouts.values():
                self._desk.end_rollout(rollout)
            with suppress(Exception):  # the error above is the one to be told
                self._journal.close()

    def _answer(
        self, done: Future[dict[str, Any]], does: Callable[..., dict[str, Any]], *given: Any
    ) -> None:
        """Does what an HTTP thread asked for. A bad request ends nothing but itself."""
        with suppress(InvalidStateError):
            try:
                done.set_result(does(*given))
            except BadRequest as wrong:
                done.set_exception(wrong)

    def _finish(
        self, ticket: Ticket, ending: Ending, signals: tuple[Signal, ...]
    ) -> dict[str, Any]:
        if ticket.rollout in self._ended:
            return self._amend(ticket, signals)
        rollout = self._rollouts.pop(ticket.rollout, None) or _rollout(ticket, 0)
        self._desk.end_rollout(rollout)
        slot = rollout.slot
        last = self._journal.next_t(slot.stream_id)
        slot.waits_for = ""
        if ending in FAILED:
            last -= 1
            self._endings.failure(slot, Failed(ending, "Told", f"by {_ENDED_BY}"))
        else:
            version = self._lanes.engine.version
            slot.decision = Decision("end", version, behaviour_id=f"harness:{_ENDED_BY}")
            told = ending == "terminated", ending == "truncated"
            answer = StepAnswer(slot.observation, signals, *told, slot.info)
            reward = self._rewards.reward(ENV_ID, signals) if signals else None
            self._recorder.turn(slot, answer, reward)
            self._endings.close(slot, ending)
        self._journal.commit()
        self._ended[ticket.rollout] = last, ending
        return {"rollout": ticket.rollout, "ending": ending, "kept": True}

    def _amend(self, ticket: Ticket, signals: tuple[Signal, ...]) -> dict[str, Any]:
        """Keeps signals that came after the end, and the reward that follows from them."""
        t, ending = self._ended[ticket.rollout]
        if not signals:
            raise BadRequest("this rollout has ended: only signals can be added", 409, "ended")
        if ending in FAILED:
            raise BadRequest(f"this rollout ended as {ending}: nothing can be measured of it", 409)
        key = ticket.stream_id, t
        given = [Amendment(*key, s.name, s.value, s.unit, s.source, s.evidence) for s in signals]
        version = self._rewards.version
        reward = self._rewards.reward(ENV_ID, signals)
        reward = None if reward is None or not math.isfinite(reward) else reward
        given.append(Amendment(*key, "reward", reward, source="model", reward_version=version))
        amend_held(self._store, given)
        return {"rollout": ticket.rollout, "amended": sorted(s.name for s in signals)}

    def _restore(self) -> None:
        """Takes up what an earlier gateway left."""
        reader = EpisodeReader()
        for steps in Catalog(self._store, writer=WRITER).follow():
            for step in steps:
                for episode in reader.take(step):
                    last = episode.steps[-1].t if episode.steps else -1
                    self._ended[step.stream_id.hex()] = last, episode.ending or "cancelled"
        for episode in reader.rest():
            first = episode.first
            ticket = Ticket(first.stream_id.hex(), first.task_id, first.group_id)
            rollout = _rollout(ticket, len(self._rollouts))
            for step in episode.steps:
                _restore_call(rollout, step)
            self._rollouts[ticket.rollout] = rollout


def _rollout(ticket: Ticket, number: int) -> Rollout:
    work = Work.named(ticket.rollout, env_id=ENV_ID, seed=0, group_id=ticket.group)
    slot = Slot(ticket.stream_id, number, work=work, episode=0, waits_for="world")
    slot.context = Context()
    slot.observe("", {"task_id": ticket.task or ticket.rollout, "split": "train"})
    return Rollout(slot, work, obeys=True)


def _restore_call(rollout: Rollout, step: Step) -> None:
    slot, told = rollout.slot, step.info.get(CONVERSATION)
    slot.turn, slot.last_t = step.step_in_episode + 1, step.t
    rollout.begun = max(rollout.begun, slot.turn)
    if step.decision is not None and told is not None:
        lineage = int(step.agent_id or 0)
        rollout.conversations.restore(
            step.t, step.decision, lineage, told["after"], told["names"], told["key"]
        )
