"""browser/office: errands in a small office site, in real Chromium.

The site is a Python object; its pages reach the browser only through the browser's cage (no
network). The agent sees the page's accessibility tree and acts on its elements, by number or by
name. The reward is read from the site's state on the server's side, never from the page: a page's
words about itself count for nothing.
"""

from __future__ import annotations

import html
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from envs.browser.site_world import SiteWorld, pages
from envs.contract import INVALID, Outcome
from envs.refused import Refused
from experience.signal import SignalKind

ITEMS = ("tea", "milk", "rice", "soap", "ink", "bread", "glue", "paper")
NAMES = ("Ann", "Bob", "Cyd", "Dan", "Eve", "Fay", "Gus", "Hal")
PAGES = ("Billing", "Travel", "Staff", "News", "Rooms", "Help", "Legal", "Mail")
COLOURS = ("red", "blue", "green", "pink", "tan", "white", "violet", "olive")
FIELDS = ("item", "quantity", "name", "pick")


@dataclass(frozen=True)
class OfficeTask:
    """What to do, and the one change of the site's state that does it.

    `layout` orders the page's parts.
    """

    family: str
    goal: str
    wanted: tuple[str, ...]
    choices: tuple[str, ...]
    layout: tuple[int, ...]


class Site:
    """The office's server: it serves one task's page and records every change that reaches it."""

    def __init__(self, task: OfficeTask) -> None:
        self.task = task
        self.changes: list[tuple[str, ...]] = []

    def serve(self, method: str, path: str, form: dict[str, str]) -> str | None:
        name = path.strip("/")
        if method == "POST":
            self.changes.append((name, *(form[f] for f in FIELDS if f in form)))
            return "<html><body><h1>Thank you</h1></body></html>"
        if path == "/":
            return _page(self.task)
        if name in PAGES:
            # For the tasks that ask to open a page, opening it is the change.
            self.changes.append(("open", name))
            return f"<html><body><h1>{html.escape(name)}</h1></body></html>"
        return None


def _page(task: OfficeTask) -> str:
    choices = [html.escape(choice) for choice in task.choices]
    parts = _PARTS[task.family](choices)
    body = "".join(parts[i] for i in task.layout)
    return (
        '<html lang="en"><title>Office</title><body><form method="post" '
        f'action="/{task.family}">{body}</form>'
        "</body></html>"
    )


def _order_parts(choices: Sequence[str]) -> list[str]:
    options = "".join(f"<option>{choice}</option>" for choice in choices)
    return [
        f'<p><label>Item <select name="item">{options}</select></label></p>',
        '<p><label>Qty <input name="quantity" value="1"></label></p>',
        "<p><button>Order</button></p>",
    ]


def _name_parts(_: Sequence[str]) -> list[str]:
    return [
        '<p><label>Name <input name="name" value=""></label></p>',
        "<p><button>Save</button></p>",
        '<p><a href="/Help">Help</a></p>',
    ]


def _open_parts(choices: Sequence[str]) -> list[str]:
    return [f'<p><a href="/{choice}">{choice}</a></p>' for choice in choices]


def _vote_parts(choices: Sequence[str]) -> list[str]:
    return [f'<p><button name="pick" value="{choice}">{choice}</button></p>' for choice in choices]


_PARTS = {
    "order": _order_parts,
    "name": _name_parts,
    "open": _open_parts,
    "vote": _vote_parts,
}


def _share_done(wanted: tuple[str, ...], changes: Sequence[tuple[str, ...]]) -> float:
    """The share of what was asked for (item and quantity, name, pick) that the change has right.

    0 unless there is exactly one change, and it is of the kind that was asked for.
    """
    if len(changes) != 1 or len(changes[0]) != len(wanted) or changes[0][0] != wanted[0]:
        return 0.0
    return sum(a == b for a, b in zip(changes[0][1:], wanted[1:], strict=True)) / (len(wanted) - 1)


