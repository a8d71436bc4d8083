"""A live run reaches the page within a second; a kept file needs no server; `xp view` serves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from actors.config.section import absolute
from actors.reading.viewer.serving.export import write_export
from actors.reading.viewer.serving.live import LOOK_SECONDS
from actors.reading.viewer.shelf.shelf import Shelf
from actors.reading.viewer.told.groups import parted
from actors.reading.viewer.turns.marks import marks
from experience.policy import Decision
from experience.text.tools import ToolCall
from tests.test_house import ROOT
from tests.viewer.conftest import Served, Watched
from tests.viewer.lived import SCREEN, rich_run, with_metrics


def test_an_episode_that_ends_is_on_the_open_page_without_a_reload(
    served: Served, watched: Watched
) -> None:
    page = watched.open(served.at("episodes"))
    before = page.locator("tbody tr").count()
    served.run.episode(
        [0.5],
        lambda i: {"obs_text": "new", "text": "act"},
        env_id=SCREEN,
        task_id="the newest",
        stream=b"\x09" * 16,
    )
    served.run.journal.commit()
    page.wait_for_function(f"() => document.querySelectorAll('tbody tr').length === {before + 1}")
    assert "the newest" in page.inner_text("tbody tr")
    assert LOOK_SECONDS < 0.5, "two looks and one drawing stay within a second"


def test_news_name_what_changed(served: Served) -> None:
    address = f"{served.home}/api/runs/office-1/live"
    with urllib.request.urlopen(address, timeout=30) as stream:
        first = json.loads(stream.readline().removeprefix(b"data: "))
        assert first["changed"] == ["hello"] and first["runs"] is False
        threading.Timer(0.2, lambda: served.run.log({"t": time.time(), "version": 4})).start()
        stream.readline()
        second = json.loads(stream.readline().removeprefix(b"data: "))
    assert second["changed"] == ["metrics"]


def test_a_kept_file_shows_its_episodes_offline_and_runs_no_injected_script(
    tmp_path: Path, watched: Watched
) -> None:
    evil = "</script><script>alert(1)</script><!--"
    run, keys = rich_run(tmp_path, say=lambda text: f"{text} {evil}")
    with_metrics(run)
    run.close()
    file = tmp_path / "kept.html"
    told = write_export(Shelf(tmp_path), "office-1", file, ())
    assert told["episodes"] >= 5 and told["pictures"] > 0
    watched.page.context.set_offline(True)
    page = watched.open(f"file://{file}")
    assert page.locator("li.run").count() == 1
    page = watched.open(f"file://{file}#/run/office-1")
    page.wait_for_selector(".plot svg")
    page = watched.open(f"file://{file}#/run/office-1/episodes")
    assert page.locator("tbody tr").count() == told["episodes"]
    page = watched.open(f"file://{file}#/run/office-1/episode/{keys['attempt 3']}")
    page.wait_for_function("() => document.querySelector('.frame img')?.naturalWidth > 0")
    page.keyboard.press("j")
    page.wait_for_function("() => document.querySelector('h2.now').innerText.startsWith('Turn 1')")
    assert evil in page.inner_text(".middle") or evil in page.inner_text(".about")
    assert [url for url in watched.asked if not url.startswith(("file:", "data:", "about:"))] == []


def test_named_episodes_alone_are_kept(tmp_path: Path) -> None:
    run, keys = rich_run(tmp_path)
    run.close()
    told = write_export(Shelf(tmp_path), "office-1", tmp_path / "one.html", [keys["calls"]])
    assert told["episodes"] == 1 and told["of"] == 9
    text = (tmp_path / "one.html").read_text()
    assert "def f(x)" in text and "button Save" not in text


def test_the_command_says_where_it_serves_and_ends_with_its_process(tmp_path: Path) -> None:
    run, _ = rich_run(tmp_path)
    run.close()
    words = [
        sys.executable,
        "-m",
        "actors",
        "view",
        "office",
        "--port",
        "0",
        "--json",
        "--runs-dir",
        str(tmp_path),
    ]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        told = json.loads(served.stdout.readline())
        match = re.fullmatch(
            r"(http://127\.0\.0\.1:\d+)/#/run/office-1\?token=([\w-]{32})", told["address"]
        )
        assert match, told
        with urllib.request.urlopen(f"{match[1]}/api/runs", timeout=30) as answer:
            assert json.load(answer)["runs"][0]["name"] == "office-1"
        served.terminate()
        assert served.wait(30) is not None


def test_a_run_outside_the_folder_and_a_link_are_not_shown(tmp_path: Path) -> None:
    run, _ = rich_run(tmp_path / "elsewhere")
    run.close()
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "linked").symlink_to(run.path)
    shelf = Shelf(absolute(runs))
    for name in ("linked", "../elsewhere/office-1", "office-1", "..", "", "a/b", str(run.path)):
        with pytest.raises(Exception, match="is shown here"):
            shelf.run(name)


@pytest.mark.parametrize(
    ("text", "place"),
    (
        ("click 12 40", (12, 40)),
        ("click(12, 40)", (12, 40)),
        ("double_click x=12 y=40", (12, 40)),
        ("drag_to 3.5, 9", (3.5, 9)),
        ("mouse_move @7,8", (7, 8)),
        ('{"name": "click", "arguments": {"x": 5, "y": 6}}', (5, 6)),
        ("click 3", None),
        ("type 12 40", None),
        ("click Save", None),
        ("declare 1300 2.0", None),
        ("click -5 7", None),
    ),
)
def test_an_action_points_where_it_names_a_pixel(
    text: str, place: tuple[float, float] | None
) -> None:
    found = marks(Decision(text, 0))
    assert [(m["x"], m["y"]) for m in found] == ([] if place is None else [place])


def test_a_call_of_a_tool_points_by_its_arguments() -> None:
    calls = (
        ToolCall("1", "computer", '{"action": "left_click", "coordinate": [30, 40]}'),
        ToolCall("2", "drag", '{"start": [1, 2], "end": [3, 4]}'),
        ToolCall("3", "think", "no json"),
        ToolCall("4", "click", '{"x": "NaN", "y": 1}'),
    )
    found = [(m["what"], m["x"], m["y"]) for m in marks(Decision("", 0, tool_calls=calls))]
    assert found == [("left_click", 30, 40), ("drag", 1, 2), ("drag", 3, 4)]


def test_attempts_part_where_they_first_do_something_else() -> None:
    assert parted([["a", "b"], ["a", "b"]]) is None
    assert parted([["a", "b"], ["a", "c"]]) == 1
    assert parted([["a"], ["a", "b"]]) == 1
    assert parted([]) is None
