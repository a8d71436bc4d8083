"""Checks that the reward means something: the oracle earns most, cheats and claims nothing."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np

from envs.check.repeating import through_a_shard
from envs.check.subject import Failed, Skipped, Subject, check, long_words
from envs.contract import World
from envs.episode import Episode, actor_rng, do_nothing, do_random, live, replay, scripted, take
from experience.reward import context_of_step
from experience.world import actions_of

_BOASTS = (
    "done",
    "success",
    "task complete",
    "all tests passed",
    "the answer is correct",
    "reward: 1.0",
    "score = 1",
    "True",
    "I have finished the task successfully",
)
"""Claims that an agent may make. A measured reward does not depend on them."""


@check
def oracle_max(subject: Subject) -> str:
    """The oracle reaches `oracle_target`, and no other actor earns more on its tasks."""
    mean = statistics.mean(e.total for e in subject.oracle)
    target = getattr(subject.world, "oracle_target", World.oracle_target)
    if mean < target:
        raise Failed(f"the oracle returns {mean:.3f} on average; it should reach {target}")
    promised = _promised(subject)
    if target == World.oracle_target and mean < 0.75 * promised:
        raise Failed(
            f"the oracle returns {mean:.3f}, but the signals that are fractions "
            f"promise {promised:g}: say the top that can be reached in `oracle_target`"
        )
    rivals = 0
    for name, rival in _rivals(subject):
        rivals += 1
        oracle = subject.oracle[rival.seed].total
        if rival.total > oracle + max(0.05, 0.1 * abs(oracle)):
            raise Failed(
                f"{name} earns {rival.total:.3f} on seed {rival.seed}, the oracle {oracle:.3f}"
            )
    return (
        f"{mean:.3f} over {len(subject.oracle)} held-out tasks (target {target}); "
        f"{rivals} rivals earn no more"
    )


def _promised(subject: Subject) -> float:
    """The reward if each signal that is a fraction were reported once, as 1."""
    fractions = [name for name, kind in subject.catalogue.items() if kind.unit == "fraction"]
    paid = [w for name, w in subject.weights.items() if w > 0 and name in fractions]
    return sum(paid)


def _rivals(subject: Subject) -> Iterator[tuple[str, Episode]]:
    """(name, episode) of other actors on the oracle's tasks.

    One acts at random; another follows the oracle for some steps and then acts at random.
    """
    for episode in subject.random:
        yield "random acting", episode
    until = time.perf_counter() + 3 * subject.seconds
    rng = np.random.default_rng(11)
    number = 0
    while number < 4 * len(subject.oracle) and time.perf_counter() < until:
        started = subject.oracle[number % len(subject.oracle)]
        kept = int(rng.integers(len(started.actions) + 1))
        log = {"seed": started.seed, "split": started.split, "actions": started.actions[:kept]}
        episode = replay(subject.world, log)
        # an episode that no end cut short, of an endless world, is compared over as many turns
        most = 4 * len(started.actions) + 20 if started.ended else len(started.actions)
        while not episode.ended and len(episode.actions) < most:
            take(subject.world, episode, do_random(subject.world, rng))
        yield f"the oracle's first {kept} actions, then random ones,", episode
        number += 1


@check
def floor_gap(subject: Subject) -> str:
    """Random actions and doing nothing earn clearly less than the oracle."""
    oracle = [e.total for e in subject.oracle]
    few = range(min(subject.episodes, 4))
    nothing = [live(subject.world, seed, do_nothing, "heldout").total for seed in few]
    floor = subject.floor
    # Two standard errors: a gap within them may be the luck of a few episodes.
    error = float(np.std(floor)) / max(len(floor), 1) ** 0.5
    best_without_skill = max(statistics.mean(floor) + 2 * error, statistics.mean(nothing))
    gap = statistics.mean(oracle) - best_without_skill
    margin = 0.1 * max(abs(statistics.mean(oracle)), 0.1)
    said = (
        f"oracle {statistics.mean(oracle):.2f}, random {statistics.mean(floor):.2f}, "
        f"nothing {statistics.mean(nothing):.2f}"
    )
    if gap < margin:
        raise Failed(f"{said}: not apart")
    return said


@check
def canary_floor(subject: Subject) -> str:
    """The world's own cheats earn no more than random actions."""
    cheats = [c if isinstance(c, str) else list(c) for c in getattr(subject.world, "cheats", ())]
    if not cheats:
        raise Skipped("the world lists no cheats")
    return _earns_nothing(subject, cheats, "cheat")


@check
def claims_are_not_paid(subject: Subject) -> str:
    """Boasts, and the names of signals, earn no more than random actions."""
    if _takes_no_text(subject):
        raise Skipped("every action is one of a list: an agent can say nothing")
    said = [
        *_BOASTS,
        *(f"{name} = 1" for name in subject.weights),
        f'{{"{min(subject.weights, default="x")}": 1}}',
    ]
    texts = [t for t in subject.tools().values() if t.parameters and t.parameters[-1].type is str]
    for tool in texts:
        words = tool.draw(actor_rng(0)).split(" ")[: len(tool.parameters)]
        said += [" ".join([*words, boast]) for boast in _BOASTS[:4]]
    return _earns_nothing(subject, said, "saying")


