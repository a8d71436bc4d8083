"""The pool on a Ray cluster: each collector is a Ray actor.

Ray restarts a collector that died. The collector then rebuilds itself from its journal, and the
pool sends it the policy and the orders again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.collecting.collector import Collector
from actors.collecting.work import Work
from actors.config.schema import Config
from actors.config.sense import names_of_secrets
from actors.pool.pool import all_new
from actors.pool.ray_start import log_ray_to, session_logs, start_ray
from experience.command.output import guard
from experience.errors import XpError
from experience.models.weights import PolicyBundle
from experience.shards.catalog import Catalog
from experience.shards.redaction.redact import name_secrets
from experience.step import Step


class _RayCollector:
    """A collector as a Ray actor. It answers other calls while its rounds run.

    The actor has several threads. The lock is held for one round at most, so that a call waits for
    the end of the present round only.
    """

    def __init__(
        self, config: Config, run_id: str, directory: Path, index: int, collectors: int
    ) -> None:
        import torch

        # The driver named the secrets when it read the configuration. This process did not read it.
        name_secrets(names_of_secrets(config.model_dump()))
        guard()
        torch.set_num_threads(1)
        self._collector = Collector(config, run_id, directory, index, collectors)
        self._lock = threading.Lock()
        self._stopping = False

    def work(self) -> None:
        """Collects until `close`. An error ends this call, and so reaches the driver."""
        while not self._stopping:
            with self._lock:
                busy = self._collector.pump()
                if not busy:
                    self._collector.journal.commit()
            time.sleep(0.0 if busy else 0.02)

    def load(self, policy: PolicyBundle | None, quota: int) -> None:
        with self._lock:
            self._collector.load(policy, quota)

    def order(self, works: Sequence[Work], policy: PolicyBundle | None) -> None:
        with self._lock:
            self._collector.order(works, policy)

    def drop(self) -> None:
        with self._lock:
            self._collector.drop()

    def status(self) -> dict[str, Any]:
        with self._lock:
            return {**self._collector.status(), "pid": os.getpid(), "index": self._collector.index}

    def close(self) -> dict[bytes, int]:
        self._stopping = True
        with self._lock:
            self._collector.close()
        return dict(self._collector.journal.acknowledged)


class RayPool:
    """Collectors as Ray actors. A collector that dies is restarted, and its streams go on."""

    def __init__(self, config: Config, run_id: str, directory: Path, catalog: Catalog) -> None:
        self._ray = start_ray(config.address)
        self._catalog = catalog
        log_ray_to(directory.parent / "logs" / "ray.log")
        self._directory = directory
        # Every start of a collector makes one incarnation; those above this number are restarts.
        self._incarnations = _incarnations(directory) + config.workers
        actor = self._ray.remote(
            num_cpus=0.5,
            max_restarts=-1,
            max_task_retries=0,  # `_revive` repeats what a restarted collector must know
            max_concurrency=4,
            scheduling_strategy="SPREAD",
        )(_RayCollector)
        self._actors = [
            actor.remote(config, run_id, directory.resolve(), i, config.workers)
            for i in range(config.workers)
        ]
        self._policy: tuple[Any, int] | None = None
        """Reference of the newest policy, and its quota."""
        self._shared: tuple[PolicyBundle, Any] | None = None
        """The bundle that was put into the object store last, and its reference."""
        self._orders: list[tuple[list[Work], Any]] = []
        """Everything ordered since the last `drop`: works, and the reference of their policy."""
        self._working = {i: a.work.remote() for i, a in enumerate(self._actors)}

    def push(self, policy: PolicyBundle, quota: int) -> None:
        self._policy = (self._reference(policy), quota)
        for actor in self._actors:
            actor.load.remote(*self._policy)

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        reference = None if policy is None else self._reference(policy)
        self._orders.append((list(works), reference))
        for i in range(len(self._actors)):
            self._send_order(i, list(works), reference)

    def _reference(self, policy: PolicyBundle) -> Any:
        """The bundle's reference in Ray's object store. A bundle is put there once, for all."""
        if self._shared is None or self._shared[0] is not policy:
            self._shared = (policy, self._ray.put(policy))
        return self._shared[1]

    def drop(self) -> None:
        self._orders.clear()
        for actor in self._actors:
            actor.drop.remote()

    def _send_order(self, index: int, works: list[Work], reference: Any) -> None:
        self._actors[index].order.remote(works[index :: len(self._actors)], reference)

    def shards(self, until: Callable[[], bool]) -> Iterator[list[Step]]:
        while not until():
            self._revive()
            steps = all_new(self._catalog)
            if not steps:
                time.sleep(0.05)
            yield steps

    @property
    def restarts(self) -> int:
        """How often a collector came back, counted by the incarnations of the journals."""
        return max(_incarnations(self._directory) - self._incarnations, 0)

    def _revive(self) -> None:
        """Sends restarted collectors the policy and all orders, and starts their rounds again.

        A collector skips the works that its journal holds as done. Raises XpError for a collector
        that failed by an error, or that Ray cannot start.
        """
        running = list(self._working.values())
        ended, _ = self._ray.wait(running, num_returns=len(running), timeout=0)
        for index in [i for i, reference in self._working.items() if reference in ended]:
            self._check_death(index)
            actor = self._actors[index]
            if self._policy is not None:
                actor.load.remote(*self._policy)
            for works, reference in self._orders:
                self._send_order(index, works, reference)
            self._working[index] = actor.work.remote()

    def _check_death(self, index: int) -> None:
        """Raises XpError unless the collector's rounds ended by the death of its process."""
        exceptions = self._ray.exceptions
        try:
            self._ray.get(self._working[index])
        except exceptions.RayTaskError as error:
            raise XpError(
                f"collector {index} failed: {error.cause or error}",
                "logs/ray.log in the run directory has what Ray said; the run can be resumed",
            ) from error
        except exceptions.ActorUnschedulableError as error:
            raise XpError(
                f"collector {index} could not be started: {str(error).splitlines()[0]}",
                "Ray's own logs say why: raylet.err and worker-*.err in the logs of its session "
                f"({session_logs(self._ray)})",
            ) from error
        except exceptions.RayActorError:
            # The process is dead or on its way back. Calls to a dead actor are lost, so `_revive`
            # repeats them at every turn until the collector works.
            pass

    def status(self, seconds: float = 5.0) -> list[dict[str, Any]]:
        """One record per collector that answers within `seconds`; a restarting one is left out."""
        asked = [a.status.remote() for a in self._actors]
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + seconds
        for reference in asked:
            remaining = max(deadline - time.monotonic(), 0.01)
            with contextlib.suppress(self._ray.exceptions.RayError):
                found.append(self._ray.get(reference, timeout=remaining))
        return found

    def close(self) -> dict[bytes, int]:
        """Seals the journals and ends the collectors. Returns the last acknowledged t per stream.

        The journal of a dead collector stays open; the next resume seals it.
        """
        acknowledged: dict[bytes, int] = {}
        for reference in [a.close.remote() for a in self._actors]:
            with contextlib.suppress(self._ray.exceptions.RayError):
                acknowledged |= self._ray.get(reference, timeout=60)
        for actor in self._actors:
            self._ray.kill(actor)
        return acknowledged


def _incarnations(directory: Path) -> int:
    """How often collectors were started on this directory: each start makes one epoch's folder."""
    return len(list(directory.glob("*/epoch-*")))
