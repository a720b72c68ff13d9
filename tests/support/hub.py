"""A hub on this machine: the calls of the Hugging Face hub that fetching a model needs, over one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0" * 40


@contextmanager
def hub(name: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the folder as the model `name`; (URL, names of the files that were asked for)."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(whole=False)

        def do_GET(self) -> None:
            self._answer(whole=True)

        def _answer(self, *, whole: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{name}/tree/"):
                listed = [
                    {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": ""} for f in folder.iterdir()
                ]
                body = json.dumps(listed).encode()
            elif path.startswith(f"/api/models/{name}/"):
                files = [{"rfilename": file.name} for file in folder.iterdir()]
                body = json.dumps({"id": name, "sha": COMMIT, "siblings": files}).encode()
            elif path.startswith(f"/{name}/resolve/"):
                asked.append(path.rsplit("/", 1)[1])
                body = (folder / asked[-1]).read_bytes()
            else:
                self.send_response(401)  # the hub's answer for a model that is not there
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if whole:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
