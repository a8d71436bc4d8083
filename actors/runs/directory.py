"""The run directory: everything a run is, so that it can be read, resumed and trusted from storage alone."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hmac
import io
import json
import os
import platform
import re
import secrets
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from actors import ROOT
from actors.config.changes import Change, changes
from actors.config.schema import Config, dump, load
from actors.config.section import absolute
from experience.command.plain_yaml import read_value
from experience.errors import ConfigError, ShardError, XpError
from experience.shards.catalog import Catalog
from experience.shards.redaction.redact import Redactor
from experience.shards.storage import sums
from experience.shards.storage.disk import REAL
from experience.text.strict_json import dumps


class RunDirectory:
    """Paths and small files of one run. `run.json` is always whole: it is replaced, never edited."""

    def __init__(self, path: Path) -> None:
        self.path = path = absolute(path)  # a world may change to another folder
        self.shards, self.checkpoints = path / "shards", path / "checkpoints"

    @classmethod
    def create(cls, config: Config, origins: dict[str, str], argv: list[str]) -> RunDirectory:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = Path(config.runs_dir) / f"{config.name}-{stamp}-{secrets.token_hex(2)}"
        try:
            for folder in ("shards", "imagined", "checkpoints", "metrics", "logs"):
                (path / folder).mkdir(parents=True)
        except OSError as error:
            raise XpError(
                f"{path} cannot be made: {error.strerror}", "set runs_dir to a folder you may write"
            ) from error
        run = cls(path)
        redactor = Redactor.current()
        text = redactor.text(dump(config))
        (path / "config.yaml").write_text(text)
        (path / "config.origins.json").write_text(dumps(redactor.value(origins), indent=1))
        run.write_record(signed=_signature(path / "config.yaml"))
        run.write_record(
            status="running",
            argv=argv,
            seed=config.seed,
            started=time.time(),
            revision=_revision(),
            python=sys.version.split()[0],
            machine=platform.platform(),
            attempts=1,
            made_with=text,
        )
        latest = path.parent / "latest"
        draft = path.parent / f".latest-{secrets.token_hex(2)}"
        draft.symlink_to(path.name)
        os.replace(draft, latest)
        return run

    @classmethod
    def find(cls, name: str, runs_dir: str = "runs") -> RunDirectory:
        """The run called `name`: a path, a directory's name, a unique beginning of one, or `latest`."""
        for candidate in (absolute(name), absolute(runs_dir) / name):
            if (candidate / "run.json").exists():
                path = candidate.resolve() if candidate.is_symlink() else candidate
                if (
                    candidate.name == "latest"
                    and path.parent.resolve() != candidate.parent.resolve()
                ):
                    raise ShardError(
                        f"{candidate} leads to {path}, outside {candidate.parent}",
                        "name the run itself",
                    )
                return cls(checked(path))
        found = (
            sorted(
                p.parent
                for p in Path(runs_dir).glob(f"{glob.escape(name)}*/run.json")
                if not p.parent.is_symlink()
            )
            if is_run_name(name)
            else []
        )
        if len(found) == 1:
            return cls(checked(found[0]))
        if found:
            raise ConfigError(
                f"{name!r} begins {len(found)} runs", f"one of: {', '.join(p.name for p in found)}"
            )
        known = sorted(p.parent.name for p in Path(runs_dir).glob("*/run.json"))
        raise ConfigError(
            f"no run {name!r}", f"known: {', '.join(known[-5:]) or 'none yet; ./xp demo makes one'}"
        )

    @staticmethod
    @contextmanager
    def draft(path: Path) -> Iterator[Path]:
        """A folder that becomes the run `path` when all went well, and goes when it did not."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        draft.mkdir()
        try:
            yield draft
            draft.rename(path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def record(self) -> dict[str, Any]:
        record = _json(_bounded(self.path / "run.json"), str(self.path / "run.json"))
        if not isinstance(record, dict):
            raise ShardError(
                f"{self.path / 'run.json'} is no record of a run", "restore it from a copy"
            )
        return record

    def write_record(self, **changes: Any) -> None:
        old = self.record if (self.path / "run.json").exists() else {}
        replace_file(
            self.path / "run.json",
            dumps(old | Redactor.current().value(changes), indent=1).encode(),
        )

    def hold(self) -> None:
        """Takes the run for this process, until it ends in whatever way. Raises ConfigError if another process has it.
        Where the file system knows no locks, nothing is held and nobody is refused."""
        descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(
                f"{self.name} is running in another process", "end that one first, or wait"
            ) from None
        except OSError:
            os.close(descriptor)
            return
        _held[str(self.path.resolve())] = descriptor

    @property
    def is_held(self) -> bool | None:
        """Whether a process that is alive runs it; None where the file system cannot tell."""
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False  # nobody has begun it here, or it came from elsewhere
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return False

    def begin_again(self, **known: Any) -> None:
        """Another attempt begins: when, and from which version; `known` is what earlier ones are known to have done."""
        self.hold()
        record = self.record
        resumed = [*record.get("resumed", []), {"at": time.time(), "version": self.last_version()}]
        self.write_record(
            status="running",
            attempts=record.get("attempts", 1) + 1,
            resumed=resumed,
            why="",
            **known,
        )

    def config(self) -> Config:
        """What the run was told, read as any configuration is: bounded, checked, and with places in its errors."""
        path = self.path / "config.yaml"
        try:
            return load([path])[0]
        except ConfigError as error:
            made, here = self.record.get("revision") or "unknown", _revision() or "unknown"
            raise ConfigError(
                str(error),
                f"{path} is of a run that source {made} made; this is source {here}: take "
                "out or rename there what is named above, or go on with that source",
            ) from None

    def changes(self) -> list[Change]:
        """What config.yaml says now that it did not say when the run began; nothing of a run that kept no copy."""
        made_with = self.record.get("made_with")
        if not isinstance(made_with, str):
            return []
        path = self.path / "config.yaml"
        return changes(
            read_value(made_with, f"{self.path / 'run.json'}: made_with"),
            read_value(_bounded(path).decode(errors="replace"), str(path)),
        )

    @property
    def is_ours(self) -> bool:
        """Whether `config.yaml` is as this user's own run wrote it, on this machine."""
        return hmac.compare_digest(
            str(self.record.get("signed", "")).encode(),
            (_signature(self.path / "config.yaml") or "-").encode(),
        )

    def log(self, record: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        with open(self.path / "metrics" / "metrics.jsonl", "a") as file:
            file.write(dumps({"t": time.time()} | Redactor.current().value(record)) + "\n")

    def metrics(self) -> Iterator[dict[str, Any]]:
        path = self.path / "metrics" / "metrics.jsonl"
        for number, line in enumerate(_bounded(path).splitlines() if path.exists() else (), 1):
            record = _json(line, f"{path}:{number}")
            if isinstance(record, dict):
                yield record

    def write_failures(self, failures: Iterable[Mapping[str, Any]]) -> None:
        found = [Redactor.current().value(dict(failure)) for failure in failures]
        if found:
            replace_file(self.path / "failures.json", dumps(found, indent=1).encode())

    def failures(self) -> list[dict[str, Any]]:
        """What broke in the worlds: one record a world and type of error, with `world`, `what` (type and message of the
        first one), `count` over the whole run, and `traceback` (of the first one, whole). Empty where nothing did."""
        path = self.path / "failures.json"
        found = _json(_bounded(path), str(path)) if path.exists() else []
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []

    def save_checkpoint(
        self, version: int, files: Mapping[str, bytes], imitated: int | None = None
    ) -> None:
        """Everything a learner goes on from, published by one rename: all of it or none. `imitated` counts the steps
        of an imitation that is not over; the next checkpoint takes the place of such a one."""
        final = self.checkpoints / (
            f"step-{version:06d}" if imitated is None else f"imitation-{imitated:08d}"
        )
        if final.exists():
            return
        draft = self.checkpoints / f".draft-{version}-{secrets.token_hex(2)}"
        draft.mkdir(parents=True)
        for name, data in files.items():
            replace_file(draft / name, data)
        replace_file(draft / sums.NAME, sums.sums(files))
        REAL.sync_directory(draft)
        os.rename(draft, final)
        REAL.sync_directory(self.checkpoints)
        for old in self.checkpoints.glob("imitation-*"):
            if old != final:
                gone = self.checkpoints / f".gone-{secrets.token_hex(2)}"
                os.rename(old, gone)  # a crash leaves no half of it to be read
                shutil.rmtree(gone, ignore_errors=True)

    def keep_batch(self, version: int, batch: Mapping[str, Any]) -> Path:
        """Keeps arrays by name for inspection, as diverged-VERSION.npz; the path of it."""
        path = self.path / f"diverged-{version:06d}.npz"
        packed = io.BytesIO()
        np.savez_compressed(packed, **batch)
        replace_file(path, packed.getvalue())
        return path

    def last_version(self) -> int | None:
        """The policy version of the newest checkpoint; None if there is none."""
        found = self._checkpoints("step")
        return _number_of(found[-1]) if found else None

    def last_checkpoint(self) -> dict[str, bytes] | None:
        """The files of the newest one; of an imitation that was not over, only where there is nothing after it. Raises
        ShardError if a byte of them differs from what was saved."""
        found = self._to_go_on_from()
        if not found:
            return None
        before = (
            f"go on from {found[-2].name}"
            if len(found) > 1
            else "begin again from the rows: it is the only one"
        )
        hint = f"restore {found[-1]} from a copy, or remove it to {before}"
        try:
            return _Checkpoint(sums.read_checked(found[-1]), f"checkpoint {found[-1]}", hint)
        except ShardError as error:
            raise ShardError(
                f"checkpoint {found[-1].name}: {str(error).splitlines()[0]}", hint
            ) from error

    @property
    def newest_checkpoint(self) -> str:
        """The name of what a resume goes on from; empty where that is the rows alone."""
        found = self._to_go_on_from()
        return f"checkpoint {found[-1].name}" if found else ""

    def _to_go_on_from(self) -> list[Path]:
        """Checkpoints of policy versions, or of an imitation where there are none yet; the newest last."""
        return self._checkpoints("step") or self._checkpoints("imitation")

    def _checkpoints(self, kind: str) -> list[Path]:
        """The newest last."""
        found = (
            path
            for path in self.checkpoints.glob(f"{kind}-*")
            if path.name[len(kind) + 1 :].isdigit()
        )
        return sorted(found, key=_number_of)

    def count(self) -> dict[str, int]:
        """What the shards hold, read from the shards: rows (of them in shards of imagined ones: imagined_rows), and
        steps (rows with an action) by source."""
        counts = {"rows": 0, "imagined_rows": 0, "real": 0, "demonstration": 0, "imagined": 0}
        for folder in (f for f in (self.shards, self.path / "imagined") if f.is_dir()):
            for batch in Catalog(folder).batches():
                counts["rows"] += len(batch)
                counts["imagined_rows"] += len(batch) if folder != self.shards else 0
                acted = batch.column("action_text").is_valid().to_pylist()
                for source in compress(batch.column("source").to_pylist(), acted):
                    counts[source] = counts.get(source, 0) + 1
        return counts


class _Checkpoint(dict[str, bytes]):
    """Files by name. One that is asked for and was never saved is an error that names the checkpoint."""

    def __init__(self, files: Mapping[str, bytes], name: str, hint: str) -> None:
        super().__init__(files)
        self._name, self._hint = name, hint

    def __missing__(self, file: str) -> bytes:
        raise ShardError(
            f"{self._name} has no {file}: it is of another learner than config.yaml asks for, or damaged",
            self._hint,
        )


def _number_of(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


_LOCK = ".running"
"""Locked by the process that runs it: the lock goes with the process, however that ends."""
_held: dict[str, int] = {}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")
_MOST_BYTES = 256 << 20


def is_run_name(name: str) -> bool:
    """Whether `name` is a folder's own name, and leads nowhere else."""
    return bool(_PLAIN_NAME.fullmatch(name))


def checked(path: Path) -> Path:
    """`path`, whose tree holds only files and folders of its own. Raises ShardError for a link that leads out of it,
    or for what would hold a reader up: a run directory may come from a stranger, and is written into by a resume."""
    inside = path.resolve()
    for folder, folders, files in os.walk(path):
        for name in [*folders, *files]:
            entry = Path(folder) / name
            mode = entry.lstat().st_mode
            if stat.S_ISLNK(mode) and not entry.resolve().is_relative_to(inside):
                raise ShardError(
                    f"{entry} is a link that leads out of the run directory",
                    "put what it leads to in its place, if you trust it",
                )
            if not (
                stat.S_ISLNK(mode)
                or stat.S_ISREG(mode)
                or stat.S_ISDIR(mode)
                or stat.S_ISSOCK(mode)
            ):
                raise ShardError(f"{entry} is neither a file nor a folder", "remove it")
    return path


def _bounded(path: Path) -> bytes:
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_NONBLOCK
        )  # a pipe in place of the file holds nobody up
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ShardError(f"{path} is no file", "remove it")
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ShardError(
            f"{path} cannot be read: {error.strerror}", "restore it from a copy"
        ) from error
    if len(data) > _MOST_BYTES:
        raise ShardError(f"{path} has more than {_MOST_BYTES >> 20} MiB", "restore it from a copy")
    return data


def _json(data: bytes, place: str) -> Any:
    """What JSON says; NaN and infinity, which are none, count as unknown. Raises ShardError."""
    try:
        return json.loads(data, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{place}: not JSON: {error}", "restore it from a copy") from None


def _signature(path: Path) -> str:
    """Under a key that only this user of this machine has; empty where there is no place to keep one."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "xp"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(base / "key", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            os.write(descriptor, secrets.token_bytes(32))
            os.close(descriptor)
        key = (base / "key").read_bytes()
    except (OSError, RuntimeError):
        return ""
    return hmac.new(key, path.read_bytes(), "sha256").hexdigest() if len(key) == 32 else ""


def replace_file(path: Path, data: bytes) -> None:
    draft = path.with_name(path.name + ".draft")
    REAL.write_file(draft, [data])
    os.replace(draft, path)


def _revision() -> str:
    """The source's git revision, `+changes` if the tree differs; empty outside git. Never a remote's address."""
    try:
        sha = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return sha.stdout.strip() + ("+changes" if dirty.strip() else "")
