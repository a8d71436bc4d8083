"""A person acts in a world, in the terminal or on a page."""

from __future__ import annotations

import base64
import html
import sys
from typing import Any

from envs.play.page import serve
from experience.command.output import emit
from experience.text.characters import readable
from experience.text.strict_json import dumps
from experience.world import WorldCard, instructions_of


class Game:
    """One episode after another, in which a person acts. Every command answers with text."""

    def __init__(self, world: Any, seed: int, split: str) -> None:
        self.world = world
        self._card = WorldCard.of(world)
        self._seed = seed
        self._split = split
        self.log: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.seen, self.info = self.world.reset(seed=self._seed, options={"split": self._split})
        self.ended = False
        self.total = 0.0
        self._saved: list[tuple[bytes, float]] = []

    def do(self, command: str) -> str:
        """Acts, or obeys `:oracle`, `:back` or `:new`; returns what came of it.

        After the end of an episode, every command but `:back` begins the next one.
        """
        if command == ":new" or (self.ended and command != ":back"):
            self._seed += 1
            self.begin()
            return f"seed {self._seed}"
        if command == ":back":
            return self._go_back()
        if command == ":oracle" and not self._card.has_oracle:
            return "this world has no oracle"
        action = str(self.world.oracle_action()) if command == ":oracle" else command
        if self._card.goes_back:
            self._saved.append((self.world.snapshot(), self.total))
        self.seen, reward, terminated, truncated, self.info = self.world.step(action)
        self.ended = bool(terminated or truncated)
        self.total = self.total + float(reward)
        ending = ""
        if self.ended:
            ending = " — terminated" if terminated else " — truncated"
        return (
            f"> {action}\nreward {reward:+.3f}, in all {self.total:+.3f}{ending}; signals "
            + dumps(self.info.get("signals", {}), default=str)
        )

    def _go_back(self) -> str:
        if not self._card.goes_back:
            return "this world cannot go back"
        if not self._saved:
            return "there is nothing to go back to"
        saved, self.total = self._saved.pop()
        self.seen, self.info = self.world.restore(saved)
        self.ended = False
        return "one turn back"


def in_terminal(game: Game) -> None:
    """Plays the game on stdin and stdout, until `:quit` or the end of stdin."""
    print(
        instructions_of(game.world) or "type an action",
        "(:oracle :back :new :quit)",
        file=sys.stderr,
    )
    emit(readable(str(game.seen)))
    for line in sys.stdin:
        command = line.strip()
        if command == ":quit":
            return
        emit(game.do(command))
        emit(readable(str(game.seen)))


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
body{{font:15px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d2a26}}
pre{{background:#f2f5f3;padding:1rem;border-radius:8px;white-space:pre-wrap}}
input{{font:inherit;padding:.5rem;width:60%}} button{{font:inherit;padding:.5rem .9rem}}
img{{max-width:100%;border:1px solid #ccd}} small{{color:#586}}
</style><h1>{title}</h1><p><small>{told}</small></p>{pictures}<pre>{seen}</pre>
<form method="post"><input name="do" autofocus placeholder="an action" aria-label="action">
<button>Act</button>
<button name="do" value=":oracle">Oracle</button> <button name="do" value=":back">Back</button>
<button name="do" value=":new">New</button></form><h2>What happened</h2><pre>{log}</pre></html>"""


def on_a_page(game: Game, port: int) -> None:
    """Serves the game on loopback until interrupted."""
    serve(lambda: page(game), lambda command: game.log.append(game.do(command)), port)


def page(game: Game) -> str:
    """The game as it stands, as HTML."""
    # A world's text may hold what an agent or a stranger wrote: all of it is escaped.
    pictures = "".join(
        f'<img alt="{html.escape(role)}" '
        f'src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        for role, data in game.info.get("images", {}).items()
    )
    return _PAGE.format(
        title=html.escape(type(game.world).__name__),
        pictures=pictures,
        told=html.escape(instructions_of(game.world)),
        seen=html.escape(str(game.seen)),
        log=html.escape("\n".join(reversed(game.log[-30:]))),
    )
