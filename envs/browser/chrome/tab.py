"""A page in the reference browser, read as lines of text and acted on by numbered elements.

A site of ours has one page, a `Tab`; live sites have several, `Tabs`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from envs.browser.chrome.accessibility import Elements, control_lines, numbered_lines
from envs.browser.chrome.settling import Settling

LIVE_SECONDS = 8.0  # after which a live page that still loads is taken as it is
_TREE_ROUNDS = 50  # of 5 ms: how long a loaded page's accessibility tree may take
# What Chromium reports for an https:// address that the proxy refuses. It keeps the proxy's answer
# to a CONNECT to itself, so the header of that answer is never seen here.
_REFUSED = "net::ERR_TUNNEL_CONNECTION_FAILED"
_CHOOSE = """function (wanted) {
  const option = [...(this.options || [])].find(o => o.label === wanted || o.value === wanted);
  if (!option) return false;
  this.value = option.value;
  this.dispatchEvent(new Event("input", {bubbles: true}));
  this.dispatchEvent(new Event("change", {bubbles: true}));
  return true;
}"""
_REMEMBER = "function () { window.xpChosen = this; }"


class Tab:
    """A page of an episode. `elements` are those of its last reading, by `controls` or `lines`."""

    def __init__(self, page: Any, session: Any, origin: str, settling: Settling) -> None:
        self.page = page
        self.elements = Elements()
        self._session = session
        self._origin = origin
        self._settling = settling

    @classmethod
    async def on(
        cls, page: Any, origin: str = "", *, drawn: bool = False, patience: float | None = None
    ) -> Tab:
        """A tab of a Playwright page. `goto` adds paths to `origin`; the rest is as in Settling."""
        session = await page.context.new_cdp_session(page)
        settling = Settling(page, session, drawn=drawn, patience=patience)
        await settling.watch()
        return cls(page, session, origin, settling)

    async def close(self) -> None:
        """Closes the page and its context, with its cookies and storage."""
        await self.page.context.close()

    # ── going somewhere

    async def goto(self, path: str) -> None:
        """Opens a page of this tab's own site."""
        await self.page.goto(self._origin + "/" + path.lstrip("/"))
        if self._settling.drawn:  # Playwright waits for the document, not for a frame with styles
            await self.settle()

    async def visit(self, url: str) -> str:
        """Opens a live page; returns what went wrong, "" if nothing did."""
        from playwright.async_api import Error, TimeoutError

        try:
            await self.page.goto(url, timeout=1000 * LIVE_SECONDS)
        except TimeoutError:
            pass  # still loading: the page is taken as it is
        except Error as failed:
            message = str(failed)
            return message.partition("net::")[2].split(" ")[0] or message.splitlines()[0]
        return ""

    async def back(self) -> None:
        await self.page.go_back(timeout=1000 * LIVE_SECONDS)

    async def settle(self) -> None:
        """Waits until the page has settled. Raises EnvironmentFailure if its own site does not."""
        await self._settling.settle()

    # ── reading

    async def text(self) -> str:
        """The words that the page shows."""
        return str(await self.page.evaluate("document.body ? document.body.innerText : ''"))

    async def screenshot(self) -> bytes:
        """The visible part of the page, as PNG."""
        image: bytes = await self.page.screenshot(type="png")
        return image

    async def controls(self) -> list[str]:
        """The elements that an agent can use, one line each."""
        lines, self.elements = control_lines(await self._nodes())
        return lines

    async def lines(self) -> list[str]:
        """All that can be read or used, as the fast path shows it."""
        for _ in range(_TREE_ROUNDS):
            nodes = await self._nodes()
            if len(nodes) > 1:  # the root alone: Chromium has not built the tree yet
                break
            await asyncio.sleep(0.005)
        lines, self.elements = numbered_lines(nodes)
        return lines

    async def _nodes(self) -> list[dict[str, Any]]:
        found = await self._session.send("Accessibility.getFullAXTree")
        nodes: list[dict[str, Any]] = found["nodes"]
        return nodes

    # ── acting

    async def click(self, element: int) -> None:
        """Raises ValueError if the element cannot be seen."""
        try:
            x, y = await _centre(self._session, self.elements.node(element))
        except LookupError:
            raise ValueError(f"element {element} cannot be seen") from None
        await self.page.mouse.click(x, y)
        await self.settle()

    async def type(self, element: int, text: str) -> None:
        """Replaces what the field holds. Raises ValueError if the element takes no text."""
        from playwright.async_api import Error

        try:
            await self._session.send("DOM.focus", {"backendNodeId": self.elements.node(element)})
        except Error:
            raise ValueError(f"element {element} takes no text") from None
        await self.page.keyboard.press("ControlOrMeta+A")
        await self.page.keyboard.insert_text(text)

    async def select(self, element: int, option: str) -> None:
        """Chooses from a list. Raises ValueError if the list has no such option."""
        node = self.elements.node(element)
        found = await _call(self._session, node, _CHOOSE, [{"value": option}])
        if not found["result"].get("value"):
            raise ValueError(f"no option {option}")
        await self.settle()

    async def press(self, keys: str) -> None:
        """Presses keys, e.g. Control+a. Raises ValueError for keys that do not exist."""
        from playwright.async_api import Error

        try:
            await self.page.keyboard.press(keys)
        except Error:
            raise ValueError(f"no keys {keys}") from None
        await self.settle()

    async def upload(self, element: int, name: str, content: bytes) -> None:
        """Chooses a file for a file field. Raises ValueError if the element is none."""
        from playwright.async_api import Error

        # Playwright takes files by its own handle of the element, which it gets only by script.
        await _call(self._session, self.elements.node(element), _REMEMBER)
        handle = (await self.page.evaluate_handle("window.xpChosen")).as_element()
        file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        try:
            await handle.set_input_files(file)
        except (Error, AttributeError):
            raise ValueError(f"element {element} takes no file") from None
        await self.settle()

    async def scroll(self, pixels: int) -> None:
        await self.page.mouse.wheel(0, pixels)
        await self.settle()


