"""`python -m actors VERB`: what ./xp runs, in the folder that it is called from."""

import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
if str(Path.cwd()) not in sys.path:
    # Last: a world of the user's own is found, and replaces no module of ours.
    sys.path.append(str(Path.cwd()))


def _check_rooms() -> None:
    """Each of our packages must be the one of this checkout: `envs` is a common name."""
    from importlib.util import find_spec

    for name in ("experience", "actors", "envs"):
        spec = find_spec(name)
        # An installed `experience` holds the other rooms: see experience/command/house.py.
        ours = {_ROOT / name, _ROOT.parent if name == "experience" else _ROOT / name}
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent not in ours:
            found = spec.origin if spec else "missing"
            sys.exit(
                f"error: package {name!r} is {found}, not the one below {_ROOT}\n"
                f"  run ./xp from the checkout's root, or: cd {_ROOT} && python -m actors …"
            )


_check_rooms()
# All verbs about worlds are those of envs, but replay, which reads runs.
if sys.argv[1:2] == ["env"] and sys.argv[2:3] != ["replay"]:
    safe = ["-P"] if sys.flags.safe_path else []
    os.execv(sys.executable, [sys.executable, *safe, "-m", "envs", *sys.argv[2:]])

from actors.cli.main import main  # noqa: E402  only after the check

main()
