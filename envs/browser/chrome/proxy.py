"""The one way out of a live browser's cage: a proxy that lets through a list of hosts, no others.

It runs as a process of its own in a place without files (see way_out), serves a socket that listens
inside the browser's cage, and holds no secret. A rule is one of

    example.org             its ports 80 and 443
    example.org:8080        that port
    *.example.org           every host below it
    10.0.0.5:8000           an address, even one that is not public
    wiki.lab=10.0.0.5:8443  a name for that address

A name is resolved once, here. Unless a rule gives the address, an address that is not public
(loopback, private, link-local, a cloud's metadata) is refused, so no name, redirect or rebinding
leads back into the own network. Bytes, idle time and the number of connections are limited. Not
covered: what an allowed host does with what it is sent, and a host that answers for others behind
the same name. Standard library only: the place has no other package, and its Python may be older
than ours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import sys
from typing import NamedTuple

MOST_BYTES = 256 << 20  # of one connection, both directions together
_MOST_CONNECTIONS = 64  # at once; further ones wait
_HEAD_BYTES = 64 << 10
_HEAD_SECONDS = 10.0
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 120.0
_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,62})\.)*[a-z0-9_][a-z0-9_-]{0,62}")
# `asyncio.TimeoutError` was no OSError in older Pythons.
_BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError)
_METHOD = re.compile("[A-Z]{1,20}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"http://([^/?#@\\]+)([/?][!-~]*)?")
# Headers for the proxy itself. `Host` is written anew from the address that was checked.
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
# IPv6 networks whose addresses carry an IPv4 address, and how many bits stand to its right:
# NAT64 (RFC 6052), 6to4 (RFC 3056), IPv4-compatible (RFC 4291).
_V6_WITH_V4 = (
    ("64:ff9b::/96", 0),
    ("2002::/16", 80),
    ("::/96", 0),
)


class Rule(NamedTuple):
    """One allowed host: `port` None is 80 and 443, `address` "" is what the name resolves to."""

    host: str
    port: int | None
    address: str

    def holds(self, host: str, port: int) -> bool:
        ports = (80, 443) if self.port is None else (self.port,)
        if port not in ports:
            return False
        if self.host.startswith("*."):
            # With its dot, so that evilwiki.org is not below wiki.org.
            return host.endswith(self.host[1:])
        return host == self.host


class Refused(Exception):
    """A request that no rule lets through, with the reason."""


class Allowance:
    """How many bytes a connection may still carry, both directions together."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, count: int) -> None:
        """Raises OSError at too many bytes."""
        self._left -= count
        if self._left < 0:
            raise OSError("too many bytes")


def read_rule(text: str) -> Rule:
    """The rule that a text stands for. Raises ValueError for what is no rule."""
    name, _, address = text.strip().lower().rpartition("=")
    address, port = _split(address)
    host = name or address
    if not _is_address(host) and not _is_name(host):
        raise ValueError(
            f"{text!r} is no host: write example.org, *.example.org, example.org:8080, "
            "10.0.0.5:8000 or wiki.lab=10.0.0.5"
        )
    if name and not _is_address(address):
        raise ValueError(f"{text!r}: {address} is no address")
    return Rule(host, port, address if _is_address(address) else "")


def _is_name(host: str) -> bool:
    # Resolvers read 2130706433 and 0x7f.1 as addresses. Without a letter in its last label, such
    # a text is no name.
    return bool(_NAME.fullmatch(host) and re.search("[a-z]", host.rpartition(".")[2]))


def _split(text: str) -> tuple[str, int | None]:
    """(host, port) of host[:port] or [v6]:port. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host = text
        port = ""
    elif not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text[:80]!r} has no port from 1 to 65535")
    host = host.strip("[]")
    if _is_address(host):
        host = str(ipaddress.ip_address(host))  # one spelling of each address, to compare with
    return host, int(port) if port else None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_public(text: str) -> bool:
    """Whether an address belongs to the public internet.

    An IPv6 address that carries an IPv4 address is judged by the IPv4 address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        for network, right in _V6_WITH_V4:
            if address in ipaddress.ip_network(network):
                carried = ipaddress.IPv4Address(int(address) >> right & 0xFFFFFFFF)
                return is_public(str(carried))
        if address.is_site_local or address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def addresses(rules: list[Rule], host: str, port: int) -> list[str]:
    """The addresses at which `host` may be reached. Raises Refused."""
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
    resolved = list(dict.fromkeys(str(f[4][0]) for f in found))
    # All of them: whoever owns the name chooses which of its addresses is tried first.
    if not all(map(is_public, resolved)):
        raise Refused("its address is not public")
    return resolved


