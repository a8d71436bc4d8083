"""Makes the pictures of docs/viewer.md: Chromium looks at a real run in the viewer.

python -m tests.viewer.pictures RUNS_FOLDER RUN docs/img [RUN_WITH_CLICKS]
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from actors.config.section import absolute
from actors.reading.viewer.shelf.shelf import Shelf
from tests.viewer.conftest import serving

_SIZE = {"width": 1280, "height": 860}


def main(runs: Path, name: str, out: Path, clicked: str) -> None:
    from playwright.sync_api import sync_playwright

    shelf = Shelf(absolute(runs))
    columns = shelf.run(name).lived.columns()
    group = columns.words["group_id"].counted(columns.words["split"].are("train"))
    groups = [word for word in group if word]
    spread = max(groups, key=lambda word: _spread(columns, word))
    best = int(shelf.run(clicked).lived.columns().reward.argmax())
    shown = {
        "viewer-run": f"#/run/{name}",
        "viewer-episode": f"#/run/{clicked}/episode/{shelf.run(clicked).lived.columns().key(best)}",
        "viewer-group": f"#/run/{name}/group?group={spread}",
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium-headless-shell")
        )
        for port in serving(absolute(runs)):
            for file, address in shown.items():
                _take(browser, f"http://127.0.0.1:{port}/{address}", out / f"{file}.png")
        browser.close()


def _spread(columns: Any, group: str) -> float:
    rewards = columns.reward[columns.words["group_id"].are(group)]
    return float(rewards.max() - rewards.min())


def _take(browser: Any, address: str, path: Path) -> None:
    page = browser.new_page(viewport=_SIZE)
    page.goto(address)
    page.wait_for_selector("#content .page")
    page.wait_for_timeout(800)  # charts draw once they know their width
    page.screenshot(path=path)
    page.close()


if __name__ == "__main__":
    folder, run, to, *more = sys.argv[1:]
    main(Path(folder), run, Path(to), more[0] if more else run)
