"""The pool: collectors in this process or on a Ray cluster, behind one face.

RPC carries references, orders and watermarks; steps go through the shards. A Ray collector that dies is restarted
by Ray, rebuilds itself from its journal, and is told again what to do. This is the one module that knows Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shlex
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from actors import CALLED_FROM, ROOT
from actors.collecting.cluster import check_address
from actors.collecting.collector import Collector
from actors.collecting.work import Work, in_step
from actors.config.schema import Config
from actors.config.sense import names_of_secrets
from actors.output import guard
from experience.errors import ConfigError, IsolationError, XpError
from experience.interrupts import whole
from experience.models.weights import PolicyBundle
from experience.shards.catalog import Catalog
from experience.shards.redaction.redact import name_secrets
from experience.step import Step


class Pool(Protocol):
    def push(self, policy: PolicyBundle, quota: int) -> None:
        """A new policy for the collectors, and how many groups each may have started in all."""

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        """Episodes to be lived before training goes on, shared among the collectors."""

    def drop(self) -> None:
        """What was ordered and is not done is not lived any more."""

    def shards(self, until: Callable[[], bool]) -> Iterator[list[Step]]:
        """Committed steps of any collector, as they become readable; empty lists while nothing is new."""

    @property
    def restarts(self) -> int: ...

    def status(self) -> list[dict[str, Any]]: ...

    def close(self) -> dict[bytes, int]:
        """Seals all journals; the last acknowledged t per stream."""


_MOST_KEPT_BACK = 100
"""Rounds in step after which rows are given out though no episode ended: a budget of steps must see them."""


@whole
def all_new(catalog: Catalog) -> list[Step]:
    """The steps committed since the last call: all of them, or the signal that came meanwhile waits."""
    return [step for block in catalog.follow() for step in block]


class LocalPool:
    """One collector in this process: no Ray, the same collector, the same shards.

    In step, rows are given out when an episode has ended, not when the clock committed them: what the learner knows at
    each of its decisions is then the same in every run.
    """

    restarts = 0

    def __init__(self, config: Config, run_id: str, directory: Path, catalog: Catalog) -> None:
        self._catalog, self._in_step = catalog, in_step(config)
        self._collector = Collector(config, run_id, directory, 0, 1)

    def push(self, policy: PolicyBundle, quota: int) -> None:
        self._collector.load(policy, quota)

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        self._collector.order(works, policy)

    def drop(self) -> None:
        self._collector.drop()

    def shards(self, until: Callable[[], bool]) -> Iterator[list[Step]]:
        kept_back = 0
        while not until():
            closed = self._collector.closed
            busy = self._collector.pump()
            kept_back += 1
            if (
                self._in_step
                and busy
                and closed == self._collector.closed
                and kept_back < _MOST_KEPT_BACK
            ):
                yield []
                continue
            kept_back = 0
            if self._in_step or not busy:
                self._collector.journal.commit()
            yield all_new(self._catalog)

    def status(self) -> list[dict[str, Any]]:
        return [self._collector.status()]

    def close(self) -> dict[bytes, int]:
        self._collector.close()
        return dict(self._collector.journal.acknowledged)


class _RayCollector:
    """The actor: a collector whose rounds run in a thread of its own, so that calls are answered meanwhile."""

    def __init__(
        self, config: Config, run_id: str, directory: Path, index: int, collectors: int
    ) -> None:
        import torch

        name_secrets(
            names_of_secrets(config.model_dump())
        )  # on another machine nobody has read the configuration
        guard()
        torch.set_num_threads(1)
        self._collector = Collector(config, run_id, directory, index, collectors)
        self._lock = threading.Lock()
        self._stopping = False

    def work(self) -> None:
        """Collects until stopped. An error ends the call, and with it tells the driver."""
        while not self._stopping:
            with self._lock:
                busy = self._collector.pump()
                if not busy:
                    self._collector.journal.commit()
            time.sleep(0.0 if busy else 0.02)

    def load(self, policy: PolicyBundle | None, quota: int) -> None:
        with self._lock:
            self._collector.load(policy, quota)

    def order(self, works: Sequence[Work], policy: PolicyBundle | None) -> None:
        with self._lock:
            self._collector.order(works, policy)

    def drop(self) -> None:
        with self._lock:
            self._collector.drop()

    def status(self) -> dict[str, Any]:
        with self._lock:
            return {**self._collector.status(), "pid": os.getpid(), "index": self._collector.index}

    def close(self) -> dict[bytes, int]:
        self._stopping = True
        with self._lock:
            self._collector.close()
        return dict(self._collector.journal.acknowledged)


class RayPool:
    """Collectors as Ray actors. A dead one comes back and its streams go on."""

    def __init__(self, config: Config, run_id: str, directory: Path, catalog: Catalog) -> None:
        self._ray, self._catalog = start_ray(config.address), catalog
        ray = self._ray
        _keep_lines_of_ray(directory.parent / "logs" / "ray.log")
        self._directory, self._incarnations = directory, _incarnations(directory) + config.workers
        actor = ray.remote(
            num_cpus=0.5,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=4,
            scheduling_strategy="SPREAD",
        )(_RayCollector)
        self._actors = [
            actor.remote(config, run_id, directory.resolve(), i, config.workers)
            for i in range(config.workers)
        ]
        self._policy: tuple[Any, int] | None = None
        self._shared: tuple[PolicyBundle, Any] | None = None
        self._orders: list[tuple[list[Work], Any]] = []
        self._working = {i: a.work.remote() for i, a in enumerate(self._actors)}

    def push(self, policy: PolicyBundle, quota: int) -> None:
        self._policy = (self._reference(policy), quota)
        for actor in self._actors:
            actor.load.remote(*self._policy)

    def order(self, works: Sequence[Work], policy: PolicyBundle | None = None) -> None:
        reference = None if policy is None else self._reference(policy)
        self._orders.append((list(works), reference))
        for i in range(len(self._actors)):
            self._send_order(i, list(works), reference)

    def _reference(self, policy: PolicyBundle) -> Any:
        """The bundle in Ray's object store. It is put there once; every collector reads it there."""
        if self._shared is None or self._shared[0] is not policy:
            self._shared = (policy, self._ray.put(policy))
        return self._shared[1]

    def drop(self) -> None:
        self._orders.clear()
        for actor in self._actors:
            actor.drop.remote()

    def _send_order(self, index: int, works: list[Work], reference: Any) -> None:
        self._actors[index].order.remote(works[index :: len(self._actors)], reference)

    def shards(self, until: Callable[[], bool]) -> Iterator[list[Step]]:
        while not until():
            self._revive()
            steps = all_new(self._catalog)
            if not steps:
                time.sleep(0.05)
            yield steps

    @property
    def restarts(self) -> int:
        """How often a collector came back, as their journals' incarnations tell."""
        return max(_incarnations(self._directory) - self._incarnations, 0)

    def _revive(self) -> None:
        """Tells a restarted collector its policy and its orders; it skips what its journal says is done."""
        ray = self._ray
        ended, _ = ray.wait(list(self._working.values()), num_returns=len(self._working), timeout=0)
        for index in [i for i, reference in self._working.items() if reference in ended]:
            try:
                ray.get(self._working[index])
            except ray.exceptions.RayTaskError as error:
                raise XpError(
                    f"collector {index} failed: {error.cause or error}",
                    "logs/ray.log in the run directory has what Ray said; the run can be resumed",
                ) from error
            except ray.exceptions.ActorUnschedulableError as error:
                raise XpError(
                    f"collector {index} could not be started: {str(error).splitlines()[0]}",
                    "Ray's own logs say why: raylet.err and worker-*.err in the logs of its session "
                    f"({_logs_of(ray)})",
                ) from error
            except ray.exceptions.RayActorError:
                pass  # it is dead or on its way back; told again below until it takes the work up
            actor = self._actors[index]
            if self._policy is not None:
                actor.load.remote(*self._policy)
            for works, reference in self._orders:
                self._send_order(index, works, reference)
            self._working[index] = actor.work.remote()

    def status(self, seconds: float = 5.0) -> list[dict[str, Any]]:
        """One entry a collector that answers within `seconds`; a restarting one is left out."""
        asked = [a.status.remote() for a in self._actors]
        found = []
        deadline = time.monotonic() + seconds
        for reference in asked:
            with contextlib.suppress(self._ray.exceptions.RayError):
                found.append(
                    self._ray.get(reference, timeout=max(deadline - time.monotonic(), 0.01))
                )
        return found

    def close(self) -> dict[bytes, int]:
        """Seals every journal and ends the collectors; what a dead one left open is sealed on resume."""
        acknowledged: dict[bytes, int] = {}
        for reference in [a.close.remote() for a in self._actors]:
            with contextlib.suppress(self._ray.exceptions.RayError):
                acknowledged |= self._ray.get(reference, timeout=60)
        for actor in self._actors:
            self._ray.kill(actor)
        return acknowledged


