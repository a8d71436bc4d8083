"""The collectors of a run as Ray actors: started, watched, and set aside where they fail."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.config.schema import Config
from actors.pool.ray_actors import RayCollector
from actors.pool.starting.ray_start import session_logs
from experience.command.output import say
from experience.errors import XpError

_CLOSE_SECONDS = 60.0


class RayCollectors:
    """`config.workers` collectors. Ray restarts one that died, and its streams go on; one that
    fails by an error is set aside with its node, and another node takes its place."""

    def __init__(
        self, ray: Any, config: Config, run_id: str, directory: Path, dispatcher: Any
    ) -> None:
        self._ray = ray
        self._config = config
        self._run_id = run_id
        self._directory = directory
        self._dispatcher = dispatcher
        # Every start of a collector makes one incarnation; those above this number are restarts.
        self._incarnations = _incarnations(directory)
        self._actors: dict[int, Any] = {}
        self._working: dict[Any, int] = {}
        """Reference of a collector's rounds -> its index."""
        self._set_aside: set[str] = set()
        """Ids of the nodes on which a collector failed."""
        for _ in range(config.workers):
            self._start()

    @property
    def restarts(self) -> int:
        """How often a collector came back, counted by the incarnations of the journals."""
        started = self._incarnations + len(self._actors)
        return max(_incarnations(self._directory) - started, 0)

    def look(self) -> None:
        """Sets failed collectors aside, and starts the rounds of restarted ones. Raises XpError
        where no collector is left."""
        references = list(self._working)
        ended, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        for reference in ended:
            index = self._working.pop(reference)
            failed = self._failure(reference)
            if failed is None:  # its process died: Ray is starting it again
                self._working[self._actors[index].work.remote()] = index
            else:
                self._put_aside(index, failed)

    def acknowledged(self, seconds: float) -> dict[int, tuple[int, dict[bytes, int]]]:
        """Of each collector that answers in time: its process id, and the highest acknowledged t
        of each of its streams."""
        asked = {index: actor.acknowledged.remote() for index, actor in self._actors.items()}
        return self._answers(asked, seconds)

    def close(self) -> dict[bytes, int]:
        """Ends the collectors. Returns the last acknowledged t of each stream, of those that
        answered in time."""
        closing = {index: actor.close.remote() for index, actor in self._actors.items()}
        acknowledged: dict[bytes, int] = {}
        for last in self._answers(closing, _CLOSE_SECONDS).values():
            acknowledged |= last
        for actor in self._actors.values():
            self._ray.kill(actor)
        return acknowledged

    def _start(self, node: str | None = None) -> None:
        """Starts one more collector: on any node, or on the one that is named."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        index = len(self._actors)
        where: Any = "SPREAD" if node is None else NodeAffinitySchedulingStrategy(node, soft=False)
        actor = (
            self._ray.remote(RayCollector)
            .options(
                num_cpus=0.5,
                max_restarts=-1,
                max_task_retries=0,  # its rounds are begun again by `_look`
                max_concurrency=4,
                scheduling_strategy=where,
            )
            .remote(self._config, self._run_id, self._directory, index, self._dispatcher)
        )
        self._actors[index] = actor
        self._working[actor.work.remote()] = index

    def _answers(self, asked: Mapping[int, Any], seconds: float) -> dict[int, Any]:
        """What the collectors answered within `seconds`, by index; the dead are left out."""
        self._ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
        found = {}
        for index, reference in asked.items():
            with contextlib.suppress(self._ray.exceptions.RayError):
                found[index] = self._ray.get(reference, timeout=0)
        return found

    def _failure(self, reference: Any) -> XpError | None:
        """Why a collector's rounds ended; None if its process died."""
        exceptions = self._ray.exceptions
        try:
            self._ray.get(reference)
        except exceptions.RayTaskError as error:
            cause = error.cause or error
            hint = cause.hint if isinstance(cause, XpError) else ""
            what = str(cause).removesuffix(hint).rstrip()
            return XpError(
                what,
                hint
                or "logs/ray.log in the run directory has what Ray said; the run can be resumed",
            )
        except exceptions.ActorUnschedulableError as error:
            return XpError(
                f"it could not be started: {str(error).splitlines()[0]}",
                "Ray's own logs say why: raylet.err and worker-*.err in the logs of its session "
                f"({session_logs(self._ray)})",
            )
        except exceptions.RayActorError:
            # Dead, or on its way back. A call to a dead actor is lost, so that this comes again at
            # every look until the collector works.
            pass
        return None

    def _put_aside(self, index: int, failed: XpError) -> None:
        """Says why a collector failed, and starts another on a node where none has failed.

        Raises XpError if no collector is left, and none can be started elsewhere.
        """
        actor = self._actors[index]
        with contextlib.suppress(self._ray.exceptions.RayError):
            node = self._ray.get(actor.node.remote(), timeout=5)
            self._set_aside.add(node)
        self._ray.kill(actor)
        others = [
            node["NodeID"]
            for node in self._ray.nodes()
            if node["Alive"] and node["NodeID"] not in self._set_aside
        ]
        if others:
            say(f"collector {index} failed, and another node takes its place: {failed}")
            self._start(others[index % len(others)])
        elif self._working:
            say(f"collector {index} failed; {len(self._working)} go on without it: {failed}")
        else:
            what = str(failed).removesuffix(failed.hint).rstrip()
            raise XpError(f"collector {index} failed, and none is left: {what}", failed.hint)


def _incarnations(directory: Path) -> int:
    """How often collectors were started on this directory: each start makes one epoch's folder."""
    return len(list(directory.glob("*/epoch-*")))
