"""The sealer: one segment after another becomes a shard, in a thread, while the next is written."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future

from experience.errors import FencedError, ShardError
from experience.shards.storage.disk import Disk
from experience.shards.writing.fence import Fence
from experience.shards.writing.reserve import Reserve, is_full
from experience.shards.writing.sealing import (
    is_worth_rewriting,
    publish,
    remove_drafts,
    rewrite,
    seal_in_place,
    truncate_log,
)
from experience.shards.writing.segment import Segment


class Sealer:
    """Seals segments in order, and segments that failed at their last acknowledged byte.

    Blocks that are small beside `block_rows` are rewritten as large ones (0: never).
    """

    def __init__(self, disk: Disk, fence: Fence, reserve: Reserve, block_rows: int) -> None:
        self._disk, self._fence, self._reserve = disk, fence, reserve
        self._block_rows = block_rows
        self._broken: list[Segment] = []
        self._sealing: tuple[Segment, Future[None]] | None = None
        self._thread = disk.thread()

    @property
    def is_busy(self) -> bool:
        return self._sealing is not None

    def begin(self, segment: Segment, *, crowded: bool) -> None:
        """Begins to seal `segment`; the one before it must be done."""
        self._sealing = segment, self._thread.submit(self._seal, segment, crowded)

    def give_up(self, segment: Segment) -> None:
        """Takes a segment in which a call failed.

        Its unacknowledged bytes are anybody's guess, and it is not written to again.
        """
        self._broken.append(segment)
        with contextlib.suppress(OSError):
            segment.close(self._disk)

    def settle(self, *, wait: bool) -> None:
        """Takes note of a sealing that is done; one that failed is mended.

        Raises FencedError or ShardError with which a sealing failed, OSError if mending fails.
        """
        self._take_note(wait)
        self.mend()

    def mend(self) -> None:
        """Seals segments that were given up, each at its last acknowledged byte.

        Until that works nothing else may be written: rows that may be in these segments are written
        again only once they are surely not there.
        """
        if not self._broken:
            return
        # One thread writes the manifest, and segments are sealed in order.
        self._take_note(wait=True)
        for broken in sorted(self._broken, key=lambda segment: segment.path):
            try:
                self._seal_broken(broken)
            except OSError as error:
                if not is_full(error) or not self._reserve.free():
                    raise
                self._seal_broken(broken)
            self._broken.remove(broken)

    def close(self) -> None:
        self._thread.shutdown()

    def _take_note(self, wait: bool) -> None:
        if self._sealing is None or not (wait or self._sealing[1].done()):
            return
        segment, done = self._sealing
        failed = done.exception()  # a signal that interrupts the wait leaves it on its way
        self._sealing = None
        with contextlib.suppress(OSError):
            segment.close(self._disk)
        if failed is None:
            return
        if not isinstance(failed, OSError):
            raise failed
        self._broken.append(segment)

    def _seal_broken(self, broken: Segment) -> None:
        if not self._disk.exists(broken.path.with_suffix(".arrow")):
            truncate_log(broken.path, broken.commits, self._disk)
        seal_in_place(broken.path, self._disk)

    def _seal(self, segment: Segment, crowded: bool) -> None:
        """In the thread: the segment's rows as few large blocks; else its blocks as they are."""
        if not crowded and self._rewritten(segment):
            return
        self._fence.check()
        remove_drafts(segment.path, self._disk)
        footer = segment.encoder.footer()
        segment.sha256.update(footer)
        self._disk.write(segment.data, footer)
        self._disk.sync(segment.data)
        size, digest = segment.end + len(footer), segment.sha256.hexdigest()
        publish(segment.path, segment.path, segment.last_seq + 1, size, digest, self._disk)

    def _rewritten(self, segment: Segment) -> bool:
        """Whether the rows were sealed as large blocks; False where it fails or is not worth it."""
        if not self._block_rows:
            return False
        if not is_worth_rewriting(segment.last_seq + 1, segment.commits, self._block_rows):
            return False
        try:
            rewrite(segment.path, self._disk, self._fence.check, self._block_rows)
        except FencedError:
            raise
        except (OSError, ShardError):
            if self._disk.exists(segment.path.with_suffix(".arrow")):
                raise  # it has its name; `mend` does what is left to do
            return False  # no room for a copy, or a call failed: the footer alone needs less
        return True
