"""Each screen shows what the run holds, is walked by keys, and is named by its address."""

from __future__ import annotations

import pytest

from tests.viewer.conftest import Served, Watched
from tests.viewer.lived import CLICK, HEIGHT, SCREEN, WIDTH


def test_the_list_of_runs_shows_status_curves_and_counts_and_is_filtered(
    served: Served, watched: Watched
) -> None:
    page = watched.open(served.home)
    row = page.locator("li.run")
    assert row.count() == 1
    text = row.inner_text()
    assert (
        "office-1" in text and "succeeded" in text and "version 3" in text and "0.30 ± 0.10" in text
    )
    page.fill("input[type=search]", "nothing like it")
    assert page.locator("li.run").count() == 0
    assert "text=nothing" in page.url


def test_a_run_tells_whether_it_learned_where_time_went_and_what_failed(
    served: Served, watched: Watched
) -> None:
    page = watched.open(served.at())
    text = page.inner_text("#content")
    assert "Screen got better (+0.50 ± 0.10 over 8 held-out tasks)" in text
    assert "demonstrations" in text and "acting and learning" in text and "of 3" not in text
    assert "groups do not differ" in text
    assert "OSError" in text and "Traceback (most recent call last)" in text
    assert "idle" in text
    page.wait_for_selector(".plot svg")
    assert page.locator(".plot svg[aria-label]").count() >= 3
    page.locator(".numbers summary").first.click()
    assert "0.300" in page.locator(".numbers table").first.inner_text()


def test_episodes_are_filtered_by_each_field_and_by_a_bar_of_the_histogram(
    served: Served, watched: Watched
) -> None:
    page = watched.open(served.at("episodes"))
    rows = page.locator("tbody tr")
    assert rows.count() == 9
    page.get_by_label("World").select_option("tests.no_such:Proof-v0")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 2")
    assert "Proof" in page.url
    page.get_by_role("button", name="Clear filters").click()
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 9")
    bar = page.locator("button.bar", has=page.locator(".count", has_text="3")).first
    wanted = int(bar.locator(".count").inner_text())
    bar.click()
    page.wait_for_function(f"() => document.querySelectorAll('tbody tr').length === {wanted}")
    assert page.locator("button.bar[aria-pressed=true]").count() == 1
    page.get_by_role("button", name="return unknown: ").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('tbody tr')].every(r => r.innerText.includes('–'))"
    )
    page.get_by_role("button", name="Clear filters").click()
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 9")
    page.fill("input[placeholder^='in what']", "step 2 is next")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    assert "Shell" in rows.first.inner_text()


def test_a_mark_stands_at_the_pixel_that_the_action_names(served: Served, watched: Watched) -> None:
    page = watched.open(served.at("episode", served.keys["attempt 1"]))
    page.wait_for_function("() => document.querySelector('.frame img')?.complete")
    image = page.locator(".frame img").bounding_box()
    ring = page.locator(".mark .ring").bounding_box()
    x = (ring["x"] + ring["width"] / 2 - image["x"]) / image["width"] * WIDTH
    y = (ring["y"] + ring["height"] / 2 - image["y"]) / image["height"] * HEIGHT
    assert (x, y) == pytest.approx(CLICK, abs=1.0)
    assert page.evaluate("document.querySelector('.frame img').naturalWidth") == WIDTH
    assert f"click at {CLICK[0]}, {CLICK[1]}" in page.locator(".frame img").get_attribute("alt")


def test_keys_walk_through_an_episode_and_the_address_names_the_turn(
    served: Served, watched: Watched
) -> None:
    page = watched.open(served.at("episode", served.keys["calls"]))

    def turn() -> str:
        return page.locator("h2.now").first.inner_text()

    assert turn().startswith("Turn 0")
    for key, expected in (
        ("j", "Turn 1"),
        ("ArrowDown", "Turn 2"),
        ("k", "Turn 1"),
        ("End", "The end"),
        ("Home", "Turn 0"),
        ("]", "Turn 1"),
        ("]", "Turn 2"),
        ("[", "Turn 1"),
    ):
        page.keyboard.press(key)
        page.wait_for_function(
            "text => document.querySelector('h2.now').innerText.startsWith(text)", arg=expected
        )
    assert "turn=1" in page.url
    address = page.url
    page = watched.open(address)
    assert turn().startswith("Turn 1")
    page.keyboard.press("?")
    assert "the next turn" in page.locator("dialog").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.wait_for_selector("article.talk.current")
    assert "view=chat" in page.url and page.locator("article.talk").count() == 4


