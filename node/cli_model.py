"""hilum model …: the life of a model, from its data to its scores; for the ML engineer.

One function a command, as in node/cli.py. What is heavy is imported inside the functions.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from node.app import Config, Json, new_app, opened
from node.settings import Settings, load

model = new_app("Explore data, prepare it, train a model, judge it, and score images with it.")
data = new_app("Get the images and labels, check and clean them, split them by patient.")
model.add_typer(data, name="data")

Table = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE",
        help="A label file, NIH's Data_Entry_2017*.csv, Kaggle's sample_labels.csv, a CSV beside DICOM files; .gz too.",
    ),
]
Images = Annotated[
    Path, typer.Option("--images", metavar="DIR", help="Where the images lie, in subfolders too.")
]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Where report.html, report.json and all else go.")
]
Seed = Annotated[int, typer.Option(help="Of all that is drawn by chance; the same seed, the same result.")]
Part = Annotated[
    str, typer.Option("--split", metavar="NAME", help="Rows of this split only; `all` for every row.")
]
Runtime = Literal["auto", "tensorflow", "openvino"]


class Backend(StrEnum):
    TENSORFLOW = "tensorflow"
    JAX = "jax"
    TORCH = "torch"


class Validation(StrEnum):
    NATURAL = "natural"
    ONE_TO_THREE = "1:3"


class Training(StrEnum):
    NATURAL = "natural"
    ONE_TO_ONE = "1:1"


@model.command()
def explore(
    table: Table,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Without it nothing is said about pixels.")
    ] = None,
    out: Out = Path("explore"),
    pixels: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Pictures that are opened, drawn by chance; 0: all of them."),
    ] = 2000,
    seed: Seed = 0,
) -> int:
    """Say what is in a data set: ages, views, findings, what goes with what, and what is wrong with it."""
    from model.explore import explore

    print(explore(table, images, out, pixels=pixels, seed=seed))
    return 0


@data.command("fetch")
def data_fetch(
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Archives, images and tables are put there.")
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--source", metavar="FILE", help="A TOML file of addresses, sizes and SHA-256; without it NIH's."
        ),
    ] = None,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives/--remove-archives", help="Once their images are unpacked.")
    ] = True,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="This file of the source; may be repeated."),
    ] = None,
) -> int:
    """Download the NIH ChestX-ray14 set, check it and unpack it. Run again, it goes on where it stopped."""
    from model.data.fetch import fetch

    fetch(to, source, keep_archives=keep_archives, only=only or [])
    return 0


@data.command("rsna")
def data_rsna(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The unpacked RSNA set: DICOM files, labels and detailed classes."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The label file.")] = Path("labels.csv"),
    nih: Annotated[
        Path | None,
        typer.Option(
            "--nih", metavar="FILE", help="RSNA's images in NIH's set (CSV): adds NIH's patient and findings."
        ),
    ] = None,
    nih_table: Annotated[
        Path | None, typer.Option("--nih-table", metavar="FILE", help="NIH's Data_Entry_2017*.csv.")
    ] = None,
) -> int:
    """Read the RSNA Pneumonia Detection Challenge's DICOM set into a label file."""
    from model.data.rsna import rsna

    rsna(folder, out, nih=nih, nih_table=nih_table)
    return 0


@data.command("split")
def data_split(
    table: Table,
    images: Images,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The label file.")] = Path("labels.csv"),
    train_list: Annotated[
        Path | None,
        typer.Option(
            "--train-list", metavar="FILE", help="NIH's train_val_list.txt: its images train or validate."
        ),
    ] = None,
    test_list: Annotated[
        Path | None,
        typer.Option("--test-list", metavar="FILE", help="NIH's test_list.txt: its images are the test."),
    ] = None,
    validation: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the remaining patients that validate.")
    ] = 0.2,
    test: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of the patients that test, where no list says which."),
    ] = 0.2,
    finding: Annotated[
        str, typer.Option(help="The finding that the two rates below are about.")
    ] = "Pneumonia",
    training_rate: Annotated[
        Training, typer.Option(help="1:1 leaves out training images without the finding, by chance.")
    ] = Training.NATURAL,
    validation_rate: Annotated[
        Validation, typer.Option(help="1:3 leaves out validation images without the finding, by chance.")
    ] = Validation.NATURAL,
    min_age: Annotated[int, typer.Option(min=0, help="Images of younger patients are left out.")] = 0,
    seed: Seed = 0,
) -> int:
    """Clean a table and split it by patient: impossible ages, missing files, one column a finding; sizes printed."""
    from model.data.split import split_table

    split_table(
        table,
        images,
        out,
        train_list=train_list,
        test_list=test_list,
        validation=validation,
        test=test,
        finding=finding,
        training_rate=training_rate.value,
        validation_rate=validation_rate.value,
        min_age=min_age,
        seed=seed,
    )
    return 0


