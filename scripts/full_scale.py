"""The whole path, explore, split, train, evaluate and predict, on a synthetic set of the NIH set's shape and size.

Draws ChestX-ray14 as NIH issues it: Data_Entry_2017.csv with 112,120 rows of 30,805 patients, follow-ups, some
impossible ages, findings that come together, the two official lists, images_001/images/ to images_012/images/. The
pictures are 64 x 64 pixels and show their findings faintly: what is proven is that the commands bear the size, in time
and memory, not that anything can be learnt. The same seed draws the same bytes.

Each step is a process of its own; its CPU time and its peak resident memory are the kernel's (wait4). The figures
are printed as a Markdown table, each row on stderr as soon as its step is done; with --write-docs they go into
docs/model/full-scale.md too.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from model.page import put_between

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/model/full-scale.md"
HILUM = ROOT / ".venv/bin/hilum"

IMAGES, PATIENTS, TEST_IMAGES = 112_120, 30_805, 25_596
"""Of NIH ChestX-ray14 (Data_Entry_2017.csv, test_list.txt)."""
IMPOSSIBLE_AGES = 16
"""Data_Entry_2017.csv has some, up to 411; NIH corrected them in 2020."""
FOLDERS = 12
SIDE = 64
PROCESSES = 2

SHARES = {
    "Atelectasis": 0.103, "Cardiomegaly": 0.025, "Effusion": 0.119, "Infiltration": 0.177, "Mass": 0.052,
    "Nodule": 0.056, "Pneumonia": 0.013, "Pneumothorax": 0.047, "Consolidation": 0.042, "Edema": 0.021,
    "Emphysema": 0.022, "Fibrosis": 0.015, "Pleural_Thickening": 0.030, "Hernia": 0.002,
}  # fmt: skip
"""Share of the NIH set's images with each finding, in its order."""

FLUID = (0.5, 0.3, 0.7, 0.5, 0.1, 0.1, 0.6, 0.1, 0.6, 0.7, 0.0, 0.0, 0.2, 0.0)
CHRONIC = (0.2, 0.1, 0.0, 0.0, 0.3, 0.3, 0.0, 0.5, 0.1, 0.0, 0.7, 0.5, 0.5, 0.1)
PORTABLE = (0.2, 0.0, 0.3, 0.3, 0.0, 0.0, 0.4, 0.2, 0.4, 0.7, 0.0, -0.3, 0.0, -0.2)
"""Two reasons why findings come together, and how much a finding favours AP films; in the order of SHARES."""

Numbers = NDArray[Any]


@dataclass(frozen=True)
class Drawn:
    """n rows, a patient's rows together and in the order of the follow-ups."""

    patients: Numbers
    follow_ups: Numbers
    ages: Numbers
    male: Numbers
    portable: Numbers
    findings: Numbers
    """(n, 14) bool."""
    tests: Numbers
    """On the official test list; all or none of a patient's rows."""

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def names(self) -> list[str]:
        return [f"{p:08d}_{f:03d}.png" for p, f in zip(self.patients, self.follow_ups, strict=True)]


def draw(images: int, seed: int) -> Drawn:
    """The rows of a set of `images` images, in the NIH set's proportions."""
    rng = np.random.default_rng(seed)
    people = max(20, round(images * PATIENTS / IMAGES))
    often = rng.gamma(0.25, 1, people)  # most come once or twice, a few a hundred times
    times = 1 + rng.multinomial(images - people, often / often.sum())
    person = np.repeat(np.arange(people), times)
    follow_ups = np.arange(images) - np.repeat(np.cumsum(times) - times, times)

    first_age = np.clip(rng.normal(47, 17, people), 1, 90)
    ages = np.minimum(np.rint(first_age[person] + 0.15 * follow_ups), 95).astype(int)
    wrong = rng.choice(images, max(1, round(images * IMPOSSIBLE_AGES / IMAGES)), replace=False)
    ages[wrong] = rng.integers(148, 412, len(wrong))

    portable = rng.random(images) < 0.15 + 0.5 * (rng.random(people) < 0.5)[person]
    return Drawn(
        patients=person + 1,
        follow_ups=follow_ups,
        ages=ages,
        male=(rng.random(people) < 0.56)[person],
        portable=portable,
        findings=_findings(rng, person, portable),
        tests=_tests(rng, times, round(images * TEST_IMAGES / IMAGES))[person],
    )


