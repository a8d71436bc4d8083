"""The programs that a desktop is made of, and the Debian packages that bring them."""

from __future__ import annotations

import glob
import shutil
from importlib.util import find_spec

from experience.errors import MissingPartError

REGISTRY = "/usr/libexec/at-spi2-registryd"
"""The accessibility registry, which stands in no folder of PATH."""
_PROGRAMS = {
    "Xvfb": "xvfb",
    "openbox": "openbox",
    "dbus-daemon": "dbus-daemon",
    "mousepad": "mousepad",
    "galculator": "galculator",
    "pcmanfm": "pcmanfm",
    "lxterminal": "lxterminal",
    "localc": "libreoffice-calc",
    "lowriter": "libreoffice-writer",
}
"""Program -> its package."""
_FILES = {
    REGISTRY: "at-spi2-core",
    "/usr/lib/*/gtk-2.0/modules/libatk-bridge.so": "libatk-adaptor",
    "/usr/lib/*/gtk-2.0/modules/libgail.so": "libgail-common",
    "/usr/lib/libreoffice/program/libvclplug_gtk3lo.so": "libreoffice-gtk3",
    "/usr/lib/python3/dist-packages/uno.py": "python3-uno",
}
"""File that must exist -> its package. Without these, programs start but say nothing over AT-SPI
(or, for the last one, the document judge does not start)."""
_PYTHON_PACKAGES = ("xcffib", "jeepney")


def programs() -> str:
    """The programs of a desktop, by name. Raises MissingPartError for what is not installed."""
    missing = [package for name, package in _PROGRAMS.items() if not shutil.which(name)]
    missing += [package for pattern, package in _FILES.items() if not glob.glob(pattern)]
    missing += [
        f"the Python package {name}" for name in _PYTHON_PACKAGES if find_spec(name) is None
    ]
    if missing:
        raise MissingPartError(f"a desktop needs {', '.join(missing)}", "./xp setup worlds")
    return ", ".join(_PROGRAMS)
