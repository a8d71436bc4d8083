"""Sections about acting: the budget, worlds, collecting, the sandbox, evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from actors.config.section import PathText, Section, absolute
from actors.engines.registry import CHAT_ENGINES
from experience.preferences.naming import GIVEN, file_of, is_given

_BUNDLED = "envs:"
WORDING = "wording"
"""The argument of every bundled world. Other worlds get it only from their own `arguments`."""


def _models_here(weights: dict[str, float] | None) -> dict[str, float] | None:
    """The weights with the files of preference models as places on this machine."""
    if weights is None:
        return None
    return {f"{GIVEN}{absolute(file_of(n))}" if is_given(n) else n: w for n, w in weights.items()}


class Budget(Section):
    """When the run ends: whichever comes first."""

    updates: int = Field(40, ge=0, description="learner updates")
    minutes: float | None = Field(
        None,
        gt=0,
        description="wall time of collecting and learning, in minutes, or null "
        "for no limit; with one, no run repeats another exactly",
    )
    phase_minutes: float = Field(
        15.0,
        gt=0,
        description="wall time of each other phase (demonstrations and baseline, "
        "imitation, world model, final evaluation); what is missing "
        "then is left out, and said",
    )
    steps: int | None = Field(
        None, ge=1, description="real training steps taken, or null for no limit"
    )


class World(Section):
    id: str = Field(
        description="a Gymnasium id, e.g. envs:Reactor-v0; a stranger's package works the same way"
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="given to the environment's constructor: texts, numbers, lists and mappings, "
        "e.g. {screenshots: true}; bundled worlds take wording: plain or terse, and get plain if "
        "policy.engine is hugging_face or openai and nothing is said",
    )
    isolation: Literal["process", "inside"] | None = Field(
        None,
        description="where its code runs: process can be killed, inside is a thread of the "
        "collector; null is inside for bundled worlds, and process for all others",
    )
    groups: int = Field(2, ge=0, le=10_000, description="groups of this world in every update")
    demonstrations: int = Field(
        100, ge=0, le=1_000_000, description="episodes of the world's scripted expert, stored once"
    )
    segment_turns: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="an endless world: turns of a segment, which ends as truncated and goes on "
        "without a reset; null takes the world's own, 0 if its episodes end by themselves",
    )
    rewards: Annotated[
        dict[str, Annotated[float, Field(ge=-1e9, le=1e9)]] | None, AfterValidator(_models_here)
    ] = Field(
        None,
        description="weights of signals, and of preference models as preference:FILE; null takes "
        "the world's own",
    )


class Harness(Section):
    """A program of others that acts in place of a policy that is asked turn by turn."""

    harness: Literal["mini-swe-agent", "smolagents", "program"]
    folder: PathText = ""
    """Of its own Python environment, which has bin/python."""
    command: list[str] = []
    environment: dict[str, str] = {}
    readable: list[PathText] = []
    seconds: float = Field(600.0, gt=0, le=86_400)
    steps: int = Field(16, ge=1, le=10_000)


def _harness(given: dict[str, Any]) -> dict[str, Any]:
    """An item of `agents`, whole. Raises a validation error that names each of its mistakes."""
    try:
        whole = Harness.model_validate(given)
    except ValidationError as invalid:
        wrong = [
            f"{'.'.join(map(str, e['loc'])) or 'item'}: {e['msg']}"
            for e in invalid.errors(include_url=False)
        ]
        raise PydanticCustomError("harness", "{wrong}", {"wrong": "; ".join(wrong)}) from None
    if whole.harness == "program" and not whole.command:
        raise PydanticCustomError("harness", "harness: program needs its `command`, a list")
    if whole.harness != "program" and not whole.folder:
        raise PydanticCustomError(
            "harness", "give the `folder` of its Python environment (docs/gateway.md)"
        )
    return whole.model_dump()


HarnessItem = Annotated[dict[str, Any], AfterValidator(_harness)]


class Collecting(Section):
    slots: int = Field(16, ge=1, le=4096, description="environments that one collector keeps going")
    group_size: int = Field(
        8, ge=2, le=1024, description="episodes of the same task and start: a group baseline"
    )
    step_timeout_seconds: float = Field(
        60.0, gt=0, le=86_400, description="a slower environment step ends its episode: timeout"
    )
    discount: float = Field(
        1.0, gt=0, le=1, description="γ after a step that did not end the world"
    )
    durability: Literal["sync", "group", "os"] = Field(
        "group", description="when a step is acknowledged"
    )
    commit_seconds: float = Field(
        0.05, gt=0, le=10, description="group: the longest wait for an acknowledgement"
    )
    seal_bytes: int = Field(
        64 << 20, ge=1 << 16, le=1 << 30, description="a segment of so many bytes is sealed"
    )
    seal_seconds: float = Field(
        600.0,
        gt=0,
        le=2_592_000,
        description="a segment as old as this is sealed, whatever it holds",
    )


class AgentSection(Section):
    """What the agent remembers, and whether it looks at pictures."""

    history: str = Field(
        "auto",
        pattern=r"^(auto|none|full|newest_screen|compact|last\([1-9][0-9]{0,3}\))$",
        description="earlier turns that the model reads again: none; full, which drops the older "
        "half when the context is full; last(k); newest_screen, all answers and the newest "
        "observation; compact, where the model writes a summary when the context is nearly full; "
        "auto is full for chat models without planning, else none",
        examples=["last(8)"],
    )
    notes: int = Field(
        0,
        ge=0,
        le=100_000,
        description="characters of notes that the model may keep beyond an episode; 0 is none",
    )
    sight: Literal["auto", "ignore"] = Field(
        "auto",
        description="pictures that a world gives: auto shows them to the model, and refuses a "
        "model that cannot see; ignore keeps them in the store, and shows the model none",
    )


class SandboxSection(Section):
    min_tier: Literal["none", "landlock", "namespaces", "gvisor"] = Field(
        "namespaces",
        description="the weakest place that agent code may run in; what offers less is refused; "
        "none keeps nothing in, and needs --i-trust-this-code",
    )


class Evaluation(Section):
    episodes: int = Field(
        32, ge=0, le=100_000, description="held-out episodes per world and evaluation"
    )
    final_episodes: int = Field(
        64, ge=0, le=100_000, description="held-out episodes per world, first and last evaluation"
    )
    every: int = Field(10, ge=1, le=1_000_000, description="evaluate each n-th policy version")
    temperature: float = Field(
        0.0, ge=0, le=10, description="sampling temperature when evaluating; 0 is greedy"
    )


def with_wording(worlds: Sequence[World], engine: str) -> list[World]:
    """The worlds, each bundled one with `wording: plain` if it is told nothing else and the
    engine's model reads chats.

    It stands among the world's arguments, so that all who make the world, and the store, know it.
    """
    return [_plainly(world) for world in worlds] if engine in CHAT_ENGINES else list(worlds)


def _plainly(world: World) -> World:
    if not world.id.startswith(_BUNDLED) or WORDING in world.arguments:
        return world
    return world.model_copy(update={"arguments": {**world.arguments, WORDING: "plain"}})
