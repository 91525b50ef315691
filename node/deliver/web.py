"""Delivery by DICOMweb: STOW-RS (PS3.18 10.5), one instance a request, the file's bytes unchanged.

    POST <url>/studies
    Content-Type: multipart/related; type="application/dicom"; boundary=…

The file is streamed. A destination has an instance when it names it in its Referenced SOP Sequence: a 200 alone may be
the login page of some proxy.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Any, BinaryIO

from node.deliver.exchange import USUAL, Answer, Exchange, Timeouts
from node.deliver.outcome import Delivered, Outcome, Parked, of_failure, of_http
from node.settings import WebDestination
from node.wire.kinds import DICOM
from storage.outbox import Delivery

STORED, FAILED = "00081199", "00081198"
"""Referenced SOP Sequence and Failed SOP Sequence, in the JSON of PS3.18 F.2."""
_INSTANCE, _REASON, _WARNING = "00081155", "00081197", "00081196"
_STORE_STATUSES = {200, 202, 409}
"""PS3.18 table 10.5.3-1; Orthanc answers 400 instead of 409."""


class WebSender:
    """One destination that speaks STOW-RS."""

    def __init__(self, destination: WebDestination, timeouts: Timeouts = USUAL) -> None:
        self._url = f"{destination.url}/studies"
        self._exchange = Exchange(destination, timeouts)

    def send(self, delivery: Delivery, file: Path) -> Outcome:
        """One POST. Raises what opening a damaged file raises."""
        with file.open("rb") as opened:
            body = _Multipart(opened)
            answer = self._exchange.request("POST", self._url, body, body.headers)
        return of_answer(answer, delivery.sop_instance) if isinstance(answer, Answer) else answer

    def rest(self) -> None:
        self._exchange.rest()


def of_answer(answer: Answer, instance: str) -> Outcome:
    """What became of the instance."""
    tree = _tree(answer.body)
    if answer.status in _STORE_STATUSES:
        for item in _items(tree, STORED):
            if _first(item, _INSTANCE) == instance:
                warning = _first(item, _WARNING)
                return Delivered(f"{warning:04X}" if isinstance(warning, int) else str(answer.status))
    for item in _items(tree, FAILED):
        reason = _first(item, _REASON)
        if _first(item, _INSTANCE) == instance and isinstance(reason, int):
            return of_failure(reason)
    outcome = of_http(answer.status)
    return _not_told(answer.status) if isinstance(outcome, Delivered) else outcome


def _not_told(status: int) -> Parked:
    return Parked(
        f"the destination answered {status} but not that it has the instance: is url a DICOMweb service?"
    )


def _tree(body: bytes) -> Any:
    """The JSON of the answer; some servers put it into a list of one."""
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return tree[0] if isinstance(tree, list) and tree else tree


def _items(tree: Any, tag: str) -> list[Any]:
    element = tree.get(tag) if isinstance(tree, dict) else None
    items = element.get("Value") if isinstance(element, dict) else None
    return items if isinstance(items, list) else []


def _first(item: Any, tag: str) -> Any:
    return next(iter(_items(item, tag)), None)


class _Multipart:
    """A file as the only part of a multipart/related body (RFC 2387); read piece by piece, its length known."""

    def __init__(self, file: BinaryIO) -> None:
        boundary = f"hilum-{secrets.token_hex(16)}"
        self.headers = {
            "Content-Type": f'multipart/related; type="{DICOM.media}"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        self._head = f"--{boundary}\r\nContent-Type: {DICOM.media}\r\n\r\n".encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file = file
        self._left = self._length = len(self._head) + os.fstat(file.fileno()).st_size + len(self._tail)

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`; empty at the end."""
        if self._head:
            piece, self._head = self._head, b""
        else:
            piece = self._file.read(size)
            if not piece:
                piece, self._tail = self._tail, b""
        return piece
