"""Exchange: experience to and from the formats of others.

    format    one file or folder holds                                   comes back
    jsonl     a step a line, everything                                  exactly
    atif      a trajectory an episode (Harbor's ATIF 1.7), everything    exactly
    parquet   a row a step: whole prompts, a column a signal             -
    hf        the same, as a Hugging Face datasets folder a split        -
    minari    a dataset a world: text, rewards, signals as infos         text, rewards and signals
    lerobot   a LeRobot v3 dataset a world: text and rewards             -
A failed episode, or one that a crash cut off, has no last observation: where a format must have one (minari, lerobot,
atif) it is left out and counted. Pictures stay behind as their hashes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from experience.errors import MissingPartError, RecordError, ShardError
from experience.policy import Decision, VersionSpan
from experience.shards.catalog import Catalog
from experience.shards.journal import Journal
from experience.shards.replay import Episode
from experience.shards.schema import FIELDS, PromptDeltas, schema, signal_names, to_batch
from experience.signal import Signal, SignalKind
from experience.step import Blob, Boundary, Ending, Step, discount_after

ATIF_VERSION = "ATIF-v1.7"
_LEAST_BLOCK = 1_000
Read = TypeVar("Read")


@dataclass
class Exchanged:
    """What went out or came in."""

    rows: int = 0
    episodes: int = 0
    left_out: int = 0
    files: list[str] = field(default_factory=list)


def as_plain(step: Step) -> dict[str, Any]:
    """A step as JSON: ids and bytes in hexadecimal, arrays as lists. `from_plain` gives back exactly the step."""
    plain: Any = _plain(step)
    return dict(plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return int(value) if isinstance(value, Boundary) else value


def from_plain(plain: Mapping[str, Any]) -> Step:
    """Raises RecordError, KeyError, TypeError or ValueError if it is not a step."""
    said = dict(plain)
    if said.get("decision") is not None:
        d = dict(said["decision"])
        d["version_spans"] = tuple(VersionSpan(**v) for v in d["version_spans"])
        said["decision"] = Decision(**d | {
            "prompt_ids": np.array(d["prompt_ids"], np.int32), "action_ids": np.array(d["action_ids"], np.int32),
            "logprobs": np.array(d["logprobs"], np.float32)})
    for name in ("stream_id", "work_id", "action_struct"):
        if name in said:
            said[name] = bytes.fromhex(said[name])
    if said.get("parent") is not None:
        said["parent"] = (bytes.fromhex(said["parent"][0]), said["parent"][1])
    said["signals"] = tuple(Signal(**s) for s in said.get("signals", ()))
    said["obs_blobs"] = tuple(Blob(**b | {"hash": bytes.fromhex(b["hash"])}) for b in said.get("obs_blobs", ()))
    said["boundary"] = Boundary(said.get("boundary", 0))
    return Step(**said)


def episodes(store: Path) -> Iterator[Episode]:
    """Every stream's episodes, in the order in which they ended; one that a crash cut off has no closing row."""
    open_: dict[bytes, list[Step]] = defaultdict(list)
    for step in (s for steps in Catalog(store).follow() for s in steps):
        rows = open_[step.stream_id]
        if rows and step.boundary & (Boundary.RESET | Boundary.WORKER_RESTART):
            yield Episode(tuple(rows), None)
            rows.clear()
        if step.is_closing:
            yield Episode(tuple(rows), step)
            rows.clear()
        else:
            rows.append(step)
    yield from (Episode(tuple(rows), None) for rows in open_.values() if rows)


def export(store: Path, to: str, out: Path) -> Exchanged:
    """Writes the store's committed rows in format `to` below `out`, a new folder. Raises ShardError if `out` exists,
    MissingPartError if the format needs a library that is not installed."""
    write = _EXPORTS.get(to)
    if write is None:
        raise ShardError(f"no format {to!r}", f"there are: {', '.join(_EXPORTS)}")
    if out.exists():
        raise ShardError(f"{out} exists already", "name a new folder")
    out.mkdir(parents=True)
    try:
        return write(store, out)
    except BaseException:
        shutil.rmtree(out)
        raise


def _to_jsonl(store: Path, out: Path) -> Exchanged:
    done = Exchanged(files=["steps.jsonl"])
    with open(out / "steps.jsonl", "w") as file:
        for step in (s for steps in Catalog(store).follow() for s in steps):
            file.write(json.dumps(as_plain(step)) + "\n")
            done.rows += 1
    return done


