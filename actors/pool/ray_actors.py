"""What runs in Ray's processes: a collector, and the dispatcher of a run."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actors.collecting.dispatcher import Dispatcher, Lease, Report
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.loop.collector import Collector
from actors.collecting.work import Work, done_before
from actors.config.schema import Config
from actors.config.sense import names_of_secrets
from actors.pool.pool import programs_of
from actors.pool.ray_engines import engine_maker
from experience.command.output import guard
from experience.errors import XpError
from experience.shards.redaction.redact import name_secrets

_REPLY_SECONDS = 5.0
"""A reply that takes longer may never come: the dispatcher is asked again."""


class RayDispatcher:
    """The dispatcher as a Ray actor. One call at a time: what it is told comes in order.

    It tells collectors that there are news, so that none has to ask all the time.
    """

    def __init__(self, config: Config, shards: Path, rewards: str) -> None:
        done = done_before(shards, config.collecting.group_size)
        self._dispatcher = Dispatcher(config, done, rewards=rewards)
        self._dispatcher.on_news = self._tell
        self._collectors: dict[str, Any] = {}
        self._born = uuid.uuid4().hex

    def publish(self, version: int, allowed: int, policy: Any) -> None:
        self._dispatcher.publish(version, allowed, policy)

    def hold_back(self) -> None:
        self._dispatcher.hold_back()

    def order(self, works: Sequence[Work], version: int, policy: Any) -> None:
        self._dispatcher.order(works, version, policy)

    def drop(self) -> None:
        self._dispatcher.drop()

    def renew(self, report: Report, collector: Any) -> Lease:
        """collector: a list of the one who asks, so that it can be told of news."""
        self._collectors[report.collector] = collector[0]
        return self._dispatcher.renew(report)

    def status(self) -> dict[str, Any]:
        collectors = self._dispatcher.status()
        alive = {record["collector"] for record in collectors}
        self._collectors = {n: c for n, c in self._collectors.items() if n in alive}
        return {
            "collectors": collectors,
            "quarantined": self._dispatcher.quarantined,
            "born": self._born,
        }

    def _tell(self) -> None:
        for collector in self._collectors.values():
            collector.hear.remote()


class RemoteTeller:
    """Tells the dispatcher's actor, in the order of the calls, without waiting."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher

    def publish(self, version: int, allowed: int, policy: Any) -> None:
        self._dispatcher.publish.remote(version, allowed, policy)

    def hold_back(self) -> None:
        self._dispatcher.hold_back.remote()

    def order(self, works: Sequence[Work], version: int, policy: Any) -> None:
        self._dispatcher.order.remote(list(works), version, policy)

    def drop(self) -> None:
        self._dispatcher.drop.remote()


class RayLine:
    """From a collector to the dispatcher's actor. Replies go through the collector's mailbox."""

    def __init__(self, dispatcher: Any, mailbox: Callable[[], Mailbox], me: Any) -> None:
        self._dispatcher = dispatcher
        self._mailbox = mailbox
        self._me = me
        self._asked_at = 0.0
        self._question = 0
        """Number of the last question; a reply to an earlier one comes too late."""
        self._is_open = False

    @property
    def is_asking(self) -> bool:
        return self._is_open and time.monotonic() - self._asked_at < _REPLY_SECONDS

    def ask(self, report: Report, reply: Callable[[Lease], None]) -> None:
        self._question += 1
        self._asked_at = time.monotonic()
        self._is_open = True
        question = self._question

        def take(found: Any) -> None:
            if question != self._question:
                return
            self._is_open = False
            if found.exception() is None:
                reply(found.result())

        future = self._dispatcher.renew.remote(report, [self._me]).future()
        future.add_done_callback(lambda found: self._mailbox().put(lambda: take(found)))

    def fetch(self, policy: Any, reply: Callable[[Any], None]) -> None:
        def take(found: Any) -> None:
            reply(found.result())

        future = policy[0].future()
        future.add_done_callback(lambda found: self._mailbox().put(lambda: take(found)))


class RayCollector:
    """A collector as a Ray actor. It answers other calls while its rounds run.

    The actor has several threads. The lock is held for one round at most. An error at its start
    ends the call of `work`, and so reaches the driver with its own message.
    """

    def __init__(
        self, config: Config, run_id: str, directory: Path, index: int, dispatcher: Any
    ) -> None:
        import ray
        import torch

        # The driver named the secrets when it read the configuration. This process did not read it.
        name_secrets(names_of_secrets(config.model_dump()))
        guard()
        torch.set_num_threads(1)
        self._lock = threading.Lock()
        self._stopping = False
        self._collector: Collector | None = None
        self._failed: BaseException | None = None
        me = ray.get_runtime_context().current_actor
        line = RayLine(dispatcher, lambda: self._made.mailbox, me)
        try:
            logs = directory.parent.absolute() / "logs"
            make = engine_maker(config, run_id, logs, dispatcher)
            self._collector = Collector(
                config, run_id, directory, index, line, programs_of(config), make
            )
        except BaseException as error:  # noqa: BLE001  `work` raises it: here Ray would hide it
            self._failed = error

    @property
    def _made(self) -> Collector:
        if self._collector is None:
            raise self._failed or XpError("no collector was made", "see the error before this one")
        return self._collector

    def acknowledged(self) -> tuple[int, dict[bytes, int]]:
        """The id of this process, and the highest acknowledged t of each stream."""
        return os.getpid(), dict(self._made.journal.acknowledged)

    def node(self) -> str:
        """The id of the node that this collector is on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def hear(self) -> None:
        """The dispatcher has news."""
        if self._collector is not None:
            self._collector.mailbox.put(self._collector.leases.hear)

    def work(self) -> None:
        """Collects until `close`. An error ends this call, and so reaches the driver."""
        collector = self._made
        while not self._stopping:
            with self._lock:
                if not collector.pump():
                    collector.journal.commit()

    def close(self) -> dict[bytes, int]:
        self._stopping = True
        with self._lock:
            return self._made.close()
