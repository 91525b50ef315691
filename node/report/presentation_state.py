"""The presentation state: outlines and labels on the original image (PS3.3 A.33.1).

For viewers that draw no SR. The image itself stays as it is: the state is a sheet over it that a viewer can take away.
It shows the image whole, upright, in the greys that the source asks for (`softcopy`). Only where the intended use is
`marks`; where nothing is above its threshold the sheet says just that.

What is marked is where a score comes from, and the sheet says so: not where a disease is, not how far it goes.
"""

from collections.abc import Sequence
from fractions import Fraction

from pydicom import Dataset

from model import pixels
from model.classifier import Finding
from node.report import findings as words
from node.report import labels, regions, sentences, softcopy
from node.report.check import hold, present
from node.report.head import head
from node.report.labels import Box
from node.report.reading import InvalidResult, Reading, Report
from node.report.regions import Point

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.11.1"
SERIES_NUMBER = 9004
SERIES_DESCRIPTION = "Hilum AI findings (marks)"
CONTENT_LABEL = "AI_FINDINGS"

OUTLINES, TEXTS = "AI_OUTLINES", "AI_TEXTS"
"""Graphic layers: a viewer switches them one by one."""
YELLOW = [63569, 27499, 57054]
"""CIELab 97, -21, 94 as PS3.3 C.10.7.1.1 scales them; on a grey monitor white."""
WHITE = 0xFFFF
MARGIN = 0.01
"""Of the picture's sides, around the notice."""

# how the stored picture is turned upright: where the upright picture's rows and columns run to in the stored one
# -> degrees clockwise, then whether left and right change (PS3.3 C.10.6)
TURNS = {
    ("column", "row"): (0, "N"),
    ("-column", "row"): (0, "Y"),
    ("-column", "-row"): (180, "N"),
    ("column", "-row"): (180, "Y"),
    ("-row", "column"): (90, "N"),
    ("row", "column"): (90, "Y"),
    ("row", "-column"): (270, "N"),
    ("-row", "-column"): (270, "Y"),
}

_IN_STATE = [
    "ContentLabel",
    "PresentationCreationDate",
    "PresentationCreationTime",
    "ReferencedSeriesSequence",
    "DisplayedAreaSelectionSequence",
    "GraphicAnnotationSequence",
    "GraphicLayerSequence",
    "PresentationLUTShape",
]


class PresentationState:
    """Writes the state of one image; its only variant is the empty one."""

    name = "gsps"
    each_image = True

    def write(self, report: Report, variant: str, image: int) -> Dataset:
        """The state, still without the patient, whom `report.make` puts in; raises InvalidResult."""
        if variant:
            raise InvalidResult(f"no variant {variant!r} of gsps")
        if report.intended_use != "marks":
            raise InvalidResult("a presentation state marks places: the intended use must be `marks`")
        reading = report.readings[image]
        state = head(
            report,
            self.name,
            image,
            sop_class=SOP_CLASS,
            modality="PR",
            series_number=SERIES_NUMBER,
            description=SERIES_DESCRIPTION,
        )
        state.InstanceNumber = image + 1
        state.BodyPartExamined = "CHEST"
        state.ContentLabel = CONTENT_LABEL
        state.ContentDescription = SERIES_DESCRIPTION
        state.ContentCreatorName = ""
        state.PresentationCreationDate = report.local_time.strftime("%Y%m%d")
        state.PresentationCreationTime = report.local_time.strftime("%H%M%S.%f")
        state.ReferencedSeriesSequence = [_reference(reading)]
        _show_whole(reading, state)
        softcopy.carry(reading.source, state)
        _annotate(report, image, state)
        return state

    def check(self, result: Dataset, report: Report, image: int) -> None:
        """The image, an outline for each mark and inside the picture, the words on its limits; raises InvalidResult."""
        reading = report.readings[image]
        present(result, _IN_STATE)
        hold(report.intended_use == "marks", "a report for triage marks a place")
        series = result.ReferencedSeriesSequence[0]
        shown = series.ReferencedImageSequence[0]
        hold(
            (series.SeriesInstanceUID, shown.ReferencedSOPClassUID, shown.ReferencedSOPInstanceUID)
            == (reading.identity.series, reading.identity.sop_class, reading.identity.sop_instance),
            "the image is not the image that was analyzed",
        )
        drawn = [g for a in result.GraphicAnnotationSequence for g in a.get("GraphicObjectSequence", [])]
        hold(len(drawn) == len(_marked(report, image)), "an outline is missing")
        corners = _corners(reading)
        columns, rows = max(c for c, _ in corners), max(r for _, r in corners)
        for one in drawn:
            data = one.GraphicData
            hold(list(data[:2]) == list(data[-2:]), "an outline is not closed")
            hold(
                min(data) >= 0 and max(data[::2]) <= columns and max(data[1::2]) <= rows,
                "an outline lies outside",
            )
        texts = [
            t.UnformattedTextValue
            for a in result.GraphicAnnotationSequence
            for t in a.get("TextObjectSequence", [])
        ]
        hold(any(sentences.NOT_FOR in text for text in texts), "it does not say that it is for research use")


def _reference(reading: Reading) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID = reading.identity.sop_class
    image.ReferencedSOPInstanceUID = reading.identity.sop_instance
    series = Dataset()
    series.SeriesInstanceUID = reading.identity.series
    series.ReferencedImageSequence = [image]
    return series


def _corners(reading: Reading) -> list[Point]:
    """The upright picture's top left, top right, bottom left, bottom right in the stored one."""
    return regions.stored(reading, [(0, 0), (1, 0), (0, 1), (1, 1)])


