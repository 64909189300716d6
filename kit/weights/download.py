"""One file by HTTP: resumed where it was cut, redirects followed, every failure named in a line."""

from __future__ import annotations

import errno
import http.client
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import urlsplit

from kit.progress import Progress, size_text
from kit.weights.entries import FetchError, hub_endpoint

TIMEOUT_S = 60.0
PAUSES_S = (1.0, 2.0, 4.0)  # between attempts that bring nothing; one that brings bytes starts the count anew
_BLOCK = 1 << 20
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class FileHeaders:
    """What the first server said of the file, None where it said nothing.

    Attributes:
        commit: of the hub's repository, whatever revision was asked for.
        sha256, bytes: of a large file on the hub.
    """

    commit: str | None = None
    sha256: str | None = None
    bytes: int | None = None

    def read(self, headers: Message) -> None:
        self.commit = self.commit or headers.get("X-Repo-Commit")
        etag = (headers.get("X-Linked-Etag") or "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", etag):
            self.sha256 = etag
        if (size := headers.get("X-Linked-Size", "")).isdigit():
            self.bytes = int(size)


class _Interruption(Exception):
    """The connection broke; the message says how."""


@dataclass
class Download:
    """A file on its way.

    Args:
        url: ``http``, ``https`` or ``file``.
        partial: what has come so far, and what comes is appended to.
        label: for progress and messages.
        token: for the first host, never sent to another one.
        bytes: size, where it is known before.
        known: the content is known by its hash, so that what is there may be continued whatever the server says.
    """

    url: str
    partial: Path
    label: str
    token: str | None = None
    bytes: int | None = None
    known: bool = False
    stated: FileHeaders = field(default_factory=FileHeaders)
    _progress: Progress | None = None

    def run(self) -> FileHeaders:
        """Until ``partial`` is whole.

        Raises:
            FetchError: it cannot be had; what came stays in ``partial``, so that another run goes on there.
        """
        pauses, most = list(PAUSES_S), _size(self.partial)
        while True:
            try:
                self._attempt()
                break
            except _Interruption as cut:
                there = _size(self.partial)
                if there > most:
                    pauses, most = list(PAUSES_S), there
                elif pauses:
                    time.sleep(pauses.pop(0))
                else:
                    hint = f"{size_text(there)} are there, run again to go on" if there else "run again"
                    raise FetchError(f"{cut}; {hint}") from None
        if self._progress:
            self._progress.finish()
        return self.stated

    def _attempt(self) -> None:
        offset = self._offset()
        try:
            with self._open(offset) as response:
                self._receive(response, offset)
        except urllib.error.HTTPError as error:
            self._refused(error)
        except urllib.error.URLError as error:
            self._unreachable(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            raise _Interruption(f"the connection broke ({type(error).__name__})") from None

    def _offset(self) -> int:
        """How much of what is there can be continued."""
        return _size(self.partial) if self.known or self._etag.exists() else 0

    def _open(self, offset: int) -> Any:
        request = urllib.request.Request(self.url, headers={"Accept-Encoding": "identity", "User-Agent": "unitalking"})
        if offset:
            request.add_header("Range", f"bytes={offset}-")
            if self._etag.exists():
                request.add_header("If-Range", self._etag.read_text("utf-8"))
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        response = urllib.request.build_opener(_Redirects(self.stated)).open(request, timeout=TIMEOUT_S)
        self.stated.read(response.headers)
        return response

    def _receive(self, response: Any, offset: int) -> None:
        if not self.known and response.headers.get_content_type() == "text/html":
            raise FetchError(f"{self.url} answers with a web page, not with a file")
        continued = re.match(rf"bytes {offset}-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        start = offset if offset and response.status == 206 and continued else 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        expected = self.bytes or self.stated.bytes or total
        if expected:
            self._check_room(expected - start)
        self._progress = Progress(self.label, expected, bytes=True, done=start)
        with self.partial.open("r+b") as out:
            out.truncate(start)
            out.seek(start)
            if not start:
                self._remember(response.headers)
            received = start + self._copy(response, out)
        if total is not None and received < total:
            raise _Interruption(f"the connection broke after {size_text(received)} of {size_text(total)}")

    def _copy(self, response: Any, out: IO[bytes]) -> int:
        count = 0
        try:
            while block := response.read(_BLOCK):
                out.write(block)
                count += len(block)
                self._progress.add(len(block))
            out.flush()
        except OSError as error:
            if error.errno in _FULL:
                raise self._full(None) from None
            raise
        return count

    @property
    def _etag(self) -> Path:
        """Version of the content that ``partial`` holds a part of, as the server calls it."""
        return self.partial.with_name(f"{self.partial.name}.etag")

    def _remember(self, headers: Message) -> None:
        etag = headers.get("ETag", "")
        if etag.startswith('"'):  # weak ones promise no equal bytes
            self._etag.write_text(etag, "utf-8")
        else:
            self._etag.unlink(missing_ok=True)

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.partial.parent).free
        if needed > free:
            raise self._full(f"{size_text(needed)} are needed and {size_text(free)} free")

    def _full(self, detail: str | None) -> FetchError:
        said = f" ({detail})" if detail else ""
        return FetchError(f"no space left on the disk of {self.partial.parent}{said}; make room, run again")

    def _unreachable(self, reason: object) -> NoReturn:
        """
        Raises:
            _Interruption: another attempt may help. FetchError: it will not.
        """
        if self.url.startswith("file:"):
            raise FetchError(f"cannot read {self.url}: {reason}") from None
        if isinstance(reason, ConnectionResetError | TimeoutError):
            raise _Interruption(f"the connection broke ({reason})") from None
        raise FetchError(f"cannot reach {urlsplit(self.url).netloc}: {reason}") from None

    def _refused(self, error: urllib.error.HTTPError) -> None:
        """Returns where what is there is the whole file already.

        Raises:
            _Interruption: another attempt may help. FetchError: it will not.
        """
        if error.code == 416:  # nothing comes after what is there: it is whole, or of another file
            if error.headers.get("Content-Range", "") == f"bytes */{_size(self.partial)}":
                return
            with self.partial.open("r+b") as out:
                out.truncate(0)
            raise _Interruption("the server has less than was there") from None
        if error.code in _TRANSIENT:
            raise _Interruption(f"HTTP {error.code} {error.reason} from {self.url}") from None
        raise FetchError(f"{_why(error, self.url)}") from None


def _why(error: urllib.error.HTTPError, url: str) -> str:
    """A refusal in words; the hub gives a code beside the status."""
    code = error.headers.get("X-Error-Code", "")
    repository, _, rest = url.removeprefix(f"{hub_endpoint()}/").partition("/resolve/")
    revision, _, file = rest.partition("/")
    if code == "GatedRepo":
        page = f"{hub_endpoint()}/{repository}"
        return f"{repository} is gated (HTTP {error.code}): accept its terms at {page} and set HF_TOKEN"
    if code == "RepoNotFound":
        return f"no repository {repository} (HTTP {error.code}); if it is private, set HF_TOKEN"
    if code == "RevisionNotFound":
        return f"{repository} has no revision {revision} (HTTP {error.code})"
    if code == "EntryNotFound":
        return f"{repository} has no file {file} at revision {revision} (HTTP {error.code})"
    hint = "; it may need a token: set HF_TOKEN" if error.code in (401, 403) and rest else ""
    return f"HTTP {error.code} {error.reason} for {url}{hint}"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects without taking credentials to another host or from https to http."""

    def __init__(self, stated: FileHeaders) -> None:
        self._stated = stated

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        self._stated.read(headers)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        here, there = urlsplit(req.full_url), urlsplit(newurl)
        if here.scheme == "https" and there.scheme != "https":
            raise FetchError(f"{req.full_url} redirects to unencrypted {there.netloc}")
        if following is not None and (here.scheme, here.netloc) != (there.scheme, there.netloc):
            following.remove_header("Authorization")
        return following


def _size(path: Path) -> int:
    return path.stat().st_size
