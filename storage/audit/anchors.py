"""Anchors: the newest seal, put down at a second place, so that an old copy of the database or a cut end is found.

    anchors-2026-11.jsonl     {"block":812,"hash":"…","last_id":40321,"mac":"…","number":799,"time":"2026-11-03T…Z"}

A line is canonical JSON and never changes. Each has a MAC under a key that is used once, moves on and can't be turned
back: whoever takes the machine over today can't make or alter lines of before.

    key(n+1) = SHA-256( "hilum anchor key" | key(n) )        mac of line n = HMAC-SHA-256( key(n), line without mac )

(Bellare and Yee, Forward Integrity for Secure Audit Logs, 1997; Schneier and Kelsey, Secure Audit Logs to Support
Computer Forensics, 1999; systemd's Forward Secure Sealing.) The node keeps the key of the next line alone, in
`anchor.key`; the first key of a chain is shown once, to whoever began it. Numbers go on over chains.

A line counts as written once its key is gone: line synced, then the key replaced, durably. A crash in between makes a
second line of the same number under the same key; no number is ever left out, so that a gap is always a removed line.
"""

import fcntl
import hashlib
import hmac
import html
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storage.audit.seal import Seal
from storage.errors import Unavailable
from storage.spool import Disk

FOLDER = "anchors"
"""Under the data folder, where nothing else is configured."""
KEY_FILE = "anchor.key"
_STEP = b"hilum anchor key"
_FILES = "anchors-????-??.jsonl"
# how much of a file's end surely holds a whole line
_TAIL_BYTES = 4096
_LINE = re.compile(r'\{"block":[^{}]*\}')