def _findings(rng: np.random.Generator, person: Numbers, portable: Numbers) -> Numbers:
    """Each finding on exactly its share of the images: those with the most of what brings it about."""
    n, people = len(person), int(person[-1]) + 1
    fluid = 0.6 * rng.normal(size=people)[person] + 0.8 * rng.normal(size=n)
    chronic = rng.normal(size=people)[person]
    found = np.zeros((n, len(SHARES)), bool)
    for column, share in enumerate(SHARES.values()):
        leaning = FLUID[column] * fluid + CHRONIC[column] * chronic + PORTABLE[column] * portable
        liable = leaning + 0.5 * rng.normal(size=people)[person] + 0.5 * rng.normal(size=n)
        found[np.argsort(-liable)[: max(1, round(share * n))], column] = True
    return found


def _tests(rng: np.random.Generator, times: Numbers, wanted: int) -> Numbers:
    """Patients whose images together are `wanted`, which those who came once fill up exactly."""
    chosen = np.zeros(len(times), bool)
    for patient in rng.permutation(len(times)):
        if times[patient] <= wanted:
            chosen[patient] = True
            wanted -= times[patient]
    return chosen


def write(drawn: Drawn, folder: Path, seed: int) -> None:
    """The set as it lies on disk after NIH's archives were unpacked."""
    folder.mkdir(parents=True, exist_ok=True)
    names = drawn.names
    with (folder / "Data_Entry_2017.csv").open("w", encoding="utf-8", newline="") as lines:
        lines.write(
            "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
            "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
        )
        table = csv.writer(lines, lineterminator="\n")
        for row, name in enumerate(names):
            said = [finding for finding, there in zip(SHARES, drawn.findings[row], strict=True) if there]
            table.writerow([
                name, "|".join(said) or "No Finding", drawn.follow_ups[row], drawn.patients[row], drawn.ages[row],
                "M" if drawn.male[row] else "F", "AP" if drawn.portable[row] else "PA", 2500, 2048, 0.168, 0.168, "",
            ])  # fmt: skip
    for file, rows in (("train_val_list.txt", ~drawn.tests), ("test_list.txt", drawn.tests)):
        (folder / file).write_text("".join(f"{names[row]}\n" for row in np.flatnonzero(rows)))
    parts = np.array_split(np.arange(len(drawn)), FOLDERS)
    folders = [folder / f"images_{number:03d}" / "images" for number in range(1, FOLDERS + 1)]
    # spawned: nothing that a test has loaded before is taken along
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        each = [([names[row] for row in part], drawn.findings[part], drawn.portable[part]) for part in parts]
        list(pool.map(_pictures, folders, each, repeat(seed)))


def _pictures(folder: Path, rows: tuple[list[str], Numbers, Numbers], seed: int) -> None:
    """One folder's PNG files: a chest of two dark lungs, a faint patch a finding, exposure and noise by chance."""
    folder.mkdir(parents=True, exist_ok=True)
    chest, patches = _anatomy()
    rng = np.random.default_rng([seed, int(folder.parent.name[-3:])])
    for name, findings, portable in zip(*rows, strict=True):
        picture = chest + (findings * rng.uniform(0.03, 0.15, len(findings))) @ patches
        picture = picture * rng.uniform(0.8, 1.1) + (0.06 if portable else 0.0)
        picture += 0.05 * rng.standard_normal(picture.shape, np.float32)
        grey = np.clip(picture.reshape(SIDE, SIDE) * 255, 0, 255).astype(np.uint8)
        Pillow.fromarray(grey).save(folder / name, compress_level=1)


def _anatomy() -> tuple[Numbers, Numbers]:
    """The chest, (SIDE * SIDE,), and a patch for each finding, (14, SIDE * SIDE); 0 black to 1 white."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]

    def spot(across: float, down: float, width: float) -> Numbers:
        return np.exp(-(((x - across) ** 2 + (y - down) ** 2) / width**2)).ravel()

    chest = 0.75 - 0.5 * spot(-0.45, -0.1, 0.4) - 0.5 * spot(0.45, -0.1, 0.4) + 0.15 * spot(0.1, 0.3, 0.3)
    places = np.random.default_rng(14).uniform((-0.7, -0.6, 0.1), (0.7, 0.7, 0.3), (len(SHARES), 3))
    return chest, np.stack([spot(*place) for place in places])


@dataclass(frozen=True)
class Measured:
    step: str
    images: int
    seconds: float
    cpu_seconds: float
    """Of all cores together: what does not grow when others use the machine too."""
    megabytes: float
    """The largest resident set of the step's process or of one that it started."""

    @property
    def row(self) -> str:
        return (
            f"| {self.step} | {self.images:,} | {self.seconds:,.0f} | {self.cpu_seconds:,.0f} | "
            f"{1000 * self.cpu_seconds / self.images:.1f} | {self.megabytes:,.0f} |"
        )


