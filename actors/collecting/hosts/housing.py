"""Where a world lives: in a process of its own, or on a thread of this one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from actors.collecting.hosts.hosted_world import HostedWorld
from actors.collecting.hosts.inside import InsideHost
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.hosts.messages import Reply, Request
from actors.collecting.hosts.process import HostProcesses
from actors.config.acting import World
from actors.making import AS_TEXT, BUNDLED, module_of, package_of
from experience.signal import SignalKind

_CLOSE_SECONDS = 5.0
"""How long worlds may take to close, all of them together, before they are killed or left."""


class Host(Protocol):
    """Where one world lives: one thread makes it, steps it and closes it."""

    is_dead: bool
    """Nothing can be asked of it any more."""

    @property
    def has_ended(self) -> bool:
        """Whether its thread or process is gone."""

    def send(self, ticket: int, request: Request) -> None:
        """Asks the world. The reply is delivered with the ticket. One request at a time."""

    def kill(self) -> None:
        """Ends it at once, as far as that can be done."""

    def close(self) -> None:
        """Begins to close the world."""


def is_isolated(world: World) -> bool:
    """Whether a world lives in a process of its own.

    By default all do, but for the bundled worlds: what an agent writes in them runs behind walls of
    their own, and their slots share what is dear, such as a browser. A bundled world that runs a
    stranger's code here is isolated.
    """
    if world.isolation is not None:
        return world.isolation == "process"
    if not sys.platform.startswith("linux"):  # the template needs what Linux alone has
        return False
    if ":" not in world.id and not module_of(world.id):
        return False  # registered by this process, from a class that no other can find
    package, _, name = world.id.partition(":")
    strangers = (AS_TEXT.partition(":")[2], *package_of().STRANGERS)
    return package != BUNDLED or name in strangers


def close_hosts(hosts: Sequence[Host], mailbox: Mailbox) -> int:
    """Closes worlds side by side. Returns how many are not closed after `_CLOSE_SECONDS`."""
    for host in hosts:
        host.close()
    deadline = time.monotonic() + _CLOSE_SECONDS
    while any(not host.has_ended for host in hosts) and time.monotonic() < deadline:
        mailbox.take(0.02)
    return sum(not host.has_ended for host in hosts)


def make_host(
    world: World,
    catalogue: Mapping[str, SignalKind] | None,
    processes: HostProcesses,
    deliver: Callable[[int, Reply], None],
) -> Host:
    """A host for a world that is not made yet: the first request makes it."""
    if is_isolated(world):
        return processes.fork(world.id, world.arguments, catalogue, deliver)
    return InsideHost(HostedWorld(world.id, world.arguments, catalogue), deliver)
