"""What a collector asks of a hosted world, and what it is answered: plain data, as bytes too.

A host process runs code of others. Its answers are therefore MessagePack, whose reader makes
nothing but numbers, texts, bytes, lists and mappings; unpickling would run what it is given.
"""

from __future__ import annotations

import struct
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgpack

from experience.answers import KEPT, StepAnswer
from experience.errors import XpError
from experience.signal import LateSignals, Signal, SignalKind
from experience.step import Ending
from experience.world import WorldCard, WorldView

Script = Literal["", "expert", "random"]
HEAD = struct.Struct("<IQ")
"""The head of a frame, before the bytes of a message: how many bytes follow the length, u32, and
the ticket, u64, which is among them."""
_TICKET_BYTES = 8
WORLD_ENDED = "WorldEnded"
"""The kind of failure of a world whose process is gone."""


@dataclass(frozen=True)
class Wants:
    """What is read from a world after its answer, beside the answer itself.

    script: whose action is to come with the answer. draw: seed of the random one. snapshot: whether
    the state is to come too, where the world goes back. experiment: whether the next experiment is
    to come, where the world is a laboratory.
    """

    script: Script = ""
    draw: int = 0
    snapshot: bool = False
    experiment: bool = False


@dataclass(frozen=True)
class Open:
    """Make the world if it is not made, and show its card."""


@dataclass(frozen=True)
class Reset:
    """by_agent: what is wanted for each agent, in a world with several."""

    seed: int
    split: str
    wants: Wants
    by_agent: Mapping[str, Wants] = field(default_factory=dict)


@dataclass(frozen=True)
class Act:
    action: str
    wants: Wants


@dataclass(frozen=True)
class Move:
    """A step of a world with several agents: the actions of all that are to act."""

    actions: Mapping[str, str]
    by_agent: Mapping[str, Wants]


@dataclass(frozen=True)
class Program:
    """A program that acts in a world in place of a policy.

    argv: its command, in which `{task}` stands for what the world wants done. environment: all that
    it finds in its environment. socket: a Unix socket, which it reaches as `port` of loopback, and
    nothing else. seconds: how long it may take. readable: folders that it may read.
    """

    argv: list[str]
    environment: dict[str, str]
    socket: str
    port: int
    seconds: float
    readable: list[str]


@dataclass(frozen=True)
class RunProgram:
    """Let a program act in the world to its end, and judge what it leaves."""

    program: Program
    wants: Wants


@dataclass(frozen=True)
class Look:
    """Show what is wanted now, without a step."""

    wants: Wants


@dataclass(frozen=True)
class Close:
    """Close the world; the last request."""


Request = Open | Reset | Act | Move | RunProgram | Look | Close


@dataclass(frozen=True)
class Failed:
    """A call that gave no answer: the world raised, or was not done by its deadline."""

    ending: Ending
    kind: str
    """The type of the error."""
    what: str
    traceback: str = ""
    hint: str = ""
    """What an error of ours tells to do; it is the end of `what`."""

    @classmethod
    def of(cls, error: BaseException, ending: Ending = "env_error") -> Failed:
        lines = "".join(traceback.format_exception(error))
        hint = error.hint if isinstance(error, XpError) else ""
        return cls(ending, type(error).__name__, _readable(str(error)), _readable(lines), hint)


@dataclass(frozen=True)
class Opened:
    card: WorldCard
    view: WorldView


@dataclass(frozen=True)
class Arrived:
    """Answer to a reset. card: of the world that was reset, in the first answer of its host."""

    observation: str
    info: Mapping[str, Any]
    view: WorldView
    card: WorldCard | None = None
    script_failed: Failed | None = None
    """Why the script that acts here has no action."""
    late: tuple[LateSignals, ...] = ()
    """Signals of earlier episodes' steps."""


@dataclass(frozen=True)
class Answered:
    """Answer to an action."""

    step: StepAnswer
    view: WorldView = field(default_factory=WorldView)
    script_failed: Failed | None = None


@dataclass(frozen=True)
class Told:
    """What one agent of several is told: the answer to its last action, or its first observation.

    is_asked: whether it is to act now; else it has ended.
    """

    agent: str
    step: StepAnswer
    is_asked: bool
    view: WorldView = field(default_factory=WorldView)
    script_failed: Failed | None = None