@dataclass(frozen=True)
class Anchor:
    """A line. `time`: when the block was sealed (a stamp); `hash` and `mac` are hex."""

    block: int
    time: str
    last_id: int
    hash: str
    number: int
    mac: str = ""

    @property
    def line(self) -> str:
        """Canonical JSON, as it stands in the file; without `mac` where there is none yet."""
        told = {key: value for key, value in vars(self).items() if key != "mac" or value}
        return json.dumps(told, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Key:
    """The key of the line of that number: 32 bytes."""

    number: int
    secret: bytes

    def next(self) -> "Key":
        return Key(self.number + 1, hashlib.sha256(_STEP + self.secret).digest())

    def mac(self, anchor: Anchor) -> str:
        """Hex; of a line as it is without its MAC."""
        bare = Anchor(anchor.block, anchor.time, anchor.last_id, anchor.hash, anchor.number)
        return hmac.digest(self.secret, bare.line.encode(), "sha256").hex()

    @property
    def text(self) -> str:
        """One line, as `anchor.key` and whoever keeps the first key have it."""
        return f"{self.number} {self.secret.hex()}\n"


def keys_of(text: str) -> list[Key]:
    """The keys that a text has, one a line; raises ValueError where a line is no key."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = re.fullmatch(r"(\d{1,15}) ([0-9a-f]{64})", line)
        if match is None:
            raise ValueError(
                "a key is a number and 64 hexadecimal digits, as `hilum audit anchor-key` wrote it"
            )
        found.append(Key(int(match[1]), bytes.fromhex(match[2])))
    return found


def parse(text: str) -> Anchor | None:
    """The anchor in a line of text, whatever stands around it (a syslog server's file); None where there is none."""
    match = _LINE.search(html.unescape(text) if "&quot;" in text else text)
    if match is None:
        return None
    try:
        found = Anchor(**json.loads(match[0]))
    except (ValueError, TypeError):
        return None
    numbers, texts = (found.block, found.last_id, found.number), (found.time, found.hash, found.mac)
    sound = all(type(n) is int and 0 <= n < 2**63 for n in numbers) and all(type(t) is str for t in texts)
    return found if sound else None


def read(folder: Path) -> Iterator[Anchor]:
    """Every anchor of the folder in the order of writing; lines that a crash cut are left out. Raises Unavailable."""
    for file in files(folder):
        yield from read_file(file)


def read_file(file: Path) -> Iterator[Anchor]:
    """The anchors among the lines of a file. Raises Unavailable."""
    with _told(f"read {file}"), file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if anchor := parse(line):
                yield anchor


def after(folder: Path, number: int) -> Iterator[Anchor]:
    """The anchors that came after the one of that number (-1: all), in the order of writing. Raises Unavailable."""
    listed = files(folder)
    while len(listed) > 1 and (first := next(read_file(listed[1]), None)) and first.number <= number:
        listed = listed[1:]
    for file in listed:
        yield from (anchor for anchor in read_file(file) if anchor.number > number)


def newest(folder: Path) -> Anchor | None:
    """What was put down last; None in a new folder, or one that is not there. Raises Unavailable."""
    for file in reversed(files(folder)):
        with _told(f"read {file}"), file.open("rb") as lines:
            lines.seek(max(0, os.fstat(lines.fileno()).st_size - _TAIL_BYTES))
            for line in reversed(lines.read().decode("utf-8", "replace").splitlines()):
                if anchor := parse(line):
                    return anchor
    return None


def files(folder: Path) -> list[Path]:
    """The folder's files, oldest first. Raises Unavailable."""
    with _told(f"read {folder}"), suppress(FileNotFoundError):
        return sorted(file for file in folder.iterdir() if file.match(_FILES))
    return []


class Anchors:
    """Puts anchors down. Several processes may: one after the other, by a lock on the data folder.

    `folder`: None for that in the data folder, which is made; any other must be there, since what is not there may be
    a share that is not mounted.
    """

    def __init__(self, data_dir: Path, folder: Path | None = None, *, disk: Disk | None = None) -> None:
        self.folder = folder or data_dir / FOLDER
        self._own = folder is None
        self._data_dir = data_dir
        self._disk = disk or Disk()
        # block and hash of the last anchor, once this process knows it
        self._last: tuple[int, str] | None = None
        # the file of which this process knows that it ends with a whole line
        self._whole = ""

    @property
    def key_file(self) -> Path:
        return self._data_dir / KEY_FILE

    def write(self, seal: Seal) -> bool:
        """Puts a seal down; False where it is the last that was. Raises Unavailable: nothing is lost, since the next
        anchor covers all before."""
        known = seal.block, seal.hash.hex()
        if not seal.block or known == self._last:
            return False
        with self._alone():
            if self._last is None and (last := newest(self.folder)) and (last.block, last.hash) == known:
                self._last = known
                return False
            key = self.key()
            anchor = Anchor(seal.block, seal.time, seal.last_id, seal.hash.hex(), key.number)
            # made first: a disk without room for the next key must not leave a line at each try
            following = self._prepared(key.next())
            self._append(Anchor(**{**vars(anchor), "mac": key.mac(anchor)}))
            self._replace(following)
        self._last = known
        return True

    def key(self) -> Key:
        """The key of the next line. Raises Unavailable where it is lost or damaged."""
        with _told(f"read {self.key_file}"):
            text = self.key_file.read_text()
        try:
            (found,) = keys_of(text)
        except ValueError:
            raise Unavailable(
                f"{self.key_file} is damaged: begin a new one with `hilum audit anchor-key --new`"
            ) from None
        return found

    def begin(self) -> Key:
        """A new chain of keys, whose first is returned; only the node's copy remains here. Raises Unavailable."""
        with self._alone():
            number = 0
            with suppress(Unavailable):
                number = self.key().number
            if last := newest(self.folder):
                number = max(number, last.number + 1)
            first = Key(number, secrets.token_bytes(32))
            self._replace(self._prepared(first))
        return first

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with _told(f"lock {self._data_dir}"):
            fd = os.open(self._data_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _append(self, anchor: Anchor) -> None:
        with _told(f"write to {self.folder}"):
            if self._own:
                self.folder.mkdir(mode=0o700, exist_ok=True)
            name = self._name(anchor)
            is_new = not (self.folder / name).exists()
            fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # after a crash the last line may be cut: an empty line more, but never two in one
                between = b"" if is_new or self._whole == name else b"\n"
                self._whole = ""
                self._write(fd, between + anchor.line.encode() + b"\n")
                self._whole = name
            finally:
                os.close(fd)
            if is_new:
                self._disk.sync_folder(self.folder)

    def _name(self, anchor: Anchor) -> str:
        """The month's file; never one before the newest, so that names are in the order of writing."""
        # what a row of the database says is believed only where it looks like a month
        month = anchor.time[:7] if re.match(r"\d{4}-\d\d-", anchor.time) else "0000-00"
        return max([f"anchors-{month}.jsonl", *(file.name for file in files(self.folder)[-1:])])

    def _prepared(self, key: Key) -> Path:
        temporary = self.key_file.with_suffix(".part")
        with _told(f"write {temporary}"):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                self._write(fd, key.text.encode())
            finally:
                os.close(fd)
        return temporary

    def _write(self, fd: int, data: bytes) -> None:
        """All of it, and lasting."""
        left = memoryview(data)
        while left:
            left = left[self._disk.write(fd, left) :]
        self._disk.sync(fd)

    def _replace(self, following: Path) -> None:
        with _told(f"write {self.key_file}"):
            self._disk.rename(following, self.key_file)
            self._disk.sync_folder(self._data_dir)


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise Unavailable(f"can't {what}: {e.strerror or type(e).__name__}") from e
