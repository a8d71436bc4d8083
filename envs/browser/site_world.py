"""What worlds that are a site in the reference browser share: a fresh context an episode, screenshots when asked."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from typing import Any, ClassVar, Generic, TypeVar

from envs.browser.chromium import Chromium, Serve, Tab
from envs.contract import Task, World

Result = TypeVar("Result")


class SiteWorld(World[Task], Generic[Task]):
    """Subclasses `visit` their server in `begin`. `screenshots` puts one into every step."""

    sandbox_tier = "namespaces+chromium"

    _visits: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(self, screenshots: bool = False) -> None:
        super().__init__()
        self._screenshots = screenshots
        self._tab: Tab | None = None

    @property
    def tab(self) -> Tab:
        assert self._tab is not None
        return self._tab

    def visit(self, name: str, serve: Serve) -> None:
        """A fresh context that knows only this site."""
        self.close()
        self._browser = Chromium.shared()
        self._tab = self._browser.wait(self._browser.open(f"http://{name}{next(self._visits)}.test", serve))

    def wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._browser.wait(work)

    def images(self) -> dict[str, bytes]:
        return {"screenshot": self.wait(self.tab.screenshot())} if self._screenshots else {}

    def close(self) -> None:
        if self._tab is not None:
            self.wait(self._tab.close())
            self._tab = None
