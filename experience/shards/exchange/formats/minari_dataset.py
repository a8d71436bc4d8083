"""Minari: a dataset a world. A stranger's dataset is read in a process of its own, with limits.

Covers: HDF5 files that claim or unpack to more than fits (memory and time are limited), that crash
the library, or that point to other files; metadata that would have an environment imported and
made.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from experience.episode import Episode
from experience.errors import MissingPartError, ShardError
from experience.policy import Decision
from experience.shards.exchange.rows.episodes import (
    MOST_BYTES,
    NOT_READABLE,
    Exchanged,
    Placed,
    Rows,
    checked,
    library,
    short_name,
    stream_named,
)
from experience.shards.exchange.rows.json_steps import as_plain, from_plain
from experience.shards.exchange.rows.pictures import Pictures
from experience.signal import Signal
from experience.step import Boundary, Ending, Step, discount_after
from experience.text.strict_json import dumps

NAME = "minari"

_NUL = "\u2400"
"""Stands for a NUL, which HDF5 cannot hold in a text."""
_AT_ONCE = 64
_MEMORY_BYTES, _SECONDS = 4 << 30, 600


@dataclass
class _Texts:
    """A world's texts as Minari must know them beforehand: greatest length, and characters."""

    longest: int = 0
    characters: set[str] = field(default_factory=set)

    def add(self, text: str) -> None:
        self.longest = max(self.longest, len(text))
        self.characters |= set(text)

    def space(self) -> Any:
        text = library("gymnasium", "gymnasium").spaces.Text
        return text(
            min_length=0,
            max_length=max(self.longest, 1),
            charset="".join(sorted(self.characters)) or "a",
        )


@dataclass
class _World:
    seen: _Texts = field(default_factory=_Texts)
    done: _Texts = field(default_factory=_Texts)
    signals: set[str] = field(default_factory=set)


def export(rows: Rows, out: Path) -> Exchanged:
    """Writes datasets `xp/<world>-v0` in a folder for MINARI_DATASETS_PATH.

    The store is read twice: to describe the spaces, then to write.
    """
    minari = library("minari", "'minari[hdf5]'")
    out, done = out.resolve(), Exchanged()
    worlds = _describe(rows, done)
    names: dict[str, str] = {}
    for world in worlds:
        names[world] = short_name(world, names.values())
    with _environment(MINARI_DATASETS_PATH=str(out)):
        made = {
            world: minari.create_dataset_from_buffers(
                f"xp/{names[world]}-v0",
                [],
                observation_space=of.seen.space(),
                action_space=of.done.space(),
                algorithm_name="xp",
                author="xp",
                description=f"{world}: episodes with signals in infos",
            )
            for world, of in worlds.items()
        }
    done.files = [f"xp/{name}-v0" for name in names.values()]
    pictures = {
        world: Pictures(rows.store, out / "xp" / f"{name}-v0") for world, name in names.items()
    }
    buffers: dict[str, list[Any]] = {world: [] for world in worlds}
    for episode in rows.whole(Exchanged()):
        world = episode.first.env_id
        buffers[world].append(
            _buffer(
                minari.data_collector.EpisodeBuffer,
                episode,
                sorted(worlds[world].signals),
                pictures[world],
            )
        )
        if len(buffers[world]) == _AT_ONCE:
            made[world].update_dataset_from_buffer(buffers[world])
            buffers[world] = []
    for world, rest in buffers.items():
        if rest:
            made[world].update_dataset_from_buffer(rest)
    return done


def _describe(rows: Rows, done: Exchanged) -> dict[str, _World]:
    worlds: dict[str, _World] = {}
    nuls = 0
    for episode in rows.whole(done):
        world = worlds.setdefault(episode.first.env_id, _World())
        done.rows += len(episode.steps)
        done.episodes += 1
        for row in episode.rows:
            world.seen.add(_without_nul(row.obs_text))
            nuls += "\0" in row.obs_text
            if row.decision:
                world.done.add(_without_nul(row.decision.text))
                nuls += "\0" in row.decision.text
            world.signals |= {g.name for g in row.signals}
    if nuls:
        done.notes.append(
            f"{nuls} texts hold a NUL, which Minari's files cannot: it is written as {_NUL}"
        )
    return worlds


def _without_nul(text: str) -> str:
    return text.replace("\0", _NUL)


def _buffer(make: Any, episode: Episode, names: list[str], pictures: Pictures) -> Any:
    rows, steps = episode.rows, episode.steps
    last = len(steps) - 1
    infos: dict[str, Any] = {
        f"signal_{name}": np.array([np.nan, *(_value(s, name) for s in steps)]) for name in names
    }
    infos["t"] = np.array([r.t for r in rows])
    if any(r.obs_blobs for r in rows):
        infos["images"] = [dumps([pictures.save(b) for b in r.obs_blobs]) for r in rows]
    return make(
        seed=episode.first.seed,
        observations=[_without_nul(r.obs_text) for r in rows],
        actions=[_without_nul(s.decision.text) for s in steps if s.decision],
        rewards=[np.nan if s.reward is None else s.reward for s in steps],
        terminations=[i == last and s.ending == "terminated" for i, s in enumerate(steps)],
        truncations=[i == last and s.ending != "terminated" for i, s in enumerate(steps)],
        infos=infos,
    )


def _value(step: Step, name: str) -> float:
    value = next((g.value for g in step.signals if g.name == name), None)
    return np.nan if value is None else value


