"""One running desktop, seen and touched from outside its place.

Its sockets are opened before the agent acts, so no program of the agent can stand in for them.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from envs.desktop.accessibility import Accessibility
from envs.desktop.display import Display
from envs.desktop.framebuffer import open_framebuffer
from envs.desktop.home import Home, packed
from envs.desktop.input_devices import Keyboard, Mouse
from envs.desktop.processes import START_SECONDS, DesktopProcesses, connect
from envs.desktop.programs import programs
from envs.desktop.windows import Window, WindowManager

LOOK_SECONDS = 0.03
"""Time between two looks at the screen."""
_QUIET_CPU_SECONDS = 0.004
"""CPU time of all programs between two looks, below which they count as idle."""
_MOST_CPU_SECONDS = 2.0
_CLOCK_FACTOR = 3
"""How much longer than its CPU time a desktop may take by the clock, on a busy machine."""


class Desktop:
    """A running desktop with `files` (path below the home -> bytes) in it.

    Close it when the episode ends.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        programs()
        self._connections = ExitStack()
        self.processes = DesktopProcesses(files)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        wait_for = self.processes.wait_for
        closed_later = self._connections.callback
        root = wait_for(self.processes.root, "the place")
        x_socket = "tmp/.X11-unix/X0"
        self.display = Display(wait_for(partial(connect, f"{root}/{x_socket}"), x_socket))
        closed_later(self.display.close)
        look = partial(open_framebuffer, Path(root, "tmp/screen"))
        self.framebuffer = wait_for(look, "the screen")
        closed_later(self.framebuffer.close)
        self.mouse = Mouse(self.display)
        self.keyboard = Keyboard(self.display)
        self.window_manager = WindowManager(self.display)
        wait_for(self.window_manager.ready, "a window manager")
        self.accessibility = Accessibility(wait_for(partial(connect, f"{root}/tmp/bus"), "tmp/bus"))
        closed_later(self.accessibility.close)
        wait_for(self.accessibility.ready, "an accessibility registry")
        self.home = Home(f"{root}/home")
        closed_later(self.home.close)

    @property
    def alive(self) -> bool:
        return self.processes.alive

    def close(self) -> None:
        """Ends every program of the desktop; its files go with it."""
        with suppress(OSError):  # a connection to a dead desktop may fail to close
            self._connections.close()
        self.processes.close()

    def run(self, command: str) -> None:
        """Starts a line of shell, and does not wait for it."""
        self.processes.run(command)

    def put(self, files: Mapping[str, bytes]) -> None:
        """Writes small files (path below the home -> bytes), and waits until they are there.

        Only for before the agent acts: they are written by a program in the place.
        """
        archive = base64.b64encode(packed(files)).decode()
        self.run(f"echo {archive} | base64 -d | tar -xf - -C /home")

        def all_are_there() -> bool | None:
            return all(self.home.read(name) == data for name, data in files.items()) or None

        self.processes.wait_for(all_are_there, "its files")

    def launch(self, command: str, title: str) -> Window:
        """Starts `command`; returns its window, whose title contains `title`, once it is active."""
        before = {window.id for window in self.window_manager.windows()}
        self.run(command)

        def new_window() -> Window | None:
            for window in self.window_manager.windows():
                if window.id not in before and title in window.title and window.active:
                    return window
            return None

        return self.processes.wait_for(new_window, f"a window of {command}")

    def wait_until_started(self, program: str) -> None:
        """Waits until the program runs and the desktop has come to rest after its start."""
        self.processes.wait_for(lambda: self.processes.runs(program) or None, program)
        for _ in range(3):  # it may pause between two phases of its start
            self.settle(START_SECONDS)

    def settle(
        self, most_cpu_seconds: float = _MOST_CPU_SECONDS, quiet_seconds: float = LOOK_SECONDS
    ) -> float:
        """Waits until the desktop has been at rest for `quiet_seconds`; returns the seconds spent.

        At rest: two looks at the screen are equal, the programs used hardly any CPU time between
        them, and no thread waits for a CPU. The wait also ends once the programs have used
        `most_cpu_seconds`. That limit is of CPU time, so that a busy machine ends no wait early.
        """
        started = time.monotonic()
        busy_at = started
        self.display.sync()
        picture = self.framebuffer.pixels()
        spent = self.processes.activity().cpu_seconds
        limit = spent + most_cpu_seconds
        deadline = started + _CLOCK_FACTOR * most_cpu_seconds
        while spent < limit and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            picture_before = picture
            spent_before = spent
            picture = self.framebuffer.pixels()
            activity = self.processes.activity()
            spent = activity.cpu_seconds
            idle = spent - spent_before < _QUIET_CPU_SECONDS and not activity.has_work
            if picture != picture_before or not idle:
                busy_at = time.monotonic()
            elif time.monotonic() - busy_at >= quiet_seconds:
                break
        return time.monotonic() - started
