"""Answering calls: each is put to the agents' engine, kept as a row, and answered when it is kept.

Three threads take part. A server's thread hands a call in. The engine's thread answers all calls
that wait together, beside the turns of other agents. The thread that owns the journal appends a row
for each answer, commits, and only then lets the program have it. Covers: an answer that a program
has is on disk. Does not cover: an answer that was kept and never arrived, because the program or
the gateway died in between; its row stays, and no later row goes on from it.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from actors.agents.context import Context, length
from actors.agents.options import OptionStack
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.loop.desk import Desk
from actors.collecting.loop.lanes import Lanes
from actors.collecting.recorder import Recorder
from actors.collecting.slot import Slot
from actors.collecting.work import Work
from actors.engines.engine import Situation
from actors.gateway.conversation import Conversations, Place
from actors.gateway.messages import Asked, BadRequest, Said, cut_at, readable
from experience.errors import ConfigError, EngineError
from experience.policy import Decision
from experience.shards.journal import Journal
from experience.step import Boundary
from experience.text.characters import without_lone_surrogates
from experience.text.strict_json import dumps

_TRIES = 3
"""How often an engine is asked for an answer that fails."""
_PAUSE_SECONDS = 0.1
_MOST_UNDER_WAY = 256
"""Calls that one rollout may have under way."""
_MOST_SETTINGS = 2000
"""Characters of a request's settings that a row keeps."""
CONVERSATION = "conversation"
"""The key of a row's `info` that holds what its conversation is found again by."""


@dataclass
class Rollout:
    """One life of a program: an episode of the stream of `slot`, which only the journal's thread
    changes.

    obeys: whether the temperature that the program asks for is used, and not the policy's.
    begun: calls that were handed in, those that failed included; it numbers their random draws.
    """

    slot: Slot
    work: Work
    obeys: bool = False
    conversations: Conversations = field(default_factory=Conversations)
    under_way: set[Pending] = field(default_factory=set)
    begun: int = 0
    is_open: bool = True

    @property
    def draw(self) -> int:
        """The seed of the newest call's random numbers."""
        return replace(self.slot, work=self.work).draw_of(self.begun)

    @property
    def is_live(self) -> bool:
        """Whether its program may still act: nobody ended it, and its world still waits for it."""
        slot = self.slot
        return self.is_open and slot.work is self.work and slot.waits_for == "world"


@dataclass(eq=False)
class Pending:
    """A call under way. said, t: the answer and its row, once it is appended."""

    rollout: Rollout
    asked: Asked
    situation: Situation
    answer: Future[Said] = field(default_factory=Future)
    began: float = field(default_factory=time.perf_counter)
    began_ns: int = field(default_factory=time.time_ns)
    said: Said | None = None
    t: int = -1

    def end(self, with_what: Said | BadRequest) -> None:
        """The program gets its answer, if it still waits."""
        self.rollout.under_way.discard(self)
        with suppress(InvalidStateError):
            if isinstance(with_what, Said):
                self.answer.set_result(with_what)
            else:
                self.answer.set_exception(with_what)


