"""A caged browser's way out to live sites: a socket that listens inside the cage and that the proxy
outside serves.

Before the browser starts, a few lines inside its cage (which has no network card) open a listening
socket and hand it out through a door that is then shut. The proxy that takes it is in a place of
its own: a dropped uid, no files but its program, and the machine's network. So the browser reaches
the proxy, and by it the listed hosts; nothing else.
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

PROXY = ("127.0.0.1", 3128)  # where the browser finds it, inside
_OPEN_DOOR = f"""
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
    """The proxy of one browser."""

    def __init__(self, hosts: Sequence[str]) -> None:
        for host in hosts:
            proxy.read_rule(host)
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
        if python is None:
            raise MissingPartError("live sites need a Python below /usr", "apt-get install python3")
        self._hosts, self._python = hosts, python
        self._directory = confine.folder("xp-door-")
        door, program = (Path(self._directory.name) / name for name in ("door", "open.py"))
        program.write_text(_OPEN_DOOR)
        self.before = f"{python} -I {program} {door}"
        """What opens the door from inside, before the browser starts."""
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(door))
        door.chmod(0o666)
        self._listening.listen(1)
        self._listening.settimeout(30)

    @property
    def readable(self) -> list[Path]:
        return [Path(self._directory.name)]

    def open(self) -> None:
        """Takes the socket from inside the cage and starts the proxy on it.

        Raises OSError where none comes.
        """
        with (
            self._listening,
            self._listening.accept()[0] as inside,
            tempfile.TemporaryFile() as program,
        ):
            _, (descriptor, *_), _, _ = socket.recv_fds(inside, 1, 1)
            program.write(Path(proxy.__file__).read_bytes())
            program.seek(0)
            try:
                self._process = confine.start(
                    [self._python, "-I", "/proxy.py", *self._hosts],
                    network=True,
                    data={"/proxy.py": program.fileno()},
                    pipes={
                        "stdin": descriptor,
                        "stdout": subprocess.PIPE,
                        "stderr": subprocess.DEVNULL,
                    },
                )
            finally:
                os.close(descriptor)
            assert self._process.stdout is not None
            if not self._process.stdout.readline():
                raise OSError("the proxy does not start")
            inside.send(b".")

    def close(self) -> None:
        """Ends the proxy."""
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()