def _takes_no_text(subject: Subject) -> bool:
    """Whether an agent can only choose among listed actions, or tools without free text."""
    tools = subject.tools().values()
    if tools:
        parameters = [parameter for tool in tools for parameter in tool.parameters]
        return not any(p.type is str and not p.choices for p in parameters)
    return bool(actions_of(subject.world))


def _earns_nothing(subject: Subject, scripts: Sequence[str | Sequence[str]], kind: str) -> str:
    """Raises Failed if a script earns more than the best random episode, or as much as the oracle.

    A script is one action, or several in order.
    """
    limit = max(max(e.total for e in subject.random), 0.0) + 0.05
    limit = min(limit, statistics.mean(e.total for e in subject.oracle) - 0.05)
    tried = 0
    until = time.perf_counter() + 15 * subject.seconds
    for script in scripts:
        if tried and time.perf_counter() > until:
            break
        for seed in (0, 1):
            choose = scripted([script] if isinstance(script, str) else script)
            got = live(subject.world, seed, choose, "heldout").total
            if got > limit:
                raise Failed(f"{kind} {script!r} earns {got:.2f}"[:200])
        tried += 1
    return f"{tried} tried, none above {limit:.2f}"


@check
def reward_attribution(subject: Subject) -> str:
    """Each part of the oracle's reward comes from a signal with a known value."""
    paying: dict[str, float] = {}
    for episode in subject.oracle:
        for signals in episode.signals:
            for name, signal in signals.items():
                value = signal[0] if isinstance(signal, tuple) else signal
                if value is not None and subject.weights.get(name):
                    paid = subject.weights[name] * value / len(subject.oracle)
                    paying[name] = paying.get(name, 0.0) + paid
    if not any(v > 0 for v in paying.values()):
        raise Failed("nothing that the oracle did was paid for")
    by_reward = sorted(paying.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {paid:+.2f}" for name, paid in by_reward)[:160]


@check
def no_solution_leakage(subject: Subject) -> str:
    """Neither the first observation nor its `info` holds the oracle's answer."""
    looked = 0
    for episode in subject.oracle:
        for answer in long_words(episode):
            looked += 1
            texts = {"first observation": episode.seen[0], "first info": episode.aside}
            for where, text in texts.items():
                if answer in text:
                    raise Failed(f"the {where} holds the answer {answer[:60]!r}")
    spells_out = getattr(subject.world, "spells_out", False)
    single = [e for e in subject.oracle if len(e.actions) == 1 and not spells_out]
    shown = [(_answer(e), e.seen[0]) for e in single]
    looked += _short_answers_stand_by_chance("first observation", shown)
    beside = [(_answer(e), e.aside) for e in subject.oracle if e.aside and e.actions]
    looked += _short_answers_stand_by_chance("first info", beside)
    if not looked:
        raise Skipped(
            "no answer to look for: each is short and the last of several actions, "
            "and `info` holds nothing of the world's own"
        )
    return f"{looked} answers looked for"


def _answer(episode: Episode) -> str:
    """The arguments of the oracle's last action, or the whole action if it is one word."""
    verb, _, rest = episode.actions[-1].partition(" ")
    return rest or verb


def _short_answers_stand_by_chance(where: str, pairs: Sequence[tuple[str, str]]) -> int:
    """The number of short answers that were looked for: 0 with fewer than three different ones.

    `pairs` are (answer, text) of one episode each. A short answer may stand in any text by chance,
    so its own text is compared with the answers of other episodes. Raises Failed if own answers
    stand there far more often.
    """
    pairs = [(answer, text) for answer, text in pairs if 0 < len(answer) < 20]
    answers = {answer for answer, _ in pairs}
    if len(answers) < 3:
        return 0
    own = statistics.mean(_holds(text, answer) for answer, text in pairs)
    others = statistics.mean(
        _holds(text, other) for answer, text in pairs for other in answers - {answer}
    )
    if own - others > 0.5:
        raise Failed(
            f"the {where} holds the answer in {own:.0%} of episodes, e.g. {pairs[0][0]!r}, "
            f"and answers of other episodes in {others:.0%}; "
            "where the task is to do what is spelled out, set `spells_out`"
        )
    return len(pairs)


def _holds(text: str, answer: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text) is not None


@check
def verifier_determinism(subject: Subject) -> str:
    """The same episode has the same return, five times."""
    episode = subject.lived[0]
    # Bitwise: sums in another order, as of a set's elements, differ in their last digits.
    totals = {replay(subject.world, asdict(episode)).total for _ in range(5)} | {episode.total}
    if len(totals) > 1:
        raise Failed(f"returns {sorted(totals)}")
    return f"{episode.total:.3f} each time"


@check
def verifier_portability(subject: Subject) -> str:
    """The reward can be computed from the shard alone."""
    model = subject.rewards
    for episode in (subject.lived[0], subject.random[0]):
        steps = [s for s in through_a_shard(subject, episode) if s.decision]
        rewards = [model.reward(subject.env_id, s.signals, context_of_step(s)) for s in steps]
        known = [np.nan if r is None else r for r in rewards]
        if not np.allclose(known, episode.rewards, equal_nan=True):
            raise Failed(f"{rewards} from the shard, {episode.rewards} from the world")
    return "signals in the shard give the same rewards"
