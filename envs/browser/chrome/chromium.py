"""Real Chromium with no network card: one caged browser per process, one fresh context per episode.

The browser runs under a dropped uid in its own pid, mount and (empty) network namespaces, with its
own sandbox on, and speaks to Playwright over a pipe. Every page is served by Python through
`route`; what is not served is refused. A browser for live sites has a proxy with a list of hosts as
its only way out (see proxy), still without a network card. Not covered: a kernel vulnerability, or
a browser one that also breaks Chromium's own sandbox.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from envs.browser.chrome.devtools import ax_lines
from envs.browser.chrome.way_out import PROXY, WayOut
from envs.sandbox import confine
from envs.sandbox.limits import BROWSER, Bounds
from experience.errors import EnvironmentFailure, MissingPartError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Request:
    """What a page asks of its site: `query` without its question mark."""

    method: str
    path: str
    query: str
    body: bytes
    content_type: str


@dataclass(frozen=True)
class Reply:
    status: int
    content_type: str
    body: bytes


Answers = Callable[[Request], Reply]

_BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chrome")
_FLAGS = (
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--disable-dev-shm-usage",
)
_STEP_SECONDS, _SETTLE_SECONDS = 20.0, 15.0
LIVE_SECONDS = 8.0  # after which a page that still loads is taken as it is


def find_browser() -> str:
    """Path of the browser to use: XP_BROWSER, a small headless Chromium, a full one, or
    Playwright's own."""
    for name in (os.environ.get("XP_BROWSER", ""), *_BROWSERS):
        if name and (path := shutil.which(name)):
            return path
    cached = sorted(Path("~/.cache/ms-playwright").expanduser().glob("chromium*/chrome*/*"))
    for file in cached:
        if file.name in ("chrome", "chrome-headless-shell", "headless_shell") and os.access(
            file, os.X_OK
        ):
            return str(file)
    raise MissingPartError(
        "no Chromium was found; the browser world needs a real one",
        "apt-get install chromium-headless-shell, or: playwright install chromium",
    )


