"""Fits the guard of a model folder (`model.guard`) and measures it: what it stops, and what it costs in right pictures.

Right pictures are the frontal chests of adults that trained the model. Wrong ones are made from them
(`model.train.wrong_pictures`), or chests of children. All else, as photographs and slices, is never fitted to: it
measures what the guard does with what it never saw.

A child is told by the age that a regression reads from the picture: that carried over to another hospital's children
where telling children from adults did not. The limit of a kind is such that a part (LOST) of right ones is lost, or
higher, where it then still stops enough (MEANT) of the wrong pictures that were shown; both by scores from fits without
the picture's patient. What is then measured is measured on patients who took no part in any of that.

scikit-learn and scipy are imported inside functions.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model import network
from model.card_text import Tree
from model.guard import CHILD, FILE, LEAST, SHOWN, UNLIKE, Doubles, Fitted, Floats
from model.network import Weights
from model.npz import write_arrays
from model.train.exact import Rows
from model.train.recipe import Recipe
from model.train.scope_pictures import CHANGED, NEVER_SHOWN, RIGHT, Pictures, gather

SPACE = 400
"""Directions of right pictures in which the regressions see a picture."""
DIRECTIONS = 64
"""Those of them in which the distance is measured. With a limit above every right picture it stopped all drawn
pictures and 96 to 100 % of each set of photographs, and 3 % of another hospital's films; a distance in all of SPACE, or
what lies outside of these directions, told simulated lateral chests less well."""
FLAT = 0.02
"""Of the median feature's spread, added to each."""
STRENGTH = 1e-2
"""scikit-learn's C of the logistic regressions. A tenth of it lost twice as many films of another hospital."""
ROUNDS = 300
GROWN = 50.0
"""Years from which on the regression of the age tells no difference."""
PENALTY = 300.0
"""Of the regression of the age. With 36 settings of it, GROWN and CHILDREN_COUNT, 89 to 100 % of 28 children were
stopped at a loss of 1 %: hardly a choice."""
CHILDREN_COUNT = 3.0
"""A child's weight in it beside an adult's 1."""

LOST: Mapping[str, float] = {
    "rotated": 0.0015,
    "inverted": 0.0015,
    "cropped": 0.003,
    CHILD: 0.012,
    UNLIKE: 0.0005,
}
"""Kind -> the share of right pictures that its limit may cost at most."""
MEANT: Mapping[str, float] = {"rotated": 0.985, "inverted": 0.985, "cropped": 0.96}
"""Kind -> the share of the pictures shown that its limit still stops, where that costs less. With 0.985 of the cropped
ones, twice as many films of another hospital were lost."""
OUT_OF_REACH = 1e6
"""The limit of a kind that was not shown."""
STEPS = 4.0
"""From the median right picture up to a limit: its strangeness is 0.02."""
NORMAL = 1.959964
"""The normal distribution's 97.5 % point, for 95 % intervals."""


def make(
    data: Path, recipe: Recipe, base: Weights, cache: Path, extra: Path | None = None
) -> tuple[bytes, list[Tree]]:
    """The scope file of a model by `recipe` and the rows of what it was measured to stop; see `gather` for the folders.

    The file is the same with and without `extra`, whose pictures are judged only.
    """
    given = gather(data, recipe, base, cache, extra)
    widths = [network.width_of(pool) for pool in recipe.network.pools]
    rows = cross_validate(given, widths)
    with tempfile.TemporaryDirectory() as folder:
        write(fit(given, widths), Path(folder) / FILE)
        return (Path(folder) / FILE).read_bytes(), rows


def fit(given: Pictures, widths: Sequence[int]) -> Fitted:
    """The guard of all pictures with a fold. `widths`: of the pools' parts of the features; each part counts alike."""
    return _Fits(given, widths).fitted()


def write(fitted: Fitted, path: Path) -> None:
    """Writes a scope file. The same guard gives the same bytes."""
    arrays = {name: getattr(fitted, name) for name in Fitted.__dataclass_fields__}
    write_arrays(path, arrays | {"basis": fitted.basis.astype(np.float16)})


