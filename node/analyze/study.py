"""One report on a whole study, when its images have come: read again, ordered, written, put down (T3).

The images are read again because a report needs pictures, and pictures are not kept. An image that can't be read any
more is left out, and the audit log says so; a report is made of what there is. Late images make it wait anew, and the
next report names this one as its predecessor.
"""

import re
import time
from collections.abc import Sequence

from model.header import text
from node import log, report
from node.analyze.outgoing import Outgoing
from node.analyze.pipeline import DECODER_SECONDS, Outcome, Pipeline, tell_fault
from node.settings import Settings
from storage.errors import Unavailable, WrongState
from storage.jobs import Job
from storage.store import Store
from storage.studies import PendingStudy

# for prediction and report; beside it each image may run into the decoders' limit
LEASE_SECONDS = 360.0
MOST_IMAGES = 64
"""Of one report: their pictures lie in memory together, some 10 MB each. A study of radiographs has one to four."""


class StudyReporter:
    """One claimer of due studies over one pipeline."""

    def __init__(
        self, store: Store, pipeline: Pipeline, settings: Settings, outgoing: Outgoing, owner: str
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._batch_size = settings.analyze.batch_size
        self._outgoing = outgoing
        self._owner = owner

    def take(self) -> int:
        """Claims a study that is due and reports on it; how many it was. Raises Unavailable."""
        with self._store.database.write() as tx:
            study = self._store.studies.claim(tx, self._owner, LEASE_SECONDS, DECODER_SECONDS)
        if study is None:
            return 0
        began = time.monotonic()
        try:
            self._report(study)
        except WrongState as e:
            log.get().warning("study was lost to another worker", study=study.id, reason=str(e))
        seconds = round(time.monotonic() - began, 2)
        log.get().info("study finished", study=study.id, images=len(study.images), seconds=seconds)
        return 1

    def _report(self, study: PendingStudy) -> None:
        if len(study.images) > MOST_IMAGES:
            reason = f"the study has {len(study.images)} images, and one report holds {MOST_IMAGES} at most"
            self._park(study, reason)
            return
        began = time.monotonic()
        outcomes = self._read(study.images)
        read = time.monotonic()
        trouble = next((o.reason for o in outcomes.values() if o.trouble == "io"), "")
        if trouble and not study.last_life:
            with self._store.database.write() as tx:
                self._store.studies.failed(tx, study, self._owner, trouble)
            return
        left_out = {number: o.reason for number, o in outcomes.items() if o.status != "analyzed"}
        images = _in_order([job for job in study.images if job.id not in left_out], outcomes)
        if not images:
            self._park(study, next(iter(left_out.values()), "none of its images is left"))
            return
        occasion = self._outgoing.occasion(study.subject, images)
        try:
            readings = [(job.content_hash, outcomes[job.id]) for job in images]
            results = self._pipeline.report(readings, self._outgoing.wanted, occasion)
        except report.InvalidResult as e:
            self._park(study, f"the result did not pass its check: {e}", quarantined=str(e))
            return
        except Exception as e:
            self._park(study, tell_fault("a report could not be written", e))
            return
        took = {"read": round(1000 * (read - began)), "render": round(1000 * (time.monotonic() - read))}
        self._keep(study, images, occasion.revision, results, left_out, took)

    def _read(self, images: Sequence[Job]) -> dict[int, Outcome]:
        """Job -> what became of its image."""
        gone = Outcome("failed", "the image has expired from the spool", "image")
        outcomes = {job.id: gone for job in images if not job.file}
        there = [(job.id, self._store.spool.path(job.file)) for job in images if job.file]
        for at in range(0, len(there), self._batch_size):
            batch = there[at : at + self._batch_size]
            try:
                read = self._pipeline.read([path for _, path in batch])
            except Exception as e:
                fault = Outcome("failed", tell_fault("a study could not be read", e), "io")
                read = [fault for _ in batch]
            outcomes |= {number: outcome for (number, _), outcome in zip(batch, read, strict=True)}
        return outcomes

    def _keep(
        self,
        study: PendingStudy,
        images: Sequence[Job],
        revision: int,
        results: Sequence[report.Result],
        left_out: dict[int, str],
        took: dict[str, int],
    ) -> None:
        card = self._pipeline.card
        detail = {
            "revision": revision,
            "images": [job.sop_instance for job in images],
            "model": card.name,
            "version": card.version,
            "sha256": card.sha256,
            "ms": took,
        }
        try:
            with self._outgoing.kept(results) as made, self._store.database.write() as tx:
                self._store.results.add_of_study(tx, study.subject, images, revision, made)
                self._store.studies.reported(tx, study, self._owner, left_out, detail)
        except Unavailable as e:
            with self._store.database.write() as tx:
                self._store.studies.failed(tx, study, self._owner, str(e))

    def _park(self, study: PendingStudy, reason: str, quarantined: str = "") -> None:
        with self._store.database.write() as tx:
            self._store.studies.park(tx, study, self._owner, reason)
            if quarantined:
                self._store.results.quarantined(tx, study.images[0], quarantined)


def _in_order(images: Sequence[Job], outcomes: dict[int, Outcome]) -> list[Job]:
    """By series and instance number, then as they came."""

    def place(job: Job) -> tuple[int, int, int]:
        ready = outcomes[job.id].ready
        assert ready is not None
        series, instance = (text(ready.header, k) for k in ("SeriesNumber", "InstanceNumber"))
        return _number(series), _number(instance), job.id

    return sorted(images, key=place)


def _number(value: str) -> int:
    """An Integer String; what is none comes last."""
    return int(value) if re.fullmatch(r"[+-]?[0-9]{1,11}", value) else 2**31
