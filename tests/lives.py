"""What a node goes through, written by the real store on a clock that the test moves: images come, are read, sent."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from storage.audit import About, Actor, Filter, Patient, Record, pages
from storage.audit.seal import seal_all
from storage.clock import Clock
from storage.jobs import Found
from storage.objects import Arrival
from storage.outbox import Delivery
from storage.results import Made
from storage.store import Store

WORKER = "worker-1:41"
MODEL = {"model": "chest-vgg16", "version": "1.2", "sha256": "sha256:" + "ab" * 32}
CT = Actor("CT1", "10.0.0.7", "CN=ct1.example")
ANNA = Actor("anna", "ws-3")
BEGIN = datetime(2025, 3, 14, 9, 22, 31, tzinfo=UTC)
HILUM, NOBODY = Actor(), About()
JANE = Patient("ID-4711", "Doe^Jane", "ACC-9")
SR, SC = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7"


class Life:
    """One data folder. Every method is a step of a stage; time passes by `wait` alone."""

    def __init__(self, folder: Path, at: datetime = BEGIN) -> None:
        self.folder = folder
        self.at = at
        self.store = Store.create(folder / "data", clock=Clock(lambda: self.at, lambda: self.at.timestamp()))
        self.config = folder / "site.toml"
        self.config.write_text('[node]\ndata_dir = "data"\n[report]\ntimezone = "Europe/Berlin"\n')

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    def arrival(
        self,
        number: int,
        study: str = "1.2.840.1",
        patient: Patient = JANE,
        **more: Any,
    ) -> Arrival:
        told = {
            "sop_class": "1.2.840.10008.5.1.4.1.1.1.1",
            "sop_instance": f"{study}.1.{number}",
            "series": f"{study}.1",
            "study": study,
            "patient": patient,
            "transfer_syntax": "1.2.840.10008.1.2.1",
            "size": 8_400_000,
            "content_hash": f"sha256:{number:064x}",
            "sender": CT,
            "seconds": 0.4,
        }
        return Arrival(**{**told, **more})

    def receive(self, arrival: Arrival, *, queued: bool = True) -> int:
        """An object and its queued job, whose id is returned; 0 where it has none."""
        with self.store.database.write() as tx:
            file = f"objects/x/{arrival.sop_instance}.{arrival.content_hash[-6:]}.dcm"
            number = self.store.objects.keep(tx, arrival, file)
            return self.store.jobs.queue(tx, number, MODEL["sha256"]) if queued else 0

    def claim(self, owner: str = WORKER) -> list[int]:
        with self.store.database.write() as tx:
            return [job.id for job in self.store.jobs.claim(tx, owner, 8, 60)]

    def end(self, job: int, state: str, reason: str = "", owner: str = WORKER) -> None:
        with self.store.database.write() as tx:
            self.store.jobs.finish(tx, job, owner, state, reason=reason)

    def read(
        self, job: int, destinations: Sequence[str] = ("pacs",), writers: Sequence[str] = ("sr", "sc")
    ) -> list[str]:
        """T3 of a claimed job: what was found, and its results, whose UIDs are returned."""
        found = [Found("Effusion", 0.71, 0.71, 0.5, True), Found("Mass", 0.1, 0.1, 0.5, False)]
        detail = {
            **MODEL, "over_threshold": ["Effusion"], "scores": {"Effusion": [0.71, 0.5], "Mass": [0.1, 0.5]},
            "ms": {"decode": 21, "predict": 213, "render": 80, "keep": 6},
        }  # fmt: skip
        made = [
            Made(
                writer,
                "",
                SR,
                f"2.25.{job}{n}",
                "sha256:" + "cd" * 32,
                f"results/{job}.{n}",
                tuple(destinations),
            )
            for n, writer in enumerate(writers)
        ]
        with self.store.database.write() as tx:
            self.store.jobs.finish(tx, job, WORKER, "done", found=found, detail=detail)
            (done,) = self.store.jobs.get(tx, [job])
            self.store.results.add(tx, done, 1, made)
        return [one.sop_instance for one in made]

    def attempt(self, to: str = "pacs", most: int = 1) -> list[Delivery]:
        with self.store.database.write() as tx:
            return self.store.outbox.claim_batch(tx, to, "deliverer:7", 60, most)

    def delivered(self, delivery: Delivery, status: str = "0000", seconds: float = 0.012) -> None:
        with self.store.database.write() as tx:
            self.store.outbox.delivered(tx, delivery, {"status": status, "seconds": seconds})

    def postponed(self, delivery: Delivery, reason: str = "no connection to the destination") -> None:
        with self.store.database.write() as tx:
            self.store.outbox.postponed(tx, delivery, reason, 0)

    def parked(self, delivery: Delivery, reason: str) -> None:
        with self.store.database.write() as tx:
            self.store.outbox.parked(tx, delivery, reason)

    def deliver(self, to: str = "pacs", took: float = 0.012) -> None:
        """Everything that waits for a destination arrives, one after the other."""
        while batch := self.attempt(to):
            self.wait(took)
            self.delivered(batch[0], seconds=took)

    def record(self, event: str, about: About = NOBODY, actor: Actor = HILUM, **more: Any) -> None:
        outcome = more.pop("outcome", "success")
        with self.store.database.write() as tx:
            self.store.audit.record(tx, event, about=about, actor=actor, outcome=outcome, detail=more)

    def seal(self) -> None:
        seal_all(self.store.database, self.store.clock)

    def records(self, event: str = "") -> list[Record]:
        return list(pages(self.store.audit, self.store.database.read, Filter(event=event)))

    def whole(self, study: str = "1.2.840.1", patient: Patient = JANE) -> int:
        """One image from its first byte to the PACS's acknowledgement; its job."""
        job = self.receive(self.arrival(1, study, patient))
        self.wait(0.05)
        self.claim()
        self.wait(0.36)
        self.read(job)
        self.wait(0.01)
        self.deliver()
        return job


