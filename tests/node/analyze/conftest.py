"""A worker over a real store, real decoders and real writers, on a clock that the test moves; the network is a toy."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from model.card import Card
from model.classifier import Classifier, Seen
from model.explain import Mark
from model.guard import Scoped
from model.phantom import draw
from model.reader import Reader
from model.runtime import Running, Said
from model.scope import Policy
from model.stored_only import stored_only
from node.analyze.decoders import Decoders
from node.analyze.pipeline import Pipeline
from node.analyze.shadow import Shadow
from node.analyze.worker import Worker
from node.receive.accept import arrived
from node.receive.part10 import walk_file
from node.receive.walk import Limits
from node.settings import Settings
from node.wire import contexts
from storage.audit import Actor, Filter, Record
from storage.clock import Clock
from storage.jobs import Job
from storage.objects import Verdict
from storage.outbox import Delivery
from storage.store import Store

LABELS = ("Effusion", "Mass")
CARD = Card(
    name="toy", version="1", intended_use="triage", limits="None.", folder=Path(), weights="w",
    sha256="sha256:" + "ab" * 32, architecture="vgg16", pools=(), size=224, fit="stretch", scale=255.0,
    mean=(0.0, 0.0, 0.0), labels=LABELS, display={label: label for label in LABELS},
    thresholds=dict.fromkeys(LABELS, 0.5), rule="",
)  # fmt: skip


class Toy(Classifier):
    """Says of every picture that there is an effusion and no mass, or what it is told to say; counts how often it is
    asked where. `guard`: what it says of the scope of each picture, if anything."""

    def __init__(self, card: Card = CARD, scores: Sequence[float] = (0.8, 0.1)) -> None:
        self.scores = scores
        self.guard: Scoped | None = None
        self.explained = 0
        super().__init__(card, Running("toy", self._say))

    def _say(self, batch: NDArray[np.float32]) -> Said:
        return Said(np.tile(np.array(self.scores, np.float32), (len(batch), 1)))

    def look(self, batch: NDArray[np.float32]) -> list[Seen]:
        return [replace(seen, scoped=self.guard) for seen in super().look(batch)]

    def explain(self, batch: NDArray[np.float32], labels: Sequence[Sequence[str]]) -> list[dict[str, Mark]]:
        assert len(batch) == len(labels)
        self.explained += len(batch)
        heat = np.linspace(0, 1, 224 * 224, dtype=np.float32).reshape(224, 224)
        mark = Mark(heat, ((0.1, 0.6), (0.4, 0.6), (0.4, 0.9), (0.1, 0.9)))
        return [dict.fromkeys(one, mark) for one in labels]


@pytest.fixture(scope="package")
def phantom() -> Dataset:
    """A chest of 256 × 256 pixels."""
    drawn = draw(1, patch=True)
    pixels = drawn.pixel_array[::4, ::4]
    drawn.Rows, drawn.Columns = pixels.shape
    drawn.PixelData = pixels.tobytes()
    return drawn


@pytest.fixture(scope="package")
def decoders() -> Iterator[Decoders]:
    # twice: the second is for a shadow
    with Decoders(1, 2 * 10**9, 30, Policy(), (CARD, replace(CARD, scale=1.0))) as pool:
        yield pool


class Ward:
    """One data folder and its worker; what a receiver would do to an image, `receive` does."""

    def __init__(self, folder: Path, decoders: Decoders, phantom: Dataset) -> None:
        self.folder = folder
        self.at = datetime(2026, 11, 21, 12, tzinfo=UTC)
        self._seconds = 1000.0
        self._decoders, self._phantom = decoders, phantom
        self.toy = Toy()
        self.store = self._open()
        self.start()

    def _open(self) -> Store:
        return Store.create(self.folder, clock=Clock(lambda: self.at, lambda: self._seconds))

    def start(
        self,
        *kinds: str,
        sr_class: str = "comprehensive3d",
        analyze: Mapping[str, Any] = MappingProxyType({}),
        scope: Mapping[str, Any] = MappingProxyType({}),
        **report: Any,
    ) -> None:
        """The node starts, anew with these settings: one folder destination, and what stands in [report]."""
        self.store.close()
        self.store = self._open()
        with self.store.database.write() as tx:
            self.store.jobs.recover(tx)
            self.store.studies.recover(tx)
        self.settings = Settings.model_validate(
            {
                "node": {"data_dir": self.folder},
                "receive": {"min_free_bytes": 0, "on_conflict": "analyze"},
                "destinations": [
                    {"name": "pacs", "kind": "folder", "path": "p", "results": kinds or ("sr", "sc"),
                     "sr_class": sr_class}
                ],
                "report": {"timezone": "UTC", **report},
                "analyze": dict(analyze),
                "scope": dict(scope),
            }
        )  # fmt: skip
        self.worker = self.another_worker("worker-1:1")

    def another_worker(self, owner: str, shadow: Shadow | None = None) -> Worker:
        return Worker(self.store, self.pipeline(), self.settings, owner, shadow)

    def pipeline(self) -> Pipeline:
        return Pipeline(self.settings, Reader(self.toy), self._decoders)

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self._seconds += seconds

    def image(self, number: int, **header: Any) -> Dataset:
        """The phantom as another instance of the same study, with a picture of its own."""
        dataset = copy.deepcopy(self._phantom)
        dataset.SOPInstanceUID = UID(f"1.2.826.0.1.{number}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber = number
        pixels = self._phantom.pixel_array.copy()
        pixels[:8, :8] = number
        dataset.PixelData = pixels.tobytes()
        for keyword, value in header.items():
            setattr(dataset, keyword, value)
        return dataset

    def receive(self, *images: Dataset) -> None:
        for image in images:
            whole = BytesIO()
            image.save_as(whole, enforce_file_format=True)
            with self.store.spool.incoming("objects") as incoming:
                incoming.write(whole.getvalue())
                name = incoming.keep().name
            walk = walk_file(self.store.spool.path(name), Limits(10**8), contexts.standard_storage())
            arrival = arrived(
                walk.header, walk.transfer_syntax, walk.size, walk.content_hash, Actor("CR"), False
            )
            with self.store.database.write() as tx:
                if self.store.objects.judge(tx, arrival) is Verdict.REPEATED:
                    self.store.objects.repeated(tx, arrival)
                    continue
                object_id = self.store.objects.keep(tx, arrival, name)
                if stored_only(walk.sop_class, walk.header.presentation_intent) is None:
                    self.store.jobs.queue(tx, object_id, CARD.sha256)

    def read(self) -> None:
        """The worker takes what is due, until there is nothing more."""
        while self.worker.take():
            pass

    def jobs(self) -> list[Job]:
        with self.store.database.read() as tx:
            return self.store.jobs.listing(tx)

    def states(self) -> list[str]:
        return [job.state for job in self.jobs()]

    def deliveries(self) -> list[Delivery]:
        with self.store.database.read() as tx:
            return self.store.outbox.listing(tx)

    def results(self, writer: str = "sr") -> list[Dataset]:
        """The results of one kind that wait for the destination, oldest first, read from their files."""
        return [
            dcmread(self.store.spool.path(d.file)) for d in self.deliveries() if d.writer == writer and d.file
        ]

    def audit(self, event: str) -> list[Record]:
        with self.store.database.read() as tx:
            return self.store.audit.page(tx, Filter(event=event))


@pytest.fixture
def ward(tmp_path: Path, decoders: Decoders, phantom: Dataset) -> Iterator[Ward]:
    ward = Ward(tmp_path / "data", decoders, phantom)
    yield ward
    ward.store.close()


def images_of(sr: Dataset) -> list[str]:
    """The instances that a report rests on."""
    return [
        str(image.ReferencedSOPInstanceUID)
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    ]


@pytest.fixture
def evidence() -> Callable[[Dataset], list[str]]:
    """`evidence(sr)`: the last parts of the instances' UIDs that a report rests on, sorted."""
    return lambda sr: sorted(uid.rpartition(".")[2] for uid in images_of(sr))
