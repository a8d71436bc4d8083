"""A look at a world before a run: made in a host, read, and closed."""

from __future__ import annotations

import time

from actors.collecting.hosts.housing import close_hosts, make_host
from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.hosts.messages import Failed, Open, Opened, Reply
from actors.collecting.hosts.process import HostProcesses
from actors.config.acting import World
from experience import errors
from experience.command.output import say
from experience.errors import EnvironmentFailure, XpError

LEAST_SECONDS = 60.0
"""What a world has to be made at the start at least: the first one of its kind imports its
libraries too."""
_SILENT_SECONDS = 10.0


def look_at(world: World, timeout_seconds: float) -> Opened:
    """The world's card, and what it shows before its first reset.

    It has `timeout_seconds`, or `LEAST_SECONDS` if that is more. Raises ConfigError for an id or
    argument that does not exist, MissingPartError for a package that is not installed, and
    EnvironmentFailure for a world that raises, ends its process, or hangs.
    """
    mailbox = Mailbox()
    processes = HostProcesses(mailbox)
    host = make_host(world, None, processes, lambda _, reply: mailbox.put(reply))
    try:
        host.send(1, Open())
        reply = _first(mailbox, world.id, max(timeout_seconds, LEAST_SECONDS))
        close_hosts([host], mailbox)
    finally:
        processes.close()
        mailbox.close()
    if isinstance(reply, Failed):
        raise _as_error(world.id, reply)
    assert isinstance(reply, Opened)
    return reply


def _first(mailbox: Mailbox, env_id: str, seconds: float) -> Reply:
    """The first reply. Says that it waits while it does."""
    started = said = time.monotonic()
    while True:
        for reply in mailbox.take(min(_SILENT_SECONDS, seconds)):
            found: Reply = reply
            return found
        now = time.monotonic()
        if now - started >= seconds:
            raise EnvironmentFailure(
                f"{env_id} could not be made and looked at within {seconds:g} s",
                "mend its constructor, or raise collecting.step_timeout_seconds for a slow world",
            )
        if now - said >= _SILENT_SECONDS:
            said = now
            say(f"still waiting for {env_id} to be made: {now - started:.0f} s of {seconds:g}")


def _as_error(env_id: str, failed: Failed) -> XpError:
    """The error that the world's host met: one of ours as it was, any other with its traceback."""
    kind = getattr(errors, failed.kind, None)
    if isinstance(kind, type) and issubclass(kind, XpError):
        return kind(failed.what.removesuffix(failed.hint).rstrip(), failed.hint)
    return EnvironmentFailure(
        f"{env_id} raised {failed.kind} when it was made: "
        f"{failed.what}\n{failed.traceback}".rstrip(),
        f"mend the world; ./xp env check {env_id} tries it",
    )