class CallDesk(Desk):
    """A desk that also answers the calls of programs.

    `call` may be called by any thread, everything else by the journal's. room: tokens that a prompt
    may have.
    """

    def __init__(
        self,
        lanes: Lanes,
        mailbox: Mailbox,
        in_step: bool,
        slots: int,
        recorder: Recorder,
        journal: Journal,
        room: int,
    ) -> None:
        super().__init__(lanes, mailbox, in_step, slots)
        self._recorder = recorder
        self._journal = journal
        self._room = room
        self._calls: deque[Pending] = deque()
        self._unkept: deque[Pending] = deque()
        """Calls whose rows are appended and not acknowledged yet."""

    def call(self, rollout: Rollout, asked: Asked) -> Future[Said]:
        """Hands a call in. Raises BadRequest where it cannot be answered."""
        if not rollout.is_live:
            raise _ended()
        if len(rollout.under_way) >= _MOST_UNDER_WAY:
            raise BadRequest(f"{_MOST_UNDER_WAY} calls of this rollout are under way", 429, "busy")
        rollout.begun += 1
        situation = rollout.conversations.situation(asked, rollout.draw)
        self._check_length(situation)
        pending = Pending(rollout, asked, situation)
        rollout.under_way.add(pending)
        if self._servers is not None:
            self._servers.submit(self._ask_engine, [pending])
        else:
            self._calls.append(pending)
            self._waiting.put(self._ask_all)
        return pending.answer

    def end_rollout(self, rollout: Rollout) -> None:
        """Further calls are refused, and those under way are not kept."""
        rollout.is_open = False
        for pending in list(rollout.under_way):
            pending.end(_ended())

    def acknowledge(self) -> None:
        """Lets programs have the answers whose rows are on disk."""
        if not self._unkept:
            return
        self._journal.commit()
        left: deque[Pending] = deque()
        for pending in self._unkept:
            stream = pending.rollout.slot.stream_id
            if self._journal.acknowledged.get(stream, -1) >= pending.t and pending.said:
                pending.end(pending.said)
            else:  # a full disk: the next commit tries again
                left.append(pending)
        self._unkept = left

    def _check_length(self, situation: Situation) -> None:
        try:
            tokens = length(self._lanes.engine, situation)
        except ConfigError as error:
            raise BadRequest(f"the prompt does not fit: {error}"[:300]) from None
        if tokens > self._room:
            raise BadRequest(
                f"maximum context length exceeded: the prompt has {tokens} tokens, and "
                f"{self._room} are taken (policy.context less policy.max_tokens)",
                code="context_length_exceeded",
            )

    def _ask_all(self) -> None:
        """Answers all calls that wait, those that are asked alike together. The engine's thread."""
        groups: dict[tuple[Any, ...], list[Pending]] = {}
        while self._calls:
            pending = self._calls.popleft()
            groups.setdefault(_alike(pending), []).append(pending)
        for those in groups.values():
            self._ask_engine(those)

    def _ask_engine(self, those: Sequence[Pending]) -> None:
        try:
            decisions = self._decide(those)
        except Exception as error:  # noqa: BLE001  one request's error ends no other's
            wrong = BadRequest(f"the model did not answer: {error}"[:400], 502, "engine_error")
            for pending in those:
                pending.end(wrong)
            return
        for pending, decision in zip(those, decisions, strict=True):
            self._mailbox.put(partial(self._keep, pending, decision))

    def _decide(self, those: Sequence[Pending]) -> list[Decision]:
        lane, version, temperature = _alike(those[0])
        situations = [pending.situation for pending in those]
        for tried in range(_TRIES):
            agent = self._lanes.agent(lane, version)
            warmth = agent.temperature if temperature is None else temperature
            try:
                return agent.engine.act(situations, warmth)
            except EngineError as error:
                failed = error
                time.sleep(_PAUSE_SECONDS * 2**tried)
        raise failed

    def _keep(self, pending: Pending, decision: Decision) -> None:
        """Appends the row of an answered call. The journal's thread, from its mailbox."""
        rollout, asked = pending.rollout, pending.asked
        if not rollout.is_live:
            pending.end(_ended())
            return
        pending.said = _said(decision, asked)
        seconds = decision.seconds
        decision = replace(
            decision,
            text=without_lone_surrogates(decision.text),
            refusal="",  # it went to the program as it is
            seconds=time.perf_counter() - pending.began if seconds is None else seconds,
        )
        place = rollout.conversations.place(asked, decision)
        pending.t = self._append(pending, decision, place)
        rollout.conversations.add(asked, pending.said, decision, place, pending.t)
        if not self._unkept:
            # after all that is in the mailbox now: what comes together is committed together
            self._mailbox.put(self.acknowledge)
        self._unkept.append(pending)

    def _append(self, pending: Pending, decision: Decision, place: Place) -> int:
        """The row's t. The slot moves on by a turn; what its world shows it is left as it is."""
        rollout, asked = pending.rollout, pending.asked
        slot = rollout.slot
        t = self._journal.next_t(slot.stream_id)
        names_parent = place.parent_t is not None and not (
            place.goes_on and place.parent_t == slot.last_t
        )
        before, new = rollout.conversations.new_messages(asked)
        seen = readable(new)
        given = {"task_id": slot.task_id, "split": slot.info.get("split", "train")}
        as_seen = replace(
            slot,
            observation=seen,
            state=seen,
            info=given | {"agent_id": str(place.lineage)},
            decision=decision,
            t_start_ns=pending.began_ns,
            option_stack=OptionStack(),
            context=Context(forks=names_parent),
            last_t=-1 if place.parent_t is None else place.parent_t,
        )
        assert pending.said is not None
        names = asked.names()[len(asked.messages) - len(new) :]
        told = {"after": before, "names": names, "key": asked.name_with(pending.said)}
        settings = dumps(dict(asked.settings))
        if 2 < len(settings) <= _MOST_SETTINGS:
            told["asked"] = settings
        self._recorder.aside(as_seen, {CONVERSATION: told})
        slot.turn, slot.last_t = slot.turn + 1, t
        slot.boundary, slot.late = Boundary.NONE, []
        return t


def _alike(pending: Pending) -> tuple[Any, ...]:
    """(lane, version, temperature or None): calls that are equal in this are asked together."""
    rollout = pending.rollout
    temperature = pending.asked.temperature if rollout.obeys else None
    return rollout.work.lane, rollout.work.version, temperature


def _ended() -> BadRequest:
    return BadRequest("this rollout has ended: begin another", 410, "rollout_ended")


def _said(decision: Decision, asked: Asked) -> Said:
    """A decision as the answer to a program."""
    calls = decision.tool_calls
    text = decision.content if calls or decision.refusal else decision.text
    if asked.tools and not calls and not decision.refusal and decision.content:
        text = f"{decision.content}\n{decision.text}"
    whole = cut_at(text, asked.stops)
    finish: Any = "tool_calls" if calls else "stop"
    if (decision.action_cut or decision.finish_reason == "length") and whole == text and not calls:
        finish = "length"
    return Said(
        secrets.token_hex(12),
        without_lone_surrogates(whole),
        calls,
        finish,
        decision.model or decision.behaviour_id,
        len(decision.prompt_ids) or decision.prompt_tokens or 0,
        len(decision.action_ids) or decision.answer_tokens or 0,
        decision.prompt_ids,
        decision.action_ids,
        decision.logprobs,
    )
