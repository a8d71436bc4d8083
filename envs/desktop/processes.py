"""The processes of a desktop, in a place of their own: Xvfb, a window manager, buses and programs.

Covers: the network; the host's files (the home is an empty tmpfs that is filled from memory); the
user id, which no account has; what the episode leaves behind, as all ends with it. Does not cover:
a kernel vulnerability.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from envs.desktop.display import HEIGHT, WIDTH
from envs.desktop.home import packed
from envs.desktop.programs import REGISTRY
from envs.sandbox import confine
from envs.sandbox.limits import DESKTOP, tree
from experience.errors import EnvironmentFailure

Found = TypeVar("Found")

START_SECONDS = 60.0
_POLL_SECONDS = 0.003

# Anonymous clients are allowed: this process connects from outside the place's user namespace.
_BUS = """<busconfig>
<type>session</type><auth>EXTERNAL</auth><auth>ANONYMOUS</auth><allow_anonymous/>
<listen>unix:path=/tmp/none</listen><policy context="default"><allow user="*"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
"""
# The display repeats no key (-r): a key that is held is one letter, however long a step takes. The
# last line starts each line of stdin as a command.
_START = f"""
tar -xf /files.tar -C /home
mkdir -m 700 -p /tmp/run /tmp/screen
Xvfb :0 -screen 0 {WIDTH}x{HEIGHT}x24 -fbdir /tmp/screen -nolisten tcp -noreset -ac -r \\
    >/dev/null 2>&1 &
dbus-daemon --config-file=/bus.conf --address=unix:path=/tmp/bus --nofork >/dev/null 2>&1 &
dbus-daemon --config-file=/bus.conf --address=unix:path=/tmp/session --nofork >/dev/null 2>&1 &
while ! [ -S /tmp/.X11-unix/X0 -a -S /tmp/bus -a -S /tmp/session ]; do sleep 0.005; done
DBUS_SESSION_BUS_ADDRESS=unix:path=/tmp/bus {REGISTRY} >/dev/null 2>&1 &
openbox >/dev/null 2>&1 &
while IFS= read -r line; do sh -c "$line" </dev/null >/dev/null 2>&1 & done
"""
_ENVIRONMENT = {
    "DISPLAY": ":0",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/tmp/session",
    "TZ": "UTC",
    "AT_SPI_BUS_ADDRESS": "unix:path=/tmp/bus",
    "GTK_MODULES": "gail:atk-bridge",
    "GTK_A11Y": "atspi",
    "SAL_USE_VCLPLUGIN": "gtk3",
    "XDG_RUNTIME_DIR": "/tmp/run",
    "GTK_OVERLAY_SCROLLING": "0",
    "XDG_CURRENT_DESKTOP": "GNOME",
    "SHELL": "/bin/sh",
}
# A cursor that blinks would make the screen never stand still.
_SETTINGS = {
    ".config/gtk-3.0/settings.ini": b"[Settings]\ngtk-cursor-blink=0\ngtk-enable-animations=0\n",
    ".gtkrc-2.0": b"gtk-cursor-blink=0\n",
}


@dataclass(frozen=True)
class Activity:
    """What the threads of a desktop have done so far, and whether one has work now."""

    cpu_seconds: float
    has_work: bool


class DesktopProcesses:
    """The processes of one desktop, started with `files` (path -> bytes) in its home."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        with ExitStack() as opened:
            data = {
                "/files.tar": _file_of(packed(_SETTINGS | dict(files)), opened),
                "/bus.conf": _file_of(_BUS.encode(), opened),
                "/etc/passwd": _file_of(confine.account(), opened),
            }
            self._process = confine.start(
                ["sh", "-c", _START],
                environment=_ENVIRONMENT,
                chdir="/home",
                limits=DESKTOP,
                readable=[Path("/etc/xdg/openbox")],
                data={path: file.fileno() for path, file in data.items()},
                pipes={
                    "stdin": subprocess.PIPE,
                    "stdout": subprocess.DEVNULL,
                    "stderr": subprocess.DEVNULL,
                },
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Ends every process of the desktop; its files go with them."""
        self._process.kill()
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()

    def run(self, command: str) -> None:
        """Starts a line of shell, and does not wait for it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command.encode() + b"\n")
        except OSError as gone:
            raise EnvironmentFailure(f"the desktop is gone: {gone}", "it is built anew") from gone

    def pids(self) -> list[int]:
        """The ids of all processes, bubblewrap's own ones first."""
        return tree(self._process.pid)

    def runs(self, name: str) -> bool:
        """Whether a process of that name runs."""
        for pid in self.pids():
            with suppress(OSError), open(f"/proc/{pid}/comm") as file:
                if file.read().strip() == name:
                    return True
        return False

    def activity(self) -> Activity:
        nanoseconds = 0
        has_work = False
        for pid in self.pids():
            try:
                for thread in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                        nanoseconds += int(file.read().split()[0])
                    with open(f"/proc/{pid}/task/{thread}/stat") as file:
                        # A name in brackets comes first, and may itself hold brackets and spaces.
                        state = file.read().rpartition(")")[2].split()[0]
                    # R: it runs, or waits for a CPU that another process of the machine uses.
                    has_work = has_work or state == "R"
            except (OSError, IndexError, ValueError):
                continue  # it ended meanwhile
        return Activity(nanoseconds / 1e9, has_work)

    def root(self) -> str | None:
        """The path by which this process sees the place's root; None until the place is made."""
        for pid in self.pids()[1:]:
            root = f"/proc/{pid}/root"
            if os.path.exists(f"{root}/tmp/session") and os.path.exists(f"{root}/files.tar"):
                return root
        return None

    def wait_for(self, look: Callable[[], Found | None], what: str) -> Found:
        """The first answer of `look` that is not None.

        Raises EnvironmentFailure, which names `what`, if none comes or the desktop ends.
        """
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.alive:
            found = look()
            if found is not None:
                return found
            time.sleep(_POLL_SECONDS)
        if self.alive:
            problem = f"the desktop did not show {what} within {START_SECONDS:g} s"
        else:
            problem = f"the desktop ended before it showed {what}"
        raise EnvironmentFailure(problem, "run ./xp doctor")


def _file_of(data: bytes, opened: ExitStack) -> IO[bytes]:
    """A temporary file that holds `data`, at its start."""
    file = opened.enter_context(tempfile.TemporaryFile())
    file.write(data)
    file.seek(0)
    return file


def connect(path: str) -> socket.socket | None:
    """A connection to the socket at `path`, or None while nobody listens there."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(path)
    except OSError:
        made.close()
        return None
    return made