class _WholePrompts(PromptDeltas):
    """Prompts are stored whole, each row on its own."""

    def shrink(self, stream: bytes, prompt: np.ndarray, action: np.ndarray) -> tuple[int, np.ndarray]:
        return 0, prompt


def _flat(steps: list[Step], catalogue: Mapping[str, SignalKind]) -> pa.RecordBatch:
    """Columns that need no knowledge of ours: ids as hexadecimal text, prompts whole, `signal.<name>` a signal."""
    batch = to_batch(steps, schema(catalogue), _WholePrompts())
    columns: dict[str, Any] = {}
    for name, of, _ in FIELDS:
        if name in ("prompt_prefix_len", "signals"):
            continue
        column = batch.column(name)
        if pa.types.is_fixed_size_binary(of):
            column = pa.array([v and v.hex() for v in column.to_pylist()], pa.string())
        elif name == "obs_blobs":
            column = pa.array([[b.hash.hex() for b in s.obs_blobs] for s in steps], pa.list_(pa.string()))
        columns[name] = column
    for name in sorted(catalogue):
        values = [next((g.value for g in s.signals if g.name == name), None) for s in steps]
        columns[f"signal.{name}"] = pa.array(values, pa.float64())
    return pa.RecordBatch.from_pydict(columns)


def _to_parquet(store: Path, out: Path) -> Exchanged:
    """One file a split."""
    done, catalogue = Exchanged(), _catalogue(store)
    writers: dict[str, parquet.ParquetWriter] = {}
    waiting: dict[str, list[Step]] = defaultdict(list)

    def flush(split: str) -> None:
        batch = _flat(waiting.pop(split), catalogue)
        if split not in writers:
            done.files.append(f"{split}.parquet")
            writers[split] = parquet.ParquetWriter(out / done.files[-1], batch.schema, compression="zstd",
                                                   write_page_checksum=True)
        writers[split].write_batch(batch)
        done.rows += batch.num_rows

    for step in (s for steps in Catalog(store).follow() for s in steps):
        waiting[step.split].append(step)
        if len(waiting[step.split]) >= _LEAST_BLOCK:
            flush(step.split)
    for split in sorted(waiting):
        flush(split)
    for writer in writers.values():
        writer.close()
    return done


def _to_hf(store: Path, out: Path) -> Exchanged:
    datasets = _library("datasets", "datasets")
    (out / "draft").mkdir()
    done = _to_parquet(store, out / "draft")
    for file in done.files:
        split = file.partition(".")[0]
        rows = datasets.Dataset.from_parquet(str(out / "draft" / file), cache_dir=str(out / "cache"), split=split)
        rows.save_to_disk(str(out / split))
    shutil.rmtree(out / "draft")
    shutil.rmtree(out / "cache", ignore_errors=True)
    return replace(done, files=[file.partition(".")[0] for file in done.files])


def _whole(store: Path, done: Exchanged) -> Iterator[Episode]:
    """Episodes with a last observation and every reward; the others are counted."""
    for episode in episodes(store):
        if episode.closing is None or episode.failed:
            done.left_out += 1
        else:
            yield episode


def _to_atif(store: Path, out: Path) -> Exchanged:
    done = Exchanged()
    for episode in _whole(store, done):
        assert episode.closing is not None
        name = f"{episode.first.stream_id.hex()}-{episode.first.t}.json"
        (out / name).write_text(json.dumps(_trajectory(episode, episode.closing), indent=1))
        done.files.append(name)
        done.rows += len(episode.steps) + 1
        done.episodes += 1
    return done


