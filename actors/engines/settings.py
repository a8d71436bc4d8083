"""The settings that an engine is made from: the section `policy` of a configuration has them all.

This room does not import the configuration: the configuration reads the names of the engines here.
"""

from __future__ import annotations

from typing import Protocol


class PolicySettings(Protocol):
    """What an engine may read. `./xp config explain policy` tells what each value means."""

    @property
    def engine(self) -> str: ...

    @property
    def layers(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def heads(self) -> int: ...

    @property
    def context(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def model(self) -> str: ...

    @property
    def base_url(self) -> str: ...

    @property
    def api_key_env(self) -> str: ...

    @property
    def learns(self) -> bool: ...

    @property
    def sees(self) -> bool: ...

    @property
    def pixels(self) -> int: ...

    @property
    def timeout_seconds(self) -> float: ...

    @property
    def retries(self) -> int: ...

    @property
    def listed(self) -> bool: ...

    @property
    def tools(self) -> str: ...

    @property
    def epsilon(self) -> float: ...

    def place(self, name: str) -> str:
        """The file and line, or the override, that set a key; for error messages."""