@model.command()
def train(
    table: Table,
    images: Images,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="The run: checkpoints, logs, report; the model in model/."),
    ] = Path("run"),
    recipe: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="hilum, udacity, or a recipe of your own (TOML).")
    ] = "hilum",
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="VGG16's ImageNet weights (.npz); without it Keras downloads them."
        ),
    ] = None,
    backend: Annotated[Backend, typer.Option(help="What Keras computes with.")] = Backend.TENSORFLOW,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keeps what frozen layers say; without it it lies in --out."),
    ] = None,
    seed: Seed = 0,
) -> int:
    """Train a model. Killed and run again with the same --out, it goes on from its last checkpoint."""
    from model.train.run import train

    print(
        train(
            table, images, out, recipe=recipe, weights=weights, backend=backend.value, cache=cache, seed=seed
        )
    )
    return 0


@model.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder: card.toml and weights.")],
    table: Table,
    images: Images,
    out: Out = Path("evaluation"),
    split: Part = "test",
    validation: Annotated[
        str,
        typer.Option(metavar="NAME", help="The split by which thresholds are chosen; never the one judged."),
    ] = "validation",
    rule: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Of the thresholds: card (leave them), f1, youden, sensitivity=0.9, specificity=0.95.",
        ),
    ] = "card",
    write_card: Annotated[
        bool, typer.Option("--write-card", help="Put the chosen thresholds and their rule into MODEL's card.")
    ] = False,
    prevalence: Annotated[
        list[float] | None,
        typer.Option(min=0, max=1, metavar="P", help="PPV, NPV and calibration at it too; may be repeated."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Drawings of patients behind each interval.")] = 1000,
    seed: Seed = 0,
) -> int:
    """Judge a model on images it never saw: figures with intervals, subgroups, calibration, floors."""
    from model.evaluate.run import evaluate

    print(
        evaluate(
            folder,
            table,
            images,
            out,
            split=split,
            validation=validation,
            rule=rule,
            write_card=write_card,
            prevalences=prevalence or [],
            resamples=resamples,
            seed=seed,
        )
    )
    return 0


@model.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A model folder: card.toml and weights.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    table: Table,
    images: Images,
    out: Out = Path("comparison"),
    split: Part = "test",
    resamples: Annotated[int, typer.Option(min=0, help="Drawings of patients behind each interval.")] = 1000,
    seed: Seed = 0,
) -> int:
    """Compare two models on the same images: differences with intervals, agreement, where they differ most."""
    from model.compare.run import compare

    print(compare(a, b, table, images, out, split=split, resamples=resamples, seed=seed))
    return 0


@model.command()
def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder; it stays as it is.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The new model folder, which must not exist yet.")
    ],
    version: Annotated[
        str, typer.Option(metavar="NAME", help="Of the new card: people will see other scores.")
    ],
    table: Annotated[
        Path | None,
        typer.Argument(
            metavar="TABLE", help="What to fit on, as for evaluate; without it --prevalence alone is done."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Where TABLE's images lie, in subfolders too."),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Rows of this split only; `all` for every row.")
    ] = "validation",
    method: Annotated[str, typer.Option(metavar="NAME", help="temperature or isotonic.")] = "temperature",
    prevalence: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=P", help='Move scores to this prevalence: "Mass=0.03"; may be repeated.'),
    ] = None,
    report: Annotated[
        Path, typer.Option("--report", metavar="DIR", help="Where report.html, report.json and scores go.")
    ] = Path("calibration"),
    resamples: Annotated[int, typer.Option(min=0, help="Drawings of patients behind each interval.")] = 1000,
    seed: Seed = 0,
) -> int:
    """Make scores shares on your images, or at a stated prevalence: a new model folder, decisions unchanged."""
    from model.errors import BadData
    from model.recalibrate.run import Data, calibrate

    if table and not images:
        raise BadData(f"{table}: say where its images lie, with --images DIR")
    data = Data(table, images, split) if table and images else None
    print(
        calibrate(
            folder,
            out,
            version,
            data=data,
            method=method,
            prevalences=prevalence or [],
            pages=report,
            resamples=resamples,
            seed=seed,
        )
    )
    return 0


@model.command()
def describe(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL", help="A model folder; without it the one that comes with Hilum."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where card.md and description.md, .html, .pdf go.")
    ] = Path("description"),
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="The model's report.json, of `hilum model evaluate`."),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option("--training", metavar="DIR", help="The folder of the run that trained it: its curves."),
    ] = None,
) -> int:
    """Write the model card, and a description in the form of an FDA 510(k): nothing typed, all from what was measured.

    What nobody measured is called not measured, what nobody knows not known. The same files give the same bytes.
    """
    from model.describe.run import describe

    for file in describe(folder, out, report=report, training=training):
        print(file)
    return 0


