"""A desktop with LibreOffice already running, made beside the one in use."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar

from envs.desktop.desktop import Desktop

_FILE_MANAGER = (
    b"[ui]\nview_mode=list;\ncolumns=name;size;\nshow_statusbar=0\nside_pane_mode=hidden;none\n"
    b"sort=name;ascending;\nwin_width=640\nwin_height=480\n"
)
_FILES = {
    ".config/pcmanfm/default/pcmanfm.conf": _FILE_MANAGER,
    ".config/libfm/libfm.conf": b"[config]\n",
}


class Spares:
    """Keeps one spare desktop for this process.

    A reset takes two seconds if it waits for a new desktop, and 0.6 s with a spare one.
    """

    _guard: ClassVar[threading.Lock] = threading.Lock()
    # One thread for all desktops, which lives as long as the process: a place is killed when the
    # thread that started it ends.
    _maker: ClassVar[ThreadPoolExecutor] = ThreadPoolExecutor(1, "desktop")
    _next: ClassVar[Future[Desktop] | None] = None

    @classmethod
    def take(cls) -> Desktop:
        """A desktop for the caller, who closes it; the next spare one is begun."""
        with cls._guard:
            taken = cls._next or cls._maker.submit(_started)
            cls._next = cls._maker.submit(_started)
        desktop = taken.result()
        # It may have died while it waited, e.g. when the machine ran out of memory.
        return desktop if desktop.alive else cls._maker.submit(_started).result()

    @classmethod
    def close(cls) -> None:
        """Ends the spare desktop, if there is one."""
        with cls._guard:
            spare = cls._next
            cls._next = None
        if spare is not None:
            spare.result().close()


def _started() -> Desktop:
    desktop = Desktop(_FILES)
    # No document and no window: LibreOffice is loaded, and the first document opens at once.
    desktop.run("soffice --norestore --nologo --nodefault")
    desktop.wait_until_started("soffice.bin")
    return desktop
