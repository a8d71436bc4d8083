"""A world on a thread of its own, for servers that answer many clients at once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from experience.errors import EnvironmentFailure
from experience.world import WorldCard

T = TypeVar("T")
ANSWER_SECONDS = 120.0
"""How long a world may take to reset or to step, if neither it nor its user says; and to be made,
which is the first request's to wait for."""
_CLOSE_SECONDS = 5.0
_Request = tuple["Future[Any]", Callable[[Any], Any]]


class WorldThread:
    """A world that one and the same thread makes, steps and closes.

    Simulators, browsers and databases may be used by the thread that made them only. A request that
    is not answered within `seconds` (or within the `deadline_seconds` of the world itself) raises
    EnvironmentFailure, and so does each later one: the world is lost. Python cannot end a thread,
    so the thread of a lost world closes the world when its call returns, or ends with the process.
    """

    def __init__(self, make: Callable[[], Any], seconds: float = ANSWER_SECONDS) -> None:
        self._make = make
        self._seconds = seconds
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._is_made = False
        self._lost = ""
        # A daemon: a world that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._live, name="world", daemon=True)
        self._thread.start()

    def ask(self, what: str, do: Callable[[Any], T]) -> T:
        """What `do(world)` returns; `what` names the request in errors. Blocks.

        Raises what `do`, or the making of the world, raises; EnvironmentFailure if the world hangs.
        """
        asked, seconds = self._send(do)
        try:
            return asked.result(seconds)
        except TimeoutError:
            # A world's own timeout is of the same class: only an open request is late.
            if asked.done():
                return asked.result()
            raise self._give_up(what, seconds) from None

    async def answer(self, what: str, do: Callable[[Any], T]) -> T:
        """As `ask`, for an event loop: other tasks go on while the world works."""
        asked, seconds = self._send(do)
        here = asyncio.wrap_future(asked)
        # An error that comes after we have given up is nobody's: asyncio would print it.
        here.add_done_callback(lambda late: late.cancelled() or late.exception())
        done, _ = await asyncio.wait({here}, timeout=seconds)
        if not done:
            raise self._give_up(what, seconds)
        return here.result()

    @property
    def is_lost(self) -> bool:
        """Whether the world hung once: nothing more can be asked of it."""
        return bool(self._lost)

    def close(self) -> None:
        """Closes the world on its thread, and waits some seconds for it."""
        self._requests.put(None)
        if not self._lost:
            self._thread.join(_CLOSE_SECONDS)

    def _send(self, do: Callable[[Any], T]) -> tuple[Future[T], float]:
        """(the request, how long its answer may take)."""
        if self._lost:
            raise EnvironmentFailure(f"the world is lost: {self._lost}", "make a new one")
        asked: Future[T] = Future()
        self._requests.put((asked, do))
        return asked, self._seconds if self._is_made else max(self._seconds, ANSWER_SECONDS)

    def _give_up(self, what: str, seconds: float) -> EnvironmentFailure:
        self._lost = f"{what} did not answer within {seconds:g} s"
        self._requests.put(None)
        return EnvironmentFailure(
            self._lost, "a world that needs longer says so: deadline_seconds, or a longer deadline"
        )

    def _live(self) -> None:
        world: Any = None
        while (request := self._requests.get()) is not None:
            asked, do = request
            if not asked.set_running_or_notify_cancel():
                continue
            try:
                if world is None:
                    world = self._made()
                asked.set_result(do(world))
            except BaseException as error:  # noqa: BLE001  raised again by whoever asked
                asked.set_exception(error)
        if world is not None:
            _close(world)

    def _made(self) -> Any:
        world = self._make()
        self._seconds = WorldCard.of(world).deadline_seconds or self._seconds
        self._is_made = True
        return world


def _close(world: Any) -> None:
    try:
        world.close()
    except Exception:
        # The episodes are over: nothing that they earned depends on it.
        logging.getLogger(__name__).warning("the world could not be closed", exc_info=True)
