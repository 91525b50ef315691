"""One file over HTTP, however often the connection breaks.

The bytes go into a `.part` file as they come. What the server said of the file (its ETag or Last-Modified) is
remembered before the first of them: a later attempt, in this run or the next, asks for the missing bytes only, with
Range and If-Range (RFC 9110 13.1.5, 14.2), so that a file that changed meanwhile comes anew and two versions are never
glued together. A server without ranges starts anew too. The number of attempts without progress is bounded.
"""

import http.client
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from model.data.progress import Progress, amount
from model.errors import NotFetched

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further attempt; after the last one it is given up."""

PROGRESS = 1_000_000
"""Bytes after which a connection was a good one: the pauses begin anew."""

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""

CHUNK = 1 << 20
RESERVE = 100_000_000
"""Bytes of the disk that are left free."""

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be over in a moment (RFC 9110 15)."""


@dataclass(frozen=True)
class Version:
    """What the server says of a file; by it a later attempt knows that it is still the same one."""

    etag: str = ""
    last_modified: str = ""
    total: int | None = None

    @property
    def validator(self) -> str:
        """For If-Range: a strong ETag, else Last-Modified; empty where the server gives neither."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


class GivenUp(NotFetched):
    """Neither will the next file come: the network is down, or the disk is full."""


class _Broken(Exception):
    """This attempt is over; another may succeed."""


class _SameSafety(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise NotFetched(f"{_bare(req.full_url)} redirects to an address without TLS: not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass
class Download:
    """One file on its way."""

    name: str
    url: str
    part: Path
    """Where its bytes are put, and where those of an earlier run may lie."""
    version: Version | None
    """Of the bytes that lie there; None where nobody knows."""
    expected: int | None
    """How many bytes it must be, if known."""
    remember: Callable[[Version], None]
    """Called with each version of which bytes begin to arrive, before they do."""
    progress: Progress
    pauses: Sequence[float] = PAUSES

    def run(self) -> Version:
        """Returns once the file is whole in `part`.

        Raises NotFetched; then `part` keeps what arrived.
        """
        failures = 0
        while True:
            have = self._have()
            if have and self.version is not None and have == self.version.total:
                return self.version  # killed between the last byte and the name
            try:
                return self._attempt(have)
            except _Broken as error:
                failures = 1 if self._have() - have >= PROGRESS else failures + 1
                if failures > len(self.pauses):
                    raise GivenUp(f"{self.name}: {error}; given up for now, run again to go on") from error
                pause = self.pauses[failures - 1]
                self.progress.say(f"{self.name}: {error}; trying again in {pause:g} s")
                time.sleep(pause)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self, have: int) -> Version:
        validator = self.version.validator if self.version else ""
        wanted = {"Range": f"bytes={have}-", "If-Range": validator} if have and validator else {}
        with self._open(wanted) as answer:
            start, version = self._judge(answer, have if wanted else 0)
            if not start:  # before the new version is remembered: its name must not stand beside old bytes
                self.part.unlink(missing_ok=True)
            self.version = version
            self.remember(version)
            self._receive(answer, start, version.total)
        arrived = self._have()
        if version.total is not None and arrived != version.total:
            raise _Broken(f"the connection broke at {amount(arrived)} of {amount(version.total)}")
        self.version = Version(version.etag, version.last_modified, arrived)
        return self.version

    def _open(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.url, headers={"User-Agent": "hilum", **headers})
        try:
            return _opener().open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            said = f"the server says {error.code} {error.reason}"
            if error.code == 416:  # what lies there is no beginning of that file any more
                self.part.unlink(missing_ok=True)
            elif error.code not in PASSING:
                raise NotFetched(f"{self.name}: {said} to {_bare(self.url)}") from error
            raise _Broken(said) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise NotFetched(
                    f"{self.name}: the certificate of {_bare(self.url)} can't be trusted ({reason.verify_message})"
                ) from error
            raise _Broken(f"no connection to {urlsplit(self.url).hostname} ({_reason(reason)})") from error

    def _judge(self, answer: http.client.HTTPResponse, asked_from: int) -> tuple[int, Version]:
        """Where in the file the answer begins, and of which version it is."""
        etag, modified = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        if answer.headers.get_content_type() == "text/html" and not self.name.endswith((".html", ".htm")):
            raise NotFetched(
                f"{self.name}: {_bare(self.url)} gives a web page, not the file; open it in a browser to see why"
            )
        length = answer.headers.get("Content-Length", "")
        left = int(length) if length.isdigit() else None
        start, total = 0, left
        if answer.status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            before = self.version or Version()
            same = etag == before.etag if etag else modified in ("", before.last_modified)
            if not span or int(span[1]) != asked_from or not same:
                self.part.unlink(missing_ok=True)
                raise _Broken("the server went on with another file than it had begun")
            start, total = asked_from, int(span[2])
            etag, modified = etag or before.etag, modified or before.last_modified
        elif answer.status != 200:
            raise NotFetched(f"{self.name}: the server says {answer.status} to {_bare(self.url)}")
        elif self._have():
            self.progress.say(f"{self.name}: the server begins anew: no ranges, or the file has changed")
        if self.expected is not None and total is not None and total != self.expected:
            raise NotFetched(
                f"{self.name}: the server has {total:,} bytes, the source says {self.expected:,}: it is another file"
            )
        check_room(self.part.parent, (total or 0) - start, self.name)
        return start, Version(etag, modified, total)

    def _receive(self, answer: http.client.HTTPResponse, start: int, total: int | None) -> None:
        self.progress.start(self.name, total, start)
        # unbuffered: what a killed process has received is on the disk, not in its memory
        with self.part.open("ab" if start else "wb", buffering=0) as file:
            while chunk := self._more(answer):
                file.write(chunk)
                self.progress.advance(len(chunk))

    def _more(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f"the connection broke ({_reason(error)})") from error


def check_room(folder: Path, needed: int, name: str) -> None:
    """Raises GivenUp where the disk of `folder` has no room for `needed` bytes more."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise GivenUp(
            f"{folder}: no room for {name}: {amount(needed)} are needed, {amount(free)} are free; "
            "make room and run again to go on"
        )


def _opener() -> urllib.request.OpenerDirector:
    """http and https only (urllib's own would also open ftp, files and data), proxies from the environment."""
    opener = urllib.request.OpenerDirector()
    for part in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        _SameSafety(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(part)
    return opener


def _bare(url: str) -> str:
    """The address without what follows `?`: that may be a key."""
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))


def _reason(error: object) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said or type(error).__name__
