"""hilum model …: the life of a model, from its data to its scores; for the ML engineer.

One function a command, as in node/cli.py. What is heavy is imported inside the functions.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from node.app import new_app

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
        typer.Option(min=0, max=1, metavar="P", help="PPV and NPV at this prevalence too; may be repeated."),
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
) -> int:
    """Score images into a CSV: image, a column a label, status (analyzed, skipped, failed), reason.

    Exits 1 if any image failed; the CSV has a row for it all the same.
    """
    from model.predict import predict

    return 0 if predict(paths, csv, folder, scope=scope, view=view, age=age) else 1