def _trajectory(episode: Episode, closing: Step) -> dict[str, Any]:
    first = episode.first
    rows = [*episode.steps, closing]
    steps = [{"step_id": 1, "timestamp": _stamp(first.t_start_ns), "source": "user", "message": first.obs_text}]
    for number, (step, after) in enumerate(pairwise(rows), 2):
        rest = as_plain(step)
        decision = rest["decision"]
        turn = {"step_id": number, "timestamp": _stamp(step.t_end_ns), "source": "agent",
                "message": decision.pop("text"), "observation": {"results": [{"content": after.obs_text}]}}
        tokens = {"prompt_token_ids": decision.pop("prompt_ids"), "completion_token_ids": decision.pop("action_ids"),
                  "logprobs": decision.pop("logprobs")}
        if tokens["completion_token_ids"]:
            turn["model_name"] = decision["behaviour_id"] or "unknown"
            turn["metrics"] = {"prompt_tokens": len(tokens["prompt_token_ids"]),
                               "completion_tokens": len(tokens["completion_token_ids"]), **tokens}
            turn["llm_call_count"] = 1
        del rest["obs_text"]
        steps.append(turn | {"extra": {"xp": rest}})
    last = as_plain(closing)
    del last["obs_text"]
    total = episode.total_reward
    return {"schema_version": ATIF_VERSION, "session_id": first.stream_id.hex(),
            "trajectory_id": f"{first.stream_id.hex()}-{first.t}",
            "agent": {"name": "xp", "version": "1", "model_name": first.decision.behaviour_id if first.decision and
                      first.decision.behaviour_id else "unknown"},
            "steps": steps, "extra": {"xp": {"closing": last}, "env_id": first.env_id, "task_id": first.task_id,
                                      "total_reward": total, "ending": closing.ending}}


def _stamp(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat()


def _by_world(store: Path, done: Exchanged) -> dict[str, list[Episode]]:
    worlds: dict[str, list[Episode]] = defaultdict(list)
    for episode in _whole(store, done):
        worlds[episode.first.env_id].append(episode)
        done.rows += len(episode.steps)
        done.episodes += 1
    return worlds


def _to_minari(store: Path, out: Path) -> Exchanged:
    """Datasets `xp/<world>-v0` in a folder for MINARI_DATASETS_PATH."""
    minari, text = _library("minari", "'minari[hdf5]'"), _library("gymnasium", "gymnasium").spaces.Text
    done = Exchanged()
    with _environment(MINARI_DATASETS_PATH=str(out)):
        for world, lived in _by_world(store, done).items():
            names = sorted({g.name for e in lived for s in e.steps for g in s.signals})
            buffers = [_buffer(minari.data_collector.EpisodeBuffer, number, e, names) for number, e in enumerate(lived)]
            said = {"observation_space": [o for b in buffers for o in b.observations],
                    "action_space": [a for b in buffers for a in b.actions]}
            spaces = {name: text(min_length=0, max_length=max(map(len, words)), charset="".join(sorted(set().union(
                *words)) or "a")) for name, words in said.items()}
            name = f"xp/{_short(world)}-v0"
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


def _to_lerobot(store: Path, out: Path) -> Exchanged:
    """LeRobot's v3.0 layout, one data file a world; a turn counts as one second."""
    done = Exchanged()
    for world, lived in _by_world(store, done).items():
        _lerobot_world(out / _short(world), lived)
        done.files.append(_short(world))
    return done


_TEXT = {"dtype": "string", "shape": [1], "names": None}
_NUMBERS = {"next.reward": "float32", "next.done": "bool", "timestamp": "float32", "frame_index": "int64",
            "episode_index": "int64", "index": "int64", "task_index": "int64"}


def _lerobot_world(out: Path, lived: list[Episode]) -> None:
    tasks = {task: i for i, task in enumerate(dict.fromkeys(e.first.task_id for e in lived))}
    lengths = [len(e.steps) for e in lived]
    ends = np.cumsum(lengths)
    turns = [s for e in lived for s in e.steps]
    frame = np.concatenate([np.arange(n) for n in lengths])
    data = pa.table({
        "observation.text": pa.array([s.obs_text for s in turns], pa.string()),
        "action": pa.array([s.decision.text if s.decision else "" for s in turns], pa.string()),
        "next.reward": pa.array([np.nan if s.reward is None else s.reward for s in turns], pa.float32()),
        "next.done": pa.array([i + 1 == n for n in lengths for i in range(n)]),
        "timestamp": pa.array(frame.astype(np.float32)), "frame_index": pa.array(frame),
        "episode_index": pa.array(np.repeat(np.arange(len(lived)), lengths)), "index": pa.array(np.arange(len(turns))),
        "task_index": pa.array([tasks[e.first.task_id] for e in lived for _ in e.steps], pa.int64())})
    zeros = pa.array(np.zeros(len(lived), np.int64))
    about = pa.table({
        "episode_index": pa.array(np.arange(len(lived))), "tasks": pa.array([[e.first.task_id] for e in lived]),
        "length": pa.array(lengths, pa.int64()), "data/chunk_index": zeros, "data/file_index": zeros,
        "dataset_from_index": pa.array(ends - lengths), "dataset_to_index": pa.array(ends),
        "meta/episodes/chunk_index": zeros, "meta/episodes/file_index": zeros})
    index = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64",
         "metadata": None},
        {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object",
         "metadata": None}]}
    task_table = pa.table({"task_index": pa.array(list(tasks.values()), pa.int64()),
                           "__index_level_0__": pa.array(list(tasks))}).replace_schema_metadata(
                               {"pandas": json.dumps(index)})
    info = {"codebase_version": "v3.0", "robot_type": None, "total_episodes": len(lived), "total_frames": len(turns),
            "total_tasks": len(tasks), "chunks_size": 1000, "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200, "fps": 1, "splits": {"train": f"0:{len(lived)}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "video_path": None,
            "features": {"observation.text": _TEXT, "action": _TEXT, **{
                name: {"dtype": of, "shape": [1], "names": None} for name, of in _NUMBERS.items()}}}
    for folder in ("data/chunk-000", "meta/episodes/chunk-000"):
        (out / folder).mkdir(parents=True)
    parquet.write_table(data, out / "data/chunk-000/file-000.parquet")
    parquet.write_table(about, out / "meta/episodes/chunk-000/file-000.parquet")
    parquet.write_table(task_table, out / "meta/tasks.parquet")
    (out / "meta/info.json").write_text(json.dumps(info, indent=1))
    (out / "meta/stats.json").write_text(json.dumps({name: _statistics(data.column(name)) for name in _NUMBERS}))


