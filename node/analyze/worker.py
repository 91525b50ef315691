"""The worker: claims a batch, reads it, finishes each job in a transaction of its own (T2, T3 of docs/architecture.md).

The only process that loads the model. What it had claimed when it died is tried again, alone (`storage.jobs`).
"""

import sys
import time
from collections.abc import Sequence

from model.errors import BadModel
from node import log, report
from node.analyze.pipeline import DECODER_SECONDS, Occasion, Outcome, Pipeline, tell_fault, wanted_results
from node.child import NO_MODEL_EXIT, Child, start
from node.settings import Settings
from node.wakeup import Wakeup, notify
from storage.errors import Unavailable, WrongState
from storage.jobs import Job
from storage.results import Made
from storage.store import Store

# for prediction and reports; beside it each image of the batch may run into the decoders' limit
LEASE_SECONDS = 360.0
POLL_SECONDS = 2.0


class Worker:
    """One queue reader over one pipeline."""

    def __init__(self, store: Store, pipeline: Pipeline, settings: Settings, owner: str) -> None:
        self._store = store
        self._pipeline = pipeline
        self._settings = settings
        self._owner = owner
        self._wanted = wanted_results(settings)

    def take(self) -> int:
        """Claims and finishes one batch; how many jobs it was. Raises Unavailable."""
        if self._store.spool.free_bytes() < self._settings.receive.min_free_bytes:
            return 0
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
        notify(self._store.spool.root, "deliverer")
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
                self._end(job, "skipped", outcome.reason)
            case Outcome(status="failed", trouble="io"):
                with self._store.database.write() as tx:
                    self._store.jobs.failed(tx, job.id, self._owner, outcome.reason)
            case Outcome(status="failed"):
                self._end(job, "parked", outcome.reason)
            case _:
                self._report(job, outcome)

    def _end(self, job: Job, state: str, reason: str) -> None:
        with self._store.database.write() as tx:
            self._store.jobs.finish(tx, job.id, self._owner, state, reason=reason)

    def _report(self, job: Job, outcome: Outcome) -> None:
        made_before = self._store.results
        with self._store.database.read() as tx:
            seen = job.revision > 1 and self._store.jobs.same_picture(tx, job, outcome.picture_hash)
            revision = made_before.next_revision(tx, job.sop_instance)
            earlier = made_before.predecessors(tx, job.sop_instance)
        if seen:
            self._end(job, "skipped", "same picture")
            return
        predecessors = tuple((sop_class, sop) for _, _, sop_class, sop in earlier)
        occasion = Occasion(job.content_hash, job.created_at, revision, predecessors)
        try:
            results = self._pipeline.report(outcome, list(self._wanted), occasion)
        except report.InvalidResult as e:
            reason = f"the result did not pass its check: {e}"
            with self._store.database.write() as tx:
                self._store.jobs.finish(tx, job.id, self._owner, "parked", reason=reason)
                self._store.results.quarantined(tx, job, str(e))
            return
        except Exception as e:
            self._end(job, "parked", tell_fault("a report could not be written", e))
            return
        self._keep(job, outcome, revision, results)

    def _keep(self, job: Job, outcome: Outcome, revision: int, results: list[report.Result]) -> None:
        made: list[Made] = []
        try:
            for result in results:
                with self._store.spool.incoming("results") as incoming:
                    incoming.write(result.data)
                    file = incoming.keep()
                made.append(
                    Made(
                        writer=result.writer,
                        variant=result.variant,
                        sop_class=result.sop_class,
                        sop_instance=result.sop_instance,
                        content_hash=result.content_hash,
                        file=file.name,
                        destinations=self._wanted[result.writer, result.variant],
                        notes=result.notes,
                    )
                )
            with self._store.database.write() as tx:
                self._store.jobs.finish(
                    tx,
                    job.id,
                    self._owner,
                    "done",
                    found=outcome.findings,
                    model=self._pipeline.card.sha256,
                    picture_hash=outcome.picture_hash,
                    detail=self._model_detail(outcome),
                )
                self._store.results.add(tx, job, revision, made)
        except (Unavailable, WrongState) as e:
            for one in made:
                self._store.spool.remove(one.file)
            if isinstance(e, WrongState):
                raise
            with self._store.database.write() as tx:
                self._store.jobs.failed(tx, job.id, self._owner, str(e))

    def _model_detail(self, outcome: Outcome) -> dict[str, object]:
        card = self._pipeline.card
        present = [finding.label for finding in outcome.findings if finding.present]
        return {"model": card.name, "version": card.version, "sha256": card.sha256, "over_threshold": present}


def main() -> None:
    child = start()
    try:
        pipeline = Pipeline.open(child.settings)
    except BadModel as e:
        log.get().error("the model can't be loaded", reason=str(e))
        sys.exit(NO_MODEL_EXIT)
    try:
        run(child, pipeline)
    finally:
        pipeline.close()


def run(child: Child, pipeline: Pipeline) -> None:
    """Reads the queue until asked to stop; a database or disk in trouble is waited for."""
    data_dir = child.settings.node.data_dir
    store = Store.open(data_dir)
    worker = Worker(store, pipeline, child.settings, child.owner)
    wakeup = Wakeup(data_dir, "worker")
    child.ready()
    log.get().info("ready", model=pipeline.card.name, version=pipeline.card.version)
    while not child.stopping.is_set():
        try:
            if worker.waits_for_more():
                wakeup.wait(0.05, child.stop_fd)
            elif not worker.take():
                wakeup.wait(POLL_SECONDS, child.stop_fd)
        except Unavailable as e:
            log.get().error("waiting for the disk or the database", reason=str(e))
            child.stopping.wait(POLL_SECONDS)
    wakeup.close()
    store.close()


if __name__ == "__main__":
    main()
