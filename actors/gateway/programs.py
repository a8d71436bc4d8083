"""Programs as actors of a collector: each episode of the policy is the life of one program.

The collector's slot stays what it is: its world, its stream, its lease. Where another agent would be
asked for its first decision, the program of the slot is started in the world's place, and asks the
policy through the gateway, call by call. What the world measures when the program has ended is the
answer to the last row, whose action is the name of the program.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from actors.agents.harness import PORT, command_of
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.hosts.messages import Program
from actors.collecting.loop.collector import MakeDesk
from actors.collecting.loop.desk import Desk
from actors.collecting.loop.lanes import Lanes
from actors.collecting.recorder import Recorder
from actors.collecting.slot import Slot
from actors.config.schema import Config
from actors.gateway.app import make_app
from actors.gateway.calls import CallDesk, Rollout
from actors.gateway.messages import Asked, BadRequest, Said
from actors.gateway.serving import PathSocket, Serving
from actors.gateway.tokens import Signer, Ticket
from experience.errors import ConfigError
from experience.policy import Decision
from experience.shards.journal import Journal

_PROGRAMS = ("train", "evaluation")
"""Lanes in which programs act. Scripts act as ever."""


def desk_of(config: Config) -> MakeDesk:
    """Makes the desk of a collector whose agents are programs."""

    def make(
        lanes: Lanes,
        mailbox: Mailbox,
        in_step: bool,
        slots: int,
        recorder: Recorder,
        journal: Journal,
    ) -> Desk:
        return ProgramDesk(config, lanes, mailbox, in_step, slots, recorder, journal)

    return make


class ProgramDesk(CallDesk):
    """Starts the programs of slots, and answers their calls at a socket of this collector."""

    def __init__(
        self,
        config: Config,
        lanes: Lanes,
        mailbox: Mailbox,
        in_step: bool,
        slots: int,
        recorder: Recorder,
        journal: Journal,
    ) -> None:
        policy = config.policy
        for number, agent in enumerate(config.agents):
            if agent["folder"] and not Path(agent["folder"]).is_dir():
                raise ConfigError(
                    f"agents[{number}].folder: {agent['folder']} is not there",
                    "python3 -m venv FOLDER, then FOLDER/bin/pip install the program "
                    "(docs/gateway.md)",
                )
        room = policy.context - policy.max_tokens
        super().__init__(lanes, mailbox, in_step, slots, recorder, journal, room)
        self._agents = config.agents
        self.seconds = policy.timeout_seconds
        self._signer = Signer()
        self._rollouts: dict[str, Rollout] = {}
        """By the ids that tokens name. Those of ended programs are gone."""
        self._of_slot: dict[int, str] = {}
        self._path = PathSocket()
        self._serving = Serving(make_app(_Door(self)), self._path.socket)

    def ask(self, slots: Sequence[Slot]) -> None:
        """Starts the program of each slot in the lanes of programs; others are asked as ever."""
        self.acknowledge()
        others = []
        for slot in slots:
            if slot.work is not None and slot.work.lane in _PROGRAMS:
                self._start(slot)
            else:
                slot.program = None
                others.append(slot)
        super().ask(others)

    def close(self) -> None:
        for rollout in list(self._rollouts.values()):
            self.end_rollout(rollout)
        self._serving.close()
        self._path.close()
        super().close()

    def find(self, token: str) -> Rollout:
        """The rollout of a token. Raises BadRequest if the token is not of this gateway, or the
        program has ended."""
        ticket = self._signer.read(token)
        if ticket is None:
            raise BadRequest("no such rollout: the token was not given out here", 404, "not_found")
        rollout = self._rollouts.get(ticket.rollout)
        if rollout is None:
            raise BadRequest("this rollout has ended", 410, "rollout_ended")
        return rollout

    def _start(self, slot: Slot) -> None:
        assert slot.work is not None
        before = self._rollouts.pop(self._of_slot.get(slot.number, ""), None)
        if before is not None:
            self.end_rollout(before)
        ticket = Ticket.new()
        self._of_slot[slot.number] = ticket.rollout
        self._rollouts[ticket.rollout] = Rollout(slot, slot.work)
        # all episodes of a group have the same program, for they are compared
        number = zlib.crc32(slot.work.group_id.encode() or slot.work.work_id)
        settings = self._agents[number % len(self._agents)]
        argv, environment = command_of(settings, self._signer.sign(ticket))
        readable = [path for path in (settings["folder"], *settings["readable"]) if path]
        slot.program = Program(
            argv, environment, self._path.path, PORT, settings["seconds"], readable
        )
        name = settings["harness"]
        started = Decision(
            name, self._lanes.engine.version, behaviour_id=f"harness:{name}", token_exact=False
        )
        self._mailbox.put((slot, slot.wait_for("model"), started))


class _Door:
    """What programs in places may do: call the model, each in its own rollout."""

    def __init__(self, desk: ProgramDesk) -> None:
        self._desk = desk
        self.seconds = desk.seconds

    def models(self, token: str) -> list[str]:
        self._desk.find(token)
        return ["policy"]

    def call(self, token: str, asked: Asked) -> Future[Said]:
        return self._desk.call(self._desk.find(token), asked)

    def begin(self, token: str, body: Mapping[str, Any]) -> dict[str, Any]:
        raise BadRequest("rollouts are begun by the run itself", 403, "not_allowed")

    def finish(self, token: str, body: Mapping[str, Any]) -> Future[dict[str, Any]]:
        raise BadRequest("the world judges this rollout", 403, "not_allowed")
