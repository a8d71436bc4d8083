"""A world that lives in a host: one thread makes it, asks it, and closes it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
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
    Open,
    Opened,
    Reply,
    Request,
    Reset,
    Seen,
    Wants,
)
from actors.collecting.hosts.reserved import ReservedKeys
from actors.making import make_world
from experience.answers import read_late, read_reset, read_step
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
            return Opened(card, WorldView.of(self._env.unwrapped))
        catalogue = card.signals if self._catalogue is None else self._catalogue
        if isinstance(request, Reset):
            answer = self._env.reset(seed=request.seed, options={"split": request.split})
            observation, info = read_reset(self._env_id, self._reserved.without_own(answer))
            late = read_late(self._env_id, info, catalogue)
            view, failed = self._view(card, request.wants)
            return Arrived(observation, info, view, card, failed, late)
        if isinstance(request, Act):
            answer = self._reserved.without_own(self._env.step(request.action))
            step = read_step(self._env_id, answer, catalogue)
            if step.terminated or step.truncated:
                return Answered(step)
            return Answered(step, *self._view(card, request.wants))
        assert isinstance(request, Look)
        return Seen(*self._view(card, request.wants))

    def _made(self) -> WorldCard:
        if self._card is None or self._env is None:
            self._env = make_world(self._env_id, self._arguments)
            self._card = WorldCard.of(self._env.unwrapped)
            self._reserved = ReservedKeys(self._env_id, self._env.unwrapped, self._card, _say)
        return self._card

    def _view(self, card: WorldCard, wants: Wants) -> tuple[WorldView, Failed | None]:
        env = self._env.unwrapped
        view = WorldView.of(env)
        if wants.snapshot and card.goes_back:
            view = replace(view, snapshot=env.snapshot())
        if wants.experiment and card.has_laboratory:
            view = replace(view, experiment=_next_experiment(env))
        if not wants.script:
            return view, None
        try:
            is_expert = wants.script == "expert"
            action = (
                env.expert_action()
                if is_expert
                else random_action(env, np.random.default_rng(wants.draw))
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