def cross_validate(given: Pictures, widths: Sequence[int]) -> list[Tree]:
    """What is stopped of each kind and set, by guards that saw no patient of the picture, limits included.

    NEVER_SHOWN pictures are judged by the guard of all others. Then each kind once more, by guards that were not shown
    that kind.
    """
    fits = _Fits(given, widths)
    rows = rows_of(given, fits.excess(SHOWN), np.ones(len(given), np.bool_))
    for kind in SHOWN:
        theirs = (given.kinds == kind) & (given.folds != NEVER_SHOWN)
        if theirs.any():
            others = tuple(other for other in SHOWN if other != kind)
            rows += rows_of(given, fits.excess(others), theirs, f"not shown {kind}")
    return rows


def rows_of(given: Pictures, excess: Doubles, asked: Rows, how: str = "") -> list[Tree]:
    """A row for each kind and set among the rows of `asked`: how many are stopped, with Wilson's interval."""
    found: list[Tree] = []
    for kind, set_ in dict.fromkeys(
        zip(given.kinds[asked].tolist(), given.sets[asked].tolist(), strict=True)
    ):
        here = asked & (given.kinds == kind) & (given.sets == set_)
        stopped, images = int((excess[here].max(axis=1) >= 0).sum()), int(here.sum())
        low, high = wilson(stopped, images)
        by_folds = (given.folds[here] != NEVER_SHOWN).all()
        found.append(
            {
                "kind": kind,
                "set": set_,
                "images": images,
                "stopped": stopped,
                "share": round(stopped / images, 4),
                "low": round(low, 4),
                "high": round(high, 4),
                "fitted_on": how or ("the other folds of patients" if by_folds else "nothing of this set"),
            }
        )
    return found


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share, z = hits / of, NORMAL**2 / of
    middle, half = share + z / 2, NORMAL * np.sqrt(share * (1 - share) / of + z / (4 * of))
    return max(0.0, float((middle - half) / (1 + z))), min(1.0, float((middle + half) / (1 + z)))


@dataclass(frozen=True)
class _Space:
    """Where pictures are seen, by right ones of some folds: p = (x - center) * scale @ basis."""

    center: Floats
    scale: Floats
    basis: Floats
    """(f, SPACE), orthonormal, the widest direction first."""
    spreads: Floats
    """(SPACE,) of right pictures."""
    places: Floats
    """(n, SPACE) of all pictures given."""

    @property
    def unit(self) -> float:
        """What the regressions call 1."""
        return float(np.sqrt((self.spreads**2).mean()))


