"""Configuration: every mistake found at once, placed, and with a suggestion; nothing started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from actors.config import Config, dump, keys, load
from experience.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


def problems(*overrides: str, text: str = "", tmp_path: Path | None = None) -> str:
    files = []
    if text and tmp_path:
        files = [tmp_path / "bad.yaml"]
        files[0].write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(files, overrides)
    assert raised.value.exit_code == 2
    assert "nothing was started" in str(raised.value)
    return str(raised.value)


def test_fewer_than_a_hundred_keys_each_with_a_description() -> None:
    known = list(keys())
    assert len(known) < 100
    assert all(info.description for _, info in known)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_configuration_is_valid_and_says_what_it_does(path: Path) -> None:
    load([path])
    head = path.read_text().splitlines()[:3]
    assert [line[:15] for line in head] == ["# What it does:", "# What it needs", "# How long it t"]


def test_an_unknown_key_on_the_command_line_is_named_with_a_suggestion() -> None:
    said = problems("num_workers=4")
    assert "override 'num_workers=4'" in said
    assert "num_workers: unknown key" in said
    assert "did you mean 'workers'?" in said


def test_every_mistake_in_a_file_has_its_line_and_all_come_at_once(tmp_path: Path) -> None:
    said = problems(text="seed: 1\nworkers: many\npolicy:\n  engine: smal\n  temprature: 0.7\nseed: 2\n"
                         "worlds:\n  - {id: x, group: 3}\nlearning_rate: 0.1\n", tmp_path=tmp_path)
    for expected in ("bad.yaml:2:1\n  workers: 'many'", "bad.yaml:4:3\n  policy.engine: 'smal' is not one of",
                     "did you mean 'small'?", "bad.yaml:5:3\n  policy.temprature: unknown key",
                     "did you mean 'policy.temperature'?", "bad.yaml:6:1\n  seed: duplicate key (first set at",
                     "worlds[0].group: unknown key", "did you mean 'worlds[0].groups'?",
                     "bad.yaml:9:1\n  learning_rate: unknown key", "did you mean 'learning.learning_rate'?",
                     "6 problems"):
        assert expected in said, f"{expected!r} not in\n{said}"


def test_a_value_out_of_range_says_the_range() -> None:
    assert "greater than or equal to 0" in problems("workers=-1")


def test_a_word_that_is_no_override_is_refused() -> None:
    assert "key=value" in problems("faster")


def test_a_file_that_is_missing_or_is_not_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load([tmp_path / "nowhere.yaml"])
    assert "bad.yaml:2:" in problems(text="a: 1\n b: [", tmp_path=tmp_path)


def test_a_secret_in_a_value_is_refused() -> None:
    assert "looks like a secret" in problems("policy.model=sk-abcdefghijklmnop1234")


def test_python_tags_are_not_executed(tmp_path: Path) -> None:
    said = problems(text="name: !!python/object/apply:os.system ['touch owned']\n", tmp_path=tmp_path)
    assert "name" in said or "plain value" in said
    assert not Path("owned").exists()


def test_what_no_single_key_can_tell_is_checked_too() -> None:
    assert "multiple of 2 x heads" in problems("policy.width=100")
    assert "needs its server" in problems("policy.engine=openai", "policy.model=m", "policy.learns=false")


def test_later_sources_win_and_are_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\nworkers: 1\n")
    (tmp_path / "b.yaml").write_text("workers: 2\n")
    config, origins = load([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["policy.temperature=0.5"])
    assert (config.seed, config.workers, config.policy.temperature) == (1, 2, 0.5)
    assert origins["workers"].endswith("b.yaml:1:1")
    assert origins["policy.temperature"] == "override 'policy.temperature=0.5'"


def test_a_dumped_configuration_loads_to_itself(tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(dump(Config(seed=3)))
    assert load([tmp_path / "again.yaml"])[0] .model_dump() == Config(seed=3).model_dump()
    assert yaml.safe_load(dump(Config()))["seed"] == 0


def test_the_command_exits_with_2_and_leaves_no_run(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "actors", "run", "-c", "configs/demo.yaml", "num_workers=4",
                           f"runs_dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "did you mean 'workers'?" in done.stderr
    assert list(tmp_path.iterdir()) == []
