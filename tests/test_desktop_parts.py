"""The parts of a desktop that need no running one: home, picture, keyboard, nodes, tasks."""

from __future__ import annotations

import io
import os
import struct
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from envs.desktop.display import HEIGHT, WIDTH
from envs.desktop.framebuffer import Framebuffer, open_framebuffer
from envs.desktop.home import Home
from envs.desktop.input_devices import Keyboard
from envs.desktop.nodes import Node, correct_positions, lines
from envs.desktop.office.judge import _inputs
from envs.desktop.office.scene import files_of, programs_of
from envs.desktop.office.tasks import FAMILIES, DesktopTask, draw_task
from experience.errors import EnvironmentFailure

SHOWN = frozenset({"showing"})


# ── the home


def test_a_home_gives_regular_files_and_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(b"secret")
    inside = tmp_path / "home"
    (inside / "folder").mkdir(parents=True)
    (inside / "folder/a.txt").write_bytes(b"a")
    (inside / "file_link").symlink_to(outside / "secret.txt")
    (inside / "folder_link").symlink_to(outside)
    os.mkfifo(inside / "pipe")
    with closing(Home(str(inside))) as home:
        assert home.read("folder/a.txt") == b"a"
        assert home.read("file_link") is None and home.read("folder_link/secret.txt") is None
        assert home.read("pipe") is None and home.read("folder") is None
        assert home.listing("folder_link") is None and home.listing("missing") is None
        assert home.listing(".") == {
            "file_link": "other",
            "folder": "folder",
            "folder_link": "other",
            "pipe": "other",
        }


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate((4 << 20) + 1)
    with closing(Home(str(tmp_path))) as home:
        assert home.read("large") is None


# ── the picture


def written_frame(folder: Path, order: str = ">", width: int = WIDTH, cut: int = 0) -> Path:
    """A file as Xvfb draws into: two colours in its table, all pixels red."""
    fields = [0] * 25
    fields[0], fields[1] = 108, 7
    fields[4], fields[5] = width, HEIGHT
    fields[12], fields[19] = 4 * WIDTH, 2
    head = struct.pack(order + "25I", *fields).ljust(108, b"\0") + bytes(2 * 12)
    path = folder / "Xvfb_screen0"
    whole = head + b"\0\0\xff\0" * (WIDTH * HEIGHT)
    path.write_bytes(whole[: len(whole) - cut])
    return path


@pytest.mark.parametrize("order", [">", "<"])
def test_a_picture_is_read_in_either_byte_order(tmp_path: Path, order: str) -> None:
    from PIL import Image

    written_frame(tmp_path, order)
    framebuffer = open_framebuffer(tmp_path)
    assert framebuffer is not None
    with closing(framebuffer):
        assert framebuffer.pixels() == b"\0\0\xff\0" * (WIDTH * HEIGHT)
        picture = Image.open(io.BytesIO(framebuffer.png()))
        assert picture.size == (WIDTH, HEIGHT) and picture.getpixel((5, 5)) == (255, 0, 0)


def test_a_picture_that_was_cut_short_is_a_failure(tmp_path: Path) -> None:
    path = written_frame(tmp_path, cut=4)
    framebuffer = Framebuffer(io.FileIO(path))
    with closing(framebuffer), pytest.raises(EnvironmentFailure, match="cut short"):
        framebuffer.pixels()


def test_a_display_of_another_size_is_a_failure(tmp_path: Path) -> None:
    path = written_frame(tmp_path, width=640)
    with pytest.raises(EnvironmentFailure, match="640x720"):
        Framebuffer(io.FileIO(path))


def test_no_picture_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = written_frame(tmp_path / "elsewhere")
    (tmp_path / "Xvfb_screen0").symlink_to(real)
    assert open_framebuffer(tmp_path) is None


# ── the keyboard


