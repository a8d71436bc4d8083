"""The pool on a Ray cluster: each collector is a Ray actor, and so is the dispatcher.

Work is pulled, so that the pool directs nobody: it tells the dispatcher what is to be lived, and
watches that there are collectors. Ray restarts a collector that died; it rebuilds itself from its
journal, and asks for work again. One that fails by an error is set aside, with its node.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.collecting.work import Work
from actors.config.schema import Config
from actors.pool.pool import Follows, all_new
from actors.pool.ray_actors import RayDispatcher, RemoteTeller
from actors.pool.ray_collectors import RayCollectors
from actors.pool.ray_engines import end_engines
from actors.pool.starting.ray_start import log_ray_to, start_ray
from actors.pool.told import Told
from experience.command.output import say
from experience.models.weights import PolicyBundle
from experience.step import Step

_LOOK_SECONDS = 0.5
"""How often the pool looks whether collectors and dispatcher are well."""


class RayPool:
    """Collectors as Ray actors. A collector that dies is restarted, and its streams go on."""

    def __init__(
        self, config: Config, run_id: str, directory: Path, catalog: Follows, rewards: str = ""
    ) -> None:
        self._ray = start_ray(config.address)
        self._rewards = rewards
        self._config = config
        self._run_id = run_id
        self._directory = directory.resolve()
        self._catalog = catalog
        log_ray_to(directory.parent / "logs" / "ray.log")
        self._dispatcher = self._start_dispatcher()
        self._told = Told(RemoteTeller(self._dispatcher))
        self._collectors = RayCollectors(
            self._ray, config, run_id, self._directory, self._dispatcher
        )
        self._born: str | None = None
        """Which start of the dispatcher was told everything."""
        self._shared: tuple[PolicyBundle, Any] | None = None
        """The bundle that was put into the object store last, and its reference."""
        self._status: list[dict[str, Any]] = []
        self.quarantined: list[tuple[str, int]] = []
        self._looked = 0.0
        self._asked: Any = None

    def push(self, policy: PolicyBundle, quota: int) -> None:
        self._told.publish(policy.version, quota, [self._reference(policy)])

    def stop(self) -> None:
        self._told.hold_back()

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        version = -1 if policy is None else policy.version
        reference = None if policy is None else [self._reference(policy)]
        self._told.order(works, version, reference)

    def drop(self) -> None:
        self._told.drop()

    def shards(self, until: Callable[[], bool]) -> Iterator[list[Step]]:
        while not until():
            self._look()
            steps = all_new(self._catalog)
            if not steps:
                time.sleep(0.05)
            yield steps

    @property
    def restarts(self) -> int:
        """How often a collector came back."""
        return self._collectors.restarts

    def acknowledged(self, seconds: float) -> dict[int, tuple[int, dict[bytes, int]]]:
        """Of each collector that answers in time, by index: its process id, and the highest
        acknowledged t of each of its streams."""
        return self._collectors.acknowledged(seconds)

    def status(self) -> list[dict[str, Any]]:
        """What the dispatcher last heard of each collector."""
        return self._status

    def close(self) -> dict[bytes, int]:
        """Seals the journals and ends the collectors. Returns the last acknowledged t per stream.

        The journal of a dead collector stays open; the next resume seals it.
        """
        acknowledged = self._collectors.close()
        self._asked = self._dispatcher.status.remote()
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._hear(self._ray.get(self._asked, timeout=5))
        end_engines(self._ray, self._run_id)
        self._ray.kill(self._dispatcher)
        return acknowledged

    def _reference(self, policy: PolicyBundle) -> Any:
        """The bundle's reference in Ray's object store. A bundle is put there once, for all."""
        if self._shared is None or self._shared[0] is not policy:
            self._shared = (policy, self._ray.put(policy))
        return self._shared[1]

    def _start_dispatcher(self) -> Any:
        """On this node, where the store is that it reads when it starts."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self._ray.get_runtime_context().get_node_id()
        return (
            self._ray.remote(RayDispatcher)
            .options(
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
            )
            .remote(self._config, self._directory, self._rewards)
        )

    def _look(self) -> None:
        """Looks after the collectors, and hears what the dispatcher knows of them. Raises XpError
        where no collector is left."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._collectors.look()
        if self._asked is None:
            self._asked = self._dispatcher.status.remote()
            return
        done, _ = self._ray.wait([self._asked], timeout=0)
        if done:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._hear(self._ray.get(self._asked))
            self._asked = None

    def _hear(self, said: dict[str, Any]) -> None:
        """Takes the dispatcher's news. One that was started again is told everything again."""
        self._status = said["collectors"]
        for world, seed in set(said["quarantined"]) - set(self.quarantined):
            say(f"{world}, seed {seed}: ended its process too often, and is not lived any more")
        self.quarantined = said["quarantined"]
        if self._born not in (None, said["born"]):
            self._told.again()
        self._born = said["born"]
