"""Results for people without a viewer: what is written, and that a patient's name stands there and nowhere else."""

import copy
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pypdf import PdfReader

from model.explain import Mark
from node import report
from node.cli import main
from node.report.reading import Earlier

# in the upright picture: a box left above the middle
BOX = ((0.2, 0.3), (0.4, 0.3), (0.4, 0.5), (0.2, 0.5))
MARKS = {label: Mark(np.ones((8, 8), np.float32), BOX) for label in ("Lung Opacity", "Effusion")}


@pytest.fixture
def made(read, tmp_path) -> Callable[..., Path]:
    """`made("sc")` is the file of a result; keywords change its report."""

    def make(name: str, variant: str = "", **changes: object) -> Path:
        path = tmp_path / f"result.{name}.dcm"
        path.write_bytes(report.make(name, read(**changes), variant)[0].data)
        return path

    return make


@pytest.fixture
def xray(phantom, source, tmp_path) -> Path:
    """The image of all these results, with its pixels."""
    whole = copy.deepcopy(phantom)
    whole.update(source)
    whole.file_meta = phantom.file_meta
    whole.save_as(tmp_path / "xray.dcm", enforce_file_format=True)
    return tmp_path / "xray.dcm"


@pytest.fixture
def rendered(capsys) -> Callable[..., Path]:
    """`rendered(file, …)` is the file that the command says it has written, and nothing else is said."""

    def run(*arguments: object) -> Path:
        assert main(["render", *map(str, arguments)]) == 0
        out, err = capsys.readouterr()
        told = re.fullmatch(r"wrote (.+)\n", out)
        assert told and not err
        return Path(told[1])

    return run


def opened(png: Path) -> Image.Image:
    with Image.open(png) as picture:
        picture.load()
        return picture


def told(page: Path) -> str:
    """What a reader sees of a page."""
    text = page.read_text(encoding="utf-8")
    return " ".join(re.sub(r"<[^>]+>", " ", text.split("</head>")[1]).split())


def test_a_picture_becomes_a_png_beside_it(made, rendered) -> None:
    file = made("sc")
    png = rendered(file)
    assert png == file.with_name("result.sc.png")
    sc = dcmread(file)
    assert np.array_equal(np.asarray(opened(png)).ravel(), np.frombuffer(sc.PixelData, np.uint8))
    coloured = rendered(made("sc", intended_use="marks", marks=MARKS))
    assert opened(coloured).mode == "RGB"


@pytest.mark.parametrize(
    ("name", "variant", "first"),
    [
        ("text-sr", "", "Findings above threshold: Lung Opacity 0.83, Effusion 0.61."),
        ("sr", "enhanced", "Findings above threshold: Lung Opacity 0.83, Effusion 0.61."),
        ("ko", "", "Findings above threshold"),
    ],
)
def test_a_report_becomes_a_page_with_the_patient_and_every_line(
    made, rendered, read, name, variant, first
) -> None:
    shown = told(rendered(made(name, variant)))
    assert "Patient Phantom Ada Patient ID P-1" in shown
    assert first in shown and read().identity.sop_instance in shown


def test_what_was_not_analyzed_and_what_was_found_before_can_be_read(made, rendered, read) -> None:
    shown = told(rendered(made("not-analyzed", findings=[], reason="It is blank")))
    assert "Not analyzed: It is blank." in shown and "does not mean that nothing was found" in shown
    before = Earlier(
        read().made_at - timedelta(days=9), "2.25.1", (("Effusion", 0.8, True),), read().card.sha256
    )
    shown = told(rendered(made("text-sr", earlier=(before,))))
    assert "Previous Finding 2026-11-12 22:30: findings above threshold: Effusion 0.80 (now 0.61)." in shown


def test_a_page_is_in_the_patients_letters_and_loads_and_runs_nothing(made, rendered, source) -> None:
    source.SpecificCharacterSet = "ISO_IR 192"
    source.PatientName = "Yamada^Tarou=山田^太郎"
    source.StudyDescription = "<script>alert(1)</script>"
    page = rendered(made("text-sr"))
    text = page.read_text(encoding="utf-8")
    assert "Yamada Tarou, 山田 太郎" in text
    assert "&lt;script&gt;alert(1)" in text and "<script" not in text
    assert not re.search(r"\b(src|href)=|url\(", text)


def test_a_pdf_comes_out_as_it_went_in(made, rendered) -> None:
    page = rendered(made("pdf"))
    assert page.suffix == ".pdf" and "Lung Opacity 0.83" in PdfReader(page).pages[0].extract_text()


