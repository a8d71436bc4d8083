"""Versions of a policy in a server: LoRA adapters, each under a name of its own.

A request names its version. Old versions stay beside the new one for as long as somebody holds
them: a request that was begun with one, or an evaluation that is pinned to it.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from actors.engines.servers.connection import Connection, Refused
from experience.errors import EngineError
from experience.models.lora import write_adapter
from experience.models.weights import Weights


class AdapterShelf:
    """The adapters that this process has put into one server.

    Invariant: a name stands for one version with one SHA-256, and for nothing else ever.
    folder: where the files are written; the server must see it. ensure: starts the server.
    """

    def __init__(
        self, connection: Connection, folder: Path, alpha: float, ensure: Callable[[], object]
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._alpha = alpha
        self._ensure = ensure
        self._holders: dict[str, int] = {}
        # two processes may put adapters into one server, and neither removes those of the other
        self._own = uuid.uuid4().hex[:8]
        # two locks, for loading takes long, and no request waits for it
        self._loading = threading.Lock()
        self._counting = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The names of the adapters that are held, the oldest first."""
        return list(self._holders)

    def put(self, weights: Weights) -> str:
        """Loads one version, and holds it; returns its name. Versions that nobody holds any more
        leave the server and the disk.

        Raises WeightsError if the bytes do not match their hash, EngineError if the server does
        not take them.
        """
        name = f"xp-{self._own}-v{weights.version}-{weights.sha256[:12]}"
        with self._loading:
            folder = self._folder / name
            if name not in self._holders:
                write_adapter(weights, folder, self._alpha)
                self._load(name)
            with self._counting:
                self._holders[name] = self._holders.get(name, 0) + 1
            self._sweep()
        return name

    def hold(self, name: str) -> None:
        """One more holder of a version that is held, such as a request."""
        with self._counting:
            self._holders[name] += 1

    def release(self, name: str) -> None:
        """One holder less. It waits for nothing: the next `put` or `sweep` removes the version."""
        with self._counting:
            self._holders[name] -= 1

    def again(self, name: str) -> None:
        """Loads a version again: the server has lost it, for it was started anew."""
        with self._loading:
            self._load(name)

    def sweep(self) -> None:
        """Removes what nobody holds."""
        with self._loading:
            self._sweep()

    def _sweep(self) -> None:
        with self._counting:
            free = [name for name, holders in self._holders.items() if not holders]
            for name in free:
                del self._holders[name]
        for name in free:
            # a server that began again, or is gone, has none
            with contextlib.suppress(EngineError):
                self._connection.post("/v1/unload_lora_adapter", {"lora_name": name})
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def _load(self, name: str) -> None:
        self._ensure()
        path = str((self._folder / name).absolute())
        try:
            self._connection.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})
        except Refused as refused:
            # it was loaded, and the answer was lost: the name says that it is the same
            if "already been loaded" not in str(refused):
                raise
