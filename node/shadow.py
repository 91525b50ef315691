"""Shadow mode from outside: why there is no shadow, and `hilum model shadow`, how a second model's decisions compare.

What it reads is the audit log's `job.shadowed` (node/analyze/shadow.py writes it), and nothing of a patient. Light: the
supervisor and `hilum status` ask here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node import show
from storage.audit import Filter, Record, pages
from storage.store import Store


def failed_in(data_dir: Path) -> Path:
    """Holds why there is no shadow since the node's start."""
    return data_dir / "run" / "shadow-failed"


def trying_in(data_dir: Path, worker: str) -> Path:
    """There while a worker loads its shadow or reads with it."""
    return data_dir / "run" / f"shadow-trying-{worker}"


def trouble(data_dir: Path) -> str:
    """Empty where nothing is wrong with the shadow, as far as is known."""
    try:
        return failed_in(data_dir).read_text(encoding="utf-8")
    except OSError:
        return ""


def forget_trouble(data_dir: Path) -> None:
    """At a start of the node, before any worker runs."""
    for left in (data_dir / "run").glob("shadow-*"):
        left.unlink(missing_ok=True)


@dataclass
class Label:
    """How two models decide on one finding. `difference`: of the second's score less the first's, summed."""

    images: int = 0
    only_first: int = 0
    only_second: int = 0
    difference: float = 0.0

    @property
    def agree(self) -> int:
        return self.images - self.only_first - self.only_second


@dataclass
class Comparison:
    """All images that one pair of models read with the same thresholds; `since` and `until` are stamps."""

    model: str
    version: str
    sha256: str
    first: str
    since: str
    until: str = ""
    images: int = 0
    same: int = 0
    """Images on whose findings they agree one and all."""
    labels: dict[str, Label] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        detail = record.detail
        differs = detail["differs"]
        self.until = record.time
        self.images += 1
        self.same += not differs
        for label, (score, _) in detail["first_scores"].items():
            found = self.labels.setdefault(label, Label())
            found.images += 1
            found.difference += detail["scores"][label][0] - score
            if label in differs:
                found.only_second += bool(differs[label])
                found.only_first += not differs[label]

    def as_json(self) -> dict[str, Any]:
        labels = {
            label: {
                "images": found.images,
                "agree": found.agree,
                "only_first": found.only_first,
                "only_shadow": found.only_second,
                "mean_difference": round(found.difference / found.images, 4),
            }
            for label, found in self.labels.items()
        }
        return {**vars(self), "labels": labels}


def compared(records: Iterable[Record]) -> list[Comparison]:
    """One for each pair of models that read images together, the oldest first; other thresholds are another pair."""
    found: dict[object, Comparison] = {}
    for record in records:
        detail = record.detail
        thresholds = [
            tuple((label, threshold) for label, (_, threshold) in detail[part].items())
            for part in ("scores", "first_scores")
        ]
        named = (detail["model"], detail["version"], detail["sha256"], detail["first"])
        found.setdefault((named, *thresholds), Comparison(*named, since=record.time)).add(record)
    return list(found.values())


def tell(store: Store, *, as_json: bool) -> None:
    """Prints what the log says."""
    found = compared(pages(store.audit, store.database.read, Filter(event="job.shadowed")))
    if as_json:
        show.array(each.as_json() for each in found)
    elif not found:
        print("no image has been read by a shadow: name one as [analyze] shadow, and start the node anew")
    for each in [] if as_json else found:
        _describe(each)


def _describe(of: Comparison) -> None:
    print(f"shadow      {of.model} {of.version} ({of.sha256[:19]}), beside the model {of.first[:19]}")
    print(f"read both   {of.images} images, {of.since} to {of.until}; {of.same} with the same decisions")
    show.table(
        ("finding", "images", "agree", "only the first", "only the shadow", "mean score, shadow less first"),
        (
            (
                label,
                found.images,
                f"{found.agree / found.images:.1%}",
                found.only_first,
                found.only_second,
                f"{found.difference / found.images:+.4f}",
            )
            for label, found in of.labels.items()
        ),
    )
