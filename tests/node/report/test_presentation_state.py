"""The presentation state draws on the original image what the model looked at, and changes nothing else of it."""

import copy
import dataclasses
import random
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, dcmread

from model import pixels
from model.header import slim
from node import report
from node.report import InvalidResult, Report, labels, sentences


def made(of: Report) -> list[Dataset]:
    return [dcmread(BytesIO(result.data)) for result in report.make("gsps", of)]


def outlines(state: Dataset) -> list[np.ndarray]:
    return [
        np.reshape(g.GraphicData, (-1, 2))
        for a in state.GraphicAnnotationSequence
        for g in a.get("GraphicObjectSequence", [])
    ]


def texts(state: Dataset) -> list[Dataset]:
    return [t for a in state.GraphicAnnotationSequence for t in a.get("TextObjectSequence", [])]


def of_picture(image: Dataset, above: int = 2) -> Report:
    """A report on a whole image, as the node makes it: header and picture come from one file."""
    out = BytesIO()
    image.save_as(out, enforce_file_format=True)
    whole = studies.report(slim(dcmread(BytesIO(out.getvalue()))), above)
    first = dataclasses.replace(whole.first, picture=pixels.to_uint8(pixels.read(image)))
    return dataclasses.replace(whole, readings=(first,))


def _stored(image: Dataset, values: np.ndarray, **header: Any) -> Dataset:
    """`image` with these pixels and values in its header; None: without."""
    one = copy.deepcopy(image)
    for keyword, value in header.items():
        if value is None:
            delattr(one, keyword)
        else:
            setattr(one, keyword, value)
    one.Rows, one.Columns = values.shape
    one.PixelData = np.ascontiguousarray(values).tobytes()
    return one


def _table(bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [1 << bits, 0, bits])
    item.add_new(
        "LUTData", "OW", (np.sqrt(np.linspace(0, 1, 1 << bits)) * ((1 << bits) - 1)).astype("<u2").tobytes()
    )
    return item


LIES = {
    "R\\F": lambda a: a[:, ::-1],
    "L\\H": lambda a: a[::-1],
    "R\\H": lambda a: a[::-1, ::-1],
    "F\\L": lambda a: a.T,
    "F\\R": lambda a: a[:, ::-1].T,
    "H\\L": lambda a: a[::-1].T,
    "H\\R": lambda a: a[::-1, ::-1].T,
}
"""Patient Orientation -> how an upright picture is stored then."""


def _odd_images(image: Dataset) -> dict[str, Dataset]:
    values = image.pixel_array[:800:4, ::4]  # 200 x 256
    top = (1 << image.BitsStored) - 1
    images = {
        "as it is": _stored(image, values),
        "MONOCHROME1": _stored(
            image, top - values, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"
        ),
        "narrow window": _stored(image, values, WindowCenter="1500", WindowWidth="2000"),
        "several windows": _stored(image, values, WindowCenter=["1500", "700"], WindowWidth=["2000", "300"]),
        "no window": _stored(image, values, WindowCenter=None, WindowWidth=None),
        "half a window": _stored(image, values, WindowWidth=None),
        "negative slope": _stored(image, top - values, RescaleSlope="-1", RescaleIntercept=str(top)),
        "VOI LUT": _stored(image, values, VOILUTSequence=[_table(image.BitsStored)]),
    }
    for lies, turned in LIES.items():
        images[lies] = _stored(image, turned(values), PatientOrientation=lies.split("\\"))
    return images


@pytest.mark.peer
def test_dcmtk_shows_the_picture_that_the_model_saw(
    phantom: Dataset, source: Dataset, program: Callable[[str], str], tmp_path: Path
) -> None:
    image = copy.deepcopy(phantom)
    image.PatientName, image.PatientID = source.PatientName, source.PatientID
    far = {}
    for name, one in _odd_images(image).items():
        whole = of_picture(one)
        one.save_as(tmp_path / "image.dcm", enforce_file_format=True)
        (tmp_path / "state.dcm").write_bytes(report.make("gsps", whole)[0].data)
        command = [
            program("dcmp2pgm"),
            "-p",
            tmp_path / "state.dcm",
            tmp_path / "image.dcm",
            tmp_path / "shown.pgm",
        ]
        subprocess.run(command, check=True, capture_output=True)
        shown = np.asarray(Image.open(tmp_path / "shown.pgm")).astype(int)
        assert shown.shape == whole.first.picture.shape, name
        far[name] = float(np.abs(shown - whole.first.picture).mean())
    assert {name: distance for name, distance in far.items() if distance > 1} == {}


