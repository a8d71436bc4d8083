"""A shared engine: requests come from many, are batched as they come, and are answered as futures.

An engine that answers alone (a server) gets each request at once, on a thread of its own. A model
in this process answers together all requests that wait when it is free.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from actors.engines.engine import Engine, Situation
from experience.errors import EngineError
from experience.models.weights import Weights
from experience.policy import Decision

NEWEST = None
"""Asked for in place of a version: the weights that are the newest when the batch begins."""
_MOST_THREADS = 256


@dataclass
class _Request:
    situation: Situation
    temperature: float
    version: int | None
    answer: Future[Decision] = field(default_factory=Future)


class SharedEngine:
    """Holds the newest weights, and those that are pinned for evaluations, for all who ask.

    make: makes an engine. One samples from the newest weights, and one more from those that are
    pinned; an engine with a method `pinned` makes one for each pinned version.
    """

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make
        self._engine = make()
        self._newest = -1
        self._pinned: dict[int, Weights] = {}
        self._pins: dict[int, int] = {}
        """How many collectors hold a pinned version."""
        self._evaluating: dict[int | None, Engine] = {}
        self._loaded: dict[int | None, int] = {}
        """The version that each of `_evaluating` has."""
        self._lock = threading.RLock()
        self._waiting: queue.SimpleQueue[_Request | Callable[[], None] | None]
        self._waiting = queue.SimpleQueue()
        self._alone: ThreadPoolExecutor | None = None
        if getattr(self._engine, "answers_alone", False):
            self._alone = ThreadPoolExecutor(_MOST_THREADS, "shared-engine")
        else:
            threading.Thread(target=self._serve, daemon=True, name="shared-engine").start()

    @property
    def engine(self) -> Engine:
        """The engine of the newest weights: for what does not depend on weights."""
        return self._engine

    @property
    def version(self) -> int:
        """Of the newest weights; −1 before the first."""
        return self._newest

    def is_pinned(self, version: int) -> bool:
        return version in self._pinned

    def ask(
        self, situation: Situation, temperature: float, version: int | None = NEWEST
    ) -> Future[Decision]:
        """The decision, when it is there. Its future has the error of this request, if it failed."""
        request = _Request(situation, temperature, version)
        if self._alone is not None:
            self._alone.submit(self._answer, [request])
        else:
            self._waiting.put(request)
        return request.answer

    def load(self, weights: Weights) -> int:
        """The weights of new requests; older ones than the present are ignored. Returns the
        version in force. Loaded once, however many collectors bring it."""
        with self._lock:
            if weights.version > self._newest:
                self._between(lambda: self._engine.load(weights))
                self._newest = weights.version
            return self._newest

    def pin(self, weights: Weights) -> None:
        """Keeps a version for requests that name it, until `unpin` was called as often."""
        with self._lock:
            self._pins[weights.version] = self._pins.get(weights.version, 0) + 1
            self._pinned[weights.version] = weights

    def unpin(self, version: int) -> None:
        with self._lock:
            left = self._pins.get(version, 0) - 1
            if left > 0:
                self._pins[version] = left
                return
            self._pins.pop(version, None)
            self._pinned.pop(version, None)
            engine = self._evaluating.pop(version, None)
            self._loaded.pop(version, None)
        close = getattr(engine, "close", None)
        if close is not None:
            close()

    def close(self) -> None:
        """Ends the threads; what waits is not answered."""
        self._waiting.put(None)
        if self._alone is not None:
            self._alone.shutdown(wait=False, cancel_futures=True)

    def _between(self, change: Callable[[], None]) -> None:
        """Makes a change between two batches, and waits for it."""
        if self._alone is not None:
            change()
            return
        done: Future[None] = Future()

        def changing() -> None:
            try:
                change()
            except BaseException as error:  # noqa: BLE001  raised where it was asked for
                done.set_exception(error)
            else:
                done.set_result(None)

        self._waiting.put(changing)
        done.result()

    def _serve(self) -> None:
        while True:
            items = [self._waiting.get()]
            while not self._waiting.empty():
                items.append(self._waiting.get())
            requests = []
            for item in items:
                if item is None:
                    return
                if isinstance(item, _Request):
                    requests.append(item)
                else:
                    item()
            self._answer(requests)

    def _answer(self, requests: Sequence[_Request]) -> None:
        """Answers the requests of each version and temperature together."""
        alike: dict[tuple[int | None, float], list[_Request]] = {}
        for request in requests:
            alike.setdefault((request.version, request.temperature), []).append(request)
        for (version, temperature), those in alike.items():
            try:
                engine = self._engine_of(version)
                found = engine.act([request.situation for request in those], temperature)
            except BaseException as error:  # noqa: BLE001  it belongs to those who asked
                for request in those:
                    request.answer.set_exception(error)
                continue
            for request, decision in zip(those, found, strict=True):
                request.answer.set_result(decision)

    def _engine_of(self, version: int | None) -> Engine:
        if version is NEWEST:
            return self._engine
        with self._lock:
            weights = self._pinned.get(version)
            if weights is None:
                raise EngineError(f"version {version} is not pinned here", "pin it first")
            pinned: Any = getattr(self._engine, "pinned", None)
            key = None if pinned is None else version
            engine = self._evaluating.get(key)
            if engine is None:
                engine = self._evaluating[key] = (pinned or self._make)()
                self._loaded.pop(key, None)
            if self._loaded.get(key) != version:
                engine.load(weights)
                self._loaded[key] = version
            return engine
