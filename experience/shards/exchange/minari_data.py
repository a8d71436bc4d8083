"""Minari: a dataset a world."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experience.policy import Decision
from experience.shards.exchange.episodes import Exchanged, by_world, library, short_name, stream_named
from experience.shards.replay import Episode
from experience.signal import Signal
from experience.step import Boundary, Ending, Step, discount_after


def to_minari(store: Path, out: Path) -> Exchanged:
    """Datasets `xp/<world>-v0` in a folder for MINARI_DATASETS_PATH."""
    minari, text = library("minari", "'minari[hdf5]'"), library("gymnasium", "gymnasium").spaces.Text
    done = Exchanged()
    with _environment(MINARI_DATASETS_PATH=str(out)):
        for world, lived in by_world(store, done).items():
            names = sorted({g.name for e in lived for s in e.steps for g in s.signals})
            buffers = [_buffer(minari.data_collector.EpisodeBuffer, number, e, names) for number, e in enumerate(lived)]
            said = {"observation_space": [o for b in buffers for o in b.observations],
                    "action_space": [a for b in buffers for a in b.actions]}
            spaces = {name: text(min_length=0, max_length=max(map(len, words)), charset="".join(sorted(set().union(
                *words)) or "a")) for name, words in said.items()}
            name = f"xp/{short_name(world)}-v0"
            minari.create_dataset_from_buffers(name, buffers, **spaces, algorithm_name="xp", author="xp",
                                               description=f"{world}: episodes with signals in infos")
            done.files.append(name)
    return done


def _buffer(make: Any, number: int, episode: Episode, names: list[str]) -> Any:
    rows = [*episode.steps, episode.closing]
    values = {name: np.array([np.nan, *(_value(s, name) for s in episode.steps)]) for name in names}
    count = len(episode.steps)
    return make(id=number, seed=episode.first.seed, observations=[r.obs_text for r in rows if r],
                actions=[s.decision.text for s in episode.steps if s.decision],
                rewards=[np.nan if s.reward is None else s.reward for s in episode.steps],
                terminations=[i == count - 1 and s.ending == "terminated" for i, s in enumerate(episode.steps)],
                truncations=[i == count - 1 and s.ending != "terminated" for i, s in enumerate(episode.steps)],
                infos={f"signal_{name}": v for name, v in values.items()} | {
                    "t": np.array([r.t for r in rows if r])})


def _value(step: Step, name: str) -> float:
    value = next((g.value for g in step.signals if g.name == name), None)
    return np.nan if value is None else value


def from_minari(source: Path) -> Iterator[Step]:
    """`source`: a dataset's folder (the one that holds `data`). Text stays text, other spaces become JSON; infos named
    signal_… are signals. Source: demonstration, as nobody knows the policy's probabilities."""
    minari = library("minari", "'minari[hdf5]'")
    dataset = minari.MinariDataset(source / "data" if (source / "data").is_dir() else source)
    world = str(dataset.spec.dataset_id)
    for number, episode in enumerate(dataset.iterate_episodes()):
        stream, count = stream_named(f"{world}/{number}"), len(episode.rewards)
        for t in range(count + 1):
            ending: Ending = "none" if t < count - 1 else "terminated" if episode.terminations[-1] else "truncated"
            seen = Step(stream, t, world, _as_text(episode.observations, t), "demonstration", step_in_episode=t,
                        ending=ending, boundary=Boundary.RESET if t == 0 else Boundary.NONE)
            if t == count:
                yield replace(seen, boundary=Boundary.TERMINATED if ending == "terminated" else Boundary.TRUNCATED)
                continue
            reward = float(episode.rewards[t])
            signals = tuple(Signal(name.removeprefix("signal_"), float(values[t + 1]), "1", "env_state")
                            for name, values in sorted((episode.infos or {}).items())
                            if name.startswith("signal_") and not np.isnan(values[t + 1]))
            yield replace(seen, decision=Decision(_as_text(episode.actions, t), 0, behaviour_id="minari"),
                          signals=signals, reward=None if np.isnan(reward) else reward, reward_version="minari",
                          discount=discount_after(ending, 1.0))


def _as_text(values: Any, t: int) -> str:
    """Row t of what Minari calls observations or actions: arrays, lists, or dicts and tuples of them."""
    def pick(v: Any) -> Any:
        if isinstance(v, dict):
            return {name: pick(inner) for name, inner in v.items()}
        if isinstance(v, tuple):
            return [pick(inner) for inner in v]
        return v[t].tolist() if hasattr(v[t], "tolist") else v[t]

    row = pick(values)
    return row if isinstance(row, str) else json.dumps(row)


@contextlib.contextmanager
def _environment(**changes: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
