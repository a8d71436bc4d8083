"""A page on the fast path: seen as an accessibility tree, on a clock that stands still.

A page's clock goes on only by what an action is given (virtual time), never while an agent thinks.
Frames are drawn when asked. So the same seed and the same actions give the same page.
"""

from __future__ import annotations

import base64
from typing import Any

from envs.browser.chrome.accessibility import ax_lines
from envs.browser.chrome.devtools import Devtools, Session
from envs.browser.chrome.input import Keyboard, Mouse
from experience.errors import EnvironmentFailure

_START = 1_700_000_000.0  # what a page's clock shows first, seconds since the epoch
_STARVATION = 1000
_FRAMES = 3
_CHOOSE = """function (wanted) {
  const named = o => o.label.trim() === wanted || o.value === wanted;
  const option = [...(this.options || [])].find(named);
  if (!option) return false;
  option.selected = true;
  this.dispatchEvent(new Event("input", {bubbles: true}));
  this.dispatchEvent(new Event("change", {bubbles: true}));
  return true;
}"""


class References:
    """Numbers for the elements of a page: an element keeps its number as long as it lives."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._nodes: list[int] = []

    def number(self, node: int) -> int:
        """The number of an element, given Chromium's id; a new one if it has none yet."""
        if node not in self._numbers:
            self._nodes.append(node)
            self._numbers[node] = len(self._nodes)
        return self._numbers[node]

    def node(self, number: int) -> int:
        """Chromium's id of an element. Raises ValueError for a number that none has."""
        if not 1 <= number <= len(self._nodes):
            raise ValueError(f"no element {number}")
        return self._nodes[number - 1]


class Page:
    """One page in a browser context of its own; its elements are acted on by reference number."""

    def __init__(self, browser: Devtools, width: int, height: int) -> None:
        self._browser = browser
        self._context = browser.send("Target.createBrowserContext")["browserContextId"]
        target = browser.send(
            "Target.createTarget",
            url="about:blank",
            browserContextId=self._context,
            width=width,
            height=height,
            enableBeginFrameControl=True,
        )["targetId"]
        attached = browser.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = Session(browser, attached["sessionId"])
        self.mouse = Mouse(self.session, self.advance)
        self.keyboard = Keyboard(self.session)
        self._references = References()
        for domain in ("Page", "DOM", "Accessibility"):
            self.session.send(f"{domain}.enable")
        self.session.send("Page.setDownloadBehavior", behavior="deny")

    @property
    def alive(self) -> bool:
        return self._browser.alive

    def close(self) -> None:
        """Closes the page and its context, with its cookies and storage."""
        self._browser.send("Target.disposeBrowserContext", browserContextId=self._context)

    def load(self, url: str) -> None:
        """Loads the page's only document; then its clock stands still.

        Raises EnvironmentFailure if the document cannot be loaded.
        """
        self.session.forget("Page.loadEventFired")
        found = self.session.send("Page.navigate", url=url)
        if found.get("errorText"):
            raise EnvironmentFailure(f"{url}: {found['errorText']}")
        self.session.wait_for("Page.loadEventFired")
        self.session.send(
            "Emulation.setVirtualTimePolicy", policy="pause", initialVirtualTime=_START
        )

    def advance(self, milliseconds: float) -> None:
        """Lets the page's clock run on by that much."""
        event = "Emulation.virtualTimeBudgetExpired"
        self.session.forget(event)
        # A page whose tasks always start new ones would hold its clock for ever. After so many
        # tasks the clock goes on without it.
        self.session.send(
            "Emulation.setVirtualTimePolicy",
            policy="advance",
            budget=milliseconds,
            maxVirtualTimeTaskStarvationCount=_STARVATION,
        )
        self.session.wait_for(event)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page: for the world, never for the agent."""
        found = self.session.send("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in found:
            raise EnvironmentFailure(
                f"the page's script failed: {found['exceptionDetails'].get('text')} "
                f"{found['result'].get('description', '')}"[:300]
            )
        return found["result"].get("value")

    def screenshot(self, media: str = "jpeg") -> bytes:
        """The page as it is now, drawn for this call; the same state gives the same bytes."""
        asked: dict[str, Any] = {"format": media}
        if media == "jpeg":
            asked["quality"] = 80
        for _ in range(_FRAMES):  # the first frame after a load may hold nothing yet
            found = self.session.send("HeadlessExperimental.beginFrame", screenshot=asked)
            if "screenshotData" in found:
                return base64.b64decode(found["screenshotData"])
        raise EnvironmentFailure("the browser drew no frame")

    def tree(self) -> list[str]:
        """What can be seen, one line an element: [reference] role "name" = value (states)."""
        nodes = self.session.send("Accessibility.getFullAXTree")["nodes"]
        return ax_lines(nodes, self._references.number)

    def forget_references(self) -> None:
        """The next `tree` numbers its elements from 1."""
        self._references = References()

    def centre(self, reference: int) -> tuple[float, float]:
        """Where an element is. Raises ValueError if it is gone or cannot be seen."""
        node = self._references.node(reference)
        try:
            self.session.send("DOM.scrollIntoViewIfNeeded", backendNodeId=node)
            quads = self.session.send("DOM.getContentQuads", backendNodeId=node)["quads"]
        except EnvironmentFailure:
            quads = []
        if not quads:
            raise ValueError(f"element {reference} cannot be seen")
        # A quad is four corners, x and y in turn.
        return sum(quads[0][0::2]) / 4, sum(quads[0][1::2]) / 4

    def focus(self, reference: int) -> None:
        """Raises ValueError if the element takes no text."""
        try:
            self.session.send("DOM.focus", backendNodeId=self._references.node(reference))
        except EnvironmentFailure as refused:
            raise ValueError(f"element {reference} takes no text") from refused

    def choose(self, reference: int, option: str) -> None:
        """Selects an option of a list. Raises ValueError if the list has none of that name."""
        node = self._references.node(reference)
        found = self.session.send("DOM.resolveNode", backendNodeId=node)
        chosen = self.session.send(
            "Runtime.callFunctionOn",
            objectId=found["object"]["objectId"],
            returnByValue=True,
            functionDeclaration=_CHOOSE,
            arguments=[{"value": option}],
        )
        if not chosen["result"].get("value"):
            raise ValueError(f"element {reference} has no option {option[:30]}")
