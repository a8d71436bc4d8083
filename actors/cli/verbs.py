"""What all verbs of the command share: while one runs, stdout is its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from actors.output import own_stdout

F = TypeVar("F", bound=Callable[..., Any])


class Verb(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        own_stdout()  # not before: help goes to stdout
        return super().invoke(ctx)


class Verbs(typer.Typer):
    """A group whose commands own stdout."""

    def command(self, name: str | None = None, **how: Any) -> Callable[[F], F]:  # type: ignore[override]
        return super().command(name, **{"cls": Verb, **how})
