"""A small HTTP server that answers like the Hugging Face hub, with faults on demand."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPOSITORY = "lab-cosmo/upet"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """Serves `files` (path in the repository to content) from a repository and its "CDN".

    Attributes
    ----------
    requests : list
        (method, path, Range header) of each request.
    cut_after : int or None
        The connection is dropped after this many bytes of a file, and every later request of a
        file is answered with 503 until this is None again.
    digest : str or None
        SHA-256 that is announced instead of the true one.
    ranges : bool
        Whether ranges are understood.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut_after: int | None = None
        self.is_cut = False
        self.digest: str | None = None
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def transfers(self) -> list[str | None]:
        """Range headers of the requests of file contents."""
        return [r for method, path, r in self.requests if method == "GET" and "/cdn/" in path]


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub = self.server
        hub.requests.append((self.command, self.path, self.headers["Range"]))
        prefix = f"/{REPOSITORY}/resolve/main/"
        if self.path.startswith("/cdn/"):
            self.send_content(hub.files[self.path.removeprefix("/cdn/")])
            return
        content = hub.files.get(self.path.removeprefix(prefix))
        if content is None or not self.path.startswith(prefix):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        digest = hub.digest or hashlib.sha256(content).hexdigest()
        self.send_response(302)
        # another host, as the hub's own: its client takes metadata from the redirect to one
        cdn = f"http://localhost:{hub.server_port}/cdn/{self.path.removeprefix(prefix)}"
        self.send_header("Location", cdn)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_content(self, content: bytes) -> None:
        hub = self.server
        if hub.is_cut and hub.cut_after is not None:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if self.headers["Range"] and hub.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if hub.cut_after is not None:
            hub.is_cut = True
            self.wfile.write(body[: hub.cut_after])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)


@contextmanager
def fake_hub(files: dict[str, bytes]) -> Iterator[FakeHub]:
    """A running server."""
    with FakeHub(files) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