def _show_whole(reading: Reading, state: Dataset) -> None:
    """Upright, and all of it, as large as the viewer can (PS3.3 C.10.4, C.10.6)."""
    first, right, below, last = _corners(reading)
    rotation, flip = TURNS[_direction(first, right), _direction(first, below)]
    if (rotation, flip) != (0, "N"):
        state.ImageRotation, state.ImageHorizontalFlip = rotation, flip
    ratio = Fraction(pixels.aspect(reading.source)).limit_denominator(1000)
    area = Dataset()
    # pixels are counted from 1; which corner is top left is asked after the turn
    area.DisplayedAreaTopLeftHandCorner = [max(1, round(n)) for n in first]
    area.DisplayedAreaBottomRightHandCorner = [max(1, round(n)) for n in last]
    area.PresentationSizeMode = "SCALE TO FIT"
    area.PresentationPixelAspectRatio = [str(ratio.numerator), str(ratio.denominator)]
    state.DisplayedAreaSelectionSequence = [area]


def _direction(start: Point, end: Point) -> str:
    axis, way = ("column", end[0] - start[0]) if end[0] != start[0] else ("row", end[1] - start[1])
    return axis if way > 0 else f"-{axis}"


def _marked(report: Report, image: int) -> list[Finding]:
    """The findings that are marked, most important first."""
    marks = regions.marks(report, image)
    found = words.ordered(report.readings[image].findings)
    return [f for f in found if f.present and f.label in marks]


def _annotate(report: Report, image: int, state: Dataset) -> None:
    """Outlines in one layer; labels and the notice in another (PS3.3 C.10.5, C.10.7)."""
    reading, marks = report.readings[image], regions.marks(report, image)
    marked = _marked(report, image)
    said = [_said(f, report) for f in marked]
    notice = _notice(report, image)
    height, width = reading.picture.shape
    line = labels.line_height((height, width), len(said) + len(notice) + 1)
    floor = 1 - MARGIN - line * len(notice)
    outlines = [marks[f.label].outline for f in marked]
    boxes = labels.place(said, outlines, (height, width), line, floor)

    annotations = []
    if marked:
        drawn = Dataset()
        drawn.GraphicLayer = OUTLINES
        drawn.GraphicObjectSequence = [_polyline(regions.outline(reading, marks[f.label])) for f in marked]
        annotations.append(drawn)
    written = Dataset()
    written.GraphicLayer = TEXTS
    written.TextObjectSequence = [
        _label(reading, text, box, labels.nearest(box, outline))
        for text, box, outline in zip(said, boxes, outlines, strict=True)
    ]
    written.TextObjectSequence.append(_display_text(notice, Box(MARGIN, floor, 1 - MARGIN, 1 - MARGIN)))
    annotations.append(written)
    state.GraphicAnnotationSequence = annotations
    state.GraphicLayerSequence = [
        _layer(a.GraphicLayer, order) for order, a in enumerate(annotations, start=1)
    ]


def _notice(report: Report, image: int) -> list[str]:
    """Lines for the foot of the picture."""
    found = words.ordered(report.readings[image].findings)
    marks = regions.marks(report, image)
    unmarked = [_said(f, report) for f in found if f.present and f.label not in marks]
    lines = [sentences.NOT_FOR]
    if not any(f.present for f in found):
        lines.append("No finding above threshold.")
    if unmarked:
        lines.append(f"Above threshold, without an outline: {', '.join(unmarked)}.")
    if _marked(report, image):
        lines.append(f"Outlines: {sentences.WHERE_FROM}.")
    return lines


def _said(finding: Finding, report: Report) -> str:
    return f"{words.name(finding, report.card)} {words.numbers(finding)[0]}"


def _polyline(points: Sequence[Point]) -> Dataset:
    one = Dataset()
    one.GraphicAnnotationUnits = "PIXEL"
    one.GraphicDimensions = 2
    one.NumberOfGraphicPoints = len(points)
    one.GraphicData = [n for point in points for n in point]
    one.GraphicType = "POLYLINE"
    one.GraphicFilled = "N"
    return one


def _label(reading: Reading, text: str, box: Box, anchor: Point) -> Dataset:
    """Words that move with the image, and a line from them to their outline."""
    first, last, end = regions.stored(reading, [box[:2], box[2:], anchor])
    one = _text(text, "PIXEL", first, last)
    one.AnchorPointAnnotationUnits = "PIXEL"
    one.AnchorPoint = list(end)
    one.AnchorPointVisibility = "Y"
    return one


def _display_text(lines: list[str], box: Box) -> Dataset:
    """Words that stay where they are on the screen."""
    return _text("\r\n".join(lines), "DISPLAY", box[:2], box[2:])


def _text(text: str, units: str, first: Point, last: Point) -> Dataset:
    """Written from `first` to `last`, wherever a turn of the image puts them (PS3.3 C.10.5.1.1)."""
    one = Dataset()
    one.BoundingBoxAnnotationUnits = units
    one.UnformattedTextValue = text[:1024]
    one.BoundingBoxTopLeftHandCorner = list(first)
    one.BoundingBoxBottomRightHandCorner = list(last)
    one.BoundingBoxTextHorizontalJustification = "LEFT"
    return one


def _layer(name: str, order: int) -> Dataset:
    layer = Dataset()
    layer.GraphicLayer = name
    layer.GraphicLayerOrder = order
    layer.GraphicLayerRecommendedDisplayGrayscaleValue = WHITE
    layer.GraphicLayerRecommendedDisplayCIELabValue = YELLOW
    return layer
