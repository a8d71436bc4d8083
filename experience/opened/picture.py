"""Pictures of a turn, which a notebook shows by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Picture:
    """One picture as the world gave it. `data`: the file's bytes; `role`: what it shows."""

    media: str
    data: bytes
    width: int
    height: int
    role: str = ""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, bytes | str]:
        """What a notebook shows."""
        about = f"{self.role or 'picture'}, {self.width} × {self.height} pixels, {self.media}"
        return {self.media: self.data, "text/plain": about}
