"""Configuration files and overrides as nodes with places; secrets are refused at any depth.

A file is at most 1 MiB. No message holds the value of a secret.
"""

from __future__ import annotations

import re
from pathlib import Path

from experience.command.plain_yaml import Node, Problems, compose
from experience.command.secret_names import is_secret, shown
from experience.shards.redaction.redact import Redactor

_MOST_BYTES = 1 << 20
OVERRIDE = "override"
"""Begins the place of a value that the command line set."""
_SHORTEST_KEY = 6
"""Letters of a key below a secret that may itself be one: "id" is not masked everywhere."""
_GIVEN = re.compile(
    r"[?&#;]([\w.-]+)=[^&;\s]|(?:^|\s)--?([A-Za-z][\w-]+)[= ]\S|(?:^|\s)([A-Z][A-Z0-9_]+)=\S|"
    r"(?:^|[\"']|(?:^|\s)(?:-H|--header)[= ]?)\s*([A-Za-z][\w-]*):\s*\S"
)
"""A value that an address, a command, an environment or a header gives to a name, within a text."""
_USER = re.compile(r"(?:^|\s)(?:-u|--(?:proxy-)?user)[= ]?[^\s:]+:(?!\d+(?:\s|$))\S")
"""A user with a password; with a number it is a group."""
_RIGHT = (
    "put it into an environment variable and name that: {key}_env: NAME, as policy.api_key_env does"
)


def read_file(path: Path, problems: Problems) -> Node | None:
    """The mapping that a file holds; None, and a problem, where it holds none."""
    try:
        with open(path, "rb") as file:
            # One byte more than allowed tells a file that is too long, without reading all of it.
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        problems.add(
            str(path),
            f"cannot be read: {error.strerror}",
            "give the path of a YAML file; see configs/",
        )
        return None
    if len(text) > _MOST_BYTES:
        problems.add(str(path), "too many bytes for a configuration", "keep it below 1 MiB")
        return None
    try:
        root = compose(text.decode(), str(path), problems)
    except UnicodeDecodeError as error:
        problems.add(str(path), f"not UTF-8: {error.reason} at byte {error.start}")
        return None
    if root is not None and not isinstance(root.value, dict):
        problems.add(root.place, "a configuration is a mapping of keys to values")
        return None
    return root


def read_override(text: str, problems: Problems) -> Node | None:
    """`a.b=value` as nodes; None, and a problem, where it is none."""
    key, equals, value = text.partition("=")
    appends = key.endswith("+")
    names = key.rstrip("+").strip().split(".")
    place = f"{OVERRIDE} '{shown(text)}'"
    if not equals or not all(re.fullmatch(r"[A-Za-z_]\w*|\d+", n) for n in names):
        problems.add(
            place,
            "not of the form key=value",
            "write for example workers=4 or policy.temperature=0.7",
        )
        return None
    node = compose(value, place, problems, only=place)
    if node is None:
        return None
    node.appends = appends
    for name in reversed(names):
        node = Node({name: node}, place, is_path=True)
    return node


def check_secrets(node: Node, problems: Problems, path: str = "", secret: str = "") -> None:
    """Refuses what is named or looks like a secret, at any depth, without saying its value."""
    if isinstance(node.value, dict):
        named = _names_its_value(node.value)
        for key, child in node.value.items():
            if secret and len(key) >= _SHORTEST_KEY:
                problems.hide(key)
            here = path if secret else f"{path}.{key}" if path else key
            is_one = is_secret(key) or (named and key == "value")
            check_secrets(child, problems, here, secret or (key if is_one else ""))
    elif isinstance(node.value, list):
        # A list may be a command line: the word before names what this word is.
        before = ""
        for i, child in enumerate(node.value):
            text = "" if isinstance(child.value, dict | list) else str(child.value)
            is_pair = (
                len(node.value) == 2
                and re.fullmatch(r"[A-Z][A-Z0-9_]+", before)
                and is_secret(before)
            )
            given = is_pair or (
                before.startswith("-")
                and not text.startswith("-")
                and _gives_a_secret(f"{before} {text}")
            )
            check_secrets(
                child, problems, f"{path}[{i}]", secret or (before.lstrip("-") if given else "")
            )
            before = text
    elif node.value is not None and not isinstance(node.value, bool):
        _check_leaf(node, path, secret, problems)


def _names_its_value(mapping: dict[str, Node]) -> bool:
    """Whether it is of the form {name: API_KEY, value: …}."""
    return any(key in mapping and is_secret(str(mapping[key].value)) for key in ("name", "key"))


def _check_leaf(node: Node, path: str, secret: str, problems: Problems) -> None:
    text = str(node.value)
    key = secret or re.sub(r"(\[\d+\])+$", "", path.rpartition(".")[2])
    names_a_secret = path.endswith("_env") and is_secret(key.removesuffix("_env"))
    if names_a_secret and not re.fullmatch(r"[A-Za-z_]\w{0,99}", text):
        problems.hide(text)
        problems.add(
            node.place,
            f"{path}: not the NAME of an environment variable",
            "write the name, not the value",
        )
    elif secret and text:
        problems.hide(text)
        problems.add(
            node.place,
            f"{path}: a secret does not belong into a configuration",
            _RIGHT.format(key=key),
        )
    # The password of base_url is moved into the environment by `without_password`.
    elif path != "policy.base_url" and (
        Redactor.current().text(text) != text or _gives_a_secret(text)
    ):
        problems.hide(text)
        problems.add(node.place, f"{path}: this looks like a secret", _RIGHT.format(key=key))


def _gives_a_secret(text: str) -> bool:
    given = any(
        is_secret(name) for found in _GIVEN.finditer(text) for name in found.groups() if name
    )
    return given or bool(_USER.search(text))
