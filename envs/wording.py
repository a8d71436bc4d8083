"""Two wordings of one state: terse, for small models of bytes, and plain, for language models.

Every bundled world takes the argument `wording`. Terse is what `observe()` and `instructions` say.
Plain says it in sentences: the task, the state with units, what can be done now, and one line that
the world would accept. State, signals, seeds and actions are the same in both; so is
`info["state"]`, which is always `observe()`.

A world describes itself by `briefing`, `forms`, `meanings`, `describe()` and `example()`. One that
defines none of them can be plain too: it then shows `observe()` and a well-formed action at random.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from envs.refused import Refused
from experience.reward import RewardFunction
from experience.signal import SignalKind

Wording = Literal["terse", "plain"]
WORDINGS: tuple[str, ...] = get_args(Wording)
PLAIN_CHARACTERS = 2000
"""How many more characters an observation may have in plain words."""
OF_WORDING = frozenset({"wording", "instructions", "observation_characters"})
"""Attributes of a world that belong to its wording, and not to the state of its episode."""
_COMMON_MEANINGS: Mapping[str, str] = {
    "invalid_action": "for each answer that is refused because it is no action",
    "env_reward": "times the reward that the environment itself gives",
}
_WITHOUT_UNIT = ("1", "count", "fraction", "reward")
_QUOTED = 60
"""The most characters of a refused answer that are repeated to the agent."""


class Worded:
    """The part of a world that speaks plainly. The first base of every world."""

    wording: Wording = "terse"
    briefing: ClassVar[str] = ""
    """The task of every episode, in sentences: what is wanted, and what the numbers mean."""
    reply: ClassVar[str] = "Reply with one line and nothing else. The line is one of:"
    forms: ClassVar[Mapping[str, str]] = {}
    """How an action is written -> what it does, in a sentence."""
    meanings: ClassVar[Mapping[str, str]] = {}
    """Signal -> what its weight is paid for: `for each test run`, `times the share of …`."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "__init__" in vars(cls):
            cls.__init__ = _with_wording(cls.__init__)  # type: ignore[method-assign]

    def describe(self) -> str:
        """The goal and the present state in sentences, with units."""
        return str(self.observe())  # type: ignore[attr-defined]

    def example(self) -> str:
        """A line that the world accepts now and that does not solve the task; empty if none is
        known. It must not depend on what the agent may not see."""
        try:
            drawn = self.random_action(np.random.default_rng(0))  # type: ignore[attr-defined]
        except NotImplementedError:
            return ""
        return str(drawn)

    def ways(self) -> Mapping[str, str]:
        """How each action is written, and what it does."""
        return self.forms

    def own_instructions(self) -> str:
        """The terse instructions, where a person wrote them."""
        return str(self.instructions)  # type: ignore[attr-defined]

    def either(self, terse: str, plain: str) -> str:
        """The one of two texts that the wording asks for."""
        return plain if self.wording == "plain" else terse

    def refusal(self, action: str, why: ValueError) -> str:
        """The note that tells an agent that its action was refused, and why."""
        said = " ".join(action.split())
        quoted = f"{said[:_QUOTED]}..." if len(said) > _QUOTED else said
        reason = why.plain if isinstance(why, Refused) else _as_sentence(str(why))
        return self.either(
            f"\n! {why}",
            f'\nYour last answer, "{quoted}", was refused: it cost a turn and changed nothing. '
            f"{reason}",
        )


def plain_instructions(world: Any) -> str:
    """The task, how to answer, what is paid for, and the limits."""
    ways = [f"- {how}: {_as_sentence(what)}" for how, what in world.ways().items()]
    # A world may list its actions with each observation, and say here only how to reply.
    listed = "\n".join([world.reply, *ways]) if ways or "reply" in _own(world) else ""
    parts = [
        world.briefing or world.own_instructions(),
        listed,
        _rewards(world.reward_weights, world),
        _limits(world),
    ]
    return "\n\n".join(part for part in parts if part)


def _own(world: Any) -> set[str]:
    """The attributes that the classes of a world define beside `Worded` itself."""
    return {name for kind in type(world).__mro__ if kind is not Worded for name in vars(kind)}


