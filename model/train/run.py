"""hilum model train: a table, images and a recipe -> a run folder with a model in it.

    RUN/run.json                     what the run is of: recipe, seed, hashes of table and weights, versions, backend
    RUN/checkpoints/                 last.npz and best.npz; a run that was killed goes on from the last
    RUN/cache/                       what frozen layers say, unless --cache names another folder; may be deleted
    RUN/history.csv                  a row an epoch
    RUN/tensorboard/                 the same for TensorBoard
    RUN/model/                       weights.npz and card.toml, for `hilum model evaluate` and the node
    RUN/report.html, report.json     curves, figures, what was left out

Run again with the same arguments in the same folder it goes on where it stopped, and ends with the same model.
"""

import csv
import hashlib
import io
import json
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from model import network
from model.alone import alone
from model.errors import BadData
from model.network import Weights
from model.page import replace
from model.table import Table, open_table
from model.train import checkpoint, tuned
from model.train.checkpoint import State
from model.train.events import write_events
from model.train.finish import blank_card, finish
from model.train.loop import Run, flat, train_on
from model.train.measure import counting
from model.train.pictures import Pictures
from model.train.recipe import Recipe, parse, recipe_file, text_of

RUN, HISTORY, LOCK = "run.json", "history.csv", "run.lock"
NEEDED = ("jinja2", "matplotlib", "sklearn", "tensorboard")
"""What the extra `train` brings."""
MATTERS = {
    "recipe": "another recipe",
    "seed": "another --seed",
    "table": "another table",
    "weights": "other --weights",
    "backend": "another --backend",
}
"""What may not change while a run goes on."""


def train(
    table: Path,
    images: Path,
    out: Path,
    *,
    recipe: str = "hilum",
    weights: Path | None = None,
    backend: str = "tensorflow",
    cache: Path | None = None,
    seed: int = 0,
) -> str:
    """Trains, or goes on training, in the folder `out`; returns what to tell the person at the end.

    `recipe`: a shipped one's name or a file; `weights`: VGG16's ImageNet weights, None for Keras's download;
    `backend`: tensorflow, jax or torch, unless this process has imported Keras already; `cache`: where to keep what
    frozen layers say. Raises BadData, BadModel for wrong weights, NotFetched.
    """
    file = recipe_file(recipe)
    text = text_of(file)
    wanted = parse(text, file)
    if seed < 0:
        raise BadData(f"--seed {seed}: must not be negative")
    _check_packages(backend)
    rows = _rows(open_table(table, images, wanted.labels), wanted, table)

    if network.keras(backend).backend.backend() != backend:
        raise BadData(f"--backend {backend}: Keras was imported with another one already")
    base = network.imagenet(weights)
    precision = _set_precision(wanted)
    facts = {
        "recipe": text,
        "seed": seed,
        "table": _hash(table.read_bytes()),
        "weights": _hash(*(name.encode() + base[name].tobytes() for name in sorted(base))),
        "backend": backend,
        "precision": precision,
        "versions": _versions(backend),
    }
    out.mkdir(parents=True, exist_ok=True)
    taken = BadData(
        f"{out}: another training is at work in this folder; wait for it, or choose another --out"
    )
    with alone(out / LOCK, taken):
        return _run(out, rows, wanted, facts, base, seed, cache)


def _run(
    out: Path,
    rows: Table,
    wanted: Recipe,
    facts: dict[str, Any],
    base: Weights,
    seed: int,
    cache: Path | None,
) -> str:
    state = _take_up(out, facts, wanted, base, seed)
    run = Run(
        recipe=wanted,
        seed=seed,
        table=rows,
        pictures=Pictures(rows.images, blank_card(wanted), wanted.augmentation, seed),
        training=np.flatnonzero(rows.splits == "train"),
        validation=np.flatnonzero(rows.splits == "validation"),
        cache=cache or out / "cache",
        checkpoints=out / "checkpoints",
    )
    train_on(run, state, lambda state: _write_down(out, state))
    network.keras().config.set_dtype_policy("float32")
    return finish(run, state, out, facts)


