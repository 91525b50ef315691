"""The worker: claims a batch, reads it, finishes each job in a transaction of its own (T2, T3 of docs/architecture.md).

With one report an image the job's end is the report's making; with one a study the image's study waits from then on,
and is reported when it is due (node/analyze/study.py). The only process that loads the model. What it had claimed when
it died is tried again, alone (`storage.jobs`).
"""

import sys
import time
from collections.abc import Sequence

from sqlalchemy import Connection

from model.errors import BadModel
from node import active, log, report
from node.analyze import shadow
from node.analyze.outgoing import Outgoing
from node.analyze.pipeline import (
    DECODER_SECONDS,
    Outcome,
    Pipeline,
    is_guarded,
    tell_fault,
)
from node.analyze.shadow import Shadow
from node.analyze.study import StudyReporter
from node.child import NEW_MODEL_EXIT, NO_MODEL_EXIT, Child, start
from node.settings import UNGUARDED, Settings
from node.wakeup import Wakeup, notify
from storage.errors import Unavailable, WrongState
from storage.jobs import Job
from storage.store import Store

# for prediction and reports; beside it each image of the batch may run into the decoders' limit
LEASE_SECONDS = 360.0
POLL_SECONDS = 2.0


class Worker:
    """One queue reader over one pipeline."""

    def __init__(
        self, store: Store, pipeline: Pipeline, settings: Settings, owner: str, shadow: Shadow | None = None
    ) -> None:
        self._store = store
        self._shadow = shadow
        self._pipeline = pipeline
        self._settings = settings
        self._owner = owner
        self._outgoing = Outgoing(store, settings, pipeline.card)
        self._studies = StudyReporter(store, pipeline, settings, self._outgoing, owner)

    def take(self) -> int:
        """Claims and finishes one batch, and reports on one study that is due; how many both were. Raises Unavailable.

        Studies are looked for in either mode: some may still wait from before the settings were changed.
        """
        if self._store.spool.free_bytes() < self._settings.receive.min_free_bytes:
            return 0
        taken = self._take_batch()
        studies = self._studies.take()
        if studies:
            self._tell_deliverer()
        return taken + studies

    def _tell_deliverer(self) -> None:
        notify(self._store.spool.root, "deliverer")

    def _take_batch(self) -> int:
        with self._store.database.write() as tx:
            most = self._settings.analyze.batch_size
            lease = LEASE_SECONDS + most * DECODER_SECONDS
            jobs = self._store.jobs.claim(tx, self._owner, most, lease)
        if not jobs:
            return 0
        began = time.monotonic()
        for job, outcome in zip(jobs, self._read(jobs), strict=True):
            try:
                self._finish(job, outcome)
            except WrongState as e:
                log.get().warning("job was lost to another worker", job=job.id, reason=str(e))
        log.get().info("batch finished", jobs=len(jobs), seconds=round(time.monotonic() - began, 2))
        return len(jobs)

    def waits_for_more(self) -> bool:
        """Is the queue shorter than a batch, and its oldest job younger than `max_wait_seconds`?"""
        analyze = self._settings.analyze
        if not analyze.max_wait_seconds:
            return False
        with self._store.database.read() as tx:
            queued = self._store.jobs.counts(tx).get("queued", 0)
            oldest = self._store.jobs.oldest_queued(tx)
        if oldest is None or queued >= analyze.batch_size:
            return False
        return (self._store.clock.now() - oldest).total_seconds() < analyze.max_wait_seconds

    def _read(self, jobs: Sequence[Job]) -> list[Outcome]:
        paths = [self._store.spool.path(job.file) if job.file else None for job in jobs]
        there = [path for path in paths if path is not None]
        try:
            read = iter(self._pipeline.read(there) if there else [])
        except Exception as e:
            fault = Outcome("failed", tell_fault("a batch could not be read", e), "io")
            return [fault for _ in jobs]
        gone = Outcome("failed", "the image has expired from the spool", "image")
        return [next(read) if path is not None else gone for path in paths]

    def _finish(self, job: Job, outcome: Outcome) -> None:
        match outcome:
            case Outcome(status="skipped"):
                self._skip(job, outcome)
            case Outcome(status="failed", trouble="io"):
                with self._store.database.write() as tx:
                    self._store.jobs.failed(tx, job.id, self._owner, outcome.reason)
            case Outcome(status="failed"):
                self._end(job, "parked", outcome.reason)
            case _:
                self._analyzed(job, outcome)

    def _end(self, job: Job, state: str, reason: str) -> None:
        with self._store.database.write() as tx:
            self._store.jobs.finish(tx, job.id, self._owner, state, reason=reason, model=self._model)

    @property
    def _model(self) -> str:
        return self._pipeline.card.sha256

    def _skip(self, job: Job, outcome: Outcome) -> None:
        """Out of scope; whoever wants to be told is told, and a fault in that does not hold up the job."""
        occasion = self._outgoing.occasion(job.sop_instance, [job])
        fault, results = "", []
        try:
            results = self._pipeline.not_analyzed(job.content_hash, outcome, self._outgoing.wanted, occasion)
        except report.InvalidResult as e:
            fault = str(e)
        except Exception as e:
            fault = tell_fault("a report could not be written", e)
        self._keep(job, "skipped", outcome, occasion.revision, results, fault)

    def _analyzed(self, job: Job, outcome: Outcome) -> None:
        picture = outcome.picture_hash  # here, since no transaction should wait for it
        if job.revision > 1 and self._seen(job, picture):
            self._end(job, "skipped", "same picture")
        elif self._settings.report.per == "study":
            self._wait(job, outcome)
        else:
            self._report(job, outcome)

    def _seen(self, job: Job, picture: str) -> bool:
        with self._store.database.read() as tx:
            return self._store.jobs.same_picture(tx, job, picture)

    def _wait(self, job: Job, outcome: Outcome) -> None:
        settings = self._settings.report
        with self._store.database.write() as tx:
            self._done(tx, job, outcome)
            self._store.studies.wait(tx, job, settings.quiet_seconds, settings.limit_seconds)
        self._show_shadow(job, outcome)

    def _show_shadow(self, job: Job, outcome: Outcome) -> None:
        if self._shadow is not None:
            self._shadow.see(job, outcome)

    def _report(self, job: Job, outcome: Outcome) -> None:
        occasion = self._outgoing.occasion(job.sop_instance, [job])
        began = time.monotonic()
        try:
            images = [(job.content_hash, outcome)]
            results = self._pipeline.report(images, self._outgoing.wanted, occasion)
        except report.InvalidResult as e:
            reason = f"the result did not pass its check: {e}"
            with self._store.database.write() as tx:
                self._store.jobs.finish(tx, job.id, self._owner, "parked", reason=reason, model=self._model)
                self._store.results.quarantined(tx, job, str(e))
            return
        except Exception as e:
            self._end(job, "parked", tell_fault("a report could not be written", e))
            return
        self._keep(job, "done", outcome, occasion.revision, results, render_seconds=time.monotonic() - began)

    def _keep(
        self,
        job: Job,
        state: str,
        outcome: Outcome,
        revision: int,
        results: Sequence[report.Result],
        fault: str = "",
        render_seconds: float = 0.0,
    ) -> None:
        """T3: the job's end, and the report that is made of it; whoever delivers it is told at once."""
        began = time.monotonic()
        try:
            with self._outgoing.kept(results) as made, self._store.database.write() as tx:
                if state == "done":
                    self._done(tx, job, outcome, render=render_seconds, keep=time.monotonic() - began)
                else:
                    self._store.jobs.finish(
                        tx,
                        job.id,
                        self._owner,
                        state,
                        reason=outcome.reason,
                        model=self._model,
                        detail=outcome.looks,
                    )
                if fault:
                    self._store.results.quarantined(tx, job, fault)
                if made or state == "done":
                    self._store.results.add(tx, job, revision, made)
        except Unavailable as e:
            with self._store.database.write() as tx:
                self._store.jobs.failed(tx, job.id, self._owner, str(e))
        else:
            if made:
                self._tell_deliverer()
            if state == "done":
                self._show_shadow(job, outcome)

    def _done(self, tx: Connection, job: Job, outcome: Outcome, **seconds: float) -> None:
        """`seconds`: what each step behind the prediction took."""
        self._store.jobs.finish(
            tx,
            job.id,
            self._owner,
            "done",
            found=outcome.findings,
            model=self._model,
            picture_hash=outcome.picture_hash,
            detail={
                **self._model_detail(outcome),
                **outcome.looks,
                "ms": {**outcome.milliseconds, **{step: round(1000 * s) for step, s in seconds.items()}},
            },
        )

    def _model_detail(self, outcome: Outcome) -> dict[str, object]:
        card = self._pipeline.card
        present = [finding.label for finding in outcome.findings if finding.present]
        scores = {each.label: [round(each.score, 4), each.threshold] for each in outcome.findings}
        return {
            "model": card.name,
            "version": card.version,
            "sha256": card.sha256,
            "over_threshold": present,
            "scores": scores,
        }