def test_a_turn_shows_thoughts_calls_results_signals_evidence_and_the_reward_by_term(
    served: Served, watched: Watched
) -> None:
    page = watched.open(served.at("episode", served.keys["calls"], asked="turn=1"))
    middle, side = page.inner_text(".middle"), page.inner_text(".side")
    for told in (
        "I think that step 1 is next.",
        "I write the file.",
        "write_file",
        "def f(x):\n    return x + 1",
        "wrote 1 lines",
    ):
        assert told in middle, told
    assert "done" in side and "verifier" in side and "evidence" in side
    assert "0.60" in side and "−0.100" in side, "the two terms"
    assert "add up" not in side, "a warning stands only where they do not"


def test_a_proof_shows_its_goals_and_a_failure_its_traceback(
    served: Served, watched: Watched
) -> None:
    page = watched.open(served.at("episode", served.keys["proof"]))
    assert "⊢ n + 0 = n" in page.inner_text(".goal")
    assert "n : Nat" in page.inner_text(".goal")
    page = watched.open(served.at("episode", served.keys["failed"]))
    assert "OSError: the disk is gone" in page.inner_text(".about")
    assert "Traceback" in page.inner_text(".about")


def test_a_group_stands_side_by_side_best_first_and_says_where_it_parts(
    served: Served, watched: Watched
) -> None:
    page = watched.open(served.at("groups"))
    assert page.locator("tbody tr").count() == 1
    page = watched.open(served.at("group", asked="group=g-1"))
    lanes = page.locator(".lane")
    assert lanes.count() == 4
    assert "0.90" in lanes.first.inner_text()
    assert "part at turn 0" in page.inner_text("#content")
    lanes.first.locator("header a").click()
    page.wait_for_selector(".episode")
    assert served.keys["attempt 1"].replace(":", "%3A") in page.url


def test_time_options_world_model_versions_and_store_have_their_screens(
    served: Served, watched: Watched
) -> None:
    page = watched.open(served.at("timeline"))
    assert page.locator("rect.span").count() == 9
    before = page.inner_text("#content p.note")
    page.keyboard.press("+")
    page.wait_for_function(
        "text => document.querySelector('#content p.note').innerText !== text", arg=before
    )
    assert "from=" in page.url
    assert "fetch" in watched.open(served.at("options")).inner_text("#content")
    text = watched.open(served.at("imagined")).inner_text("#content")
    assert "How far it may be trusted" in text and "uncertainty 0.125" in text
    assert text.count("as it was") == 2 and "✕ differs" not in text, "then they did other things"
    text = watched.open(served.at("versions")).inner_text("#content")
    assert "−0.70" in text and "zero" in text, "the task of both versions got worse"
    page = watched.open(served.at("store"))
    page.get_by_role("button", name="Verify", exact=True).click()
    page.wait_for_selector("text=nothing is wrong")


def test_two_runs_are_compared_with_their_curves_laid_over_each_other(
    served: Served, watched: Watched
) -> None:
    name = served.run.path.name
    page = watched.open(f"{served.home}/#/compare?runs={name},{name}")
    page.wait_for_selector(".plot svg")
    assert page.locator(".plot").first.locator("path.line").count() == 2
    assert "All settings are the same." in page.inner_text("#content")
    assert SCREEN.rpartition(":")[2].removesuffix("-v0") in page.inner_text("#content")


@pytest.mark.parametrize(("width", "theme"), ((1280, "dark"), (390, "light")))
def test_no_screen_is_wider_than_the_window(
    served: Served, chromium: object, width: int, theme: str
) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=theme)  # type: ignore[attr-defined]
    watched = Watched(context.new_page())
    screens = [
        served.home,
        served.at(),
        served.at("episodes"),
        served.at("episode", served.keys["attempt 1"]),
        served.at("episode", served.keys["calls"], asked="view=chat"),
        served.at("group", asked="group=g-1"),
        served.at("timeline"),
        served.at("versions"),
        served.at("store"),
    ]
    for address in screens:
        page = watched.open(address)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, address
    context.close()
    assert watched.wrong == []
