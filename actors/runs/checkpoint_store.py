"""Checkpoints on disk: each is a folder that one rename publishes, with the sums of its files."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from actors.runs.writing import replace_file
from experience.errors import ConfigError, ShardError
from experience.shards.storage import sums
from experience.shards.storage.disk import REAL

_VERSIONS = "step"
_IMITATION = "imitation"


class CheckpointStore:
    """The checkpoints of one run.

    `step-VERSION` belongs to a policy version. `imitation-STEPS` belongs to an imitation that is
    not over; the next checkpoint of any kind replaces it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, version: int, files: Mapping[str, bytes], imitated: int | None = None) -> None:
        """Publishes the files that a learner goes on from: all of them or none.

        imitated: optimiser steps done of an imitation that is not over, None outside imitations.
        """
        name = f"{_VERSIONS}-{version:06d}"
        if imitated is not None:
            name = f"{_IMITATION}-{imitated:08d}"
        final = self.folder / name
        if final.exists():
            return
        draft = self.folder / f".draft-{version}-{secrets.token_hex(2)}"
        draft.mkdir(parents=True)
        for file, data in files.items():
            replace_file(draft / file, data)
        replace_file(draft / sums.NAME, sums.sums(files))
        # The names of the files must be durable before the rename shows the folder, and the
        # rename before the older checkpoint goes.
        REAL.sync_directory(draft)
        os.rename(draft, final)
        REAL.sync_directory(self.folder)
        for old in self.folder.glob(f"{_IMITATION}-*"):
            if old != final:
                self._remove(old)

    def _remove(self, checkpoint: Path) -> None:
        """Removes a checkpoint. A crash on the way leaves no half of it that would be read."""
        gone = self.folder / f".gone-{secrets.token_hex(2)}"
        os.rename(checkpoint, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def newest(self) -> dict[str, bytes] | None:
        """The files by name of the checkpoint that a resume goes on from; None if there is none.

        Raises ShardError if a byte differs from what was saved, and a file that was never saved
        raises ShardError when it is asked for.
        """
        found = self._resumable()
        if not found:
            return None
        newest = found[-1]
        before = "begin again from the rows: it is the only one"
        if len(found) > 1:
            before = f"go on from {found[-2].name}"
        return _read(newest, f"restore {newest} from a copy, or remove it to {before}")

    def of_version(self, version: int) -> dict[str, bytes]:
        """The files by name of the checkpoint of a policy version. Raises ConfigError where that
        version has none, ShardError if a byte differs from what was saved."""
        kept = {_number_of(path): path for path in self._of_kind(_VERSIONS)}
        if version not in kept:
            raise ConfigError(
                f"{self.folder.parent.name} has no checkpoint of version {version}",
                f"kept are: {', '.join(map(str, kept)) or 'none yet'}",
            )
        return _read(kept[version], f"restore {kept[version]} from a copy")

    @property
    def newest_name(self) -> str:
        """The name of the checkpoint that a resume goes on from; empty if there is none."""
        found = self._resumable()
        return f"checkpoint {found[-1].name}" if found else ""

    def newest_version(self) -> int | None:
        """The policy version of the newest checkpoint; None if no version has one."""
        found = self._of_kind(_VERSIONS)
        return _number_of(found[-1]) if found else None

    def _resumable(self) -> list[Path]:
        """The checkpoints of policy versions, else those of an imitation; the newest last."""
        return self._of_kind(_VERSIONS) or self._of_kind(_IMITATION)

    def _of_kind(self, kind: str) -> list[Path]:
        """Sorted by number, not by name: version 1000000 has a digit more than 999999."""
        folders = self.folder.glob(f"{kind}-*")
        return sorted((p for p in folders if p.name[len(kind) + 1 :].isdigit()), key=_number_of)


def _read(checkpoint: Path, hint: str) -> _Files:
    try:
        return _Files(sums.read_checked(checkpoint), f"checkpoint {checkpoint}", hint)
    except ShardError as error:
        raise ShardError(
            f"checkpoint {checkpoint.name}: {str(error).splitlines()[0]}", hint
        ) from error


class _Files(dict[str, bytes]):
    """Files by name. A name that was never saved raises an error that names the checkpoint."""

    def __init__(self, files: Mapping[str, bytes], name: str, hint: str) -> None:
        super().__init__(files)
        self._name = name
        self._hint = hint

    def __missing__(self, file: str) -> bytes:
        raise ShardError(
            f"{self._name} has no {file}: it is of another learner than config.yaml asks for, "
            "or damaged",
            self._hint,
        )


def _number_of(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])