@pytest.mark.parametrize("odd", studies.ODD)
def test_outlines_and_labels_lie_inside_the_stored_picture_and_labels_hide_no_label(
    source: Dataset, errors: Callable[[bytes], list[str]], odd: str
) -> None:
    studies.ODD[odd](source)
    result = report.make("gsps", studies.report(source, 15))[0]
    state = dcmread(BytesIO(result.data))
    assert errors(result.data) == []
    drawn = outlines(state)
    assert len(drawn) == 15
    for line in drawn:
        assert (line[0] == line[-1]).all()
        assert (line >= 0).all() and (line <= [source.Columns, source.Rows]).all()
    boxes = []
    for text in texts(state)[:-1]:
        corners = np.array([text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner])
        assert (corners >= 0).all() and (corners <= [source.Columns, source.Rows]).all()
        boxes.append(labels.Box(*corners.min(axis=0), *corners.max(axis=0)))
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_an_outline_goes_round_what_was_marked_however_the_image_lies(phantom: Dataset) -> None:
    for lies, turned in LIES.items():
        values = np.zeros((60, 90), np.uint16)
        values[20:24, 60:66] = 4000
        image = _stored(phantom, turned(values), PatientOrientation=lies.split("\\"))
        whole = of_picture(image, above=1)
        y, x = (np.argwhere(whole.first.picture > 100).mean(axis=0) + 0.5) / whole.first.picture.shape
        around = ((x - 0.05, y - 0.05), (x + 0.05, y - 0.05), (x + 0.05, y + 0.05), (x - 0.05, y + 0.05))
        label, mark = next(iter(whole.first.marks.items()))
        moved = dataclasses.replace(whole.first, marks={label: dataclasses.replace(mark, outline=around)})
        [line] = outlines(made(dataclasses.replace(whole, readings=(moved,)))[0])
        rows, columns = np.nonzero(image.pixel_array)
        middle = [columns.mean() + 0.5, rows.mean() + 0.5]
        assert (line.min(axis=0) + line.max(axis=0)) / 2 == pytest.approx(middle, abs=0.6)


def test_each_label_says_the_finding_and_its_score_and_is_tied_to_its_outline(source: Dataset) -> None:
    [state] = made(studies.report(source, 2))
    *named, notice = texts(state)
    assert [t.UnformattedTextValue for t in named] == ["Atelectasis 0.98", "Cardiomegaly 0.97"]
    for text, line in zip(named, outlines(state), strict=True):
        assert np.abs(line - text.AnchorPoint).sum(axis=1).min() < 0.1
        assert text.AnchorPointVisibility == "Y"
    assert notice.BoundingBoxAnnotationUnits == "DISPLAY"
    assert notice.UnformattedTextValue.split("\r\n") == [
        sentences.NOT_FOR,
        f"Outlines: {sentences.WHERE_FROM}.",
    ]
    layers = {layer.GraphicLayer for layer in state.GraphicLayerSequence}
    assert layers == {a.GraphicLayer for a in state.GraphicAnnotationSequence}


def test_without_a_finding_there_is_the_notice_only(source: Dataset) -> None:
    [state] = made(studies.report(source, 0))
    assert outlines(state) == []
    [notice] = texts(state)
    assert notice.UnformattedTextValue.split("\r\n") == [sentences.NOT_FOR, "No finding above threshold."]


