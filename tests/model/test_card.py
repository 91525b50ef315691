import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model import card
from model.errors import BadModel

CARD = """
schema = 1
name = "small"
version = "1"
intended_use = "Tests."
limits = "All."

[weights]
file = "weights.npz"
sha256 = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

[network]
architecture = "vgg16"
pools = ["block5_pool"]

[input]
size = 32
fit = "stretch"
scale = 255.0
mean = [103.939, 116.779, 123.68]

[thresholds]
rule = "Thrown by dice."

[[findings]]
label = "Pleural_Thickening"
display = "Pleural thickening"
threshold = 0.25
"""

Folder = Callable[[str], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A model folder with this card; its weights file is `abc`, whose SHA-256 the card holds."""

    def write(text: str) -> Path:
        (tmp_path / "card.toml").write_text(text)
        (tmp_path / "weights.npz").write_bytes(b"abc")
        return tmp_path

    return write


def test_a_card_is_read(folder: Folder) -> None:
    read = card.load(folder(CARD))

    assert (read.name, read.size, read.labels) == ("small", 32, ("Pleural_Thickening",))
    assert read.thresholds == {"Pleural_Thickening": 0.25}
    assert read.display == {"Pleural_Thickening": "Pleural thickening"}
    card.verify(read)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "small"\n', "", "name: is missing"),
        ("schema = 1", "schema = 2", "schema: is 2"),
        ("[weights]", "[ballast]", "weights.file: is missing"),
        ("sha256:ba78", "md5:ba78", "weights.sha256: must be"),
        ('"weights.npz"', '"../weights.npz"', "weights.file: must be a plain file name"),
        ("size = 32", "size = 32.5", "input.size: must be a whole number"),
        ("size = 32", "size = 100000", "input.size: must be from 32 to 1024"),
        ("threshold = 0.25", "threshold = nan", "findings[0].threshold: must be a number"),
        ("threshold = 0.25", "threshold = 25", "findings[0].threshold: must be from 0 to 1"),
        ("123.68]", "]", "input.mean: must be a list of three numbers"),
        ('["block5_pool"]', "[]", "network.pools: must be a list"),
        ('["block5_pool"]', '["block6_pool"]', "network.pools: must be some of block1_pool"),
        (
            "pools =",
            'head = "deep"\npools =',
            "network.head: is 'deep'; this version knows 'averages'",
        ),
        (
            'pools = ["block5_pool"]',
            'head = "flatten"\npools = ["block4_pool", "block5_pool"]',
            "network.pools: must be one pool",
        ),
        ("pools =", "hidden = [0]\npools =", "network.hidden: must hold whole numbers from 1 to 4096"),
        ("pools =", "hidden = 8\npools =", "network.hidden: must be a list of at most 4"),
        ("[[findings]]", "[findings]", "findings: must be one or more [[findings]] tables"),
        ("schema = 1", "schema = ", "is no TOML file"),
    ],
)
def test_a_bad_card_names_its_file_and_key(folder: Folder, old: str, new: str, named: str) -> None:
    place = folder(CARD.replace(old, new))

    with pytest.raises(BadModel) as error:
        card.load(place)

    assert str(place / "card.toml") in str(error.value)
    assert named in str(error.value)


def test_a_card_that_says_nothing_of_its_head_means_averages(folder: Folder) -> None:
    older = card.load(folder(CARD))
    newer = card.load(folder(CARD.replace("pools =", 'head = "flatten"\nhidden = [64, 8]\npools =')))

    assert (older.head, older.hidden) == ("averages", ())
    assert (newer.head, newer.hidden) == ("flatten", (64, 8))


def test_a_label_stands_once(folder: Folder) -> None:
    twice = CARD + CARD[CARD.index("[[findings]]") :]
    with pytest.raises(BadModel, match="each label may stand there once"):
        card.load(folder(twice))


def test_an_empty_folder_is_a_bad_model(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"card\.toml: can't be read"):
        card.load(tmp_path)


def test_a_changed_byte_in_the_weights_is_a_bad_model(folder: Folder) -> None:
    read = card.load(folder(CARD))
    read.weights_path.write_bytes(b"abd")

    with pytest.raises(BadModel, match=r"weights\.npz: its hash is sha256:"):
        card.verify(read)


def test_reading_a_card_imports_neither_tensorflow_nor_keras_nor_numpy() -> None:
    code = (
        "import sys; from model import card; card.load(card.SHIPPED); "
        "print(sorted({'tensorflow', 'keras', 'numpy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_shipped_card_names_fifteen_findings_and_its_sources() -> None:
    shipped = card.load(card.SHIPPED)

    assert len(shipped.labels) == 15
    assert {"Lung Opacity", "Pleural_Thickening", "Pneumothorax"} <= set(shipped.labels)
    card.verify(shipped)
    assert shipped.weights_path.stat().st_size <= 32_000_000
    text = (card.SHIPPED / "card.toml").read_text()
    for words in (
        "CC BY 4.0",
        "Simonyan",
        "NIH Clinical Center",
        "nihcc.app.box.com",
        "Shih",
        "non-commercial",
    ):
        assert words in text
    assert "Oxford" in (card.SHIPPED / "WEIGHTS-LICENSE.md").read_text()
