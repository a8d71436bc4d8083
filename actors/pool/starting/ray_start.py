"""Starts Ray on this machine, or joins a cluster: always with a token, and without printing."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import stat
import sys
from pathlib import Path
from typing import Any

from actors import CALLED_FROM, ROOT
from actors.pool.starting.cluster import check_address
from experience.errors import ConfigError, IsolationError


def start_ray(address: str | None) -> Any:
    """Returns the module `ray`, connected to the cluster at `address` or at RAY_ADDRESS.

    Without either, Ray is started on this machine. Raises ConfigError where no cluster can be
    joined at the address, IsolationError where others could read the files of the session.
    """
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
    old = os.umask(0o077)  # Ray writes its token file now, which nobody else may read
    try:
        if address:
            _join(ray, address)
        else:
            _start_here(ray)
    except (ConnectionError, ValueError) as error:  # Ray finds no cluster, or loses it on the way
        raise ConfigError(
            f"{source}: {address or 'this machine'}: {str(error).splitlines()[0]}",
            "is a cluster up (ray status)? address=null starts Ray on this machine",
        ) from error
    finally:
        os.umask(old)
    token = Path("~/.ray/auth_token").expanduser()
    if token.exists():  # an older Ray may have written the file readable by everybody
        token.chmod(0o600)
    return ray


def _join(ray: Any, address: str) -> None:
    """Connects to a running cluster. Ray sends the code to its workers, unless a job brought it."""
    in_a_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    code = {} if in_a_job else {"working_dir": str(ROOT)}
    ray.init(
        address=address,
        logging_level=logging.WARNING,
        log_to_driver=False,
        runtime_env=code,
    )


def _start_here(ray: Any) -> None:
    """Starts a Ray of this process's own, which ends with the process."""
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
            "py_executable": shlex.quote(sys.executable),  # Ray gives the path to a shell as it is
        },
        _temp_dir=str(_session_folder()),
    )


def give_token() -> None:
    """Sets RAY_AUTH_TOKEN where Ray can keep no token file, because no home folder is writable.

    The token holds for this process and the processes that it starts.
    """
    folder = Path("~/.ray").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_kept = (folder / "auth_token").exists() or os.access(folder, os.W_OK)
    except OSError:
        is_kept = False
    if not is_kept and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _stay_on_this_machine() -> None:
    """Makes all servers of a Ray that is started here listen on loopback only.

    Ray does so itself on desktop systems, where it takes 127.0.0.1 for the node's address. On
    Linux its servers listen on all interfaces otherwise.
    """
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for Ray's other processes
    ray_constants.ENABLE_RAY_CLUSTER = False  # for this process, which has read the variable


def _session_folder() -> Path:
    """The folder of this user's Ray sessions, closed to all other users.

    Ray makes its own files readable by all, so the folder above them must be closed. It stands in
    RAY_TMPDIR or /tmp, because the path of a Unix socket in it must stay below 107 bytes. Raises
    IsolationError where the folder is not this user's alone.
    """
    folder = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / f"xp-ray-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise IsolationError(
            f"{folder} is not a folder that only you may read", f"remove it: rm -r {folder}"
        )
    return folder / "ray"  # Ray itself opens this inner folder to all


def log_ray_to(path: Path) -> None:
    """Writes to a file what Ray would print into the live table.

    These are the records of Ray's logger, and what its servers report to the driver, such as the
    death of a worker.
    """
    from ray._private import worker

    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("ray")
    log.handlers = [file]
    log.propagate = False

    def keep(data: dict[str, Any], ignore_prefix: bool = False) -> None:
        for text in data.get("lines", ()):
            log.warning("(%s) %s", data.get("pid", "ray"), text)

    worker.print_to_stdstream = keep


def session_logs(ray: Any) -> str:
    """The folder of the logs of the present Ray session."""
    return f"{ray._private.worker._global_node.get_session_dir_path()}/logs"
