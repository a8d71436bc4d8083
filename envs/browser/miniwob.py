"""browser/miniwob: the 130 pages of MiniWoB++ (PyPI's `miniwob`), with their own rewards, on the
fast path.

The agent sees the accessibility tree (or its difference to the last one, the DOM, a screenshot, a
screenshot with the elements' numbers drawn) and acts with BrowserGym's words or with the mouse. The
reward is the page's own raw reward in [-1, 1], read by the world; time on the page passes only with
actions, so that none runs out while a model thinks. A page and a seed name a task: the page's
random numbers all come from that seed. `pages="all"` holds one page in five out; the default are
pages for which an expert is written here, with one seed in five held out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from envs.authoring import Outcome, Range, SignalKind, ToolWorld, action
from envs.browser.chrome.devtools import Devtools, Page
from envs.contract import Split, is_held_out
from experience.errors import MissingPartError

WIDTH, HEIGHT = 332, 214
STEP_MILLISECONDS = 100.0
Task = tuple[str, int]

_BEGIN = """(() => {
  core.EPISODE_MAX_TIME = 1e9;
  Math.seedrandom("%d");
  core.startEpisodeReal();
  const shown = document.getElementById("reward-display");
  if (shown) shown.style.display = "none";
  const asked = core.getUtterance();
  return JSON.stringify(asked && asked.utterance !== undefined ? asked.utterance : asked);
})()"""


@lru_cache(maxsize=1)
def html() -> Path:
    """Where the pages are. Raises MissingPartError without the package."""
    from importlib.util import find_spec

    spec = find_spec("miniwob")
    if spec is None or spec.origin is None:
        raise MissingPartError("browser/miniwob needs PyPI's miniwob", "./xp setup worlds")
    return Path(spec.origin).resolve().parent / "html"


@lru_cache(maxsize=1)
def page_names() -> tuple[str, ...]:
    """All pages, by name."""
    return tuple(sorted(p.stem for p in (html() / "miniwob").glob("*.html")))


class MiniWoB(ToolWorld[Task]):
    goes_back: ClassVar[bool] = True
    spells_out: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "page_reward": SignalKind("fraction", "env_state"),
        "actions": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"page_reward": 1.0, "actions": -0.01}
    max_turns = 10
    sandbox_tier = "namespaces+chromium"
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
        see: Literal["tree", "diff", "dom", "screenshot", "marks"] = "tree",
        in_place: bool = False,
    ) -> None:
        super().__init__()
        chosen = (
            page_names()
            if pages == "all"
            else tuple(EXPERTS)
            if pages == "solved"
            else tuple([pages] if isinstance(pages, str) else pages)
        )
        unknown = set(chosen) - set(page_names())
        if unknown:
            raise ValueError(
                f"no page {sorted(unknown)[0]!r}: one of {', '.join(page_names()[:8])} …"
            )
        self._pages, self._by_page, self._see = chosen, pages == "all", see
        self._page: Page | None = None
        self._at, self._in_place = "", in_place

    def tasks(self, split: Split, rng: np.random.Generator) -> Task:
        if self._by_page:
            among = [p for p in self._pages if is_held_out(p) == (split == "heldout")]
            return among[int(rng.integers(len(among)))], int(rng.integers(2**31))
        return super().tasks(split, rng)

    def draw(self, rng: np.random.Generator) -> Task:
        return self._pages[int(rng.integers(len(self._pages)))], int(rng.integers(2**31))

    def signature(self, task: Task) -> str:
        return f"{task[0]} {task[1]}"

    @property
    def page(self) -> Page:
        assert self._page is not None
        return self._page

    def begin(self) -> None:
        """Every episode in a fresh context; with `in_place`, the same page begins its next one as
        it is made to, in a tenth of the time, and may keep the focus or a value of the one before.
        """
        name, seed = self.task
        if self._page is None or not self._in_place or self._at != name or not self._page.alive:
            self._leave()
            self._page = Page(Devtools.shared([html()]), WIDTH, HEIGHT)
            self._page.load(f"file://{html()}/miniwob/{name}.html")
            self._at = name
        self.utterance = _plain(json.loads(self.page.evaluate(_BEGIN % seed)))
        self.page.forget_references()
        self.page.advance(STEP_MILLISECONDS)
        self._plan: list[str] = []
        self._before: list[str] = []
        self._look()

    def _look(self) -> None:
        self._lines = self.page.tree()

    def observe(self) -> str:
        if self._see == "dom":
            body = str(self.page.evaluate("document.body.innerHTML"))
            return f"{self.utterance}\n{body}"
        if self._see == "diff" and self._before:
            changed = [f"- {line}" for line in self._before if line not in self._lines] + [
                f"+ {line}" for line in self._lines if line not in self._before
            ]
            return "\n".join([self.utterance, *changed])
        return "\n".join([self.utterance, *self._lines])

    def images(self) -> dict[str, bytes]:
        if self._see == "screenshot":
            return {"screenshot": self.page.screenshot()}
        if self._see == "marks":
            marks = [(n, *place) for n in self._shown() if (place := self._place(n)) is not None]
            self.page.evaluate(_MARK % json.dumps(marks))
            try:
                return {"marks": self.page.screenshot()}
            finally:
                self.page.evaluate("document.querySelectorAll('.xp-mark').forEach(m => m.remove())")
        return {}

    def _shown(self) -> list[int]:
        return [int(line[1 : line.index("]")]) for line in self._lines]

    def _place(self, reference: int) -> tuple[float, float] | None:
        try:
            return self.page.centre(reference)
        except ValueError:
            return None

    def _done(self) -> Outcome:
        self.page.advance(STEP_MILLISECONDS)
        over, reward = self.page.evaluate("[WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL]")
        self._before = self._lines
        self._look()
        signals: dict[str, Any] = {"actions": 1.0}
        if over:
            signals["page_reward"] = (float(reward), self.task[0])
        return signals, bool(over)

    @action
    def click(self, element: int) -> Outcome:
        """Click an element by its number."""
        self.page.click(*self.page.centre(element))
        return self._done()

    @action
    def dblclick(self, element: int) -> Outcome:
        """Double-click an element."""
        self.page.click(*self.page.centre(element), times=2)
        return self._done()

    @action
    def hover(self, element: int) -> Outcome:
        """Move the mouse over an element."""
        self.page.mouse("mouseMoved", *self.page.centre(element))
        return self._done()

    @action
    def fill(self, element: int, text: str) -> Outcome:
        """Replace what a field holds."""
        self.page.focus(element)
        self.page.press("Control+a")
        self.page.press("Backspace")
        self.page.type(text)
        return self._done()

    @action
    def select(self, element: int, option: str) -> Outcome:
        """Choose an option of a list."""
        self.page.choose(element, option)
        return self._done()

    @action
    def press(self, key: str) -> Outcome:
        """Press a key, e.g. Enter or Control+a."""
        self.page.press(key)
        return self._done()

    @action
    def type_text(self, text: str) -> Outcome:
        """Type where the cursor is."""
        self.page.type(text)
        return self._done()

    @action
    def drag_and_drop(self, element: int, to: int) -> Outcome:
        """Drag one element onto another."""
        self.page.drag(*self.page.centre(element), *self.page.centre(to))
        return self._done()

    @action
    def scroll(self, pixels: Annotated[int, Range(-2000, 2000, 100)]) -> Outcome:
        """Turn the wheel."""
        self.page.scroll(WIDTH / 2, HEIGHT / 2, pixels)
        return self._done()

    @action
    def click_at(
        self, x: Annotated[float, Range(0, WIDTH)], y: Annotated[float, Range(0, HEIGHT)]
    ) -> Outcome:
        """Click a place on the page."""
        self.page.click(x, y)
        return self._done()

    @action
    def drag_at(
        self,
        x: Annotated[float, Range(0, WIDTH)],
        y: Annotated[float, Range(0, HEIGHT)],
        to_x: Annotated[float, Range(0, WIDTH)],
        to_y: Annotated[float, Range(0, HEIGHT)],
    ) -> Outcome:
        """Drag from one place to another."""
        self.page.drag(x, y, to_x, to_y)
        return self._done()

    @action
    def noop(self) -> Outcome:
        """Wait a moment."""
        return self._done()

    def find(self, name: str, role: str = r"\w+") -> int:
        """The number of the first element of that name and role.

        Raises ValueError if there is none.
        """
        for line in self._lines:
            found = re.match(rf'\[(\d+)\] {role} "(.*?)"(?: = .*| \(.*)?$', line)
            if found and found[2] == name:
                return int(found[1])
        raise ValueError(f"no {role} {name}")

    def first(self, role: str, nth: int = 0) -> int:
        """The number of the nth element of a role."""
        return [
            int(line[1 : line.index("]")])
            for line in self._lines
            if line.partition("] ")[2].startswith(role)
        ][nth]

    def expert_action(self) -> str:
        """What a person would do on the pages that an expert is written for.

        Raises NotImplementedError on others.
        """
        if self.task[0] not in EXPERTS:
            raise NotImplementedError(f"no expert is written for {self.task[0]}")
        if not self._plan:
            self._plan = EXPERTS[self.task[0]](self)
        return self._plan.pop(0)

    def random_action(self, rng: np.random.Generator) -> str:
        shown = self._shown()
        if not shown:
            return "noop"
        element = int(shown[int(rng.integers(len(shown)))])
        return (
            f"click {element}"
            if rng.random() < 0.8
            else f"fill {element} {rng.choice(['a', 'no', 'x'])}"
        )

    def _leave(self) -> None:
        if self._page is not None and self._page.alive:
            self._page.close()
        self._page = None

    def close(self) -> None:
        self._leave()
        super().close()


_MARK = """%s.forEach(([n, x, y]) => {
  const m = document.createElement("span");
  m.className = "xp-mark"; m.textContent = n;
  m.style.cssText = `position:fixed;left:${x - 6}px;top:${y - 6}px;font:bold 9px sans-serif;color:#fff;` +
    "background:#c22;padding:0 2px;z-index:99999;pointer-events:none";
  document.body.appendChild(m);
})"""


def _plain(asked: Any) -> str:
    """The task in words; some pages ask by a record."""
    return asked.strip() if isinstance(asked, str) else json.dumps(asked)


def _quoted(world: MiniWoB) -> list[str]:
    return re.findall(r'"([^"]*)"', world.utterance)


def _listed(world: MiniWoB) -> list[str]:
    """What stands between "Select" and "and click Submit"."""
    wanted = re.sub(r"^Select (.*?) and click Submit.*$", r"\1", world.utterance)
    return [] if wanted == "nothing" else wanted.split(", ")


def _submit(world: MiniWoB) -> str:
    return f"click {world.find('Submit', 'button')}"


def _login(world: MiniWoB) -> list[str]:
    name, password = _quoted(world)
    return [
        f"fill {world.first('textbox')} {name}",
        f"fill {world.first('textbox', 1)} {password}",
        f"click {world.find('Login', 'button')}",
    ]


EXPERTS: dict[str, Callable[[MiniWoB], list[str]]] = {
    "click-test": lambda w: [f"click {w.find('Click Me!', 'button')}"],
    "click-test-2": lambda w: [f"click {w.find('ONE', 'button')}"],
    "click-button": lambda w: [f"click {w.find(_quoted(w)[0], 'button')}"],
    "click-button-sequence": lambda w: [
        f"click {w.find('ONE', 'button')}",
        f"click {w.find('TWO', 'button')}",
    ],
    "click-link": lambda w: [f"click {w.find(_quoted(w)[0])}"],
    "click-dialog": lambda w: [f"click {w.find('Close', 'button')}"],
    "focus-text": lambda w: [f"click {w.first('textbox')}"],
    "enter-text": lambda w: [f"fill {w.first('textbox')} {_quoted(w)[0]}", _submit(w)],
    "enter-password": lambda w: [
        f"fill {w.first('textbox')} {_quoted(w)[0]}",
        f"fill {w.first('textbox', 1)} {_quoted(w)[0]}",
        _submit(w),
    ],
    "click-checkboxes": lambda w: [
        *(f"click {w.find(n, 'checkbox')}" for n in _listed(w)),
        _submit(w),
    ],
    "click-option": lambda w: [f"click {w.find(_listed(w)[0], 'radio')}", _submit(w)],
    "choose-list": lambda w: [
        f"select {w.first('combobox')} {w.utterance[7:].partition(' from the list')[0]}",
        _submit(w),
    ],
    "login-user": _login,
}
"""For each page, what a person does: read once from what is seen at the start."""