def test_a_finding_that_nothing_could_be_drawn_for_is_named_all_the_same(source: Dataset) -> None:
    [state] = made(studies.report(source, 2, unmarked=("Atelectasis",)))
    assert len(outlines(state)) == 1
    assert "Above threshold, without an outline: Atelectasis 0.98." in texts(state)[-1].UnformattedTextValue


def test_for_triage_there_is_no_state_even_where_marks_are_at_hand(source: Dataset) -> None:
    whole = dataclasses.replace(studies.report(source, 2), intended_use="triage")
    with pytest.raises(InvalidResult, match="marks"):
        report.make("gsps", whole)


def test_each_image_of_a_study_gets_its_state_all_in_one_series(source: Dataset) -> None:
    whole = studies.report(source, 1, images=3)
    states = made(whole)
    assert [s.InstanceNumber for s in states] == [1, 2, 3]
    assert len({s.SeriesInstanceUID for s in states}) == 1
    shown = [
        s.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID for s in states
    ]
    assert shown == [r.identity.sop_instance for r in whole.readings]


def test_it_shows_the_whole_picture_with_the_source_s_aspect(source: Dataset) -> None:
    studies.ODD["pixels that are not square"](source)
    [area] = made(studies.report(source, 1))[0].DisplayedAreaSelectionSequence
    assert area.DisplayedAreaTopLeftHandCorner == [1, 1]
    assert area.DisplayedAreaBottomRightHandCorner == [source.Columns, source.Rows]
    assert area.PresentationPixelAspectRatio == [2, 1]


def test_a_shutter_stays_shut(source: Dataset) -> None:
    source.ShutterShape = ["RECTANGULAR", "CIRCULAR"]
    source.ShutterLeftVerticalEdge, source.ShutterRightVerticalEdge = "20", "900"
    source.ShutterUpperHorizontalEdge, source.ShutterLowerHorizontalEdge = "30", "1000"
    [state] = made(studies.report(source, 1))
    assert state.ShutterShape == "RECTANGULAR"
    assert (state.ShutterLowerHorizontalEdge, state.ShutterPresentationValue) == (1000, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: ds.GraphicAnnotationSequence.pop(0), "outline is missing"),
        (lambda ds: ds.GraphicAnnotationSequence[1].TextObjectSequence.pop(), "research use"),
        (lambda ds: setattr(_line(ds), "GraphicData", [-5.0, 5.0, 9.0, 9.0, -5.0, 5.0]), "outside"),
        (lambda ds: setattr(_line(ds), "GraphicData", [5.0, 5.0, 9.0, 9.0, 7.0, 5.0]), "closed"),
        (lambda ds: delattr(ds, "PresentationLUTShape"), "PresentationLUTShape"),
        (
            lambda ds: setattr(ds.ReferencedSeriesSequence[0], "SeriesInstanceUID", "1.2.3"),
            "not the image",
        ),
    ],
)
def test_the_check_stops_a_state_that_is_wrong(
    source: Dataset, change: Callable[..., Any], reason: str
) -> None:
    whole = studies.report(source, 1)
    [state] = made(whole)
    change(state)
    with pytest.raises(InvalidResult, match=reason):
        report.WRITERS["gsps"].check(state, whole, 0)


def _line(state: Dataset) -> Dataset:
    return state.GraphicAnnotationSequence[0].GraphicObjectSequence[0]


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 30),
    shape=st.sampled_from([(2000, 1600), (300, 3000), (1, 1)]),
)
def test_labels_never_overlap_and_never_leave_the_picture(
    seed: int, count: int, shape: tuple[int, int]
) -> None:
    drawn = random.Random(seed)
    said = ["x" * drawn.randint(3, 40) for _ in range(count)]
    places = []
    for _ in range(count):
        x, y = drawn.random(), drawn.random()
        places.append([(x, y), (min(1, x + 0.1), y), (x, min(1, y + 0.2))])
    line = labels.line_height(shape, count + 4)
    boxes = labels.place(said, places, shape, line, 1 - 3 * line)
    assert all(
        0 <= b.left < b.right <= 1.0001 and 0 <= b.top < b.bottom <= 1 - 3 * line + 1e-9 for b in boxes
    )
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])