class ScriptedDisplay:
    """A display whose keyboard has four keys: a and A, ! and 1, Enter, Shift."""

    setup = SimpleNamespace(min_keycode=10, max_keycode=13)
    core = SimpleNamespace(GetKeyboardMapping=lambda low, count: (low, count))

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []

    def ask(self, _cookie: Any) -> Any:
        keysyms = [ord("a"), ord("A"), ord("!"), ord("1"), 0xFF0D, 0, 0xFFE1, 0]
        return SimpleNamespace(keysyms=keysyms, keysyms_per_keycode=2)

    def send_input(self, kind: int, detail: int, x: int = 0, y: int = 0) -> None:
        self.sent.append((kind, detail))


def test_a_character_that_stands_on_shift_is_typed_with_shift() -> None:
    display = ScriptedDisplay()
    Keyboard(display).type("aA\n")  # type: ignore[arg-type]
    down, up, shift = 2, 3, 13
    assert display.sent == [
        *((down, 10), (up, 10)),
        *((down, shift), (down, 10), (up, 10), (up, shift)),
        *((down, 12), (up, 12)),
    ]


def test_a_text_with_a_character_that_no_key_has_types_nothing() -> None:
    display = ScriptedDisplay()
    with pytest.raises(ValueError, match="no key 'z'"):
        Keyboard(display).type("az")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no key 'hyper'"):
        Keyboard(display).chord(["shift", "hyper"])  # type: ignore[arg-type]
    assert display.sent == []


def test_keys_of_a_chord_are_released_in_the_reverse_order() -> None:
    display = ScriptedDisplay()
    Keyboard(display).chord(["shift", "a"])  # type: ignore[arg-type]
    assert display.sent == [(2, 13), (2, 10), (3, 10), (3, 13)]


# ── what is shown


def node(role: str, name: str = "", **more: Any) -> Node:
    return Node(("bus", "/path"), role, name, box=more.pop("box", (10, 20, 4, 6)), **more)


def test_a_line_tells_role_name_text_middle_and_states() -> None:
    checked = frozenset({"checked", "showing", "focused"})
    assert node("entry", "Name:", text="Ann", states=checked).line() == (
        "entry Name: = Ann @12,23 (checked, focused)"
    )
    assert node("label", "same", text="same").line() == "label same @12,23"


def test_only_nodes_that_can_be_used_or_read_get_a_line() -> None:
    cells = [node("table cell", "A1"), node("table cell", "A2", text="tea")]
    window = node(
        "frame",
        "prices.ods",
        children=[
            node("panel", "main", children=cells),
            node("label"),
            node("entry"),
            node("push button", "hidden", box=(0, 0, 0, 0)),
        ],
    )
    assert lines([window]) == [
        "frame prices.ods @12,23",
        "table cell A2 = tea @12,23",
        "entry @12,23",
    ]


def test_what_an_office_draws_itself_is_moved_below_its_menu_bar() -> None:
    inner = node("push button", "Bold", box=(5, 30, 10, 10))
    menu = node("menu bar", box=(0, 0, 100, 20))
    pane = node("root pane", box=(0, 5, 100, 80), children=[menu, inner])
    correct_positions(node("frame", box=(2, 25, 100, 100), children=[pane]))
    assert inner.box == (7, 50, 10, 10) and pane.children == [inner]


# ── tasks


def test_every_family_is_drawn_and_has_a_goal_files_and_programs() -> None:
    rng = np.random.default_rng(0)
    drawn = {task.family: task for task in (draw_task(rng) for _ in range(200))}
    assert set(drawn) == set(FAMILIES)
    for task in drawn.values():
        assert task.goal and files_of(task) and programs_of(task)


def test_the_same_seed_draws_the_same_task() -> None:
    """Other tasks for the seeds of old runs would make those runs impossible to repeat."""
    task = draw_task(np.random.default_rng(0))
    assert task == DesktopTask("close", ("plan.txt", "tea"))
    assert task.goal == "Close the window of plan.txt and leave the others open"


@pytest.mark.parametrize("count", [3, 4, 5])
def test_each_place_holds_once_the_smallest_and_once_the_largest_input(count: int) -> None:
    sets = list(_inputs(count))
    for place in range(count):
        assert sum(min(inputs) == inputs[place] for inputs in sets) == 1
        assert sum(max(inputs) == inputs[place] for inputs in sets) == 1
