"""A caged browser's way out to live sites: a socket inside the cage, served by a proxy outside.

The browser's cage has no network card. Before the browser starts, a short program in the cage opens
a listening socket and hands it out through a Unix socket, which then closes. The proxy that serves
it runs in a place of its own: a dropped uid, no files but its program, and the machine's network.
So the browser reaches the proxy, by it the listed hosts, and nothing else. Not covered: what proxy
does not cover.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from envs.browser.chrome import proxy
from envs.sandbox import confine
from experience.errors import MissingPartError

PROXY = ("127.0.0.1", 3128)  # the proxy's address inside the cage
_START_SECONDS = 30
# `recv` waits until the proxy has said that it is ready; only then the browser starts.
_OPEN_SOCKET = f"""
import os, socket, sys
inside = socket.socket()
inside.bind({PROXY})
inside.listen(128)
with socket.socket(socket.AF_UNIX) as door:
    door.connect(sys.argv[1])
    socket.send_fds(door, [b"."], [inside.fileno()])
    door.recv(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class WayOut:
    """The proxy of one browser, and the program that opens its socket inside the cage."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """Raises ValueError for a host that is no rule, MissingPartError without a Python."""
        for host in hosts:
            proxy.read_rule(host)
        # Only /usr is visible in the cage, so this process's own Python may not be.
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
        if python is None:
            raise MissingPartError("live sites need a Python below /usr", "apt-get install python3")
        self._hosts = hosts
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = confine.folder("xp-door-")
        folder = Path(self._directory.name)
        door = folder / "door"
        program = folder / "open.py"
        program.write_text(_OPEN_SOCKET)
        self.prefix = f"{python} -I {program} {door}"
        """What stands before the browser's command: it opens the socket, then runs the browser."""
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(door))
        door.chmod(0o666)  # the browser's uid is another
        self._listening.listen(1)
        self._listening.settimeout(_START_SECONDS)

    @property
    def readable(self) -> list[Path]:
        """What the cage must show for `prefix` to run."""
        return [Path(self._directory.name)]

    def open(self) -> None:
        """Takes the socket from the cage and starts the proxy on it.

        Raises OSError if no socket comes or the proxy does not start.
        """
        with self._listening, self._listening.accept()[0] as inside:
            _, descriptors, _, _ = socket.recv_fds(inside, 1, 1)
            listening = descriptors[0]
            try:
                self._process = self._started(listening)
            finally:
                os.close(listening)
            assert self._process.stdout is not None
            if not self._process.stdout.readline():
                raise OSError("the proxy does not start")
            inside.send(b".")

    def _started(self, listening: int) -> subprocess.Popen[bytes]:
        """The proxy in its place, with the socket `listening` as its stdin."""
        pipes = {"stdin": listening, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with tempfile.TemporaryFile() as program:
            program.write(Path(proxy.__file__).read_bytes())
            program.seek(0)
            return confine.start(
                [self._python, "-I", "/proxy.py", *self._hosts],
                network=True,
                data={"/proxy.py": program.fileno()},
                pipes=pipes,
            )

    def close(self) -> None:
        """Ends the proxy."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._directory.cleanup()
