"""The pictures that a guard is fitted to and measured on, as the features that the model's head reads.

From the shared data: the X-rays of adults (right), wrong ones made from some of them, children, films of other
hospitals, and what the DICOM corpus has besides chests. From a folder of one's own, which nobody ships: whatever its
`pictures.csv` names, to be judged only.

Which X-rays are turned, inverted or cropped follows from a hash of their names.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import pixels
from model import table as tables
from model.card import Card
from model.errors import BadData, ModelError
from model.files import is_picture
from model.guard import CHILD, Floats
from model.network import Weights
from model.pixels import Image
from model.table import Table
from model.table.table import fold_of
from model.train import linear
from model.train import wrong_pictures as wrong
from model.train.finish import blank_card
from model.train.recipe import Recipe

RIGHT, CHANGED, OLDER = "right", "right, changed", "child, 11 to 17 years"
"""Kinds of pictures beside those made: as they are; changed within what departments do; children of more than
OLDEST_CHILD years, of whom the age is learnt and nothing expected."""
NEVER_SHOWN = -1
"""The fold of pictures that no guard was fitted to."""
OLDEST_CHILD = 10
"""Years."""
SEED = 0
MADE = {
    ("rotated", "turned left"): (wrong.turned_left, 200),
    ("rotated", "on its head"): (wrong.on_its_head, 200),
    ("rotated", "turned right"): (wrong.turned_right, 200),
    ("inverted", "inverted"): (wrong.inverted, 250),
    ("cropped", "cropped"): (wrong.cropped, 350),
    (CHANGED, "collimated"): (wrong.collimated, 150),
    (CHANGED, "rewindowed"): (wrong.rewindowed, 250),
    ("cropped", "cropped and rewindowed"): (wrong.cropped_and_rewindowed, 150),
}
"""Kind and way -> how it is made, and of how many X-rays."""
JUDGED = {
    ("mirrored", "mirrored"): (wrong.mirrored, 100, 0),
    ("cropped a little", "part 0.6"): (lambda image, random: wrong.part(image, 0.6, random), 60, 1000),
    ("cropped a little", "part 0.75"): (lambda image, random: wrong.part(image, 0.75, random), 60, 1000),
}
"""As MADE, and the place of the first; only to see what becomes of them."""
DRAWN = 40
"""Pictures of each way of drawing."""
CORPUS = {
    "syntax/real_canon_dx_pa_12bit_j2k_lossless.dcm": RIGHT,
    "syntax/real_philips_cr_pa_15bit_jls_near.dcm": RIGHT,
    "syntax/real_fuji_cr_pa_10bit_explicit.dcm": RIGHT,
    "syntax/real_fuji_extremity_j2k_lossless.dcm": "other body part",
    "pixels/real_cr_modality_lut.dcm": "other body part",
    "scope/real_mg_overlay_out_of_bounds.dcm": "other body part",
    "scope/real_vet_dog_lateral_thorax.dcm": "lateral chest of a dog",
    "scope/real_ct.dcm": "slice",
    "scope/real_mr.dcm": "slice",
    "broken/real_bad_sequence.dcm": "slice",
    "pixels/real_j2k_pixelrep_mismatch.dcm": "slice",
    "pixels/real_modality_lut_mlut_18.dcm": "test pattern",
    "pixels/real_voi_lut_vlut_04.dcm": "test pattern",
}
"""What the DICOM corpus has: lower leg, dental panoramic, mammogram, and so on."""

Words = NDArray[np.str_]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """n pictures by their features."""

    features: Floats
    """(n, f)"""
    kinds: Words
    """RIGHT, CHANGED, CHILD, OLDER, one of `guard.SHOWN`, or another word, of which nothing is learnt."""
    sets: Words
    """Where they come from, in words."""
    folds: Whole
    """By patient; what is made from a picture is in its fold. NEVER_SHOWN: judged only."""
    ages: Floats
    """Years; NaN where the picture says nothing of ages."""

    def __len__(self) -> int:
        return len(self.features)


def pictures(
    features: Floats, kind: str, set_: str, folds: Whole | int = NEVER_SHOWN, ages: Floats | float = np.nan
) -> Pictures:
    """Pictures of one kind and set."""
    n = len(features)
    return Pictures(
        features,
        np.full(n, kind),
        np.full(n, set_),
        np.broadcast_to(np.asarray(folds, np.int64), n),
        np.broadcast_to(np.asarray(ages, np.float32), n),
    )


def together(parts: Sequence[Pictures]) -> Pictures:
    """One behind the other; parts without pictures are passed over."""
    there = [part for part in parts if len(part)]
    return Pictures(
        np.concatenate([part.features for part in there]),
        np.concatenate([part.kinds for part in there]),
        np.concatenate([part.sets for part in there]),
        np.concatenate([part.folds for part in there]),
        np.concatenate([part.ages for part in there]),
    )


def gather(data: Path, recipe: Recipe, base: Weights, cache: Path, extra: Path | None = None) -> Pictures:
    """All there are. `data`: the shared data folder; `extra`: a folder with `pictures.csv` (file, kind, set).

    Raises BadData where `pictures.csv` lacks a column or names a file that is not there or no picture.
    """
    see = Eye(blank_card(recipe), base, cache)
    table = tables.open_table(data / "xray/labels.csv", data / "xray/images", recipe.labels)
    adults, young = table.only(table.ages >= recipe.min_age), table.only(table.ages < recipe.min_age)
    parts = [pictures(see.table(adults), RIGHT, "NIH", adults.folds, adults.ages)]
    children = pictures(see.table(young), CHILD, "NIH", young.folds, young.ages)
    kinds = np.where(young.ages <= OLDEST_CHILD, CHILD, OLDER)
    parts.append(replace(children, kinds=kinds))
    parts += made(adults, see)
    parts += drawn(see)
    parts += elsewhere(data, see)
    if extra is not None:
        parts += listed(extra, see)
    return together(parts)


class Eye:
    """Pictures -> features, which are kept in the folder `cache` under a hash of the pictures and the weights."""

    def __init__(self, card: Card, base: Weights, cache: Path) -> None:
        self.card, self._base, self._cache = card, base, cache

    def table(self, table: Table) -> Floats:
        return linear.extract(table, self.card, self._base, self._cache)

    def images(self, what: str, images: Callable[[], Iterator[Image]]) -> Floats:
        """(n, features); as `linear.read` says."""

        def pictures() -> Iterator[Floats]:
            return (pixels.prepare(image, self.card) for image in images())

        return linear.read(what, pictures, self.card, self._base, self._cache)


def look(file: Path) -> Image:
    """A PNG, a JPEG or a DICOM file as it is looked at. Raises Unreadable, Undecodable, and OSError."""
    return pixels.read(pixels.wrap(file) if is_picture(file) else pixels.open_dataset(file))


def made(adults: Table, see: Eye) -> list[Pictures]:
    """Wrong ones, and right ones that were changed, each from an X-ray of its own."""
    order = sorted(
        range(len(adults)),
        key=lambda n: hashlib.sha256(f"scope:{adults.images[n].name}".encode()).hexdigest(),
    )
    found, start = [], 0
    for (kind, way), (make, count) in MADE.items():
        found.append(
            _made(adults, see, kind, way, make, [order[(start + n) % len(order)] for n in range(count)])
        )
        start += count
    for (kind, way), (make, count, first) in JUDGED.items():
        found.append(
            _made(adults, see, kind, way, make, [order[(first + n) % len(order)] for n in range(count)])
        )
    return found


def _made(adults: Table, see: Eye, kind: str, way: str, make: wrong.Made, numbers: list[int]) -> Pictures:
    def images() -> Iterator[Image]:
        for number in numbers:
            yield make(look(adults.images[number]), wrong.random_of(SEED, way, number))

    return pictures(see.images(way, images), kind, f"NIH, {way}", adults.folds[numbers])


def drawn(see: Eye) -> list[Pictures]:
    """What is nearly blank, or a pattern."""
    found = []
    for way, draw in wrong.DRAWN.items():

        def images(way: str = way, draw: Callable[[wrong.Random], Image] = draw) -> Iterator[Image]:
            return (draw(wrong.random_of(SEED, way, number)) for number in range(DRAWN))

        found.append(pictures(see.images(way, images), "blank or pattern", f"drawn, {way}"))
    return found


def elsewhere(data: Path, see: Eye) -> list[Pictures]:
    """Chests of other hospitals, RSNA's DICOM files (NIH's patients: judged without their fold), and the corpus."""
    found = []
    for kind, word, set_ in (
        ("adult_covid", RIGHT, "Hannover, bedside"),
        ("paediatric", CHILD, "Guangzhou, 1 to 5 years"),
    ):
        with (data / "xray/external.csv").open(newline="", encoding="utf-8") as file:
            films = [
                data / "xray/external" / row["image"] for row in csv.DictReader(file) if row["kind"] == kind
            ]
        found.append(pictures(_features(see, set_, films), word, set_))
    with (data / "dicom/chest.csv").open(newline="", encoding="utf-8") as file:
        rsna = [row for row in csv.DictReader(file) if row["file"].startswith("rsna")]
    features = _features(see, "RSNA", [data / "dicom/chest" / row["file"] for row in rsna])
    folds = np.array([fold_of(row["patient"]) for row in rsna])
    found.append(pictures(features, "right, as DICOM", "RSNA", folds))
    features = _features(see, "corpus", [data / "dicom/corpus" / name for name in CORPUS])
    corpus = pictures(features, "", "DICOM corpus")
    return [*found, replace(corpus, kinds=np.array(list(CORPUS.values())))]


def listed(folder: Path, see: Eye) -> list[Pictures]:
    """What the folder's `pictures.csv` names: columns file, kind, set; a set is read whole or not at all."""
    sheet = folder / "pictures.csv"
    try:
        with sheet.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise BadData(f"{sheet}: can't be read ({error.strerror})") from error
    for column in ("file", "kind", "set"):
        if not rows or column not in rows[0]:
            raise BadData(f"{sheet}: column {column} is missing")
    found = []
    for kind, set_ in dict.fromkeys((row["kind"], row["set"]) for row in rows):
        files = [folder / row["file"] for row in rows if (row["kind"], row["set"]) == (kind, set_)]
        found.append(pictures(_features(see, set_, files), kind, set_))
    return found


def _features(see: Eye, what: str, files: Sequence[Path]) -> Floats:
    def images() -> Iterator[Image]:
        for file in files:
            try:
                yield look(file)
            except (ModelError, OSError) as error:
                raise BadData(f"{file}: {error}") from error

    return see.images(what, images)
