"""One HTTP request to a destination and its answer: secret, certificate, timeouts, and nothing kept of a body.

Secrets are read from their files for each request, so that one that was rotated works without a restart. What the
environment says about proxies, certificates and .netrc is not asked: config.toml alone decides where a result goes.
Redirects are not followed. A library's error text may quote a URL or a header: reasons here are our own words.
"""

import base64
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from node.deliver.outcome import Postponed
from node.settings import HttpDestination, WebDestination

MOST_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `connect`: also for each piece of a body that the peer is slow to take; `response`: until the answer
    begins, and again until it has ended."""

    connect: float = 10.0
    response: float = 120.0


USUAL = Timeouts()


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    """Empty where it is larger than MOST_ANSWER_BYTES."""


class SecretUnreadable(Exception):
    """A password or token can't be had from its file; the text names the setting, never the value."""


class Exchange:
    """A destination over HTTP, and the connection to it while there is work."""

    def __init__(self, destination: WebDestination | HttpDestination, timeouts: Timeouts = USUAL) -> None:
        self._destination = destination
        self._timeouts = timeouts
        self._session: Any = None
        self._where = urlsplit(destination.url).netloc

    def request(
        self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer | Postponed:
        """Sends `body` (bytes, or a file that knows its length) and reads the answer, whatever its status."""
        import requests

        try:
            secret = authorization(self._destination)
        except SecretUnreadable as e:
            return Postponed(str(e))
        if self._session is None:
            self._session = requests.Session()
            self._session.trust_env = False
        try:
            with self._session.request(
                method,
                url,
                data=body,
                headers={"Accept-Encoding": "identity", **(headers or {}), **secret},
                timeout=(self._timeouts.connect, self._timeouts.response),
                verify=_who_is_trusted(self._destination.ca_file),
                allow_redirects=False,
                stream=True,
            ) as response:
                return Answer(response.status_code, self._read(response))
        except requests.exceptions.RequestException as e:
            self.rest()
            return Postponed(self._why(e))
        except OSError as e:
            # requests says so of a ca_file that is not there
            self.rest()
            return Postponed(f"no connection to {self._where}: {_ca_file_trouble(self._destination, e)}")

    def rest(self) -> None:
        """Closes the connection."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _read(self, response: Any) -> bytes:
        until = time.monotonic() + self._timeouts.response
        body = b""
        for piece in response.iter_content(1 << 14):
            body += piece
            if len(body) > MOST_ANSWER_BYTES or time.monotonic() > until:
                # the rest is not waited for, so the connection can't be used again
                response.close()
                return b""
        return body

    def _why(self, error: Exception) -> str:
        from requests import exceptions

        fault = _certificate_fault(error)
        if fault:
            return f"the certificate of {self._where} is not trusted ({fault}): ca_file names who may sign it"
        match error:
            case exceptions.SSLError():
                return f"no TLS connection to {self._where}"
            case exceptions.ConnectTimeout():
                return f"no connection to {self._where} within {self._timeouts.connect:.0f} s"
            case exceptions.ReadTimeout():
                return f"no answer from {self._where} within {self._timeouts.response:.0f} s"
            case exceptions.ConnectionError():
                return f"no connection to {self._where}: refused, unreachable, or broken off"
            case _:
                return f"no answer from {self._where}: {type(error).__name__}"


def authorization(destination: WebDestination | HttpDestination) -> dict[str, str]:
    """The Authorization header (RFC 7617, RFC 6750), or none. Raises SecretUnreadable."""
    if destination.password_file:
        password = _first_line(destination.password_file, "password_file")
        pair = base64.b64encode(f"{destination.user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    if destination.token_file:
        token = _first_line(destination.token_file, "token_file")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise SecretUnreadable("the token in token_file has characters that no token has")
        return {"Authorization": f"Bearer {token}"}
    return {}


def _first_line(file: Path, key: str) -> str:
    try:
        line = file.read_text(encoding="utf-8").split("\n", 1)[0]
    except OSError as e:
        raise SecretUnreadable(f"{key} can't be read: {e.strerror or 'I/O error'}") from None
    except ValueError:
        raise SecretUnreadable(f"{key} is not UTF-8") from None
    if not line:
        raise SecretUnreadable(f"{key} is empty")
    return line


def _who_is_trusted(ca_file: Path | None) -> str | bool:
    """The file or folder of those who may sign; the system's own, which requests does not ask by itself."""
    if ca_file:
        return str(ca_file)
    system = ssl.get_default_verify_paths()
    return system.cafile or system.capath or True


def _ca_file_trouble(destination: WebDestination | HttpDestination, error: OSError) -> str:
    if destination.ca_file and not destination.ca_file.is_file():
        return "ca_file does not exist"
    return error.strerror or "I/O error"


def _certificate_fault(error: BaseException | None) -> str:
    """OpenSSL's word for what is wrong with a certificate; empty: the trouble is another."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__
    return ""