class _Fits:
    """Guards of all pictures but those of some folds, and what they say of all pictures."""

    def __init__(self, given: Pictures, widths: Sequence[int]) -> None:
        self._given = given
        self._weights = np.concatenate([np.full(w, 1 / np.sqrt(w * len(widths))) for w in widths])
        self._spaces: dict[frozenset[int], _Space] = {}
        self._solved: dict[tuple[frozenset[int], tuple[str, ...]], tuple[Doubles, Doubles]] = {}
        self._numbers = [int(fold) for fold in np.unique(given.folds) if fold != NEVER_SHOWN]

    def fitted(self) -> Fitted:
        nobody: frozenset[int] = frozenset()
        space = self._space(nobody)
        kernel, bias = self._regressions(nobody, SHOWN)
        limits, paces = self._limits(nobody, SHOWN)
        return Fitted(
            center=space.center,
            scale=space.scale,
            basis=(space.basis / space.spreads)[:, :DIRECTIONS],
            kernel=(space.basis @ kernel.astype(np.float32)).astype(np.float32),
            bias=bias.astype(np.float32),
            limits=limits.astype(np.float32),
            steps=paces.astype(np.float32),
        )

    def excess(self, shown: tuple[str, ...]) -> Doubles:
        """(n, k + 1): each picture's, by the guard without its fold, whose limits are from the other folds as well."""
        found = np.full((len(self._given), len(SHOWN) + 1), np.nan)
        for fold in (NEVER_SHOWN, *self._numbers):
            here = self._given.folds == fold
            out = frozenset({fold}) - {NEVER_SHOWN}
            if here.any():
                limits, paces = self._limits(out, shown)
                found[here] = (self._scores(out, shown, here) - limits) / paces
        return found

    def _limits(self, out: frozenset[int], shown: tuple[str, ...]) -> tuple[Doubles, Doubles]:
        """Limits and steps (k + 1,), by scores of the folds that are not `out`, each by a fit without it."""
        folds, kinds = self._given.folds, self._given.kinds
        scores = np.full((len(folds), len(SHOWN) + 1), np.nan)
        for fold in self._numbers:
            here = folds == fold
            if fold not in out:
                scores[here] = self._scores(out | {fold}, shown, here)
        known = ~np.isnan(scores).any(axis=1)
        right = scores[known & (kinds == RIGHT)]
        limits = np.full(len(SHOWN) + 1, OUT_OF_REACH)
        for column, kind in enumerate((*SHOWN, UNLIKE)):
            if kind == UNLIKE or (kind in shown and self._learnt(out, kind)):
                limits[column] = np.quantile(right[:, column], 1 - LOST[kind])
                wrong = scores[known & (kinds == kind), column]
                if kind in MEANT and len(wrong):
                    limits[column] = max(limits[column], np.quantile(wrong, 1 - MEANT[kind]))
        return limits, np.maximum((limits - np.median(right, axis=0)) / STEPS, LEAST)

    def _scores(self, out: frozenset[int], shown: tuple[str, ...], rows: Rows) -> Doubles:
        space = self._space(out)
        places = space.places[rows].astype(np.float64)
        kernel, bias = self._regressions(out, shown)
        far = np.log(((places / space.spreads)[:, :DIRECTIONS] ** 2).sum(axis=1) + LEAST)
        return np.column_stack([places @ kernel + bias, far])

    def _space(self, out: frozenset[int]) -> _Space:
        if out not in self._spaces:
            self._spaces[out] = self._spanned(out)
        return self._spaces[out]

    def _spanned(self, out: frozenset[int]) -> _Space:
        """n right pictures span n directions at most: the widest of them."""
        from scipy.linalg import eigh

        right = self._given.features[self._inside(out) & (self._given.kinds == RIGHT)]
        center, spread = right.mean(axis=0), right.std(axis=0)
        scale = (self._weights / (spread + FLAT * np.median(spread) + LEAST)).astype(np.float32)
        scaled = (right - center) * scale
        count = min(SPACE, len(right) - 1)
        values, vectors = eigh(
            (scaled @ scaled.T).astype(np.float64), subset_by_index=[len(right) - count, len(right) - 1]
        )
        lengths = np.sqrt(np.maximum(values[::-1], values[-1] * 1e-6)).astype(np.float32)
        basis = scaled.T @ (vectors[:, ::-1].astype(np.float32) / lengths)
        places = (self._given.features - center) * scale @ basis
        return _Space(center, scale, basis, lengths / np.float32(np.sqrt(len(right))), places)

    def _inside(self, out: frozenset[int]) -> Rows:
        return ~np.isin(self._given.folds, [*out, NEVER_SHOWN])

    def _learnt(self, out: frozenset[int], kind: str) -> bool:
        """Whether there are pictures of the kind to learn it from."""
        return bool((self._inside(out) & (self._given.kinds == kind)).any())

    def _regressions(self, out: frozenset[int], shown: tuple[str, ...]) -> tuple[Doubles, Doubles]:
        """kernel (SPACE, k), bias (k,)."""
        if (out, shown) not in self._solved:
            self._solved[out, shown] = self._solve(out, shown)
        return self._solved[out, shown]

    def _solve(self, out: frozenset[int], shown: tuple[str, ...]) -> tuple[Doubles, Doubles]:
        from sklearn.linear_model import LogisticRegression, Ridge

        space, inside, kinds = self._space(out), self._inside(out), self._given.kinds
        places = space.places.astype(np.float64) / space.unit
        kernel, bias = np.zeros((places.shape[1], len(SHOWN))), np.zeros(len(SHOWN))
        for column, kind in enumerate(SHOWN):
            if kind not in shown or not self._learnt(out, kind):
                continue
            if kind == CHILD:
                told = inside & ~np.isnan(self._given.ages)
                age = np.log(np.clip(self._given.ages[told], 1, GROWN))
                weight = np.where(kinds[told] == RIGHT, 1.0, CHILDREN_COUNT)
                read = Ridge(alpha=PENALTY).fit(places[told], -age, sample_weight=weight)
                kernel[:, column], bias[column] = read.coef_, read.intercept_
                continue
            others = [other for other in shown if other not in (kind, CHILD)]
            lesson = inside & np.isin(kinds, [RIGHT, CHANGED, kind, *others])
            told_apart = LogisticRegression(C=STRENGTH, max_iter=ROUNDS)
            told_apart.fit(places[lesson], kinds[lesson] == kind)
            kernel[:, column], bias[column] = told_apart.coef_[0], told_apart.intercept_[0]
        return kernel / space.unit, bias
