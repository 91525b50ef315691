"""The page: one sheet of A4 as an Encapsulated PDF (PS3.3 A.45.1), for archives that show documents and for print.

Headline, pictures, scores, limits and model; no patient's name or number: the header has them, and what is printed
outlives every correction. Letters are embedded, so that it looks the same everywhere; equal reports give equal bytes.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import Dataset

from node.report import findings as words
from node.report import sentences, sheet
from node.report.check import hold, present
from node.report.head import coded, head
from node.report.identity import Identity
from node.report.parts import TITLE
from node.report.reading import InvalidResult, Report

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.104.1"
SERIES_NUMBER = 9006
SERIES_DESCRIPTION = "Hilum AI findings (PDF)"
DOCUMENT_TITLE = "Hilum AI findings"

WIDTH, HEIGHT, MARGIN = 595.28, 841.89, 42.0
"""A4 and its margins, in points of 1/72 inch."""
MOST_IMAGES = 4
"""Images with a picture and a column of scores on the page."""
LONGEST_PICTURE = 1600
"""Pixels: 220 to the inch on the page."""
LEAST_PICTURE = 150.0
SMALLEST = 5.0
"""Points: the smallest letters that are still print."""
LIMIT_LINES = 12

_IN_PDF = [
    "ContentDate",
    "ContentTime",
    "BurnedInAnnotation",
    "DocumentTitle",
    "ConceptNameCodeSequence",
    "SourceInstanceSequence",
    "MIMETypeOfEncapsulatedDocument",
    "EncapsulatedDocument",
    "ConversionType",
]


class Page:
    """Writes the page of a report; its only variant is the empty one."""

    name = "pdf"
    each_image = False

    def write(self, report: Report, variant: str, image: int) -> Dataset:
        """The document, still without the patient, whom `report.make` puts in; raises InvalidResult."""
        if variant:
            raise InvalidResult(f"no PDF variant {variant!r}")
        pdf = head(
            report,
            self.name,
            0,
            sop_class=SOP_CLASS,
            modality="DOC",
            series_number=SERIES_NUMBER,
            description=SERIES_DESCRIPTION,
        )
        pdf.InstanceNumber = report.revision
        pdf.ConversionType = "WSD"
        pdf.AcquisitionDateTime = None
        # it bears text, but nothing that tells who the patient is (PS3.3 C.24.2)
        pdf.BurnedInAnnotation = "NO"
        pdf.VerificationFlag = "UNVERIFIED"
        pdf.DocumentTitle = DOCUMENT_TITLE
        pdf.ConceptNameCodeSequence = [coded(TITLE)]
        pdf.SourceInstanceSequence = [_source(r.identity) for r in report.readings]
        pdf.MIMETypeOfEncapsulatedDocument = "application/pdf"
        page = _drawn(report)
        pdf.EncapsulatedDocumentLength = len(page)
        pdf.add_new("EncapsulatedDocument", "OB", page + b"\0" * (len(page) % 2))
        return pdf

    def check(self, result: Dataset, report: Report, image: int) -> None:
        """Required attributes, the source images, and that it is a PDF to its end; raises InvalidResult."""
        present(result, _IN_PDF)
        sources = [s.ReferencedSOPInstanceUID for s in result.SourceInstanceSequence]
        hold(
            sources == [r.identity.sop_instance for r in report.readings],
            "the sources are not those analyzed",
        )
        hold(result.MIMETypeOfEncapsulatedDocument == "application/pdf", "it is called no PDF")
        page = bytes(result.EncapsulatedDocument)[: result.EncapsulatedDocumentLength]
        hold(page.startswith(b"%PDF-") and page.rstrip().endswith(b"%%EOF"), "it is no whole PDF")


class _Style(NamedTuple):
    font: str
    size: float
    grey: float = 0.0

    @property
    def line(self) -> float:
        return self.size * 1.35


TEXT, BOLD = "Vera", "VeraBd"
HEADLINES = tuple(_Style(BOLD, size) for size in (15, 12, 9))
WARNING = _Style(BOLD, 9.5)
CAPTION = _Style(TEXT, 6.5)
SMALL = _Style(TEXT, 7.5, 0.25)


def _source(identity: Identity) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = identity.sop_class, identity.sop_instance
    return item


def _drawn(report: Report) -> bytes:
    """The PDF. Raises InvalidResult where a page can't hold the findings."""
    from reportlab.pdfgen.canvas import Canvas

    _load_fonts()
    out = BytesIO()
    canvas = Canvas(out, pagesize=(WIDTH, HEIGHT), invariant=1, pageCompression=1)
    canvas.setTitle(DOCUMENT_TITLE)
    canvas.setAuthor("Hilum")
    canvas.setSubject(sentences.NOT_FOR)
    images = _shown(report)
    small = _small_print(report, images)
    y = _headline(canvas, sentences.headline(report))
    warnings = [sentences.NOT_FOR, *sentences.unlike(report)]
    y = _write(canvas, y - 2, WARNING, [line for told in warnings for line in _broken(told, WARNING)]) - 8
    bottom = MARGIN + len(small) * SMALL.line
    table = _Table(report, images, y - bottom - 22 - LEAST_PICTURE)
    y = _pictures(canvas, report, images, y, bottom + table.height + 22)
    table.draw(canvas, y - 12)
    _write(canvas, bottom, SMALL, small)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


