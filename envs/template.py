"""The files that `./xp env new` writes: a whole world, ready to be checked and trained on.

A reader should take in a world at one look, so each file has at most 30 lines.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from experience.errors import ConfigError

# In these texts `{{` and `}}` stand for one brace each: `str.format` fills them in.
_TOOLS = '''"""{title}: find the number that was thought of."""

from typing import Annotated

import gymnasium
from envs.authoring import Outcome, Range, SignalKind, ToolWorld, action


class {name}(ToolWorld[tuple[int, int]]):
    signal_catalogue = {{"found": SignalKind("fraction", "env_state"),
                        "tries": SignalKind("count", "env_state")}}
    reward_weights = {{"found": 1.0, "tries": -0.02}}
    max_turns, goes_back = 5, True
    cheats = ("guess 1e9", "guess nan", '{{"name": "guess", "arguments": {{}}}}')

    def draw(self, rng): return int(rng.integers(10, 20)), int(rng.integers(8))  # low end, offset
    def begin(self): self.low, self.high = self.task[0], self.task[0] + 7
    def observe(self): return f"a number from {{self.low}} to {{self.high}}"
    def oracle_action(self): return f"guess {{sum(self.task)}}"  # knows all: the top of the scale
    def expert_action(self): return f"guess {{(self.low + self.high) // 2}}"  # knows what is seen

    @action
    def guess(self, number: Annotated[int, Range(10, 26)]) -> Outcome:
        """Say a number."""
        if self.low <= number < sum(self.task): self.low = number + 1
        if sum(self.task) < number <= self.high: self.high = number - 1
        return {{"found": float(number == sum(self.task)), "tries": 1.0}}, number == sum(self.task)


gymnasium.register(id="{name}-v0", entry_point={name})
'''

_GYMNASIUM = '''"""{title}: a plain Gymnasium environment; its reward is the signal `env_reward`."""

import string

import gymnasium
from gymnasium.spaces import Text


class {name}(gymnasium.Env):
    observation_space = action_space = Text(200, charset=string.printable)
    instructions = "Which number is larger? Reply left or right."
    actions = ("left", "right")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        held_out = (options or {{}}).get("split") == "heldout"
        while True:
            self.pair = left, right = [int(n) for n in self.np_random.integers(0, 10, 2)]
            if left != right and ((left + 2 * right) % 5 == 0) == held_out:  # each pair: one split
                return f"{{left}} {{right}}", {{"task_id": str(self.pair)}}

    def step(self, action):
        return "done", float(action.strip() == self.oracle_action()), True, False, {{}}

    def oracle_action(self): return "left" if self.pair[0] > self.pair[1] else "right"
    expert_action = oracle_action  # it can be worked out from what is seen, so it can be imitated
    def random_action(self, rng): return str(rng.choice(self.actions))


gymnasium.register(id="{name}-v0", entry_point={name})
'''

_CODE = '''"""{title}: words become a Python expression of x, which runs in the sandbox."""

import gymnasium
from envs.authoring import Outcome, SignalKind, ToolWorld, action
from envs.sandbox.cage import Sandbox, tier


class {name}(ToolWorld[tuple[str, int]]):
    signal_catalogue = {{"right": SignalKind("fraction", "verifier")}}
    reward_weights = {{"right": 1.0}}
    sandbox, sandbox_tier = Sandbox(), tier()
    max_turns = 3
    cheats = ("submit __import__('os')._exit(0)",
              "submit type('E', (int,), {{'__eq__': lambda s, o: True}})(0)")
    signs = {{"plus": "+", "minus": "-", "times": "*"}}

    def draw(self, rng): return str(rng.choice(list(self.signs))), int(rng.integers(10, 100))
    def begin(self): self.code = f"x{{self.signs[self.task[0]]}}{{self.task[1]}}"
    def observe(self): return f"x {{self.task[0]}} {{self.task[1]}}"
    def oracle_action(self): return f"submit {{self.code}}"

    @action
    def submit(self, code: str) -> Outcome:
        """Give a Python expression of x."""
        answers = self.sandbox.run(f"f = lambda x: {{code}}", [[x] for x in range(1, 8)]).answers
        right = [a == ("value", eval(self.code, {{"x": x}})) for x, a in enumerate(answers, 1)]
        return {{"right": sum(right) / 7}}, True


gymnasium.register(id="{name}-v0", entry_point={name})
'''

KINDS = {"tools": _TOOLS, "gymnasium": _GYMNASIUM, "code": _CODE}
DEMONSTRATIONS = {"tools": 40, "gymnasium": 20, "code": 100}
"""A number of demonstrations with which imitation alone is neither useless nor perfect: what
reinforcement learning adds can then be seen."""


def source(file_name: str, kind: str) -> tuple[str, str]:
    """(Python source, environment id) of a new world in `file_name`.py.

    Raises ConfigError for a name that cannot be a module, and for an unknown kind.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", file_name):
        raise ConfigError(
            f"{file_name!r} cannot be a module", "use small letters, digits and _, e.g. my_world"
        )
    if kind not in KINDS:
        raise ConfigError(f"no kind {kind!r}", "there are: " + ", ".join(KINDS))
    name = "".join(part.capitalize() for part in file_name.split("_"))
    return KINDS[kind].format(name=name, title=file_name), f"{file_name}:{name}-v0"


def write(name: str, kind: str) -> tuple[Path, str]:
    """Writes a new world into `name`.py of this folder; returns (path, environment id).

    Raises ConfigError for a bad name or kind, a name that is taken, and a folder that cannot be
    written to.
    """
    if not name.isidentifier() or not name.isascii():
        raise ConfigError(
            f"{name}: not a name of a module", "use letters, digits and '_', e.g. my_world"
        )
    text, env_id = source(name, kind)
    path = Path(f"{name}.py")
    if path.exists():
        raise ConfigError(f"{path} exists already", "choose another name")
    taken = find_spec(name)
    if taken is not None:  # the new file would never be found, or would replace that module
        where = taken.origin or ", ".join(taken.submodule_search_locations or ())
        raise ConfigError(
            f"{name}: a module of that name exists: {where}", "choose another name, e.g. my_" + name
        )
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(
            f"{path.absolute()} cannot be written: {error.strerror}",
            "call ./xp from a folder that you may write to",
        ) from error
    return path, env_id