def measure(step: str, images: int, command: Sequence[str]) -> Measured:
    """Runs a command to its end. Ends this program where it fails."""
    print(f"full-scale: {step}: {' '.join(command)}", file=sys.stderr, flush=True)
    started = time.monotonic()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"full-scale: {step} ended with {child.returncode}")
    seconds, cpu_seconds = time.monotonic() - started, usage.ru_utime + usage.ru_stime
    measured = Measured(step, images, seconds, cpu_seconds, usage.ru_maxrss / 1024)
    print(measured.row, file=sys.stderr, flush=True)
    return measured


def path(drawn: Drawn, at: Path, weights: Path | None) -> list[Measured]:
    """All five commands, one after the other, on the set at `at`/nih."""
    nih, images = at / "nih", str(at / "nih")
    hilum, table = [str(HILUM), "model"], str(nih / "Data_Entry_2017.csv")
    labels, run, tests = str(at / "labels.csv"), str(at / "run"), int(drawn.tests.sum())
    last = nih / f"images_{FOLDERS:03d}"
    given = ["--weights", str(weights)] if weights else []
    return [
        measure(
            "`explore`, every picture opened",
            len(drawn),
            [*hilum, "explore", table, "--images", images, "--out", str(at / "explore"), "--pixels", "0"],
        ),
        measure(
            "`data split` by the official lists",
            len(drawn),
            [*hilum, "data", "split", table, "--images", images, "--out", labels,
             "--train-list", str(nih / "train_val_list.txt"), "--test-list", str(nih / "test_list.txt")],
        ),
        measure(
            "`train`, head only, at 32 x 32",
            len(drawn) - tests,
            [*hilum, "train", labels, "--images", images, "--out", run,
             "--recipe", str(ROOT / "scripts/full-scale.toml"), *given],
        ),
        measure(
            "`evaluate` on the test list",
            tests,
            [*hilum, "evaluate", f"{run}/model", labels, "--images", images, "--out", str(at / "evaluation")],
        ),
        measure(
            "`predict` on the last folder",
            sum(1 for _ in last.rglob("*.png")),
            [*hilum, "predict", str(last), "--model", f"{run}/model", "--csv", str(at / "scores.csv"), "--no-scope"],
        ),
    ]  # fmt: skip


def table_of(measured: Sequence[Measured]) -> str:
    head = "| step | images | seconds | CPU seconds | CPU seconds per 1,000 images | peak MB |"
    return "\n".join([head, "|---|---|---|---|---|---|", *(each.row for each in measured)]) + "\n"


def main() -> None:
    ask = argparse.ArgumentParser(
        prog="scripts/full-scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("--images", type=int, default=IMAGES, help="a smaller set in the same proportions")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--folder", type=Path, help="keeps all that is made; an empty or new folder")
    ask.add_argument("--weights", type=Path, help="VGG16's ImageNet weights; without it Keras downloads them")
    ask.add_argument("--write-docs", action="store_true", help=f"the figures into {PAGE.relative_to(ROOT)}")
    given = ask.parse_args()

    with tempfile.TemporaryDirectory(prefix="hilum-full-scale-") as passing:
        at = given.folder or Path(passing)
        if at.exists() and any(at.iterdir()):
            sys.exit(f"full-scale: {at} is not empty: name another --folder")
        started = time.monotonic()
        drawn = draw(given.images, given.seed)
        write(drawn, at / "nih", given.seed)
        print(
            f"full-scale: {len(drawn):,} images drawn in {time.monotonic() - started:.0f} s", file=sys.stderr
        )
        figures = table_of(path(drawn, at, given.weights))
    print(figures)
    if given.write_docs:
        put_between(PAGE, "figures", figures)


if __name__ == "__main__":
    main()
