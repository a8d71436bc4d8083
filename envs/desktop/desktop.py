"""A desktop in a place of its own: Xvfb, a window manager, an accessibility bus and real programs,
in bubblewrap.

Nothing of it reaches the network or the host's files: the home is an empty tmpfs filled from
memory, the uid is one that no account has, and the place goes with its episode. We see and touch it
through its sockets, which are opened before the agent acts; afterwards files are read component by
component, following no link, regular ones only. Does not cover: a kernel vulnerability.
"""

from __future__ import annotations

import base64
import glob
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TypeVar

from envs.desktop.accessibility import Accessibility
from envs.desktop.screen import HEIGHT, WIDTH, Screen, Window
from envs.sandbox import confine
from envs.sandbox.limits import DESKTOP, tree
from experience.errors import EnvironmentFailure, MissingPartError

Found = TypeVar("Found")

PROGRAMS = {
    "Xvfb": "xvfb",
    "openbox": "openbox",
    "dbus-daemon": "dbus-daemon",
    "mousepad": "mousepad",
    "galculator": "galculator",
    "pcmanfm": "pcmanfm",
    "lxterminal": "lxterminal",
    "localc": "libreoffice-calc",
    "lowriter": "libreoffice-writer",
}
"""Program -> Debian's package of it."""
_REGISTRY = "/usr/libexec/at-spi2-registryd"
_PARTS = {
    _REGISTRY: "at-spi2-core",
    "/usr/lib/*/gtk-2.0/modules/libatk-bridge.so": "libatk-adaptor",
    "/usr/lib/*/gtk-2.0/modules/libgail.so": "libgail-common",
    "/usr/lib/libreoffice/program/libvclplug_gtk3lo.so": "libreoffice-gtk3",
    "/usr/lib/python3/dist-packages/uno.py": "python3-uno",
}
"""File that must be there -> its package."""
_START_SECONDS = 60.0
LOOK_SECONDS, _QUIET_SECONDS, _CAP_SECONDS = 0.03, 0.004, 2.0
_MOST_FILE_BYTES = 4 << 20

_BUS = """<busconfig><type>session</type><auth>EXTERNAL</auth><auth>ANONYMOUS</auth><allow_anonymous/>
<listen>unix:path=/tmp/none</listen><policy context="default"><allow user="*"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
"""
_START = f"""
tar -xf /files.tar -C /home
mkdir -m 700 -p /tmp/run /tmp/screen
Xvfb :0 -screen 0 {WIDTH}x{HEIGHT}x24 -fbdir /tmp/screen -nolisten tcp -noreset -ac -r >/dev/null 2>&1 &
dbus-daemon --config-file=/bus.conf --address=unix:path=/tmp/bus --nofork >/dev/null 2>&1 &
dbus-daemon --config-file=/bus.conf --address=unix:path=/tmp/session --nofork >/dev/null 2>&1 &
while ! [ -S /tmp/.X11-unix/X0 -a -S /tmp/bus -a -S /tmp/session ]; do sleep 0.005; done
DBUS_SESSION_BUS_ADDRESS=unix:path=/tmp/bus {_REGISTRY} >/dev/null 2>&1 &
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
_SETTINGS = {
    ".config/gtk-3.0/settings.ini": b"[Settings]\ngtk-cursor-blink=0\ngtk-enable-animations=0\n",
    ".gtkrc-2.0": b"gtk-cursor-blink=0\n",
}


def programs() -> str:
    """What a desktop is made of. Raises MissingPartError for what is not installed."""
    missing = [package for name, package in PROGRAMS.items() if not shutil.which(name)]
    missing += [package for pattern, package in _PARTS.items() if not glob.glob(pattern)]
    missing += [
        f"the Python package {name}" for name in ("xcffib", "jeepney") if find_spec(name) is None
    ]
    if missing:
        raise MissingPartError(f"a desktop needs {', '.join(missing)}", "./xp setup worlds")
    return ", ".join(PROGRAMS)


def packed(files: Mapping[str, bytes]) -> bytes:
    """The files of a home as a tar, owned by whoever unpacks it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), 0o644, 1_700_000_000
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