def read_head(head: bytes) -> tuple[str, int, bytes]:
    """(host, port, what to send on) of a request to a proxy; nothing is sent on for CONNECT.

    Raises ValueError for what is no such request.
    """
    first, *fields = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not _METHOD.fullmatch(method):
        raise ValueError("no HTTP")
    if method == "CONNECT":
        host, port = _split(target)
        if port is None:
            raise ValueError("CONNECT without a port")
        return host, port, b""
    address = _TARGET.fullmatch(target)
    if address is None:
        raise ValueError("no plain http address")
    host, port = _split(address[1])
    path = address[2] or "/"
    path = path if path.startswith("/") else "/" + path
    kept = [line for line in filter(None, fields) if _header_name(line) not in _DROPPED]
    # "Connection: close": a second request would go to this host, whatever host it names.
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address[1]}", *kept, "Connection: close"]
    return host, port or 80, "\r\n".join([*lines, "", ""]).encode("latin-1")


def _header_name(line: str) -> str:
    """In lower case. Raises ValueError for a line that a host could read in another way."""
    name, colon, _ = line.partition(":")
    if not colon or not _HEADER.fullmatch(name) or re.search(r"[\r\n\0]", line):
        raise ValueError("a malformed header")
    return name.lower()


async def _serve(
    rules: list[Rule],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    free: asyncio.Semaphore,
) -> None:
    try:
        async with free:
            await _forward(rules, reader, writer)
    except (Refused, ValueError) as refused:
        writer.write(_refusal(str(refused)))
    except _BROKEN:
        pass  # a broken connection is closed, as a network would
    finally:
        writer.close()


async def _forward(
    rules: list[Rule], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Reads one request, connects to its host and carries bytes until both sides have ended."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
    host, port, request = read_head(head)
    from_host, to_host = await _reach(await addresses(rules, host, port), port)
    try:
        if request:
            to_host.write(request)
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        allowance = Allowance(MOST_BYTES)
        await asyncio.gather(
            _carry(reader, to_host, allowance), _carry(from_host, writer, allowance)
        )
    finally:
        to_host.close()


def _refusal(reason: str) -> bytes:
    body = f"refused: {reason}\n".encode("ascii", "replace")
    head = (
        "HTTP/1.1 403 Forbidden",
        "Content-Type: text/plain",
        "Connection: close",
        "X-Refused: yes",  # tells the proxy's own 403 from a site's
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join([*head, "", ""]).encode("ascii") + body


async def _reach(
    candidates: list[str], port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address that answers. Raises OSError if none does."""
    last: OSError | None = None
    for address in candidates:
        try:
            return await asyncio.wait_for(asyncio.open_connection(address, port), _CONNECT_SECONDS)
        except asyncio.TimeoutError:  # noqa: UP041 - the machine's Python may be older than ours
            last = OSError("timed out")
        except OSError as closed:
            last = closed
    raise last or OSError("no address")


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowance: Allowance
) -> None:
    """Carries bytes from one side to the other until the first side ends.

    Raises OSError at too many bytes, TimeoutError if nothing comes for too long.
    """
    while data := await asyncio.wait_for(reader.read(1 << 16), _IDLE_SECONDS):
        allowance.take(len(data))
        writer.write(data)
        await writer.drain()
    # Half closed: the other side may still answer.
    if writer.can_write_eof():
        writer.write_eof()


async def _main(listening: socket.socket, rules: list[Rule]) -> None:
    free = asyncio.Semaphore(_MOST_CONNECTIONS)
    server = await asyncio.start_server(
        lambda r, w: _serve(rules, r, w, free), sock=listening, limit=_HEAD_BYTES
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":  # the listening socket is its stdin
    asyncio.run(_main(socket.socket(fileno=0), [read_rule(text) for text in sys.argv[1:]]))