class Office(SiteWorld[OfficeTask]):
    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    env_version: ClassVar[str] = "3"
    max_turns = 5
    cheats = (
        "goto /order?item=tea&quantity=3",
        "goto javascript:document.title='done'",
        "goto /order",
        "goto //done.test/",
        "type 1 <script>done=1</script>",
        "goto /vote?pick=red",
        "goto data:text/html,done",
        "scroll 99999",
    )
    briefing: ClassVar[str] = (
        "Do one errand on the page of a small office. The errand is over with the first form that "
        "you send, page that you open or button that you press, so fill in all fields before."
    )
    forms: ClassVar[dict[str, str]] = {
        "click X": "click element X, e.g. click 2.",
        "type X TEXT": "replace what text field X holds by TEXT.",
        "select X OPTION": "choose OPTION in list X.",
        "scroll PIXELS": "turn the mouse wheel.",
        "goto /PATH": "open a page by its path.",
    }
    meanings: ClassVar[dict[str, str]] = {
        "done": "times the share of the errand that your one change has right",
        "wrong_change": "if your change is not exactly what the errand asks for",
        "actions": "for each action",
    }
    instructions: ClassVar[str] = (
        "Reply with one line: `click X`, `type X TEXT`, `select X OPTION`, `scroll PIXELS` "
        "or `goto /PATH`, where X is an element's number or name, e.g. `click 2`"
    )
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "done": SignalKind("fraction", "env_state"),
        "wrong_change": SignalKind("count", "env_state"),
        "actions": SignalKind("count", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {
        "done": 1.0,
        "wrong_change": -0.1,
        "actions": -0.02,
        INVALID: -0.1,
    }

    def draw(self, rng: np.random.Generator) -> OfficeTask:
        family = ("order", "name", "open", "vote")[rng.integers(4)]
        goal, wanted, choices = _DRAWS[family](rng, family)
        parts = {"order": 3, "name": 3}.get(family, len(choices))
        layout = tuple(int(i) for i in rng.permutation(parts))
        return OfficeTask(family, goal, wanted, choices, layout)

    def signature(self, task: OfficeTask) -> str:
        shown = "/".join(sorted(task.choices))
        return f"{task.goal} of {shown}" if task.choices else f"{task.goal} in {task.layout}"

    def begin(self) -> None:
        self._site = Site(self.task)
        self.visit("office", pages(self._site.serve))
        self._look()

    def _look(self) -> None:
        self._lines = self.wait(self.tab.controls())

    def observe(self) -> str:
        numbered = [f"{line} #{n}" for n, line in enumerate(self._lines, 1)]
        return "\n".join([self.task.goal, *numbered])

    def describe(self) -> str:
        lines = [
            f"Errand: {_ERRANDS[self.task.family].format(*self.task.wanted[1:])}.",
            "The page has these elements. X is an element's number or its name.",
        ]
        if not self._lines:
            lines[1] = "The page has no elements that can be used."
        return "\n".join([*lines, *map(_element_in_words, range(1, 100), self._lines)])

    def example(self) -> str:
        return "scroll 100"

    def act(self, action: str) -> Outcome:
        self.wait(self._work_of(action))
        self._look()
        if not self._site.changes:
            return {"actions": 1.0}, False
        done = _share_done(self.task.wanted, self._site.changes)
        evidence = f"site recorded {self._site.changes}"
        wrong = float(done < 1)
        signals = {"actions": 1.0, "done": (done, evidence), "wrong_change": (wrong, evidence)}
        return signals, True

    def _work_of(self, action: str) -> Coroutine[Any, Any, None]:
        """What the browser does for an action. Raises ValueError for one that cannot be read."""
        verb, _, words = action.partition(" ")
        if verb == "goto" and words:
            return self.tab.goto(words)
        if verb == "scroll" and words.lstrip("-").isdigit():
            return self.tab.scroll(int(words))
        if verb not in ("click", "type", "select") or not words:
            raise Refused(
                "write: click X, type X TEXT, select X OPTION, scroll PIXELS, goto /PATH",
                "The first word must be click, type, select, scroll or goto, and more must follow.",
            )
        element, rest = self.tab.elements.find(words)
        if verb == "click":
            if rest:
                raise Refused("write: click X", "Nothing may follow the element: click X.")
            return self.tab.click(element)
        if not rest:
            raise Refused(f"write: {verb} X TEXT", f"A text is missing: {verb} X TEXT.")
        return self.tab.type(element, rest) if verb == "type" else self.tab.select(element, rest)

    def expert_action(self) -> str:
        """Reads the page as the agent does: fills in what the goal names, then submits it."""
        family = self.task.family
        for line in self._lines:
            role, _, rest = line.partition(" ")
            name, _, value = rest.partition("=")
            if role == "list" and family == "order":
                item = self.task.wanted[1]
                if value.split()[0] != item:
                    return f"select {name} {item}"
            if role == "text" and family in ("order", "name"):
                text = self.task.wanted[-1]  # the quantity of an order, or the name
                if value != text:
                    return f"type {name} {text}"
        last = {"order": "Order", "name": "Save"}.get(family, self.task.wanted[-1])
        if any(line.partition(" ")[2] == last for line in self._lines):
            return f"click {last}"
        raise AssertionError(f"no way to end {self.task.goal!r} on this page: {self._lines}")

    def random_action(self, rng: np.random.Generator) -> str:
        number = int(rng.integers(1, len(self._lines) + 1))
        role = self._lines[number - 1].partition(" ")[0]
        if role == "list":
            return f"select {number} {rng.choice(self.task.choices)}"
        if role == "text":
            name = self.task.family == "name"
            text = rng.choice(NAMES) if name else rng.integers(2, 10)
            return f"type {number} {text}"
        return f"click {number}"


_ERRANDS = {
    "order": "order the item {0} in the quantity {1}",
    "name": "save the name {0}",
    "open": "open the page {0}",
    "vote": "vote for {0}, by its button",
}
"""The goal of each family of tasks, to be filled with what is wanted."""
_KINDS = {"button": "button", "link": "link", "text": "text field", "list": "list"}


def _element_in_words(number: int, line: str) -> str:
    """A control of the page, e.g. `2: text field "Qty", holds "1"`."""
    kind, _, rest = line.partition(" ")
    name, equals, value = rest.partition("=")
    holds = f', holds "{value}"' if equals else ""
    return f'{number}: {_KINDS.get(kind, kind)} "{name}"{holds}'


Drawn = tuple[str, tuple[str, ...], tuple[str, ...]]
"""(goal, wanted change, choices on the page) of a task."""


def _draw_order(rng: np.random.Generator, family: str) -> Drawn:
    choices = tuple(str(c) for c in rng.choice(ITEMS, size=3, replace=False))
    item = choices[rng.integers(3)]
    quantity = str(rng.integers(2, 10))
    return f"order {quantity} {item}", (family, item, quantity), choices


def _draw_name(rng: np.random.Generator, family: str) -> Drawn:
    name = str(rng.choice(NAMES))
    return f"save name {name}", (family, name), ()


def _draw_pick(rng: np.random.Generator, family: str) -> Drawn:
    pool = PAGES if family == "open" else COLOURS
    choices = tuple(str(c) for c in rng.choice(pool, size=3, replace=False))
    pick = choices[rng.integers(3)]
    return f"{family} {pick}", (family, pick), choices


_DRAWS = {"order": _draw_order, "name": _draw_name, "open": _draw_pick, "vote": _draw_pick}
