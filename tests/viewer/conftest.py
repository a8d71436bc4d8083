"""A served run and a browser that looks at it; both live as long as the tests of one file."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.reading.viewer.serving.server import HOST, bind, make_app, settings_of
from actors.reading.viewer.shelf.shelf import Shelf
from tests.viewer.lived import LivedRun, imagine, rich_run, with_metrics

TOKEN = "a-token-of-the-tests"
_BROWSER = "chromium-headless-shell"


@dataclass
class Served:
    """A server of the folder `runs`, in a thread; `keys` name the episodes of the run."""

    port: int
    runs: Path
    run: LivedRun
    keys: dict[str, str]

    @property
    def home(self) -> str:
        return f"http://{HOST}:{self.port}"

    def at(self, *parts: str, asked: str = "") -> str:
        """The address of a screen of the run."""
        return f"{self.home}/#/run/{'/'.join([self.run.path.name, *parts])}{asked and '?' + asked}"


def serving(runs: Path) -> Iterator[int]:
    """Serves a folder on a free port until it is resumed."""
    import uvicorn

    listening = bind(0)
    port = listening.getsockname()[1]
    app = make_app(Shelf(runs), [f"{HOST}:{port}", f"localhost:{port}"], TOKEN)
    server = uvicorn.Server(settings_of(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield port
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    runs = tmp_path_factory.mktemp("runs")
    run, keys = rich_run(runs)
    with_metrics(run)
    imagine(run)
    run.journal.commit()
    for port in serving(runs):
        yield Served(port, runs, run, keys)
    run.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    pytest.importorskip("playwright", reason="./xp setup worlds")
    if shutil.which(_BROWSER) is None:
        pytest.skip(f"{_BROWSER} is not installed: ./xp setup worlds")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(_BROWSER))
        yield browser
        browser.close()


class Watched:
    """A page, and all that went wrong on it."""

    def __init__(self, page: Any) -> None:
        self.page, self.wrong, self.asked = page, [], []
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))
        page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, address: str) -> Any:
        self.page.goto("about:blank")
        self.page.goto(address)
        self.page.wait_for_selector("#content .page")
        return self.page


@pytest.fixture
def watched(chromium: Any) -> Iterator[Watched]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    watched = Watched(context.new_page())
    yield watched
    context.close()
    assert watched.wrong == []