class Desktop:
    """A running desktop with `files` (path below the home -> bytes) in it.

    Close it when the episode ends.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        programs()
        self._process: subprocess.Popen[bytes] | None = None
        with (
            tempfile.TemporaryFile() as tar,
            tempfile.TemporaryFile() as bus,
            tempfile.TemporaryFile() as users,
        ):
            for file, data in (
                (tar, packed(_SETTINGS | dict(files))),
                (bus, _BUS.encode()),
                (users, confine.account()),
            ):
                file.write(data)
                file.seek(0)
            self._process = confine.start(
                ["sh", "-c", _START],
                environment=_ENVIRONMENT,
                chdir="/home",
                limits=DESKTOP,
                readable=[Path("/etc/xdg/openbox")],
                data={
                    "/files.tar": tar.fileno(),
                    "/bus.conf": bus.fileno(),
                    "/etc/passwd": users.fileno(),
                },
                pipes={
                    "stdin": subprocess.PIPE,
                    "stdout": subprocess.DEVNULL,
                    "stderr": subprocess.DEVNULL,
                },
            )
        try:
            self._root = self._until(self._find_root, "the place")
            self.screen = Screen(
                self._connect("tmp/.X11-unix/X0"), self._until(self._frame, "the screen")
            )
            self._until(self.screen.managed, "a window manager")
            self.tree = Accessibility(self._connect("tmp/bus"))
            self._until(self.tree.ready, "an accessibility registry")
            self._home = os.open(f"{self._root}/home", os.O_RDONLY | os.O_DIRECTORY)
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """Ends every program of the desktop; its files go with it."""
        for part in ("screen", "tree"):
            if hasattr(self, part):
                with suppress(OSError):
                    getattr(self, part).close()
                delattr(self, part)
        if hasattr(self, "_home"):
            os.close(self._home)
            del self._home
        if self._process is not None:
            self._process.kill()
            if self._process.stdin:
                self._process.stdin.close()
            self._process.wait()
            self._process = None

    # ── programs

    def run(self, command: str) -> None:
        """Starts a line of shell, and does not wait for it."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(command.encode() + b"\n")
        except OSError as gone:
            raise EnvironmentFailure(f"the desktop is gone: {gone}", "it is built anew") from gone

    def put(self, files: Mapping[str, bytes]) -> None:
        """Writes files (path below the home -> bytes; small ones) from within the place, and waits
        until they are there. For before the agent acts."""
        told = base64.b64encode(packed(files)).decode()
        self.run(f"echo {told} | base64 -d | tar -xf - -C /home")
        self._until(
            lambda: all(self.read(name) == data for name, data in files.items()) or None,
            "its files",
        )

    def launch(self, command: str, title: str) -> Window:
        """The new window of `command`, once it is there; `title` is in the window's."""
        before = {w.id for w in self.screen.windows()}
        self.run(command)
        return self._until(
            lambda: next(
                (
                    w
                    for w in self.screen.windows()
                    if w.id not in before and title in w.title and w.active
                ),
                None,
            ),
            f"a window of {command}",
        )

    def settle(
        self, cap_seconds: float = _CAP_SECONDS, quiet_seconds: float = LOOK_SECONDS
    ) -> float:
        """Until the screen stands still and the programs rest for `quiet_seconds` (looks 30 ms
        apart are equal, hardly any CPU time went by, and no thread waits for some), or until the
        cap: how long that took, in seconds. The cap is of their CPU time, so that a busy machine
        ends nothing early, and of three times as much by the clock."""
        started = still = time.monotonic()
        self.screen.sync()
        picture, (spent, _) = self.screen.pixels(), self._activity()
        most = spent + cap_seconds
        while spent < most and time.monotonic() - started < 3 * cap_seconds:
            time.sleep(LOOK_SECONDS)
            again, (now, waits) = self.screen.pixels(), self._activity()
            if again != picture or now - spent >= _QUIET_SECONDS or waits:
                still = time.monotonic()
            elif time.monotonic() - still >= quiet_seconds:
                break
            picture, spent = again, now
        return time.monotonic() - started

    def rest(self, started: str) -> None:
        """Until the program `started` runs and the desktop has come to rest after it."""

        def runs() -> bool | None:
            names = set()
            for pid in self._pids():
                with suppress(OSError), open(f"/proc/{pid}/comm") as file:
                    names.add(file.read().strip())
            return started in names or None

        self._until(runs, started)
        for _ in range(3):  # it may pause between two parts of its start
            self.settle(_START_SECONDS)

    def _activity(self) -> tuple[float, bool]:
        """CPU seconds of every thread of the desktop so far, and whether one of them runs or waits
        for a CPU."""
        total, waits = 0, False
        for pid in self._pids():
            try:
                for thread in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                        total += int(file.read().split()[0])
                    with open(f"/proc/{pid}/task/{thread}/stat") as file:
                        waits = waits or file.read().rpartition(")")[2].split()[0] == "R"
            except (OSError, IndexError, ValueError):
                continue
        return total / 1e9, waits

    def _pids(self) -> list[int]:
        assert self._process is not None
        return tree(self._process.pid)

    # ── files

    def read(self, path: str) -> bytes | None:
        """A regular file below the home, if it is there and of sensible size; no link on the way is
        followed."""
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        if descriptor is None:
            return None
        try:
            told = os.fstat(descriptor)
            if not stat.S_ISREG(told.st_mode) or told.st_size > _MOST_FILE_BYTES:
                return None
            return os.pread(descriptor, told.st_size, 0)
        finally:
            os.close(descriptor)

    def listing(self, path: str) -> dict[str, str] | None:
        """name -> "file", "folder" or "other", of a folder below the home; None if there is none."""
        descriptor = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        if descriptor is None:
            return None
        try:
            return {
                name: _kind(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
                for name in sorted(os.listdir(descriptor))[:1000]
            }
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _open(self, path: str, flags: int) -> int | None:
        at = os.dup(self._home)
        parts = [p for p in PurePosixPath(path).parts if p not in (".", "/")]
        try:
            for i, part in enumerate(parts):
                last = i == len(parts) - 1
                below = os.open(
                    part,
                    (flags if last else os.O_RDONLY | os.O_DIRECTORY)
                    | os.O_NOFOLLOW
                    | os.O_CLOEXEC,
                    dir_fd=at,
                )
                os.close(at)
                at = below
        except OSError:
            os.close(at)
            return None
        return at

    # ── starting

    def _find_root(self) -> str | None:
        for pid in self._pids()[1:]:
            root = f"/proc/{pid}/root"
            if os.path.exists(f"{root}/tmp/session") and os.path.exists(f"{root}/files.tar"):
                return root
        return None

    def _frame(self) -> io.FileIO | None:
        with suppress(OSError):
            file = io.FileIO(
                os.open(f"{self._root}/tmp/screen/Xvfb_screen0", os.O_RDONLY | os.O_NOFOLLOW)
            )
            if os.fstat(file.fileno()).st_size > WIDTH * HEIGHT * 4:
                return file
            file.close()
        return None

    def _connect(self, path: str) -> socket.socket:
        def connected() -> socket.socket | None:
            made = socket.socket(socket.AF_UNIX)
            try:
                made.connect(f"{self._root}/{path}")
            except OSError:
                made.close()
                return None
            return made

        return self._until(connected, path)

    def _until(self, look: Callable[[], Found | None], what: str) -> Found:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self.alive:
            if (found := look()) is not None:
                return found
            time.sleep(0.003)
        raise EnvironmentFailure(
            f"the desktop did not show {what} within {_START_SECONDS:g} s"
            if self.alive
            else f"the desktop ended before it showed {what}",
            "run ./xp doctor",
        )


def _kind(mode: int) -> str:
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"
