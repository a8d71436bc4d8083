"""browser/wiki: errands in a real MediaWiki (Debian's package) over its own SQLite database.

Every request is answered by MediaWiki itself, in a place without a network, on a copy of a wiki
that was installed and written once a process; its pages come with their styles and without their
scripts. What counts is the database at the end: every page's latest text, held against what it
should be. MediaWiki's clock is set, so that the same actions give the same pages. Optional: `./xp
setup wiki`.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import numpy as np

from envs.authoring import Outcome, SignalKind, action
from envs.browser.chrome.chromium import Reply, Request
from envs.browser.site_world import SiteTools
from envs.sandbox import confine
from experience.errors import EnvironmentFailure, MissingPartError

ROOT = Path("/usr/share/mediawiki")
THINGS = (
    "Printer",
    "Door",
    "Lift",
    "Screen",
    "Phone",
    "Heating",
    "Window",
    "Lamp",
    "Oven",
    "Fridge",
    "Scanner",
    "Safe",
)
PEOPLE = ("Ann", "Bob", "Cyd", "Dan", "Eve", "Fay", "Gus", "Hal")
SUBJECTS = (
    "Tea rota",
    "Lunch list",
    "Key list",
    "Holiday plan",
    "Fire drill",
    "Parking",
    "Visitors",
    "Recycling",
)
_SECONDS, _REDIRECTS = 30.0, 5
_PICTURES = {".png": "image/png", ".svg": "image/svg+xml", ".gif": "image/gif"}
_SETTINGS = """
$wgMainCacheType = CACHE_NONE; $wgSessionCacheType = CACHE_DB; $wgParserCacheType = CACHE_NONE;
$wgJobRunRate = 0; $wgLocalisationCacheConf['store'] = 'array'; $wgCacheDirectory = '/data/cache';
$wgGroupPermissions['*']['move'] = true; $wgRateLimits = []; $wgEnableUploads = false; $wgCapitalLinks = true;
Wikimedia\\Timestamp\\ConvertibleTimestamp::setFakeTime(getenv('XP_CLOCK') ?: '20260101000000');
"""
_CLOCK = 20260101000000  # of the first request; each is a second later

Texts = dict[str, str]
"""Title -> the latest text of it."""


@dataclass(frozen=True)
class WikiTask:
    """The goal as told, the pages it changes with their texts then, and the clicks of an expert.
    `spoilt` is what somebody has made of the page before."""

    goal: str
    change: tuple[tuple[str, str], ...]
    clicks: tuple[str, ...]
    spoilt: str = ""


def article(thing: str) -> str:
    """What the wiki says of a thing at first."""
    n = THINGS.index(thing)
    return f"The {thing.lower()} is in room {n + 3}. Ask {PEOPLE[n % len(PEOPLE)]}."


def _rewrite(rng: np.random.Generator) -> WikiTask:
    thing, room, who = str(rng.choice(THINGS)), int(rng.integers(20, 60)), str(rng.choice(PEOPLE))
    text = f"The {thing.lower()} is in room {room}. Ask {who}."
    return WikiTask(
        f"Let the page {thing} say: {text}",
        ((thing, text),),
        (
            f"goto /index.php?title={thing}&action=edit",
            f"type Wikitext source editor {text}",
            "click Save changes",
        ),
    )


def _create(rng: np.random.Generator) -> WikiTask:
    subject, who, thing = (
        str(rng.choice(SUBJECTS)),
        str(rng.choice(PEOPLE)),
        str(rng.choice(THINGS)),
    )
    text = f"{who} looks after it, with [[{thing}]]."
    return WikiTask(
        f"Write a page {subject} that says: {text}",
        ((subject, text),),
        (
            f"goto /index.php?title={quote(subject)}&action=edit",
            f"type Wikitext source editor {text}",
            "click Save page",
        ),
    )


def _move(rng: np.random.Generator) -> WikiTask:
    thing, number = str(rng.choice(THINGS)), int(rng.integers(2, 30))
    name = f"{thing} {number}"
    return WikiTask(
        f"Rename the page {thing} to {name}",
        ((name, article(thing)), (thing, f"#REDIRECT [[{name}]]")),
        (
            f"goto /index.php?title=Special:MovePage/{thing}",
            f"type [{thing}] {name}",
            "click Move page",
        ),
    )


def _mend(rng: np.random.Generator) -> WikiTask:
    thing, word = (
        str(rng.choice(THINGS)),
        str(rng.choice(["nonsense", "lol", "spam", "rubbish", "blah"])),
    )
    times = int(rng.integers(2, 12))
    return WikiTask(
        f"Someone has spoilt the page {thing}: bring back what it said",
        ((thing, article(thing)),),
        (f"goto /index.php?title={thing}&action=history", "click undo", "click Save changes"),
        " ".join([word] * times),
    )


KINDS: tuple[Callable[[np.random.Generator], WikiTask], ...] = (_rewrite, _create, _move, _mend)


class Site:
    """A MediaWiki of its own: a folder with its database, and the program that answers for it."""

    _installed: ClassVar[Site | None] = None
    _compiled: ClassVar[tempfile.TemporaryDirectory[str] | None] = None

    def __init__(self) -> None:
        self._folder = confine.folder("xp-wiki-")
        self._data = Path(self._folder.name)
        self._cookies: dict[str, str] = {}
        self._asked = 0

    @classmethod
    def fresh(cls) -> Site:
        """A copy of what this process installs and writes once."""
        if cls._installed is None:
            first = cls()
            first._install()
            cls._installed = first
        made = cls()
        shutil.copytree(cls._installed._data, made._data, dirs_exist_ok=True)
        made._asked = 60  # a minute after the first was written
        confine.give(made._data)
        return made

    def _install(self) -> None:
        if (
            not (ROOT / "index.php").is_file()
            or shutil.which("php-cgi") is None
            or shutil.which("php") is None
        ):
            raise MissingPartError(
                "browser/wiki needs Debian's mediawiki and PHP", "./xp setup wiki"
            )
        Site._compiled = confine.folder("xp-wiki-")
        self._run(
            "install.php",
            "--dbtype",
            "sqlite",
            "--dbpath",
            "/data",
            "--confpath",
            "/data",
            "--scriptpath",
            "",
            "--server",
            "http://wiki.test",
            "--pass",
            "not a secret 1",
            "--skins",
            "Vector",
            "Wiki",
            "Admin",
        )
        settings = self._data / "LocalSettings.php"
        settings.write_text(settings.read_text() + _SETTINGS)
        (self._data / "cache").mkdir()
        confine.give(self._data)
        self.write("Main Page", "\n".join(f"* [[{thing}]]" for thing in THINGS), "Admin")
        for thing in THINGS:
            self.write(thing, article(thing), "Admin")

    def _place(self) -> dict[str, Any]:
        assert Site._compiled is not None
        return {
            "writable": {self._data: "/data", Path(Site._compiled.name): "/compiled"},
            "readable": [Path("/etc/php")],
        }

    def write(self, title: str, text: str, who: str) -> None:
        """A revision from outside, as if `who` had made it."""
        self._asked += 1
        self._run("edit.php", "-u", who, title, stdin=text.encode())

    def _run(self, script: str, *words: str, stdin: bytes = b"") -> None:
        done = confine.run(
            ["env", *self._environment(), "php", str(ROOT / "maintenance" / script), *words],
            seconds=120,
            stdin=stdin,
            **self._place(),
        )
        if done.returncode:
            raise EnvironmentFailure(
                f"MediaWiki's {script} failed: {done.stdout.decode('utf-8', 'replace')[-300:]}",
                "./xp setup wiki installs all that it needs",
            )

    def _environment(self) -> list[str]:
        config = (
            ["MW_CONFIG_FILE=/data/LocalSettings.php"]
            if (self._data / "LocalSettings.php").exists()
            else []
        )
        return [*config, f"XP_CLOCK={_CLOCK + self._asked // 60 * 100 + self._asked % 60}"]

    def answer(self, asked: Request) -> Reply:
        """MediaWiki's answer; a redirect within the site is followed here, and its cookies are kept
        here."""
        if asked.path.startswith(("/resources/", "/skins/")):
            return _picture(asked.path)
        for _ in range(_REDIRECTS):
            head, body = self._cgi(asked)
            status = int(head.get("status", "200").split()[0])
            if status not in (301, 302, 303, 307):
                return Reply(status, head.get("content-type", "text/html"), body)
            to = urlsplit(head["location"])
            asked = Request("GET", to.path or "/", to.query, b"", "")
        return Reply(508, "text/plain", b"redirected in a circle")

    def _cgi(self, asked: Request) -> tuple[dict[str, str], bytes]:
        script = asked.path.lstrip("/").partition("/")[0] or "index.php"
        if script not in ("index.php", "load.php"):  # its other doors are for programs
            return {"status": "404", "content-type": "text/plain"}, b"no such page"
        if script == "load.php" and "only=styles" not in asked.query:
            return {"status": "404", "content-type": "text/plain"}, b"no scripts here"
        self._asked += script == "index.php"
        told = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SCRIPT_FILENAME": str(ROOT / script),
            "SCRIPT_NAME": f"/{script}",
            "REQUEST_METHOD": asked.method,
            "QUERY_STRING": asked.query,
            "SERVER_NAME": "wiki.test",
            "REQUEST_URI": f"/{script}?{asked.query}",
            "HTTP_HOST": "wiki.test",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "REDIRECT_STATUS": "200",
            "CONTENT_LENGTH": str(len(asked.body)),
            "CONTENT_TYPE": asked.content_type,
            "HTTP_COOKIE": "; ".join(f"{n}={v}" for n, v in self._cookies.items()),
            **dict(e.split("=", 1) for e in self._environment()),
        }
        compiled = (
            "opcache.enable=1",
            "opcache.file_cache=/compiled",
            "opcache.file_cache_only=1",
            "opcache.validate_timestamps=0",
        )
        process = confine.start(
            ["php-cgi", *(w for c in compiled for w in ("-d", c))],
            environment=told,
            pipes={
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.DEVNULL,
            },
            **self._place(),
        )
        try:
            output, _ = process.communicate(asked.body, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return {"status": "504", "content-type": "text/plain"}, b"the wiki did not answer"
        head, _, body = output.partition(b"\r\n\r\n")
        found: dict[str, str] = {}
        for line in head.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            if name.lower() == "set-cookie":
                cookie, _, content = value.split(";")[0].strip().partition("=")
                self._cookies[cookie] = content
            else:
                found[name.lower()] = value.strip()
        return found, body

    def texts(self) -> Texts:
        """Every page's latest text, from the database."""
        with closing(
            sqlite3.connect(f"file:{self._data}/my_wiki.sqlite?mode=ro", uri=True)
        ) as base:
            rows = base.execute(
                "select page_namespace, page_title, old_text from page join slots on "
                "slot_revision_id = page_latest "
                "join content on content_id = slot_content_id "
                "join text on old_id = cast(substr(content_address, 4) as integer)"
            ).fetchall()
        return {
            f"{namespace}:{_text(title)}".removeprefix("0:").replace("_", " "): _text(text).strip()
            for namespace, title, text in rows
        }

    def close(self) -> None:
        self._folder.cleanup()