@model.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="my_model.json (with --weights), an .h5 or .hdf5 model, a .keras file, a SavedModel folder.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The model folder; it must not be there yet.")
    ],
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="The HDF5 file that belongs to a JSON.")
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            metavar="A,B,-", help="What each output says, in their order; - for one that is no finding."
        ),
    ] = "",
    preprocess: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How pictures were prepared in training: vgg16, unit, signed, imagenet-unit, each-picture, raw, or "
            "scale=S,mean=M,spread=D. Asked at a terminal, where each is explained.",
        ),
    ] = "",
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X|LABEL=X", help="From which score on a finding is present; 0.5 without it. Repeatable."
        ),
    ] = None,
    display: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=WORDS", help="What people read for a label. Repeatable."),
    ] = None,
    name: Annotated[str, typer.Option(help="The model's; without it the file's.")] = "",
    version: Annotated[str, typer.Option(help="The model's.")] = "1",
    size: Annotated[
        int | None, typer.Option(metavar="N", help="Side of the input, where the model takes any.")
    ] = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Put a sigmoid behind outputs that are no probabilities.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Up to 32 of these go through the self-check."),
    ] = None,
) -> int:
    """Make a model folder of a network that was trained elsewhere. Nothing in its files is run.

    What a file does not say (labels, preprocessing) is asked for at a terminal.
    """
    from model.imports.run import Asked, import_model

    asked = Asked(
        name=name,
        version=version,
        labels=labels,
        display=tuple(display or ()),
        size=size,
        preprocess=preprocess,
        thresholds=tuple(threshold or ()),
        logits=logits,
        images=images,
    )
    print(import_model(source, out, weights, asked, typer.prompt if sys.stdin.isatty() else None))
    return 0


@model.command()
def predict(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="PNG, JPEG or DICOM; a folder: all that lie in it.")
    ],
    csv: Annotated[Path, typer.Option("--csv", metavar="OUT", help="One row an image.")],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="DIR", help="A model folder; without it the one that comes with Hilum."
        ),
    ] = None,
    scope: Annotated[
        bool, typer.Option("--scope/--no-scope", help="--no-scope scores every image regardless.")
    ] = True,
    view: Annotated[str, typer.Option(help="What a PNG or JPEG shows: its file does not say.")] = "PA",
    age: Annotated[int, typer.Option(min=0, max=130, help="The patient's age in a PNG or JPEG.")] = 40,
    runtime: Annotated[
        Runtime, typer.Option(help="What computes the network: auto is OpenVINO where it helps.")
    ] = "auto",
) -> int:
    """Score images into a CSV: image, a column a label, status (analyzed, skipped, failed), reason.

    Exits 1 if any image failed; the CSV has a row for it all the same.
    """
    from model.predict import predict

    return 0 if predict(paths, csv, folder, scope=scope, view=view, age=age, runtime=runtime) else 1


@model.command()
def shadow(config: Config = None, as_json: Json = False) -> int:
    """Say how often a shadow ([analyze] shadow) decides as the model that runs: for who thinks of activating it.

    Read from the audit log. JSON: one object a pair of models: model, version, sha256, first (the other's sha256),
    since, until, images, same (images with the same decisions), labels (label: images, agree, only_first,
    only_shadow, mean_difference of the scores, shadow less first).
    """
    from node.shadow import tell

    with opened(load(config)) as store:
        tell(store, as_json=as_json)
    return 0


@model.command()
def activate(
    wanted: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A model folder, or `shipped`: the one that comes with Hilum."),
    ],
    config: Config = None,
) -> int:
    """Let the node read with another model, with its thresholds, from the next batch on. Audited.

    The folder is checked, copied into the data folder and run once; where anything is wrong with it, exits 2 and the
    active model stays. A node that runs takes it up by itself; one that is stopped, at its next start.
    """
    from node.activate import activate as activated
    from node.operate import operator

    settings = load(config)
    with opened(settings) as store:
        found = activated(store, settings, wanted, operator())
    print(_active(settings) if found else f"nothing to do: {_active(settings)}")
    return 0


@model.command("active")
def active_model(config: Config = None, as_json: Json = False) -> int:
    """Say which model the node reads with, since when, by whom, and its thresholds. Exits 1 where it can't be used.

    JSON: name, version, sha256, from (configured, activated, shipped), since, by, thresholds; or problem.
    """
    from model import card
    from node import active, show

    settings = load(config)
    found = active.told(settings)
    thresholds = {} if "problem" in found else card.load(active.folder(settings)).thresholds
    if as_json:
        print(show.line({**found, "thresholds": thresholds}))
    else:
        print(_active(settings))
        show.table(("finding", "threshold"), thresholds.items())
    return 1 if "problem" in found else 0


def _active(settings: Settings) -> str:
    from node import active

    return active.sentence(active.told(settings))
