"""The run directory: everything a run is, so that it can be read, resumed and trusted from storage alone."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from actors.config import Config, dump
from experience.errors import ConfigError, XpError
from experience.shards import sums
from experience.shards.catalog import Catalog
from experience.shards.disk import REAL
from experience.shards.redact import Redactor


class RunDirectory:
    """Paths and small files of one run. `run.json` is always whole: it is replaced, never edited."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shards, self.checkpoints = path / "shards", path / "checkpoints"
        self._redactor = Redactor.of_environment()

    @classmethod
    def create(cls, config: Config, origins: dict[str, str], argv: list[str]) -> RunDirectory:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = Path(config.runs_dir) / f"{config.name}-{stamp}-{secrets.token_hex(2)}"
        try:
            for folder in ("shards", "imagined", "checkpoints", "metrics", "logs"):
                (path / folder).mkdir(parents=True)
        except OSError as error:
            raise XpError(f"{path} cannot be made: {error.strerror}",
                          "set runs_dir to a folder you may write") from error
        run = cls(path)
        (path / "config.yaml").write_text(dump(config))
        (path / "config.origins.json").write_text(json.dumps(origins, indent=1))
        run.write_record(status="running", argv=argv, seed=config.seed, started=time.time(), revision=_revision(),
                         python=sys.version.split()[0], machine=platform.platform(), attempts=1)
        latest = path.parent / "latest"
        draft = path.parent / f".latest-{secrets.token_hex(2)}"
        draft.symlink_to(path.name)
        os.replace(draft, latest)
        return run

    @classmethod
    def find(cls, name: str, runs_dir: str = "runs") -> RunDirectory:
        """The run called `name`: a path, a directory's name, a unique beginning of one, or `latest`."""
        for candidate in (Path(name), Path(runs_dir) / name):
            if (candidate / "run.json").exists():
                return cls(candidate.resolve() if candidate.is_symlink() else candidate)
        found = sorted(p.parent for p in Path(runs_dir).glob(f"{name}*/run.json") if not p.parent.is_symlink())
        if len(found) == 1:
            return cls(found[0])
        known = sorted(p.parent.name for p in Path(runs_dir).glob("*/run.json"))
        raise ConfigError(f"no run {name!r}" if not found else f"{name!r} begins {len(found)} runs",
                          f"known: {', '.join(known[-5:]) or 'none yet; ./xp demo makes one'}")

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
        return dict(json.loads((self.path / "run.json").read_text()))

    def write_record(self, **changes: Any) -> None:
        old = self.record if (self.path / "run.json").exists() else {}
        _replace(self.path / "run.json", json.dumps(old | self._redactor.value(changes), indent=1).encode())

    def config(self) -> Config:
        return Config.model_validate(yaml.safe_load((self.path / "config.yaml").read_text()))

    def log(self, record: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        with open(self.path / "metrics" / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"t": time.time()} | self._redactor.value(record)) + "\n")

    def metrics(self) -> Iterator[dict[str, Any]]:
        path = self.path / "metrics" / "metrics.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            yield json.loads(line)

    def save_checkpoint(self, version: int, files: Mapping[str, bytes]) -> None:
        """Everything a learner goes on from, published by one rename: all of it or none."""
        final = self.checkpoints / f"step-{version:06d}"
        if final.exists():
            return
        draft = self.checkpoints / f".draft-{version}-{secrets.token_hex(2)}"
        draft.mkdir(parents=True)
        for name, data in files.items():
            _replace(draft / name, data)
        _replace(draft / sums.NAME, sums.sums(files))
        REAL.sync_directory(draft)
        os.rename(draft, final)
        REAL.sync_directory(self.checkpoints)

    def last_checkpoint(self) -> dict[str, bytes] | None:
        """The files of the newest one. Raises ShardError if a byte of them differs from what was saved."""
        found = sorted(self.checkpoints.glob("step-*"))
        if not found:
            return None
        return sums.read_checked(found[-1])

    def count(self) -> dict[str, int]:
        """What the shards hold, read from the shards: rows, and steps (rows with an action) by source."""
        counts = {"rows": 0, "real": 0, "demonstration": 0, "imagined": 0}
        for folder in (f for f in (self.shards, self.path / "imagined") if f.is_dir()):
            for steps in Catalog(folder).follow():
                counts["rows"] += len(steps)
                for step in steps:
                    if not step.is_closing:
                        counts[step.source] = counts.get(step.source, 0) + 1
        return counts


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(path.name + ".draft")
    REAL.write_file(draft, [data])
    os.replace(draft, path)


def _revision() -> str:
    """The source's git revision, `+changes` if the tree differs; empty outside git. Never a remote's address."""
    try:
        sha = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return sha.stdout.strip() + ("+changes" if dirty.strip() else "")
