"""The documentation: its examples run, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from tests.commands import Commands
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


def _block(page: str, language: str) -> str:
    text = (ROOT / "docs" / page).read_text()
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_tutorials_world_is_short_and_its_oracle_earns_what_the_page_says() -> None:
    source = _block("tutorial.md", "python")
    lines = [line for line in source.splitlines() if line.strip() and '"""' not in line]
    assert len(lines) <= 40
    exec(source, {"__name__": "my_world"})
    world: Any = gymnasium.make("MyWorld-v0").unwrapped
    try:
        returns = []
        for seed in range(20):
            world.reset(seed=seed, options={"split": "heldout"})
            rewards, over = [], False
            while not over:
                _, reward, terminated, truncated, _ = world.step(world.oracle_action())
                rewards.append(float(reward))
                over = terminated or truncated
            returns.append(sum(rewards))
        assert returns == pytest.approx([0.98] * 20)
    finally:
        del gymnasium.registry["MyWorld-v0"]


def test_the_tutorials_configuration_has_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "my_run.yaml").write_text(_block("tutorial.md", "yaml"))
    with Commands() as xp:
        told = xp(tmp_path, "config", "show", "-c", "my_run.yaml")
    assert told.code == 0 and "my_world:MyWorld-v0" in told.out, told.err
