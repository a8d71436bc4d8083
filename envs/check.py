"""`./xp env check ID`: what a world must keep before anybody learns from it, each claim tried on the world itself.

The ids are those of OpenEnv's RFC 008, so that results compare. A check passes, fails, or is skipped with the reason;
none can pass without having looked. Long episodes are lived by the oracle, at random, by doing nothing and by the
world's own cheats; a second process repeats them.
Does not cover: whether a reward means what its author wants; worlds whose oracle is wrong.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np

from envs.contract import INVALID
from envs.episode import (
    Episode,
    begin,
    difference,
    do_nothing,
    do_oracle,
    do_random,
    live,
    measure,
    replay,
    scripted,
    take,
)
from experience.errors import MissingPartError, RecordError, XpError
from experience.reward import RewardModel
from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.signal import Signal, SignalKind, read_signals
from experience.step import Ending, Step

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """What a check found wrong."""


class Skipped(Exception):
    """Why a check could not be tried."""


@dataclass(frozen=True)
class Result:
    """One line of the table. `detail` says what was seen, or what is wrong."""

    id: str
    outcome: Literal["PASS", "FAIL", "SKIP"]
    detail: str
    seconds: float


class Checker:
    """The checks of one environment id. Each method named `check_…` is one; its docstring says what is claimed."""

    def __init__(self, env_id: str, arguments: Mapping[str, Any] | None = None, episodes: int = 12) -> None:
        self.env_id, self.arguments, self.episodes = env_id, dict(arguments or {}), episodes
        started = time.perf_counter()
        self.world = self.make()
        self.split = getattr(self.world, "splits", ("train",))[0]
        self.started_seconds = time.perf_counter() - started
        self._oracle: list[Episode] = []
        self._random: list[Episode] = []

    def make(self) -> Any:
        return gymnasium.make(self.env_id, **self.arguments).unwrapped

    def close(self) -> None:
        self.world.close()

    @property
    def oracle(self) -> list[Episode]:
        """Episodes of the oracle over held-out tasks, lived once."""
        if not self._oracle:
            self._need("oracle_action")
            self._oracle = [live(self.world, seed, do_oracle, "heldout") for seed in range(self.episodes)]
        return self._oracle

    @property
    def lived(self) -> list[Episode]:
        """The oracle's episodes, or those at random where a world has no oracle."""
        try:
            return self.oracle
        except (Skipped, NotImplementedError):
            return self.random

    @property
    def random(self) -> list[Episode]:
        if not self._random:
            self._need("random_action")
            self._random = [live(self.world, seed, do_random, "heldout") for seed in range(self.episodes)]
        return self._random

    def _need(self, name: str) -> None:
        if not hasattr(self.world, name):
            raise Skipped(f"the world offers no {name}")

    def run(self, only: Sequence[str] = ()) -> Iterator[Result]:
        for name in checks():
            if only and name not in only:
                continue
            started = time.perf_counter()
            outcome: Literal["PASS", "FAIL", "SKIP"] = "PASS"
            try:
                detail = getattr(self, f"check_{name}")()
            except Failed as wrong:
                outcome, detail = "FAIL", str(wrong)
            except Skipped as why:
                outcome, detail = "SKIP", str(why)
            except MissingPartError:
                raise
            except NotImplementedError as why:
                outcome, detail = "SKIP", str(why)
            except Exception as error:  # noqa: BLE001  a stranger's world may raise anything: that is a finding
                outcome, detail = "FAIL", f"{type(error).__name__}: {error}".splitlines()[0][:200]
            yield Result(name, outcome, detail, time.perf_counter() - started)

    # Does it run as an environment should?

    def check_startup(self) -> str:
        """It can be made and reset, and says how long that took."""
        started = time.perf_counter()
        begin(self.world, 0, self.split)
        return f"made in {self.started_seconds:.2f} s, first reset in {time.perf_counter() - started:.2f} s"

    def check_gymnasium_checker(self) -> str:
        """Gymnasium's own checker is content."""
        from gymnasium.utils.env_checker import check_env

        check_env(self.world, skip_render_check=True, skip_close_check=True)
        return "check_env found nothing"

    def check_observation_schema(self) -> str:
        """Every observation lies in the observation space."""
        seen = [text for e in [*self.lived[:3], *self.random[:3]] for text in e.seen]
        outside = [text for text in seen if not self.world.observation_space.contains(text)]
        if outside:
            raise Failed(f"outside observation_space: {outside[0][:80]!r}")
        return f"{len(seen)} observations, up to {max(map(len, seen))} characters"

    def check_tool_declaration_accuracy(self) -> str:
        """What is declared can be done, what is not is refused without an effect, and the agent is told how to act."""
        if not getattr(self.world, "instructions", ""):
            raise Failed("`instructions` is empty: a language model is not told what to type")
        tools = getattr(self.world, "tools", {})
        rng = np.random.default_rng(0)
        for tool in tools.values():
            for _ in range(5):
                tool.read(tool.draw(rng).partition(" ")[2])
            json.dumps(tool.schema())
        _, before = self.world.reset(seed=3)
        for nonsense in ("", "(nothing)", "\x00", "no-such-action 1 2 3", '{"name": 3}'):
            _, before = self.world.reset(seed=3)
            _, _, _, _, after = self.world.step(nonsense)
            if INVALID in getattr(self.world, "signal_catalogue", {}) and (
                    INVALID not in after["signals"] or after.get("state") != before.get("state")):
                raise Failed(f"action {nonsense!r} was not refused, or changed the state")
            self._read(after.get("signals", {}))
        return f"{len(tools)} tools: {', '.join(tools)}" if tools else "text actions; nonsense is refused"

    def check_reward_well_formed(self) -> str:
        """Every signal is declared and finite or None, and the reward is their weighted sum."""
        weights = getattr(self.world, "reward_weights", {"env_reward": 1.0})
        rewards = RewardModel({self.env_id: weights})
        steps = 0
        for episode in [*self.lived[:4], *self.random[:4]]:
            for signals, reward in zip(episode.signals, episode.rewards, strict=True):
                measured = self._read(signals)
                expected = rewards.reward(self.env_id, measured)
                if not (np.isnan(reward) if expected is None else np.isclose(reward, expected)):
                    raise Failed(f"reward {reward} is not the weighted sum {expected} of {signals}")
                steps += 1
        return f"{steps} steps; weights {json.dumps(dict(weights))}"[:160]

    def _read(self, signals: Mapping[str, Any]) -> tuple[Signal, ...]:
        """Raises Failed for a signal that the world has not declared, or that is no number."""
        catalogue = getattr(self.world, "signal_catalogue", {"env_reward": SignalKind("1", "env_state")})
        try:
            return read_signals({"signals": signals}, catalogue)
        except RecordError as wrong:
            raise Failed(str(wrong).splitlines()[0]) from wrong

    # Does the same thing happen again?

    def check_seed_control(self) -> str:
        """A seed names a task and its start; other seeds give others."""
        firsts = {seed: begin(self.world, seed, self.split) for seed in range(8)}
        again = {seed: begin(self.world, seed, self.split) for seed in range(8)}
        for seed, first in firsts.items():
            if (first.seen, first.task) != (again[seed].seen, again[seed].task):
                raise Failed(f"seed {seed} gave two different starts")
        tasks = len({e.task for e in firsts.values()})
        if tasks < 2:
            raise Failed("eight seeds gave one task")
        return f"8 seeds, {tasks} tasks"

    def check_episode_determinism(self) -> str:
        """Seed and actions give the same observations, rewards and signals in another process."""
        return self._elsewhere([*self.lived[:2], *self.random[:2]], [])

    def check_network_policy(self) -> str:
        """The same episodes happen where there is no network card."""
        bare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]  # loopback stays
        try:
            subprocess.run([*bare, "true"], check=True, capture_output=True, timeout=20)
        except (OSError, subprocess.SubprocessError) as error:
            raise Skipped(f"a network namespace cannot be made here: {error}") from error
        return self._elsewhere(self.lived[:2], bare) + ", without a network card"

    def _elsewhere(self, episodes: Sequence[Episode], prefix: Sequence[str]) -> str:
        request = json.dumps({"id": self.env_id, "arguments": self.arguments, "path": sys.path,
                              "episodes": [asdict(e) for e in episodes]})
        with tempfile.TemporaryDirectory(prefix="xp-check-") as scratch:
            done = subprocess.run([*prefix, sys.executable, "-m", "envs.check", *prefix[:1]], input=request, cwd=ROOT,
                                  text=True, capture_output=True, timeout=300, env=os.environ | {"TMPDIR": scratch})
        if done.returncode:
            raise Failed(f"the second process ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        theirs = json.loads(done.stdout.splitlines()[-1])
        for episode, again in zip(episodes, theirs, strict=True):
            if what := difference(episode.told, again):
                raise Failed(f"seed {episode.seed} and the same {len(episode.actions)} actions: {what}")
        return f"{len(episodes)} episodes, {sum(len(e.actions) for e in episodes)} steps, the same in a second process"

    def check_episode_isolation(self) -> str:
        """Two episodes that take turns equal the same two alone."""
        alone, other = self.random[0], self.random[1]
        second = self.make()
        try:
            first_log, second_log = (begin(w, e.seed, e.split) for w, e in ((self.world, alone), (second, other)))
            for i in range(max(len(alone.actions), len(other.actions))):
                if i < len(alone.actions):
                    take(self.world, first_log, alone.actions[i])
                if i < len(other.actions):
                    take(second, second_log, other.actions[i])
        finally:
            second.close()
        if what := difference(alone.told, first_log.told) or difference(other.told, second_log.told):
            raise Failed(f"an episode saw something of the other: {what}")
        return f"{len(alone.actions)} and {len(other.actions)} steps, in turns"

    def check_replayability(self) -> str:
        """From its shard alone an episode happens again, with the same rewards bit for bit."""
        episode = self.lived[0]
        steps = self._through_a_shard(episode)
        again = replay(self.world, {"seed": steps[0].seed, "split": steps[0].split,
                                    "actions": [s.decision.text for s in steps if s.decision]})
        if again.rewards != episode.rewards and not np.array_equal(again.rewards, episode.rewards, equal_nan=True):
            raise Failed(f"rewards {again.rewards} after replay, {episode.rewards} before")
        return f"{len(again.actions)} steps from the shard's actions"

    def check_snapshot_restore(self) -> str:
        """Snapshot, 20 steps, restore, the same 20 steps: the same observations and signals."""
        if not getattr(self.world, "goes_back", False):
            raise Skipped("the world offers no snapshots")
        rng, steps = np.random.default_rng(5), 0
        for seed in range(6):
            before = begin(self.world, seed, self.split)
            take(self.world, before, do_nothing(self.world, rng))
            if before.ended:
                continue
            saved = self.world.snapshot()
            first = self._go_on(seed, [do_random(self.world, rng) for _ in range(20)])
            observation, _ = self.world.restore(saved)
            if observation != before.seen[-1]:
                raise Failed("what is seen after restore is not what was seen before")
            second = self._go_on(seed, first.actions)
            if what := difference(first.told, second.told):
                raise Failed(f"seed {seed} and the same {len(first.actions)} actions: {what}")
            steps += len(first.actions)
        if not steps:
            raise Failed("no episode lasted beyond its first step")
        return f"{steps} steps twice"

    def _go_on(self, seed: int, actions: Sequence[str]) -> Episode:
        episode = Episode(seed, self.split)
        for action in actions:
            if not episode.ended:
                take(self.world, episode, action)
        return episode

    # Is the machine safe from it?

    def check_host_containment(self) -> str:
        """Episodes leave nothing outside their scratch directory."""
        watched = [ROOT, Path.home(), Path("/tmp"), Path("/etc"), Path("/")]
        before = {p: _listing(p) for p in watched}
        self._elsewhere([*self.random[:2], *self.lived[:1]], [])
        for place in watched:
            new = _listing(place) - before[place]
            new = {n for n in new if not n.startswith((".", "xp-", "runs", "__pycache__", "pytest", "tmp"))}
            if new and place != Path("/tmp"):
                raise Failed(f"{place}: {sorted(new)[:3]} came or changed")
        return f"{len(watched)} directories unchanged"

    def check_resource_bounds(self) -> str:
        """Thirty resets leave no descriptors, children or memory behind."""
        import psutil

        me = psutil.Process()
        for seed in range(3):
            begin(self.world, seed, self.split)
        before = me.memory_info().rss, me.num_fds(), len(me.children(recursive=True))
        for seed in range(30):
            begin(self.world, seed, self.split)
        grown = (me.memory_info().rss - before[0]) / 2**20
        more = me.num_fds() - before[1], len(me.children(recursive=True)) - before[2]
        zombies = sum(c.status() == psutil.STATUS_ZOMBIE for c in me.children(recursive=True))
        if grown > 200 or more[0] > 16 or more[1] > 4 or zombies:
            raise Failed(f"{grown:.0f} MiB, {more[0]} descriptors, {more[1]} children more, {zombies} zombies")
        return f"{grown:+.0f} MiB, {more[0]:+d} descriptors, {more[1]:+d} children"

    def check_oracle_containment(self) -> str:
        """What the oracle knows is in no environment variable of this process."""
        answers = self._answers()
        held = [a for a in answers for v in os.environ.values() if a in v]
        if held:
            raise Failed(f"an environment variable holds {held[0][:60]!r}")
        return f"{len(answers)} answers looked for"

    # Does the reward mean something?

    def check_oracle_max(self) -> str:
        """Who knows the hidden state reaches the top."""
        mean = statistics.mean(e.total for e in self.oracle)
        target = getattr(self.world, "oracle_target", 0.95)
        if mean < target:
            raise Failed(f"the oracle returns {mean:.3f} on average; it should reach {target}")
        return f"{mean:.3f} over {len(self.oracle)} held-out tasks (target {target})"

    def check_floor_gap(self) -> str:
        """Acting at random, and doing nothing, earn clearly less than the oracle."""
        oracle = [e.total for e in self.oracle]
        nothing = [live(self.world, seed, do_nothing, "heldout").total for seed in range(min(self.episodes, 4))]
        floor = [e.total for e in self.random]
        error = float(np.std(floor)) / max(len(floor), 1) ** 0.5
        gap = statistics.mean(oracle) - max(statistics.mean(floor) + 2 * error, statistics.mean(nothing))
        margin = 0.1 * max(abs(statistics.mean(oracle)), 0.1)
        said = (f"oracle {statistics.mean(oracle):.2f}, random {statistics.mean(floor):.2f}, "
                f"nothing {statistics.mean(nothing):.2f}")
        if gap < margin:
            raise Failed(f"{said}: not apart")
        return said

    def check_canary_floor(self) -> str:
        """The world's own cheats earn no more than acting at random."""
        cheats = [c if isinstance(c, str) else list(c) for c in getattr(self.world, "cheats", ())]
        if not cheats:
            raise Skipped("the world lists no cheats")
        limit = max(max(e.total for e in self.random), 0.0) + 0.05
        limit = min(limit, statistics.mean(e.total for e in self.oracle) - 0.05)
        for cheat in cheats:
            for seed in (0, 1):
                got = live(self.world, seed, scripted([cheat] if isinstance(cheat, str) else cheat), "heldout").total
                if got > limit:
                    raise Failed(f"cheat {cheat!r} earns {got:.2f}"[:200])
        return f"{len(cheats)} cheats, none above {limit:.2f}"

    def check_reward_attribution(self) -> str:
        """What paid is a signal with its evidence or value."""
        paying: dict[str, float] = {}
        weights = getattr(self.world, "reward_weights", {"env_reward": 1.0})
        for episode in self.oracle:
            for signals in episode.signals:
                for name, told in signals.items():
                    value = told[0] if isinstance(told, tuple) else told
                    if value is not None and weights.get(name):
                        paying[name] = paying.get(name, 0.0) + weights[name] * value / len(self.oracle)
        if not any(v > 0 for v in paying.values()):
            raise Failed("nothing that the oracle did was paid for")
        return ", ".join(f"{n} {v:+.2f}" for n, v in sorted(paying.items(), key=lambda item: -item[1]))[:160]

    def check_no_solution_leakage(self) -> str:
        """The first observation does not spell the oracle's answer."""
        for episode in self.oracle:
            for answer in _long_words(episode.actions):
                if answer in episode.seen[0]:
                    raise Failed(f"the first observation holds the answer {answer[:60]!r}")
        return f"{len(self._answers())} answers looked for"

    def _answers(self) -> list[str]:
        return [word for e in self.oracle for word in _long_words(e.actions)]

    def check_verifier_determinism(self) -> str:
        """The same episode is worth the same, five times."""
        episode = self.lived[0]
        totals = {replay(self.world, asdict(episode)).total for _ in range(5)} | {episode.total}
        if len(totals) > 1:
            raise Failed(f"returns {sorted(totals)}")
        return f"{episode.total:.3f} each time"

    def check_verifier_portability(self) -> str:
        """The reward can be computed from the shard alone."""
        weights = getattr(self.world, "reward_weights", {"env_reward": 1.0})
        model = RewardModel({self.env_id: weights})
        for episode in (self.lived[0], self.random[0]):
            steps = [s for s in self._through_a_shard(episode) if s.decision]
            recomputed = [model.reward(self.env_id, s.signals) for s in steps]
            if not np.allclose([np.nan if r is None else r for r in recomputed], episode.rewards, equal_nan=True):
                raise Failed(f"{recomputed} from the shard, {episode.rewards} from the world")
        return "signals in the shard give the same rewards"

    def _through_a_shard(self, episode: Episode) -> list[Step]:
        """The episode's steps, written to a shard and read from it."""
        from experience.policy import Decision

        catalogue = getattr(self.world, "signal_catalogue", {"env_reward": SignalKind("1", "env_state")})
        with tempfile.TemporaryDirectory(prefix="xp-check-") as scratch:
            journal = Journal(Path(scratch) / "checker", catalogue)
            last = len(episode.actions) - 1
            for t, action in enumerate(episode.actions):
                ending: Ending = "none" if t < last or not episode.ended else (
                    "terminated" if episode.terminated else "truncated")
                journal.append(Step(b"c" * 16, t, self.env_id, episode.seen[t], seed=episode.seed, split=episode.split,
                                    task_id=episode.task, decision=Decision(action, 0), ending=ending,
                                    signals=read_signals({"signals": episode.signals[t]}, catalogue)))
            journal.close()
            return [s for block in Catalog(Path(scratch)).follow() for s in block]

    # Can it be learned from?

    def check_split_disjointness(self) -> str:
        """No task is in both splits, by its name or its first observation."""
        if getattr(self.world, "splits", ("train", "heldout")) == ("heldout",):
            raise Skipped("held-out tasks only: for evaluation")
        tasks: dict[str, set[str]] = {"train": set(), "heldout": set()}
        seeds = 200 if hasattr(self.world, "tasks") else 20
        for split, found in tasks.items():
            until = time.perf_counter() + 10
            for seed in range(seeds):
                if time.perf_counter() > until:
                    break
                if hasattr(self.world, "tasks"):
                    found.add(str(self.world.signature(self.world.tasks(split, np.random.default_rng(seed)))))
                else:
                    found.add(begin(self.world, seed, split).task)
        if shared := tasks["train"] & tasks["heldout"]:
            raise Failed(f"{len(shared)} tasks are in both, e.g. {min(shared)[:60]!r}")
        return f"{len(tasks['train'])} training tasks, {len(tasks['heldout'])} held out, none in both"

    def check_resource_envelope(self) -> str:
        """What a step and a reset cost."""
        return "; ".join(f"{name} {value:.3g}" for name, value in measure(self.world).items())


def checks() -> list[str]:
    return [name.removeprefix("check_") for name in vars(Checker) if name.startswith("check_")]


def _listing(directory: Path) -> set[str]:
    found = set()
    for entry in os.scandir(directory):
        with suppress(OSError):
            about = entry.stat(follow_symlinks=False)
            found.add(f"{entry.name} {about.st_size if entry.is_file(follow_symlinks=False) else ''}")
    return found


def _long_words(actions: Sequence[str]) -> list[str]:
    """What an oracle says beyond a verb: arguments that are too long to be there by chance."""
    return [words for a in actions if len(words := a.partition(" ")[2]) >= 20]


MUTANTS: dict[str, Callable[[dict[str, float]], dict[str, float]]] = {
    "pays nothing": lambda w: dict.fromkeys(w, 0.0),
    "pays the opposite": lambda w: {k: -v for k, v in w.items()},
    "pays for nonsense": lambda w: w | {INVALID: 5.0},
    "pays a tenth": lambda w: {k: v / 10 for k, v in w.items()},
    "forgets what pays most": lambda w: w | {max(w, key=lambda k: w[k]): 0.0},
}
_SEMANTIC = ("reward_well_formed", "oracle_max", "floor_gap", "canary_floor", "reward_attribution")


def mutants(env_id: str, arguments: Mapping[str, Any] | None = None) -> Iterator[Result]:
    """Breaks the reward in some ways; a check must notice each."""
    for name, change in MUTANTS.items():
        started = time.perf_counter()
        checker = Checker(env_id, arguments, episodes=6)
        healthy = {r.id for r in checker.run(_SEMANTIC) if r.outcome == "PASS"}
        checker._oracle, checker._random = [], []
        weights = getattr(checker.world, "reward_weights", None)
        if not weights:
            yield Result(f"mutant: {name}", "SKIP", "the world has no reward weights to break", 0.0)
            continue
        checker.world.reward_weights = change(dict(weights))
        noticed = [r.id for r in checker.run(_SEMANTIC) if r.outcome == "FAIL" and r.id in healthy]
        checker.close()
        yield Result(f"mutant: {name}", "PASS" if noticed else "FAIL",
                     f"noticed by {', '.join(noticed)}" if noticed else "no check noticed",
                     time.perf_counter() - started)


def check(env_id: str, arguments: Mapping[str, Any] | None = None, *, episodes: int = 12, only: Sequence[str] = (),
          with_mutants: bool = False) -> Iterator[Result]:
    """All results for one id, in order. Raises XpError for an unknown id or check."""
    unknown = set(only) - set(checks())
    if unknown:
        raise XpError(f"no check {sorted(unknown)[0]!r}", "there are: " + ", ".join(checks()))
    try:
        checker = Checker(env_id, arguments, episodes)
    except gymnasium.error.Error as error:
        raise XpError(f"{env_id} cannot be made: {error}", "see ./xp env list") from error
    try:
        yield from checker.run(only)
    finally:
        checker.close()
    if with_mutants:
        yield from mutants(env_id, arguments)


def _second_process() -> None:
    """Lives the episodes on stdin again; prints what they told."""
    if len(sys.argv) > 1:
        _raise_loopback()
    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    world = gymnasium.make(request["id"], **request["arguments"]).unwrapped
    told = [replay(world, log).told for log in request["episodes"]]
    world.close()
    print(json.dumps(told))


def _raise_loopback() -> None:
    """In a new network namespace: a world's own server may be on this machine, as long as no network is."""
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 1)  # IFF_UP
        fcntl.ioctl(control, 0x8914, asked)  # SIOCSIFFLAGS


if __name__ == "__main__":
    _second_process()
