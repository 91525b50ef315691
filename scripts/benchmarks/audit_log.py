"""An audit log of two years for `scripts/bench audit`: what a node would have written for so many images, sealed.

Each record goes through `Records.record_all` and `identify_all`, each block through `seal_all`, under a clock that
runs through the two years; only the commits are fewer than a node's (one for some hundred images).

    a group of 1 to 8 images of one sender   accepted ► received, queued ► claimed ► analyzed, 2 results made
                                             ► 2 attempted ► 2 delivered            10 records an image, and 1
    beside them                              parked, conflicting and refused images; parked and retried deliveries;
                                             starts and stops; the officer's questions; a research archive whose
                                             images all have one patient (the longest lists there are)
"""

import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from storage.audit import About, Actor, Entry, Patient, PatientKeys
from storage.audit.seal import seal_all
from storage.clock import Clock
from storage.database import Database
from storage.store import Store

BEGIN = datetime(2024, 11, 1, tzinfo=UTC)
DAYS = 730
# records of one transaction, and between two sealings
CHUNK = 5_000
RESEARCH = Patient("ANON", "ANONYMOUS", "")
RESEARCH_HOST = Actor("RESEARCH", "10.1.9.9")
STRAY = Actor("STRAY", "10.9.9.9")
OFFICER = Actor("officer", "desk-7")
WORKER = Actor("worker-1:4711")
FIRST_MONTH = Actor("OLD_CR", "10.1.0.99")
ROOMS = tuple(Actor(f"CR_ROOM_{number}", f"10.1.0.{number}") for number in range(1, 6))
WRITERS = ("sr", "secondary-capture")
_CLASS = "1.2.840.10008.5.1.4.1.1.1.1"
_SYNTAX = "1.2.840.10008.1.2.4.90"
_MODEL = {
    "model": "vgg16-udacity",
    "version": "1.3.0",
    "sha256": "sha256:" + hashlib.sha256(b"weights").hexdigest(),
}
_LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Pneumonia", "Pneumothorax", "Nodule",
           "Mass", "Infiltration", "Emphysema", "Fibrosis", "Hernia", "Pleural thickening")  # fmt: skip


@dataclass(frozen=True)
class Image:
    """One image of the log, as questions name it."""

    patient: Patient
    study: str
    sop: str
    result: str


