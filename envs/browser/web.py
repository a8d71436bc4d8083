"""browser/web: live sites, as far as a list of hosts allows, with tabs and file uploads; for
errands of your own.

    gymnasium.make("envs:Web-v0", hosts=["wiki.example.org"], errands=[
        {"goal": "Find who wrote Emma.", "start": "https://wiki.example.org/", "answer": "(Jane
        )?Austen"}])

An errand tells where it starts and what holds at its end, as regular expressions: `address` of the
page in front, words that it `shows`, the `answer` given; all that are told must hold. `expert` may
list the actions of one who can. Hosts are rules of envs/browser/chrome/proxy.py; what else a page
asks for is refused and counted. A live site is not ours: it may answer otherwise tomorrow,
remembers what was done, and has no seed, so such a world does not go back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from envs.authoring import Outcome, Range, SignalKind, ToolWorld, action
from envs.browser.chrome.chromium import LIVE_SECONDS, Chromium, Tab
from envs.contract import Split, is_held_out
from experience.errors import EnvironmentFailure

_LINES, _MOST_FILE_BYTES = 60, 10 << 20
_REFUSED = "net::ERR_TUNNEL_CONNECTION_FAILED"


@dataclass(frozen=True)
class WebTask:
    """What is to be done from where, and what holds at the end: regular expressions, "" where it
    does not matter. `split` is "train" or "heldout"; by default its content decides."""

    goal: str
    start: str
    address: str = ""
    shows: str = ""
    answer: str = ""
    expert: tuple[str, ...] = ()
    split: str = ""

    def __post_init__(self) -> None:
        if not _is_site(self.start):
            raise ValueError(
                f"errand {self.goal[:40]!r}: start is {self.start!r}, not http://… or https://…"
            )
        if not (self.address or self.shows or self.answer):
            raise ValueError(
                f"errand {self.goal[:40]!r}: tell what holds at its end: address, shows or answer"
            )
        for expression in (self.address, self.shows, self.answer):
            try:
                re.compile(expression)
            except re.error as wrong:
                raise ValueError(
                    f"errand {self.goal[:40]!r}: {expression!r} cannot be read: {wrong}"
                ) from None
        if self.split not in ("", "train", "heldout"):
            raise ValueError(
                f"errand {self.goal[:40]!r}: split {self.split!r} is not train or heldout"
            )

    @property
    def falls_to(self) -> str:
        return self.split or ("heldout" if is_held_out(f"{self.start} {self.goal}") else "train")


class Web(ToolWorld[WebTask]):
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "done": SignalKind("fraction", "verifier"),
        "actions": SignalKind("count", "env_state"),
        "unreachable": SignalKind("count", "env_state"),
        "refused": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"done": 1.0, "actions": -0.01}
    max_turns = 30
    observation_characters: ClassVar[int] = 8000
    sandbox_tier = "namespaces+chromium"

    def __init__(
        self,
        hosts: Sequence[str],
        errands: Sequence[Mapping[str, Any]],
        files: str = "",
        screenshots: bool = False,
    ) -> None:
        """`files` is a folder whose files can be uploaded.

        Raises ValueError for an errand or a host that is none.
        """
        super().__init__()
        known = {f.name for f in fields(WebTask)}
        for given in errands:
            if unknown := set(given) - known:
                raise ValueError(
                    f"an errand has {', '.join(sorted(known))}; not {sorted(unknown)[0]!r}"
                )
        self._errands = [WebTask(**{**e, "expert": tuple(e.get("expert", ()))}) for e in errands]
        self._files = (
            {f.name: f for f in sorted(Path(files).iterdir()) if f.is_file()} if files else {}
        )
        self._hosts, self._screenshots = tuple(hosts), screenshots
        self._tabs: Tabs | None = None

    def tasks(self, split: Split, rng: np.random.Generator) -> WebTask:
        among = [e for e in self._errands if e.falls_to == split]
        if not among:
            raise ValueError(
                f"none of {len(self._errands)} errands is for split {split}: give one `split: "
                f"{split}`"
            )
        return among[int(rng.integers(len(among)))]

    def signature(self, task: WebTask) -> str:
        return f"{task.start} {task.goal}"

    @property
    def tabs(self) -> Tabs:
        assert self._tabs is not None
        return self._tabs

    def begin(self) -> None:
        self.close()
        self._browser = Chromium.shared(self._hosts)
        self._tabs = Tabs(self._wait(self._browser.open_live()))
        self._wait(self.tabs.open())
        if failed := self._wait(self.tabs.tab.visit(self.task.start)):
            raise EnvironmentFailure(
                f"{self.task.start} did not open: {failed}", "is its host on the list, and up?"
            )
        self._clicks = list(self.task.expert)
        self._look()

    def _wait(self, work: Any) -> Any:
        return self._browser.wait(work, 60.0)

    def _look(self, first: int = 1) -> None:
        self._wait(self.tabs.look())
        self._lines, self._first = self._wait(self.tabs.tab.lines()), first
        self._address = self.tabs.tab.page.url

    def observe(self) -> str:
        told = [self.task.goal, f"tab {self.tabs.front + 1} of {len(self.tabs)}: {self._address}"]
        if self._files:
            told.append(f"files: {', '.join(self._files)}")
        shown = self._lines[self._first - 1 : self._first - 1 + _LINES]
        rest = len(self._lines) - self._first + 1 - len(shown)
        return "\n".join([*told, *shown, *([f"… {rest} lines more"] if rest > 0 else [])])

    def images(self) -> dict[str, bytes]:
        return {"screenshot": self._wait(self.tabs.tab.screenshot())} if self._screenshots else {}

    def _does(self, work: Any) -> Outcome:
        failed = self._wait(work)
        self._look()
        refused, self.tabs.refused = self.tabs.refused, []
        signals: dict[str, Any] = {"actions": 1.0}
        if failed:
            signals["unreachable"] = (1.0, str(failed)[:80])
        if refused:
            signals["refused"] = (float(len(refused)), refused[0][:80])
        return signals, False

    def _find(self, words: str) -> tuple[Tab, int, str]:
        return (self.tabs.tab, *self.tabs.tab.find(words))

    @action
    def click(self, element: str) -> Outcome:
        """Click an element by its number or name."""
        tab, number, _ = self._find(element)
        return self._does(tab.click(number))

    @action
    def fill(self, element_and_text: str) -> Outcome:
        """Replace what a field holds, e.g. `fill 4 lunch`."""
        tab, number, text = self._find(element_and_text)
        return self._does(tab.type(number, text))

    @action
    def select_option(self, element_and_option: str) -> Outcome:
        """Choose from a list, e.g. `select_option 5 Monday`."""
        tab, number, option = self._find(element_and_option)
        return self._does(tab.select(number, option))

    @action
    def press(self, keys: str) -> Outcome:
        """Press keys, e.g. `press Enter` or `press Control+a`."""
        return self._does(self.tabs.tab.press(keys))

    @action
    def upload_file(self, element_and_file: str) -> Outcome:
        """Choose one of the files for a file field."""
        tab, number, name = self._find(element_and_file)
        if name not in self._files:
            raise ValueError(f"no file {name}: there are {', '.join(self._files) or 'none'}")
        if self._files[name].stat().st_size > _MOST_FILE_BYTES:
            raise ValueError(f"{name} is over {_MOST_FILE_BYTES >> 20} MiB")
        return self._does(tab.upload(number, name, self._files[name].read_bytes()))

    @action
    def scroll(self, pixels: Annotated[int, Range(-2000, 2000, 100)]) -> Outcome:
        """Turn the wheel."""
        return self._does(self.tabs.tab.scroll(pixels))

    @action
    def look(self, line: Annotated[int, Range(1, 100_000)]) -> Outcome:
        """Show the page from that line on."""
        self._look(min(line, max(len(self._lines), 1)))
        return {"actions": 1.0}, False

    @action
    def goto(self, address: str) -> Outcome:
        """Open http://… or https://… in this tab."""
        if not _is_site(address):
            raise ValueError("an address begins with http:// or https://")
        return self._does(self.tabs.tab.visit(address))

    @action
    def go_back(self) -> Outcome:
        """To the page before."""
        return self._does(self.tabs.tab.back())

    @action
    def new_tab(self) -> Outcome:
        """Open an empty tab."""
        return self._does(self.tabs.add())

    @action
    def tab_focus(self, number: Annotated[int, Range(1, 100)]) -> Outcome:
        """Bring a tab to the front."""
        return self._does(self.tabs.focus(number))

    @action
    def tab_close(self) -> Outcome:
        """Close the tab in front."""
        return self._does(self.tabs.shut())

    @action
    def send_msg_to_user(self, text: str) -> Outcome:
        """Say the answer, or that the errand is done. This ends it."""
        shown = self._wait(self.tabs.tab.text()) if self.task.shows else ""
        held = [
            (not self.task.address or bool(re.fullmatch(self.task.address, self._address))),
            (not self.task.shows or bool(re.search(self.task.shows, shown))),
            (not self.task.answer or bool(re.fullmatch(self.task.answer, text.strip()))),
        ]
        return {"done": (float(all(held)), self._address[:80]), "actions": 1.0}, True

    def expert_action(self) -> str:
        if not self.task.expert:
            raise NotImplementedError("this errand tells of no `expert`")
        return self._clicks.pop(0) if self._clicks else "send_msg_to_user done"

    def random_action(self, rng: np.random.Generator) -> str:
        if rng.random() < 0.1:
            return "send_msg_to_user done"
        return (
            "go_back"
            if rng.random() < 0.1
            else f"click {int(rng.integers(len(self._lines) or 1)) + 1}"
        )

    def close(self) -> None:
        if self._tabs is not None:
            self._wait(self._tabs.close())
            self._tabs = None