def _check_packages(backend: str) -> None:
    for package in NEEDED:
        if not find_spec(package):
            raise BadData(f"training needs {package}, which is not installed: pip install 'hilum[train]'")
    if not find_spec(backend):
        raise BadData(f"--backend {backend}: {backend} is not installed: pip install {backend}")


def _rows(table: Table, recipe: Recipe, file: Path) -> Table:
    """The rows that train or validate. Raises BadData where there are none, or nothing can be learnt from them."""
    from model.data.split import check_no_leak

    check_no_leak(table)
    old_enough = ~(table.ages < recipe.min_age)
    for split in ("train", "validation"):
        if not ((table.splits == split) & old_enough).any():
            raise BadData(
                f"{file}: column split: no row of {recipe.min_age} years or more says {split!r}; "
                "make splits with `hilum model data split`"
            )
    rows = table.only(np.isin(table.splits, ("train", "validation")) & old_enough)
    training, validation = rows.labels[rows.splits == "train"], rows.labels[rows.splits == "validation"]
    for label, learnable in zip(recipe.labels, counting(training, 1), strict=True):
        if not learnable:
            raise BadData(
                f"{file}: column {label!r}: the training images lack either 1 or 0, so that nothing can be learnt; "
                "take it out of the recipe's labels"
            )
    least = recipe.thresholds.least
    if not counting(validation, least).any():
        raise BadData(
            f"{file}: no label has {least} positive and {least} negative validation images (thresholds.least in the "
            "recipe), so that no epoch can be called the best"
        )
    print(
        f"{len(training)} images train, {len(validation)} validate; {int((~old_enough).sum())} of patients under "
        f"{recipe.min_age} years are left out",
        file=sys.stderr,
    )
    return rows


def _set_precision(recipe: Recipe) -> str:
    """mixed_float16 where the recipe leaves it open and Keras sees a GPU, else float32."""
    keras = network.keras()
    if keras.backend.backend() == "torch":
        gpu = import_module("torch").cuda.is_available()
    else:
        gpu = any(name.lower().startswith("gpu") for name in keras.distribution.list_devices())
    precision = "mixed_float16" if gpu and recipe.training.precision == "auto" else "float32"
    keras.config.set_dtype_policy(precision)
    return precision


def _take_up(out: Path, facts: dict[str, Any], recipe: Recipe, base: Weights, seed: int) -> State:
    """Where the run in `out` stands; a new one where there is none. Raises BadData where it is another run's folder."""
    known = out / RUN
    if known.exists():
        try:
            old = json.loads(known.read_text(encoding="utf-8"))
            changed = [words for key, words in MATTERS.items() if old[key] != facts[key]]
        except (ValueError, KeyError, TypeError) as error:
            raise BadData(f"{known}: is no description of a run; choose another --out") from error
        if changed:
            raise BadData(f"{out}: holds a run with {', '.join(changed)}; choose another --out")
        state = checkpoint.load(out / "checkpoints")
        if state:
            print(f"{out}: goes on after epoch {state.total}", file=sys.stderr)
            return state
    replace(known, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return State(weights=base | tuned.first_weights(recipe, seed))


def _write_down(out: Path, state: State) -> None:
    """The history so far, for people and for TensorBoard; from the checkpoint's own, so that they never disagree."""
    rows = [{"epoch": row["epoch"], "stage": row["stage"], **flat(row)} for row in state.history]
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({key: "" if value != value else value for key, value in row.items()})
    replace(out / HISTORY, text.getvalue())
    write_events(out / "tensorboard", state.total, flat(state.history[-1]))


def _versions(backend: str) -> dict[str, str]:
    names = ("hilum", "keras", backend, "numpy", "pillow")
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # TensorFlow has several names
            found[name] = str(getattr(import_module(name), "__version__", "unknown"))
    return found


def _hash(*parts: bytes) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return f"sha256:{hashed.hexdigest()}"
