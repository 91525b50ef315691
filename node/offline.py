"""`hilum analyze`: the same path without a network or a database; nothing is recorded.

A file is walked as a received object would be, then read by the worker's own pipeline. Each file is reported alone,
whatever `[report] per` says: nobody knows here what else belongs to its study, or what was found before.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from model.card import Card
from model.classifier import Finding
from model.files import is_picture
from model.stored_only import stored_only
from node import report
from node.analyze.pipeline import Occasion, Outcome, Pipeline, tell_fault, wanted_results
from node.errors import Refused
from node.receive.part10 import FileWalk, walk_file
from node.receive.walk import Limits
from node.settings import Settings
from node.wire import contexts


@dataclass(frozen=True)
class Analyzed:
    """One file's outcome; `status` is analyzed, skipped or failed."""

    path: Path
    status: str
    reason: str
    card: Card
    sop_instance: str = ""
    findings: list[Finding] = field(default_factory=list)
    results: list[report.Result] = field(default_factory=list)


def analyze(
    settings: Settings, paths: Sequence[Path], *, view: str = "PA", age: int = 40, reports: bool = False
) -> Iterator[Analyzed]:
    """One outcome a file, in order; with `reports` the result objects too. Raises BadModel.

    `view` and `age` are what a PNG or JPEG is assumed to be: its file does not say.
    """
    pipeline = Pipeline.open(settings)
    try:
        size = settings.analyze.batch_size
        for at in range(0, len(paths), size):
            yield from _batch(settings, pipeline, paths[at : at + size], view, age, reports)
    finally:
        pipeline.close()


def _batch(
    settings: Settings, pipeline: Pipeline, paths: Sequence[Path], view: str, age: int, reports: bool
) -> Iterator[Analyzed]:
    walked = [_walk(settings, path) for path in paths]
    whole = [path for path, walk in zip(paths, walked, strict=True) if not isinstance(walk, Outcome)]
    read = iter(pipeline.read(whole, view=view, age=age) if whole else [])
    for path, walk in zip(paths, walked, strict=True):
        outcome = walk if isinstance(walk, Outcome) else next(read)
        yield _told(settings, pipeline, path, walk, outcome, reports)


def _walk(settings: Settings, path: Path) -> FileWalk | Outcome | None:
    """The walked file; None for a PNG or JPEG; or an outcome that is decided already."""
    try:
        if is_picture(path):
            return None
        storage_classes = {*contexts.standard_storage(), *settings.receive.extra_classes}
        walk = walk_file(path, Limits(settings.receive.max_inflated_bytes), storage_classes)
    except OSError as e:
        return Outcome("failed", f"can't be read: {e.strerror}")
    except Refused as e:
        return Outcome("failed", e.reason)
    reason = stored_only(walk.sop_class, walk.header.presentation_intent)
    return Outcome("skipped", reason) if reason else walk


def _told(
    settings: Settings,
    pipeline: Pipeline,
    path: Path,
    walk: FileWalk | Outcome | None,
    outcome: Outcome,
    reports: bool,
) -> Analyzed:
    results: list[report.Result] = []
    sop_instance, content_hash = "", ""
    if isinstance(walk, FileWalk):
        sop_instance, content_hash = walk.sop_instance, walk.content_hash
        if walk.disagreement and outcome.status == "analyzed":
            # who is meant stays unclear: harmless for what is only stored, never for a result
            outcome = Outcome("failed", walk.disagreement)
    elif outcome.ready is not None:
        sop_instance = str(outcome.ready.header.SOPInstanceUID)
        content_hash = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    if reports:
        occasion, wanted = Occasion(datetime.now(UTC)), wanted_results(settings)
        try:
            if outcome.status == "analyzed":
                results = pipeline.report([(content_hash, outcome)], wanted, occasion)
            elif isinstance(walk, FileWalk) and not walk.disagreement:
                results = pipeline.not_analyzed(content_hash, outcome, wanted, occasion)
        except report.InvalidResult as e:
            outcome = Outcome("failed", f"the result did not pass its check: {e}")
        except Exception as e:
            outcome = Outcome("failed", tell_fault("a report could not be written", e))
    return Analyzed(
        path=path,
        status=outcome.status,
        reason=outcome.reason,
        card=pipeline.card,
        sop_instance=sop_instance,
        findings=outcome.findings,
        results=results,
    )