def _picture(path: str) -> Reply:
    """One of MediaWiki's own pictures."""
    file, kind = (ROOT / path.lstrip("/")).resolve(), _PICTURES.get(Path(path).suffix, "")
    if not kind or not file.is_relative_to("/usr/share") or not file.is_file():
        return Reply(404, "text/plain", b"no such picture")
    return Reply(200, kind, file.read_bytes())


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


class Wiki(SiteTools[WikiTask]):
    max_turns = 12
    observation_characters: ClassVar[int] = 8000
    places = (
        "/index.php?title=Main_Page",
        "/index.php?title=Special:AllPages",
        "/index.php?title=Special:RecentChanges",
    )
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "done": SignalKind("fraction", "env_state"),
        "wrong_changes": SignalKind("count", "env_state"),
        "actions": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {
        "done": 1.0,
        "wrong_changes": -0.1,
        "actions": -0.01,
    }
    cheats = (
        "finish",
        "goto /api.php?action=edit&title=Printer&text=done",
        "goto /load.php",
        "goto //evil.test/",
        "goto /index.php?title=Special:UserLogin",
        "goto javascript:document.title='done'",
        "goto /mw-config/",
        "goto /index.php?title=Printer&action=raw",
        "goto /../../etc/passwd",
        "click 999",
        "goto /index.php?title=Printer&action=delete",
        "goto data:text/html,done",
    )
    oracle_target: ClassVar[float] = 0.9

    def __init__(self, screenshots: bool = False) -> None:
        super().__init__(screenshots)
        self._site: Site | None = None

    def draw(self, rng: np.random.Generator) -> WikiTask:
        return KINDS[int(rng.integers(len(KINDS)))](rng)

    def signature(self, task: WikiTask) -> str:
        return f"{task.goal} {task.spoilt}".strip()

    @property
    def goal(self) -> str:
        return self.task.goal

    @property
    def site(self) -> Site:
        assert self._site is not None
        return self._site

    def begin(self) -> None:
        self.close()
        self._site = Site.fresh()
        if self.task.spoilt:
            self.site.write(self.task.change[0][0], self.task.spoilt, "Hal")
        self._before = self.site.texts()
        self._clicks = list(self.task.clicks)
        self.visit("wiki", self.site.answer, styled=True)
        self.look()

    @action
    def finish(self) -> Outcome:
        """Say that the errand is done."""
        now, wanted = self.site.texts(), dict(self.task.change)
        right = [title for title, text in wanted.items() if now.get(title) == text]
        other = [
            title
            for title in now.keys() | self._before.keys()
            if title not in wanted and now.get(title) != self._before.get(title)
        ]
        return {
            "done": (float(len(right) == len(wanted)), f"{len(right)} of {len(wanted)} pages"),
            "actions": 1.0,
            "wrong_changes": (float(len(other)), " ".join(sorted(other))[:80]),
        }, True

    def oracle_action(self) -> str:
        """An expert's click; `type [X]` means the field that holds X."""
        click = super().oracle_action()
        if field := re.match(r"type \[(.*?)\]", click):
            line = next(line for line in self._lines if line.endswith(f"textbox = {field[1]}"))
            return f"type {line[1:].partition(']')[0]}{click[field.end() :]}"
        return click

    def close(self) -> None:
        super().close()
        if self._site is not None:
            self._site.close()
            self._site = None