def eventful(life: Life, patient: Patient) -> None:
    """A study to which nearly everything happens that can happen."""
    first, lateral = life.arrival(1, patient=patient), life.arrival(2, patient=patient)
    refusal = {"reason": "sync or commit failed: no space left on device", "status": "A700"}
    life.record("object.refused", About(sop=first.sop_instance), CT, outcome="failure", **refusal)
    life.wait(61)
    one = life.receive(first)
    life.wait(1.2)
    two = life.receive(lateral)
    life.wait(0.05)
    life.claim()
    life.wait(0.03)
    life.end(two, "skipped", "no frontal view: ViewPosition is LL")
    life.wait(0.33)
    results = life.read(one, ("pacs", "archive"))
    life.deliver("archive")
    life.seal()
    for pause in (0.2, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60):
        life.wait(pause)
        for delivery in life.attempt(most=1):
            life.wait(0.02)
            life.postponed(delivery)
    life.wait(900)
    (delivery,) = life.attempt()
    life.parked(delivery, "the destination answered 0124 (not authorized)")
    life.wait(3000)
    with life.store.database.write() as tx:
        life.store.outbox.retry(tx, delivery.id, ANNA)
    life.wait(0.4)
    life.deliver("pacs", 0.034)
    with life.store.database.write() as tx:
        (image,) = life.store.jobs.get(tx, [one])
        life.store.objects.repeated(tx, first)
        named = {"destination": "pacs", "transaction": "2.25.99", "results": results}
        life.store.audit.record(tx, "commitment.requested", about=image.about, detail=named)
    life.wait(2.5)
    for delivery_id, uid, writer in ((1, results[0], "sr"), (3, results[1], "sc")):
        told = {"delivery": delivery_id, "destination": "pacs", "writer": writer, "result": uid}
        life.record(
            "delivery.committed", image.about, Actor("PACS", "10.0.0.2"), transaction="2.25.99", **told
        )
    life.wait(86_400 * 20)
    life.record(
        "audit.queried", About(study=first.study), ANNA, filter={"study": first.study}, format="table"
    )
