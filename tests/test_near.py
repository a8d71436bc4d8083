"""The guess behind every "did you mean"."""

from __future__ import annotations

from pathlib import Path

import pytest

from experience.text.near import did_you_mean, nearest, nearest_id

ROOT = Path(__file__).resolve().parent.parent


def test_the_guess_of_a_word_is_written_once() -> None:
    sources = [
        path for room in ("experience", "actors", "envs") for path in (ROOT / room).rglob("*.py")
    ]
    words = ("get_close_matches", "SequenceMatcher")
    assert [path.name for path in sources if any(word in path.read_text() for word in words)] == [
        "near.py"
    ]


def test_the_most_alike_word_is_meant_and_none_where_none_is_near() -> None:
    assert nearest("sise", ["seize", "size", "width"]) == "size"
    assert did_you_mean("sise", ["size"]) == "did you mean 'size'?"
    assert nearest("sise", ["height"]) is None and did_you_mean("sise", []) == ""


@pytest.mark.parametrize(
    ("env_id", "meant"),
    [
        ("envs:KeyDor-v0", "envs:KeyDoor-v0"),
        ("KeyDoor", "envs:KeyDoor-v0"),
        ("env:keydoor-v3", "envs:KeyDoor-v0"),
        ("LunarLander-v9", "LunarLander-v3"),
        ("other:KeyDoor-v0", None),
        ("envs:Ocean-v0", None),
        ("", None),
    ],
)
def test_an_id_is_near_where_its_package_and_its_name_both_are(
    env_id: str, meant: str | None
) -> None:
    known = ["LunarLander-v2", "LunarLander-v3", "envs:KeyDoor-v0", "envs:Reactor-v0"]
    assert nearest_id(env_id, known) == meant and nearest_id(env_id, []) is None