def import_from(source: Path) -> Iterator[Placed]:
    """The steps of a dataset; `source` is its folder, which holds `data`.

    Text stays text, other spaces become JSON; infos named signal_… are signals. The steps are
    demonstrations, as nobody knows the policy's probabilities.
    """
    library("minari", "'minari[hdf5]'")
    command = [
        sys.executable,
        "-c",
        f"from {__name__} import read_apart; read_apart()",
        str(source.resolve()),
    ]
    root = Path(__file__).resolve().parents[4]
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    environment = kept | {"OPENBLAS_NUM_THREADS": "1"}  # each thread of it counts as memory
    with (
        tempfile.TemporaryFile() as talk,
        subprocess.Popen(
            command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=talk
        ) as reader,
    ):
        assert reader.stdout is not None
        try:
            number = 0
            while line := reader.stdout.readline(MOST_BYTES + 1):
                where, number = f"{source}: row {number}", number + 1
                if len(line) > MOST_BYTES:
                    raise ShardError(
                        f"{where}: longer than {MOST_BYTES >> 20} MiB", "nothing was imported"
                    )
                yield where, checked(where, lambda line=line: from_plain(json.loads(line)))  # type: ignore[misc]
            code = reader.wait()
        finally:
            reader.kill()
        if code != 0:
            talk.seek(0)
            said = talk.read(1 << 20).decode(errors="replace").strip().splitlines() or [
                f"the reader ended with {code}"
            ]
            raise ShardError(
                f"{source} cannot be read: {said[-1][:500]}",
                f"nothing was imported; a reader has {_MEMORY_BYTES >> 30} GiB and {_SECONDS} s",
            )


def _read(source: Path) -> Iterator[Step]:
    """In the process of its own."""
    minari = library("minari", "'minari[hdf5]'")
    data = source / "data" if (source / "data").is_dir() else source
    _check_metadata(data / "metadata.json")
    for path in data.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.name} is neither a file nor a folder")
        if path.suffix == ".hdf5":
            _check_links(path)
    storage = minari.dataset.minari_storage.MinariStorage.read(data)
    world = str(storage.metadata["dataset_id"])
    for number in range(storage.total_episodes):
        (episode,) = storage.get_episodes([number])
        yield from _episode(episode, stream_named(f"{world}/{number}"), world)


def _check_metadata(path: Path) -> None:
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} is no file of less than {MOST_BYTES >> 20} MiB")
    metadata = json.loads(path.read_text())
    for name in ("observation_space", "action_space", "dataset_id", "data_format"):
        if not isinstance(
            metadata.get(name), str
        ):  # without its spaces, Minari makes the environment that it names
            raise ValueError(f"its metadata holds no {name}")


def _check_links(path: Path) -> None:
    """Raises ValueError if the file leads to others, which it must not have read."""
    h5py = library("h5py", "'minari[hdf5]'")
    wrong: list[str] = []  # h5py does not take errors out of its visits

    def look(name: str, link: Any) -> None:
        if not isinstance(link, h5py.HardLink):
            wrong.append(f"{path.name}: {name} is a link to elsewhere")

    def look_inside(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
            wrong.append(f"{path.name}: {name} lies in another file")

    with h5py.File(path, "r") as file:
        file.visititems_links(look)
        file.visititems(look_inside)
    if wrong:
        raise ValueError(wrong[0])


def _episode(said: dict[str, Any], stream: bytes, world: str) -> Iterator[Step]:
    count = len(said["rewards"])
    signals = {
        name.removeprefix("signal_"): values
        for name, values in sorted(_flat(said["infos"] or {}).items())
        if name.startswith("signal_")
    }
    for t in range(count + 1):
        ending: Ending = (
            "none" if t < count - 1 else "terminated" if said["terminations"][-1] else "truncated"
        )
        seen = Step(
            stream,
            t,
            world,
            _as_text(said["observations"], t),
            "demonstration",
            step_in_episode=t,
            ending=ending,
            boundary=Boundary.RESET if t == 0 else Boundary.NONE,
        )
        if t == count:
            yield replace(
                seen, boundary=Boundary.TERMINATED if ending == "terminated" else Boundary.TRUNCATED
            )
            continue
        reward = float(said["rewards"][t])
        measured = tuple(
            Signal(name, float(values[t + 1]), "1", "env_state")
            for name, values in signals.items()
            if not np.isnan(values[t + 1])
        )
        yield replace(
            seen,
            decision=Decision(_as_text(said["actions"], t), 0, behaviour_id="minari"),
            signals=measured,
            reward=None if np.isnan(reward) else reward,
            reward_version="minari",
            discount=discount_after(ending, 1.0),
        )


def _flat(infos: dict[str, Any], above: str = "") -> dict[str, Any]:
    """A name with `/` became a group in a group."""
    found: dict[str, Any] = {}
    for name, value in infos.items():
        found |= (
            _flat(value, f"{above}{name}/") if isinstance(value, dict) else {above + name: value}
        )
    return found


def _as_text(values: Any, t: int) -> str:
    """Row t of Minari's observations or actions: arrays, lists, or dicts and tuples of them."""

    def pick(v: Any) -> Any:
        if isinstance(v, dict):
            return {name: pick(inner) for name, inner in v.items()}
        if isinstance(v, tuple):
            return [pick(inner) for inner in v]
        return v[t].tolist() if hasattr(v[t], "tolist") else v[t]

    row = pick(values)
    return row if isinstance(row, str) else dumps(row)


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


def read_apart() -> None:
    """Prints a stranger's steps, a JSON line each, within limits of memory and time."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # what it says of an error
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        for step in _read(Path(sys.argv[1])):
            print(dumps(as_plain(step)))
    except BrokenPipeError:
        os._exit(1)
    except (*NOT_READABLE, OSError, MemoryError, AssertionError, MissingPartError) as error:
        sys.stdout.flush()
        sys.exit(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
