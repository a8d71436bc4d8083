"""desktop/office: tasks on a real desktop (LibreOffice, editor, files, calculator, terminal) by
mouse and keys.

The agent reads the titles of the windows, and what the active window's program says over the
accessibility bus: one line for each thing, with the pixel of its middle. Screenshots come on
demand. The reward is read outside: from files, from documents that a second LibreOffice opens, and
from the display's windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from envs.authoring import Outcome, SignalKind
from envs.desktop.desktop import LOOK_SECONDS, Desktop
from envs.desktop.display import HEIGHT, WIDTH
from envs.desktop.nodes import lines
from envs.desktop.office import expert
from envs.desktop.office.computer_13 import Computer13
from envs.desktop.office.judge import judge
from envs.desktop.office.scene import Scene, set_up
from envs.desktop.office.spares import Spares
from envs.desktop.office.tasks import DesktopTask, draw_task
from envs.desktop.programs import programs
from envs.sandbox.cage import tier

_LIBREOFFICE_QUIET_SECONDS = 0.4
"""LibreOffice brings its tool bars up to date 0.3 s after it has nothing else to do."""


class DesktopOffice(Computer13[DesktopTask]):
    """The world. With `screenshots`, every step carries a PNG of the screen."""

    env_version: ClassVar[str] = "1"
    max_turns = 15
    goes_back: ClassVar[bool] = False
    observation_characters: int = 6000
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "done": SignalKind("fraction", "env_state"),
        "harm": SignalKind("count", "env_state"),
        "actions": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"done": 1.0, "harm": -0.5, "actions": -0.01}
    briefing: ClassVar[str] = (
        "Do one errand on a computer desktop, by mouse and keyboard. You read the titles of the "
        "windows, and each thing in the active window with the pixel of its middle, as in "
        "@x,y. The screen is "
        f"{WIDTH} pixels wide and {HEIGHT} high. Save what you change in a document."
    )
    meanings: ClassVar[dict[str, str]] = {
        "done": "if the errand is done when you say so",
        "harm": "for each thing that you damaged: other files, other windows",
        "actions": "for each action",
    }
    oracle_target: ClassVar[float] = 0.9
    cheats: ClassVar[Sequence[str | Sequence[str]]] = (
        "done",
        "fail",
        "typing done\\n",
        ["hotkey ctrl+s", "done"],
        ["press f5", "wait", "done"],
        ["typing 99\\n", "hotkey ctrl+s", "done"],
        ["hotkey ctrl+a", "press delete", "hotkey ctrl+s", "done"],
        ["hotkey ctrl+q", "done"],
        ["hotkey alt+f4", "hotkey alt+f4", "hotkey alt+f4", "done"],
        ["typing touch count.txt answer.txt\\n", "done"],
        ["typing kill -9 -1\\n", "done"],
        ["typing rm -rf /home/*\\n", "done"],
        ["key_down ctrl", "press s", "done"],
    )

    def __init__(self, screenshots: bool = False) -> None:
        super().__init__()
        programs()
        self._screenshots = screenshots
        self._desktop: Desktop | None = None
        self.sandbox_tier = f"{tier()}"

    @property
    def desktop(self) -> Desktop:
        assert self._desktop is not None
        return self._desktop

    def draw(self, rng: np.random.Generator) -> DesktopTask:
        return draw_task(rng)

    def signature(self, task: DesktopTask) -> str:
        return task.signature

    def begin(self) -> None:
        self.close()
        # Kept before anything can fail, so that `close` ends it in any case.
        self._desktop = Spares.take()
        self.scene: Scene = set_up(self.task, self._desktop)
        self._actions_of_expert = 0
        self._look()

    def close(self) -> None:
        if self._desktop is not None:
            self._desktop.close()
            self._desktop = None

    def _look(self) -> None:
        """Waits until the desktop is at rest, and keeps what it shows."""
        slow = self.task.uses_libreoffice
        self.desktop.settle(quiet_seconds=_LIBREOFFICE_QUIET_SECONDS if slow else LOOK_SECONDS)
        self._windows = self.desktop.window_manager.windows()
        self._nodes = self.desktop.accessibility.windows()

    def observe(self) -> str:
        titles = [f"window {w.title}{' (active)' if w.active else ''}" for w in self._windows]
        active = [node for node in self._nodes if "active" in node.states] or self._nodes
        return "\n".join([self.task.goal, *titles, *lines(active)])

    @property
    def gives_images(self) -> bool:
        return self._screenshots

    def describe(self) -> str:
        titles = [f"- {w.title}{' (active)' if w.active else ''}" for w in self._windows]
        active = [node for node in self._nodes if "active" in node.states] or self._nodes
        return "\n".join(
            [
                f"Errand: {self.task.goal}.",
                "Windows:" if titles else "No window is open.",
                *titles,
                "In the active window:",
                *lines(active),
            ]
        )

    def example(self) -> str:
        return f"move_to {WIDTH // 2} {HEIGHT // 2}"

    def images(self) -> dict[str, bytes]:
        return {"screenshot": self.desktop.framebuffer.png()} if self._screenshots else {}

    def act(self, action: str) -> Outcome:
        signals, ended = super().act(action)
        if not ended:
            self._look()
        return signals, ended

    def judged(self) -> Outcome:
        self.desktop.settle()
        return {"actions": 1.0, **judge(self.scene)}, True

    def expert_action(self) -> str:
        plan = expert.plan(self.scene, self._nodes)
        self._actions_of_expert += 1
        number = self._actions_of_expert
        return plan[number - 1] if number <= len(plan) else "done"
