"""The fence: of two incarnations of one writer, the older may acknowledge no more rows."""

from __future__ import annotations

from pathlib import Path

from experience.errors import FencedError
from experience.shards.storage.disk import Disk


class Fence:
    """One incarnation of the writer of `directory`.

    It takes the next number. The file `epoch-<number>` is made exclusively, so that no two
    incarnations have the same; whoever finds the file of the number after its own was replaced.
    """

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory, self._disk = directory, disk
        self.epoch = _take_next_epoch(directory, disk)

    def check(self) -> None:
        """Raises FencedError if a newer incarnation took over."""
        if self._disk.exists(self._directory / f"epoch-{self.epoch + 1:06d}"):
            raise FencedError(
                f"{self._directory}: incarnation {self.epoch} was replaced by a newer one",
                "this process lost its place and must end",
            )


def _take_next_epoch(directory: Path, disk: Disk) -> int:
    names = [n for n in disk.names(directory) if n.startswith(("epoch-", "seg-"))]
    numbers = (int(name.split("-")[1].partition(".")[0]) for name in names)
    epoch = 1 + max(numbers, default=-1)
    while True:
        try:
            disk.close(disk.create(directory / f"epoch-{epoch:06d}"))
            disk.sync_directory(directory)
            return epoch
        except FileExistsError:
            epoch += 1
