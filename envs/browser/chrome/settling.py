"""When a page has settled: its input is handled, its document loaded, no request under way.

A live page has settled only once the pages that it opens in other tabs have come, too.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from experience.errors import EnvironmentFailure

SETTLE_SECONDS = 15.0
NOTICE_SECONDS = 0.15  # a live page's scripts often act a moment after the input
_POLL_SECONDS = 0.005

# Two tasks: the first may run before the input that the browser process has sent is handled.
_NEXT_TASK = (
    "new Promise(done => setTimeout(() => setTimeout(() => done(document.readyState), 0), 0))"
)
_NEXT_FRAME = (
    "new Promise(done => requestAnimationFrame("
    "() => setTimeout(() => done(document.readyState), 0)))"
)
_ARRIVALS = ("Page.frameNavigated", "Page.frameStoppedLoading", "Page.navigatedWithinDocument")


class Settling:
    """Hears what a page is doing, and waits until it has settled.

    `drawn`: the page must also have drawn a frame, as one with style files does. `patience`: a live
    page that has not settled after so many seconds is taken as it is; without, a page that does
    not settle is a failure.
    """

    def __init__(
        self, page: Any, session: Any, *, drawn: bool = False, patience: float | None = None
    ) -> None:
        self._page = page
        self._session = session
        self.drawn = drawn
        self._patience = patience
        self._requests = 0
        self._leaving = False
        self._opening = 0
        page.on("request", lambda _: self._count(1))
        page.on("requestfinished", lambda _: self._count(-1))
        page.on("requestfailed", lambda _: self._count(-1))
        page.on("popup", lambda _: self._count_opening(-1))

    def _count(self, change: int) -> None:
        self._requests += change

    def _count_opening(self, change: int) -> None:
        self._opening += change

    async def watch(self) -> None:
        """Subscribes to the events of navigation. `settle` needs it once, before."""
        self._session.on("Page.frameRequestedNavigation", lambda _: self._set_leaving(True))
        for event in _ARRIVALS:
            self._session.on(event, lambda _: self._set_leaving(False))
        # Chromium says at once that a page opens another; Playwright shows that other page, as a
        # "popup", only when its address has begun to answer.
        self._session.on("Page.windowOpen", lambda _: self._count_opening(1))
        await self._session.send("Page.enable")

    def _set_leaving(self, leaving: bool) -> None:
        self._leaving = leaving

    async def settle(self) -> None:
        """Waits until the page has settled. Raises EnvironmentFailure unless it is a live page."""
        from playwright.async_api import Error

        live = self._patience is not None
        deadline = time.monotonic() + (self._patience or SETTLE_SECONDS)
        if live:
            await asyncio.sleep(NOTICE_SECONDS)
        while time.monotonic() < deadline:
            try:
                if await self._has_settled():
                    return
            except Error:  # the page was left while the script ran: the next round asks the new one
                if self._page.is_closed():
                    return
            if self._leaving or live:
                await asyncio.sleep(_POLL_SECONDS)
        self._opening = 0  # a page that has not come by now may never come: a download, say
        if not live:
            raise EnvironmentFailure("the page did not settle", "the episode ends as env_error")

    async def _has_settled(self) -> bool:
        # The session keeps its order: the event that the page is about to be left comes before
        # the answer to a script that was sent after the input. So the script goes first.
        script = _NEXT_FRAME if self.drawn else _NEXT_TASK
        found = await self._session.send(
            "Runtime.evaluate", {"expression": script, "awaitPromise": True}
        )
        complete = found["result"].get("value") == "complete"
        awaits_a_page = self._opening > 0 and self._patience is not None
        return complete and self._requests <= 0 and not self._leaving and not awaits_a_page
