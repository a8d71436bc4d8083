"""Hosts that are processes: whatever a world does in one ends that episode, and no other.

The collector's side. `template` has the program that these processes are forked from.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any

from actors.collecting.hosts.mailbox import Mailbox
from actors.collecting.hosts.messages import (
    HEAD,
    WORLD_ENDED,
    Close,
    Failed,
    Reply,
    Request,
    frame,
    reply_of,
    to_bytes,
)
from actors.making import module_of
from experience.shards.redaction.redact import Redactor
from experience.signal import SignalKind
from experience.text.strict_json import dumps

_MOST_REPLY_BYTES = 256 << 20
_MOST_LOG_BYTES = 16 << 20
_MOST_LINE_BYTES = 1 << 16


class HostProcesses:
    """Forks host processes from a template, which starts with the first of them.

    log: file that gets what worlds print; None: nothing does. secrets: names of environment
    variables that no world may read.
    """

    def __init__(
        self, mailbox: Mailbox, log: Path | None = None, secrets: Collection[str] = ()
    ) -> None:
        self._mailbox = mailbox
        self._log = log
        self._secrets = secrets
        self._numbers = itertools.count(1)
        self._hosts: dict[int, ProcessHost] = {}
        self._template: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(
        self,
        env_id: str,
        arguments: Mapping[str, Any],
        catalogue: Mapping[str, SignalKind] | None,
        deliver: Callable[[int, Reply], None],
    ) -> ProcessHost:
        """A new host for one world."""
        control = self._started()
        ours, theirs = socket.socketpair()
        number = next(self._numbers)
        order = {
            "fork": number,
            "module": module_of(env_id),
            "folder": os.getcwd(),
            "world": env_id,
            "arguments": dict(arguments),
            "catalogue": {n: (k.unit, k.source) for n, k in (catalogue or {}).items()},
        }
        host = ProcessHost(number, ours, self._mailbox, deliver, self._kill)
        self._hosts[number] = host
        try:
            socket.send_fds(control, [dumps(order).encode()], [theirs.fileno()])
        except OSError:
            self._end_all()  # the template is dead: its hosts are, too
        finally:
            theirs.close()
        return host

    def close(self) -> None:
        """Kills every host that is left, with all that they started; waits until they are gone."""
        if self._template is None or self._control is None:
            return
        self._mailbox.unwatch(self._control.fileno())
        self._control.close()
        for host in self._hosts.values():
            host.ended("was closed")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._template.wait(10)
        if self._template.poll() is None:
            self._template.kill()
            self._template.wait()
        self._template = None

    def _started(self) -> socket.socket:
        """The socket of the living template."""
        if self._control is not None:
            return self._control
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {k: v for k, v in os.environ.items() if k not in self._secrets}
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._template = subprocess.Popen(
            # -P: modules of the folder in which we are do not stand in for the standard ones
            [sys.executable, "-P", "-m", "actors.collecting.hosts.template", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if self._log is None else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the collector, which then closes the hosts
        )
        if self._log is not None:
            said = self._template.stdout
            threading.Thread(target=_keep, args=(said, self._log), daemon=True).start()
        theirs.close()
        self._control = ours
        self._mailbox.watch(ours.fileno(), self._hear)
        return ours

    def _kill(self, number: int) -> None:
        with contextlib.suppress(OSError):
            if self._control is not None:
                self._control.send(dumps({"kill": number}).encode())

    def _hear(self) -> None:
        """The template says which host has ended, or is dead itself."""
        assert self._control is not None
        try:
            news = self._control.recv(4096)
        except OSError:
            news = b""
        if not news:
            self._end_all()
            return
        ended = json.loads(news)
        host = self._hosts.pop(ended["ended"], None)
        if host is not None:
            host.ended(_said(ended["status"]))

    def _end_all(self) -> None:
        if self._control is not None:
            self._mailbox.unwatch(self._control.fileno())
            self._control.close()
            self._control = None
        for host in self._hosts.values():
            host.ended("ended with the template of all hosts")
        self._hosts.clear()


class ProcessHost:
    """A world in a process of its own. It can be killed, and its place is another's at once."""

    def __init__(
        self,
        number: int,
        connection: socket.socket,
        mailbox: Mailbox,
        deliver: Callable[[int, Reply], None],
        kill: Callable[[int], None],
    ) -> None:
        self._number = number
        self._connection = connection
        self._mailbox = mailbox
        self._deliver = deliver
        self._kill = kill
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._is_writing = False
        """Whether something is left to be sent when the host has read."""
        self._ticket: int | None = None
        """Of the request that is under way."""
        self.is_dead = False
        self.has_ended = False
        connection.setblocking(False)
        mailbox.watch(connection.fileno(), self._ready)

    def send(self, ticket: int, request: Request) -> None:
        """Sends a request. Its reply, or a failure, is delivered with its ticket."""
        if self.is_dead:
            self._deliver(ticket, Failed("env_error", WORLD_ENDED, "its process is dead"))
            return
        self._ticket = ticket
        self._outgoing += frame(ticket, to_bytes(request))
        self._write()

    def kill(self) -> None:
        """Ends the process at once, and everything that it has started."""
        self._ticket = None
        self._let_go()
        self._kill(self._number)

    def close(self) -> None:
        """Begins to close the world; `has_ended` tells when its process is gone."""
        self.send(0, Close())
        self._ticket = None

    def ended(self, how: str) -> None:
        """The process is gone."""
        self.has_ended = True
        if not self.is_dead:
            self._read()  # a reply may have come before the end
        self._let_go()
        self._fail(how)

    def _fail(self, how: str) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            what = f"the process of its world {how}"
            self._deliver(ticket, Failed("env_error", WORLD_ENDED, what))

    def _let_go(self) -> None:
        if not self.is_dead:
            self.is_dead = True
            self._mailbox.unwatch(self._connection.fileno())
            self._connection.close()

    def _ready(self) -> None:
        self._write()
        self._read()

    def _write(self) -> None:
        """Sends what it can without waiting; the rest when the host has read."""
        try:
            while self._outgoing:
                sent = self._connection.send(self._outgoing)
                del self._outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:  # it is dead: the template will say so
            self._outgoing.clear()
            return
        if bool(self._outgoing) != self._is_writing:
            self._is_writing = not self._is_writing
            self._mailbox.watch(self._connection.fileno(), self._ready, self._is_writing)

    def _read(self) -> None:
        try:
            while data := self._connection.recv(1 << 18):
                self._incoming += data
        except BlockingIOError:
            pass
        except OSError:
            data = b""
        else:
            # The process is ending, as the template will say. Or its world has closed what it did
            # not open: then no answer comes, until the deadline.
            self._mailbox.unwatch(self._connection.fileno())
        while len(self._incoming) >= HEAD.size:
            length, ticket = HEAD.unpack_from(self._incoming)
            if not 8 <= length <= _MOST_REPLY_BYTES:
                self._incoming.clear()
                self._kill(self._number)
                return
            if len(self._incoming) < 4 + length:
                return
            data = bytes(self._incoming[HEAD.size : 4 + length])
            del self._incoming[: 4 + length]
            if ticket == self._ticket:
                self._ticket = None
                self._deliver(ticket, _reply(data))


def _keep(said: IO[bytes], log: Path) -> None:
    """Writes what worlds print to `log`, without secrets, up to `_MOST_LOG_BYTES`."""
    redactor = Redactor.current()
    left = _MOST_LOG_BYTES
    with said:
        while line := said.readline(_MOST_LINE_BYTES):
            if left > 0:
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a", encoding="utf-8") as file:
                    left -= file.write(redactor.text(line.decode("utf-8", "replace")))


def _reply(data: bytes) -> Reply:
    try:
        return reply_of(data)
    except Exception as error:  # noqa: BLE001  the process may have written anything to its socket
        return Failed.of(error)


def _said(status: int) -> str:
    """How a process ended, from its wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
