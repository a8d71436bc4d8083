"""The fast path shows what the reference shows, the same every time, and reaches nothing."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

pytest.importorskip("miniwob", reason="./xp setup worlds")
if shutil.which("chromium-headless-shell") is None:
    pytest.skip(
        "chromium-headless-shell is not installed: ./xp setup worlds", allow_module_level=True
    )

from envs.browser.chrome.accessibility import ax_lines
from envs.browser.chrome.chromium import Chromium
from envs.browser.chrome.devtools import Devtools
from envs.browser.miniwob import BEGIN, HEIGHT, WIDTH, MiniWoB, html, page_names
from envs.browser.miniwob_experts import EXPERTS


@pytest.fixture(scope="module")
def world() -> Iterator[MiniWoB]:
    made = gymnasium.make("envs:MiniWoB-v0", pages="all").unwrapped
    yield made
    made.close()


def begin(world: MiniWoB, page: str, seed: int) -> str:
    world.tasks = lambda split, rng: (page, seed)  # type: ignore[method-assign]
    return world.reset(seed=0)[0]


@pytest.mark.timeout(0)
def test_every_page_loads_steps_and_is_the_same_for_the_same_seed(
    world: MiniWoB, request: pytest.FixtureRequest
) -> None:
    pages = page_names() if request.config.getoption("--long") else page_names()[::9]
    assert len(page_names()) == 130
    pictures = 0
    for page in pages:
        lived = []
        for _ in range(2):
            first = begin(world, page, 7)
            picture = world.page.screenshot("png")
            action = world.random_action(np.random.default_rng(0))
            second = world.step(action)[0]
            lived.append((first, second, picture))
        assert lived[0][:2] == lived[1][:2], page
        pictures += lived[0][2] == lived[1][2]
    assert pictures >= len(pages) - 1, "and drawn the same"
    print(f"{len(pages)} pages, {pictures} drawn alike to the byte")


@pytest.mark.parametrize("page", EXPERTS)
def test_an_expert_solves_its_page_by_the_pages_own_reward(page: str, world: MiniWoB) -> None:
    for seed in range(3):
        begin(world, page, seed)
        over, total = False, 0.0
        while not over:
            _, reward, terminated, truncated, _ = world.step(world.expert_action())
            total, over = total + float(reward), terminated or truncated
        assert total > 0.9, seed


def test_the_fast_path_shows_what_playwright_shows(world: MiniWoB) -> None:
    """The reference driver opens the same pages with the same seeds, and reads the same lines."""
    reference = Chromium([html()])

    async def shown(page: str, seed: int) -> list[str]:
        opened, session = await reference.open_file(
            f"file://{html()}/miniwob/{page}.html", WIDTH, HEIGHT
        )
        await opened.evaluate(BEGIN % seed)
        await opened.wait_for_timeout(100)
        nodes = (await session.send("Accessibility.getFullAXTree"))["nodes"]
        numbers: dict[int, int] = {}
        lines = ax_lines(nodes, lambda node: numbers.setdefault(node, len(numbers) + 1))
        await opened.context.close()
        return lines

    for page in (
        "click-test",
        "click-checkboxes",
        "login-user",
        "choose-list",
        "email-inbox",
        "book-flight",
        "use-slider",
        "click-tab-2",
        "read-table",
        "social-media",
    ):
        begin(world, page, 3)
        assert reference.wait(shown(page, 3)) == list(world.shown.lines), page


def test_sixteen_pages_in_one_process_do_not_disturb_each_other() -> None:
    worlds = [MiniWoB(pages=["click-checkboxes"]) for _ in range(16)]
    alone = []
    for seed in range(16):
        begin(worlds[0], "click-checkboxes", seed)
        alone.append([worlds[0].step(a)[0] for a in ("click 2", "noop", "click 4")])
    for seed, one in enumerate(worlds):
        begin(one, "click-checkboxes", seed)
    together: list[list[str]] = [[] for _ in worlds]
    for action in ("click 2", "noop", "click 4"):
        for seed, one in enumerate(worlds):
            together[seed].append(one.step(action)[0])
    assert together == alone
    for one in worlds:
        one.close()


def test_time_on_a_page_passes_only_with_actions(world: MiniWoB) -> None:
    import time

    begin(world, "click-test", 1)
    before = world.page.evaluate("Date.now()")
    time.sleep(0.3)
    assert world.page.evaluate("Date.now()") == before
    world.page.advance(250)
    assert world.page.evaluate("Date.now()") - before == pytest.approx(250, abs=20)


def test_nothing_of_an_episode_is_left_for_the_next(world: MiniWoB) -> None:
    begin(world, "enter-text", 1)
    world.page.evaluate(
        "window.left = 1; document.cookie = 'left=1'; try { localStorage.left = 1 } catch (e) {}"
    )
    world.step("fill 4 left")
    begin(world, "enter-text", 1)
    assert (
        world.page.evaluate(
            "[typeof window.left, document.cookie, (() => { try { return localStorage.left || '' } "
            "catch (e) { return '' } })(), document.querySelector('input').value].join('|')"
        )
        == "undefined|||"
    )


def test_a_page_reaches_no_network_and_no_file_but_its_own(world: MiniWoB) -> None:
    begin(world, "click-test", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        port = listening.getsockname()[1]
        for url in (
            f"http://127.0.0.1:{port}/",
            "http://example.com/",
            "file:///etc/passwd",
            "http://169.254.169.254/latest",
            "file:///proc/self/environ",
            "http://127.0.0.1:8265/",
            f"ws://127.0.0.1:{port}/",
        ):
            world.page.evaluate(
                f"window.u = {url!r};"
                + """(u => {
                  window.outcome = null;
                  const end = outcome => () => { window.outcome = outcome };
                  if (u.startsWith('ws')) {
                    const socket = new WebSocket(u);
                    socket.onopen = end('open');
                    socket.onerror = end('refused');
                  } else fetch(u).then(end('open'), end('refused'));
                })(window.u)"""
            )
            for _ in range(40):
                world.page.advance(50)
                if world.page.evaluate("window.outcome"):
                    break
            assert world.page.evaluate("window.outcome") != "open", url
        with pytest.raises(TimeoutError):
            listening.accept()


def test_the_shell_runs_without_a_network_card_or_root(world: MiniWoB) -> None:
    import psutil

    begin(world, "click-test", 1)
    found = [
        p
        for p in psutil.process_iter(["cmdline"])
        if "--type=renderer" in (p.info["cmdline"] or [])
    ]
    assert found
    for process in found[:2]:
        status: dict[str, Any] = dict(
            line.split(":\t", 1) for line in open(f"/proc/{process.pid}/status").read().splitlines()
        )
        assert status["Seccomp"].strip() == "2" and status["Uid"].split()[0] != "0"
        assert [
            line.split(":")[0].strip()
            for line in open(f"/proc/{process.pid}/net/dev").read().splitlines()[2:]
        ] in ([], ["lo"])


def test_a_browser_that_is_killed_is_started_anew(world: MiniWoB) -> None:
    from experience.errors import EnvironmentFailure

    begin(world, "click-test", 1)
    Devtools.shared([html()])._pipe.process.kill()
    with pytest.raises(EnvironmentFailure):
        for _ in range(3):
            world.step("noop")
    assert "Click" in begin(world, "click-test", 1)


@pytest.mark.parametrize("see", ["diff", "dom", "screenshot", "marks"])
def test_a_page_can_be_seen_in_other_ways(see: str) -> None:
    world = MiniWoB(pages=["click-checkboxes"], see=see)  # type: ignore[arg-type]
    first, info = world.reset(seed=1)
    second, _, _, _, later = world.step("click 2")
    if see == "diff":
        assert "+ [2]" in second and len(second) < len(first)
    elif see == "dom":
        assert "<input" in first
    else:
        name = "screenshot" if see == "screenshot" else "marks"
        assert (
            info["images"][name][:2] == b"\xff\xd8"
            and info["images"][name] != later["images"][name]
        )
    world.close()
