"""One engine for all collectors of a node: a Ray actor, and what a collector has in its place.

The actor is found by its name, so that the first collector on a node starts it, and the others
share it. One that Ray started again has no weights: it says so, and is given them again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from actors.config.schema import Config, Policy
from actors.config.sense import names_of_secrets
from actors.engines.engine import Engine, Situation
from actors.engines.registry import make_engine
from actors.engines.serving.shared import SharedEngine
from actors.engines.settings import arguments_of
from experience.command.output import guard
from experience.errors import EngineError
from experience.models.weights import Weights
from experience.policy import Decision
from experience.shards.redaction.redact import name_secrets

_LOOK_SECONDS = 10.0
_START_SECONDS = 900.0
_LOAD_SECONDS = 600.0
_MOST_AT_ONCE = 512
"""Requests that are under way in one engine, at most; further ones wait in Ray's queue."""


class RayEngine:
    """The engine's actor. It ends with the run: a run that is gone has no dispatcher any more."""

    def __init__(self, config: Config, logs: Path, dispatcher: Any) -> None:
        name_secrets(names_of_secrets(config.model_dump()))
        guard()
        os.environ["XP_LOGS"] = str(logs)
        self._shared = SharedEngine(lambda: make_engine(config.policy, config.seed))
        threading.Thread(target=self._watch, args=[dispatcher], daemon=True).start()

    def has(self, version: int) -> bool:
        """Whether weights of this version or a newer one are in force."""
        return self._shared.version >= version

    def load(self, weights: Weights) -> int:
        return self._shared.load(weights)

    def pin(self, weights: Weights) -> None:
        self._shared.pin(weights)

    def unpin(self, version: int) -> None:
        self._shared.unpin(version)

    def act(
        self, situation: Situation, temperature: float, at_least: int, pinned: int | None
    ) -> Decision | None:
        """The decision; None if the weights that it needs are not here."""
        if pinned is None and self._shared.version < at_least:
            return None
        if pinned is not None and not self._shared.is_pinned(pinned):
            return None
        return self._shared.ask(situation, temperature, pinned).result()

    def encode(self, situation: Situation, action: str) -> Decision | None:
        return self._shared.engine.encode(situation, action)

    def length(self, situation: Situation) -> int | None:
        measure: Any = getattr(self._shared.engine, "length", None)
        return None if measure is None else int(measure(situation))

    def sees(self) -> bool:
        return bool(getattr(self._shared.engine, "sees", False))

    def _watch(self, dispatcher: Any) -> None:
        import ray

        while True:
            time.sleep(_LOOK_SECONDS)
            try:
                ray.get(dispatcher.status.remote(), timeout=60)
            except ray.exceptions.ActorDiedError:
                os._exit(0)
            except Exception:  # noqa: BLE001  it is busy, or on its way back
                continue


class NodeEngine:
    """The engine of this node, as a collector asks it. pinned: it samples from one version only,
    which is given by `load`."""

    answers_alone = True

    def __init__(self, ray: Any, actor: Any, policy: Policy, is_pinned: bool = False) -> None:
        self.version = 0
        self._ray = ray
        self._actor = actor
        self._policy = policy
        self._is_pinned = is_pinned
        self._weights: Weights | None = None
        self._threads = ThreadPoolExecutor(16, "node-engine")
        self.sees = bool(self._get(actor.sees.remote(), _START_SECONDS))

    def pinned(self) -> NodeEngine:
        """An engine that samples from the version that it is given, and from no other."""
        return NodeEngine(self._ray, self._actor, self._policy, is_pinned=True)

    def load(self, weights: Weights) -> None:
        self._weights = weights
        self._give()
        self.version = weights.version

    def act(self, situations: Sequence[Situation], temperature: float) -> list[Decision]:
        if len(situations) == 1:
            return [self._ask(situations[0], temperature)]
        return list(self._threads.map(lambda s: self._ask(s, temperature), situations))

    def encode(self, situation: Situation, action: str) -> Decision | None:
        found: Decision | None = self._get(self._actor.encode.remote(situation, action))
        return found

    def length(self, situation: Situation) -> int:
        found = self._get(self._actor.length.remote(situation))
        return len(situation.observation) // 3 if found is None else int(found)

    def close(self) -> None:
        if self._is_pinned and self._weights is not None:
            self._actor.unpin.remote(self._weights.version)

    def _ask(self, situation: Situation, temperature: float) -> Decision:
        pinned = self.version if self._is_pinned else None
        for _ in range(2):
            asked = self._actor.act.remote(situation, temperature, self.version, pinned)
            found: Decision | None = self._get(asked)
            if found is not None:
                return found
            self._give()  # it was started again, and has no weights
        raise EngineError("the engine of this node loses its weights again and again")

    def _give(self) -> None:
        weights = self._weights
        if weights is None:
            return
        if self._is_pinned:
            self._get(self._actor.pin.remote(weights), _LOAD_SECONDS)
        # another collector of the node may have brought them already
        elif not self._get(self._actor.has.remote(weights.version), _LOAD_SECONDS):
            self._get(self._actor.load.remote(weights), _LOAD_SECONDS)

    def _get(self, reference: Any, seconds: float | None = None) -> Any:
        """What a call answers. Raises EngineError if it fails or takes too long."""
        exceptions = self._ray.exceptions
        seconds = seconds or self._policy.timeout_seconds
        try:
            return self._ray.get(reference, timeout=seconds)
        except exceptions.GetTimeoutError as error:
            raise EngineError(
                f"the engine of this node did not answer within {seconds:g} s",
                "has the node policy.arguments.cpus and gpus free (ray status)? else lower them, "
                "or raise policy.timeout_seconds",
            ) from error
        except exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, Exception) else error) from error
        except exceptions.RayError as error:
            raise EngineError(
                f"the engine of this node is gone: {str(error).splitlines()[0]}",
                "Ray starts it again; logs/ray.log says more",
            ) from error


def engine_maker(
    config: Config, run_id: str, logs: Path, dispatcher: Any
) -> Callable[[Policy, int], Engine]:
    """How a collector makes its engine: in its own process, or as that of its node."""
    arguments = arguments_of(config.policy)
    if arguments.placement == "inside":
        return make_engine
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    actor = (
        ray.remote(RayEngine)
        .options(
            name=_name(run_id, here),
            get_if_exists=True,
            lifetime="detached",  # else it would end with the collector that happened to be first
            num_cpus=arguments.cpus,
            num_gpus=arguments.gpus,
            max_restarts=-1,
            max_concurrency=_MOST_AT_ONCE,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        )
        .remote(config, logs, dispatcher)
    )
    return lambda policy, seed: NodeEngine(ray, actor, policy)


def end_engines(ray: Any, run_id: str) -> None:
    """Ends the engines of a run on all nodes."""
    for node in ray.nodes():
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            ray.kill(ray.get_actor(_name(run_id, node["NodeID"])))


def _name(run_id: str, node: str) -> str:
    return f"xp-engine-{run_id}-{node[:16]}"
