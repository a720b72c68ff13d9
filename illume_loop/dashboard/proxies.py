"""The browser's original request behind a reverse proxy, from the forwarded headers.

Invariants:
- Forwarded headers count only if the connection comes from a proxy that the settings trust.
- In a chain of proxies, only the values that trusted proxies added count, never those that the client sent.
- A value that is not a valid host, scheme, address or plain path is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from illume_loop.settings.hosts import networks_in

Network = IPv4Network | IPv6Network
LOOPBACK: tuple[Network, ...] = networks_in("127.0.0.0/8, ::1")
PREFIX = "illume_prefix"
"""The key of a request's scope for the path at which a proxy serves the dashboard."""
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*){1,16}")
_PAIR = re.compile(r"\s*([A-Za-z]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^;,\s\"]*))\s*")
_MOST_HOPS = 32


@dataclass(frozen=True, slots=True)
class BrowserRequest:
    """A request as the browser made it; `is_forwarded` is True if a proxy passed it on."""

    host: str
    scheme: str
    client: str
    prefix: str = ""
    is_forwarded: bool = False


@dataclass(frozen=True, slots=True)
class _ForwardedHeaders:
    """The values of the forwarded headers; the nearest proxy added the last value of each list."""

    clients: Sequence[str]
    hosts: Sequence[str]
    schemes: Sequence[str]
    port: str = ""
    prefix: str = ""


def seen_from(headers: Headers, peer: str, scheme: str, trusted: Sequence[Network]) -> BrowserRequest:
    """Return the browser's original request; `peer` is the address that the connection comes from."""
    host = headers.get("host", "")
    told = _told(headers)
    if told is None or not is_among(peer, trusted):
        return BrowserRequest(host, scheme, peer, is_forwarded=told is not None)
    client, hops = peer, 1
    for address in reversed(told.clients[-_MOST_HOPS:]):
        found = _address_in(address)
        if found is None:
            break
        client = str(found)
        if not is_among(client, trusted):
            break
        hops += 1
    wanted = _added_by(told.hosts, hops)
    if wanted and _HOST.fullmatch(wanted):
        has_port = re.search(r":\d+$", wanted)
        host = wanted if has_port or not re.fullmatch(r"\d{1,5}", told.port) else f"{wanted}:{told.port}"
    said = _added_by(told.schemes, hops).lower()
    return BrowserRequest(
        host=host,
        scheme=said if said in ("http", "https") else scheme,
        client=client,
        prefix=told.prefix if _PATH.fullmatch(told.prefix) else "",
        is_forwarded=True,
    )


def is_among(address: str, networks: Sequence[Network]) -> bool:
    """Return True if the address is in one of the networks."""
    found = _address_in(address)
    return found is not None and any(found in network for network in networks)


def root_of(request: HTTPConnection) -> str:
    """Return the link to the dashboard's first page, relative, so that it works below any path of a proxy."""
    prefix: str = request.scope.get(PREFIX, "")
    if prefix:
        return f"{prefix}/"
    path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return "../" * (path.split(b"?")[0].count(b"/") - 1) or "./"


def _told(headers: Headers) -> _ForwardedHeaders | None:
    """Return the values of X-Forwarded-*, or else of Forwarded; None if a request has neither."""
    clients, hosts, schemes = (
        _listed(headers, name) for name in ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
    )
    if not (clients or hosts or schemes or headers.get("x-forwarded-prefix")):
        return _forwarded(_joined(headers, "forwarded"))
    return _ForwardedHeaders(
        clients,
        hosts,
        schemes,
        port=(_listed(headers, "x-forwarded-port") or [""])[-1],
        prefix=(_listed(headers, "x-forwarded-prefix") or [""])[-1].rstrip("/"),
    )


def _forwarded(value: str) -> _ForwardedHeaders | None:
    """Return the values of a Forwarded header (RFC 7239); None if it is empty."""
    if not value:
        return None
    found: dict[str, list[str]] = {"for": [], "host": [], "proto": []}
    for element in _split(value, ","):
        for pair in _split(element, ";"):
            match = _PAIR.fullmatch(pair)
            if match and match[1].lower() in found:
                found[match[1].lower()].append((match[2] or match[3] or "").replace("\\", ""))
    return _ForwardedHeaders(found["for"], found["host"], found["proto"])


def _split(value: str, separator: str) -> list[str]:
    """Split a header at a separator, except inside quotes."""
    return re.findall(rf"(?:[^{separator}\"]|\"(?:[^\"\\]|\\.)*\")+", value)


def _joined(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name))


def _listed(headers: Headers, name: str) -> list[str]:
    return [one for part in _joined(headers, name).split(",") if (one := part.strip())]


def _added_by(values: Sequence[str], hops: int) -> str:
    """Return the value that the outermost trusted proxy added; a proxy either appends a value or replaces the list."""
    return values[-min(hops, len(values))] if values else ""


def _address_in(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in a text, without brackets, port and IPv6 zone; None if there is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