def _headline(canvas: Any, headline: str) -> float:
    """In the largest letters that need no more than five lines; never cut: it is all that some pages say."""
    for style in HEADLINES:
        lines = _broken(headline, style, most=len(headline))
        if len(lines) <= 5:
            break
    return _write(canvas, HEIGHT - MARGIN, style, lines)


def _load_fonts() -> None:
    """Bitstream Vera, which comes with reportlab."""
    import reportlab
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    folder = Path(reportlab.__file__).parent / "fonts"
    for name in (TEXT, BOLD):
        # anew for each page: a font remembers which letters it was asked for, and the next page would differ
        pdfmetrics.registerFont(TTFont(name, folder / f"{name}.ttf"))


def _shown(report: Report) -> list[int]:
    """The images on the page, in their order: those with the largest scores above a threshold before others."""
    highest = [
        max((f.score for f in reading.findings if f.present), default=-1.0) for reading in report.readings
    ]
    first = sorted(range(len(highest)), key=lambda image: -highest[image])
    return sorted(first[:MOST_IMAGES])


def _small_print(report: Report, images: Sequence[int]) -> list[str]:
    told = []
    if more := len(report.readings) - len(images):
        told += _broken(
            f"{more} more images were analyzed: their scores stand in the Structured Report.", SMALL
        )
    if any(sheet.marked(report, image) for image in images):
        told += _broken(
            f"Colour (violet: little, yellow: much influence on the score) and line: {sentences.WHERE_FROM}.",
            SMALL,
        )
    told += _broken(words.calibration(report.card), SMALL)
    told += _broken(sentences.limits(report), SMALL, most=LIMIT_LINES)
    told += _broken(f"Model {sentences.model(report)}, weights {report.card.sha256}.", SMALL)
    when = report.local_time.strftime("%Y-%m-%d %H:%M %z").strip()
    return told + _broken(f"Analyzed {when}. {sentences.amended(report)}", SMALL)


def _broken(text: str, style: _Style, width: float = WIDTH - 2 * MARGIN, most: int = 3) -> list[str]:
    """`text` in lines of `width` points; after `most` it ends in dots."""
    from reportlab.lib.utils import simpleSplit

    lines: list[str] = simpleSplit(text, style.font, style.size, width)
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1][:-3] + "..."]


def _write(canvas: Any, y: float, style: _Style, lines: Sequence[str], x: float = MARGIN) -> float:
    """Lines from `y` downwards; where they end."""
    canvas.setFont(style.font, style.size)
    canvas.setFillGray(style.grey)
    for line in lines:
        y -= style.line
        canvas.drawString(x, y + style.size * 0.25, line)
    return y


