"""The fast path: chromium-headless-shell over its DevTools pipe, with frames drawn when asked and a
clock of our own.

One caged browser a process serves many pages, each in a browser context of its own. A page's clock
stands still while the agent thinks and goes on by what an action is given (virtual time), so the
same seed and the same actions give the same page. Playwright (see chromium) stays the reference:
tests/test_browser.py holds both against each other. Covers: no network card, an own uid, Chromium's
own sandbox inside. Does not cover: what chromium does not cover.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from envs.sandbox import confine
from envs.sandbox.limits import BROWSER
from experience.errors import EnvironmentFailure, MissingPartError

_FLAGS = (
    "--remote-debugging-pipe",
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--run-all-compositor-stages-before-draw",
    "--disable-threaded-animation",
    "--disable-threaded-scrolling",
    "--disable-checker-imaging",
    "--hide-scrollbars",
    "--font-render-hinting=none",
    "--disable-extensions",
)
_ANSWER_SECONDS = 20.0
_START = 1_700_000_000.0  # what a page's clock shows first, seconds since the epoch
MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
KEYS = {
    "Enter": (13, "\r"),
    "Tab": (9, "\t"),
    "Backspace": (8, ""),
    "Delete": (46, ""),
    "Escape": (27, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "Home": (36, ""),
    "End": (35, ""),
    "PageUp": (33, ""),
    "PageDown": (34, ""),
    "Space": (32, " "),
}


class Devtools:
    """A browser behind a pipe. Calls may come from many threads; each waits for its own answer."""

    _shared: ClassVar[dict[tuple[str, ...], Devtools]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def shared(cls, readable: Sequence[Path] = ()) -> Devtools:
        """This process's browser that may read those directories, started on first use and again if
        it died."""
        key = tuple(sorted(map(str, readable)))
        with cls._guard:
            if key not in cls._shared or not cls._shared[key].alive:
                cls._shared[key] = cls(readable)
            return cls._shared[key]

    def __init__(self, readable: Sequence[Path] = ()) -> None:
        shell = os.environ.get("XP_HEADLESS_SHELL") or shutil.which("chromium-headless-shell")
        if shell is None:
            raise MissingPartError(
                "the fast path needs chromium-headless-shell",
                "apt-get install chromium-headless-shell",
            )
        read_end, self._to = os.pipe()
        self._from, write_end = os.pipe()
        pipe = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'  # where Chromium looks for its pipe
        try:
            self._process = confine.start(
                ["sh", "-c", pipe, "sh", shell, *_FLAGS, "about:blank"],
                readable=readable,
                filtered=False,
                limits=BROWSER,
                pipes={"stdin": read_end, "stdout": write_end, "stderr": subprocess.DEVNULL},
            )
        finally:
            os.close(read_end)
            os.close(write_end)
        self._lock = threading.Lock()
        self._pending, self._number = b"", 0
        self._happened: dict[str, set[str]] = {}
        self.send("Browser.getVersion")

    def send(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of one call.

        Raises EnvironmentFailure for an error, a dead browser or one that fell silent.
        """
        with self._lock:
            self._number += 1
            message = {"id": self._number, "method": method, "params": parameters}
            self._write(message | ({"sessionId": session} if session else {}))
            while True:
                answer = self._read()
                if answer.get("id") == self._number:
                    break
                self._note(answer)
        if "error" in answer:
            raise EnvironmentFailure(
                f"the browser refused {method}: {answer['error'].get('message')}"
            )
        result: dict[str, Any] = answer["result"]
        return result

    def send_before_a_frame(self, method: str, session: str, **parameters: Any) -> None:
        """A call that the browser answers only when a frame is drawn: mouse moves and wheels wait
        for one."""
        with self._lock:
            self._number += 1
            mine = self._number
            self._write({"id": mine, "method": method, "params": parameters, "sessionId": session})
            frame = 0
            while True:
                if frame == 0:
                    self._number += 1
                    frame = self._number
                    self._write(
                        {
                            "id": frame,
                            "method": "HeadlessExperimental.beginFrame",
                            "params": {},
                            "sessionId": session,
                        }
                    )
                answer = self._read()
                if answer.get("id") == mine:
                    break
                if answer.get("id") == frame:
                    frame = 0
                self._note(answer)

    def wait_for(self, event: str, session: str) -> None:
        """Until `event` has come to `session` since `forget`."""
        with self._lock:
            while event not in self._happened.get(session, ()):
                self._note(self._read())

    def forget(self, event: str, session: str) -> None:
        with self._lock:
            self._happened.setdefault(session, set()).discard(event)

    def _note(self, message: Mapping[str, Any]) -> None:
        self._happened.setdefault(message.get("sessionId", ""), set()).add(
            message.get("method", "")
        )

    def _write(self, message: Mapping[str, Any]) -> None:
        view = memoryview(json.dumps(message).encode() + b"\0")
        try:
            while view:
                view = view[os.write(self._to, view) :]
        except OSError as error:
            raise EnvironmentFailure(f"the browser ended: {error}", "it is started anew") from error

    def _read(self) -> dict[str, Any]:
        watchdog = None
        try:
            while b"\0" not in self._pending:
                if watchdog is None:
                    watchdog = threading.Timer(_ANSWER_SECONDS, self._process.kill)
                    watchdog.start()
                more = os.read(self._from, 1 << 20)
                if not more:
                    self._process.kill()
                    raise EnvironmentFailure(
                        "the browser ended or fell silent", "it is started anew"
                    )
                self._pending += more
        finally:
            if watchdog is not None:
                watchdog.cancel()
        raw, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        return message

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)


