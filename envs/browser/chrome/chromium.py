"""The reference browser: a caged Chromium a process, driven by Playwright, a fresh context a page.

The browser runs under a dropped uid in its own pid, mount and (empty) network namespaces, with its
own sandbox on, and speaks to Playwright over a pipe. Python answers every request of a page (see
routing); all other requests are refused. A browser for live sites has a proxy with a list of hosts
as its only way out (see proxy), still without a network card. Not covered: a kernel vulnerability,
or a browser one that also breaks Chromium's own sandbox.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import stat
import tempfile
import threading
import weakref
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from envs.browser.chrome.routing import Handler, serve_only
from envs.browser.chrome.tab import Tab
from envs.browser.chrome.way_out import PROXY, WayOut
from envs.sandbox import confine
from envs.sandbox.limits import BROWSER, Bounds
from experience.errors import EnvironmentFailure, MissingPartError

Result = TypeVar("Result")

_BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chrome")
_PROGRAMS = ("chrome", "chrome-headless-shell", "headless_shell")
_FLAGS = (
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--disable-dev-shm-usage",
)
_PROXY_FLAGS = (
    f"--proxy-server=http://{PROXY[0]}:{PROXY[1]}",
    # By default Chromium goes around its proxy for loopback addresses.
    "--proxy-bypass-list=<-loopback>",
)
_STEP_SECONDS = 20.0
_START_SECONDS = 60.0


def find_browser() -> str:
    """The path of the browser to use. Raises MissingPartError if there is none.

    In this order: XP_BROWSER, a small headless Chromium, a full one, Playwright's own.
    """
    for name in (os.environ.get("XP_BROWSER", ""), *_BROWSERS):
        if name and (path := shutil.which(name)):
            return path
    downloaded = Path("~/.cache/ms-playwright").expanduser().glob("chromium*/chrome*/*")
    for file in sorted(downloaded):
        if file.name in _PROGRAMS and os.access(file, os.X_OK):
            return str(file)
    raise MissingPartError(
        "no Chromium was found; the browser world needs a real one",
        "apt-get install chromium-headless-shell, or: playwright install chromium",
    )


def _launch_script(
    browser: str, directory: Path, readable: Sequence[Path], bounds: Bounds, prefix: str
) -> Path:
    """A script for Playwright to start in the browser's stead: it starts the browser in its cage.

    `prefix` stands before the browser's command in the cage. The script hands on Playwright's pipe,
    descriptors 3 and 4, and writes its process id to the file `pid`.
    """
    own = [] if browser.startswith("/usr/") else [Path(os.path.realpath(browser)).parent]
    # No system-call filter: Chromium filters the calls of its own processes.
    arguments = confine.bwrap_arguments(readable=[*own, *readable], limits=BROWSER)
    place = directory / "place"
    place.write_bytes(confine.packed(arguments))
    # `env -i`: nothing of the environment that Playwright passes on goes into the cage.
    entry = ["env", "-i", *bounds.words, *confine.entry(9), *BROWSER.words()]
    cage = " ".join([*map(shlex.quote, entry), prefix, shlex.quote(browser)])
    # The profile that Playwright names is a folder of the host; the cage has its own /tmp.
    profile = (
        'for a; do shift; case "$a" in --user-data-dir=*) a=--user-data-dir=/tmp/profile; esac; '
        'set -- "$@" "$a"; done'
    )
    # Every later exec keeps the process id that `$$` is here.
    pid = shlex.quote(str(directory / "pid"))
    script = directory / "caged-browser"
    script.write_text(
        f"#!/bin/sh\necho $$ > {pid}\ncd /\n{profile}\n"
        f'exec {cage} "$@" 9<{shlex.quote(str(place))}\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


class Chromium:
    """One caged browser and the event loop that drives it. Any thread may call `wait`."""

    _shared: ClassVar[dict[tuple[str, ...], Chromium]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def shared(cls, hosts: Sequence[str] = ()) -> Chromium:
        """This process's browser for those hosts; started on first use, and again if it died."""
        key = tuple(sorted(hosts))
        with cls._guard:
            if key not in cls._shared or not cls._shared[key].alive:
                cls._shared[key] = cls(hosts=key)
            return cls._shared[key]

    def __init__(self, readable: Sequence[Path] = (), hosts: Sequence[str] = ()) -> None:
        """Starts a browser that may read files below `readable`, and reach `hosts` (see proxy)."""
        self._readable = readable
        self._way_out = WayOut(hosts) if hosts else None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="chromium", daemon=True).start()
        self._directory = tempfile.TemporaryDirectory(prefix="xp-browser-")
        self._bounds = Bounds(BROWSER)
        weakref.finalize(self, self._bounds.close)
        self.wait(self._start(), _START_SECONDS)

    @property
    def alive(self) -> bool:
        return bool(self._browser.is_connected())

    def wait(self, work: Coroutine[Any, Any, Result], seconds: float = _STEP_SECONDS) -> Result:
        """The result of `work` on the browser's event loop.

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
        directory = Path(self._directory.name)
        way_out = self._way_out
        readable = [*self._readable, *(way_out.readable if way_out else [])]
        prefix = way_out.prefix if way_out else ""
        script = _launch_script(find_browser(), directory, readable, self._bounds, prefix)
        # The cage's program waits for the proxy, and the proxy for the socket that the program
        # sends: both sides must run at once.
        opened = self._loop.run_in_executor(None, way_out.open) if way_out else None
        self._browser = await self._playwright.chromium.launch(
            executable_path=script,
            args=[*_FLAGS, *(_PROXY_FLAGS if way_out else ())],
            chromium_sandbox=True,
            env={},
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )
        if not self._bounds.groups:  # with groups, the script has joined them itself
            self._bounds.hold(int((directory / "pid").read_text()))
        if opened:
            await opened

    def close(self) -> None:
        """Ends the browser, its cage and its proxy."""
        with suppress(EnvironmentFailure):
            self.wait(self._browser.close())
            self.wait(self._playwright.stop())
        if self._way_out:
            self._way_out.close()
        self._bounds.close()
        self._directory.cleanup()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def open_file(self, url: str, width: int, height: int) -> tuple[Any, Any]:
        """(page, its DevTools session) of a file that this browser may read, in a fresh context.

        The fast path is held against this: it shows the same with fewer steps between.
        """
        context = await self._browser.new_context(viewport={"width": width, "height": height})
        page = await context.new_page()
        await page.goto(url)
        return page, await context.new_cdp_session(page)

    async def open(self, origin: str, handler: Handler, styled: bool = False) -> Tab:
        """The start page of a site in a fresh context that reaches nothing but this site.

        `handler` answers every request to `origin`. A `styled` site has style files: its pages
        have settled when they were drawn with them.
        """
        context = await self._context(640, 480)
        await serve_only(context, origin, handler)
        tab = await Tab.on(await context.new_page(), origin, drawn=styled)
        await tab.goto("/")
        return tab

    async def open_live(self) -> Any:
        """A fresh Playwright context for the hosts that this browser reaches."""
        return await self._context(1024, 768)

    async def _context(self, width: int, height: int) -> Any:
        return await self._browser.new_context(
            service_workers="block",  # their requests would not pass the route of `serve_only`
            accept_downloads=False,
            permissions=[],
            viewport={"width": width, "height": height},
            reduced_motion="reduce",  # an animation would make screenshots differ
        )
