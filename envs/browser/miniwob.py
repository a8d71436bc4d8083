"""browser/miniwob: the 130 pages of MiniWoB++ (PyPI's `miniwob`), with their own rewards, on the
fast path.

The agent sees the accessibility tree (or its difference to the last one, the DOM, a screenshot, a
screenshot with the elements' numbers drawn) and acts with BrowserGym's words or with the mouse. The
reward is the page's own raw reward in [-1, 1], read by the world; time on the page passes only with
actions, so that none runs out while a model thinks. A page and a seed name a task: the page's
random numbers all come from that seed. `pages="all"` holds one page in five out; the default are
pages for which an expert is written (see miniwob_experts), with one seed in five held out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal

import numpy as np

from envs.authoring import Outcome, Range, SignalKind, ToolWorld, action
from envs.browser.chrome.devtools import Devtools
from envs.browser.chrome.page import Page
from envs.browser.miniwob_experts import EXPERTS, ShownPage
from envs.contract import Split, Task, is_held_out
from experience.errors import MissingPartError

WIDTH = 332
HEIGHT = 214
STEP_MILLISECONDS = 100.0
X = Annotated[float, Range(0, WIDTH)]
Y = Annotated[float, Range(0, HEIGHT)]
See = Literal["tree", "diff", "dom", "screenshot", "marks"]
"""What an agent sees. With the last two, images besides the tree."""

_PAGE = "The page, one line for each element, its number in brackets:"
_HEADINGS: dict[str, str] = {
    "tree": _PAGE,
    "diff": "What has changed on the page: lines with - are gone, lines with + are new:",
    "dom": "The page as HTML:",
    "screenshot": f"You also see a screenshot. {_PAGE}",
    "marks": f"You also see a screenshot with the elements' numbers. {_PAGE}",
}

# Starts an episode as the page's own start button does, from a seed and without its time limit.
BEGIN = """(() => {
  core.EPISODE_MAX_TIME = 1e9;
  Math.seedrandom("%d");
  core.startEpisodeReal();
  const shown = document.getElementById("reward-display");
  if (shown) shown.style.display = "none";
  const asked = core.getUtterance();
  return JSON.stringify(asked && asked.utterance !== undefined ? asked.utterance : asked);
})()"""
_MARK = """%s.forEach(([n, x, y]) => {
  const m = document.createElement("span");
  m.className = "xp-mark"; m.textContent = n;
  m.style.cssText = `position:fixed;left:${x - 6}px;top:${y - 6}px;` +
    "font:bold 9px sans-serif;color:#fff;" +
    "background:#c22;padding:0 2px;z-index:99999;pointer-events:none";
  document.body.appendChild(m);
})"""
_UNMARK = "document.querySelectorAll('.xp-mark').forEach(m => m.remove())"


@lru_cache(maxsize=1)
def html() -> Path:
    """The folder of the pages. Raises MissingPartError without the package."""
    from importlib.util import find_spec

    spec = find_spec("miniwob")
    if spec is None or spec.origin is None:
        raise MissingPartError("browser/miniwob needs PyPI's miniwob", "./xp setup worlds")
    return Path(spec.origin).resolve().parent / "html"


@lru_cache(maxsize=1)
def page_names() -> tuple[str, ...]:
    """All pages, by name."""
    return tuple(sorted(p.stem for p in (html() / "miniwob").glob("*.html")))


class PageWorld(ToolWorld[Task], Generic[Task]):
    """A world that is one page on the fast path: what an agent sees of it, and does on it.

    Subclasses define `begin`, which calls `open` and then `show`, and `measure`.
    """

    forms: ClassVar[dict[str, str]] = {
        "click": "Click the element with that number",
        "fill": "Click a field, and replace what it holds by TEXT",
        "select": "Choose OPTION, by its name, in the list with that number",
        "press": "Press a key, e.g. press Enter or press Control+a",
        "type_text": "Type where the cursor is",
        "dblclick": "Double-click an element",
        "hover": "Move the mouse over an element",
        "drag_and_drop": "Drag one element onto another, both by their numbers",
        "click_at": "Click a place on the page, in pixels from its top left corner",
        "drag_at": "Drag from one place to another, in pixels",
        "scroll": "Turn the mouse wheel down by so many pixels, or up if PIXELS is negative",
        "noop": "Wait a moment",
    }
    sandbox_tier = "namespaces+chromium"

    def __init__(self, see: See, in_place: bool) -> None:
        """With `in_place`, an episode on the page of the last one does not load it again."""
        super().__init__()
        self._see = see
        self._in_place = in_place
        self._page: Page | None = None
        self._url = ""

    def measure(self) -> Outcome:
        """The outcome of the action that was just done, read from the page."""
        raise NotImplementedError

    @property
    def page(self) -> Page:
        assert self._page is not None
        return self._page

    def open(self, url: str) -> None:
        """Loads a page in a fresh context, unless `in_place` and the page is open already."""
        if self._page is not None and self._page.alive and self._in_place and self._url == url:
            return
        self._close_page()
        self._page = Page(Devtools.shared([html()]), WIDTH, HEIGHT)
        self._page.load(url)
        self._url = url

    def show(self, utterance: str) -> None:
        """Reads the page as the first observation of an episode, with the task in words."""
        self.page.forget_references()
        self.page.advance(STEP_MILLISECONDS)
        self._before: ShownPage | None = None
        self.shown = ShownPage(utterance, tuple(self.page.tree()))

    def observe(self) -> str:
        if self._see == "dom":
            body = self.page.evaluate("document.body.innerHTML")
            return f"{self.shown.utterance}\n{body}"
        if self._see == "diff" and self._before is not None and self._before.lines:
            return self.shown.difference(self._before)
        return self.shown.text()

    @property
    def gives_images(self) -> bool:
        return self._see in ("screenshot", "marks")

    def describe(self) -> str:
        asked = self.shown.utterance
        lines = self.observe().removeprefix(asked).lstrip("\n")
        changed = self._see == "diff" and self._before is not None and bool(self._before.lines)
        return f"Task: {asked}\n{_HEADINGS['diff' if changed else self._see]}\n{lines}"

    def example(self) -> str:
        first = self.shown.lines[0] if self.shown.lines else ""
        # The task's own words stand first on a page, and a click on them changes nothing.
        return f"click {self.shown.numbers()[0]}" if "] text " in first else "noop"

    def images(self) -> dict[str, bytes]:
        if self._see == "screenshot":
            return {"screenshot": self.page.screenshot()}
        if self._see == "marks":
            return {"marks": marked_screenshot(self.page, self.shown.numbers())}
        return {}

    def _after_action(self) -> Outcome:
        """Lets time pass after an action and reads the page again."""
        self.page.advance(STEP_MILLISECONDS)
        outcome = self.measure()
        self._before = self.shown
        self.shown = ShownPage(self.shown.utterance, tuple(self.page.tree()))
        return outcome

    @action
    def click(self, element: int) -> Outcome:
        """Click an element by its number."""
        self.page.mouse.click(*self.page.centre(element))
        return self._after_action()

    @action
    def dblclick(self, element: int) -> Outcome:
        """Double-click an element."""
        self.page.mouse.click(*self.page.centre(element), times=2)
        return self._after_action()

    @action
    def hover(self, element: int) -> Outcome:
        """Move the mouse over an element."""
        self.page.mouse.move(*self.page.centre(element))
        return self._after_action()

    @action
    def fill(self, element: int, text: str) -> Outcome:
        """Replace what a field holds."""
        self.page.focus(element)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.press("Backspace")
        self.page.keyboard.type(text)
        return self._after_action()

    @action
    def select(self, element: int, option: str) -> Outcome:
        """Choose an option of a list."""
        self.page.choose(element, option)
        return self._after_action()

    @action
    def press(self, key: str) -> Outcome:
        """Press a key, e.g. Enter or Control+a."""
        self.page.keyboard.press(key)
        return self._after_action()

    @action
    def type_text(self, text: str) -> Outcome:
        """Type where the cursor is."""
        self.page.keyboard.type(text)
        return self._after_action()

    @action
    def drag_and_drop(self, element: int, to: int) -> Outcome:
        """Drag one element onto another."""
        self.page.mouse.drag(*self.page.centre(element), *self.page.centre(to))
        return self._after_action()

    @action
    def scroll(self, pixels: Annotated[int, Range(-2000, 2000, 100)]) -> Outcome:
        """Turn the wheel."""
        self.page.mouse.scroll(WIDTH / 2, HEIGHT / 2, pixels)
        return self._after_action()

    @action
    def click_at(self, x: X, y: Y) -> Outcome:
        """Click a place on the page."""
        self.page.mouse.click(x, y)
        return self._after_action()

    @action
    def drag_at(self, x: X, y: Y, to_x: X, to_y: Y) -> Outcome:
        """Drag from one place to another."""
        self.page.mouse.drag(x, y, to_x, to_y)
        return self._after_action()

    @action
    def noop(self) -> Outcome:
        """Wait a moment."""
        return self._after_action()

    def _close_page(self) -> None:
        if self._page is not None and self._page.alive:
            self._page.close()
        self._page = None

    def close(self) -> None:
        self._close_page()
        super().close()


def marked_screenshot(page: Page, references: Sequence[int]) -> bytes:
    """A screenshot with the number of each visible element drawn on it."""
    marks = []
    for reference in references:
        try:
            marks.append((reference, *page.centre(reference)))
        except ValueError:
            continue  # the tree also holds elements that cannot be seen
    page.evaluate(_MARK % json.dumps(marks))
    try:
        return page.screenshot()
    finally:
        page.evaluate(_UNMARK)


PageTask = tuple[str, int]
"""(page, seed)"""


class MiniWoB(PageWorld[PageTask]):
    briefing: ClassVar[str] = (
        "Do what the task says on one small web page, which is 332 pixels wide and 214 high. Most "
        "pages end when you press a button such as Submit, so do that last."
    )
    meanings: ClassVar[dict[str, str]] = {
        "page_reward": "times the page's own verdict, from -1 (wrong) to 1 (right)",
        "actions": "for each action",
    }
    goes_back: ClassVar[bool] = True
    spells_out: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "page_reward": SignalKind("fraction", "env_state"),
        "actions": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"page_reward": 1.0, "actions": -0.01}
    max_turns = 10
    oracle_target: ClassVar[float] = 0.85
    cheats = (
        "press Control+Shift+i",
        "press F12",
        "press Control+u",
        "type_text javascript:core.endEpisode(1)",
        "press Control+l",
        "click_at 1000 1000",
        "scroll 99999",
        "fill 1 <script>core.endEpisode(1)</script>",
        "press Escape",
        "type_text WOB_RAW_REWARD_GLOBAL=1",
        "select 1 core.endEpisode(1)",
    )

    def __init__(
        self,
        pages: str | Sequence[str] = "solved",
        see: See = "tree",
        in_place: bool = False,
    ) -> None:
        """`pages` is "all", "solved", one page or several.

        With `in_place`, a page begins its next episode itself, in a tenth of the time, and may keep
        the focus or a value of the one before; otherwise every episode has a fresh context. Raises
        ValueError for a page that does not exist.
        """
        super().__init__(see, in_place)
        self._by_page = pages == "all"
        self._pages = _chosen(pages)
        unknown = set(self._pages) - set(page_names())
        if unknown:
            raise ValueError(
                f"no page {sorted(unknown)[0]!r}: one of {', '.join(page_names()[:8])} …"
            )

    def tasks(self, split: Split, rng: np.random.Generator) -> PageTask:
        if self._by_page:
            among = [p for p in self._pages if is_held_out(p) == (split == "heldout")]
            return among[int(rng.integers(len(among)))], int(rng.integers(2**31))
        return super().tasks(split, rng)

    def draw(self, rng: np.random.Generator) -> PageTask:
        return self._pages[int(rng.integers(len(self._pages)))], int(rng.integers(2**31))

    def signature(self, task: PageTask) -> str:
        name, seed = task
        return f"{name} {seed}"

    def begin(self) -> None:
        name, seed = self.task
        self.open(f"file://{html()}/miniwob/{name}.html")
        asked = json.loads(self.page.evaluate(BEGIN % seed))
        # Some pages ask by a record instead of a sentence.
        self.show(asked.strip() if isinstance(asked, str) else json.dumps(asked))
        self._plan: list[str] = []

    def measure(self) -> Outcome:
        over, reward = self.page.evaluate("[WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL]")
        signals: dict[str, Any] = {"actions": 1.0}
        if over:
            signals["page_reward"] = (float(reward), self.task[0])
        return signals, bool(over)

    def expert_action(self) -> str:
        """The next action of a plan; a new plan is made from what the page shows then.

        Raises NotImplementedError for a page without an expert.
        """
        name, _ = self.task
        if name not in EXPERTS:
            raise NotImplementedError(f"no expert is written for {name}")
        if not self._plan:
            self._plan = EXPERTS[name](self.shown)
        return self._plan.pop(0)

    def random_action(self, rng: np.random.Generator) -> str:
        numbers = self.shown.numbers()
        if not numbers:
            return "noop"
        element = numbers[int(rng.integers(len(numbers)))]
        if rng.random() < 0.8:
            return f"click {element}"
        return f"fill {element} {rng.choice(['a', 'no', 'x'])}"


def _chosen(pages: str | Sequence[str]) -> tuple[str, ...]:
    if pages == "all":
        return page_names()
    if pages == "solved":
        return tuple(EXPERTS)
    return (pages,) if isinstance(pages, str) else tuple(pages)
