"""YAML 1.2: a scalar is what JSON would make of it, in files and in overrides alike, and is written
so that it stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.config.reader import read_file, read_override
from actors.config.schema import dump, load
from experience.command.plain_yaml import Problems, plain, write
from experience.errors import ConfigError

SAID: dict[str, Any] = {
    "1e-5": 1e-5,
    "1E6": 1e6,
    "-.5e+2": -50.0,
    ".5": 0.5,
    "1.": 1.0,
    "1.10": 1.1,
    "0123": 123,
    "010": 10,
    "0o10": 8,
    "0x1F": 31,
    "-7": -7,
    "true": True,
    "FALSE": False,
    "~": None,
    "null": None,
    "no": "no",
    "NO": "NO",
    "on": "on",
    "yes": "yes",
    "off": "off",
    "12:30": "12:30",
    "1_000": "1_000",
    "2026-01-01": "2026-01-01",
    "0b11": "0b11",
    "1e": "1e",
    "nan": "nan",
    "'1e-5'": "1e-5",
    '"true"': "true",
    ".inf": float("inf"),
    "-.INF": -float("inf"),
}


@pytest.mark.parametrize("text", SAID)
def test_a_scalar_is_read_by_the_core_schema_in_files_and_overrides(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text(f"worlds:\n  - id: w-v0\n    arguments: {{value: {text}}}\n")
    in_file = load([tmp_path / "a.yaml"])[0].worlds[0].arguments["value"]
    in_override = (
        load([], [f"worlds=[{{id: w-v0, arguments: {{value: {text}}}}}]"])[0]
        .worlds[0]
        .arguments["value"]
    )
    for value in (in_file, in_override):
        assert (type(value), value) == (type(SAID[text]), SAID[text])


@pytest.mark.parametrize("text", ["1e999", "9" * 5000, '"\\0"', '"\\ud800"'])
def test_what_cannot_be_kept_is_refused_where_it_stands(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"worlds:\n  - id: w-v0\n    arguments: {{value: {text}}}\n")
    with pytest.raises(
        ConfigError, match=r"a\.yaml:3:.*\n  not a plain value|a\.yaml:3:.*\n  not valid YAML"
    ):
        load([tmp_path / "a.yaml"])


def test_a_command_line_in_other_bytes_than_utf_8_is_refused() -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        load([], ["policy.model=caf\udce9"])


def test_arguments_may_be_lists_and_mappings_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "worlds:\n  - id: envs:Mcp-v0\n    arguments:\n      command: [npx, -y, server, 1e3]\n"
        "      more: {deep: [{a: [1, two, null]}]}\n"
    )
    config = load([tmp_path / "a.yaml"])[0]
    assert config.worlds[0].arguments == {
        "command": ["npx", "-y", "server", 1000.0],
        "more": {"deep": [{"a": [1, "two", None]}]},
    }
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load([tmp_path / "again.yaml"])[0].model_dump() == config.model_dump()


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    | st.sampled_from([*SAID, "=", "<<", "", "-", "? a"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*"abc", "NO", "1", "12:30"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(value=values)
def test_what_is_written_is_read_back_as_the_same_by_readers_of_1_1_and_1_2(
    value: Any, tmp_path_factory: Any
) -> None:
    text = write({"value": value})
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(text, newline="")
    problems = Problems()
    node = read_file(path, problems)
    assert not problems.found and node is not None
    assert plain(node) == {"value": value}
    assert yaml.safe_load(text) == {"value": value}


def test_an_override_is_read_as_a_file_is() -> None:
    problems = Problems()
    node = read_override("learning.learning_rate=1e-4", problems)
    assert node is not None and plain(node) == {"learning": {"learning_rate": 1e-4}}
