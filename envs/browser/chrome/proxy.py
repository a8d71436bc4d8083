"""The one way out of a live browser's cage: a proxy that lets through the hosts on a list, and
nothing else.

It runs as a process of its own in a place without files (see chromium), serves a socket that
listens inside the browser's cage, and holds no secret. A rule is one of

    example.org             its ports 80 and 443
    example.org:8080        that port
    *.example.org           every host below it
    10.0.0.5:8000           an address, taken at its word
    wiki.lab=10.0.0.5:8443  a name that is that address

A name is resolved once, here; unless a rule gives the address, one that is not public (loopback,
private, link-local, a cloud's metadata) is refused, so no name, redirect or rebinding leads back
into the own network. Each connection may carry so many bytes and idle so long. Not covered: what an
allowed host does with what it is sent, and a host that answers for others behind the same name.
Standard library only: it is started without ours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import sys
from typing import NamedTuple

MOST_BYTES = 256 << 20
_HEAD_BYTES, _HEAD_SECONDS, _CONNECT_SECONDS, _IDLE_SECONDS, _AT_ONCE = (
    64 << 10,
    10.0,
    10.0,
    120.0,
    64,
)
_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,62})\.)*[a-z0-9_][a-z0-9_-]{0,62}")
_DROPPED = (
    "connection",
    "keep-alive",
    "te",
    "upgrade",
    "host",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
)
_V6_WITH_V4 = (
    ("64:ff9b::/96", 0),
    ("2002::/16", 80),
    ("::/96", 0),
)  # how far to the right the IPv4 address stands


class Rule(NamedTuple):
    """One allowed host: `port` None is 80 and 443, `address` "" is what its name resolves to."""

    host: str
    port: int | None
    address: str

    def holds(self, host: str, port: int) -> bool:
        if port not in ((80, 443) if self.port is None else (self.port,)):
            return False
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host


class Refused(Exception):
    """A request that no rule lets through, with the reason."""


def read_rule(text: str) -> Rule:
    """Raises ValueError for what is no rule."""
    name, _, address = text.strip().lower().rpartition("=")
    address, port = _split(address)
    host = name or address
    if not _is_address(host) and not (
        _NAME.fullmatch(host) and re.search("[a-z]", host.rpartition(".")[2])
    ):
        raise ValueError(
            f"{text!r} is no host: write example.org, *.example.org, example.org:8080, "
            "10.0.0.5:8000 or "
            "wiki.lab=10.0.0.5"
        )
    if name and not _is_address(address):
        raise ValueError(f"{text!r}: {address} is no address")
    return Rule(host, port, address if name or _is_address(address) else "")


def _split(text: str) -> tuple[str, int | None]:
    """(host, port) of host[:port] or [v6]:port. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, ""
    elif not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text[:80]!r} has no port from 1 to 65535")
    host = host.strip("[]")
    return str(ipaddress.ip_address(host)) if _is_address(host) else host, int(
        port
    ) if port else None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_public(text: str) -> bool:
    """Whether an address is anybody's in the internet; one that carries an IPv4 address is judged
    by that too."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        for network, right in _V6_WITH_V4:
            if address in ipaddress.ip_network(network):
                return is_public(str(ipaddress.IPv4Address(int(address) >> right & 0xFFFFFFFF)))
        if address.is_site_local or address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def addresses(rules: list[Rule], host: str, port: int) -> list[str]:
    """Where `host` may be reached. Raises Refused."""
    host = host.lower().rstrip(".")
    rule = next((r for r in rules if r.holds(host, port)), None)
    if rule is None:
        raise Refused("not on the list")
    if rule.address:
        return [rule.address]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as unknown:
        raise Refused(f"no such host: {unknown}") from None
    meant = list(dict.fromkeys(str(f[4][0]) for f in found))
    if not all(map(is_public, meant)):
        raise Refused("its address is not public")
    return meant


def read_head(head: bytes) -> tuple[str, int, bytes]:
    """(host, port, what to send on) of a request to a proxy; nothing is sent on for CONNECT.

    Raises ValueError.
    """
    first, *fields = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not re.fullmatch("[A-Z]{1,20}", method):
        raise ValueError("no HTTP")
    if method == "CONNECT":
        host, port = _split(target)
        if port is None:
            raise ValueError("CONNECT without a port")
        return host, port, b""
    place = re.fullmatch(r"http://([^/?#@\\]+)([/?][!-~]*)?", target)
    if place is None:
        raise ValueError("no plain http address")
    host, port = _split(place[1])
    path = place[2] or "/"
    path = path if path.startswith("/") else "/" + path
    kept = []
    for line in filter(None, fields):
        name, colon, _ = line.partition(":")
        if (
            not colon
            or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
            or re.search(r"[\r\n\0]", line)
        ):
            raise ValueError("a malformed header")
        if name.lower() not in _DROPPED:
            kept.append(line)
    sent = "\r\n".join(
        [f"{method} {path} HTTP/1.1", f"Host: {place[1]}", *kept, "Connection: close", "", ""]
    )
    return host, port or 80, sent.encode("latin-1")


async def _serve(
    rules: list[Rule],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    free: asyncio.Semaphore,
) -> None:
    try:
        async with free:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
            host, port, sent = read_head(head)
            there, out = await _reach(await addresses(rules, host, port), port)
            try:
                if sent:
                    out.write(sent)
                else:
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                left = [MOST_BYTES]
                await asyncio.gather(_carry(reader, out, left), _carry(there, writer, left))
            finally:
                out.close()
    except (Refused, ValueError) as refused:
        body = f"refused: {refused}\n".encode("ascii", "replace")
        writer.write(
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\nX-Refused: yes\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError):  # noqa: UP041
        pass  # a broken connection is closed, as a network would
    finally:
        writer.close()


async def _reach(found: list[str], port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    last: OSError | None = None
    for address in found:
        try:
            return await asyncio.wait_for(asyncio.open_connection(address, port), _CONNECT_SECONDS)
        except asyncio.TimeoutError:  # noqa: UP041 - the machine's Python may be older than ours
            last = OSError("timed out")
        except OSError as closed:
            last = closed
    raise last or OSError("no address")


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int]
) -> None:
    """From one side to the other until that side ends. Raises OSError at too many bytes."""
    while data := await asyncio.wait_for(reader.read(1 << 16), _IDLE_SECONDS):
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError("too many bytes")
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _main(listening: socket.socket, rules: list[Rule]) -> None:
    free = asyncio.Semaphore(_AT_ONCE)
    server = await asyncio.start_server(
        lambda r, w: _serve(rules, r, w, free), sock=listening, limit=_HEAD_BYTES
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":  # the listening socket is its stdin
    asyncio.run(_main(socket.socket(fileno=0), [read_rule(text) for text in sys.argv[1:]]))