def _logs_of(ray: Any) -> str:
    return f"{ray._private.worker._global_node.get_session_dir_path()}/logs"


def _keep_lines_of_ray(path: Path) -> None:
    """Sends what Ray would print in the midst of the live table to a file: its logger's records, and what its servers
    report to the driver, such as the death of a worker."""
    from ray._private import worker

    path.parent.mkdir(parents=True, exist_ok=True)
    log, file = logging.getLogger("ray"), logging.FileHandler(path, delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.handlers, log.propagate = [file], False

    def keep(data: dict[str, Any], ignore_prefix: bool = False) -> None:
        for text in data.get("lines", ()):
            log.warning("(%s) %s", data.get("pid", "ray"), text)

    worker.print_to_stdstream = keep


def _incarnations(directory: Path) -> int:
    return len(list(directory.glob("*/epoch-*")))


def start_ray(address: str | None) -> Any:
    """Ray, joined to the cluster at `address` or RAY_ADDRESS, else started on this machine; always with a token."""
    if "ray" not in sys.modules:  # Ray reads its authentication mode once, when it is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return ray
    source = "address" if address else "RAY_ADDRESS"
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        check_address(address, source)
    old = os.umask(0o077)  # Ray writes its token file; nobody else may read it
    try:
        if address:
            in_a_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # which brought the code
            code = {} if in_a_job else {"working_dir": str(ROOT)}
            ray.init(
                address=address,
                logging_level=logging.WARNING,
                log_to_driver=False,
                runtime_env=code,
            )
        else:
            _stay_on_this_machine()
            give_token()
            ray.init(
                address="local",
                include_dashboard=False,
                logging_level=logging.WARNING,
                log_to_driver=False,
                num_cpus=max(os.cpu_count() or 1, 2),
                object_store_memory=256 << 20,
                runtime_env={
                    "env_vars": {"PYTHONPATH": f"{ROOT}:{CALLED_FROM}"},
                    "py_executable": shlex.quote(sys.executable),
                },  # Ray gives it to a shell as it is
                _temp_dir=str(_session_folder()),
            )
    except (
        ConnectionError,
        ValueError,
    ) as error:  # an address that Ray does not find, or not in the end
        raise ConfigError(
            f"{source}: {address or 'this machine'}: {str(error).splitlines()[0]}",
            "is a cluster up (ray status)? address=null starts Ray on this machine",
        ) from error
    finally:
        os.umask(old)
    token = Path("~/.ray/auth_token").expanduser()
    if token.exists():  # an older Ray may have written it for everybody to read
        token.chmod(0o600)
    return ray


def give_token() -> None:
    """Where Ray can keep no token file, for there is no home that can be written to, a token for this process and those
    that it starts: the run goes on as safe as any."""
    folder = Path("~/.ray").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_kept = (folder / "auth_token").exists() or os.access(folder, os.W_OK)
    except OSError:
        is_kept = False
    if not is_kept and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _stay_on_this_machine() -> None:
    """Makes every server of a Ray that is started here listen on loopback only: as Ray does on a desktop's system,
    where it takes 127.0.0.1 for the node's address. On Linux its servers listen on all interfaces otherwise."""
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for its other processes
    ray_constants.ENABLE_RAY_CLUSTER = False  # for this one, which has read the variable


def _session_folder() -> Path:
    """The folder of this user's Ray sessions, closed to everybody else: Ray makes its own files readable by all.

    It stands in RAY_TMPDIR or /tmp: the path of a Unix socket in it must stay below 107 bytes. Raises IsolationError
    where the folder is not this user's alone.
    """
    folder = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / f"xp-ray-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise IsolationError(
            f"{folder} is not a folder that only you may read", f"remove it: rm -r {folder}"
        )
    return folder / "ray"  # which Ray itself opens to all


def make_pool(config: Config, run_id: str, directory: Path, catalog: Catalog) -> Pool:
    return (RayPool if config.workers else LocalPool)(config, run_id, directory, catalog)