def _is_site(address: str) -> bool:
    return bool(re.match(r"https?://[^/]", address))


class Tabs:
    """The pages of a live context, in the order they were opened; one is in front. `refused` are
    the addresses that the proxy has refused them."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._tabs: list[Tab] = []
        self.front = 0
        self.refused: list[str] = []

    async def open(self) -> None:
        """The first, empty page. Comes first."""
        self._context.on(
            "response", lambda answer: self._told("x-refused" in answer.headers, answer.url)
        )
        self._context.on(
            "requestfailed", lambda asked: self._told(asked.failure == _REFUSED, asked.url)
        )
        await self.look()

    def _told(self, refused: bool, address: str) -> None:
        if refused:
            self.refused.append(address)

    @property
    def tab(self) -> Tab:
        return self._tabs[self.front]

    def __len__(self) -> int:
        return len(self._tabs)

    async def add(self) -> None:
        await self._context.new_page()
        await self.look()

    async def look(self) -> None:
        """Takes in what the pages opened and closed; what has just been opened is in front."""
        for tab in [t for t in self._tabs if t.page.is_closed()]:
            self.front -= self._tabs.index(tab) <= self.front
            self._tabs.remove(tab)
        for page in self._context.pages:
            if page not in [t.page for t in self._tabs]:
                cdp = await self._context.new_cdp_session(page)
                self._tabs.append(
                    Tab(self._context, page, cdp, "", styled=True, patience=LIVE_SECONDS)
                )
                self.front = len(self._tabs) - 1
                await self.tab.watch()
                await self.tab.settle()
        if not self._tabs:
            await self.add()
        self.front = max(self.front, 0)
        await self.tab.page.bring_to_front()

    async def focus(self, number: int) -> None:
        """Raises ValueError where there is no such tab."""
        if not 1 <= number <= len(self._tabs):
            raise ValueError(f"no tab {number} of {len(self._tabs)}")
        self.front = number - 1
        await self.look()

    async def shut(self) -> None:
        """Closes the tab in front."""
        await self.tab.page.close()
        await self.look()

    async def close(self) -> None:
        await self._context.close()
