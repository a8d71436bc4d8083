"""What worlds that are a site in the reference browser share: a fresh context an episode,
screenshots when asked, and the actions of an agent that reads a page's lines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, ClassVar, Generic, TypeVar
from urllib.parse import parse_qsl

import numpy as np

from envs.authoring import Outcome, Range, ToolWorld, action
from envs.browser.chrome.chromium import Answers, Chromium, Reply, Request, Tab
from envs.contract import Task, World

Result = TypeVar("Result")
Serve = Callable[[str, str, dict[str, str]], str | None]
"""(method, path, form) -> HTML, or None for 404."""


def pages(serve: Serve) -> Answers:
    """The answers of a site that has nothing but pages and forms."""

    def answer(asked: Request) -> Reply:
        form = dict(parse_qsl(asked.body.decode("utf-8", "replace"), keep_blank_values=True))
        html = serve(asked.method, asked.path, form)
        return Reply(
            404 if html is None else 200,
            "text/html; charset=utf-8",
            (html or "no such page").encode(),
        )

    return answer


class SiteWorld(World[Task], Generic[Task]):
    """Subclasses `visit` their server in `begin`. `screenshots` puts one into every step."""

    sandbox_tier = "namespaces+chromium"
    spells_out: ClassVar[bool] = True

    _visits: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(self, screenshots: bool = False) -> None:
        super().__init__()
        self._screenshots = screenshots
        self._tab: Tab | None = None

    @property
    def tab(self) -> Tab:
        assert self._tab is not None
        return self._tab

    def visit(self, name: str, answers: Answers, styled: bool = False) -> None:
        """A fresh context that knows only this site."""
        self._leave()
        self._browser = Chromium.shared()
        self._tab = self._browser.wait(
            self._browser.open(f"http://{name}{next(self._visits)}.test", answers, styled)
        )

    def wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._browser.wait(work)

    def images(self) -> dict[str, bytes]:
        return {"screenshot": self.wait(self.tab.screenshot())} if self._screenshots else {}

    def _leave(self) -> None:
        if self._tab is not None:
            self.wait(self._tab.close())
            self._tab = None

    def close(self) -> None:
        self._leave()


class SiteTools(SiteWorld[Task], ToolWorld[Task], Generic[Task]):
    """A site of many pages, whose agent sees the goal and the page's lines and says itself when it
    is done: subclasses give `goal`, an action `finish` and an expert's `_clicks` before it, and may
    name `places` to go to."""

    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    places: ClassVar[tuple[str, ...]] = ()
    _clicks: list[str]

    @property
    def goal(self) -> str:
        raise NotImplementedError

    def look(self) -> None:
        self._lines = self.wait(self.tab.lines())

    def observe(self) -> str:
        return "\n".join([self.goal, *self._lines])

    def _does(self, work: Coroutine[Any, Any, None]) -> Outcome:
        self.wait(work)
        self.look()
        return {"actions": 1.0}, False

    @action
    def click(self, element: str) -> Outcome:
        """Click an element by its number or name."""
        return self._does(self.tab.click(self.tab.find(element)[0]))

    @action
    def type(self, element_and_text: str) -> Outcome:
        """Replace what a field holds, e.g. `type Title lunch`."""
        element, text = self.tab.find(element_and_text)
        return self._does(self.tab.type(element, text))

    @action
    def select(self, element_and_option: str) -> Outcome:
        """Choose from a list, e.g. `select Day Mon`."""
        element, option = self.tab.find(element_and_option)
        return self._does(self.tab.select(element, option))

    @action
    def goto(self, path: str) -> Outcome:
        """Open a page by its path, e.g. /mail."""
        return self._does(self.tab.goto(path))

    @action
    def scroll(self, pixels: Annotated[int, Range(-2000, 2000, 100)]) -> Outcome:
        """Turn the wheel."""
        return self._does(self.tab.scroll(pixels))

    def oracle_action(self) -> str:
        return self._clicks.pop(0) if self._clicks else "finish"

    def random_action(self, rng: np.random.Generator) -> str:
        if rng.random() < 0.15:
            return "finish"
        if self.places and rng.random() < 0.3:
            return f"goto {rng.choice(self.places)}"
        return f"click {int(rng.integers(len(self._lines) or 1)) + 1}"
