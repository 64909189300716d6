"""A loopback server that speaks the hub's dialect: files behind a redirect to a second host, its headers, faults."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "5" * 40


@dataclass
class Hub:
    """What is served, what goes wrong, and what was asked.

    Attributes:
        files: contents by ``owner/name/path``.
        refused: status and error code by the same, or by ``owner/name`` for all of a repository.
        cuts: bytes after which a body breaks off, one for each coming request.
        ranges: whether parts are served; else every answer is whole.
        etags: whether contents have a version.
        linked: whether the first answer states hash and size, as the hub does of large files.
        content_type: of files.
        states_less: a body's stated length is so much shorter than the file.
        barrier: waited for in the middle of every body.
        asked: method, path and headers of every request, of the hub's (``hub``) and of the second host (``cdn``).
    """

    files: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True
    linked: bool = True
    content_type: str = "application/octet-stream"
    states_less: int = 0
    barrier: threading.Event | None = None
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    endpoint: str = ""
    cdn: str = ""

    def requests(self, host: str) -> list[dict[str, str]]:
        """Headers, in lower case, of what a host was asked."""
        return [headers for where, _, headers in self.asked if where == host]


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, host)) for host in ("hub", "cdn")]
    hub.endpoint, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _handler(hub: Hub, host: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            hub.asked.append((host, self.path, {name.lower(): value for name, value in self.headers.items()}))
            self._hub() if host == "hub" else self._cdn()

        def _hub(self) -> None:
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            repository, _, path = match.groups()
            name = f"{repository}/{path}"
            status, code = hub.refused.get(name) or hub.refused.get(repository) or (0, "")
            if not status and name not in hub.files:
                status, code = 404, "EntryNotFound"
            if status:
                return self._answer(status, {"X-Error-Code": code} if code else {})
            content = hub.files[name]
            headers = {"Location": f"{hub.cdn}/{name}", "X-Repo-Commit": COMMIT}
            if hub.linked:
                sha256 = hashlib.sha256(content).hexdigest()
                headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            return self._answer(302, headers)

        def _cdn(self) -> None:
            content = hub.files[self.path[1:]]
            etag = f'"{hashlib.md5(content).hexdigest()}"'
            headers = {"Content-Type": hub.content_type} | ({"ETag": etag} if hub.etags else {})
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked.group(1)) if asked and hub.ranges else 0
            if self.headers.get("If-Range", etag) != etag:
                start = 0
            if start and start >= len(content):
                return self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self._answer(206 if start else 200, headers, content[start:])

        def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            stated = len(body) - hub.states_less if body else 0
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(stated)}.items():
                self.send_header(name, value)
            self.end_headers()
            cut = hub.cuts.pop(0) if body and hub.cuts else None
            body = body[:stated][:cut]
            half = len(body) // 2
            self.wfile.write(body[:half])
            self.wfile.flush()
            if body and hub.barrier:
                hub.barrier.wait(10)
            self.wfile.write(body[half:])
            if cut is not None:
                self.close_connection = True

    return Handler
