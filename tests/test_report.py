"""The report: one page that tells what happened in a run, whole and safe to open."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from actors.reading.figures import in_one_time
from actors.reading.report import write_report
from actors.running.assembly import Progress
from actors.runs.directory import RunDirectory
from tests.lived_runs import WrittenRun

CONFIG = (
    "evaluation: {temperature: 0.0}\npolicy: {temperature: 0.9}\nworlds: [{id: 'envs:Test-v0'}]\n"
)


def written(path: Path) -> str:
    return write_report(RunDirectory(path), Progress(path.name)).read_text()


def text_of(page: str) -> str:
    return re.sub(r"<[^>]*>", "", page)


class Checked(HTMLParser):
    """Holds that what is opened is closed, that no id comes twice, and that pictures and figures
    have a text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.feed(page)
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        had = dict(attrs)
        self.tags.append(tag)
        self.ids += [had["id"]] if "id" in had else []
        assert tag not in ("img", "svg") or had.get("alt") or had.get("aria-label"), attrs
        assert not [
            n for n, v in attrs if n in ("src", "href") and not v.startswith(("data:", "#"))
        ]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.ids += [v for n, v in attrs if n == "id"]


def test_an_example_is_a_whole_episode_though_streams_interleave(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    best = run.turns(
        [0.5, 0.25], version=2, split="heldout", seed=41, task_id="task-a", seen="ALPHA", stream=0
    )
    worst = run.turns(
        [0.0, 0.125], version=2, split="heldout", seed=42, task_id="task-b", seen="BETA", stream=1
    )
    for _ in zip(best, worst, strict=True):
        pass
    said = text_of(written(run.close()))
    for words in ("ALPHA 0", "ALPHA 1", "ALPHA end", "BETA 0", "BETA 1", "BETA end"):
        assert said.count(words) == 1, words
    assert (
        said.index("ALPHA 0")
        < said.index("ALPHA 1")
        < said.index("ALPHA end")
        < said.index("BETA 0")
    )
    assert (
        "policy version 2, split heldout, source real, seed 41, task task-a, turns 2, ending "
        "terminated, return 0.75" in said
    )
    assert "act 1\n   reward 0.25; done = 0.5" in said and "the end: terminated" in said


def test_each_point_of_both_curves_has_its_n(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path, config=CONFIG)
    for version, n in ((0, 5), (3, 7)):
        for seed in range(n):
            run.live([0.5], version=version, split="heldout", seed=seed)
    for _ in range(4):
        run.live([0.25], version=2)
    page = written(run.close())
    assert [page.count(f">n={n}<") for n in (5, 7, 4)] == [1, 1, 1]
    assert "samples its actions at temperature 0.9" in page and "takes its likeliest action" in page
    assert not re.search(r">\d+\.\d+</text>[^<]*</g>[^<]*<!-- policy version", page)
    ticks = re.findall(r'id="f\d+-xtick_\d+".*?<text[^>]*>([^<]*)</text>', page, re.S)
    assert "0" in ticks and "3" in ticks and not [t for t in ticks if "." in t], ticks


def test_the_time_of_a_resumed_run_goes_on_and_the_report_says_from_where(tmp_path: Path) -> None:
    run = WrittenRun(
        tmp_path,
        status="succeeded",
        seconds=90.0,
        attempts=2,
        resumed=[{"at": 1040.0, "version": 6}],
    )
    run.log(
        {"t": 1010.0, "seconds": 10.0, "version": 1},
        {"t": 1020.0, "seconds": 20.0, "version": 2},
        {"t": 1065.0, "seconds": 25.0, "version": 3},
        {"t": 1075.0, "seconds": 35.0, "version": 4},
    )
    path = run.close()
    assert [r["seconds"] for r in in_one_time(RunDirectory(path).metrics())] == [10, 20, 45, 55]
    said = text_of(written(path))
    assert "after 1.5 minutes in 2 attempts" in said and re.search(
        r"Resumed \d{4}-\S+ \S+ from version 6", said
    )


def test_a_run_that_was_cut_off_or_failed_says_so_first_with_the_first_traceback(
    tmp_path: Path,
) -> None:
    run = WrittenRun(tmp_path, status="failed", why="nothing was <learned>")
    run.live([], ending="env_error", error="ValueError: <script>alert(1)</script>")
    run.live([], ending="env_error", error="ValueError: another")
    run.log({"t": 5.0, "seconds": 4.0, "version": 2})
    page = written(run.close())
    assert page.index("This run was failed: nothing was &lt;learned&gt;") < page.index("<h2>")
    assert (
        "Traceback of ValueError: &lt;script&gt;" in page
        and "2 × envs:Test-v0" in page
        and "another" not in page
    )
    killed = WrittenRun(tmp_path, "killed", status="running")
    killed.live([1.0], version=2)
    assert "This run was interrupted: its process is gone" in written(killed.close())


def test_pictures_of_what_was_seen_are_few_small_and_told_in_words(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    blobs = []
    for number in range(7):
        out = io.BytesIO()
        Image.effect_noise((1600, 1200), 90 + number).save(out, "PNG")
        blobs.append(
            run.journal.blobs.put(out.getvalue(), "image/png", 1600, 1200, role="screen<shot")
        )
    broken = run.journal.blobs.put(
        b"\x89PNG\r\n\x1a\n" + b"0" * 50, "image/png", 3, 3, role="broken"
    )
    run.live([1.0], version=1, split="heldout", obs_blobs=(*blobs, broken))
    page = written(run.close())
    sources = re.findall(
        r'<img alt="screen&lt;shot at turn \d, 1600 × 1200 pixels" src="([^"]*)"', page
    )
    assert len(sources) == 3 and all(len(s) < 200_000 for s in sources)
    assert re.search("broken at turn 1, 3 × 3 pixels: cannot be shown", page)
    Checked(page)


def test_the_page_is_whole_fetches_nothing_and_holds_no_word_of_a_world_as_markup(
    tmp_path: Path,
) -> None:
    evil = "</pre></style><script>x()</script><img src=http://evil/ onerror=x()>\x00\x1b[2J"
    run = WrittenRun(tmp_path, config=CONFIG)
    for version in range(3):
        for seed in range(5):
            run.live(
                [0.1 * version],
                version=version,
                split="heldout",
                seed=seed,
                env_id="p:<b>$x$-v0",
                seen=evil,
                task_id=evil,
            )
            run.live([0.1], version=version, env_id="p:<b>$x$-v0")
    run.live([], ending="timeout", error=evil, env_id="p:<b>$x$-v0")
    metrics = {"policy_loss": 1.0, "nll": 2.0, "kl": 0.1, "clipped": 0.2, "gradient_norm": 3.0}
    run.log(
        *(
            {
                "t": 10.0 + n,
                "seconds": 1.0 + n,
                "version": n,
                "lag": 0.5,
                "metrics": metrics,
                "steps": {"real": 9 * n, "demonstration": 4, "imagined": 5 * n},
            }
            for n in range(1, 4)
        )
    )
    page = written(run.close())
    found = Checked(page)
    assert (
        not {"script", "b", "iframe", "object"} & set(found.tags) and found.tags.count("svg") == 4
    )
    for label in (
        "gradient before it is cut",
        "mismatch with the acting policy",
        "lag of what was learned from",
        "kl",
        "acknowledged",
        "minutes, all attempts",
        "policy version",
        "temperature: 0.9",
    ):
        assert label in page, label


def test_a_store_that_cannot_be_read_does_not_hide_why_the_run_failed(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path, status="failed", why="a shard is damaged")
    run.live([1.0])
    path = run.close()
    shard = next((path / "shards").glob("*/*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-40])
    page = written(path)
    assert "a shard is damaged" in page and "The shards cannot be read" in page
