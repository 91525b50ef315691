"""hilum model compare: two models on the same images, by the labels that both and the table have.

    table -> split -> scores of A (kept in a/) and of B (b/) -> images that both could read -> figures on the same draws

Thresholds and calibration are each model's own: compared is what a hospital would see, had it the one or the other.
"""

from pathlib import Path

import numpy as np

from model import card
from model.card import Card
from model.compare import report
from model.compare.judge import judge
from model.errors import BadData
from model.evaluate.draws import RESAMPLES
from model.evaluate.rows import open_shared, rows_of, trained_on
from model.evaluate.scores import Scored, network_of, score
from model.table import Table


def compare(
    a: Path,
    b: Path,
    file: Path,
    images: Path,
    out: Path,
    *,
    split: str = "test",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> str:
    """Compares the models in the folders `a` and `b` on the rows of `split`, and returns a few lines about it.

    Writes into `out`: report.html, report.json, and the scores in a/ and b/, which a second run goes on from; where
    both are one network (other thresholds, another calibration), in a/ alone. Raises BadData for tables and splits that
    can't be used and for models without a label in common, BadModel for such a folder.
    """
    first, second = card.load(a), card.load(b)
    both = [label for label in first.labels if label in second.labels]
    if not both:
        raise BadData(
            f"{a} and {b}: have no label in common; the first has {', '.join(first.labels)}, the second "
            f"{', '.join(second.labels)}"
        )
    table = open_shared(file, images, both)
    table = table.only(rows_of(file, table, split))
    of_a = score(first, table.images, images, out / "a")
    alike = network_of(first) == network_of(second)
    of_b = score(second, table.images, images, out / ("a" if alike else "b"))
    unreadable = of_b.reasons | of_a.reasons
    x, y = _shared(of_a, table), _shared(of_b, table)
    read = ~np.any(np.isnan(x) | np.isnan(y), axis=1)
    if not read.any():
        name, why = next(iter(unreadable.items()))
        raise BadData(f"{images}: none of the images of split {split} could be read; {name}: {why}")

    judged = table.only(read)
    found = judge(
        judged, x[read], y[read], (first.thresholds, second.thresholds), resamples=resamples, seed=seed
    )
    asked = report.Asked(
        cards=(first, second),
        file=file,
        split=split,
        resamples=resamples,
        seed=seed,
        table=judged,
        images=images,
        alike=alike,
        left_out=_left_out(first, second, table),
        unreadable=unreadable,
        trained=(trained_on(first, file, split), trained_on(second, file, split)),
    )
    page = report.page(asked, found).write(out, report.figures(asked, found))
    return report.lines(asked, found, page)


def _shared(scored: Scored, table: Table) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return scored.scores[:, [scored.labels.index(name) for name in table.names]]


def _left_out(first: Card, second: Card, table: Table) -> tuple[str, ...]:
    labels = dict.fromkeys((*first.labels, *second.labels))
    return tuple(label for label in labels if label not in table.names)
