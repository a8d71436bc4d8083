"""Configuration beyond single keys: contradictions, secrets, layers, and words about all of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actors.config.changes import Change, changes, refuse
from actors.config.explain import explained
from actors.config.reader import read_file, read_override
from actors.config.schema import Config, load
from actors.config.section import absolute, at_home
from actors.config.sense import names_of_secrets
from actors.config.words import keys, takes
from actors.engines.servers.passwords import HIDDEN, PASSWORD
from experience.command.plain_yaml import Problems, read_value, write
from experience.command.secret_names import is_secret, shown
from experience.errors import ConfigError

SERVER = ("policy.engine=openai", "policy.model=m", "policy.learns=false")


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load([], overrides)
    return str(raised.value)


# Keys that contradict each other


@pytest.mark.parametrize(
    ("overrides", "said", "hint"),
    [
        (("policy.width=24",), "policy.width: 24 is not a multiple of 2 x heads = 16", ""),
        (
            ("policy.max_tokens=512",),
            "policy.max_tokens: 512 leaves no room for a prompt in a context of 512",
            "raise policy.context or lower policy.max_tokens",
        ),
        (("policy.temperature=0",), "0 is greedy", "policy.learns=false"),
        (("policy.engine=openai",), "the openai engine needs its server", "policy.base_url=http"),
        (("policy.engine=openai",), "the openai engine needs a model", "policy.model=NAME"),
        (("policy.engine=hugging_face",), "the hugging_face engine needs a model", ""),
        (("policy.engine=openai",), "a server's weights cannot be updated", "policy.learns=false"),
        (("runs_dir=s3://bucket/runs",), "is an address, and runs are written", "remote.mirror"),
        (
            ("worlds=[{id: 'envs:A-v0'}, {id: 'envs:A-v0'}]",),
            "worlds[1].id: envs:A-v0 is listed twice",
            "raise its groups instead",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused_with_a_way_out(
    overrides: tuple[str, ...], said: str, hint: str
) -> None:
    told = refused(*overrides)
    assert said in told and hint in told and "nothing was started" in told


def test_a_policy_that_does_not_learn_may_be_greedy_and_every_mistake_is_told_at_once() -> None:
    load([], ["policy.temperature=0", "policy.learns=false"])
    told = refused("policy.width=24", "policy.max_tokens=512", "policy.temperature=0")
    assert told.count("error: ") == 3 and "3 problems" in told


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host/v1", "not an address of http or https"),
        ("http:///v1", "not an address of http or https"),
        ("http://host\\v1", "not an address of http or https"),
        ("http://[", "not an address"),
        ("http://host:port/v1", "not an address"),
        ("https://token@host/v1", "it names a user without a password"),
        ("https://host/v1?key=1", "it has more than a host and a path"),
        ("https://host/v1#part", "it has more than a host and a path"),
        ("https://host/a@b", "an @ in its path"),
    ],
)
def test_a_servers_address_is_checked_and_never_quoted(url: str, why: str) -> None:
    told = refused(*SERVER, f"policy.base_url={url}")
    assert f"policy.base_url: {why}" in told
    assert "token@" not in told.replace("override", "")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "https://host/openai?api-version=2024-06-01"]
)
def test_an_address_of_a_host_and_a_path_is_taken(url: str) -> None:
    assert load([], [*SERVER, f"policy.base_url={url}"])[0].policy.base_url == url


def test_the_password_of_an_address_moves_into_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    monkeypatch.setenv("XP_SECRET_NAMES", "")
    config, _ = load([], [*SERVER, "policy.base_url=https://me:pass%2Fword1@host/v1"])
    assert config.policy.base_url == f"https://me:{HIDDEN}@host/v1"
    assert os.environ[PASSWORD] == "pass/word1"
    again, _ = load([], [*SERVER, f"policy.base_url={config.policy.base_url}"])
    assert again.policy.base_url == config.policy.base_url
    monkeypatch.delenv(PASSWORD)
    told = refused(*SERVER, f"policy.base_url={config.policy.base_url}")
    assert "its password is not kept in files" in told and PASSWORD in told


def test_the_variables_that_a_configuration_names_are_found_at_any_depth() -> None:
    config = {"policy": {"api_key_env": "A"}, "worlds": [{"arguments": {"token_env": "B"}}], "x": 1}
    assert list(names_of_secrets(config)) == ["A", "B"]


# Files and overrides


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfe", "not UTF-8: invalid start byte at byte 0"),
        (b"#" * ((1 << 20) + 1), "too many bytes for a configuration"),
        (b"- a\n- b\n", "a configuration is a mapping of keys to values"),
        (b"a: [1\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_a_problem_with_its_place(
    tmp_path: Path, data: bytes, said: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(data)
    problems = Problems()
    read = read_file(file, problems)
    assert read is None or problems.found
    assert len(problems.found) == 1 and said in problems.found[0]
    assert problems.found[0].startswith(f"error: {file}")


def test_a_file_that_cannot_be_opened_and_an_empty_one(tmp_path: Path) -> None:
    problems = Problems()
    assert read_file(tmp_path, problems) is None and "cannot be read" in problems.found[0]
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    read = read_file(tmp_path / "empty.yaml", Problems())
    assert read is not None and read.value == {}


@pytest.mark.parametrize("word", ["workers", "=4", "a b=1", "a..b=1", "-a=1", "a.=1"])
def test_a_word_that_sets_no_key_is_a_problem(word: str) -> None:
    problems = Problems()
    assert read_override(word, problems) is None
    assert "not of the form key=value" in problems.found[0]


def test_an_override_sets_appends_and_clears() -> None:
    two = load([], ["monitors=[flat_groups]", "monitors+=[policy_drift]"])[0]
    assert two.monitors == ["flat_groups", "policy_drift"]
    assert load([], ["budget.steps=5", "budget.steps=null"])[0].budget.steps is None
    assert load([], ["worlds.0.groups=4"])[0].worlds[0].groups == 4


def test_each_key_knows_who_set_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 3\nbudget:\n  updates: 7\n")
    config, origins = load([tmp_path / "a.yaml"], ["workers=2"])
    assert config.place("seed") == f"{tmp_path / 'a.yaml'}:1:1"
    assert config.budget.place("updates").endswith("a.yaml:3:3")
    assert config.place("name") == "the default"
    assert origins["workers"] == "override 'workers=2'"


def test_paths_are_told_from_the_root_and_a_home_is_expanded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert absolute("~/a") == absolute("a") == tmp_path / "a"
    assert at_home("~/a") == tmp_path / "a" and at_home("a") == Path("a")
    with pytest.raises(ConfigError, match="give a path that begins with '/'"):
        absolute("~nobody-of-that-name/a")
    assert "nobody-of-that-name" in refused("runs_dir=~nobody-of-that-name/a")


# Changes of a run's configuration


def test_only_what_the_rows_hang_on_is_refused() -> None:
    before = {"seed": 1, "workers": 0, "worlds": [{"id": "a", "groups": 2}], "name": "x"}
    now = {"seed": 2, "workers": 4, "worlds": [{"id": "b", "groups": 2}], "name": "y"}
    found = changes(before, now)
    assert [c.key for c in found if c.why_not] == ["seed", "worlds[a]", "worlds[b]"]
    assert Change("workers", 0, 4) in found and not any(c.key == "name" for c in found)
    with pytest.raises(ConfigError, match=r"(?s)seed: was 1, is 2: names the tasks.*put the old"):
        refuse(found, "config.yaml")
    refuse([Change("workers", 0, 4)], "config.yaml")


def test_a_world_that_moved_in_the_list_has_not_changed() -> None:
    one, two = {"id": "a", "groups": 2}, {"id": "b", "groups": 2}
    assert changes({"worlds": [one, two]}, {"worlds": [two, one]}) == []
    (change,) = changes({"worlds": [one]}, {"worlds": [one | {"groups": 3}]})
    assert str(change) == "worlds[a].groups: was 2, is 3" and not change.why_not


# Keys in words


def test_a_key_says_what_it_takes() -> None:
    known = dict(keys(Config))
    assert takes(known["workers"]) == "a whole number from 0 to 10000"
    assert takes(known["budget.minutes"]) == "a number above 0, or null"
    assert takes(known["collecting.durability"]) == "sync, group, os"
    assert takes(known["policy.learns"]) == "true or false"
    assert "that matches" in takes(known["name"])
    assert "small" in takes(known["policy.engine"])
    assert takes(known["worlds[].arguments"]) == ""


def test_a_section_and_a_key_are_explained_and_a_wrong_one_is_guessed() -> None:
    config, origins = load([], ["worlds.0.groups=4"])
    (told,) = explained("worlds.groups", config, origins)
    assert "worlds.groups = [4]" in told and "default 2" in told
    assert told.endswith("set by defaults, override 'worlds.0.groups=4'")
    assert len(list(explained("", config, origins))) == len(list(keys(Config)))
    (told,) = explained("worlds.id", config, origins)
    assert "none: it must be given" in told
    with pytest.raises(ConfigError, match="did you mean 'workers'"):
        list(explained("worker", config, origins))
    with pytest.raises(ConfigError, match="sections are: agent, budget, "):
        list(explained("qqqqqqq", config, origins))


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("max_lag=1", "learning.max_lag"),
        ("policy.learning_rate=0.1", "learning.learning_rate"),
        ("budget.update=1", "budget.updates"),
        ("rate_of_learning=1", "learning"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one(override: str, meant: str) -> None:
    assert f"did you mean '{meant}" in refused(override)


def test_a_key_like_no_other_is_answered_with_those_of_its_section() -> None:
    assert "known here: updates, minutes" in refused("budget.xyzzy=1")


# Secrets


@pytest.mark.parametrize(
    "name",
    ["api_key", "apiKey", "OPENAI_API_KEY", "hf-token", "db_password", "session.id", "SECRET_2"],
)
def test_a_name_that_a_secret_goes_by_is_known(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["max_tokens", "eos_token", "key_door", "monkey", "passes", ""])
def test_a_name_of_something_else_is_no_secret(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    "text",
    [
        "policy.api_key=abc123def",
        "--password abc123def",
        "['--token', 'abc123def']",
        '{"secret": "abc123def"}',
        "authorization: abc123def",
    ],
)
def test_what_stands_behind_a_secrets_name_is_masked(text: str) -> None:
    assert "abc123def" not in shown(text) and "***" in shown(text)


def test_what_is_no_secret_is_shown_as_it_is() -> None:
    for text in ("workers=4", "policy.api_key_env=OPENAI_API_KEY", "--limit 20"):
        assert shown(text) == text


@pytest.mark.parametrize(
    "override",
    [
        "worlds=[{id: 'a:B-v0', arguments: {headers: ['-H', 'authorization: abc123def']}}]",
        "worlds=[{id: 'a:B-v0', arguments: {env: [{name: API_KEY, value: abc123def}]}}]",
        "worlds=[{id: 'a:B-v0', arguments: {command: [serve, --token, abc123def]}}]",
        "worlds=[{id: 'a:B-v0', arguments: {url: 'http://h/?api_key=abc123def'}}]",
        "worlds=[{id: 'a:B-v0', arguments: {run: 'curl -u me:abc123def http://h'}}]",
        "policy.api_key_env=sk-abc123def",
    ],
)
def test_a_secret_is_refused_wherever_it_stands_without_its_value(override: str) -> None:
    told = refused(override)
    assert "secret" in told or "NAME of an environment variable" in told
    assert "abc123def" not in told


# Plain YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("0o10", 8),
        ("010", 10),
        ("0x1F", 31),
        ("NO", "NO"),
        ("12:30", "12:30"),
        ("~", None),
        ("[1, {a: true}]", [1, {"a": True}]),
        ("'1'", "1"),
        ("-.inf", float("-inf")),
    ],
)
def test_a_value_is_read_as_json_would_read_it(text: str, value: object) -> None:
    assert read_value(text, "here") == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("99999999999999999999", "a whole number beyond 64 bits"),
        ("1e999", "is too large for a number"),
        ("{a: 1, a: 2}", "a: duplicate key"),
        ("{[1]: 2}", "a key is a word"),
        ("!!python/object:os.system x", "tags are not taken"),
        ("[" * 70, "nested too deeply"),
        ('"\\U00110000"', "an escape that is no character"),
        ("'a\0b'", "not valid YAML"),
        ("&a [*a]", "more than 20000 values"),
    ],
)
def test_a_value_that_is_no_plain_one_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_value(text, "here")


def test_aliases_that_multiply_are_refused_before_they_take_memory() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n"
        for a, b in zip("abcdefg", "bcdefgh", strict=True)
    )
    with pytest.raises(ConfigError, match=r"more than 20000 values|more than 100 aliases"):
        read_value(bomb, "here")


def test_what_is_written_is_read_back() -> None:
    for value in ({"a": ["1e5", "yes", 1.5, None, "", "é\n"]}, "012", [], {"x": {}}):
        assert read_value(write(value), "here") == value


def test_too_many_problems_end_the_reading() -> None:
    problems = Problems()
    with pytest.raises(ConfigError, match="100 problems"):
        for number in range(200):
            problems.add(f"a.yaml:{number}", "wrong")


def test_a_message_shows_no_whole_value_and_no_hidden_one() -> None:
    problems = Problems()
    assert problems.shown([1]) == "a list" and problems.shown({}) == "a mapping"
    assert len(problems.shown("x" * 500)) == 80
    problems.hide("no")
    assert problems.shown("no") == "'no'", "two letters are no secret"
    problems.hide("abc123")
    assert problems.shown("it is abc123 here") == "'***'"