class Page:
    """One page in a context of its own: seen as an accessibility tree with references that stay,
    acted on by them."""

    def __init__(self, browser: Devtools, width: int, height: int) -> None:
        self._browser = browser
        self._context = browser.send("Target.createBrowserContext")["browserContextId"]
        self._target = browser.send(
            "Target.createTarget",
            url="about:blank",
            browserContextId=self._context,
            width=width,
            height=height,
            enableBeginFrameControl=True,
        )["targetId"]
        self._session = browser.send("Target.attachToTarget", targetId=self._target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "DOM", "Accessibility"):
            self.send(f"{domain}.enable")
        self.send("Page.setDownloadBehavior", behavior="deny")
        self._references: dict[int, int] = {}
        self._nodes: list[int] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **parameters)

    def load(self, url: str) -> None:
        """Loads a fresh page's only document; then its clock stands still."""
        self._browser.forget("Page.loadEventFired", self._session)
        found = self.send("Page.navigate", url=url)
        if found.get("errorText"):
            raise EnvironmentFailure(f"{url}: {found['errorText']}")
        self._browser.wait_for("Page.loadEventFired", self._session)
        self.send("Emulation.setVirtualTimePolicy", policy="pause", initialVirtualTime=_START)

    def advance(self, milliseconds: float) -> None:
        """Lets the page's clock run on by that much."""
        event = "Emulation.virtualTimeBudgetExpired"
        self._browser.forget(event, self._session)
        self.send(
            "Emulation.setVirtualTimePolicy",
            policy="advance",
            budget=milliseconds,
            maxVirtualTimeTaskStarvationCount=1000,
        )
        self._browser.wait_for(event, self._session)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page: for the world, never for the agent."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in found:
            raise EnvironmentFailure(
                f"the page's script failed: {found['exceptionDetails'].get('text')} "
                f"{found['result'].get('description', '')}"[:300]
            )
        return found["result"].get("value")

    def forget_references(self) -> None:
        self._references, self._nodes = {}, []

    def tree(self) -> list[str]:
        """What can be seen, a line an element: [reference] role "name" = value (states). References
        stay the same as long as the element lives."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        return ax_lines(nodes, self._reference)

    def _reference(self, node: int) -> int:
        if node not in self._references:
            self._nodes.append(node)
            self._references[node] = len(self._nodes)
        return self._references[node]

    def _node(self, reference: int) -> int:
        if not 1 <= reference <= len(self._nodes):
            raise ValueError(f"no element {reference}")
        return self._nodes[reference - 1]

    def centre(self, reference: int) -> tuple[float, float]:
        """Where an element is. Raises ValueError if it is gone or cannot be seen."""
        node = self._node(reference)
        try:
            self.send("DOM.scrollIntoViewIfNeeded", backendNodeId=node)
            quads = self.send("DOM.getContentQuads", backendNodeId=node)["quads"]
        except EnvironmentFailure:
            quads = []
        if not quads:
            raise ValueError(f"element {reference} cannot be seen")
        return sum(quads[0][0::2]) / 4, sum(quads[0][1::2]) / 4

    def click(self, x: float, y: float, button: str = "left", times: int = 1) -> None:
        self.mouse("mouseMoved", x, y)
        for count in range(1, times + 1):
            self.mouse("mousePressed", x, y, button, count)
            self.mouse("mouseReleased", x, y, button, count)

    def mouse(self, kind: str, x: float, y: float, button: str = "none", count: int = 0) -> None:
        held = 1 if button == "left" and kind != "mouseReleased" else 0
        event = {
            "type": kind,
            "x": x,
            "y": y,
            "button": button,
            "clickCount": count,
            "buttons": held,
        }
        if kind == "mouseMoved":
            self._browser.send_before_a_frame("Input.dispatchMouseEvent", self._session, **event)
        else:
            self.send("Input.dispatchMouseEvent", **event)

    def drag(self, x: float, y: float, to_x: float, to_y: float) -> None:
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, "left", 1)
        for share in (0.25, 0.5, 0.75, 1.0):
            self.mouse("mouseMoved", x + share * (to_x - x), y + share * (to_y - y), "left")
            self.advance(20)
        self.mouse("mouseReleased", to_x, to_y, "left", 1)

    def scroll(self, x: float, y: float, pixels: float) -> None:
        self._browser.send_before_a_frame(
            "Input.dispatchMouseEvent",
            self._session,
            type="mouseWheel",
            x=x,
            y=y,
            deltaX=0,
            deltaY=pixels,
        )

    def type(self, text: str) -> None:
        """Key by key, so that the page sees what a person's typing would show it."""
        for character in text:
            self.send("Input.dispatchKeyEvent", type="keyDown", text=character, key=character)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=character)

    def press(self, combination: str) -> None:
        """A key, with modifiers before it: Enter, a, Control+a.

        Raises ValueError for an unknown one.
        """
        *held, key = combination.split("+") if combination != "+" else ["+"]
        if any(m not in MODIFIERS for m in held) or (key not in KEYS and len(key) != 1):
            raise ValueError(f"no key {combination[:20]}: a character, or one of {', '.join(KEYS)}")
        bits = sum(MODIFIERS[m] for m in held)
        code, text = KEYS[key] if key in KEYS else (ord(key.upper()), key)
        commands = ["selectAll"] if key.lower() == "a" and held == ["Control"] else []
        written = {"text": text} if text and not bits else {}
        self.send(
            "Input.dispatchKeyEvent",
            type="keyDown" if written else "rawKeyDown",
            key=key,
            modifiers=bits,
            windowsVirtualKeyCode=code,
            commands=commands,
            **written,
        )
        self.send(
            "Input.dispatchKeyEvent",
            type="keyUp",
            key=key,
            modifiers=bits,
            windowsVirtualKeyCode=code,
        )

    def focus(self, reference: int) -> None:
        try:
            self.send("DOM.focus", backendNodeId=self._node(reference))
        except EnvironmentFailure as refused:
            raise ValueError(f"element {reference} takes no text") from refused

    def choose(self, reference: int, option: str) -> None:
        """Selects an option of a list. Raises ValueError if there is none of that name."""
        found = self.send("DOM.resolveNode", backendNodeId=self._node(reference))
        chosen = self.send(
            "Runtime.callFunctionOn",
            objectId=found["object"]["objectId"],
            returnByValue=True,
            functionDeclaration=_CHOOSE,
            arguments=[{"value": option}],
        )
        if not chosen["result"].get("value"):
            raise ValueError(f"element {reference} has no option {option[:30]}")

    def screenshot(self, media: str = "jpeg") -> bytes:
        """The page as it is now, drawn for us; the same state gives the same bytes."""
        asked = {"format": media} | ({"quality": 80} if media == "jpeg" else {})
        for _ in range(3):  # the first frame after a load may hold nothing yet
            found = self.send("HeadlessExperimental.beginFrame", screenshot=asked)
            if "screenshotData" in found:
                return base64.b64decode(found["screenshotData"])
        raise EnvironmentFailure("the browser drew no frame")

    @property
    def alive(self) -> bool:
        return self._browser.alive

    def close(self) -> None:
        self._browser.send("Target.disposeBrowserContext", browserContextId=self._context)