def test_a_presentation_state_says_what_it_draws(made, rendered) -> None:
    shown = rendered(made("gsps", intended_use="marks", marks=MARKS))
    text = told(shown)
    assert text.count("Polyline 5 points") == 2 and "Lung Opacity 0.83" in text
    assert shown.read_text().count("<polyline") == 2


@pytest.mark.parametrize(
    ("name", "variant", "orientation"),
    [
        ("gsps", "", ["L", "F"]),
        ("gsps", "", ["R", "F"]),
        ("gsps", "", ["F", "L"]),
        ("sr", "comprehensive3d", ["R", "F"]),
    ],
)
def test_marks_are_drawn_upright_on_the_x_ray(
    made, rendered, xray, source, tmp_path, name, variant, orientation
) -> None:
    turned = dcmread(xray)
    turned.PatientOrientation = source.PatientOrientation = orientation
    turned.save_as(xray)
    png = opened(rendered(made(name, variant, intended_use="marks", marks=MARKS), "--image", xray))
    pixels = np.asarray(png)
    side = png.width
    assert png.height > side
    # the white line between dark edges, at the box's left side, where no words stand
    across = pixels[round(side * 0.47), : side // 3].astype(int)
    line = np.flatnonzero(across == 255)
    assert line.size and line.mean() / side == pytest.approx(0.2, abs=0.01)


def test_marks_are_never_drawn_on_another_image(made, rendered, xray, capsys) -> None:
    other = dcmread(xray)
    other.SOPInstanceUID += ".1"
    other.save_as(xray)
    file = made("gsps", intended_use="marks", marks=MARKS)
    assert main(["render", str(file), "--image", str(xray)]) == 2
    assert "another image" in capsys.readouterr().err
    assert not list(file.parent.glob("*.png"))


def test_a_report_for_triage_has_no_marks_to_draw(made, xray, capsys) -> None:
    assert main(["render", str(made("sr", "comprehensive3d")), "--image", str(xray)]) == 2
    assert "marks nothing" in capsys.readouterr().err


def test_an_object_of_others_is_shown_and_not_called_ours(made, rendered) -> None:
    file = made("text-sr")
    foreign = dcmread(file)
    foreign.Manufacturer = "Somebody"
    del foreign.ContentSequence[0].ConceptNameCodeSequence, foreign.ContentSequence[1].TextValue
    foreign.save_as(file)
    assert "This object was not made by Hilum." in told(rendered(file))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def without(keyword: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        found = dcmread(path)
        delattr(found, keyword)
        found.save_as(path)

    return change


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("text-sr", cut, "breaks off"),
        ("sc", cut, "breaks off"),
        ("sc", without("PixelData"), "can't be shown"),
        ("pdf", without("EncapsulatedDocument"), "can't be shown"),
        ("sr", lambda path: path.write_bytes(b"no DICOM" * 50), "Not a DICOM file"),
        ("sr", lambda path: path.unlink(), "no such file"),
        ("sr", lambda path: (path.unlink(), path.mkdir()), "is a folder"),
    ],
)
def test_what_can_t_be_shown_is_told_in_one_line_without_the_patient(
    made, capsys, name, change, told
) -> None:
    file = made(name, "comprehensive3d" if name == "sr" else "")
    change(file)
    assert main(["render", str(file)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and told in err
    assert "Phantom" not in err and "P-1" not in err
    assert list(file.parent.iterdir()) in ([file], [])


def test_an_x_ray_is_no_result(xray, capsys) -> None:
    assert main(["render", str(xray)]) == 2
    assert "is no Structured Report" in capsys.readouterr().err


def test_another_place_is_written_to_if_its_name_fits(made, rendered, tmp_path, capsys) -> None:
    file = made("sc")
    assert rendered(file, "--out", tmp_path / "shown.png").name == "shown.png"
    assert main(["render", str(file), "--out", str(tmp_path / "shown.html")]) == 2
    assert "ends in .png" in capsys.readouterr().err
    picture = file.rename(tmp_path / "odd.png")
    before = picture.read_bytes()
    assert main(["render", str(picture)]) == 2
    assert picture.read_bytes() == before


def test_pictures_of_others_are_shown_compressed_and_inverted(made, rendered) -> None:
    file = made("sc")
    sc = dcmread(file)
    grey = np.frombuffer(sc.PixelData, np.uint8).reshape(sc.Rows, sc.Columns)
    sc.PhotometricInterpretation, sc.PixelData = "MONOCHROME1", (255 - grey).tobytes()
    sc.save_as(file)
    shown = np.asarray(opened(rendered(file))).astype(int)
    assert np.abs(shown - grey).max() <= 2
