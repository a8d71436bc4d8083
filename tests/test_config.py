"""Configuration: every mistake found at once, placed, and with a suggestion; nothing started."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from actors.config.moved import MOVED
from actors.config.schema import Config, dump, load
from actors.config.section import SEEDS
from actors.config.words import keys, takes
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
    known = list(keys(Config))
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


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        ("layers", "2", "planning.model.layers"),
        ("model", "ensemble", "planning.model.kind"),
        ("options", "library.json", "planning.options.library"),
        ("states", "16", "planning.sweeps.states and planning.lookahead.states"),
        ("thought", "fork", "planning.lookahead.simulator"),
    ],
)
def test_an_old_flat_key_of_planning_is_an_error_that_names_the_new_key_and_the_line(
    old: str, value: str, new: str, tmp_path: Path
) -> None:
    said = problems(text=f"seed: 1\nplanning:\n  {old}: {value}\n", tmp_path=tmp_path)
    assert f"bad.yaml:3:3\n  planning.{old}: this key has moved\n  set {new}" in said
    assert said.count("error:") == 1
    said = problems(f"planning.{old}={value}")
    assert f"override 'planning.{old}={value}'" in said and f"set {new}" in said


def test_a_newer_section_does_not_hide_the_old_key_of_an_earlier_file(tmp_path: Path) -> None:
    said = problems(
        "planning.model.layers=1", text="planning: {model: ensemble}\n", tmp_path=tmp_path
    )
    assert "planning.model: this key has moved\n  set planning.model.kind" in said


def test_every_moved_key_names_keys_that_there_are() -> None:
    known = {name for name, _ in keys(Config)}
    for old, new in MOVED.items():
        assert old not in known
        assert set(re.findall(r"planning\.[a-z_.]+[a-z_]", new)) <= known


def test_every_mistake_in_a_file_has_its_line_and_all_come_at_once(tmp_path: Path) -> None:
    said = problems(
        text="seed: 1\nworkers: many\npolicy:\n  engine: smal\n  temprature: 0.7\nseed: 2\n"
        "worlds:\n  - {id: x, group: 3}\nlearning_rate: 0.1\n",
        tmp_path=tmp_path,
    )
    for expected in (
        "bad.yaml:2:1\n  workers: 'many'",
        "bad.yaml:4:3\n  policy.engine: 'smal' is not one of",
        "did you mean 'small'?",
        "bad.yaml:5:3\n  policy.temprature: unknown key",
        "did you mean 'policy.temperature'?",
        "bad.yaml:6:1\n  seed: duplicate key (first set at",
        "worlds[0].group: unknown key",
        "did you mean 'worlds[0].groups'?",
        "bad.yaml:9:1\n  learning_rate: unknown key",
        "did you mean 'learning.learning_rate'?",
        "6 problems",
    ):
        assert expected in said, f"{expected!r} not in\n{said}"


def test_a_value_out_of_range_says_the_range() -> None:
    assert "greater than or equal to 0" in problems("workers=-1")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed=-1", "from 0 below 2147483648"),
        (f"seed={SEEDS}", "from 0 below 2147483648"),
        ("seed=1.5", "whole number"),
        ("seed=" + "9" * 400, "from 0 below"),
        ("workers=1e9", "from 0 to 10000"),
        ("workers=.nan", "from 0 to 10000"),
        ("learning.learning_rate=.nan", "a number above 0 below 1"),
        ("learning.learning_rate=.inf", "above 0 below 1"),
        ("learning.learning_rate=0", "above 0 below 1"),
        ("learning.minibatches=100000000", "from 1 to 10000"),
        ("collecting.step_timeout_seconds=.inf", "above 0 to 86400"),
        ("policy.timeout_seconds=1e300", "above 0 to 86400"),
        ("evaluation.every=0", "from 1 to 1000000"),
        ("planning.model.trusted_accuracy=2", "from 0 to 1"),
        ("policy.learns=maybe", "true or false"),
        ("policy.engine=smal", "is not one of hugging_face, openai, small, table"),
        ("name=A B", "that matches"),
    ],
)
def test_a_value_that_would_fail_later_is_refused_with_key_value_range_and_place(
    override: str, says: str
) -> None:
    said = problems(override)
    assert says in said
    assert f"override '{override}'" in said and override.partition("=")[0] + ": " in said
    assert len(said) < 2000


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("worlds=null", "None is no list"),
        ("policy=3", "3 is no mapping of keys to values"),
        ("worlds=[3]", "worlds[0]: 3 is no mapping"),
        ("worlds=[{id: a-v0, arguments: [1]}]", "arguments: a list is no mapping"),
        ("worlds=[{groups: 1}]", "worlds[0].id: field required"),
    ],
)
def test_a_value_of_another_shape_is_told_in_plain_words(override: str, says: str) -> None:
    assert says in problems(override)


def test_every_number_has_a_range_on_both_sides() -> None:
    for name, field in keys(Config):
        if name.startswith("budget.") or not (taken := takes(field)).startswith(
            ("a whole number", "a number")
        ):
            continue
        assert any(w in taken for w in ("from", "above")) and any(
            w in taken for w in (" to ", "below")
        ), (name, taken)


@pytest.mark.parametrize("weight", [".nan", ".inf", "1e300"])
def test_a_weight_of_a_signal_is_a_number_that_sums_stay_finite_with(
    weight: str, tmp_path: Path
) -> None:
    assert "bad.yaml:1:3" in problems(
        text=f"worlds: [{{id: w-v0, rewards: {{a: {weight}}}}}]\n", tmp_path=tmp_path
    )


def test_the_largest_seed_is_taken_by_everything_downstream() -> None:
    import gymnasium
    import numpy as np
    import torch

    from actors.engines.registry import make_engine

    make_engine(
        Config().policy, SEEDS - 1 + 1000 * 10_001 + 10_000
    )  # as the last of all collectors does
    np.random.RandomState(SEEDS - 1), np.random.default_rng([SEEDS - 1, 2, 3])
    torch.Generator().manual_seed(SEEDS - 1)
    gymnasium.make("CartPole-v1").reset(seed=SEEDS - 1)
    demonstration = (1_000_000_007 + 7919 * (SEEDS - 1) + 1_000_000) % SEEDS
    assert 0 <= demonstration < SEEDS


def test_a_word_that_is_no_override_is_refused() -> None:
    assert "key=value" in problems("faster")


def test_a_file_that_is_missing_or_is_not_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load([tmp_path / "nowhere.yaml"])
    assert "bad.yaml:2:" in problems(text="a: 1\n b: [", tmp_path=tmp_path)


def test_a_secret_in_a_value_is_refused() -> None:
    assert "looks like a secret" in problems("policy.model=sk-abcdefghijklmnop1234")


PLANTED = "Zq7pVx9w2LmN4t"


@pytest.mark.parametrize(
    "arguments",
    [
        "command: [serve, --token, {}]",
        "command: [serve, --token={}]",
        "command: [serve, '--api-key', '{}', --port, 1]",
        "command: [curl, -H, 'Authorization: Bearer {}']",
        "command: [curl, '-HX-Api-Key: {}']",
        "command: [curl, -u, 'me:{}']",
        "command: 'curl --user me:{} http://a'",
        "headers: ['Cookie: {}']",
        "env: [[API_KEY, {}]]",
        "env: [{{name: API_KEY, value: {}}}]",
        "token: {{{}: 1}}",
        "passwords: [[{}]]",
    ],
)
def test_a_secret_in_a_list_is_refused_at_its_place_without_its_value(
    arguments: str, tmp_path: Path
) -> None:
    said = problems(
        text=f"name: x\nworlds:\n- id: a-v0\n  arguments: {{{arguments.format(PLANTED)}}}\n",
        tmp_path=tmp_path,
    )
    assert (
        "bad.yaml:4:" in said
        and "worlds[0].arguments." in said
        and "secret" in said
        and PLANTED not in said
    )


def test_options_that_are_no_secrets_are_taken() -> None:
    command = [
        "serve",
        "--tokenizer",
        "gpt2",
        "--max-tokens",
        "12",
        "-u",
        "1000:1000",
        "--auth",
        "--port",
        "1",
    ]
    config, _ = load([], [f"worlds=[{{id: a-v0, arguments: {{command: {command}}}}}]"])
    assert config.worlds[0].arguments["command"] == command


@pytest.mark.parametrize(
    "override",
    [
        "a.b=[--token, {}]",
        "a.b=['--token', '{}'",
        "--token {}",
        "worlds.0.arguments.command=[serve, --token, {}]",
        "policy.engine=[--password, {}]",
        "worlds=[--token, {}]",
        "budget.steps=[--token, {}]",
        "policy.engine=[x, [--pass, {}]]",
        "policy.max_tokens='secret: {}'",
        "policy.max_tokens='" + "x" * 55 + " --token {}'",
    ],
)
def test_no_refusal_repeats_a_secret_of_the_command_line_nor_a_part_of_it(override: str) -> None:
    said = problems(override.format(PLANTED))
    assert PLANTED[:6] not in said and "***" in said


def test_an_empty_name_of_a_variable_is_refused_in_words_that_can_be_read() -> None:
    assert "policy.api_key_env: not the NAME of an environment variable" in problems(
        "policy.api_key_env=' '"
    )
    assert "***" not in problems("worlds=[{id: a-v0, arguments: {api_key_env: ''}}]")


def test_python_tags_are_not_executed(tmp_path: Path) -> None:
    said = problems(
        text="name: !!python/object/apply:os.system ['touch owned']\n", tmp_path=tmp_path
    )
    assert "name" in said or "plain value" in said
    assert not Path("owned").exists()


def test_what_no_single_key_can_tell_is_checked_too() -> None:
    assert "multiple of 2 x heads" in problems("policy.width=100")
    assert "needs its server" in problems(
        "policy.engine=openai", "policy.model=m", "policy.learns=false"
    )


def test_later_sources_win_and_are_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\nworkers: 1\n")
    (tmp_path / "b.yaml").write_text("workers: 2\n")
    config, origins = load([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["policy.temperature=0.5"])
    assert (config.seed, config.workers, config.policy.temperature) == (1, 2, 0.5)
    assert origins["workers"].endswith("b.yaml:1:1")
    assert origins["policy.temperature"] == "override 'policy.temperature=0.5'"


def test_a_dumped_configuration_loads_to_itself(tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(dump(Config(seed=3)))
    assert load([tmp_path / "again.yaml"])[0].model_dump() == Config(seed=3).model_dump()
    assert yaml.safe_load(dump(Config()))["seed"] == 0


def test_the_command_exits_with_2_and_leaves_no_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "actors",
            "run",
            "-c",
            "configs/demo.yaml",
            "num_workers=4",
            f"runs_dir={tmp_path}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "did you mean 'workers'?" in done.stderr
    assert list(tmp_path.iterdir()) == []


def explained(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "actors", "config", "explain", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_section_is_explained_key_by_key_with_choices_ranges_and_who_set_them() -> None:
    said = explained("policy", "policy.engine=table", "seed=3")
    assert {line.partition(" = ")[0] for line in said.splitlines() if not line.startswith(" ")} == {
        f"policy.{name}" for name in type(Config().policy).model_fields
    }
    assert (
        "takes hugging_face, openai, small, table, vllm, my_package:MyEngine\n  default 'small', set "
        "by override 'policy.engine=table'" in said
    )
    assert "takes a number from 0 to 10" in said


def test_the_worlds_are_explained_and_everything_without_a_key() -> None:
    said = explained("worlds", "worlds=[{id: a-v0, groups: 3}, {id: b-v0}]")
    assert "worlds.groups = [3, 2]" in said and "takes a whole number from 0 to 10000" in said
    assert "worlds.id = ['a-v0', 'b-v0']" in said and "none: it must be given" in said
    assert explained().count("\n  default ") == len(list(keys(Config)))


def test_what_is_shown_reads_back_to_the_same(tmp_path: Path) -> None:
    words = [
        "worlds=[{id: a-v0, arguments: {x: '1e-5', y: 1e-5, z: [NO, '0o10']}}]",
        "policy.model='~/no'",
        "name=on",
        "seed=7",
    ]
    first = subprocess.run(
        [sys.executable, "-m", "actors", "config", "show", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "shown.yaml").write_text(first)
    assert load([tmp_path / "shown.yaml"])[0].model_dump() == load([], words)[0].model_dump()
    assert yaml.safe_load(first)["worlds"][0]["arguments"] == {
        "x": "1e-5",
        "y": 1e-5,
        "z": ["NO", "0o10"],
    }


_TWO_WORLDS = "worlds:\n  - {id: a-v0, arguments: {level: 1, command: [npx, -y]}}\n  - {id: b-v0, groups: 2}\n"


def test_an_override_reaches_into_an_item_of_a_list_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(_TWO_WORLDS)
    overrides = [
        "worlds.0.arguments.level=2",
        "worlds.1.groups=4",
        "worlds.0.arguments.command.1=--yes",
        "worlds.1.rewards.won=0.5",
        "worlds.1.arguments={a: 1}",
        "worlds.1.arguments.b+=[2]",
    ]
    first, second = load([tmp_path / "two.yaml"], overrides)[0].worlds
    assert (first.id, first.arguments, second.groups) == (
        "a-v0",
        {"level": 2, "command": ["npx", "--yes"]},
        4,
    )
    assert second.rewards == {"won": 0.5} and second.arguments == {"a": 1, "b": [2]}
    assert (
        first.place("arguments").endswith("two.yaml:2:16")
        and second.place("groups") == "override 'worlds.1.groups=4'"
    )


def test_an_item_of_a_list_that_only_defaults_set_is_reached_too() -> None:
    config = load([], ["worlds.0.groups=4", "worlds.0.arguments.max_turns=3"])[0]
    assert [(w.id, w.groups, w.arguments) for w in config.worlds] == [
        ("envs:PythonTask-v0", 4, {"max_turns": 3})
    ]
    assert Config().worlds[0].groups != 4, "the defaults themselves stay"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("worlds.2.groups=4", "worlds.2: worlds holds 2 items, the last is worlds.1"),
        (
            "worlds.first.groups=4",
            "worlds.first: an item of a list is named by its number; worlds holds 2",
        ),
        (
            "worlds.0.arguments.command.7=x",
            "worlds.0.arguments.command.7: worlds.0.arguments.command holds 2 items",
        ),
        ("worlds.0.group=4", "worlds[0].group: unknown key\n  did you mean 'worlds[0].groups'?"),
        ("worlds.1.groups=-1", "worlds[1].groups: -1"),
        ("worlds.0.arguments.api_key=abc", "a secret does not belong"),
        ("worlds.0=3", "worlds[0]: 3 is no mapping"),
    ],
)
def test_an_item_or_a_key_of_it_that_is_not_there_is_told_with_what_there_is(
    override: str, says: str, tmp_path: Path
) -> None:
    said = problems(override, text=_TWO_WORLDS, tmp_path=tmp_path)
    assert (
        says in said and f"override '{override.partition('=')[0]}=" in said and "1 problem," in said
    )


def test_a_file_sets_a_list_whole(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(_TWO_WORLDS)
    (tmp_path / "more.yaml").write_text("worlds: {'0': {groups: 3}}\n")
    with pytest.raises(ConfigError, match="is no list"):
        load([tmp_path / "two.yaml", tmp_path / "more.yaml"])