_CHOOSE = """function (wanted) {
  const option = [...(this.options || [])].find(o => o.label.trim() === wanted || o.value === wanted);
  if (!option) return false;
  option.selected = true;
  this.dispatchEvent(new Event("input", {bubbles: true}));
  this.dispatchEvent(new Event("change", {bubbles: true}));
  return true;
}"""
_HIDDEN_ROLES = {
    "InlineTextBox",
    "generic",
    "none",
    "RootWebArea",
    "LabelText",
    "paragraph",
    "LayoutTable",
    "Section",
    "LayoutTableRow",
    "LayoutTableCell",
    "MenuListPopup",
    "rowgroup",
    "Canvas",
    "ListMarker",
    "LineBreak",
}
_STATES = ("checked", "selected", "expanded", "disabled", "focused", "pressed")


def ax_lines(nodes: Sequence[Mapping[str, Any]], reference: Any) -> list[str]:
    """The lines of an accessibility tree as Chromium gives it, in the order of the document."""
    by_id = {node["nodeId"]: node for node in nodes}
    lines: list[str] = []
    waiting = [nodes[0]["nodeId"]] if nodes else []
    while waiting:
        node = by_id.get(waiting.pop())
        if node is None:
            continue
        waiting += reversed(node.get("childIds", []))
        role = node.get("role", {}).get("value", "")
        name = str(node.get("name", {}).get("value", "")).strip()
        if (
            node.get("ignored")
            or role in _HIDDEN_ROLES
            or "backendDOMNodeId" not in node
            or (role == "StaticText" and not name)
        ):
            continue
        properties = {p["name"]: p["value"].get("value") for p in node.get("properties", [])}
        states = [s for s in _STATES if properties.get(s) in (True, "true")]
        value = str(node.get("value", {}).get("value", ""))
        shown = "text" if role == "StaticText" else role
        lines.append(
            f"[{reference(node['backendDOMNodeId'])}] {shown}"
            + (f' "{name}"' if name else "")
            + (f" = {value}" if value and value != name else "")
            + (f" ({', '.join(states)})" if states else "")
        )
    return _without_repeated_text(lines)


def _without_repeated_text(lines: Sequence[str]) -> list[str]:
    """A button and the text in it are one thing to an agent."""
    kept: list[str] = []
    for line in lines:
        role, _, name = line.partition("] ")[2].partition(" ")
        if (
            role == "text"
            and kept
            and kept[-1].partition("] ")[2].partition(" ")[2].startswith(name)
        ):
            continue
        kept.append(line)
    return kept
