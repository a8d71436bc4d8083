"""The program that hosts are forked from: it has loaded what every world needs, and runs no world.

A fork costs milliseconds, and shares the memory of what is loaded. Covers: a host that ends, or is
killed, takes along every process that its world has started, daemons too; when the collector is
gone, all hosts are killed and this program ends. Does not cover: what a world does to the machine
outside its processes, such as files that it leaves.

It is started with one argument, the descriptor of a SOCK_SEQPACKET socket of the collector.
Received: {"fork": number, "module": name, ...} with the host's own socket; {"kill": number}.
Sent: {"ended": number, "status": wait status}.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import os
import random
import select
import signal
import socket
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from actors.collecting.hosts.hosted_world import HostedWorld
from actors.collecting.hosts.messages import HEAD, Close, Failed, frame, request_of, to_bytes
from experience.signal import SignalKind
from experience.text.strict_json import dumps

_PROBE_SECONDS = 30.0
_SET_CHILD_SUBREAPER = 36
_SET_PARENT_DEATH_SIGNAL = 1


class Template:
    """Forks hosts when it is told to, and reaps them."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._hosts: dict[int, int] = {}
        """Process id of a host -> its number."""
        self._looked_at: set[str] = set()
        self._libc = ctypes.CDLL(None)
        # what a dead host leaves behind becomes a child of this process, and is found here
        self._libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._wake, button = os.pipe()
        os.set_blocking(button, False)
        signal.set_wakeup_fd(button, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the collector decides when hosts end

    def serve(self) -> None:
        """Until the collector is gone. Then, and after any error, all hosts are killed."""
        try:
            self._serve()
        finally:
            for process in self._hosts:
                _kill(process)
            self._reap(all_of_them=True)

    def _serve(self) -> None:
        while True:
            control = self._control.fileno()
            readable, _, _ = select.select([control, self._wake], [], [])
            if self._wake in readable:
                os.read(self._wake, 4096)
                self._reap()
            if control in readable:
                data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 20, 1)
                if not data:
                    return
                self._obey(json.loads(data), descriptors)

    def _obey(self, order: dict[str, Any], descriptors: list[int]) -> None:
        if "kill" in order:
            for process, number in self._hosts.items():
                if number == order["kill"]:
                    _kill(process)
            return
        self._load(order["module"])
        (descriptor,) = descriptors
        process = os.fork()
        if not process:
            try:
                self._become_a_host(order, descriptor)
            except BaseException:  # noqa: BLE001  nothing of the template may go on in a fork
                traceback.print_exc()
            finally:
                os._exit(70)
        os.close(descriptor)
        self._hosts[process] = order["fork"]

    def _load(self, module: str) -> None:
        """Imports the module of a world here, so that all its hosts share it, if that is harmless.

        A fork tries first: an import may hang, crash, or start threads, which no fork survives.
        """
        if not module or module in self._looked_at:
            return
        self._looked_at.add(module)
        trial = os.fork()
        if not trial:
            os._exit(_try_import(module))
        watch = os.pidfd_open(trial)
        ended, _, _ = select.select([watch], [], [], _PROBE_SECONDS)
        os.close(watch)
        if not ended:
            os.kill(trial, signal.SIGKILL)
        _, status = os.waitpid(trial, 0)
        if status == 0:
            folder = os.getcwd()
            import_module(module)
            os.chdir(folder)
            gc.freeze()  # a fork's collector of garbage leaves these pages alone, and shared

    def _become_a_host(self, order: dict[str, Any], descriptor: int) -> None:
        """The fork's whole life: never returns."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._wake)
        self._control.close()
        os.setsid()
        self._libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        self._libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if os.path.isdir(order["folder"]):
            os.chdir(order["folder"])
        # a fork has its template's random numbers: worlds that use the global ones would agree
        random.seed(order["fork"])
        np.random.seed(order["fork"])
        serve_host(
            socket.socket(fileno=descriptor),
            order["world"],
            order["arguments"],
            order["catalogue"],
        )

    def _reap(self, all_of_them: bool = False) -> None:
        """Takes note of every process that ended, and kills what ended hosts have left behind."""
        while True:
            try:
                process, status = os.waitpid(-1, 0 if all_of_them else os.WNOHANG)
            except ChildProcessError:
                return
            if not process:
                return
            number = self._hosts.pop(process, None)
            for orphan in _children() - self._hosts.keys():
                _kill(orphan)
            if number is not None and not all_of_them:
                with contextlib.suppress(OSError):  # the collector is gone: `_serve` will see it
                    self._control.send(dumps({"ended": number, "status": status}).encode())


def serve_host(
    control: socket.socket, world: str, arguments: dict[str, Any], catalogue: dict[str, Any]
) -> None:
    """Answers requests until one closes the world, or the collector is gone. Ends the process."""
    kinds = {name: SignalKind(*kind) for name, kind in catalogue.items()} or None
    hosted = HostedWorld(world, arguments, kinds)
    control.setblocking(True)
    stream = control.makefile("rb")
    while head := stream.read(HEAD.size):
        length, ticket = HEAD.unpack(head)
        request = request_of(stream.read(length + 4 - HEAD.size))
        reply = hosted.reply(request)
        try:
            packed = to_bytes(reply)
        except BaseException as error:  # noqa: BLE001  a world's answer may be of any kind
            packed = to_bytes(Failed.of(error))
        control.sendall(frame(ticket, packed))
        if isinstance(request, Close):
            break
    os._exit(0)  # at once: what a world registered for the end of its process may hang, too


def _try_import(module: str) -> int:
    """0 if the module can be imported and starts no thread."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        import_module(module)
    except BaseException:  # noqa: BLE001  a module may raise anything; its host will say what
        return 1
    threads = len(list(Path("/proc/self/task").iterdir()))
    return 0 if threads == 1 else 2


def _children() -> set[int]:
    me = os.getpid()
    return {int(p) for p in Path(f"/proc/{me}/task/{me}/children").read_text().split()}


def _kill(process: int) -> None:
    """Kills a host and its session's group; what is left is found when it is reaped."""
    for kill in (os.killpg, os.kill):
        try:
            kill(process, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


if __name__ == "__main__":
    for written in (sys.stdout, sys.stderr):
        assert isinstance(written, io.TextIOWrapper)
        written.reconfigure(line_buffering=True)  # a host may be killed at any moment
    Template(socket.socket(fileno=int(sys.argv[1]))).serve()