def _statistics(column: pa.ChunkedArray) -> dict[str, list[float]]:
    values = column.to_numpy().astype(np.float64)
    return {"min": [float(np.nanmin(values))], "max": [float(np.nanmax(values))], "mean": [float(np.nanmean(values))],
            "std": [float(np.nanstd(values))], "count": [len(values)]}


_EXPORTS: dict[str, Callable[[Path, Path], Exchanged]] = {
    "jsonl": _to_jsonl, "atif": _to_atif, "parquet": _to_parquet, "hf": _to_hf, "minari": _to_minari,
    "lerobot": _to_lerobot}
EXPORTS = tuple(_EXPORTS)


def bring_in(source: Path, of: str, store: Path) -> Exchanged:
    """Reads `source` in format `of` into a new store. Raises ShardError, with the place, for what cannot be read, and
    MissingPartError if a library is not installed; then nothing stays."""
    read = _IMPORTS.get(of)
    if read is None:
        raise ShardError(f"no format {of!r} to read", f"there are: {', '.join(_IMPORTS)}")
    if not source.exists():
        raise ShardError(f"{source} is not there", "name the file or folder that holds the experience")
    kinds: dict[str, SignalKind] = {}
    for step in read(source):
        kinds |= {g.name: SignalKind(g.unit, g.source) for g in step.signals}
    done, writer = Exchanged(), store / "imported"
    try:
        journal = Journal(writer, kinds, metadata={"imported_from": of})
        for step in read(source):
            journal.append(step)
            done.rows += 1
            done.episodes += step.is_closing
        journal.close()
    except BaseException:
        shutil.rmtree(store, ignore_errors=True)
        raise
    return done


def _from_jsonl(source: Path) -> Iterator[Step]:
    for path in sorted(source.glob("*.jsonl")) if source.is_dir() else [source]:
        with open(path) as file:
            for number, line in enumerate(file, 1):
                yield _checked(f"{path}:{number}", lambda line=line: from_plain(json.loads(line)))  # type: ignore[misc]


def _from_atif(source: Path) -> Iterator[Step]:
    """Trajectories of ours come back exactly; of others, messages, observations, tokens and log-probabilities."""
    found = [(path, _checked(str(path), lambda path=path: _read_atif(path)))  # type: ignore[misc]
             for path in (sorted(source.glob("*.json")) if source.is_dir() else [source])]
    for _, steps in sorted(found, key=lambda item: (item[1][0].stream_id, item[1][0].t)):
        yield from steps


def _read_atif(path: Path) -> list[Step]:
    whole = json.loads(path.read_text())
    ours = (whole.get("extra") or {}).get("xp")
    return _ours(whole, ours["closing"]) if ours else _theirs(whole)


