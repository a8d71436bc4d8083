"""The files of the front end: read once, served by their exact names, put together for an export.

They are modules that a browser runs as they are. A module imports by `import { a, b } from
"./x.js";` alone and exports functions and constants where it declares them; so `bundle` can join
them to one script by rewriting these two lines.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "pages"
_KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
_IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.[^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function\*?|const|let|class) (\w+))", re.MULTILINE)


@lru_cache(1)
def page_files() -> dict[str, tuple[bytes, str]]:
    """Address -> (bytes, media type). These addresses exist, and no other file can be asked for."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in _KINDS:
            name = path.relative_to(FOLDER).as_posix()
            found[f"/{name}"] = path.read_bytes(), _KINDS[path.suffix]
    found["/"] = found.pop("/index.html")
    return found


def bundle() -> str:
    """All modules as one script: each is a function that is called once, in order of imports."""
    parts: list[str] = ["const M = {};"]
    done: set[Path] = set()
    _add(FOLDER / "main.js", parts, done)
    return "\n".join(parts)


def _add(path: Path, parts: list[str], done: set[Path]) -> None:
    if path in done:
        return
    done.add(path)
    text = path.read_text()

    def bound(found: re.Match[str]) -> str:
        target = (path.parent / found[2]).resolve()
        _add(target, parts, done)
        names = found[1].replace(" as ", ": ")
        return f"const {{{names}}} = M[{_name(target)!r}];\n"

    body = _IMPORT.sub(bound, text)
    names = [found[2] for found in _EXPORT.finditer(body)]
    body = _EXPORT.sub(r"\1", body)
    parts.append(f"M[{_name(path)!r}] = (() => {{\n{body}\nreturn {{{', '.join(names)}}};\n}})();")


def _name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def styles() -> str:
    """All style sheets as one, in the order in which the page names them."""
    page = (FOLDER / "index.html").read_text()
    names = re.findall(r'href="/(styles/[\w-]+\.css)"', page)
    return "\n".join((FOLDER / name).read_text() for name in names)
