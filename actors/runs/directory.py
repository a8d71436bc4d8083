"""The run directory: everything a run is, so that storage alone lets it be read and resumed."""

from __future__ import annotations

import hmac
import platform
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from actors.config.changes import Change, changes
from actors.config.schema import Config, dump, load
from actors.runs.files import RunFiles
from actors.runs.finding import find_run
from actors.runs.lock import is_locked, take_lock
from actors.runs.provenance import revision, signature
from actors.runs.trust import read_bounded
from actors.runs.writing import replace_link
from experience.command.plain_yaml import read_value
from experience.errors import ConfigError, XpError
from experience.shards.redaction.redact import Redactor
from experience.text.strict_json import dumps


class RunDirectory(RunFiles):
    """A run: its beginning, its attempts, and what it may be trusted for."""

    @classmethod
    def create(
        cls,
        config: Config,
        origins: dict[str, str],
        argv: list[str],
        path: Path | None = None,
    ) -> RunDirectory:
        """Makes the directory of a new run, with its settings and a signature of them.

        origins: key of the configuration -> where its value comes from. path: a folder that is
        empty or not there yet; None makes one in `runs_dir`, which is the latest then. Raises
        XpError where it cannot be written.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S")
        is_latest = path is None
        path = path or Path(config.runs_dir) / f"{config.name}-{stamp}-{secrets.token_hex(2)}"
        if path.is_dir() and any(path.iterdir()):
            raise ConfigError(f"{path} is there already, and is no run", "choose another name")
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
        run.write_record(signed=signature(path / "config.yaml"))
        run.write_record(
            status="running",
            argv=argv,
            seed=config.seed,
            started=time.time(),
            revision=revision(),
            python=sys.version.split()[0],
            machine=platform.platform(),
            attempts=1,
            made_with=text,
        )
        if is_latest:
            replace_link(path.parent / "latest", path.name)
        return run

    @classmethod
    def find(cls, name: str, runs_dir: str = "runs") -> RunDirectory:
        """The run that a user calls `name`; see `find_run`."""
        return cls(find_run(name, runs_dir))

    def hold(self) -> None:
        """Takes the run for this process. Raises ConfigError if another process has it."""
        take_lock(self.path)

    @property
    def is_held(self) -> bool | None:
        """Whether a live process runs it. None where the file system cannot tell."""
        return is_locked(self.path)

    def begin_again(self, **known: Any) -> None:
        """Records that another attempt begins, its time and the version that it goes on from.

        known: further entries of run.json, such as the seconds that earlier attempts took.
        """
        self.hold()
        record = self.record
        resumption = {"at": time.time(), "version": self.checkpoints.newest_version()}
        self.write_record(
            status="running",
            attempts=record.get("attempts", 1) + 1,
            resumed=[*record.get("resumed", []), resumption],
            why="",
            **known,
        )

    def config(self) -> Config:
        """The run's configuration, read with the bounds, checks and places of any configuration.

        Raises ConfigError, which names the source that made the run: a key may have been renamed.
        """
        path = self.path / "config.yaml"
        try:
            return load([path])[0]
        except ConfigError as error:
            made = self.record.get("revision") or "unknown"
            here = revision() or "unknown"
            raise ConfigError(
                str(error),
                f"{path} is of a run that source {made} made; this is source {here}: take "
                "out or rename there what is named above, or go on with that source",
            ) from None

    def changes(self) -> list[Change]:
        """How config.yaml differs from what the run began with; empty if the run kept no copy."""
        made_with = self.record.get("made_with")
        if not isinstance(made_with, str):
            return []
        path = self.path / "config.yaml"
        return changes(
            read_value(made_with, f"{self.path / 'run.json'}: made_with"),
            read_value(read_bounded(path).decode(errors="replace"), str(path)),
        )

    @property
    def is_ours(self) -> bool:
        """Whether this user's own run wrote `config.yaml` as it is now, on this machine."""
        # Where no key can be kept, both signatures would be empty, and equal: "-" equals none.
        here = signature(self.path / "config.yaml") or "-"
        return hmac.compare_digest(str(self.record.get("signed", "")).encode(), here.encode())
