"""A small reverse proxy on a real port, which hands requests on as common ones do.

What it does to the headers is a flavour: the default configuration of nginx or Apache, or that of our documents.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Headers = dict[str, str]
Flavour = Callable[[Headers, str], Headers]
"""Changes the headers (named in lower case) of a client at an address."""


def nginx_as_it_comes(headers: Headers, _: str) -> Headers:
    """Nothing but `proxy_pass`: the host is the upstream's, and what the client sent goes through."""
    return {name: value for name, value in headers.items() if name != "host"}


def nginx_as_documented(headers: Headers, client: str) -> Headers:
    """With the four lines of docs/how-to/look-and-review.md, behind TLS."""
    before = headers.get("x-forwarded-for")
    added = {
        "x-forwarded-host": headers["host"],
        "x-forwarded-proto": "https",
        "x-forwarded-for": f"{before}, {client}" if before else client,
    }
    return nginx_as_it_comes(headers, client) | added


def apache_as_it_comes(headers: Headers, client: str) -> Headers:
    """Only `ProxyPass`: it adds to what the client sent of these headers."""
    added = {"x-forwarded-for": client, "x-forwarded-host": headers["host"], "x-forwarded-server": "front"}
    joined = {name: f"{headers[name]}, {value}" if name in headers else value for name, value in added.items()}
    return nginx_as_it_comes(headers, client) | joined


def caddy_as_it_comes(headers: Headers, client: str) -> Headers:
    """Only `reverse_proxy`: the host is kept, and the headers are its own."""
    return headers | {"x-forwarded-for": client, "x-forwarded-host": headers["host"], "x-forwarded-proto": "https"}


def with_standard_header(headers: Headers, client: str) -> Headers:
    """The header of RFC 7239 alone."""
    said = f'for="{client}:4711";host="{headers["host"]}";proto=https'
    return nginx_as_it_comes(headers, client) | {"forwarded": said}


@contextmanager
def proxied(upstream: int, flavour: Flavour, path: str = "", client: str = "203.0.113.7") -> Iterator[str]:
    """Show the server at a port below `path` of another port; the URL that a browser opens."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not self.path.startswith(f"{path}/"):
                self.send_response(301 if self.path == path else 404)
                self.send_header("Location", f"{path}/")
                self.end_headers()
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = {"host": f"127.0.0.1:{upstream}", **flavour(headers, client)}
            with closing(HTTPConnection("127.0.0.1", upstream, timeout=60)) as asked:
                asked.request(self.command, self.path[len(path) :], body, sent)
                answer = asked.getresponse()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.end_headers()
                while piece := answer.read1():
                    self.wfile.write(piece)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
