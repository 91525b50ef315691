"""Shadow mode: a second model reads what the first has read; what it says goes to the audit log and nowhere else.

It reads between the first model's batches, once the worker has nothing else to do, one image at a time: no result waits
for it longer than for one image. What has come by then is held in memory; where that is full, or the worker ends, the
shadow leaves images out, which nobody misses. It is loaded when the first image is there for it.

Whatever is wrong with it (its folder, its files, what it says, a death of the worker while it loads or reads) is told
once, and then there is no shadow until the node starts anew: `run/shadow-failed` holds why.
"""

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from model import card
from model.card import Card
from model.classifier import Finding
from model.errors import BadModel
from model.reader import Reader
from model.runtime import Floats
from node import log
from node.analyze.pipeline import Outcome, Pipeline
from node.new_files import created, finished
from node.settings import Settings
from node.shadow import failed_in, trouble, trying_in
from storage.audit import Actor
from storage.errors import Unavailable
from storage.jobs import Job
from storage.store import Store

MOST_BYTES = 256 * 2**20
"""Of inputs that wait: 400 images at 224 x 224."""


@dataclass(frozen=True)
class _Waiting:
    job: Job
    seen: Floats
    found: Sequence[Finding]


def card_of(settings: Settings) -> Card | None:
    """The shadow's; None where there is none, or where it can't be used, which `beside` tells."""
    if settings.analyze.shadow is None:
        return None
    try:
        return card.load(settings.analyze.shadow)
    except BadModel:
        return None


class Shadow:
    """One second model of one worker, which owns it and calls it from its own thread."""

    def __init__(self, store: Store, settings: Settings, owner: str, first: Card, place: int) -> None:
        """`place`: of its input in `Ready.inputs`."""
        self._store = store
        self._settings = settings
        self._owner = owner
        self._first = first
        self._place = place
        self._data_dir = settings.node.data_dir
        self._trying = trying_in(self._data_dir, owner.partition(":")[0])
        self._reader: Reader | None = None
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0

    @classmethod
    def beside(cls, store: Store, settings: Settings, owner: str, pipeline: Pipeline) -> "Shadow | None":
        """None where none is wanted, where it has failed since the node's start, or is the first model itself."""
        if settings.analyze.shadow is None or trouble(settings.node.data_dir):
            return None
        shadow = cls(store, settings, owner, pipeline.card, len(pipeline.reader.cards))
        if shadow._trying.exists():
            shadow._fail("the worker died while it loaded the shadow or read with it")
            return None
        try:
            wanted = card.load(settings.analyze.shadow)
        except BadModel as e:
            shadow._fail(str(e))
            return None
        if wanted.identity == pipeline.card.identity:
            log.get().warning(
                "the shadow is the model that runs: there is nothing to compare", model=wanted.name
            )
            return None
        return shadow

    @property
    def waits(self) -> bool:
        """Is there an image that it has not read?"""
        return bool(self._waiting)

    def see(self, job: Job, outcome: Outcome) -> None:
        """To be read later; left out where too many wait. Never raises."""
        if outcome.ready is None or len(outcome.ready.inputs) <= self._place or trouble(self._data_dir):
            return
        seen = outcome.ready.inputs[self._place]
        if self._bytes + seen.nbytes <= MOST_BYTES:
            self._waiting.append(_Waiting(job, seen, outcome.findings))
            self._bytes += seen.nbytes

    def look(self) -> None:
        """Reads one image that waits, and records what it says. Raises Unavailable."""
        one = self._waiting.popleft()
        self._bytes -= one.seen.nbytes
        try:
            with self._tried():
                found = self._read(one.seen)
        except Exception as e:
            self._fail(str(e) if isinstance(e, BadModel) else f"it can't read ({type(e).__name__})")
            return
        self._record(one, found)

    def _read(self, seen: Floats) -> list[Finding]:
        if self._reader is None:
            folder = self._settings.analyze.shadow
            assert folder is not None
            analyze = self._settings.analyze
            self._reader = Reader.load(folder, analyze.runtime, self._settings.cache_folder, guards=None)
            log.get().info("the shadow is loaded", model=self._reader.classifier.card.name)
        (said,) = self._reader.look([seen[np.newaxis]])
        return said.findings

    def _record(self, one: _Waiting, found: Sequence[Finding]) -> None:
        assert self._reader is not None
        mine = self._reader.classifier.card
        firsts = {finding.label: finding for finding in one.found}
        shared = [each for each in found if each.label in firsts]
        differs = {each.label: each.present for each in shared if each.present != firsts[each.label].present}
        detail = {
            "job": one.job.id,
            "model": mine.name,
            "version": mine.version,
            "sha256": mine.sha256,
            "scores": _scores(found),
            "first": self._first.sha256,
            "first_scores": _scores([firsts[each.label] for each in shared]),
            "differs": differs,
        }
        with self._store.database.write() as tx:
            about, actor = one.job.about, Actor(self._owner)
            self._store.audit.record(tx, "job.shadowed", about=about, actor=actor, detail=detail)
        log.get().info(
            "the shadow has read",
            job=one.job.id,
            model=mine.name,
            version=mine.version,
            differs=sorted(differs),
        )

    @contextmanager
    def _tried(self) -> Iterator[None]:
        """A note that outlives this process where the shadow ends it."""
        with contextlib.suppress(OSError):
            self._trying.touch(mode=0o600)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._trying.unlink(missing_ok=True)

    def _fail(self, reason: str) -> None:
        """Told by whichever worker is the first; none of them has a shadow any more."""
        self._reader = None
        self._waiting.clear()
        self._bytes = 0
        file = failed_in(self._data_dir)
        try:
            with finished(created(file), file) as out:
                out.write(reason.encode())
        except OSError:
            return
        log.get().error("there is no shadow: the first model goes on without it", reason=reason)
        with contextlib.suppress(Unavailable), self._store.database.write() as tx:
            detail = {"folder": str(self._settings.analyze.shadow), "reason": reason}
            self._store.audit.record(
                tx, "shadow.failed", actor=Actor(self._owner), outcome="failure", detail=detail
            )


def _scores(found: Sequence[Finding]) -> Mapping[str, list[float]]:
    return {each.label: [round(each.score, 4), each.threshold] for each in found}
