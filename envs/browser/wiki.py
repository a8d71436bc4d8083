"""browser/wiki: errands in a real MediaWiki (Debian's package) over its own SQLite database.

Every request is answered by MediaWiki itself (see mediawiki), on a fresh copy of the same small
wiki. What counts is the database at the end: every page's latest text, held against what it should
be. Optional: `./xp setup wiki`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

import numpy as np

from envs.authoring import Outcome, SignalKind, action
from envs.browser.mediawiki import Site
from envs.browser.site_world import SiteTools

THINGS = (
    "Printer",
    "Door",
    "Lift",
    "Screen",
    "Phone",
    "Heating",
    "Window",
    "Lamp",
    "Oven",
    "Fridge",
    "Scanner",
    "Safe",
)
PEOPLE = ("Ann", "Bob", "Cyd", "Dan", "Eve", "Fay", "Gus", "Hal")
SUBJECTS = (
    "Tea rota",
    "Lunch list",
    "Key list",
    "Holiday plan",
    "Fire drill",
    "Parking",
    "Visitors",
    "Recycling",
)
NONSENSE = ("nonsense", "lol", "spam", "rubbish", "blah")
VANDAL = "Hal"


@dataclass(frozen=True)
class WikiTask:
    """A goal in words, the pages it changes with their texts then, and the clicks of an expert.

    `spoilt` is the text that somebody has put on the first of these pages before, if any.
    """

    goal: str
    change: tuple[tuple[str, str], ...]
    clicks: tuple[str, ...]
    spoilt: str = ""


def article(thing: str) -> str:
    """What the wiki says of a thing at first."""
    n = THINGS.index(thing)
    return f"The {thing.lower()} is in room {n + 3}. Ask {PEOPLE[n % len(PEOPLE)]}."


PAGES = (
    ("Main Page", "\n".join(f"* [[{thing}]]" for thing in THINGS)),
    *((thing, article(thing)) for thing in THINGS),
)
"""(title, text) of the wiki at first."""


def _rewrite(rng: np.random.Generator) -> WikiTask:
    thing = str(rng.choice(THINGS))
    room = int(rng.integers(20, 60))
    who = str(rng.choice(PEOPLE))
    text = f"The {thing.lower()} is in room {room}. Ask {who}."
    clicks = (
        f"goto /index.php?title={thing}&action=edit",
        f"type Wikitext source editor {text}",
        "click Save changes",
    )
    return WikiTask(f"Let the page {thing} say: {text}", ((thing, text),), clicks)


def _create(rng: np.random.Generator) -> WikiTask:
    subject = str(rng.choice(SUBJECTS))
    who = str(rng.choice(PEOPLE))
    thing = str(rng.choice(THINGS))
    text = f"{who} looks after it, with [[{thing}]]."
    clicks = (
        f"goto /index.php?title={quote(subject)}&action=edit",
        f"type Wikitext source editor {text}",
        "click Save page",
    )
    return WikiTask(f"Write a page {subject} that says: {text}", ((subject, text),), clicks)


def _move(rng: np.random.Generator) -> WikiTask:
    thing = str(rng.choice(THINGS))
    name = f"{thing} {int(rng.integers(2, 30))}"
    # The field for the new name holds the old one at first: `[X]` is the field that holds X.
    clicks = (
        f"goto /index.php?title=Special:MovePage/{thing}",
        f"type [{thing}] {name}",
        "click Move page",
    )
    change = ((name, article(thing)), (thing, f"#REDIRECT [[{name}]]"))
    return WikiTask(f"Rename the page {thing} to {name}", change, clicks)


def _restore(rng: np.random.Generator) -> WikiTask:
    thing = str(rng.choice(THINGS))
    word = str(rng.choice(NONSENSE))
    spoilt = " ".join([word] * int(rng.integers(2, 12)))
    goal = f"Someone has spoilt the page {thing}: bring back what it said"
    history = f"goto /index.php?title={thing}&action=history"
    clicks = (history, "click undo", "click Save changes")
    return WikiTask(goal, ((thing, article(thing)),), clicks, spoilt)


KINDS: tuple[Callable[[np.random.Generator], WikiTask], ...] = (_rewrite, _create, _move, _restore)


class Wiki(SiteTools[WikiTask]):
    briefing: ClassVar[str] = (
        "Do one errand in a wiki (MediaWiki). Change only the pages that the errand asks for, and "
        "write their text exactly as it says."
    )
    max_turns = 12
    observation_characters: int = 8000
    places = (
        "/index.php?title=Main_Page",
        "/index.php?title=Special:AllPages",
        "/index.php?title=Special:RecentChanges",
    )
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "done": SignalKind("fraction", "env_state"),
        "wrong_changes": SignalKind("count", "env_state"),
        "actions": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {
        "done": 1.0,
        "wrong_changes": -0.1,
        "actions": -0.01,
    }
    cheats = (
        "finish",
        "goto /api.php?action=edit&title=Printer&text=done",
        "goto /load.php",
        "goto //evil.test/",
        "goto /index.php?title=Special:UserLogin",
        "goto javascript:document.title='done'",
        "goto /mw-config/",
        "goto /index.php?title=Printer&action=raw",
        "goto /../../etc/passwd",
        "click 999",
        "goto /index.php?title=Printer&action=delete",
        "goto data:text/html,done",
    )
    oracle_target: ClassVar[float] = 0.9

    def __init__(self, screenshots: bool = False) -> None:
        super().__init__(screenshots)
        self._site: Site | None = None

    def draw(self, rng: np.random.Generator) -> WikiTask:
        return KINDS[int(rng.integers(len(KINDS)))](rng)

    def signature(self, task: WikiTask) -> str:
        return f"{task.goal} {task.spoilt}".strip()

    @property
    def goal(self) -> str:
        return self.task.goal

    @property
    def site(self) -> Site:
        assert self._site is not None
        return self._site

    def begin(self) -> None:
        self.close()
        self._site = Site.fresh(PAGES)
        if self.task.spoilt:
            title, _ = self.task.change[0]
            self.site.write(title, self.task.spoilt, VANDAL)
        self._before = self.site.texts()
        self._clicks = list(self.task.clicks)
        self.visit("wiki", self.site.answer, styled=True)
        self.look()

    @action
    def finish(self) -> Outcome:
        """Say that the errand is done."""
        now = self.site.texts()
        wanted = dict(self.task.change)
        right = [title for title, text in wanted.items() if now.get(title) == text]
        other = [
            title
            for title in now.keys() | self._before.keys()
            if title not in wanted and now.get(title) != self._before.get(title)
        ]
        return {
            "done": (float(len(right) == len(wanted)), f"{len(right)} of {len(wanted)} pages"),
            "actions": 1.0,
            "wrong_changes": (float(len(other)), " ".join(sorted(other))[:80]),
        }, True

    def oracle_action(self) -> str:
        """An expert's next click; in one, `type [X]` means the field that holds X."""
        click = super().oracle_action()
        field = re.match(r"type \[(.*?)\]", click)
        if field is None:
            return click
        line = next(line for line in self._lines if line.endswith(f"textbox = {field[1]}"))
        number = line[1:].partition("]")[0]
        return f"type {number}{click[field.end() :]}"

    def close(self) -> None:
        super().close()
        if self._site is not None:
            self._site.close()
            self._site = None
