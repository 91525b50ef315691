"""What reports on an image and on a study have in common: their occasion, and how their results are put down."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from model.calibrate import calibrated
from model.card import Card
from node import report
from node.analyze.pipeline import Occasion, wanted_results
from node.report.reading import Earlier
from node.settings import Settings
from storage.errors import Unavailable, WrongState
from storage.jobs import Before, Job
from storage.results import Made
from storage.store import Store

TELL_EARLIER = {"text-sr", "pdf"}
"""Kinds of results that show what was found in the patient's earlier images."""
SAME_SCORE = 1e-6


class Outgoing:
    """Results on their way into the outbox."""

    def __init__(self, store: Store, settings: Settings, card: Card) -> None:
        """`card`: of the model whose results they are."""
        self._store = store
        self._card = card
        self.wanted = wanted_results(settings)
        self._tells_earlier = any(writer in TELL_EARLIER for writer, _ in self.wanted)

    def occasion(self, subject: str, images: Sequence[Job]) -> Occasion:
        """The next report on `subject`, made of `images`; dated when the last of them came, so that a second run
        writes the same bytes."""
        with self._store.database.read() as tx:
            revision = self._store.results.next_revision(tx, subject)
            before = self._store.results.predecessors(tx, subject)
            earlier = self._store.jobs.earlier(tx, images) if self._tells_earlier else []
        return Occasion(
            made_at=max(job.created_at for job in images),
            revision=revision,
            predecessors=tuple((sop_class, sop) for _, _, sop_class, sop in before),
            earlier=tuple(
                Earlier(
                    analyzed_at=one.finished_at,
                    study=one.study,
                    findings=tuple((found.label, found.score, found.present) for found in one.found),
                    model=one.model if self._on_same_scale(one) else "",
                )
                for one in earlier
            ),
        )

    def _on_same_scale(self, before: Before) -> bool:
        """Do today's curves make the scores of then of what the network said then?"""
        for each in before.found:
            curve = self._card.calibrations.get(each.label)
            today = float(calibrated(curve, np.array([each.raw]))[0]) if curve else each.raw
            if abs(today - each.score) > SAME_SCORE:
                return False
        return True

    @contextmanager
    def kept(self, results: Sequence[report.Result]) -> Iterator[list[Made]]:
        """The results' files last while the block commits their rows; where that fails they are removed again.

        Raises Unavailable.
        """
        made: list[Made] = []
        try:
            for result in results:
                with self._store.spool.incoming("results", result.suffix) as incoming:
                    incoming.write(result.data)
                    made.append(self._made(result, incoming.keep().name))
            yield made
        except (Unavailable, WrongState):
            for one in made:
                self._store.spool.remove(one.file)
            raise

    def _made(self, result: report.Result, file: str) -> Made:
        return Made(
            writer=result.writer,
            variant=result.variant,
            sop_class=result.sop_class,
            sop_instance=result.sop_instance,
            content_hash=result.content_hash,
            file=file,
            # a report's further images stand behind a `#`
            destinations=self.wanted[result.writer, result.variant.partition("#")[0]],
            notes=result.notes,
        )