def _wrapper(
    browser: str, directory: Path, readable: Sequence[Path], bounds: Bounds, before: str = ""
) -> Path:
    """A script that starts `browser` in its cage, after the words `before`, and hands on
    Playwright's pipe (descriptors 3 and 4). Nothing of the environment that Playwright gives it
    goes in, nor the host's name for its profile, which stands in the place's own /tmp."""
    own = [] if browser.startswith("/usr/") else [Path(os.path.realpath(browser)).parent]
    words = directory / "place"
    arguments = confine.bwrap_arguments(readable=[*own, *readable], limits=BROWSER)
    words.write_bytes(confine.packed(arguments))
    cage = " ".join(
        [
            *map(shlex.quote, ["env", "-i", *bounds.words, *confine.entry(9), *BROWSER.words()]),
            before,
            shlex.quote(browser),
        ]
    )  # no filter: Chromium filters its own calls
    script = directory / "caged-browser"
    profile = (
        'for a; do shift; case "$a" in --user-data-dir=*) a=--user-data-dir=/tmp/profile; esac; '
        'set -- "$@" "$a"; done'
    )
    pid = shlex.quote(str(directory / "pid"))  # which stays the same through every exec
    script.write_text(
        f'#!/bin/sh\necho $$ > {pid}\ncd /\n{profile}\nexec {cage} "$@" '
        f"9<{shlex.quote(str(words))}\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


class Chromium:
    """One caged browser and the event loop that drives it. Threads call `wait`."""

    _shared: ClassVar[dict[tuple[str, ...], Chromium]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def shared(cls, hosts: Sequence[str] = ()) -> Chromium:
        """This process's browser that may reach those hosts, started on first use and again if it
        died."""
        key = tuple(sorted(hosts))
        with cls._guard:
            if key not in cls._shared or not cls._shared[key].alive:
                cls._shared[key] = cls(hosts=key)
            return cls._shared[key]

    def __init__(self, readable: Sequence[Path] = (), hosts: Sequence[str] = ()) -> None:
        """It may read files below `readable`, and reach `hosts` (rules of proxy)."""
        self._readable = readable
        self.way_out = WayOut(hosts) if hosts else None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="chromium", daemon=True).start()
        self._directory = tempfile.TemporaryDirectory(prefix="xp-browser-")
        self._bounds = Bounds(BROWSER)
        weakref.finalize(self, self._bounds.close)
        self.wait(self._start(), 60.0)

    @property
    def alive(self) -> bool:
        return bool(self._browser.is_connected())

    def wait(self, work: Coroutine[Any, Any, Result], seconds: float = _STEP_SECONDS) -> Result:
        """The result of `work` on the browser's loop.

        Raises EnvironmentFailure if the browser fails or hangs.
        """
        from playwright.async_api import Error

        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except (Error, TimeoutError) as error:
            future.cancel()
            raise EnvironmentFailure(
                f"the browser failed: {type(error).__name__}: {error}"[:500],
                "the episode ends as env_error",
            ) from error

    async def _start(self) -> None:
        from playwright.async_api import async_playwright

        self._playwright = await async_playwright().start()
        out, opened, flags = self.way_out, None, list(_FLAGS)
        script = _wrapper(
            find_browser(),
            Path(self._directory.name),
            [*self._readable, *(out.readable if out else [])],
            self._bounds,
            out.before if out else "",
        )
        if out:
            flags += [
                f"--proxy-server=http://{PROXY[0]}:{PROXY[1]}",
                "--proxy-bypass-list=<-loopback>",
            ]
            opened = self._loop.run_in_executor(None, out.open)
        self._browser = await self._playwright.chromium.launch(
            executable_path=script,
            args=flags,
            chromium_sandbox=True,
            env={},
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )
        if not self._bounds.groups:  # where there are any, the script has joined them
            self._bounds.hold(int((Path(self._directory.name) / "pid").read_text()))
        if opened:
            await opened

    def close(self) -> None:
        """Ends the browser and its place."""
        with suppress(EnvironmentFailure):
            self.wait(self._browser.close())
            self.wait(self._playwright.stop())
        if self.way_out:
            self.way_out.close()
        self._bounds.close()
        self._directory.cleanup()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def open_file(self, url: str, width: int, height: int) -> tuple[Any, Any]:
        """(page, its DevTools session) of a file that this browser may read, in a fresh context:
        the reference for the fast path, which does the same with fewer steps between."""
        context = await self._browser.new_context(viewport={"width": width, "height": height})
        page = await context.new_page()
        await page.goto(url)
        return page, await context.new_cdp_session(page)

    async def open(self, origin: str, answers: Answers, styled: bool = False) -> Tab:
        """A page in a fresh context that knows only `origin`, where `answers` tells all. A page
        that is `styled` by files of its own has settled when it was drawn with them."""
        context = await self._context(640, 480)

        async def answer(route: Any) -> None:
            request = route.request
            url = urlsplit(request.url)
            if f"{url.scheme}://{url.netloc}" != origin:
                await route.abort("blockedbyclient")
                return
            asked = Request(
                request.method,
                url.path,
                url.query,
                request.post_data_buffer or b"",
                request.headers.get("content-type", ""),
            )
            reply = answers(asked)
            await route.fulfill(
                status=reply.status, body=reply.body, content_type=reply.content_type
            )

        await context.route("**/*", answer)
        await context.route_web_socket("**/*", lambda socket: socket.close())
        page = await context.new_page()
        tab = Tab(context, page, await context.new_cdp_session(page), origin, styled)
        await tab.watch()
        await tab.goto("/")
        return tab

    async def open_live(self) -> Any:
        """A fresh context for the sites behind `way_out`."""
        return await self._context(1024, 768)

    async def _context(self, width: int, height: int) -> Any:
        return await self._browser.new_context(
            service_workers="block",
            accept_downloads=False,
            permissions=[],
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
        )


class Tab:
    """One page of an episode: its accessibility tree as text, and actions on its numbered elements.
    With `patience`, a page that has not settled after so many seconds is taken as it is."""

    def __init__(
        self,
        context: Any,
        page: Any,
        cdp: Any,
        origin: str,
        styled: bool = False,
        patience: float | None = None,
    ) -> None:
        self._context, self.page, self._cdp, self._origin, self._patience = (
            context,
            page,
            cdp,
            origin,
            patience,
        )
        self._until = _NEXT_FRAME if styled else _NEXT_TASK
        self._elements: list[int] = []
        self._names: list[str] = []
        self._busy, self._leaving = 0, False
        page.on("request", lambda _: self._count(1))
        page.on("requestfinished", lambda _: self._count(-1))
        page.on("requestfailed", lambda _: self._count(-1))

    async def watch(self) -> None:
        """Hears of it when the page is about to be left. Comes first."""
        self._cdp.on("Page.frameRequestedNavigation", lambda _: self._leave(True))
        for come in (
            "Page.frameNavigated",
            "Page.frameStoppedLoading",
            "Page.navigatedWithinDocument",
        ):
            self._cdp.on(come, lambda _: self._leave(False))
        await self._cdp.send("Page.enable")

    def _leave(self, leaving: bool) -> None:
        self._leaving = leaving

    def _count(self, change: int) -> None:
        self._busy += change

    async def close(self) -> None:
        await self._context.close()

    async def goto(self, path: str) -> None:
        await self.page.goto(self._origin + "/" + path.lstrip("/"))
        if self._until == _NEXT_FRAME:
            await self.settle()

    async def visit(self, url: str) -> str:
        """Opens a live page; what went wrong, "" if nothing did."""
        from playwright.async_api import Error, TimeoutError

        try:
            await self.page.goto(url, timeout=1000 * LIVE_SECONDS)
        except TimeoutError:
            pass  # still loading: taken as it is
        except Error as failed:
            told = str(failed)
            return told.partition("net::")[2].split(" ")[0] or told.splitlines()[0]
        return ""

    async def back(self) -> None:
        await self.page.go_back(timeout=1000 * LIVE_SECONDS)

    async def press(self, keys: str) -> None:
        """Raises ValueError for keys that there are not."""
        from playwright.async_api import Error

        try:
            await self.page.keyboard.press(keys)
        except Error:
            raise ValueError(f"no keys {keys}") from None
        await self.settle()

    async def upload(self, element: int, name: str, content: bytes) -> None:
        """Chooses a file for a file field. Raises ValueError if the element is none."""
        from playwright.async_api import Error

        node = await self._cdp.send("DOM.resolveNode", {"backendNodeId": self._node(element)})
        await self._cdp.send(
            "Runtime.callFunctionOn",
            {
                "objectId": node["object"]["objectId"],
                "functionDeclaration": "function () { window.xpChosen = this; }",
            },
        )
        handle = (await self.page.evaluate_handle("window.xpChosen")).as_element()
        try:
            await handle.set_input_files(
                {"name": name, "mimeType": "application/octet-stream", "buffer": content}
            )
        except (Error, AttributeError):
            raise ValueError(f"element {element} takes no file") from None
        await self.settle()

    async def text(self) -> str:
        """The words that the page shows."""
        return str(await self.page.evaluate("document.body ? document.body.innerText : ''"))

    async def screenshot(self) -> bytes:
        """The visible part of the page, as PNG."""
        image: bytes = await self.page.screenshot(type="png")
        return image

    async def tree(self) -> list[str]:
        """The elements an agent can use, one line each; line n is element n+1 for the actions."""
        nodes = (await self._cdp.send("Accessibility.getFullAXTree"))["nodes"]
        by_id = {node["nodeId"]: node for node in nodes}
        self._elements, self._names, lines = [], [], []
        for node in _in_order(nodes[0], by_id):
            role = node.get("role", {}).get("value")
            if node.get("ignored") or role not in _SHOWN:
                continue
            self._elements.append(node["backendDOMNodeId"])
            self._names.append(node.get("name", {}).get("value", ""))
            lines.append(f"{_SHOWN[role]} {self._names[-1]}{_value(node, by_id)}")
        return lines

    async def lines(self) -> list[str]:
        """Everything that can be read or used, as the fast path shows it: [number] role "name" =
        value (states). A page that has just loaded is waited for until its tree is built."""
        for _ in range(50):
            nodes = (await self._cdp.send("Accessibility.getFullAXTree"))["nodes"]
            if len(nodes) > 1:
                break
            await asyncio.sleep(0.005)
        names = {
            n["backendDOMNodeId"]: n.get("name", {}).get("value", "")
            for n in nodes
            if "backendDOMNodeId" in n and n.get("role", {}).get("value") in _SHOWN
        }  # a label's text has its field's name, and is not meant
        self._elements, self._names = [], []

        def number(node: int) -> int:
            self._elements.append(node)
            self._names.append(names.get(node, "").strip())
            return len(self._elements)

        return ax_lines(nodes, number)

    def find(self, words: str) -> tuple[int, str]:
        """The element that `words` begins with, by its number or its whole name, and the words
        after it.

        Raises ValueError where none or several are meant.
        """
        first, _, rest = words.partition(" ")
        if first.isdigit():
            self._node(int(first))
            return int(first), rest
        meant = [name for name in set(self._names) if name and (words + " ").startswith(name + " ")]
        if not meant:
            raise ValueError(f"no element {first}")
        name = max(meant, key=len)
        if self._names.count(name) > 1:
            raise ValueError(f"several elements {name}: use a number")
        return self._names.index(name) + 1, words[len(name) + 1 :]

    async def click(self, element: int) -> None:
        x, y = await self._centre(element)
        await self.page.mouse.click(x, y)
        await self.settle()

    async def type(self, element: int, text: str) -> None:
        """Replaces what the field holds."""
        from playwright.async_api import Error

        try:
            await self._cdp.send("DOM.focus", {"backendNodeId": self._node(element)})
        except Error:
            raise ValueError(f"element {element} takes no text") from None
        await self.page.keyboard.press("ControlOrMeta+A")
        await self.page.keyboard.insert_text(text)

    async def select(self, element: int, option: str) -> None:
        """Raises ValueError if the list has no such option."""
        node = await self._cdp.send("DOM.resolveNode", {"backendNodeId": self._node(element)})
        found = await self._cdp.send(
            "Runtime.callFunctionOn",
            {
                "objectId": node["object"]["objectId"],
                "returnByValue": True,
                "arguments": [{"value": option}],
                "functionDeclaration": _CHOOSE,
            },
        )
        if not found["result"].get("value"):
            raise ValueError(f"no option {option}")
        await self.settle()

    async def scroll(self, pixels: int) -> None:
        await self.page.mouse.wheel(0, pixels)
        await self.settle()

    def _node(self, element: int) -> int:
        if not 1 <= element <= len(self._elements):
            raise ValueError(f"no element {element}")
        return self._elements[element - 1]

    async def _centre(self, element: int) -> tuple[float, float]:
        from playwright.async_api import Error

        node = {"backendNodeId": self._node(element)}
        try:
            await self._cdp.send("DOM.scrollIntoViewIfNeeded", node)
            quad = (await self._cdp.send("DOM.getContentQuads", node))["quads"][0]
        except (Error, IndexError):
            raise ValueError(f"element {element} cannot be seen") from None
        return sum(quad[0::2]) / 4, sum(quad[1::2]) / 4

    async def settle(self) -> None:
        """Until the input was handled, no request is under way and the document has loaded. That a
        page is about to be left is told before the answer to what is evaluated after, on the same
        session."""
        from playwright.async_api import Error

        until = time.monotonic() + (self._patience or _SETTLE_SECONDS)
        if self._patience is not None:
            await asyncio.sleep(0.15)  # a page that it opens is told of later
        while time.monotonic() < until:
            try:
                told = await self._cdp.send(
                    "Runtime.evaluate", {"expression": self._until, "awaitPromise": True}
                )
                if (
                    told["result"].get("value") == "complete"
                    and self._busy <= 0
                    and not self._leaving
                ):
                    return
            except Error:
                if self.page.is_closed():
                    return
            if self._leaving or self._patience is not None:
                await asyncio.sleep(0.005)
        if self._patience is None:
            raise EnvironmentFailure("the page did not settle", "the episode ends as env_error")


_SHOWN = {
    "button": "button",
    "link": "link",
    "textbox": "text",
    "combobox": "list",
    "checkbox": "check",
    "radio": "radio",
}
_NEXT_TASK = (
    "new Promise(done => setTimeout(() => setTimeout(() => done(document.readyState), 0), 0))"
)
_NEXT_FRAME = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(document.readyState), 0)))"
_CHOOSE = """function (wanted) {
  const option = [...(this.options || [])].find(o => o.label === wanted || o.value === wanted);
  if (!option) return false;
  this.value = option.value;
  this.dispatchEvent(new Event("input", {bubbles: true}));
  this.dispatchEvent(new Event("change", {bubbles: true}));
  return true;
}"""


def _in_order(node: dict[str, Any], by_id: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    found = [node]
    for child in node.get("childIds", []):
        if child in by_id:
            found += _in_order(by_id[child], by_id)
    return found


def _value(node: dict[str, Any], by_id: dict[str, dict[str, Any]]) -> str:
    """`=value`, with a list's options behind it, and `=on`/`=off` for boxes."""
    role = node["role"]["value"]
    properties = {p["name"]: p["value"].get("value") for p in node.get("properties", [])}
    if role in ("checkbox", "radio"):
        return "=on" if properties.get("checked") in ("true", True) else "=off"
    if role in ("button", "link"):
        return ""
    value = f"={node.get('value', {}).get('value', '')}"
    if role == "combobox":
        options = [
            n["name"]["value"]
            for n in _in_order(node, by_id)
            if n.get("role", {}).get("value") == "option"
        ]
        value += f" ({'|'.join(options)})"
    return value
