"""What a viewer must withstand: injected markup, paths, other sites, writes without a token, noise."""

from __future__ import annotations

import http.client
import json
import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from actors.reading.viewer.serving.guard import MOST_BYTES
from actors.reading.viewer.serving.questions import QUESTIONS
from experience.shards.amend import follow_amended
from tests.viewer.conftest import TOKEN, Served, Watched, serving
from tests.viewer.hostile_words import PAYLOADS, TRAVERSALS
from tests.viewer.lived import imagine, rich_run, with_metrics


def asked(
    served: Served,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """An answer to a request whose path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    try:
        connection.putrequest(
            method, path, skip_host=bool(headers and "Host" in headers), skip_accept_encoding=True
        )
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in (headers or {}):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A run in which every text that anybody can fill holds all the payloads."""
    runs = tmp_path_factory.mktemp("hostile")
    everything = " ".join(PAYLOADS)
    run, keys = rich_run(runs, say=lambda text: f"{text} {everything}")
    with_metrics(run, lambda text: f"{text} {everything}".replace("\n", " "))
    imagine(run, lambda text: f"{text} {everything}")
    run.journal.commit()
    for port in serving(runs):
        yield Served(port, runs, run, keys)
    run.close()


def test_forty_payloads_in_every_text_run_nothing_and_fetch_nothing(
    hostile: Served, watched: Watched
) -> None:
    assert len(set(PAYLOADS)) == 40
    screens = [
        hostile.home,
        hostile.at(),
        hostile.at("episodes"),
        hostile.at("groups"),
        hostile.at("timeline"),
        hostile.at("options"),
        hostile.at("versions"),
        hostile.at("imagined"),
        hostile.at("store"),
    ]
    screens += [
        hostile.at("episode", key, asked=f"view={view}")
        for key in (hostile.keys["attempt 1"], hostile.keys["calls"], hostile.keys["failed"])
        for view in ("screen", "chat")
    ]
    screens += [
        hostile.at("group", asked="group=" + quote("g-1 " + " ".join(PAYLOADS))),
        hostile.at(
            "group", asked="keys=" + ",".join(hostile.keys[f"attempt {i}"] for i in range(4))
        ),
    ]
    screens += [f"{hostile.home}/#/compare?runs=office-1,office-1"]
    for address in screens:
        watched.page.goto("about:blank")
        watched.page.goto(address)
        watched.page.wait_for_selector("#content .page, #content .trouble")
        for opener in watched.page.locator("details:not([open]) > summary").all()[:12]:
            opener.click(timeout=5000) if opener.is_visible() else None
        grown = watched.page.evaluate(
            "() => [...document.querySelectorAll('script, iframe, object, embed, base, video, marquee, form[action], math, animate, foreignObject, meta[http-equiv], link:not([rel=stylesheet]):not([rel=icon])')].map(e => e.outerHTML)"
        )
        assert [g for g in grown if 'src="/main.js"' not in g] == [], address
        assert watched.page.evaluate(
            "() => [...document.querySelectorAll('a')].every(a => !a.href.startsWith('javascript:') && !a.href.startsWith('data:text'))"
        )
    outside = [url for url in watched.asked if not url.startswith((hostile.home, "about:"))]
    assert outside == []


def test_the_payloads_are_shown_as_text(hostile: Served, watched: Watched) -> None:
    text = watched.open(hostile.at("episode", hostile.keys["calls"])).inner_text(".middle")
    assert "<script>alert(1)</script>" in text and "<img src=x onerror=alert(2)>" in text


def test_thirty_ways_out_of_the_folder_lead_nowhere(served: Served) -> None:
    assert len(set(TRAVERSALS)) == 30
    for path in TRAVERSALS:
        status, _, body = asked(served, "GET", path)
        assert status in (400, 403, 404), (path, status)
        assert b"root:" not in body and b"def view" not in body and b'"signed"' not in body, path


def test_another_hosts_name_is_refused_on_every_address(served: Served) -> None:
    for path in (
        "/",
        "/main.js",
        "/api/runs",
        "/api/runs/office-1",
        "/api/runs/office-1/live",
        "/blobs/office-1/" + "0" * 64,
    ):
        for host in (
            "evil.example",
            f"evil.example:{served.port}",
            "127.0.0.1",
            "127.0.0.1:1",
            f"127.0.0.1:{served.port}.evil.example",
            f"[::1]:{served.port}",
            "",
        ):
            status, _, body = asked(served, "GET", path, {"Host": host})
            assert status in (400, 403), (path, host, status)
            assert b"office" not in body
        assert asked(served, "GET", "/api/runs", {"Host": f"localhost:{served.port}"})[0] == 200


def test_two_host_headers_are_refused(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.putrequest("GET", "/api/runs", skip_host=True)
    for host in (f"127.0.0.1:{served.port}", "evil.example"):
        connection.putheader("Host", host)
    connection.endheaders()
    assert connection.getresponse().status in (400, 403)
    connection.close()


def test_pages_of_other_sites_are_refused(served: Served) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert asked(served, "GET", "/api/runs", headers)[0] == 403, headers
    status, headers, _ = asked(served, "GET", "/api/runs")
    assert status == 200 and "access-control-allow-origin" not in headers


GOOD = {"x-xp-token": TOKEN, "content-type": "application/json"}


def _amended(served: Served) -> int:
    folder = served.run.path / "shards" / "amendments"
    return len(list(folder.glob("*"))) if folder.is_dir() else 0


def test_a_write_needs_the_token_json_a_length_and_our_own_page(served: Served) -> None:
    path = f"/api/runs/{served.run.path.name}/feedback"
    body = json.dumps({"key": served.keys["attempt 1"], "rating": 1}).encode()
    before = _amended(served)
    wrong: list[tuple[dict[str, str], bytes]] = [
        ({}, body),
        ({"content-type": "application/json"}, body),
        (GOOD | {"x-xp-token": "guess"}, body),
        (GOOD | {"x-xp-token": ""}, body),
        (GOOD | {"content-type": "text/plain"}, body),
        (GOOD | {"content-type": "application/x-www-form-urlencoded"}, body),
        (GOOD | {"Origin": "http://evil.example"}, body),
        (GOOD | {"Sec-Fetch-Site": "cross-site"}, body),
        (GOOD | {"Host": "evil.example"}, body),
        (GOOD, b" " * (MOST_BYTES + 1)),
        (GOOD | {"Content-Length": "999999999999"}, body),
    ]
    for headers, sent in wrong:
        assert asked(served, "POST", path, headers, sent)[0] in (400, 403, 411, 413, 415), headers
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert asked(served, method, path, GOOD, body if method != "GET" else None)[0] == 405
    assert _amended(served) == before


@pytest.mark.parametrize(
    "said",
    (
        [],
        "text",
        {},
        {"key": 3},
        {"key": "x", "rating": 1},
        {"rating": 1},
        {"rating": 2},
        {"rating": True},
        {"rating": "1"},
        {"rating": -1},
        {"turn": 99, "rating": 1},
        {"turn": -1, "rating": 1},
        {"turn": True, "rating": 1},
        {"comment": 4},
        {"comment": "x" * 5000},
        {"preferred": "x", "over": []},
    ),
)
def test_feedback_that_says_nothing_or_nonsense_is_refused_and_written_nowhere(
    served: Served, said: Any
) -> None:
    before = _amended(served)
    if isinstance(said, dict) and "preferred" not in said and "key" not in said and said != {}:
        said = (
            {"key": served.keys["attempt 1"], **said}
            if "turn" in said or said.get("rating") != 1
            else said
        )
    status, _, body = asked(
        served,
        "POST",
        f"/api/runs/{served.run.path.name}/feedback",
        GOOD,
        json.dumps(said).encode(),
    )
    assert status in (400, 404), body
    assert _amended(served) == before


def test_every_answer_forbids_scripts_frames_sniffing_and_keeping(served: Served) -> None:
    for path in ("/", "/main.js", "/api/runs", "/nowhere", "/styles/base.css"):
        _, headers, _ = asked(served, "GET", path)
        policy = headers["content-security-policy"]
        assert (
            "default-src 'none'" in policy
            and "unsafe-inline" not in policy
            and "frame-ancestors 'none'" in policy
        )
        assert (
            headers["x-content-type-options"] == "nosniff"
            and headers["cache-control"] == "no-store"
        )
        assert headers["referrer-policy"] == "no-referrer" and "server" not in headers


def test_a_blob_that_is_no_picture_is_never_given_as_a_page(tmp_path: Path) -> None:
    run, _ = rich_run(tmp_path)
    evil = run.journal.blobs.put(b"<html><script>alert(1)</script>", "text/html", role="screen")
    run.episode(
        [0.0], lambda i: {"obs_text": "x", "obs_blobs": (evil,)}, env_id="tests.no_such:Screen-v0"
    )
    run.close()
    for port in serving(tmp_path):
        served = Served(port, tmp_path, run, {})
        status, headers, _ = asked(served, "GET", f"/blobs/office-1/{evil.hash.hex()}")
        assert status == 200 and headers["content-type"] == "application/octet-stream"
        assert headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_random_requests_are_answered_or_refused_and_never_break_the_server(
    served: Served, request: pytest.FixtureRequest
) -> None:
    number = 10_000 if request.config.getoption("--long") else 300
    chance = random.Random(7)
    before = sorted(
        str(p)
        for p in served.run.path.rglob("*")
        if "derived" not in str(p) and "index" not in p.name
    )
    addresses = [path.replace("{run}", "office-1") for path in QUESTIONS] + [
        "/",
        "/main.js",
        "/blobs/office-1/{key}",
    ]
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    broken = []
    for _ in range(number):
        method, path, headers = _at_random(chance, addresses, list(served.keys.values()))
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status >= 500:
                broken.append((method, path, answer.status))
        except (http.client.HTTPException, OSError):
            connection.close()  # the server may end the connection of a request that is no HTTP
    assert broken == []
    assert asked(served, "GET", "/api/runs")[0] == 200
    after = sorted(
        str(p)
        for p in served.run.path.rglob("*")
        if "derived" not in str(p) and "index" not in p.name
    )
    assert after == before, "nothing that was asked changed the run"


def _at_random(
    chance: random.Random, addresses: list[str], keys: list[str]
) -> tuple[str, str, dict[str, str]]:
    def noise() -> str:
        kind = chance.randrange(6)
        if kind == 0:
            return str(
                chance.choice((0, -1, 7, 2**63, 2**64, 10**30, "1e999", "nan", "inf", "0x10", "٣"))
            )
        if kind == 1:
            return chance.choice(PAYLOADS)
        if kind == 2:
            return "".join(chance.choices(string.printable, k=chance.randrange(30)))
        if kind == 3:
            return chance.choice(
                (
                    "-reward",
                    "begun",
                    "failed",
                    "under way",
                    "unknown",
                    "heldout",
                    "1",
                    "'; drop table x",
                )
            )
        if kind == 4:
            return "".join(chr(chance.randrange(1, 0x2FFF)) for _ in range(chance.randrange(12)))
        return chance.choice(keys)

    path = chance.choice(addresses).replace("{key}", quote(noise(), safe=":"))
    if chance.random() < 0.1:
        path = "/" + quote(noise())
    names = (
        "world",
        "task",
        "version",
        "low",
        "high",
        "sort",
        "page",
        "from",
        "to",
        "count",
        "at",
        "group",
        "keys",
        "stream",
        "a",
        "b",
        "text",
        "ending",
        "reward",
        "imagined",
    )
    words = [f"{chance.choice(names)}={quote(noise())}" for _ in range(chance.randrange(4))]
    # Verifying a whole store at each of a thousand requests would test the store, not the server.
    if path.endswith("/verified") and chance.random() < 0.9:
        path = "/api/runs"
    method = chance.choice(("GET", "GET", "GET", "GET", "HEAD", "POST", "PUT"))
    headers = {"X-Noise": quote(noise())} if chance.random() < 0.2 else {}
    return method, f"{path}?{'&'.join(words)}" if words else path, headers


def test_feedback_goes_into_the_store_as_signals_of_source_human(
    served: Served, watched: Watched
) -> None:
    page = watched.page
    page.goto(f"{served.home}/#/run/office-1/episode/{served.keys['calls']}?token={TOKEN}")
    page.wait_for_selector("form.feedback")
    assert TOKEN not in page.url, "the token leaves the address"
    page.get_by_role("textbox", name="comment").fill("the second call was needless")
    page.get_by_role("button", name="rate it 1").click()
    page.wait_for_selector("text=Kept: human_comment, human_rating.")
    page.goto(f"{served.home}/#/run/office-1/group?group=g-1")
    page.wait_for_selector(".lane")
    page.get_by_role("button", name="Prefer").first.click()
    page.wait_for_selector("text=preferred over 3 others")
    given = {
        (signal.name, signal.value, signal.source)
        for block in follow_amended(served.run.path / "shards")
        for step in block
        for signal in step.signals
        if signal.source == "human"
    }
    assert given == {
        ("human_rating", 1.0, "human"),
        ("human_comment", 1.0, "human"),
        ("human_choice", 1.0, "human"),
        ("human_choice", 0.0, "human"),
    }
    text = watched.open(served.at("episode", served.keys["calls"], asked="turn=2")).inner_text(
        ".side"
    )
    assert "the second call was needless" in text
