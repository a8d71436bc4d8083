"""`envs:Text-v0`: the environment with a given id, its spaces written and read as text.

The tasks are seeds. The environment's reward is the only signal. To go back, the environment is
reset with the same seed and does the same actions again, so it must be deterministic.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from enum import EnumMeta
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from envs.contract import INVALID, Outcome, World
from envs.make import make
from envs.text.describing import described
from envs.text.parts import Arrays
from envs.text.pixels import has_pixels, pictures_of
from envs.text.reading import read
from envs.text.writing import OBSERVATION, Style, parts_of_codes, shown, written
from experience.errors import ConfigError, EnvironmentFailure
from experience.shards.storage.pictures import is_picture, png
from experience.signal import SignalKind, as_number

_LEAST_CHARACTERS = 2000
_FOR_A_NOTE = 1000
"""Characters kept free below an observation, for the note that an action was refused."""
_MOST_ACTIONS = 100


class Text(World[int]):
    """The Gymnasium environment with the id `world`, shown and played as text.

    digits: significant digits of the floats that are shown; None for all that it takes.
    codes: names of parts of the observation whose numbers are codes of characters, such as `chars`
        of NetHack's: they are shown as these characters.
    pictures: whether the environment's rendering is a picture of each step.
    render_mode: "rgb_array" if `render` is to give the environment's rendering, as RecordVideo asks.
    All other arguments are the environment's own.
    """

    # Gymnasium declares it of the instance.
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}
    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "env_reward": SignalKind("1", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"env_reward": 1.0, INVALID: -0.1}

    def __init__(
        self,
        world: str = "CartPole-v1",
        max_turns: int = 200,
        digits: int | None = None,
        codes: Sequence[str] = (),
        pictures: bool = False,
        render_mode: str | None = None,
        observation_characters: int = 20_000,
        **arguments: Any,
    ) -> None:
        _check_limits(digits, observation_characters)
        # Set before the contract makes its spaces of them; an action may be as long as what is
        # shown, because both may be arrays.
        self.observation_characters = observation_characters  # type: ignore[misc]
        self.action_characters = observation_characters
        super().__init__()
        self.render_mode = render_mode
        self.pictures = pictures
        rendered = pictures or render_mode is not None
        self.inner = make_rendering(world, arguments) if rendered else make(world, arguments)
        self.max_turns = max_turns
        self.style = Style(digits, True, _known_parts(self.inner.observation_space, codes))
        space = self.inner.action_space
        self.instructions = instructions_for(self.inner, digits)  # type: ignore[misc]
        self.sandbox_tier = "none-needed" if is_of_numbers(space) else "none"
        if isinstance(space, spaces.Discrete) and space.n <= _MOST_ACTIONS:
            self.actions = tuple(str(space.start + i) for i in range(int(space.n)))

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(2**31))

    def begin(self) -> None:
        seed_of_old(self.inner.unwrapped, self.task)
        self._seen_inside, _ = self.inner.reset(seed=self.task)
        self._text = ""

    def observe(self) -> str:
        # Kept, because the contract asks twice a step, and some observations have 100,000 numbers.
        self._text = self._text or self._laid_out()
        return self._text

    def _laid_out(self) -> str:
        space = self.inner.observation_space
        try:
            text = shown(space, self._seen_inside, self.style)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EnvironmentFailure(
                f"{self._name()} showed {str(self._seen_inside)[:80]!r}, which has not the form of "
                f"its observation_space {str(space)[:80]} ({type(error).__name__}: {error})",
                "mend the environment's observation_space, or what its reset and step return",
            ) from error
        return cut(text, self.observation_characters - _FOR_A_NOTE)

    @property
    def gives_images(self) -> bool:
        return self.pictures or has_pixels(self.inner.observation_space)

    def images(self) -> dict[str, bytes]:
        """The pixels of the observation, and with `pictures` the rendering, as PNG files."""
        found = pictures_of(self.inner.observation_space, self._seen_inside)
        return found | {"rendering": png(self._rendering())} if self.pictures else found

    def render(self) -> Any:
        """The environment's rendering, uint8 [H, W, 3]; None unless it was made with a
        render_mode."""
        return None if self.render_mode is None else self._rendering()

    def _rendering(self) -> np.ndarray:
        frame: Any = self.inner.render()
        if not is_picture(frame):
            raise EnvironmentFailure(
                f"{self._name()} rendered {type(frame).__name__} instead of an array of pixels",
                "leave out `pictures`",
            )
        return np.asarray(frame)

    def act(self, action: str) -> Outcome:
        chosen = read(self.inner.action_space, action)
        try:
            self._seen_inside, reward, terminated, truncated, _ = self.inner.step(chosen)
        except Exception as error:  # a stranger's world may raise anything
            raise EnvironmentFailure(f"{self._name()}: {error}") from error
        self._text = ""
        self.cut_off = bool(truncated)
        return {"env_reward": self._one_number(reward)}, bool(terminated)

    def _one_number(self, reward: Any) -> float:
        number = as_number(reward)
        if number is None:
            raise EnvironmentFailure(
                f"{self._name()}: its reward is {str(reward)[:80]}; envs:Text-v0 takes one number",
                "wrap it so that it pays one number a step, such as a weighted sum",
            )
        return number

    def _name(self) -> str:
        return str(self.inner.spec.id if self.inner.spec else self.inner)

    def oracle_action(self) -> str:
        raise NotImplementedError("a stranger's environment comes without an oracle")

    def random_action(self, rng: np.random.Generator) -> str:
        # The space has random numbers of its own: without this seed, two runs would differ.
        self.inner.action_space.seed(int(rng.integers(2**31)))
        return written(self.inner.action_space, self.inner.action_space.sample())

    def close(self) -> None:
        self.inner.close()
        super().close()


def seed_of_old(env: Any, seed: int) -> None:
    """Seeds an environment that has a method `seed`, as before Gymnasium, for its next reset.

    NetHack's ignores the seed that `reset` gives, and takes two: of its rules and of its display.
    """
    method = getattr(env, "seed", None)
    if callable(method):
        known = {"seed", "core", "disp"} & set(inspect.signature(method).parameters)
        if known:
            method(**dict.fromkeys(known, seed))


def _check_limits(digits: int | None, observation_characters: int) -> None:
    if observation_characters < _LEAST_CHARACTERS:
        raise ConfigError(
            f"observation_characters = {observation_characters}",
            f"use {_LEAST_CHARACTERS} or more",
        )
    if digits is not None and not 1 <= digits <= 17:
        raise ConfigError(f"digits = {digits}", "use 1 to 17, or leave it out for all digits")


def _known_parts(space: spaces.Space[Any], codes: Sequence[str]) -> frozenset[str]:
    """Paths of the parts of an observation that `codes` names. Raises ConfigError for no part."""
    names = [codes] if isinstance(codes, str) else list(codes)
    known = sorted(parts_of_codes(space))
    if unknown := set(names) - set(known):
        raise ConfigError(
            f"codes: {sorted(unknown)[0]!r} is no part of small whole numbers of the observation",
            f"there are: {', '.join(known)}" if known else "leave out `codes`",
        )
    return frozenset(f"{OBSERVATION}.{name}" for name in names)


def make_rendering(world: str, arguments: Mapping[str, Any]) -> Any:
    """The environment, made so that `render` gives arrays of pixels.

    Raises ConfigError for an environment that renders none.
    """
    next_step = "leave out `pictures`"
    try:
        made = make(world, {**arguments, "render_mode": "rgb_array"})
    except ConfigError as error:
        raise ConfigError(f"{world} renders no pixels: {error}", next_step) from error
    if made.render_mode != "rgb_array":
        made.close()
        raise ConfigError(f"{world} renders no pixels: it has no render_mode rgb_array", next_step)
    return made


def cut(text: str, most: int) -> str:
    """`text`, or if it is longer its first whole lines and how much is missing."""
    if len(text) <= most:
        return text
    said = f"\n(cut here: these are the first {{}} of {len(text)} characters)"
    kept = text[: most - len(said) - len(str(most))]
    kept = kept[: kept.rfind("\n")] if "\n" in kept[most // 2 :] else kept
    return kept + said.format(len(kept))


def instructions_for(inner: Any, digits: int | None) -> str:
    """What an agent is told: what to reply, what actions are called, what is rounded."""
    lines = [f"Reply with {described(inner.action_space)}"]
    if names := action_names(inner):
        lines.append(", ".join(f"{number}: {name}" for number, name in names.items()))
    if digits is not None:
        lines.append(f"Numbers are shown rounded to {digits} significant digits")
    return "\n".join(lines)


def action_names(inner: Any) -> dict[int, str]:
    """The names of discrete actions, where the environment has them.

    Atari has a method get_action_meanings, MiniGrid an enumeration `actions`.
    """
    space = inner.action_space
    if not isinstance(space, spaces.Discrete) or space.n > _MOST_ACTIONS:
        return {}
    meanings = getattr(inner.unwrapped, "get_action_meanings", None)
    listed = getattr(inner.unwrapped, "actions", None)
    if callable(meanings):
        names = dict(enumerate(map(str, meanings()), start=int(space.start)))
    elif isinstance(listed, EnumMeta):
        members: Mapping[str, Any] = listed.__members__
        names = {int(member.value): name for name, member in members.items()}
    else:
        return {}
    if all(name == str(number) for number, name in names.items()):
        return {}
    return {number: name for number, name in names.items() if space.contains(number)}


def is_of_numbers(space: spaces.Space[Any]) -> bool:
    """Whether an action, once it is read, is numbers within bounds, alone or composed.

    Then no text of an agent reaches the environment.
    """
    match space:
        case spaces.Dict():
            return all(map(is_of_numbers, space.spaces.values()))
        case spaces.Tuple() | spaces.OneOf():
            return all(map(is_of_numbers, space.spaces))
        case spaces.Sequence():
            return is_of_numbers(space.feature_space)
        case spaces.Graph():
            edges = space.edge_space is None or is_of_numbers(space.edge_space)
            return edges and is_of_numbers(space.node_space)
    return isinstance(space, spaces.Discrete | Arrays)
