"""The documentation: its examples run, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_house import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")])
ROOMS = ("experience", "actors", "envs", "configs", "tests", "benchmarks", "docs")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    broken = [to for to in links if "://" not in to and not (page.parent / to).exists()]
    assert broken == []


def test_each_top_folder_says_what_it_is_for() -> None:
    assert [room for room in ROOMS if not (ROOT / room / "README.md").exists()] == []


def test_the_examples_of_the_nine_words_run() -> None:
    page = (ROOT / "docs/words.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 4 and len(re.findall(r"^\*\*\w+\*\*:", page, re.MULTILINE)) == 9
    exec("\n".join(examples), {})


def test_the_places_named_by_the_nine_words_are_there() -> None:
    named = re.findall(r"`((?:experience|actors)/[\w/.]+)`", (ROOT / "docs/words.md").read_text())
    assert len(named) > 8 and [n for n in named if not (ROOT / n).exists()] == []


@pytest.mark.parametrize("room", ("experience", "actors", "envs"))
def test_the_folders_named_by_a_rooms_page_are_there(room: str) -> None:
    rows = [r for r in (ROOT / room / "README.md").read_text().splitlines() if r.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([\w/.]+)`", row.split("|")[1])]
    assert len(named) > 5 and [n for n in named if not (ROOT / room / n).exists()] == []