async def _call(session: Any, node: int, function: str, arguments: Sequence[Any] = ()) -> Any:
    """Calls a JavaScript function with an element, given Chromium's id, as its `this`."""
    found = await session.send("DOM.resolveNode", {"backendNodeId": node})
    call = {
        "objectId": found["object"]["objectId"],
        "functionDeclaration": function,
        "arguments": list(arguments),
        "returnByValue": True,
    }
    return await session.send("Runtime.callFunctionOn", call)


async def _centre(session: Any, node: int) -> tuple[float, float]:
    """Where an element is, once scrolled into view. Raises LookupError if it cannot be seen."""
    from playwright.async_api import Error

    try:
        await session.send("DOM.scrollIntoViewIfNeeded", {"backendNodeId": node})
        found = await session.send("DOM.getContentQuads", {"backendNodeId": node})
    except Error:
        raise LookupError from None
    # A quad is four corners, x and y in turn. An element that is not shown has none.
    quad = found["quads"][0]
    return sum(quad[0::2]) / 4, sum(quad[1::2]) / 4


class Tabs:
    """The tabs of one context, in the order they were opened; `front` is the index of one.

    `refused` collects the addresses that the proxy refused; its reader empties it.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._tabs: list[Tab] = []
        self.front = 0
        self.refused: list[str] = []

    async def open(self) -> None:
        """Opens the first, empty tab."""
        self._context.on("response", self._heard_answer)
        self._context.on("requestfailed", self._heard_failure)
        await self.refresh()

    def _heard_answer(self, answer: Any) -> None:
        if "x-refused" in answer.headers:
            self.refused.append(answer.url)

    def _heard_failure(self, request: Any) -> None:
        if request.failure == _REFUSED:
            self.refused.append(request.url)

    @property
    def tab(self) -> Tab:
        """The tab in front."""
        return self._tabs[self.front]

    def __len__(self) -> int:
        return len(self._tabs)

    async def add(self) -> None:
        """Opens an empty tab in front."""
        await self._context.new_page()
        await self.refresh()

    async def refresh(self) -> None:
        """Takes in which pages were opened and closed; a newly opened page is in front."""
        self._drop_closed()
        known = [tab.page for tab in self._tabs]
        for page in [page for page in self._context.pages if page not in known]:
            self._tabs.append(await Tab.on(page, drawn=True, patience=LIVE_SECONDS))
            self.front = len(self._tabs) - 1
            await self.tab.settle()
        if not self._tabs:
            await self.add()
        self.front = max(self.front, 0)
        await self.tab.page.bring_to_front()

    def _drop_closed(self) -> None:
        for tab in [tab for tab in self._tabs if tab.page.is_closed()]:
            # The tab before a closed one comes to the front, as in a person's browser.
            if self._tabs.index(tab) <= self.front:
                self.front -= 1
            self._tabs.remove(tab)

    async def focus(self, number: int) -> None:
        """Brings a tab to the front. Raises ValueError if there is no such tab."""
        if not 1 <= number <= len(self._tabs):
            raise ValueError(f"no tab {number} of {len(self._tabs)}")
        self.front = number - 1
        await self.refresh()

    async def close_front(self) -> None:
        """Closes the tab in front."""
        await self.tab.page.close()
        await self.refresh()

    async def close(self) -> None:
        """Closes all tabs and their context."""
        await self._context.close()
