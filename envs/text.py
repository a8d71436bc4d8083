"""Any Gymnasium environment as text; its spaces say how to write and read values.

    ./xp env play envs:Text-v0 --set world=CartPole-v1

Numbers have four significant digits; each key of a dictionary is one line. The tasks are seeds. The
environment's reward is the only signal. To go back, the environment is reset with the same seed and
does the same actions again, so it must be deterministic.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from envs.contract import INVALID, Outcome, World
from envs.make import make
from experience.errors import EnvironmentFailure
from experience.signal import SignalKind


def shown(space: spaces.Space[Any], value: Any) -> str:
    """A value of `space` as text."""
    match space:
        case spaces.Discrete() | spaces.Text():
            return str(value)
        case spaces.Box() | spaces.MultiDiscrete() | spaces.MultiBinary():
            array = np.asarray(value)
            if array.size > 256:  # an image: its numbers would fill a language model's context
                return f"array of {'x'.join(map(str, array.shape))}, mean {array.mean():.4g}"
            return "\n".join(_row_as_text(row) for row in np.atleast_2d(array))
        case spaces.Dict():
            return "\n".join(
                f"{name}: {shown(part, value[name])}" for name, part in space.spaces.items()
            )
        case spaces.Tuple():
            return "\n".join(shown(part, v) for part, v in zip(space.spaces, value, strict=True))
    return json.dumps(value, default=str)


def _row_as_text(row: np.ndarray[Any, Any]) -> str:
    return " ".join(f"{number:.4g}" for number in row)


def read(space: spaces.Space[Any], text: str) -> Any:
    """The action that `text` describes. Raises ValueError that says what to write."""
    words = text.replace(",", " ").split()
    try:
        match space:
            case spaces.Text():
                value: Any = text
            case spaces.Discrete():
                value = int(words[0]) if len(words) == 1 else None
            case spaces.MultiDiscrete() | spaces.MultiBinary() | spaces.Box():
                value = np.array([float(w) for w in words]).reshape(space.shape).astype(space.dtype)
            case _:
                value = _from_json(space, json.loads(text))
    except (ValueError, IndexError, KeyError, TypeError):
        value = None
    if value is None or not space.contains(value):
        raise ValueError(f"write an action of {described(space)}")
    return value


def _from_json(space: spaces.Space[Any], value: Any) -> Any:
    """A value of JSON as one of `space`: JSON has neither arrays nor tuples.

    Raises KeyError, TypeError or ValueError if it has another form.
    """
    match space:
        case spaces.Dict():
            if set(value) != set(space.spaces):
                raise KeyError("other names")
            return {name: _from_json(part, value[name]) for name, part in space.spaces.items()}
        case spaces.Tuple():
            parts = zip(space.spaces, value, strict=True)
            return tuple(_from_json(part, one) for part, one in parts)
        case spaces.Box() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return np.asarray(value, space.dtype).reshape(space.shape)
    return value


def written(space: spaces.Space[Any], action: Any) -> str:
    """An action of `space` in the form that `read` reads."""
    if _is_of_numbers(space) or isinstance(space, spaces.Text):
        return shown(space, action)
    return json.dumps(action, default=lambda value: value.tolist())  # arrays and numpy's numbers


def described(space: spaces.Space[Any]) -> str:
    """What to write for an action of `space`."""
    match space:
        case spaces.Discrete():
            return f"one whole number from {space.start} to {space.start + space.n - 1}"
        case spaces.Box():
            count = int(np.prod(space.shape))
            return f"{count} numbers from {space.low.min():g} to {space.high.max():g}"
    return str(space)


def _is_of_numbers(space: spaces.Space[Any]) -> bool:
    """Whether an action, once it is read, is numbers within bounds.

    Then no text of an agent reaches the environment.
    """
    numbers = spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Box
    return isinstance(space, numbers)


class Text(World[int]):
    """The Gymnasium environment with the id `world`, shown and played as text."""

    goes_back: ClassVar[bool] = True
    repeats: ClassVar[bool] = True
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "env_reward": SignalKind("1", "env_state"),
        INVALID: SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"env_reward": 1.0, INVALID: -0.1}

    def __init__(self, world: str = "CartPole-v1", max_turns: int = 200, **arguments: Any) -> None:
        super().__init__()
        self.inner = make(world, arguments)
        self.max_turns = max_turns
        self.instructions = f"Reply with {described(self.inner.action_space)}"  # type: ignore[misc]
        space = self.inner.action_space
        self.sandbox_tier = "none-needed" if _is_of_numbers(space) else "none"
        if isinstance(space, spaces.Discrete) and space.n <= 100:
            self.actions = tuple(str(space.start + i) for i in range(int(space.n)))

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(2**31))

    def begin(self) -> None:
        self._seen_inside, _ = self.inner.reset(seed=self.task)

    def observe(self) -> str:
        return shown(self.inner.observation_space, self._seen_inside)

    def act(self, action: str) -> Outcome:
        chosen = read(self.inner.action_space, action)
        try:
            self._seen_inside, reward, terminated, truncated, _ = self.inner.step(chosen)
        except Exception as error:  # a stranger's world may raise anything
            raise EnvironmentFailure(
                f"{self.inner.spec.id if self.inner.spec else self.inner}: {error}"
            ) from error
        self.cut_off = bool(truncated)
        return {"env_reward": float(reward)}, bool(terminated)

    def oracle_action(self) -> str:
        raise NotImplementedError("a stranger's environment comes without an oracle")

    def random_action(self, rng: np.random.Generator) -> str:
        # The space has random numbers of its own: without this seed, two runs would differ.
        self.inner.action_space.seed(int(rng.integers(2**31)))
        return written(self.inner.action_space, self.inner.action_space.sample())

    def close(self) -> None:
        self.inner.close()
        super().close()