@dataclass(frozen=True)
class Round:
    """Answer to a reset or a move in a world with several agents, for those who act next or have
    ended. number: of steps since the reset."""

    number: int
    told: tuple[Told, ...]
    card: WorldCard | None = None


@dataclass(frozen=True)
class Seen:
    """Answer to a look."""

    view: WorldView
    script_failed: Failed | None = None


@dataclass(frozen=True)
class Closed:
    """The world is closed."""


Reply = Failed | Opened | Arrived | Answered | Round | Seen | Closed


def to_bytes(message: Request | Reply) -> bytes:
    """A message of this room as bytes."""
    packed: bytes = msgpack.packb(
        [type(message).__name__, _plain(message)],
        unicode_errors="surrogatepass",
        default=lambda number: number.item(),  # numpy's
    )
    return packed


def frame(ticket: int, message: bytes) -> bytes:
    """A message as it goes through a socket, in either direction."""
    return HEAD.pack(_TICKET_BYTES + len(message), ticket) + message


def request_of(data: bytes) -> Request:
    """The request that `to_bytes` wrote."""
    name, fields = _read(data)
    if "wants" in fields:
        fields["wants"] = Wants(**fields["wants"])
    if "by_agent" in fields:
        fields["by_agent"] = {a: Wants(**wants) for a, wants in fields["by_agent"].items()}
    if "program" in fields:
        fields["program"] = Program(**fields["program"])
    request: Request = _REQUESTS[name](**fields)
    return request


def reply_of(data: bytes) -> Reply:
    """The reply that `to_bytes` wrote. Raises ValueError, TypeError or KeyError for other bytes."""
    name, fields = _read(data)
    if name == "Round":
        fields["told"] = tuple(Told(**_parts(told)) for told in fields["told"])
    reply: Reply = _REPLIES[name](**_parts(fields))
    return reply


def _parts(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a reply, the plain ones as the objects that they stand for."""
    if "step" in fields:
        fields["step"] = _answer(**fields["step"])
    if "late" in fields:
        fields["late"] = _late(fields["late"])
    if fields.get("script_failed") is not None:
        fields["script_failed"] = Failed(**fields["script_failed"])
    if "view" in fields:
        fields["view"] = _view(**fields["view"])
    if fields.get("card") is not None:
        fields["card"] = _card(**fields["card"])
    return fields


_REQUESTS: dict[str, Any] = {
    kind.__name__: kind for kind in (Open, Reset, Act, Move, RunProgram, Look, Close)
}
_REPLIES: dict[str, Any] = {
    kind.__name__: kind for kind in (Failed, Opened, Arrived, Answered, Round, Seen, Closed)
}


def _read(data: bytes) -> tuple[str, dict[str, Any]]:
    name, fields = msgpack.unpackb(data, unicode_errors="surrogatepass", strict_map_key=False)
    return name, fields


def _plain(value: Any) -> Any:
    """A message as mappings and lists. Only what a step keeps of `info` is sent."""
    if isinstance(value, StepAnswer | Arrived):
        kept = {name: value.info[name] for name in KEPT if name in value.info}
        fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
        return {name: _plain(kept if name == "info" else part) for name, part in fields.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value


def _answer(signals: list[Any], late: list[Any], **fields: Any) -> StepAnswer:
    return StepAnswer(signals=_signals(signals), late=_late(late), **fields)


def _signals(given: list[dict[str, Any]]) -> tuple[Signal, ...]:
    return tuple(Signal(**signal) for signal in given)


def _late(given: list[dict[str, Any]]) -> tuple[LateSignals, ...]:
    return tuple(LateSignals(late["of"], _signals(late["signals"])) for late in given)


def _view(actions: list[str], experiment: list[Any] | None, **fields: Any) -> WorldView:
    planned = None if experiment is None else (experiment[0], experiment[1], experiment[2])
    return WorldView(actions=tuple(actions), experiment=planned, **fields)


def _card(signals: dict[str, dict[str, Any]], **fields: Any) -> WorldCard:
    kinds = {name: SignalKind(**kind) for name, kind in signals.items()}
    for listed in ("splits", "tools", "agents"):
        fields[listed] = tuple(fields[listed])
    return WorldCard(signals=kinds, **fields)


def _readable(text: str) -> str:
    """The text without half characters, which no row could keep."""
    return text.encode("utf-8", "backslashreplace").decode()
