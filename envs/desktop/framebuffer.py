"""The picture of a desktop, read from the file that Xvfb draws into.

The file is read with `pread`. If a program inside the place cuts the file short, the read is short,
which is an error here; reading a memory map would crash this process.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

from envs.desktop.display import HEIGHT, WIDTH
from experience.errors import EnvironmentFailure

# Xvfb writes a dump of X Window (XWDFile.h): 25 words of 32 bits, a colour table, the pixels.
_HEADER_BYTES = 100
_VERSION = 7
_COLOUR_BYTES = 12


class Framebuffer:
    """The pixels of a display, from the open file of Xvfb."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._first_pixel, self._row_bytes = self._layout()

    def close(self) -> None:
        self._file.close()

    def pixels(self) -> bytes:
        """The picture now: 32 bits a pixel, blue first, row by row."""
        size = self._row_bytes * HEIGHT
        data = os.pread(self._file.fileno(), size, self._first_pixel)
        if len(data) != size:
            raise EnvironmentFailure(
                "the display's picture was cut short", "the desktop is built anew"
            )
        return data

    def png(self) -> bytes:
        from PIL import Image

        picture = Image.frombuffer(
            "RGB", (WIDTH, HEIGHT), self.pixels(), "raw", "BGRX", self._row_bytes, 1
        )
        out = io.BytesIO()
        picture.save(out, "png", compress_level=1)
        return out.getvalue()

    def _layout(self) -> tuple[int, int]:
        """(position of the first pixel, bytes of a row) in the file."""
        header = os.pread(self._file.fileno(), _HEADER_BYTES, 0)
        if len(header) < _HEADER_BYTES:
            raise EnvironmentFailure("the display draws no picture", "the desktop is built anew")
        # The version's place is fixed, so its value tells the byte order.
        is_big_endian = struct.unpack(">I", header[4:8])[0] == _VERSION
        fields = struct.unpack(">25I" if is_big_endian else "<25I", header)
        header_bytes = fields[0]
        width, height = fields[4:6]
        row_bytes = fields[12]
        colours = fields[19]
        if (width, height) != (WIDTH, HEIGHT):
            raise EnvironmentFailure(f"the display is {width}x{height}, not {WIDTH}x{HEIGHT}")
        return header_bytes + _COLOUR_BYTES * colours, row_bytes


def open_framebuffer(folder: Path) -> Framebuffer | None:
    """The framebuffer in Xvfb's folder, or None while Xvfb has not drawn a whole picture."""
    try:
        # O_NOFOLLOW: the folder is in the place, where an agent's program could put a link.
        descriptor = os.open(folder / "Xvfb_screen0", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    file = io.FileIO(descriptor)
    if os.fstat(descriptor).st_size > WIDTH * HEIGHT * 4:
        return Framebuffer(file)
    file.close()
    return None