def _pictures(canvas: Any, report: Report, images: Sequence[int], top: float, bottom: float) -> float:
    """Each image's pictures side by side, as large as the room allows; where the lowest ends."""
    from reportlab.lib.utils import ImageReader

    room = (WIDTH - 2 * MARGIN - 8 * (len(images) - 1)) / len(images)
    captions = CAPTION.line if len(report.readings) > 1 else 0.0
    lowest = top
    for column, image in enumerate(images):
        x = MARGIN + column * (room + 8)
        picture = sheet.pictures(report, image)
        picture.thumbnail((LONGEST_PICTURE, LONGEST_PICTURE))
        scale = min(room / picture.width, (top - bottom - captions) / picture.height)
        width, height = picture.width * scale, picture.height * scale
        jpeg = BytesIO()
        picture.save(jpeg, format="JPEG", quality=88)
        jpeg.seek(0)
        canvas.drawImage(ImageReader(jpeg), x + (room - width) / 2, top - captions - height, width, height)
        if captions:
            _write(
                canvas, top, CAPTION, _broken(sentences.image_name(report, image), CAPTION, room, most=1), x
            )
        lowest = min(lowest, top - captions - height)
    return lowest


class _Table:
    """A row a finding, a column of scores an image; in two halves side by side where the rows are many."""

    def __init__(self, report: Report, images: Sequence[int], room: float) -> None:
        """`room`: points in height. Raises InvalidResult where the smallest letters need more."""
        several = len(report.readings) > 1
        self.titles = [f"image {image + 1}" if several else "score" for image in images]
        lines: dict[str, list[sentences.Row]] = {}
        for image in images:
            for row in sentences.rows(report, image):
                lines.setdefault(row.label, []).append(row)
        # those above in any image first
        self.rows = sorted(lines.values(), key=lambda cells: not any(cell.above for cell in cells))
        self.halves = 2 if len(images) == 1 and len(self.rows) > 8 else 1
        self.lines = 1 + -(-len(self.rows) // self.halves)
        self.line = min(9.5 * 1.5, room / self.lines)
        self.size = self.line / 1.5
        if self.size < SMALLEST:
            raise InvalidResult("there are more findings than a page can hold")

    @property
    def height(self) -> float:
        return self.lines * self.line

    def draw(self, canvas: Any, top: float) -> None:
        width = (WIDTH - 2 * MARGIN - 12 * (self.halves - 1)) / self.halves
        for half in range(self.halves):
            x, count = MARGIN + half * (width + 12), self.lines - 1
            titles = [(title, False) for title in self.titles]
            self._row(canvas, x, top, width, "finding", titles, "threshold", 0.35)
            for number, cells in enumerate(self.rows[half * count : (half + 1) * count], 1):
                scores = [(cell.score, cell.above) for cell in cells]
                # with the decimals that the closest score needs
                threshold = max((cell.threshold for cell in cells), key=len)
                y = top - number * self.line
                self._row(canvas, x, y, width, cells[0].name, scores, threshold, 0.0)

    def _row(
        self,
        canvas: Any,
        x: float,
        top: float,
        width: float,
        name: str,
        scores: Sequence[tuple[str, bool]],
        threshold: str,
        grey: float,
    ) -> None:
        """What is above its threshold is bold and in a frame: print has no colour."""
        base, bottom = top - self.line * 0.72, top - self.line
        step = min(62.0, width * 0.48 / (len(scores) + 1))
        style = _Style(BOLD if any(above for _, above in scores) else TEXT, self.size, grey)
        canvas.setFillGray(grey)
        canvas.setStrokeGray(0.8)
        canvas.setLineWidth(0.3)
        canvas.line(x, bottom, x + width, bottom)
        canvas.setFont(style.font, style.size)
        canvas.drawString(x + 3, base, _broken(name, style, width * 0.5, most=1)[0])
        canvas.setStrokeGray(0)
        canvas.setLineWidth(0.8)
        right = x + width - 3 - step * len(scores)
        for score, above in scores:
            canvas.setFont(BOLD if above else TEXT, self.size)
            canvas.drawRightString(right, base, score)
            if above:
                canvas.rect(right - step * 0.62, bottom, step * 0.62 + 3, self.line - 1, stroke=1, fill=0)
            right += step
        canvas.setFont(TEXT, self.size)
        canvas.drawRightString(right, base, threshold)