def main() -> None:
    child = start()
    # before it is loaded: an activation meanwhile is noticed
    loaded = active.mark(child.settings)
    try:
        beside = shadow.card_of(child.settings)
        pipeline = Pipeline.open(child.settings, [beside] if beside else [], child.settings.cache_folder)
    except BadModel as e:
        log.get().error("the model can't be loaded", reason=str(e))
        sys.exit(NO_MODEL_EXIT)
    try:
        run(child, pipeline, loaded)
    finally:
        pipeline.close()
    if not child.stopping.is_set():
        sys.exit(NEW_MODEL_EXIT)


def run(child: Child, pipeline: Pipeline, loaded: object) -> None:
    """Reads the queue until asked to stop, or until another model is active than the one with the mark `loaded`; a
    database or disk in trouble is waited for."""
    settings, data_dir = child.settings, child.settings.node.data_dir
    store = Store.open(data_dir, keeps_names=settings.audit.keeps_names)
    second = Shadow.beside(store, settings, child.owner, pipeline)
    worker = Worker(store, pipeline, settings, child.owner, second)
    wakeup = Wakeup(data_dir, "worker")
    _tell_ready(child, pipeline)
    while not child.stopping.is_set() and active.mark(settings) == loaded:
        try:
            if worker.waits_for_more():
                wakeup.wait(0.05, child.stop_fd)
            elif not worker.take():
                if second is not None and second.waits:
                    second.look()
                else:
                    wakeup.wait(POLL_SECONDS, child.stop_fd)
        except Unavailable as e:
            log.get().error("waiting for the disk or the database", reason=str(e))
            child.stopping.wait(POLL_SECONDS)
    wakeup.close()
    store.close()


def _tell_ready(child: Child, pipeline: Pipeline) -> None:
    runtime, note = pipeline.classifier.runtime, pipeline.classifier.note
    child.ready(f"ready {runtime}")
    told = {"note": note} if note else {}
    log.get().info("ready", model=pipeline.card.name, version=pipeline.card.version, runtime=runtime, **told)
    if child.settings.scope.asks_guard and not is_guarded(child.settings):
        log.get().warning(UNGUARDED)


if __name__ == "__main__":
    main()