def plain_observation(world: Any, note: str, turns_done: int, ended: bool) -> str:
    """The present state in plain words, the `note` on the last action, and a line to write.

    If all that is too long, the state is cut and not what comes after it.
    """
    told = f"\n{note}" if note else ""  # a note begins a new line; in plain words, a paragraph
    after = f"{told}\n\n{_closing(world, turns_done, ended)}"
    room = max(world.observation_characters - len(after), 0)
    return str(world.describe())[:room] + after


def _closing(world: Any, turns_done: int, ended: bool) -> str:
    if ended:
        return "The episode is over."
    of_all = f" of {world.max_turns}" if world.max_turns else ""
    turn = f"Turn {turns_done + 1}{of_all}."
    example = world.example()
    if not example:
        return turn
    return f"{turn} Reply with one action, in the form of this example:\n{example}"


def _rewards(weights: Mapping[str, float], world: Any) -> str:
    if RewardFunction.of(type(world)) is not None:
        return "Reward, added up over the episode: the world computes it from what it measures."
    paid = [
        f"- {weight:+g} {_meaning(name, world)}."
        for name, weight in sorted(weights.items(), key=lambda item: -item[1])
        if weight
    ]
    return "\n".join(["Reward, added up over the episode:", *paid]) if paid else ""


def _meaning(name: str, world: Any) -> str:
    known: Mapping[str, SignalKind] = world.signal_catalogue
    unit = known[name].unit if name in known else "1"
    measured = "" if unit in _WITHOUT_UNIT else f", in {unit}"
    meanings = _COMMON_MEANINGS | world.meanings
    return str(meanings.get(name, f"times the signal {name}{measured}"))


def _limits(world: Any) -> str:
    turns = f"You have at most {world.max_turns} turns. " if world.max_turns else ""
    return f"{turns}An answer has at most {world.action_characters:,} characters."


def _as_sentence(words: str) -> str:
    """A few words with a capital letter and a full stop."""
    text = words.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def usage_in_words(tool: Any) -> str:
    """How an action of a ToolWorld is written, with its parameters in capital letters."""
    words = [p.placeholder if p.required else f"[{p.placeholder}]" for p in tool.parameters]
    return " ".join([tool.name, *words])


def explained(tool: Any, description: str = "") -> str:
    """What an action does (its own description, if none is given), and what its parameters take."""
    names: dict[str, list[str]] = {}
    for p in tool.parameters:
        if p.choices or p.type is not str:
            names.setdefault(p.in_words(), []).append(p.placeholder)
    bounds = [f"{', '.join(who)}: {accepted}" for accepted, who in names.items()]
    sentences = [description or tool.description, *(["; ".join(bounds)] if bounds else [])]
    if not all(p.required for p in tool.parameters):
        sentences.append("What stands in brackets may be left out")
    return " ".join(f"{sentence.rstrip('.')}." for sentence in sentences)


def miswritten(tool: Any, missing: Sequence[str], count: int) -> str:
    """What is wrong with the arguments of an action, of which `count` were written, and its form."""
    wrong = f"{count} values were given"
    if missing:
        wrong = f"{', '.join(name.upper() for name in missing)} is missing"
    return f"The action {tool.name} is written: {usage_in_words(tool)}. Here {wrong}."


def _with_wording(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor, with the argument `wording` beside its own.

    Raises ValueError for a wording that does not exist.
    """
    own = inspect.signature(init)
    if "wording" in own.parameters:
        return init

    @wraps(init)
    def made(self: Any, *given: Any, wording: str | None = None, **named: Any) -> None:
        if wording is not None:
            if wording not in WORDINGS:
                raise ValueError(f"wording {wording!r}: choose {' or '.join(WORDINGS)}")
            self.wording = wording
            if wording == "plain":
                self.observation_characters += PLAIN_CHARACTERS
        init(self, *given, **named)
        # Once, after the constructors of all classes: their limits and rules are known then.
        if type(self).__init__ is made and self.wording == "plain":
            self.instructions = plain_instructions(self)

    made.__signature__ = _and_wording(own)  # type: ignore[attr-defined]
    return made


def _and_wording(own: inspect.Signature) -> inspect.Signature:
    """The signature with `wording` as its last argument but `**more`."""
    kind = inspect.Parameter.KEYWORD_ONLY
    added = inspect.Parameter("wording", kind, default="terse", annotation="Wording")
    listed = list(own.parameters.values())
    more = [p for p in listed if p.kind is inspect.Parameter.VAR_KEYWORD]
    return own.replace(parameters=[*listed[: len(listed) - len(more)], added, *more])