@dataclass
class Built:
    """What is in the log, and what writing and sealing it took. Times in seconds."""

    records: int = 0
    images: int = 0
    write_seconds: float = 0.0
    seal_seconds: float = 0.0
    seal_cpu: float = 0.0
    checkpoint_seconds: float = 0.0
    # each of the sealer's
    transactions: list[float] = field(default_factory=list)
    # records and seconds of each sealing
    sealings: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class _Hands:
    """The clock's time, set by the history as it goes on."""

    now: datetime = BEGIN

    def go(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class _Timed(Database):
    """How long each write holds the lock."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.held: list[float] = []

    @contextmanager
    def write(self) -> Iterator[Connection]:
        began = time.perf_counter()
        with super().write() as tx:
            yield tx
        self.held.append(time.perf_counter() - began)


def build(folder: Path, records: int, seed: int = 11) -> Built:
    """A store with a log of at least so many records under `folder`."""
    hands = _Hands()
    store = Store.create(folder, clock=Clock(now=lambda: hands.now))
    history = _History(store, hands, random.Random(seed), records)
    sealer = _Timed(store.database.file)
    built = Built()
    while history.written < records:
        began, before = time.perf_counter(), history.written
        with store.database.write_prepared() as tx:
            history.write(tx, CHUNK)
        written, cpu = time.perf_counter(), time.process_time()
        seal_all(sealer, store.clock)
        sealed = time.perf_counter()
        built.seal_cpu += time.process_time() - cpu
        store.database.checkpoint()
        built.checkpoint_seconds += time.perf_counter() - sealed
        built.write_seconds += written - began
        built.seal_seconds += sealed - written
        built.sealings.append((history.written - before, sealed - written))
    built.records, built.images, built.transactions = history.written, history.images, sealer.held
    sealer.close()
    store.database.checkpoint()
    store.close()
    return built


class _History:
    """What happens, one group of images after the other."""

    def __init__(self, store: Store, hands: _Hands, chance: random.Random, records: int) -> None:
        self.images = 0
        self.written = 0
        self._audit = store.audit
        self._hands = hands
        self._chance = chance
        self._jobs = 0
        self._deliveries = 0
        self._patients = 0
        # between groups, of five images on average
        self._pause = DAYS * 86_400 / (records / 54)
        self._day = -1

    def write(self, tx: Connection, records: int) -> None:
        """At least so many more records, in the caller's transaction."""
        until = self.written + records
        while self.written < until:
            self._daily(tx)
            self._group(tx)
            self._hands.go(self._chance.expovariate(1 / self._pause))

    def _daily(self, tx: Connection) -> None:
        day = (self._hands.now - BEGIN).days
        if day == self._day:
            return
        self._day = day
        asked = {"filter": {"event": "object.refused"}, "format": "table"}
        self._tell(tx, Entry("audit.queried", actor=OFFICER, detail=asked))
        if day % 7 == 0:
            began = {"host": "0.0.0.0", "port": 104, "ae_title": "HILUM", "insecure": False, "exposed": False}
            self._tell(tx, Entry("node.stopped", detail={"seconds": 604_800.0}))
            self._tell(tx, Entry("node.started", detail={**began, "model": _MODEL["sha256"]}))
        refused = Entry(
            "association.refused", actor=STRAY, outcome="failure", detail={"rejection": "called AE title"}
        )
        self._tell(tx, *[refused] * 5)
        broken = {"reason": "the data set breaks off", "objects": 1}
        self._tell(tx, Entry("object.refused", actor=STRAY, outcome="failure", detail=broken))

    def _group(self, tx: Connection) -> None:
        sender, images = self._arriving()
        abouts = [
            About(keys, image.study, image.sop)
            for image, keys in zip(images, self._known(tx, images), strict=True)
        ]
        first = self._jobs + 1
        self._jobs += len(images)
        jobs = list(zip(range(first, self._jobs + 1), images, abouts, strict=True))
        opening = Entry("association.accepted", actor=sender, detail={"called": "HILUM", "contexts": 12})
        self._tell(tx, opening, *(entry for job in jobs for entry in self._received(sender, *job)))
        self._hands.go(0.2)
        self._tell(
            tx,
            *(
                Entry("job.claimed", about, WORKER, detail={"job": job, "attempt": 1})
                for job, _, about in jobs
            ),
        )
        read = []
        for job, image, about in jobs:
            self._hands.go(0.3)
            if self._chance.random() < 0.002:
                detail = {"job": job, "reason": "the compressed image breaks off"}
                self._tell(tx, Entry("job.parked", about, WORKER, "failure", detail))
            else:
                self._tell(tx, *self._analyzed(job, image, about))
                read.append((image, about))
        self._deliver(tx, read)

    def _arriving(self) -> tuple[Actor, list[Image]]:
        """Who sends, and what: studies of two images each, a third of them of patients who were here before."""
        chance, now = self._chance, self._hands.now
        if now < BEGIN + timedelta(days=365) and chance.random() < 0.2:
            return RESEARCH_HOST, [self._image(RESEARCH, self._uid()) for _ in range(8)]
        sender = (
            FIRST_MONTH
            if now < BEGIN + timedelta(days=30) and chance.random() < 0.1
            else chance.choice(ROOMS)
        )
        images: list[Image] = []
        for _ in range(chance.randint(1, 4)):
            if self._patients and chance.random() < 1 / 3:
                number = chance.randint(1, self._patients)
            else:
                self._patients += 1
                number = self._patients
            patient = Patient(f"P{number:07d}", f"FAMILY{number}^GIVEN", f"A{self.images + len(images):08d}")
            study = self._uid()
            images += [self._image(patient, study) for _ in range(2)]
        return sender, images

    def _image(self, patient: Patient, study: str) -> Image:
        return Image(patient, study, self._uid(), self._uid())

    def _uid(self) -> str:
        return f"2.25.{self._chance.getrandbits(122)}"

    def _known(self, tx: Connection, images: list[Image]) -> list[PatientKeys]:
        self.images += len(images)
        return self._audit.identify_all(tx, [image.patient for image in images])

    def _received(self, sender: Actor, job: int, image: Image, about: About) -> Iterator[Entry]:
        chance = self._chance
        if chance.random() < 0.001:
            detail: dict[str, Any] = {
                "reason": "other content under a known UID",
                "content_hash": self._hash(),
            }
            yield Entry("object.conflict", about, sender, "failure", detail)
        seconds = round(chance.uniform(0.05, 0.9), 3)
        detail = {"size": chance.randint(6, 18) * 10**6, "content_hash": self._hash(), "sop_class": _CLASS,
                  "transfer_syntax": _SYNTAX, "revision": 1, "seconds": seconds}  # fmt: skip
        yield Entry("object.received", about, sender, detail=detail)
        yield Entry("job.queued", about, detail={"job": job})

    def _analyzed(self, job: int, image: Image, about: About) -> Iterator[Entry]:
        chance = self._chance
        scores = {label: [round(chance.random() ** 3, 4), 0.5] for label in _LABELS}
        present = [label for label, (score, threshold) in scores.items() if score >= threshold]
        took = {
            "decode": chance.randint(50, 200),
            "predict": 180,
            "render": chance.randint(90, 300),
            "keep": 6,
        }
        detail = {"job": job, **_MODEL, "over_threshold": present, "scores": scores, "ms": took}
        yield Entry("job.analyzed", about, WORKER, detail=detail)
        for writer, result in self._results(image):
            made = {
                "job": job,
                "writer": writer,
                "result": result,
                "revision": 1,
                "content_hash": self._hash(),
            }
            yield Entry("result.made", about, detail=made)

    def _deliver(self, tx: Connection, read: list[tuple[Image, About]]) -> None:
        """To one destination, in one batch; one in a hundred is parked, then tried again by a person."""
        sent = []
        for image, about in read:
            for writer, result in self._results(image):
                self._deliveries += 1
                told = {
                    "delivery": self._deliveries,
                    "destination": "pacs",
                    "writer": writer,
                    "result": result,
                }
                sent.append((about, told))
        self._hands.go(0.1)
        self._tell(
            tx, *(Entry("delivery.attempted", about, detail={**told, "attempt": 1}) for about, told in sent)
        )
        self._hands.go(0.8)
        for about, told in sent:
            if self._chance.random() < 0.01:
                reason = {**told, "reason": "the destination answers 0xC000", "status": "0xC000"}
                self._tell(tx, Entry("delivery.parked", about, outcome="failure", detail=reason))
                self._hands.go(600)
                self._tell(tx, Entry("delivery.retried", about, OFFICER, detail=told))
                self._tell(tx, Entry("delivery.attempted", about, detail={**told, "attempt": 2}))
        seconds = round(self._chance.uniform(0.02, 0.4), 3)
        self._tell(
            tx,
            *(
                Entry("delivery.delivered", about, detail={**told, "seconds": seconds})
                for about, told in sent
            ),
        )

    def _results(self, image: Image) -> Iterator[tuple[str, str]]:
        for number, writer in enumerate(WRITERS):
            yield writer, image.result + "1" * number

    def _hash(self) -> str:
        return f"sha256:{self._chance.getrandbits(256):064x}"

    def _tell(self, tx: Connection, *entries: Entry) -> None:
        self._audit.record_all(tx, entries)
        self.written += len(entries)