def _ours(whole: Mapping[str, Any], closing: dict[str, Any]) -> list[Step]:
    seen, steps = whole["steps"][0]["message"], []
    for turn in whole["steps"][1:]:
        rest, tokens = turn["extra"]["xp"], turn.get("metrics") or {}
        decision = rest["decision"] | {"text": turn["message"], "prompt_ids": tokens.get("prompt_token_ids", []),
                                       "action_ids": tokens.get("completion_token_ids", []),
                                       "logprobs": tokens.get("logprobs", [])}
        steps.append(from_plain(rest | {"obs_text": seen, "decision": decision}))
        seen = turn["observation"]["results"][0]["content"]
    return [*steps, from_plain(closing | {"obs_text": seen})]


def _theirs(whole: Mapping[str, Any]) -> list[Step]:
    """A stranger's trajectory: what was said since the agent's last turn is what it saw. Rewards are unknown."""
    stream = _stream(str(whole.get("trajectory_id") or whole.get("session_id") or json.dumps(whole["steps"][0])))
    seen: list[str] = []
    steps: list[Step] = []
    for turn in whole["steps"]:
        if turn["source"] != "agent":
            seen.append(_words(turn["message"]))
            continue
        tokens = turn.get("metrics") or {}
        ids, logprobs = tokens.get("completion_token_ids") or [], tokens.get("logprobs") or []
        exact = bool(ids) and len(ids) == len(logprobs)
        calls = [f"{c['function_name']} {json.dumps(c['arguments'])}" for c in turn.get("tool_calls") or ()]
        decision = Decision(
            "\n".join([w for w in (_words(turn["message"]), *calls) if w]), 0,
            np.array(tokens.get("prompt_token_ids") or [], np.int32), np.array(ids if exact else [], np.int32),
            np.array(logprobs if exact else [], np.float32), (VersionSpan(0, len(ids)),) if exact else (), exact,
            behaviour_id=str(turn.get("model_name") or whole["agent"].get("model_name") or whole["agent"]["name"]))
        t = len(steps)
        steps.append(Step(stream, t, "atif", "\n".join(seen), "demonstration", step_in_episode=t, decision=decision,
                          boundary=Boundary.RESET if t == 0 else Boundary.NONE))
        seen = [_words(r.get("content")) for r in (turn.get("observation") or {}).get("results", ())]
    if not steps:
        raise ValueError("no step of an agent")
    steps[-1] = replace(steps[-1], ending="truncated")
    return [*steps, Step(stream, len(steps), "atif", "\n".join(seen), "demonstration", step_in_episode=len(steps),
                         ending="truncated", boundary=Boundary.TRUNCATED)]


def _words(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text") or f"[{part['type']}]" for part in content)
    return content or ""


def _from_minari(source: Path) -> Iterator[Step]:
    """`source`: a dataset's folder (the one that holds `data`). Text stays text, other spaces become JSON; infos named
    signal_… are signals. Source: demonstration, as nobody knows the policy's probabilities."""
    minari = _library("minari", "'minari[hdf5]'")
    dataset = minari.MinariDataset(source / "data" if (source / "data").is_dir() else source)
    world = str(dataset.spec.dataset_id)
    for number, episode in enumerate(dataset.iterate_episodes()):
        stream, count = _stream(f"{world}/{number}"), len(episode.rewards)
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


def _catalogue(store: Path) -> dict[str, SignalKind]:
    """Every signal that any shard tells of."""
    return {name: SignalKind(unit, source) for batch in Catalog(store).batches()  # type: ignore[arg-type]
            for name, unit, source in signal_names(batch.schema)}


def _stream(name: str) -> bytes:
    return uuid.uuid5(uuid.NAMESPACE_URL, name).bytes


def _short(world: str) -> str:
    """`envs:Reactor-v0` → `Reactor`: a name that files and Minari take."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", re.sub(r"-v\d+$", "", world.rpartition(":")[2]))


def _checked(where: str, read: Callable[[], Read]) -> Read:
    try:
        return read()
    except (RecordError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ShardError(f"{where}: {type(error).__name__}: {error}", "nothing was imported; mend or remove it"
                         ) from error


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPartError(f"this format needs {name}: {error}",
                               f".venv/bin/uv pip install -p .venv {package}") from error


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


_IMPORTS: dict[str, Callable[[Path], Iterable[Step]]] = {
    "jsonl": _from_jsonl, "atif": _from_atif, "minari": _from_minari}
IMPORTS = tuple(_IMPORTS)
