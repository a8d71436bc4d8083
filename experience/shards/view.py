"""A view: which files hold a store's rows at one instant, by one snapshot and the manifests.

Covers: files that come, go cold and go while we look (it looks again); a shard that a manifest
names and that is not there, and a sealed shard that no manifest names (errors). Does not cover: a
segment that was never sealed and is gone with its commit log; nothing else knows of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experience.errors import ShardError
from experience.shards.cold.snapshot import Snapshot, newest_snapshot, read_snapshot
from experience.shards.storage.checked import Expected
from experience.shards.storage.disk import REAL, Disk, Identity
from experience.shards.storage.manifest import NAME, Line, read_manifest

_TRIES = 20


@dataclass(frozen=True)
class Segment:
    """A hot segment. `line`: what the manifest says of it; None while it is being written."""

    path: Path
    line: Line | None

    @property
    def is_sealed(self) -> bool:
        return self.path.suffix == ".arrow"

    @property
    def rows(self) -> int | None:
        return self.line["rows"] if self.line else None

    @property
    def expected(self) -> Expected:
        assert self.line is not None
        return Expected(self.path, self.line["bytes"], self.line["sha256"])


@dataclass(frozen=True)
class View:
    """`writers`: each writer's hot segments, in the order in which they were written."""

    snapshot: Snapshot
    writers: tuple[tuple[Segment, ...], ...]


class Viewer:
    """Looks at one store again and again; a manifest that did not change is not read again."""

    def __init__(self, store: Path, writer: str = "", disk: Disk = REAL) -> None:
        self.store, self.disk, self._writer = store, disk, writer
        self._newest = Snapshot()
        self._manifests: dict[Path, tuple[Identity, list[Line]]] = {}

    def look(self) -> View:
        """The view of this instant.

        Raises ShardError if a file is missing that the manifest names, or a sealed one is there
        that it does not name.
        """
        for _ in range(_TRIES):
            snapshot = self._snapshot()
            try:
                writers = tuple(
                    self._segments(d, snapshot)
                    for d in self.disk.directories(self.store)
                    if not self._writer or d.name == self._writer
                )
            except ShardError:
                if self.is_newest(snapshot):
                    raise
                continue  # what was missed went cold under our eyes
            # Asked again after the listing: only then do both belong to one instant.
            if self.is_newest(snapshot):
                return View(snapshot, writers)
        raise ShardError(f"{self.store} changes faster than it can be read", "try again")

    def _snapshot(self) -> Snapshot:
        if not self.is_newest(self._newest):
            self._newest = read_snapshot(self.store, self.disk)
        return self._newest

    def is_newest(self, snapshot: Snapshot) -> bool:
        return newest_snapshot(self.store, self.disk) == snapshot.version

    def raise_if_newest(self, view: View, error: FileNotFoundError) -> None:
        """Raises ShardError if no newer snapshot explains why a file of `view` is missing."""
        if self.is_newest(view.snapshot):
            raise ShardError(
                f"{error.filename or error} is missing", "restore the file from a copy"
            ) from error

    def _segments(self, directory: Path, snapshot: Snapshot) -> tuple[Segment, ...]:
        stems: dict[str, str] = {}
        for suffix in (".open", ".arrow"):  # listed twice: a rename in between is seen once
            stems |= {
                n.partition(".")[0]: n for n in self.disk.names(directory) if n.endswith(suffix)
            }
        lines = {line["file"].partition(".")[0]: line for line in self._manifest(directory)}
        gone = {
            name.partition("/")[2].partition(".")[0]
            for name in snapshot.replaced
            if name.startswith(f"{directory.name}/")
        }
        for stem in lines.keys() - stems.keys() - gone:
            stems[stem] = self._found(directory / lines[stem]["file"]).name
        return tuple(
            self._segment(directory / stems[stem], lines.get(stem))
            for stem in sorted(stems.keys() - gone)
            if stem in lines or stems[stem].endswith(".open") or not self.disk.manifest_comes_later
        )

    def _found(self, path: Path) -> Path:
        """A shard that the listing missed, perhaps because it was renamed meanwhile."""
        if not self.disk.exists(path):
            raise ShardError(
                f"{path} is missing: the manifest names it", "restore the file from a copy"
            )
        return path

    def _segment(self, path: Path, line: Line | None) -> Segment:
        if line is None and path.suffix == ".arrow":
            raise ShardError(
                f"{path} is not in the manifest",
                "restore the manifest from a copy; if the writer was "
                "killed while it sealed, resume the run and it is added",
            )
        return Segment(path, line)

    def _manifest(self, directory: Path) -> list[Line]:
        path = directory / NAME
        try:
            identity = self.disk.identity(path)
        except FileNotFoundError:
            return []
        known = self._manifests.get(path)
        if known is not None and known[0] == identity:
            return known[1]
        lines = read_manifest(directory, self.disk)
        # None: an object store tells no change of a file, so that it is read each time.
        if identity is not None:
            self._manifests[path] = (identity, lines)
        return lines
