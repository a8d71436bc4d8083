"""A world that lives in a host: one thread makes it, asks it, and closes it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from actors.collecting.hosts.messages import (
    Act,
    Answered,
    Arrived,
    Close,
    Closed,
    Failed,
    Look,
    Move,
    Open,
    Opened,
    Reply,
    Request,
    Reset,
    Round,
    RunProgram,
    Seen,
    Told,
    Wants,
)
from actors.collecting.hosts.reserved import ReservedKeys
from actors.making import make_world
from experience.answers import read_late, read_reset, read_step
from experience.several import agents as shared
from experience.signal import SignalKind
from experience.world import WorldCard, WorldView, random_action


class HostedWorld:
    """One world, made at the first request and kept until it is closed.

    What the world raises becomes a reply, so that `reply` itself raises nothing.
    catalogue: the signals of all worlds of the run; None: the world's own.
    """

    def __init__(
        self,
        env_id: str,
        arguments: Mapping[str, Any],
        catalogue: Mapping[str, SignalKind] | None = None,
    ) -> None:
        self._env_id = env_id
        self._arguments = arguments
        self._catalogue = catalogue
        self._env: Any = None
        self._card: WorldCard | None = None
        self._agents: shared.Agents | None = None
        """Of a world with several."""
        self._steps = 0
        """Of such a world, since its reset."""
        self._has_shown = False
        """Whether the card was in an answer: it never changes, and is large where tools are."""

    def reply(self, request: Request) -> Reply:
        """What the world answers."""
        try:
            return self._reply(request)
        except BaseException as error:  # noqa: BLE001  also SystemExit, from a world's code
            return Failed.of(error)

    def _reply(self, request: Request) -> Reply:
        if isinstance(request, Close):
            env, self._env = self._env, None
            if env is not None:
                env.close()
            return Closed()
        card = self._made()
        if isinstance(request, Open):
            return Opened(card, WorldView.of(self._env.unwrapped, *card.agents[:1]))
        catalogue = card.signals if self._catalogue is None else self._catalogue
        if self._agents is not None and isinstance(request, Reset | Move):
            return self._round(self._agents, request, catalogue)
        if isinstance(request, Reset):
            answer = self._env.reset(seed=request.seed, options={"split": request.split})
            observation, info = read_reset(self._env_id, self._reserved.without_own(answer))
            late = read_late(self._env_id, info, catalogue)
            view, failed = self._view(card, request.wants)
            return Arrived(observation, info, view, self._new_card(), failed, late)
        if isinstance(request, Act | RunProgram):
            try:
                answer = self._reserved.without_own(self._done(request))
            except TimeoutError as late:
                return Failed.of(late, "env_error" if isinstance(request, Act) else "timeout")
            step = read_step(self._env_id, answer, catalogue)
            if step.terminated or step.truncated:
                return Answered(step)
            return Answered(step, *self._view(card, request.wants))
        assert isinstance(request, Look)
        return Seen(*self._view(card, request.wants))

    def _done(self, request: Act | RunProgram) -> Any:
        """What the world answers to an action, or to the life of a program."""
        if isinstance(request, Act):
            return self._env.step(request.action)
        return self._env.unwrapped.run_program(asdict(request.program))

    def _made(self) -> WorldCard:
        if self._card is None or self._env is None:
            self._env = make_world(self._env_id, self._arguments)
            self._card = WorldCard.of(self._env.unwrapped)
            self._reserved = ReservedKeys(self._env_id, self._env.unwrapped, self._card, _say)
            if self._card.agents:
                self._agents = shared.Agents(self._env_id, self._card.agents)
        return self._card

    def _new_card(self) -> WorldCard | None:
        """The card, in the first answer that holds it."""
        has_shown, self._has_shown = self._has_shown, True
        return None if has_shown else self._card

    def _round(
        self, agents: shared.Agents, request: Reset | Move, catalogue: Mapping[str, SignalKind]
    ) -> Round:
        """A reset or a step of a world with several agents."""
        env = self._env.unwrapped  # Gymnasium's wrappers know of no observations by agent
        if isinstance(request, Reset):
            self._steps = 0
            told = agents.reset(env.reset(seed=request.seed, options={"split": request.split}))
        else:
            self._steps += 1
            told = agents.step(env.step(request.actions))
        answers = tuple(self._told(one, request.by_agent, catalogue) for one in told)
        return Round(self._steps, answers, self._new_card())

    def _told(
        self,
        one: shared.Told,
        by_agent: Mapping[str, Wants],
        catalogue: Mapping[str, SignalKind],
    ) -> Told:
        answer = self._reserved.without_own(one.answer)
        step = read_step(f"{self._env_id}, {one.agent}", answer, catalogue)
        if not one.is_asked:
            return Told(one.agent, step, False)
        wants = by_agent.get(one.agent, Wants())
        view, failed = self._script(WorldView.of(self._env.unwrapped, one.agent), wants, one.agent)
        return Told(one.agent, step, True, view, failed)

    def _view(self, card: WorldCard, wants: Wants) -> tuple[WorldView, Failed | None]:
        env = self._env.unwrapped
        view = WorldView.of(env)
        if wants.snapshot and card.goes_back:
            view = replace(view, snapshot=env.snapshot())
        if wants.experiment and card.has_laboratory:
            view = replace(view, experiment=_next_experiment(env))
        return self._script(view, wants)

    def _script(
        self, view: WorldView, wants: Wants, agent: str = ""
    ) -> tuple[WorldView, Failed | None]:
        """The view with the action of the script that acts here, if one does."""
        if not wants.script:
            return view, None
        try:
            seat = shared.seat_of(self._env.unwrapped, agent)
            is_expert = wants.script == "expert"
            action = (
                seat.expert_action()
                if is_expert
                else random_action(seat, np.random.default_rng(wants.draw))
            )
        except Exception as error:  # noqa: BLE001  a stranger's code may raise anything
            return view, Failed.of(error)
        return replace(view, scripted=str(action)), None


def _say(line: str) -> None:
    """Says something on the world's own output, which its host's template keeps in a file."""
    print(line, file=sys.stderr, flush=True)


def _next_experiment(env: Any) -> tuple[str, float, float]:
    from experience.planning.campaign import experiment  # here: few worlds have a laboratory

    action, value, share = experiment(env.laboratory())
    return action, float(value), float(share)
