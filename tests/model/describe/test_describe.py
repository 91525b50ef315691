"""hilum model describe: the four files, from the shipped model down to one of which nothing is known."""

import csv
import json
import re
import shutil
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader

from model import card, network, scope
from model.card import SHIPPED
from model.describe import flow, sources
from model.describe.layers import layers
from model.describe.run import describe
from model.errors import BadData, BadModel
from model.train.recipe import read_recipe, recipe_file, text_of
from node.cli import main

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs/model"
REPORT = PAGES / "report.json"
SECTIONS = [
    "1. General information", "1.1 Device description", "1.2 Intended use statement", "1.3 Indications for use",
    "1.4 Device limitations", "1.5 Clinical impact of performance",
    "2. Algorithm design and function", "2.1 Flowchart", "2.2 DICOM checking steps", "2.3 Preprocessing steps",
    "2.4 Learned check of what the picture shows", "2.5 Network architecture",
    "2.6 From the network's output to a finding",
    "3. Algorithm training", "3.1 Parameters", "3.2 Training curves", "3.3 ROC and precision-recall",
    "3.4 Final thresholds, and why",
    "4. Databases", "4.1 Training and validation sets", "4.2 The images that the figures are measured on",
    "5. Ground truth",
    "6. Validation plan", "6.1 Patient population", "6.2 Ground truth acquisition",
    "6.3 Performance standard and acceptance criteria", "6.4 Sample size", "6.5 Where the model stands now",
    "6.6 All that was measured",
    "7. Predetermined change control plan", "7.1 Description of modifications", "7.2 Modification protocol",
    "7.3 Impact assessment", "7.4 Who is told, and how it is taken back",
    "8. Sources", "8.1 Made from", "8.2 Citations",
]  # fmt: skip
MADE = ["card.md", "description.md", "description.html", "description.pdf"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model's files, with its evaluation report."""
    folder = tmp_path_factory.mktemp("shipped")
    assert [file.name for file in describe(None, folder, report=REPORT)] == MADE
    return folder


def text_of_pdf(file: Path) -> list[str]:
    return [page.extract_text() for page in PdfReader(file).pages]


def words_of_pdf(file: Path) -> str:
    return " ".join(" ".join(text_of_pdf(file)).split())


class Loads(HTMLParser):
    """What a page would fetch or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        if tag in ("script", "link", "img", "iframe", "object", "embed", "image", "use"):
            self.found.append(tag)
        self.found += [f"{tag} {key}" for key in given if key.startswith("on") or key in ("src", "srcset")]
        self.found += [value for key, value in given.items() if "href" in key and not value.startswith("#")]


def test_the_shipped_models_pages_are_what_the_command_writes(shipped: Path) -> None:
    for name in MADE[:3]:
        assert (PAGES / name).read_text(encoding="utf-8") == (shipped / name).read_text(encoding="utf-8"), (
            f"{name} is old: hilum model describe --report docs/model/report.json --out docs/model"
        )
    assert text_of_pdf(PAGES / MADE[3]) == text_of_pdf(shipped / MADE[3])


def test_the_same_files_give_the_same_bytes(shipped: Path, tmp_path: Path) -> None:
    describe(SHIPPED, tmp_path / "again", report=REPORT)
    for name in MADE:
        assert (tmp_path / "again" / name).read_bytes() == (shipped / name).read_bytes(), name


def test_every_section_stands_in_every_form(shipped: Path) -> None:
    page = (shipped / "description.html").read_text(encoding="utf-8")
    lines = (shipped / "description.md").read_text(encoding="utf-8").splitlines()
    printed = words_of_pdf(shipped / "description.pdf")
    at = -1
    for title in SECTIONS:
        assert f">{escape(title)}</h" in page
        assert any(re.fullmatch(f"##+ {re.escape(title)}", line) for line in lines)
        assert title in printed
        found = next(n for n, line in enumerate(lines) if line.lstrip("# ") == title)
        assert found > at
        at = found


def test_each_entry_of_the_contents_leads_to_its_section(shipped: Path) -> None:
    page = (shipped / "description.html").read_text(encoding="utf-8")
    targets = re.findall(r'href="#([^"]+)"', page)
    assert len(targets) >= len(SECTIONS)
    assert all(f'id="{target}"' in page for target in targets)
    pdf = PdfReader(shipped / "description.pdf")
    marks = [each for each in pdf.outline if not isinstance(each, list)]
    assert len(marks) == 8
    for mark in marks:
        number = pdf.get_destination_page_number(mark)
        assert number and mark.title in pdf.pages[number].extract_text()


def test_the_page_loads_nothing(shipped: Path) -> None:
    page = (shipped / "description.html").read_text(encoding="utf-8")
    assert not Loads(page).found
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import", page)


def test_the_flowchart_and_the_table_have_the_rules_of_the_code(shipped: Path) -> None:
    steps = flow.steps(card.load(SHIPPED))
    counted = [int(found[1]) for step in steps if (found := re.search(r": (\d+) rules?$", step.title))]
    assert sum(counted) == len(scope.RULES)
    text = (shipped / "description.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \d+ \| `([\w-]+)` \|", text, re.MULTILINE)
    assert named == [rule.name for rule in scope.RULES]
    svg = (
        (shipped / "description.html").read_text(encoding="utf-8").partition("<svg")[2].partition("</svg>")[0]
    )
    assert all(f">{n}. {escape(step.title)}</text>" in svg for n, step in enumerate(steps, 1))
    mermaid = text.partition("```mermaid\n")[2].partition("```")[0]
    assert mermaid.count(" --> ") == len(steps) - 1


def test_the_layers_have_as_many_parameters_as_the_weights_file() -> None:
    shipped = card.load(SHIPPED)
    told = layers(shipped)
    counted = sum(array.size for array in network.read_weights(shipped.weights_path).values())
    assert told.parameters == counted == sum(layer.parameters for layer in told.named)
    assert [layer.name for layer in told.named][:18] == list(network.LAYERS)


def test_figures_are_those_of_the_report(shipped: Path) -> None:
    text = (shipped / "description.md").read_text(encoding="utf-8")
    told = json.loads(REPORT.read_text(encoding="utf-8"))["labels"]["Pneumonia"]
    f1 = told["at_threshold"]["f1"]
    assert "{value:.3f} [{low:.3f}, {high:.3f}]".format(**f1) in text
    called = told["at_threshold"]
    missed = 50 * (1 - called["sensitivity"]["value"])
    wrong = 950 * (1 - called["specificity"]["value"])
    (row,) = re.findall(
        r"^\| Pneumonia \|[^|]+\|[^|]+\| (\d+) [^|]+\| (\d+) [^|]+\| (\d+) ", text, re.MULTILINE
    )[:1]
    assert [int(each) for each in row] == [round(50 - missed), round(missed), round(wrong)]


def test_nothing_is_invented_for_an_imported_model(imported: Any, tmp_path: Path) -> None:
    describe(imported(), tmp_path / "out")
    text = (tmp_path / "out/description.md").read_text(encoding="utf-8")
    for title in SECTIONS:
        assert re.search(rf"^##+ {re.escape(title)}$", text, re.MULTILINE)
    body = text[text.index("## 1. ") : text.index("## 6. ")]
    for heading, said in [
        ("1.3", "trained on patients of not known years"),
        ("1.5", "| Pneumonia | not measured | not measured | not measured |"),
        ("3.1", "Training parameters: not known"),
        ("3.2", "Training curves over epochs: not known"),
        ("3.3", "Curves: not measured"),
        ("4.1", "Training and validation images: not known"),
        ("4.2", "Images, patients, views, sexes and ages: not measured"),
        ("5.", "how often they are wrong: not known"),
    ]:
        assert said in body[body.index(f" {heading}") :], heading
    # 3 x 3 x 1 x 4 and 4, without the optimizer's
    assert "| Parameters | 40 |" in body
    # no figure with an interval stands there but the published ones
    assert set(re.findall(r"\d\.\d+ \[[\d., ]+\]", text)) == {"0.387 [0.330, 0.442]", "0.435 [0.387, 0.481]"}


def test_no_form_says_none_or_nan(shipped: Path, imported: Any, tmp_path: Path) -> None:
    describe(imported(), tmp_path / "out")
    for folder in (shipped, tmp_path / "out"):
        texts = [(folder / name).read_text(encoding="utf-8") for name in MADE[:3]]
        for text in [*texts, words_of_pdf(folder / MADE[3])]:
            assert not re.search(r"\b(None|NaN|nan|inf|Estimate|frozenset)\b", text)


def test_texts_of_a_card_stay_texts(imported: Any, tmp_path: Path) -> None:
    words = 'Bad <script>alert(1)</script> | `rm` [x](http://a.example) ![y](z) **loud** $a$ \\" _a_ # b'
    describe(imported(words), tmp_path / "out")
    page = (tmp_path / "out/description.html").read_text(encoding="utf-8")
    assert not Loads(page).found
    text = (tmp_path / "out/description.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(http", text)
    assert r"\*\*loud\*\*" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) > 1 for row in rows)
    assert "<script>alert(1)</script>" in words_of_pdf(tmp_path / "out/description.pdf")


def test_lists_of_rows_that_a_card_gains_are_printed(trained: Any, tmp_path: Path) -> None:
    more = """
[figures]
rows = [{ who = "it", of = "Mass", inside = "all", auroc = 0.7, low = 0.6, high = 0.8, images = 10, positive = 5 }]
scope = [{ set = "knees", kind = "knee", images = 40, stopped = 0.9875 }]
calibration = [{ who = "it", of = "Mass", ece = 0.0123, low = 0.01, high = 0.02, by_chance = 0.015 }]
speed = [{ runtime = "one", milliseconds = 12.5 }]

[curve]
rows = [{ share = 0.5, images = 100, lung_opacity = 0.61 }, { share = 1, images = 200, lung_opacity = 0.71 }]

[weather]
mostly = "fine"

[calibration]
method = "temperature"
how = "On ten images."
rows = [{ of = "Mass", stated = 0.25, ece = 0.0321, low = 0.03, high = 0.04 }]
"""
    finding = "temperature = 1.5\nshift = -0.5\nprevalence = 0.25\ncolour = 'green'"
    describe(trained(more, mass=finding, hernia=finding), tmp_path / "out")
    text = (tmp_path / "out/description.md").read_text(encoding="utf-8")
    for said in [
        "0.700 [0.600, 0.800]",
        "0.012 [0.010, 0.020]",
        "0.032 [0.030, 0.040]",
        "12.500",
        "AUROC by the number of training images",
        "| 0.5 | 100 | 0.610 |",
        "| mostly | fine |",
        "sigmoid(logit(output) / 1.5 - 0.5)",
        "25 %",
        "| Mass | green |",
    ]:
        assert said in text, said


def test_a_run_folder_gives_its_curves_and_its_recipe(trained: Any, tmp_path: Path) -> None:
    model = trained("\n[training]\nbackend = 'abacus'\n")
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    (run / "run.json").write_text(json.dumps({"recipe": text_of(recipe_file("tuned"))}), encoding="utf-8")
    with (run / "history.csv").open("w", newline="") as file:
        names = [
            "epoch",
            "stage",
            "training/loss",
            "validation/loss",
            "training/mean/auroc",
            "validation/mean/auroc",
        ]
        table = csv.writer(file)
        table.writerows([names, [1, "head", 0.9, 0.8, 0.55, ""], [2, "block5", 0.7, 0.75, 0.625, 0.613]])
    describe(model, tmp_path / "out", training=run)
    text = (tmp_path / "out/description.md").read_text(encoding="utf-8")
    assert "| 2 | block5 | 0.700 | 0.750 | 0.625 | 0.613 |" in text
    assert "| 1 | head | 0.900 | 0.800 | 0.550 |  |" in text
    for stage in read_recipe("tuned").stages:
        assert f"| {stage.name} | {stage.cut} | {stage.epochs} | {stage.batch} | {stage.optimizer} |" in text
    assert "rotation 8" in text
    assert "abacus" in text
    page = (tmp_path / "out/description.html").read_text(encoding="utf-8")
    assert "Loss by epoch" in page
    other = trained(name="other")
    (other / "card.toml").write_text((other / "card.toml").read_text().replace("1.2.3", "1.2.4"))
    assert describe(other, tmp_path / "out", training=run), "the same weights: a card that was written anew"


def test_what_cannot_be_described_is_one_line_and_writes_nothing(
    trained: Any, imported: Any, tmp_path: Path
) -> None:
    model, out = trained(), tmp_path / "out"
    alien = tmp_path / "alien.json"
    alien.write_text(REPORT.read_text(encoding="utf-8"), encoding="utf-8")
    run_report = tmp_path / "run-report.json"
    run_report.write_text('{"name": "x", "epochs": []}', encoding="utf-8")
    (tmp_path / "run/model").mkdir(parents=True)
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (BadModel, "nowhere/card.toml: can't be read", {"folder": tmp_path / "nowhere"}),
        (BadData, "judges other weights", {"folder": model, "report": alien}),
        (BadData, "is no report.json", {"folder": model, "report": run_report}),
        (BadData, "can't be read", {"folder": model, "report": tmp_path / "absent.json"}),
        (BadData, "is no finished run", {"folder": model, "training": tmp_path / "run"}),
    ]
    for error, words, given in cases:
        with pytest.raises(error, match=words) as caught:
            describe(out=out, **given)
        assert "\n" not in str(caught.value)
    theirs = imported()
    (theirs / "model.keras").write_bytes(b"no zip")
    with pytest.raises(BadModel, match="its hash is"):
        describe(theirs, out)
    assert not out.exists()
    alien.write_text("x")
    with pytest.raises(BadData, match="is no folder"):
        describe(model, alien)


def test_a_keras_file_that_is_none_is_a_bad_model(imported: Any, tmp_path: Path) -> None:
    folder = imported()
    (folder / "model.keras").write_bytes(b"no zip")
    with pytest.raises(BadModel, match=r"model\.keras: is no \.keras file that can be read"):
        layers(card.load(folder))


def test_a_report_with_holes_is_read_as_not_measured(trained: Any, tmp_path: Path) -> None:
    folder = trained()
    told = {
        "model": {"sha256": card.load(folder).sha256}, "table": "t.csv", "split": "test", "images": 4, "patients": 4,
        "resamples": 10, "unreadable": {}, "limits": ["Few."], "floors": {}, "parts": {},
        "labels": {
            "Mass": {"images": 4, "positive": 0, "auroc": None, "average_precision": None, "at_threshold": None,
                     "calibration": None, "roc": None, "precision_recall": None, "decision": None},
        },
    }  # fmt: skip
    file = tmp_path / "report.json"
    file.write_text(json.dumps(told), encoding="utf-8")
    describe(folder, tmp_path / "out", report=file)
    text = (tmp_path / "out/description.md").read_text(encoding="utf-8")
    assert "| Mass | 0 of 4 | not measured |" in text
    assert sources.read(folder, file).report is not None


def test_the_command_says_what_it_wrote(
    imported: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["model", "describe", str(imported()), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out / name) for name in MADE]
    assert main(["model", "describe", str(tmp_path / "nowhere"), "--out", str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
