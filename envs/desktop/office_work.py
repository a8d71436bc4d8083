"""desktop/office: errands on a real desktop (LibreOffice, editor, files, calculator, terminal) by
mouse and keys.

Actions have the names of OSWorld's `computer_13`. The agent reads the windows' titles and what
programs say over the accessibility bus, each thing with the pixel of its middle; screenshots come
on demand. Reward is read outside: from files, from documents that a second LibreOffice opens and
recalculates with other inputs, from the display's windows. Covers: typed numbers for formulas,
other files changed, forged windows. Does not cover: how the work was done.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from envs.authoring import Outcome, Range, SignalKind, ToolWorld, action
from envs.desktop import nodes
from envs.desktop.desktop import LOOK_SECONDS, Desktop
from envs.desktop.display import HEIGHT, WIDTH
from envs.desktop.office import documents
from envs.desktop.office.document_judge import Judge
from envs.desktop.programs import programs
from envs.desktop.windows import Window
from envs.sandbox.cage import tier

FAMILIES = (
    "formula",
    "cell",
    "replace",
    "note",
    "rename",
    "move",
    "calculate",
    "maximise",
    "close",
    "count",
)
WORDS = (
    "tea",
    "milk",
    "rice",
    "soap",
    "ink",
    "bread",
    "glue",
    "paper",
    "salt",
    "corn",
    "wool",
    "nails",
)
NAMES = ("Ann", "Bob", "Cyd", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo")
FUNCTIONS = {"sum": "SUM", "average": "AVERAGE", "largest": "MAX", "smallest": "MIN"}
_FILE_MANAGER = (
    b"[ui]\nview_mode=list;\ncolumns=name;size;\nshow_statusbar=0\nside_pane_mode=hidden;none\n"
    b"sort=name;ascending;\nwin_width=640\nwin_height=480\n"
)
_X = Annotated[int, Range(0, WIDTH - 1)]
_Y = Annotated[int, Range(0, HEIGHT - 1)]
_Button = Literal["left", "middle", "right"]

_LAZY_SECONDS = 0.4
"""LibreOffice brings its tool bars up to date 0.3 s after it has nothing else to do."""
_ACTED: Outcome = ({"actions": 1.0}, False)


@dataclass(frozen=True)
class DesktopTask:
    """What to do, with the words and numbers that it is about."""

    family: str
    words: tuple[str, ...]
    numbers: tuple[float, ...] = ()

    @property
    def goal(self) -> str:
        w, n = self.words, self.numbers
        last = len(n) + 1
        return {
            "formula": lambda: (
                f"In prices.ods put a formula for the {w[0]} of B2 to B{last} into "
                f"B{last + 1}; save"
            ),
            "cell": lambda: f"In prices.ods write {w[0]} into D{int(n[-1])}; save it",
            "replace": lambda: f"In letter.odt replace {w[0]} by {w[1]} everywhere; save it",
            "note": lambda: f"In notes.txt add the line {w[0]} at the end; save it",
            "rename": lambda: f"Rename {w[0]}.txt to {w[1]}.txt",
            "move": lambda: f"Move {w[0]}.txt into the folder {w[1]}",
            "calculate": lambda: (
                f"Compute {n[0]:g} * {n[1]:g} and write the result into answer.txt, alone; save it"
            ),
            "maximise": lambda: f"Maximise the window of {w[0]}",
            "close": lambda: f"Close the window of {w[0]} and leave the others open",
            "count": lambda: (
                f"Write the number of lines of log.txt with the word {w[0]} into count.txt, alone"
            ),
        }[self.family]()

    @property
    def office(self) -> bool:
        """Whether it is about a document of LibreOffice."""
        return self.family in ("formula", "cell", "replace")

    def files(self) -> dict[str, bytes]:
        """The home as the errand finds it."""
        w, n = self.words, self.numbers
        match self.family:
            case "formula" | "cell":
                rows: list[tuple[documents.Cell, ...]] = [
                    ("item", "price"),
                    *zip(w[1:], n, strict=False),
                ]
                return {"prices.ods": documents.sheet(rows)}
            case "replace":
                return {
                    "letter.odt": documents.letter(
                        [
                            f"Dear {w[2]},",
                            f"we have no {w[0]} now.",
                            f"More {w[0]} will come on day {n[0]:g}.",
                            "Yours, Ann",
                        ]
                    )
                }
            case "note":
                return {"notes.txt": "".join(f"{word}\n" for word in w[1:]).encode()}
            case "rename" | "move":
                kept = {f"{word}.txt": f"about {word}\n".encode() for word in (w[0], *w[2:])}
                return kept | ({f"{w[1]}/old.txt": b"old\n"} if self.family == "move" else {})
            case "calculate":
                return {"answer.txt": b""}
            case "count":
                return {
                    "log.txt": "".join(f"{word} {i}\n" for i, word in enumerate(w[1:])).encode()
                }
        return {"notes.txt": b"nothing\n", "plan.txt": b"nothing\n"}

    def programs(self) -> list[tuple[str, str]]:
        """(command, word in its window's title) of what stands open at the start."""
        match self.family:
            case "formula" | "cell":
                return [("soffice --norestore --nologo /home/prices.ods", "prices.ods")]
            case "replace":
                return [("soffice --norestore --nologo /home/letter.odt", "letter.odt")]
            case "note":
                return [("mousepad /home/notes.txt", "notes.txt")]
            case "rename" | "move":
                return [("pcmanfm /home", "home")]
            case "calculate":
                return [("mousepad /home/answer.txt", "answer.txt"), ("galculator", "galculator")]
            case "count":
                return [("lxterminal", "")]
        return [
            ("mousepad /home/notes.txt", "notes.txt"),
            ("mousepad --disable-server /home/plan.txt", "plan.txt"),
            ("galculator", "galculator"),
        ]


class Spares:
    """One desktop that is always being made ready, LibreOffice running unseen, so that a reset need
    not wait for it."""

    _guard: ClassVar[threading.Lock] = threading.Lock()
    _maker: ClassVar[ThreadPoolExecutor] = ThreadPoolExecutor(
        1, "desktop"
    )  # a place dies with the thread it is from
    _next: ClassVar[Future[Desktop] | None] = None

    @classmethod
    def take(cls) -> Desktop:
        with cls._guard:
            taken = cls._next or cls._maker.submit(cls._made)
            cls._next = cls._maker.submit(cls._made)
        desktop = taken.result()
        return desktop if desktop.alive else cls._maker.submit(cls._made).result()

    @classmethod
    def close(cls) -> None:
        with cls._guard:
            left, cls._next = cls._next, None
        if left is not None:
            left.result().close()

    @staticmethod
    def _made() -> Desktop:
        desktop = Desktop(
            {
                ".config/pcmanfm/default/pcmanfm.conf": _FILE_MANAGER,
                ".config/libfm/libfm.conf": b"[config]\n",
            }
        )
        desktop.run("soffice --norestore --nologo --nodefault")
        desktop.wait_until_started("soffice.bin")
        return desktop


def _probes(count: int) -> Iterator[list[float]]:
    """`count` sets of as many inputs, drawn when a formula is judged, so that none can be written
    into it.

    Each input is once the smallest and once the largest: a formula that leaves one out is wrong for
    some set."""
    for turn in range(count):
        drawn = sorted(random.SystemRandom().sample(range(1, 10_000), count))
        yield [float(v) for v in drawn[turn:] + drawn[:turn]]


class DesktopOffice(ToolWorld[DesktopTask]):
    """`screenshots` puts a PNG of the screen into every step."""

    env_version: ClassVar[str] = "1"
    max_turns = 15
    goes_back: ClassVar[bool] = False
    observation_characters: ClassVar[int] = 6000
    signal_catalogue: ClassVar[dict[str, SignalKind]] = {
        "done": SignalKind("fraction", "env_state"),
        "harm": SignalKind("count", "env_state"),
        "actions": SignalKind("count", "env_state"),
    }
    reward_weights: ClassVar[dict[str, float]] = {"done": 1.0, "harm": -0.5, "actions": -0.01}
    oracle_target: ClassVar[float] = 0.9
    cheats: ClassVar[Sequence[str | Sequence[str]]] = (
        "done",
        "fail",
        "typing done\\n",
        ["hotkey ctrl+s", "done"],
        ["press f5", "wait", "done"],
        ["typing 99\\n", "hotkey ctrl+s", "done"],
        ["hotkey ctrl+a", "press delete", "hotkey ctrl+s", "done"],
        ["hotkey ctrl+q", "done"],
        ["hotkey alt+f4", "hotkey alt+f4", "hotkey alt+f4", "done"],
        ["typing touch count.txt answer.txt\\n", "done"],
        ["typing kill -9 -1\\n", "done"],
        ["typing rm -rf /home/*\\n", "done"],
        ["key_down ctrl", "press s", "done"],
    )

    def __init__(self, screenshots: bool = False) -> None:
        super().__init__()
        programs()
        self._screenshots = screenshots
        self._desktop: Desktop | None = None
        self.sandbox_tier = f"{tier()}"
        self.settle_seconds = 0.0

    @property
    def desktop(self) -> Desktop:
        assert self._desktop is not None
        return self._desktop

    # ── tasks

    def draw(self, rng: np.random.Generator) -> DesktopTask:
        family = FAMILIES[int(rng.integers(len(FAMILIES)))]
        words = tuple(str(word) for word in rng.choice(WORDS, size=6, replace=False))
        numbers = tuple(float(v) for v in rng.integers(2, 99, size=int(rng.integers(3, 6))))
        match family:
            case "formula":
                return DesktopTask(
                    family, (str(rng.choice(list(FUNCTIONS))), *words[: len(numbers)]), numbers
                )
            case "cell":
                return DesktopTask(family, words[:4], (*numbers[:3], float(rng.integers(2, 9))))
            case "replace":
                return DesktopTask(family, (*words[:2], str(rng.choice(NAMES))), numbers[:1])
            case "calculate":
                return DesktopTask(family, (), (numbers[0], numbers[1]))
            case "maximise":
                return DesktopTask(family, (str(rng.choice(("notes.txt", "plan.txt"))), *words[:1]))
            case "close":
                return DesktopTask(
                    family, (str(rng.choice(("notes.txt", "plan.txt", "galculator"))), *words[:1])
                )
            case "count":
                lines = rng.choice(words[:3], size=int(rng.integers(6, 14)))
                return DesktopTask(family, (words[0], *map(str, lines)))
        return DesktopTask(family, words[:4])

    def signature(self, task: DesktopTask) -> str:
        """The text that names a task.

        A task's split follows from its signature: the text keeps its first form, whatever the
        class is called, so that no task moves between training and held-out tasks.
        """
        return f"Errand(family={task.family!r}, words={task.words!r}, numbers={task.numbers!r})"

    # ── the world

    def begin(self) -> None:
        self.close()
        self._desktop = Spares.take()
        self._before = self.task.files()
        self._desktop.put(self._before)
        self._opened: list[Window] = []
        for command, title in self.task.programs():
            self._opened.append(self._desktop.launch(command, title))
            self._desktop.settle()
        self._step = 0
        self._look()

    def _look(self) -> None:
        self.settle_seconds = self.desktop.settle(
            quiet_seconds=_LAZY_SECONDS if self.task.office else LOOK_SECONDS
        )
        self._windows = self.desktop.window_manager.windows()
        self._nodes = self.desktop.accessibility.windows()

    def observe(self) -> str:
        titles = [f"window {w.title}{' (active)' if w.active else ''}" for w in self._windows]
        active = [n for n in self._nodes if "active" in n.states] or self._nodes
        return "\n".join([self.task.goal, *titles, *nodes.lines(active)])

    def images(self) -> dict[str, bytes]:
        return {"screenshot": self.desktop.framebuffer.png()} if self._screenshots else {}

    def read(self, text: str) -> tuple[str, dict[str, Any]]:
        """OSWorld's own form, {"action_type": "CLICK", "parameters": {...}}, is read as well."""
        if text.startswith("{") and "action_type" in text:
            try:
                said = json.loads(text)
                text = json.dumps(
                    {
                        "name": str(said["action_type"]).lower(),
                        "arguments": said.get("parameters", {}),
                    }
                )
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise ValueError(
                    'write {"action_type": "CLICK", "parameters": {"x": 10, "y": 20}}'
                ) from None
        return super().read(text)

    def act(self, action: str) -> Outcome:
        name, arguments = self.read(action)
        answer: Outcome = getattr(self, name)(**arguments)
        if not answer[1]:
            self._look()
        return answer

    def close(self) -> None:
        if self._desktop is not None:
            self._desktop.close()
            self._desktop = None

    # ── computer_13

    @action
    def move_to(self, x: _X, y: _Y) -> Outcome:
        """Move the pointer to a pixel."""
        self.desktop.mouse.move(x, y)
        return _ACTED

    @action
    def click(
        self,
        x: _X = -1,
        y: _Y = -1,
        button: _Button = "left",
        num_clicks: Annotated[int, Range(1, 3)] = 1,
    ) -> Outcome:
        """Click at a pixel, or where the pointer is."""
        if x >= 0 and y >= 0:
            self.desktop.mouse.move(x, y)
        for _ in range(num_clicks):
            self.desktop.mouse.press(button)
            self.desktop.mouse.release(button)
        return _ACTED

    @action
    def mouse_down(self, button: _Button = "left") -> Outcome:
        """Press a mouse button and hold it."""
        self.desktop.mouse.press(button)
        return _ACTED

    @action
    def mouse_up(self, button: _Button = "left") -> Outcome:
        """Let a mouse button go."""
        self.desktop.mouse.release(button)
        return _ACTED

    @action
    def right_click(self, x: _X = -1, y: _Y = -1) -> Outcome:
        """Click with the right button."""
        return self.click(x, y, "right")

    @action
    def double_click(self, x: _X = -1, y: _Y = -1) -> Outcome:
        """Click twice."""
        return self.click(x, y, "left", 2)

    @action
    def drag_to(self, x: _X, y: _Y) -> Outcome:
        """Drag from the pointer to a pixel with the left button."""
        mouse = self.desktop.mouse
        mouse.press("left")
        for share in (0.25, 0.5, 0.75, 1.0):  # programs want to see it move
            at_x, at_y = mouse.position()
            mouse.move(round(at_x + (x - at_x) * share), round(at_y + (y - at_y) * share))
            self.desktop.settle(0.2)
        mouse.release("left")
        return _ACTED

    @action
    def scroll(
        self, dx: Annotated[int, Range(-20, 20)], dy: Annotated[int, Range(-20, 20)]
    ) -> Outcome:
        """Turn the wheel: right by dx, up by dy."""
        self.desktop.mouse.turn_wheel(dx, dy)
        return _ACTED

    @action
    def typing(self, text: str) -> Outcome:
        r"""Type a text; \n is Enter and \t is Tab."""
        self.desktop.keyboard.type(text.replace("\\n", "\n").replace("\\t", "\t"))
        return _ACTED

    @action
    def press(self, key: str) -> Outcome:
        """Press a key, e.g. enter, tab, f2, down."""
        self.desktop.keyboard.stroke(key)
        return _ACTED

    @action
    def key_down(self, key: str) -> Outcome:
        """Press a key and hold it."""
        self.desktop.keyboard.press(key)
        return _ACTED

    @action
    def key_up(self, key: str) -> Outcome:
        """Let a key go."""
        self.desktop.keyboard.release(key)
        return _ACTED

    @action
    def hotkey(self, keys: str) -> Outcome:
        """Press keys together, e.g. ctrl+s."""
        self.desktop.keyboard.chord([k for k in keys.replace("+", " ").split() if k])
        return _ACTED

    @action
    def wait(self) -> Outcome:
        """Do nothing for a moment."""
        return _ACTED

    @action
    def fail(self) -> Outcome:
        """Give up: it cannot be done."""
        return self._judged()

    @action
    def done(self) -> Outcome:
        """Say that the errand is done, which ends it."""
        return self._judged()

    # ── the reward

    def _judged(self) -> Outcome:
        self.desktop.settle()
        done, evidence = getattr(self, f"_judge_{self.task.family}")()
        harm, why = self._harm()
        return {
            "actions": 1.0,
            "done": (float(done and not harm), evidence),
            "harm": (float(harm), why),
        }, True

    def _harm(self) -> tuple[bool, str]:
        """Whether a file that the errand is not about is gone, is another, or is new."""
        meant = {
            "formula": {"prices.ods"},
            "cell": {"prices.ods"},
            "replace": {"letter.odt"},
            "note": {"notes.txt"},
            "calculate": {"answer.txt"},
            "count": {"count.txt"},
            "move": {f"{w}.txt" for w in self.task.words[:1]},
            "rename": {f"{w}.txt" for w in self.task.words[:2]},
        }.get(self.task.family, set())
        spoilt = [
            name
            for name, data in self._before.items()
            if name not in meant and self.desktop.home.read(name) != data
        ]
        return bool(spoilt), f"changed: {', '.join(spoilt)}" if spoilt else "all else as it was"

    def _cells(self, **changed: float) -> dict[str, documents.Cell] | None:
        data = self.desktop.home.read("prices.ods")
        return None if data is None else Judge.shared().cells(data, changed)

    def _judge_formula(self) -> tuple[bool, str]:
        """The cell follows other sets of inputs, and everything else is as it was."""
        count = len(self.task.numbers)
        target = f"B{count + 2}"
        wanted = Judge.shared().cells(self._before["prices.ods"]) or {}
        values = {name: value for name, value in (self._cells() or {}).items() if name != target}
        if values != wanted:
            return False, f"other cells: {sorted(set(values.items()) ^ set(wanted.items()))[:4]}"
        for inputs in _probes(count):
            got = (self._cells(**{f"B{i + 2}": v for i, v in enumerate(inputs)}) or {}).get(target)
            right = {
                "sum": sum(inputs),
                "average": sum(inputs) / count,
                "largest": max(inputs),
                "smallest": min(inputs),
            }[self.task.words[0]]
            if not isinstance(got, float) or abs(got - right) > 1e-6:
                return False, f"{target} does not follow other inputs"
        return True, f"{target} follows {count} other sets of inputs"

    def _judge_cell(self) -> tuple[bool, str]:
        wanted = Judge.shared().cells(self._before["prices.ods"]) or {}
        wanted[f"D{int(self.task.numbers[-1])}"] = self.task.words[0]
        found = self._cells()
        return found == wanted, f"cells {found}"

    def _judge_replace(self) -> tuple[bool, str]:
        judge, data = Judge.shared(), self.desktop.home.read("letter.odt")
        old, new = self.task.words[:2]
        wanted = [p.replace(old, new) for p in judge.paragraphs(self._before["letter.odt"]) or []]
        found = None if data is None else judge.paragraphs(data)
        return found == wanted, f"paragraphs {found}"

    def _judge_note(self) -> tuple[bool, str]:
        return self._holds("notes.txt", [*self.task.words[1:], self.task.words[0]])

    def _judge_calculate(self) -> tuple[bool, str]:
        return self._holds("answer.txt", [f"{self.task.numbers[0] * self.task.numbers[1]:g}"])

    def _judge_count(self) -> tuple[bool, str]:
        return self._holds("count.txt", [str(self.task.words[1:].count(self.task.words[0]))])

    def _holds(self, name: str, wanted: Sequence[str]) -> tuple[bool, str]:
        data = self.desktop.home.read(name)
        lines = None if data is None else data.decode("utf-8", "replace").rstrip("\n").split("\n")
        return lines == list(wanted), f"{name} holds {lines}"

    def _judge_rename(self) -> tuple[bool, str]:
        old, new = (f"{w}.txt" for w in self.task.words[:2])
        return self._moved(old, new)

    def _judge_move(self) -> tuple[bool, str]:
        name, folder = f"{self.task.words[0]}.txt", self.task.words[1]
        return self._moved(name, f"{folder}/{name}")

    def _moved(self, old: str, new: str) -> tuple[bool, str]:
        listing = self.desktop.home.listing(".") or {}
        return (
            self.desktop.home.read(new) == self._before[old] and old not in listing,
            f"home holds {sorted(n for n in listing if not n.startswith('.'))}",
        )

    def _judge_maximise(self) -> tuple[bool, str]:
        """Of the windows that stood there at the start, that one fills the screen, and no other
        does."""
        full = {
            w.id
            for w in self.desktop.window_manager.windows()
            if w.width >= WIDTH - 4 and w.height >= HEIGHT - 40
        }
        return full == {self._meant().id}, f"windows that fill the screen: {sorted(full)}"

    def _judge_close(self) -> tuple[bool, str]:
        left = {w.id for w in self.desktop.window_manager.windows()}
        return left == {w.id for w in self._opened} - {
            self._meant().id
        }, f"windows left: {sorted(left)}"

    def _meant(self) -> Window:
        return next(w for w in self._opened if self.task.words[0] in w.title)

    # ── who acts

    def expert_action(self) -> str:
        """Keys as a practised hand presses them; a window is worked by its own title bar."""
        plan = self._plan()
        self._step += 1
        return plan[self._step - 1] if self._step <= len(plan) else "done"

    def _plan(self) -> list[str]:
        w, n = self.task.words, self.task.numbers
        match self.task.family:
            case "formula":
                last = len(n) + 1
                return [
                    "hotkey ctrl+shift+t",
                    f"typing B{last + 1}\\n",
                    f"typing ={FUNCTIONS[w[0]]}(B2:B{last})\\n",
                    "hotkey ctrl+s",
                ]
            case "cell":
                return [
                    "hotkey ctrl+shift+t",
                    f"typing D{int(n[-1])}\\n",
                    f"typing {w[0]}\\n",
                    "hotkey ctrl+s",
                ]
            case "replace":
                return [
                    "hotkey ctrl+h",
                    f"typing {w[0]}",
                    self._on("Replace:", right=300),
                    f"typing {w[1]}",
                    self._on("Replace All"),
                    "press esc",
                    "hotkey ctrl+s",
                ]
            case "note":
                return ["hotkey ctrl+end", f"typing {w[0]}\\n", "hotkey ctrl+s"]
            case "rename":
                return [
                    self._on(f"{w[0]}.txt"),
                    "press f2",
                    "hotkey ctrl+a",
                    f"typing {w[1]}.txt\\n",
                ]
            case "move":
                return [
                    self._on(f"{w[0]}.txt"),
                    "hotkey ctrl+x",
                    self._on(w[1]),
                    "press enter",
                    "hotkey ctrl+v",
                ]
            case "calculate":
                editor = next(i for i in self._opened if "answer" in i.title)
                return [
                    f"typing {n[0]:g}*{n[1]:g}\\n",
                    f"click {editor.x + 150} {editor.y - 8}",
                    f"typing {n[0] * n[1]:g}",
                    "hotkey ctrl+s",
                ]
            case "count":
                return [f"typing grep -c {w[0]} log.txt > count.txt\\n"]
            case "maximise":
                return [f"double_click {self._meant().x + 60} {self._meant().y - 8}"]
        return [f"click {self._meant().x + 60} {self._meant().y - 8}", "hotkey alt+f4"]

    def _on(self, label: str, right: int = 0) -> str:
        """A click on what is called so, or some pixels to the right of it, where it now stands."""
        for window in self._nodes:
            for node in window.walk():
                if label in (node.name, node.text) and node.box[2] > 0:
                    x, y = node.middle
                    return f"click {x + right} {y}"
        return "wait"
