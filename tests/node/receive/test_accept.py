"""One object: kept or refused, on disks that fail; without a network."""

import copy
import errno
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from model import phantom
from model.stored_only import stored_only
from node.receive import accept
from node.receive.accept import Announced, Answer, Receiver, Sender
from node.receive.part10 import walk_file
from node.settings import Receive
from storage.audit import Actor, Filter, Record
from storage.errors import Unavailable
from storage.spool import Disk
from storage.store import Store

DX, DX_RAW, SR = (
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.88.33",
)


class Failing(Disk):
    """A disk on which one call fails."""

    def __init__(self, what: str = "", code: int = errno.EIO) -> None:
        self.what = what
        self._code = code
        self.free = 10**12

    def _maybe(self, what: str) -> None:
        if what == self.what:
            raise OSError(self._code, os.strerror(self._code))

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._maybe("write")
        return super().write(fd, data)

    def write_all(self, fd: int, pieces: Sequence[bytes | memoryview]) -> int:
        self._maybe("write")
        return super().write_all(fd, pieces)

    def sync(self, fd: int) -> None:
        self._maybe("sync")
        super().sync(fd)

    def rename(self, old: Path | str, new: Path | str) -> None:
        self._maybe("rename")
        super().rename(old, new)

    def sync_folder(self, folder: Path) -> None:
        self._maybe("sync_folder")
        super().sync_folder(folder)

    def free_bytes(self, folder: Path) -> int:
        return self.free


class Node:
    def __init__(self, root: Path, **receive: Any) -> None:
        self.disk = Failing()
        self.store = Store.create(root, disk=self.disk)
        self.root = root
        self.nudges = 0
        self.receiver = Receiver(self.store, Receive(**receive), "sha256:m", stored_only, self._nudge)
        self.sender = Sender(self.receiver, Actor("CR1", "10.0.0.1"), {"called": "HILUM"})

    def _nudge(self) -> None:
        self.nudges += 1

    def send(self, body: bytes, sop_class: str, uid: str, step: int = 5000) -> Answer:
        announced = Announced(sop_class.encode(), uid.encode(), sop_class, "1.2.840.10008.1.2.1")
        incoming = self.sender.begin(announced)
        for at in range(0, len(body), step):
            incoming.write(body[at : at + step])
        return incoming.finish()

    def files(self) -> list[Path]:
        return [p for p in (self.root / "objects").rglob("*") if p.is_file()]

    def audit(self) -> list[Record]:
        with self.store.database.read() as tx:
            return self.store.audit.page(tx, Filter())

    def jobs(self) -> list[tuple[str, str]]:
        with self.store.database.read() as tx:
            return [(job.state, job.reason) for job in self.store.jobs.listing(tx)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "data")
    yield node
    node.store.close()


@cache
def drawn() -> Dataset:
    return phantom.draw(3, patch=False)


def image(tmp_path: Path, **changes: str) -> tuple[bytes, str, str]:
    """Data set bytes, class and instance of a drawn chest with these attributes."""
    dataset = copy.deepcopy(drawn())
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    path = tmp_path / "image.dcm"
    dataset.save_as(path, enforce_file_format=True)
    walk = walk_file(path)
    return path.read_bytes()[walk.start :], walk.sop_class, walk.sop_instance


def test_an_object_is_kept_queued_and_audited(node: Node, tmp_path: Path) -> None:
    assert node.send(*image(tmp_path)) == Answer(0)
    assert node.jobs() == [("queued", "")] and node.nudges == 1
    assert [r.event for r in node.audit()] == ["association.accepted", "object.received", "job.queued"]


@pytest.mark.parametrize(
    ("what", "code"),
    [("write", errno.ENOSPC), ("sync", errno.EIO), ("rename", errno.EIO), ("sync_folder", errno.EIO)],
)
def test_a_failing_disk_is_a700_and_leaves_nothing(node: Node, tmp_path: Path, what: str, code: int) -> None:
    body = image(tmp_path)
    node.store.spool.folder("objects")
    node.disk.what, node.disk._code = what, code
    answer = node.send(*body)
    assert answer.status == 0xA700 and answer.comment and node.files() == []
    node.disk.what = ""
    assert node.send(*body).status == 0


def test_a_failing_commit_is_a700_and_leaves_nothing(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise Unavailable("the database does not take the work")

    body = image(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(node.store.objects, "keep_all", full)
        assert node.send(*body).status == 0xA700
    assert node.files() == [] and node.jobs() == []
    assert node.send(*body).status == 0


def test_a_fault_of_ours_is_a700_so_that_the_sender_tries_again(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.store.objects, "keep_all", lambda *_: 1 / 0)
    assert node.send(*image(tmp_path)).status == 0xA700
    assert node.files() == []


def test_a_disk_that_falls_below_its_floor_while_an_object_arrives_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "FLOOR_STEP", 1000)
    node = Node(tmp_path / "data", min_free_bytes=1000)
    body, sop_class, uid = image(tmp_path)
    incoming = node.sender.begin(
        Announced(sop_class.encode(), uid.encode(), sop_class, "1.2.840.10008.1.2.1")
    )
    node.disk.free = 10
    incoming.write(body)
    assert node.files() == []
    assert incoming.finish().status == 0xA700
    node.sender.end()
    assert [r.detail.get("objects") for r in node.audit() if r.event == "object.refused"] == [1]
    node.store.close()


def test_for_processing_is_stored_without_a_job(node: Node, tmp_path: Path) -> None:
    assert node.send(*image(tmp_path, SOPClassUID=DX_RAW)).status == 0
    assert len(node.files()) == 1 and node.jobs() == []


def test_a_result_of_ours_that_comes_back_is_kept_and_skipped(node: Node, tmp_path: Path) -> None:
    assert node.send(*image(tmp_path, Manufacturer="Hilum")).status == 0
    assert node.jobs() == [("skipped", "A result of Hilum: stored, never analyzed")]


def test_a_report_of_ours_that_comes_back_gets_no_job(node: Node, tmp_path: Path) -> None:
    assert node.send(*image(tmp_path, SOPClassUID=SR, Manufacturer="Hilum")).status == 0
    assert len(node.files()) == 1 and node.jobs() == []


def test_error_comments_fit_and_name_no_patient(node: Node, tmp_path: Path) -> None:
    body, sop_class, uid = image(tmp_path)
    node.send(body, sop_class, uid)
    other = node.send(
        body.replace(b"PATIENT", b"PATIENZ") if b"PATIENT" in body else body[:-4] + b"abcd", sop_class, uid
    )
    answers = [other, node.send(body[:900], sop_class, uid), node.send(body, sop_class, "1.2.9")]
    assert [a.status for a in answers] == [0xC000, 0xC000, 0xA900]
    assert all(0 < len(a.comment) <= 64 and a.comment.isascii() for a in answers)


def test_what_never_ends_leaves_nothing(node: Node, tmp_path: Path) -> None:
    body, sop_class, uid = image(tmp_path)
    incoming = node.sender.begin(
        Announced(sop_class.encode(), uid.encode(), sop_class, "1.2.840.10008.1.2.1")
    )
    incoming.write(body[:5000])
    assert len(node.files()) == 1
    node.sender.end("association.aborted", {})
    incoming.write(body[5000:])
    assert node.files() == []
    assert [r.event for r in node.audit()] == ["association.accepted", "association.aborted"]
