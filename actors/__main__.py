"""`python -m actors VERB`: what ./xp runs, with the checkout on the path, in the folder that it is called from."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
if str(Path.cwd()) not in sys.path:
    sys.path.append(
        str(Path.cwd())
    )  # last: a world of one's own is found, and takes the place of nothing


def _check_rooms() -> None:
    """Each of our packages must be the one of this checkout: `envs` is a common name."""
    from importlib.util import find_spec

    for name in ("experience", "actors", "envs"):
        spec = find_spec(name)
        if spec is None or spec.origin is None or _ROOT not in Path(spec.origin).resolve().parents:
            sys.exit(
                f"error: package {name!r} is {spec.origin if spec else 'missing'}, not the one below {_ROOT}\n"
                f"  run ./xp from the checkout's root, or: cd {_ROOT} && python -m actors …"
            )


_check_rooms()

from actors.cli.main import main  # noqa: E402  only after the check

main()
