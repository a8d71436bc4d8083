"""browser/office: errands in a small office site, in real Chromium.

The site is a Python object; its pages reach the browser only through the browser's cage (no
network). The agent sees the page's accessibility tree and acts on its elements, by number or by
name. The reward is read from the site's state, the server's side, and never from the page: what a
page says about itself counts for nothing.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.browser.site_world import SiteWorld, pages
from envs.contract import INVALID, Outcome
from experience.signal import SignalKind

ITEMS = ("tea", "milk", "rice", "soap", "ink", "bread", "glue", "paper")
NAMES = ("Ann", "Bob", "Cyd", "Dan", "Eve", "Fay", "Gus", "Hal")
PAGES = ("Billing", "Travel", "Staff", "News", "Rooms", "Help", "Legal", "Mail")
COLOURS = ("red", "blue", "green", "pink", "tan", "white", "violet", "olive")


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
    """The office's server: serves one errand's page and records every change that reaches it."""

    def __init__(self, errand: OfficeTask) -> None:
        self.errand = errand
        self.changes: list[tuple[str, ...]] = []

    def serve(self, method: str, path: str, form: dict[str, str]) -> str | None:
        if method == "POST":
            self.changes.append(
                (
                    path.strip("/"),
                    *(form.get(k, "") for k in ("item", "quantity", "name", "pick") if k in form),
                )
            )
            return "<html><body><h1>Thank you</h1></body></html>"
        if path == "/":
            return _page(self.errand)
        if path.strip("/") in PAGES:
            self.changes.append(("open", path.strip("/")))
            return f"<html><body><h1>{html.escape(path.strip('/'))}</h1></body></html>"
        return None


def _page(errand: OfficeTask) -> str:
    options = "".join(f"<option>{html.escape(c)}</option>" for c in errand.choices)
    parts = {
        "order": [
            f'<p><label>Item <select name="item">{options}</select></label></p>',
            '<p><label>Qty <input name="quantity" value="1"></label></p>',
            "<p><button>Order</button></p>",
        ],
        "name": [
            '<p><label>Name <input name="name" value=""></label></p>',
            "<p><button>Save</button></p>",
            '<p><a href="/Help">Help</a></p>',
        ],
        "open": [
            f'<p><a href="/{html.escape(c)}">{html.escape(c)}</a></p>' for c in errand.choices
        ],
        "vote": [
            f'<p><button name="pick" value="{html.escape(c)}">{html.escape(c)}</button></p>'
            for c in errand.choices
        ],
    }[errand.family]
    body = "".join(parts[i] for i in errand.layout)
    return (
        '<html lang="en"><title>Office</title><body><form method="post" '
        f'action="/{errand.family}">{body}</form>'
        "</body></html>"
    )


def _share_done(wanted: tuple[str, ...], changes: Sequence[tuple[str, ...]]) -> float:
    """How much of what was asked for (an item and a quantity, a name, a pick) the one recorded
    change has right."""
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
        goal: str
        wanted: tuple[str, ...]
        choices: tuple[str, ...]
        family = ("order", "name", "open", "vote")[rng.integers(4)]
        if family == "order":
            choices = tuple(str(c) for c in rng.choice(ITEMS, size=3, replace=False))
            item, quantity = choices[rng.integers(3)], str(rng.integers(2, 10))
            goal, wanted = f"order {quantity} {item}", ("order", item, quantity)
        elif family == "name":
            choices, name = (), str(rng.choice(NAMES))
            goal, wanted = f"save name {name}", ("name", name)
        else:
            pool = PAGES if family == "open" else COLOURS
            choices = tuple(str(c) for c in rng.choice(pool, size=3, replace=False))
            pick = choices[rng.integers(3)]
            goal, wanted = f"{family} {pick}", (family, pick)
        parts = {"order": 3, "name": 3}.get(family, len(choices))
        return OfficeTask(
            family, goal, wanted, choices, tuple(int(i) for i in rng.permutation(parts))
        )

    def signature(self, task: OfficeTask) -> str:
        shown = "/".join(sorted(task.choices))
        return f"{task.goal} of {shown}" if task.choices else f"{task.goal} in {task.layout}"

    def begin(self) -> None:
        self._site = Site(self.task)
        self.visit("office", pages(self._site.serve))
        self._look()

    def _look(self) -> None:
        self._lines = self.wait(self.tab.tree())

    def observe(self) -> str:
        return "\n".join(
            [self.task.goal, *(f"{line} #{n}" for n, line in enumerate(self._lines, 1))]
        )

    def act(self, action: str) -> Outcome:
        tab = self.tab
        verb, _, words = action.partition(" ")
        if verb == "goto" and words:
            work = tab.goto(words)
        elif verb == "scroll" and words.lstrip("-").isdigit():
            work = tab.scroll(int(words))
        elif verb in ("click", "type", "select") and words:
            element, rest = tab.find(words)
            if bool(rest) == (verb == "click"):
                raise ValueError("write: " + ("click X" if verb == "click" else f"{verb} X TEXT"))
            work = (
                tab.click(element)
                if verb == "click"
                else tab.type(element, rest)
                if verb == "type"
                else tab.select(element, rest)
            )
        else:
            raise ValueError(
                "write: click X, type X TEXT, select X OPTION, scroll PIXELS, goto /PATH"
            )
        self.wait(work)
        self._look()
        if not self._site.changes:
            return {"actions": 1.0}, False
        done, evidence = (
            _share_done(self.task.wanted, self._site.changes),
            f"site recorded {self._site.changes}",
        )
        return {
            "actions": 1.0,
            "done": (done, evidence),
            "wrong_change": (float(done < 1), evidence),
        }, True

    def expert_action(self) -> str:
        """Reads the page as the agent does: fills what the goal names, then presses what ends it."""
        for line in self._lines:
            role, _, rest = line.partition(" ")
            name, _, value = rest.partition("=")
            if (
                self.task.family == "order"
                and role == "list"
                and value.split()[0] != self.task.wanted[1]
            ):
                return f"select {name} {self.task.wanted[1]}"
            if self.task.family == "order" and role == "text" and value != self.task.wanted[2]:
                return f"type {name} {self.task.wanted[2]}"
            if self.task.family == "name" and role == "text" and value != self.task.wanted[1]:
                return f"type {name} {self.task.wanted[1]}"
        ends = {"order": "Order", "name": "Save"}.get(self.task.family, self.task.wanted[-1])
        if any(line.partition(" ")[2] == ends for line in self._lines):
            return f"click {ends}"
        raise AssertionError(f"no way to end {self.task.goal!r} on this page: {self._lines}")

    def random_action(self, rng: np.random.Generator) -> str:
        number = int(rng.integers(1, len(self._lines) + 1))
        role = self._lines[number - 1].partition(" ")[0]
        if role == "list":
            return f"select {number} {rng.choice(self.task.choices)}"
        if role == "text":
            return f"type {number} {rng.choice(NAMES) if self.task.family == 'name' else rng.integers(2, 10)}"
        return f"click {number}"
