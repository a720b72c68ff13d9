"""The security headers of every answer, and the refusal of requests that come from other sites.

Prompts and critiques are untrusted texts. The pages escape them. If a page failed to, the content security policy still
runs no inline script, and neither loads from nor sends to another site.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from illume_loop.dashboard.proxies import LOOPBACK, PREFIX, BrowserRequest, Network, is_among, root_of, seen_from

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


NOT_LOCAL = (
    "Without a password, this dashboard answers only on this machine (localhost). To show it to others, set a password "
    "(ILLUME_DASHBOARD__ADMIN_PASSWORD) and restart the dashboard."
)
FOREIGN = (
    "Another site sent this form. If a proxy is in front of the dashboard, let it forward the host "
    "(X-Forwarded-Host), and list it in dashboard.trusted_proxies; see docs/how-to/look-and-review.md."
)


class Guard:
    """Middleware that adds the headers, refuses cross-site requests, and undoes what trusted proxies changed.

    `names` are the host names that the server accepts; None accepts any. A server without passwords must restrict them:
    otherwise another site could point its own name at this machine (DNS rebinding) and read everything.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str] | None, trusted: Sequence[Network] = LOOPBACK) -> None:
        self._app, self._names, self._trusted = app, names, trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        peer = scope["client"] or ("", 0)
        seen = seen_from(headers, peer[0], scope["scheme"], self._trusted)
        asked = _as_asked(scope, seen, peer[1])

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    told.setdefault(name, value)
                if "location" in told:
                    told["location"] = _below(asked, told["location"])
            await send(message)

        refusal = self._refusal(scope["method"], headers, seen)
        if refusal is not None:
            await PlainTextResponse(refusal, status_code=403)(scope, receive, send_guarded)
            return
        await self._app(asked, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers, seen: BrowserRequest) -> str | None:
        if self._names is not None:
            # Check the Host header too: a page that points its own name here can send any forwarded header.
            hosts = {_name_of(f"//{host}") for host in (headers.get("host", ""), seen.host)}
            if not hosts <= self._names or (seen.is_forwarded and not is_among(seen.client, LOOPBACK)):
                return NOT_LOCAL
        if method in ("GET", "HEAD", "OPTIONS"):
            return None
        site = headers.get("sec-fetch-site")
        if site not in (None, "same-origin", "none"):
            return FOREIGN
        # Only browsers can set this header, never a page, so it is proof even if a proxy changed the host.
        if site == "same-origin" and self._names is None:
            return None
        origin = headers.get("origin")
        place = _place_of(f"//{seen.host}")
        if origin is not None and (place[0] is None or _place_of(origin) != place):
            return FOREIGN
        return None


def _as_asked(scope: Scope, seen: BrowserRequest, port: int) -> Scope:
    """Return the scope with the browser's address and scheme, and with the path without the proxy's prefix."""
    asked = {**scope, "scheme": seen.scheme, "client": (seen.client, port) if seen.client else None}
    if seen.prefix:
        asked[PREFIX] = seen.prefix
        if f"{scope['path']}/".startswith(f"{seen.prefix}/"):
            asked["path"] = scope["path"][len(seen.prefix) :] or "/"
            asked["raw_path"] = scope.get("raw_path", scope["path"].encode())[len(seen.prefix) :] or b"/"
    return asked


def _below(scope: Scope, location: str) -> str:
    """Return a redirect's location relative to the request; Starlette builds it from the address that a proxy used."""
    parts = urlsplit(location)
    if not parts.netloc or parts.netloc != Headers(scope=scope).get("host"):
        return location
    return root_of(HTTPConnection(scope)) + parts._replace(scheme="", netloc="").geturl().removeprefix("/")


def _place_of(url: str) -> tuple[str | None, int | None]:
    """Return the host and port of a URL; the port is None for 80 and 443, and (None, -1) stands for an invalid URL."""
    try:
        parts = urlsplit(url)
        return parts.hostname, None if parts.port in (80, 443) else parts.port
    except ValueError:
        return None, -1


def _name_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
