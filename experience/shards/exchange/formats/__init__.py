"""The formats by name. A format is one module of this folder, and adding one touches no other file.

The module has a `NAME`, and `export` (see `Exporter`), `import_from` (see `Importer`), or both.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from experience.shards.exchange.rows.episodes import Exchanged, Placed, Rows


@runtime_checkable
class Exporter(Protocol):
    """Writes experience in a format."""

    NAME: str

    def export(self, rows: Rows, out: Path) -> Exchanged:
        """Writes all of `rows` below the folder `out`, which is there and empty."""


@runtime_checkable
class Importer(Protocol):
    """Reads experience from a format."""

    NAME: str

    def import_from(self, source: Path) -> Iterable[Placed]:
        """The steps in the file or folder `source`, each with its place, in stream order.

        It is called twice: to check all steps, then to write them. Raises ShardError with the
        place of whatever cannot be read.
        """


def modules() -> list[Any]:
    """Every module of this folder, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


_FORMATS = modules()
_BY_NAME = sorted(_FORMATS, key=lambda module: str(module.NAME))
EXPORTERS = {module.NAME: module for module in _BY_NAME if isinstance(module, Exporter)}
IMPORTERS = {module.NAME: module for module in _BY_NAME if isinstance(module, Importer)}
