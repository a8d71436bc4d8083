"""Checks that a world runs as its declarations and Gymnasium's contract say."""

from __future__ import annotations

import json
import time

import numpy as np

from envs.check.subject import Failed, Skipped, Subject, check
from envs.contract import INVALID
from envs.episode import Episode, begin, replay, take
from experience.reward import context_of
from experience.text.characters import is_readable
from experience.world import instructions_of

_REFUSALS = 6
"""The least number of episodes that are repeated with a refused action added."""


@check
def startup(subject: Subject) -> str:
    """The world can be made and reset; says how long that took."""
    started = time.perf_counter()
    subject.make().close()
    made = time.perf_counter() - started
    started = time.perf_counter()
    begin(subject.world, 0, subject.split)
    read_by = " as envs:Text-v0 reads it" if "world" in subject.arguments else ""
    return f"made in {made:.2f} s, first reset in {time.perf_counter() - started:.2f} s{read_by}"


@check
def gymnasium_checker(subject: Subject) -> str:
    """Gymnasium's own checker is content."""
    from gymnasium.utils.env_checker import check_env

    check_env(subject.world, skip_render_check=True, skip_close_check=True)
    return "check_env found nothing"


@check
def observation_schema(subject: Subject) -> str:
    """Every observation lies in its space and holds no control characters."""
    episodes = subject.explored
    outside = [what for episode in episodes for what in episode.outside]
    if outside:
        raise Failed(f"outside observation_space: {outside[0]}")
    seen = [text for episode in episodes for text in episode.seen]
    for text in seen:
        if not is_readable(text):
            strange = next(c for c in text if not is_readable(c))
            raise Failed(f"{strange!r} cannot be printed, in {text[:60]!r}")
    return f"{len(seen)} observations, up to {max(map(len, seen))} characters"


@check
def tool_declaration_accuracy(subject: Subject) -> str:
    """Declared actions work, others are refused, and `instructions` say how to act."""
    if not instructions_of(subject.world):
        raise Failed("`instructions` is empty: a language model is not told what to type")
    rng = np.random.default_rng(0)
    tools = subject.tools()
    for tool in tools.values():
        for _ in range(5):
            tool.read(tool.draw(rng).partition(" ")[2])
        json.dumps(tool.schema())
    tried = subject.invalid_actions(rng)
    is_at_once = getattr(subject.world, "is_at_once", False)
    for nonsense in tried:
        _, before = subject.world.reset(seed=3)
        _, _, _, _, after = subject.world.step(nonsense)
        subject.measured(after.get("signals", {}))
        if INVALID not in subject.catalogue:
            continue  # the world does not say which actions it refuses
        # where several act at once, the others have moved meanwhile
        is_still = after.get("state") == before.get("state") or is_at_once
        if INVALID not in after["signals"] or not is_still:
            raise Failed(f"action {nonsense!r} was not refused, or changed the state")
    listed = f"{len(tools)} tools: {', '.join(tools)}" if tools else "text actions"
    return f"{listed}; {len(tried)} wrong actions tried"


@check
def refusal_changes_nothing(subject: Subject) -> str:
    """After a refused action, an episode goes on as it would have without that action."""
    if INVALID not in subject.catalogue:
        raise Skipped(f"the world does not say what it refuses (signal {INVALID})")
    if getattr(subject.world, "is_at_once", False):
        raise Skipped("several agents act at once: the others go on")
    wrong = subject.invalid_actions(np.random.default_rng(1))
    most = getattr(subject.world, "max_turns", None)
    episodes = [e for e in [*subject.lived, *subject.random] if not most or len(e.actions) < most]
    if not episodes:
        raise Skipped("no episode leaves a turn in which an action could be refused")
    tried = 0
    until = time.perf_counter() + 5 * subject.seconds
    for number in range(max(_REFUSALS, len(wrong))):
        if tried and time.perf_counter() > until:
            break
        episode = episodes[number % len(episodes)]
        nonsense = wrong[number % len(wrong)]
        tried += _goes_on_alike(subject, episode, nonsense, number % (len(episode.actions) or 1))
    if not tried:
        raise Skipped("none of the wrong actions was refused")
    return f"{tried} episodes with a refused action between"


def _goes_on_alike(subject: Subject, episode: Episode, nonsense: str, at: int) -> bool:
    """Repeats `episode` with `nonsense` before its action number `at`.

    Returns False if the world did not refuse `nonsense`. Raises Failed if a later turn measures
    other signals than before.
    """
    log = {"seed": episode.seed, "split": episode.split, "actions": episode.actions[:at]}
    again = replay(subject.world, log)
    take(subject.world, again, nonsense)
    if INVALID not in again.signals[-1] or again.ended:
        return False
    for turn in range(at, len(episode.actions)):
        take(subject.world, again, episode.actions[turn])
        before = episode.signals[turn]
        after = again.signals[-1]
        if _values(before) != _values(after):
            raise Failed(
                f"after the refused {nonsense!r}, turn {turn} of seed {episode.seed} measures "
                f"{_values(after)}, without it {_values(before)}"[:200]
            )
        if again.ended:
            break
    return True


def _values(signals: dict[str, object]) -> dict[str, str]:
    """Each signal's value, without its evidence."""
    found = {}
    for name, signal in sorted(signals.items()):
        found[name] = repr(signal[0] if isinstance(signal, tuple) else signal)
    return found


@check
def reward_well_formed(subject: Subject) -> str:
    """Every signal is declared, and finite or None; the reward is their weighted sum, or
    what the world's `reward_function` gives."""
    rewards = subject.rewards
    steps = 0
    for episode in subject.explored:
        for turn, (signals, reward) in enumerate(
            zip(episode.signals, episode.rewards, strict=True)
        ):
            context = context_of(turn, episode.ending_at(turn), episode.task)
            expected = rewards.reward(subject.env_id, subject.measured(signals), context)
            # An unknown signal makes the reward unknown, which Gymnasium shows as NaN.
            as_it_should = np.isnan(reward) if expected is None else np.isclose(reward, expected)
            if not as_it_should:
                raise Failed(
                    f"reward {reward} is not the {rewards.noun} {expected} of {signals}"[:200]
                )
            steps += 1
    return f"{steps} steps; weights {json.dumps(dict(subject.weights))}"[:160]
