"""Retention: what is old and done with goes, and nothing that somebody still waits for."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.housekeep import LEFTOVER_SECONDS, Housekeeper
from node.settings import Node, Retention, Settings
from storage.audit import Actor, Filter, Patient
from storage.clock import Clock
from storage.objects import Arrival, Verdict
from storage.results import Made
from storage.store import Store

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWNER = "worker-1:1"


class Archive:
    """A store whose clock the test moves, and its housekeeper: images stay 30 days, results 90."""

    def __init__(self, folder: Path, retention: Retention | None = None) -> None:
        self.now = START
        self.store = Store.create(folder, clock=Clock(now=lambda: self.now))
        self.keeper = Housekeeper(
            self.store, Settings(node=Node(data_dir=folder), retention=retention or Retention())
        )

    def pass_days(self, days: float) -> None:
        self.now += timedelta(days=days)

    def file(self, kind: str) -> str:
        with self.store.spool.incoming(kind) as incoming:  # type: ignore[arg-type]
            incoming.write(b"bytes")
            return incoming.keep().name

    def arrival(self, name: str) -> Arrival:
        return Arrival(
            sop_class="1.2.840.10008.5.1.4.1.1.1.1",
            sop_instance=f"2.25.{len(name)}.{sum(name.encode())}",
            series="1.2.3",
            study="1.2",
            patient=Patient("P1", "Doe^Jane", "A1"),
            transfer_syntax="1.2.840.10008.1.2.1",
            size=5,
            content_hash="sha256:" + name.ljust(64, "0"),
            sender=Actor("MODALITY", "10.0.0.1"),
        )

    def image(self, name: str, state: str = "") -> str:
        """An image whose job is in that state (none without); its file."""
        file = self.file("objects")
        with self.store.database.write() as tx:
            object_id = self.store.objects.keep(tx, self.arrival(name), file)
            if state:
                job = self.store.jobs.queue(tx, object_id, "sha256:model")
            if state and state != "queued":
                self.store.jobs.claim(tx, OWNER, 99, 60)
                if state != "running":
                    self.store.jobs.finish(tx, job, OWNER, state)
                self.store.jobs.recover(tx)
            if state == "running":
                self.store.jobs.claim(tx, OWNER, 99, 60)
        return file

    def result(self, name: str, state: str) -> tuple[str, str]:
        """A read image and its result, whose delivery is in that state; their files."""
        image, file = self.image(name, "done"), self.file("results")
        made = Made("sr", "", "1.2", f"2.25.9{sum(name.encode())}", "sha256:r", file, ("pacs",))
        outbox = self.store.outbox
        with self.store.database.write() as tx:
            job = self.store.jobs.listing(tx, "done")[-1]
            self.store.results.add(tx, job, 1, [made])
            if state == "waiting":
                return image, file
            delivery = outbox.claim(tx, "pacs", "deliverer:1", 60)
            assert delivery is not None
            if state == "delivered":
                outbox.delivered(tx, delivery, {})
            elif state in {"parked", "discarded"}:
                outbox.parked(tx, delivery, "refused")
            if state == "discarded":
                outbox.discard(tx, delivery.id, Actor("operator"))
        return image, file

    def there(self, *files: str) -> list[bool]:
        return [self.store.spool.path(file).exists() for file in files]

    def expired(self) -> list[str]:
        with self.store.database.read() as tx:
            return [r.detail["what"] for r in self.store.audit.page(tx, Filter(event="object.expired"))]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "data")
    yield archive
    archive.store.close()


def test_images_that_are_done_with_expire_and_nothing_unread_does(archive: Archive) -> None:
    over = [archive.image("stored only"), archive.image("skipped", "skipped"), archive.image("done", "done")]
    waits = [
        archive.image("parked", "parked"),
        archive.image("queued", "queued"),
        archive.image("running", "running"),
    ]
    archive.pass_days(29)
    assert archive.keeper.expire() == 0
    archive.pass_days(2)
    young = archive.image("young", "skipped")
    assert archive.keeper.expire() == 3
    assert archive.there(*over, *waits, young) == [False] * 3 + [True] * 4
    assert archive.expired() == ["image"] * 3
    assert archive.keeper.expire() == 0


def test_neither_an_image_nor_a_result_expires_before_its_delivery_came_to_an_end(archive: Archive) -> None:
    delivered, discarded = archive.result("delivered", "delivered"), archive.result("discarded", "discarded")
    parked, sending = archive.result("parked", "parked"), archive.result("sending", "sending")
    waiting = archive.result("waiting", "waiting")
    archive.pass_days(31)
    assert archive.keeper.expire() == 2
    assert archive.there(*delivered, *discarded) == [False, True] * 2
    archive.pass_days(60)
    assert archive.keeper.expire() == 2
    assert archive.there(*delivered, *discarded) == [False] * 4
    assert archive.there(*parked, *sending, *waiting) == [True] * 6
    assert sorted(archive.expired()) == ["image", "image", "result", "result"]


def test_zero_days_keep_for_ever(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "data", Retention(images_days=0, results_days=0))
    files = archive.result("delivered", "delivered")
    archive.pass_days(10_000)
    assert archive.keeper.expire() == 0
    assert archive.there(*files) == [True, True]
    archive.store.close()


def test_what_has_expired_is_known_when_it_comes_again(archive: Archive) -> None:
    image, _ = archive.result("seen", "delivered")
    archive.pass_days(100)
    assert archive.keeper.expire() == 2
    with archive.store.database.read() as tx:
        assert archive.store.objects.judge(tx, archive.arrival("seen")) is Verdict.REPEATED
        assert archive.store.objects.is_own(tx, f"2.25.9{sum(b'seen')}")
    assert not archive.store.spool.path(image).parent.parent.exists(), (
        "the day's folder is gone with its last file"
    )


def test_more_than_a_page_expires_in_one_round(archive: Archive) -> None:
    files = [archive.image(f"{n:03d}" * (n % 7 + 1)) for n in range(130)]
    archive.pass_days(31)
    assert archive.keeper.expire() == 130
    assert not any(archive.there(*files))


def test_half_a_file_that_a_dead_worker_left_goes_and_one_being_written_stays(archive: Archive) -> None:
    archive.now = datetime.now(UTC)
    old, young = (archive.store.spool.folder("results") / name for name in ("old.part", "young.part"))
    for file in (old, young):
        file.write_bytes(b"half")
    long_ago = archive.now.timestamp() - LEFTOVER_SECONDS - 1
    os.utime(old, (long_ago, long_ago))
    assert archive.keeper.sweep() == 1
    assert (old.exists(), young.exists()) == (False, True)
