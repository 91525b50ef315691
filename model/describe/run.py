"""hilum model describe: a model folder -> card.md, and description.md, .html, .pdf."""

from pathlib import Path

from model.card import SHIPPED
from model.describe import html, markdown, pdf, sources
from model.describe.card_page import model_card
from model.describe.changes import changes
from model.describe.closing import closing
from model.describe.databases import databases
from model.describe.design import design
from model.describe.document import Block, Document, Words
from model.describe.general import general
from model.describe.layers import Layers, layers
from model.describe.sources import Sources
from model.describe.trained import trained
from model.describe.validation import validation
from model.errors import BadData

CARD, DESCRIPTION = "card.md", "description"


def describe(
    folder: Path | None, out: Path, *, report: Path | None = None, training: Path | None = None
) -> list[Path]:
    """Writes the four files into `out`, which is made if absent; returns them.

    `folder`: None for the model that comes with Hilum; `report`: an evaluation's report.json; `training`: the folder of
    the run that trained it. All is made before anything is written, and each file is written whole or not at all: the
    same sources give the same bytes. Raises BadModel, BadData.
    """
    given = sources.read(folder or SHIPPED, report, training)
    network = layers(given.card)
    told = description(given, network)
    made = {
        CARD: markdown.write(model_card(given, network)).encode(),
        f"{DESCRIPTION}.md": markdown.write(told).encode(),
        f"{DESCRIPTION}.html": html.write(told).encode(),
        f"{DESCRIPTION}.pdf": pdf.write(told),
    }
    if out.exists() and not out.is_dir():
        raise BadData(f"{out}: is no folder; name another with --out")
    out.mkdir(parents=True, exist_ok=True)
    return [_written(out / name, content) for name, content in made.items()]


def description(given: Sources, network: Layers) -> Document:
    card = given.card
    opening: list[Block] = [
        Words(
            "Made by a program from the model's files, in the form of an FDA 510(k) submission's description. It is "
            "no submission, and nothing in it says that any authority has cleared or approved the model. The "
            f"model's own card says: {card.intended_use}",
            is_loud=True,
        ),
        Words(
            "Figures come from the model's card, from its evaluation report and from the program's code; section "
            "8.1 names them. Published figures carry their citation. Numbers of the plans in sections 6 and 7 are "
            "targets and say so. What nobody measured is called not measured, what nobody knows not known."
        ),
    ]
    blocks = [
        *opening,
        *general(given, network),
        *design(given, network),
        *trained(given),
        *databases(given),
        *validation(given),
        *changes(given),
        *closing(given),
    ]
    return Document(f"{card.name} {card.version}: device description", f"Weights {card.sha256}", blocks)


def _written(file: Path, content: bytes) -> Path:
    half = file.with_name(file.name + ".part")
    half.write_bytes(content)
    half.replace(file)
    return file
