"""A real MediaWiki (Debian's package) as a site: every request is one run of its PHP in a place.

A place has no network; of this machine's files it may write the wiki's own folder and a folder of
compiled PHP, which the wikis of one process share. A wiki is installed and written once a process;
every episode gets a copy. Pages come with their styles and without their scripts. MediaWiki's clock
is set, so that the same actions give the same pages. Not covered: a bug of MediaWiki or PHP that
writes into compiled PHP reaches the later episodes of the process.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from envs.browser.chrome.routing import Reply, Request
from envs.sandbox import confine
from experience.errors import EnvironmentFailure, MissingPartError

ROOT = Path("/usr/share/mediawiki")
Texts = dict[str, str]
"""Title -> the latest text of that page."""

_REQUEST_SECONDS = 30.0
_SCRIPT_SECONDS = 120
_MOST_REDIRECTS = 5
_PICTURES = {".png": "image/png", ".svg": "image/svg+xml", ".gif": "image/gif"}
# No cache may hold what an earlier request saw, and no job may run behind the agent's back. A
# visitor may move pages, so that no login is needed.
_SETTINGS = """
$wgMainCacheType = CACHE_NONE; $wgSessionCacheType = CACHE_DB; $wgParserCacheType = CACHE_NONE;
$wgJobRunRate = 0; $wgLocalisationCacheConf['store'] = 'array'; $wgCacheDirectory = '/data/cache';
$wgGroupPermissions['*']['move'] = true; $wgRateLimits = [];
$wgEnableUploads = false; $wgCapitalLinks = true;
Wikimedia\\Timestamp\\ConvertibleTimestamp::setFakeTime(getenv('XP_CLOCK') ?: '20260101000000');
"""
_INSTALL = (
    *("--dbtype", "sqlite", "--dbpath", "/data", "--confpath", "/data", "--scriptpath", ""),
    *("--server", "http://wiki.test", "--pass", "not a secret 1", "--skins", "Vector"),
    *("Wiki", "Admin"),
)
_PHP_OPTIONS = (
    "opcache.enable=1",
    "opcache.file_cache=/compiled",
    "opcache.file_cache_only=1",  # a CGI process ends with its request, and its memory with it
    "opcache.validate_timestamps=0",
)
# As MediaWiki writes time: 2026-01-01 00:00:00. Each request is a second later.
_CLOCK = 20260101000000
_TEXTS = """
select page_namespace, page_title, old_text from page
join slots on slot_revision_id = page_latest
join content on content_id = slot_content_id
join text on old_id = cast(substr(content_address, 4) as integer)
"""


class Site:
    """One wiki: a folder with its database, its visitor's cookies, and the PHP that answers."""

    def __init__(self, compiled: Path) -> None:
        """An empty folder. `compiled` is where PHP keeps what it has compiled."""
        self._folder = confine.folder("xp-wiki-")
        self._data = Path(self._folder.name)
        self._compiled = compiled
        self._cookies: dict[str, str] = {}
        self._seconds = 0

    @classmethod
    def fresh(cls, pages: tuple[tuple[str, str], ...]) -> Site:
        """A wiki of those (title, text): a copy of one that this process has written once.

        Raises MissingPartError without MediaWiki or PHP.
        """
        original = _installed(pages)
        made = cls(original._compiled)
        shutil.copytree(original._data, made._data, dirs_exist_ok=True)
        made._seconds = 60  # a minute after the start of the first one
        confine.give(made._data)
        return made

    def install(self) -> None:
        """Makes the empty folder a wiki without pages."""
        self._run("install.php", *_INSTALL)
        settings = self._data / "LocalSettings.php"
        settings.write_text(settings.read_text() + _SETTINGS)
        (self._data / "cache").mkdir()
        confine.give(self._data)

    def write(self, title: str, text: str, who: str) -> None:
        """Writes a revision of a page as if `who` had made it."""
        self._seconds += 1
        self._run("edit.php", "-u", who, title, stdin=text.encode())

    def _run(self, script: str, *words: str, stdin: bytes = b"") -> None:
        program = str(ROOT / "maintenance" / script)
        variables = [f"{name}={value}" for name, value in self._environment().items()]
        done = confine.run(
            ["env", *variables, "php", program, *words],
            seconds=_SCRIPT_SECONDS,
            stdin=stdin,
            **self.place(),
        )
        if done.returncode:
            raise EnvironmentFailure(
                f"MediaWiki's {script} failed: {done.stdout.decode('utf-8', 'replace')[-300:]}",
                "./xp setup wiki installs all that it needs",
            )

    def place(self) -> dict[str, Any]:
        """What the place of this wiki's PHP may read and write."""
        return {
            "writable": {self._data: "/data", self._compiled: "/compiled"},
            "readable": [Path("/etc/php")],
        }

    def _environment(self) -> dict[str, str]:
        found = {"XP_CLOCK": str(_CLOCK + self._seconds // 60 * 100 + self._seconds % 60)}
        if (self._data / "LocalSettings.php").exists():  # not yet while it is being installed
            found["MW_CONFIG_FILE"] = "/data/LocalSettings.php"
        return found

    def answer(self, request: Request) -> Reply:
        """MediaWiki's answer. Redirects within the site are followed here, and cookies kept here.

        The browser would follow a redirect to an address that its route does not see.
        """
        if request.path.startswith(("/resources/", "/skins/")):
            return _picture(request.path)
        for _ in range(_MOST_REDIRECTS):
            headers, body = self._cgi(request)
            status = int(headers.get("status", "200").split()[0])
            if status not in (301, 302, 303, 307):
                return Reply(status, headers.get("content-type", "text/html"), body)
            target = urlsplit(headers["location"])
            request = Request("GET", target.path or "/", target.query, b"", "")
        return Reply(508, "text/plain", b"redirected in a circle")

    def _cgi(self, request: Request) -> tuple[dict[str, str], bytes]:
        """(headers, body) of one run of MediaWiki."""
        script = request.path.lstrip("/").partition("/")[0] or "index.php"
        if script not in ("index.php", "load.php"):  # the others are for programs and for admins
            return _refusal("404", b"no such page")
        if script == "load.php" and "only=styles" not in request.query:
            return _refusal("404", b"no scripts here")
        if script == "index.php":
            self._seconds += 1
        pipe = subprocess.PIPE
        process = confine.start(
            ["php-cgi", *(word for option in _PHP_OPTIONS for word in ("-d", option))],
            environment=_variables(script, request, self._cookies) | self._environment(),
            pipes={"stdin": pipe, "stdout": pipe, "stderr": subprocess.DEVNULL},
            **self.place(),
        )
        try:
            output, _ = process.communicate(request.body, timeout=_REQUEST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return _refusal("504", b"the wiki did not answer")
        headers, cookies, body = _read_output(output)
        self._cookies |= cookies
        return headers, body

    def texts(self) -> Texts:
        """Every page's latest text, from the database."""
        base = f"file:{self._data}/my_wiki.sqlite?mode=ro"
        with closing(sqlite3.connect(base, uri=True)) as connection:
            rows = connection.execute(_TEXTS).fetchall()
        return {_title(space, _text(title)): _text(text).strip() for space, title, text in rows}

    def close(self) -> None:
        self._folder.cleanup()


@lru_cache(maxsize=1)
def _compiled() -> tempfile.TemporaryDirectory[str]:
    """Where PHP keeps what it has compiled, for all wikis of this process."""
    return confine.folder("xp-wiki-")


@lru_cache(maxsize=1)
def _installed(pages: tuple[tuple[str, str], ...]) -> Site:
    """The wiki that all others of this process are copied from."""
    programs = shutil.which("php-cgi") and shutil.which("php")
    if not programs or not (ROOT / "index.php").is_file():
        raise MissingPartError("browser/wiki needs Debian's mediawiki and PHP", "./xp setup wiki")
    site = Site(Path(_compiled().name))
    site.install()
    for title, text in pages:
        site.write(title, text, "Admin")
    return site


def _variables(script: str, request: Request, cookies: Mapping[str, str]) -> dict[str, str]:
    """The variables of CGI/1.1 (RFC 3875) for a request."""
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SCRIPT_FILENAME": str(ROOT / script),
        "SCRIPT_NAME": f"/{script}",
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": request.query,
        "SERVER_NAME": "wiki.test",
        "REQUEST_URI": f"/{script}?{request.query}",
        "HTTP_HOST": "wiki.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",  # of a network for documentation: it is nobody's
        "REDIRECT_STATUS": "200",  # php-cgi refuses to run without
        "CONTENT_LENGTH": str(len(request.body)),
        "CONTENT_TYPE": request.content_type,
        "HTTP_COOKIE": "; ".join(f"{name}={value}" for name, value in cookies.items()),
    }


def _read_output(output: bytes) -> tuple[dict[str, str], dict[str, str], bytes]:
    """(headers by lower-case name, cookies that are set, body) of a CGI program's output."""
    head, _, body = output.partition(b"\r\n\r\n")
    headers: dict[str, str] = {}
    cookies: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "set-cookie":
            cookie, _, content = value.split(";")[0].strip().partition("=")
            cookies[cookie] = content
        else:
            headers[name.lower()] = value.strip()
    return headers, cookies, body


def _refusal(status: str, reason: bytes) -> tuple[dict[str, str], bytes]:
    return {"status": status, "content-type": "text/plain"}, reason


def _picture(path: str) -> Reply:
    """One of MediaWiki's own pictures; 404 for any other file."""
    file = (ROOT / path.lstrip("/")).resolve()
    kind = _PICTURES.get(Path(path).suffix, "")
    # Below /usr/share, not ROOT: Debian links some of MediaWiki's folders to other packages'.
    if not kind or not file.is_relative_to("/usr/share") or not file.is_file():
        return Reply(404, "text/plain", b"no such picture")
    return Reply(200, kind, file.read_bytes())


def _title(namespace: int, title: str) -> str:
    """A page's title as MediaWiki shows it, with its namespace's number before it unless 0."""
    return f"{namespace}:{title}".removeprefix("0:").replace("_", " ")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
