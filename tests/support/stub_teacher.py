"""An OpenAI-compatible endpoint on this machine: it sees the image that it is sent, and fails as it is told to.

A reply is a function of (number of the call, image, question): an answer's text, a status with a body, or HANG for an
endpoint that is silent until the client has gone. What an endpoint does not take is a function of (path, headers,
body): a status, or None for a request that is answered.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from illume_loop.domains.shapes import checker
from illume_loop.domains.shapes.grammar import parse
from illume_loop.domains.shapes.questions import questions
from illume_loop.domains.shapes.spec import CATEGORIES, all_specs
from illume_loop.domains.shapes.wordings import critique
from illume_loop.judge.dialect import forget


@dataclass(frozen=True)
class Status:
    """An HTTP status with headers and a body."""

    code: int
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


HANG = object()
RULES = {
    asked.question.text: asked for category in CATEGORIES for spec in all_specs(category) for asked in questions(spec)
}
Reply = Callable[[int, Image.Image, str], object]
Refuse = Callable[[str, dict[str, str], dict[str, Any]], Status | None]


@dataclass
class StubTeacher:
    """The endpoint's address, and every request that it got: (path, headers, body)."""

    url: str
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)


@contextmanager
def stub_teacher(reply: Reply, refuse: Refuse = lambda *_: None) -> Iterator[StubTeacher]:
    """A server in a thread."""
    # A port may be that of an earlier server, of which something was learned.
    forget()
    lock, over = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                stub.requests.append((self.path, dict(self.headers), body))
                number = len(stub.requests)
            said = refuse(self.path, dict(self.headers), body) or reply(number, *_asked(body))
            if said is HANG:
                over.wait(60)
                return
            if isinstance(said, str):
                said = Status(200, json.dumps({"choices": [{"message": {"content": said}}]}).encode())
            assert isinstance(said, Status)
            self.send_response(said.code)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub = StubTeacher(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _asked(body: dict[str, Any]) -> tuple[Image.Image, str]:
    picture, text = body["messages"][-1]["content"]
    url = picture["image_url"] if isinstance(picture["image_url"], str) else picture["image_url"]["url"]
    encoded = url.removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(encoded))), text["text"]


def knows(_: int, image: Image.Image, question: str) -> str:
    """As the checker does, from the pixels that it was sent."""
    small = image.convert("RGB").resize((48, 48), Image.Resampling.NEAREST)
    return '{"answer": "yes"}' if RULES[question].holds(checker.look(small)) else '{"answer": "no"}'


def writes(_: int, image: Image.Image, asked: str) -> str:
    """A true assessment of the pixels that it was sent, in the form that it is asked for: score 5 for yes, 2 for no."""
    small = image.convert("RGB").resize((48, 48), Image.Resampling.NEAREST)
    prompt, criteria = asked.removeprefix("The prompt: ").split("\n\nThe criteria:\n")
    spec = parse(prompt)
    assert spec is not None
    told: dict[str, Any] = critique(spec, checker.look(small))
    names = [line.removeprefix("- ").split(":")[0] for line in criteria.splitlines()]
    score = {"yes": 5, "no": 2}
    scored = {name: {"score": score[told[name]["verdict"]], "evidence": told[name]["evidence"]} for name in names}
    return json.dumps(scored | {"analysis": told["analysis"]})


def knows_and_writes(number: int, image: Image.Image, asked: str) -> str:
    """An answer to a question, or an assessment."""
    return (writes if asked.startswith("The prompt:") else knows)(number, image, asked)
