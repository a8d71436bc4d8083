"""Hosting: gives each slot the world that its work is lived in, and every call a deadline."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from actors.collecting.hosts.described import Described
from actors.collecting.hosts.housing import Host, close_hosts, make_host
from actors.collecting.hosts.look import LEAST_SECONDS
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.hosts.messages import (
    Act,
    Failed,
    Look,
    Move,
    Reply,
    Request,
    Reset,
    RunProgram,
    Wants,
)
from actors.collecting.hosts.process import HostProcesses
from actors.collecting.slot import Slot
from actors.collecting.work import Lane, Work
from actors.config.schema import Config
from actors.config.sense import names_of_secrets
from experience.answers import StepAnswer
from experience.errors import EnvironmentFailure, RecordError
from experience.reward import context_of

_FEW_DEADLINES = 64
"""So many deadlines of calls that are over may be kept, beside one for each slot."""
_SCRIPTS: dict[Lane, Any] = {"demonstration": "expert", "random": "random"}


class Hosting:
    """The hosts of a collector's slots. What they answer is put into the mailbox as
    (slot, ticket, reply)."""

    def __init__(
        self,
        config: Config,
        mailbox: Mailbox,
        described: Described,
        log: Path,
    ) -> None:
        self._worlds = {world.id: world for world in config.worlds}
        self._mailbox = mailbox
        self._catalogue = described.catalogue
        self._rewards = described.rewards
        self._segment_turns = described.segment_turns
        self._own_seconds = described.deadlines
        self._timeout_seconds = config.collecting.step_timeout_seconds
        lookahead = config.planning.lookahead
        self._forks = lookahead.candidates > 0 and lookahead.simulator == "fork"
        self._campaigns = lookahead.candidates > 0 and lookahead.search == "campaign"
        secrets = frozenset(names_of_secrets(config.model_dump()))
        self._processes = HostProcesses(mailbox, log, secrets)
        self._deadlines: list[tuple[float, int, int]] = []
        """Heap of (deadline, slot's number, ticket) of calls. Some are over: they are taken out
        when they are most of it."""
        self._calling: dict[int, Slot] = {}
        """The slots that have called a world, by number."""

    def reset(self, slot: Slot, work: Work) -> None:
        """Begins a reset to the task of `work`; makes the world if the slot has none."""
        host = slot.hosts.get(slot.host_name)
        is_new = host is None or host.is_dead
        if host is None or host.is_dead:
            host = self._make(slot, work)
        wants = self._wants(slot, slot.turn)
        seconds = LEAST_SECONDS if is_new else 0.0  # for making it, which is no step
        request = Reset(work.seed, work.split, wants, self._wants_of_seats(slot))
        self._send(slot, host, request, seconds)

    def resume(self, slot: Slot) -> bool:
        """Whether the slot's work goes on in an endless world as it stands; else it needs a
        reset."""
        assert slot.work is not None
        slot.segment_turns = self._segment_turns.get(slot.env_id, 0)
        slot.host_name = self._name(slot.work)
        host = slot.hosts.get(slot.host_name)
        return host is not None and not host.is_dead and slot.resume()

    def step(self, slot: Slot, action: str) -> None:
        """Begins a step, or the whole life of the slot's program."""
        wants = self._wants(slot, slot.turn + 1)
        if slot.program is not None:
            run = RunProgram(slot.program, wants)
            self._send(slot, self._host(slot), run, slot.program.seconds)
            return
        self._send(slot, self._host(slot), Act(action, wants), 0.0)

    def move(self, slot: Slot, actions: Mapping[str, str]) -> None:
        """Begins a step of a world with several agents."""
        self._send(slot, self._host(slot), Move(actions, self._wants_of_seats(slot)), 0.0)

    def overdue(self) -> Iterator[tuple[Slot, Failed]]:
        """The slots whose world has not answered by its deadline."""
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            call = heapq.heappop(self._deadlines)
            slot = self._calling[call[1]]
            if self._is_under_way(call):
                why = f"no answer in {self._seconds(slot):g} s"
                yield slot, Failed("timeout", "TimeoutError", why)

    @property
    def seconds_left(self) -> float:
        """Until the next deadline; infinite if no world is busy."""
        return self._deadlines[0][0] - time.monotonic() if self._deadlines else math.inf

    def discard(self, slot: Slot, work: Work) -> None:
        """Ends a world that failed: the slot makes another when it needs one."""
        slot.cards.pop(work.env_id, None)
        host = slot.hosts.pop(slot.host_name, None)
        if host is not None:
            host.kill()

    def reward(self, slot: Slot, step: StepAnswer) -> float | None:
        """The reward of a step; None if it is unknown. Raises EnvironmentFailure if the weighted
        sum of the signals, or what the world's own function gives, is no number."""
        context = context_of(slot.turn, slot.ending_of(step), slot.task_id)
        try:
            reward = self._rewards.reward(slot.env_id, step.signals, context)
        except RecordError as error:
            what = str(error).removesuffix(error.hint).rstrip()
            raise EnvironmentFailure(what, error.hint) from error
        if reward is None or math.isfinite(reward):
            return reward
        raise EnvironmentFailure(
            f"{slot.env_id}: the weighted sum of its signals is {reward}; a reward is a finite "
            "number",
            "measure in a larger unit",
        )

    def look(self, slot: Slot) -> None:
        """Begins to read what is wanted for the decision of the present turn."""
        self._send(slot, self._host(slot), Look(self._wants(slot, slot.turn)), 0.0)

    def close(self, slots: Sequence[Slot]) -> list[str]:
        """Closes all worlds, and kills what does not close in time; what went wrong, by type."""
        hosts = [host for slot in slots for host in slot.hosts.values()]
        late = close_hosts(hosts, self._mailbox)
        self._processes.close()
        return ["TimeoutError"] * late

    def _make(self, slot: Slot, work: Work) -> Host:
        deliver = partial(self._deliver, slot)
        host = make_host(self._worlds[work.env_id], self._catalogue, self._processes, deliver)
        slot.hosts[slot.host_name] = host
        return host

    def _host(self, slot: Slot) -> Host:
        return slot.hosts[slot.host_name]

    def _name(self, work: Work) -> str:
        """The key of the work's host. An endless world has one for training and one for all else:
        an evaluation, which begins with a reset, must not end what training goes on with."""
        is_apart = self._segment_turns.get(work.env_id) and work.lane == "train"
        return f"{work.env_id} in training" if is_apart else work.env_id

    def _deliver(self, slot: Slot, ticket: int, reply: Reply) -> None:
        self._mailbox.put((slot, ticket, reply))

    def _send(self, slot: Slot, host: Host, request: Request, more_seconds: float) -> None:
        ticket = slot.wait_for("world")
        deadline = time.monotonic() + self._seconds(slot) + more_seconds
        heapq.heappush(self._deadlines, (deadline, slot.number, ticket))
        self._calling[slot.number] = slot
        if len(self._deadlines) > 2 * len(self._calling) + _FEW_DEADLINES:
            self._deadlines = [call for call in self._deadlines if self._is_under_way(call)]
            heapq.heapify(self._deadlines)
        host.send(ticket, request)

    def _is_under_way(self, call: tuple[float, int, int]) -> bool:
        """Whether the call of a deadline has not been answered yet."""
        _, number, ticket = call
        slot = self._calling[number]
        return slot.waits_for == "world" and slot.ticket == ticket

    def _seconds(self, slot: Slot) -> float:
        """How long a call of the slot's world may take: the world says it, or else the run."""
        return self._own_seconds.get(slot.env_id, self._timeout_seconds)

    def _wants_of_seats(self, slot: Slot) -> dict[str, Wants]:
        """What is read for the next decision of each agent of several."""
        if slot.table is None:
            return {}
        # an agent that has decided is asked for its next turn when its decision is answered
        seats = slot.table.seats.items()
        return {a: self._wants(s, s.turn + (s.decision is not None)) for a, s in seats}

    def _wants(self, slot: Slot, turn: int) -> Wants:
        """What is read beside the answer, for the decision of `turn`."""
        assert slot.work is not None
        script = _SCRIPTS.get(slot.work.lane, "")
        draw = slot.draw_of(turn) if script == "random" else 0
        plans = not script and (self._campaigns or slot.option_stack.experiments)
        return Wants(script, draw, snapshot=self._forks and not script, experiment=plans)
