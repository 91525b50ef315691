"""A folder as destination: whole files only, and trouble of the disk passes."""

import errno
from pathlib import Path

import pytest
from peers.receiver import to_send
from peers.results import add, encoded, picture

from node.deliver.folder import FolderSender
from node.deliver.outcome import Delivered, Postponed
from node.recover import after_stop
from node.settings import FolderDestination, Settings
from storage.outbox import Delivery
from storage.spool import Disk
from storage.store import Store


def claimed(store: Store) -> tuple[Delivery, Path, bytes]:
    dataset = picture()
    add(store, dataset, "archive")
    with store.database.write() as tx:
        delivery = store.outbox.claim(tx, "archive", "test", 60)
    assert delivery is not None and delivery.file is not None
    return delivery, store.spool.path(delivery.file), encoded(dataset)


def destination(path: Path) -> FolderDestination:
    return FolderDestination(name="archive", kind="folder", path=path)


def test_a_result_lies_whole_in_a_folder_that_was_missing(store: Store, tmp_path: Path) -> None:
    delivery, file, data = claimed(store)
    folder = tmp_path / "a" / "b"
    assert FolderSender(destination(folder)).send(delivery, file) == Delivered()
    assert [(p.name, p.read_bytes()) for p in folder.iterdir()] == [(f"{delivery.sop_instance}.dcm", data)]


def test_a_second_delivery_replaces_the_file(store: Store, tmp_path: Path) -> None:
    delivery, file, _ = claimed(store)
    sender = FolderSender(destination(tmp_path / "out"))
    assert [sender.send(delivery, file) for _ in range(2)] == [Delivered(), Delivered()]
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_path_that_is_no_folder_postpones(store: Store, tmp_path: Path) -> None:
    delivery, file, _ = claimed(store)
    (tmp_path / "file").write_text("")
    outcome = FolderSender(destination(tmp_path / "file" / "out")).send(delivery, file)
    assert outcome == Postponed("the folder can't be written: Not a directory")


def test_a_full_disk_postpones_and_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    class Full(Disk):
        def sync(self, fd: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    delivery, file, _ = claimed(store)
    outcome = FolderSender(destination(tmp_path / "out"), Full()).send(delivery, file)
    assert outcome == Postponed("the folder can't be written: No space left on device")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("writer", "suffix"), [("sr", ".dcm"), ("json", ".json"), ("fhir", ".fhir.json"), ("oru", ".hl7")]
)
def test_a_file_s_name_says_what_it_is(tmp_path: Path, writer: str, suffix: str) -> None:
    file = tmp_path / "spooled"
    file.write_bytes(b"text")
    assert FolderSender(destination(tmp_path / "out")).send(to_send(writer, "2.25.7"), file) == Delivered()
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"2.25.7{suffix}"]


def test_a_text_s_file_in_the_spool_says_what_it_is_and_goes_when_its_row_is_lost(
    store: Store, tmp_path: Path
) -> None:
    add(store, picture(), "archive", writer="fhir", text=b"{}")
    with store.spool.incoming("results", ".hl7") as incoming:
        incoming.write(b"MSH|")
        lost = incoming.keep().name
    with store.database.read() as tx:
        (kept,) = store.results.files(tx)
    assert kept.endswith(".fhir.json") and list(store.spool.names("results")) == sorted([kept, lost])
    found = after_stop(store, Settings(), "sha256:test")
    assert found.results_deleted == [lost] and list(store.spool.names("results")) == [kept]
