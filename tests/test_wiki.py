"""Errands in a real MediaWiki."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest

from envs.browser import wiki
from envs.browser.chrome.routing import Request
from experience.errors import MissingPartError


@pytest.fixture(scope="module")
def world() -> Iterator[Any]:
    made: Any = gymnasium.make("envs:Wiki-v0").unwrapped
    try:
        made.reset(seed=0)
    except MissingPartError as missing:
        pytest.skip(" ".join(str(missing).split()))
    yield made
    made.close()


def _begun(world: Any, kind: int) -> Any:
    world.draw = wiki.KINDS[kind]
    world.reset(seed=0)
    return world.task


@pytest.mark.parametrize("kind", range(len(wiki.KINDS)))
def test_an_expert_does_every_kind_of_errand(world: Any, kind: int) -> None:
    _begun(world, kind)
    ended = False
    while not ended:
        _, _, ended, truncated, info = world.step(world.oracle_action())
        assert not truncated
    assert info["signals"]["done"][0] == 1 and info["signals"]["wrong_changes"][0] == 0


@pytest.mark.long
def test_nearly_right_work_is_refused_and_other_changes_are_counted(world: Any) -> None:
    def saved(title: str, text: str) -> None:
        world.step(f"goto /index.php?title={title}&action=edit")
        world.step(f"type Wikitext source editor {text}")
        world.step(
            "click Save page"
            if any("Save page" in line for line in world._lines)
            else "click Save changes"
        )

    def finished() -> tuple[float, float]:
        signals = world.step("finish")[4]["signals"]
        return signals["done"][0], signals["wrong_changes"][0]

    ((title, text),) = _begun(world, 0).change
    for wrong in (
        text.rstrip("."),
        text.replace("room", "Room"),
        f"{text} {text}",
        text.replace(" Ask", "Ask"),
    ):
        _begun(world, 0)
        saved(title, wrong)
        assert finished() == (0, 0), wrong
    _begun(world, 0)
    saved(f"Talk:{title}", text)
    assert finished() == (0, 1)
    _begun(world, 0)
    saved(title, text)
    other = next(t for t in wiki.THINGS if t != title)
    saved(other, "x")
    assert finished() == (1, 1)
    _begun(world, 0)
    world.step(f"goto /index.php?title={title}&action=edit")
    world.step(f"type Wikitext source editor {text}")
    world.step("click Show preview")
    assert finished() == (0, 0)
    spoilt = _begun(world, 3)
    saved(spoilt.change[0][0], "The thing is back.")
    assert finished() == (0, 0)
    moved = _begun(world, 2)
    (name, text), (title, _) = moved.change
    saved(name.replace(" ", "_"), text)  # a copy is no move
    assert finished() == (0, 0)


def test_its_other_doors_are_shut(world: Any) -> None:
    _begun(world, 1)
    for path in (
        "/api.php",
        "/rest.php/v1/page/Door",
        "/mw-config/index.php",
        "/maintenance/edit.php",
        "/img_auth.php",
        "/skins/../../../../etc/passwd.svg",
        "/resources/../LocalSettings.php",
        "/data/my_wiki.sqlite",
    ):
        assert world.site.answer(Request("GET", path, "", b"", "")).status == 404, path
    page = world.site.answer(Request("GET", "/index.php", "title=Door", b"", ""))
    assert page.status == 200 and b"The door is in room 4" in page.body
    assert (
        world.site.answer(
            Request("GET", "/skins/Vector/resources/common/images/search.svg", "", b"", "")
        ).status
        == 200
    )
