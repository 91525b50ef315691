"""The Secondary Capture: the picture, and beneath it in words what the model says (PS3.3 A.8.1).

For viewers that show no SR, and for a glance. The panel holds no patient's name: the header does, and a burned-in
name outlives every correction of it. Grey, 8 bits, one frame, uncompressed: every PACS takes that.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from model.classifier import Finding
from node.report import findings as words
from node.report.reading import (
    MANUFACTURER,
    InvalidResult,
    Reading,
    result_uid,
    series_uid,
    software_version,
)

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.7"
SERIES_NUMBER = 9002
SERIES_DESCRIPTION = "Hilum AI findings (picture)"

NARROWEST = 768
"""Pixels; a smaller picture is enlarged, so that the panel's letters are not smaller than 18 pixels at 1:1."""
LONGEST = 2048
"""Pixels; a larger picture is reduced: this is a notice beside the original, not a copy of it."""
LETTERS_PER_WIDTH = 42
"""The width in font sizes: shrunk to 512 pixels a letter still has 12."""

WHITE, LIGHT, DIM, BLACK = 255, 225, 165, 0


class SecondaryCapture:
    """Writes the SC of one reading; its only variant is the empty one."""

    name = "sc"

    def write(self, reading: Reading, variant: str) -> Dataset:
        """The SC, still without the patient, whom `report.make` puts in; raises InvalidResult."""
        if variant:
            raise InvalidResult(f"no SC variant {variant!r}")
        if reading.intended_use != "triage":
            raise InvalidResult(f"no SC for the intended use {reading.intended_use!r} in this version")
        card = reading.card
        instance = result_uid(reading, self.name, variant)
        pixels = draw(reading)
        rows, columns = pixels.shape

        sc = Dataset()
        sc.SOPClassUID = SOP_CLASS
        sc.SOPInstanceUID = instance
        sc.SeriesInstanceUID = series_uid(instance)
        sc.SeriesNumber = SERIES_NUMBER
        sc.SeriesDescription = SERIES_DESCRIPTION
        sc.InstanceNumber = reading.revision
        sc.Modality = "OT"
        sc.BodyPartExamined = "CHEST"
        sc.PatientOrientation = ""
        sc.Manufacturer = MANUFACTURER
        sc.ManufacturerModelName = MANUFACTURER
        sc.SoftwareVersions = software_version()
        sc.DeviceSerialNumber = card.sha256.removeprefix("sha256:")[:16]
        sc.ConversionType = "WSD"
        sc.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        sc.BurnedInAnnotation = "YES"
        sc.DerivationDescription = (
            f"{words.RESEARCH_USE} Picture resized, findings of "
            f"{words.ascii_text(card.name)} {words.ascii_text(card.version)} written beneath."
        )
        sc.ImageComments = f"{words.headline(reading.findings, card)} {words.RESEARCH_USE}"
        sc.SourceImageSequence = [_source(reading)]
        _carry_lossy_compression(reading.source, sc)
        sc.SamplesPerPixel = 1
        sc.PhotometricInterpretation = "MONOCHROME2"
        sc.Rows, sc.Columns = rows, columns
        sc.BitsAllocated = sc.BitsStored = 8
        sc.HighBit = 7
        sc.PixelRepresentation = 0
        # the identity (PS3.3 C.11.2.1.2.1): a viewer that invents a window would make the panel unreadable
        sc.WindowCenter, sc.WindowWidth = "128", "256"
        data = pixels.tobytes()
        sc.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
        return sc


def _source(reading: Reading) -> Dataset:
    purpose = Dataset()
    purpose.CodeValue = "121322"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item = Dataset()
    item.ReferencedSOPClassUID = reading.identity.sop_class
    item.ReferencedSOPInstanceUID = reading.identity.sop_instance
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _carry_lossy_compression(source: Dataset, sc: Dataset) -> None:
    """What was once compressed with loss stays so, whatever is done with it later (PS3.3 C.7.6.1.1.5)."""
    if str(source.get("LossyImageCompression", "")).strip() == "01":
        sc.LossyImageCompression = "01"


def draw(reading: Reading) -> npt.NDArray[np.uint8]:
    """Picture and panel, H×W uint8; the picture keeps its aspect."""
    picture = Image.fromarray(reading.picture)
    scale = min(max(NARROWEST / picture.width, 1.0), LONGEST / max(picture.size))
    if scale != 1.0:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    width = max(picture.width, NARROWEST)
    panel = _panel(reading, width)
    sheet = Image.new("L", (width, picture.height + panel.height), BLACK)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    sheet.paste(panel, (0, picture.height))
    return np.asarray(sheet)


def _panel(reading: Reading, width: int) -> Image.Image:
    """Headline, table of scores in two columns, model, what it must not be used for; black, letters in grey."""
    size = width / LETTERS_PER_WIDTH
    line, margin = round(size * 1.45), round(size)
    text = ImageFont.load_default(size)
    large = ImageFont.load_default(size * 1.25)
    table = words.ordered(reading.findings)
    half = (len(table) + 1) // 2
    card = reading.card

    headline = _wrapped(words.headline(reading.findings, card), large, width - 2 * margin)
    model = (
        f"Model {words.ascii_text(card.name)} {words.ascii_text(card.version)}, weights {card.sha256[:19]}"
    )
    if reading.revision > 1:
        model += f". Report revision {reading.revision}, replaces the earlier one"
    footer = [
        *_wrapped(
            "AI result, research use, not for diagnosis. Not verified by a physician.",
            large,
            width - 2 * margin,
        ),
        *_wrapped(model, text, width - 2 * margin),
    ]
    height = margin * 3 + line * (round(len(headline) * 1.25) + 1 + half + len(footer) + 1)
    panel = Image.new("L", (width, height), BLACK)
    pen = ImageDraw.Draw(panel)
    pen.line((0, 1, width, 1), fill=DIM, width=2)

    y = margin
    for sentence in headline:
        pen.text((margin, y), sentence, fill=WHITE, font=large)
        y += round(line * 1.25)
    y += margin // 2
    column = (width - 2 * margin) // 2
    for start in (0, 1):
        x, rows = margin + start * column, table[start * half : (start + 1) * half]
        if rows:
            _row(pen, (x, y), column, text, ("finding", "score", "threshold"), DIM)
        for number, finding in enumerate(rows, 1):
            _finding(pen, (x, y + number * line), column, line, text, finding, reading)
    y += (half + 1) * line + margin // 2
    for number, sentence in enumerate(footer):
        first = number == 0
        pen.text((margin, y), sentence, fill=WHITE if first else DIM, font=large if first else text)
        y += round(line * 1.25) if first else line
    return panel


def _finding(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    column: int,
    line: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    finding: Finding,
    reading: Reading,
) -> None:
    """One row; black on white where the finding is above its threshold, so that a grey monitor shows it."""
    x, y = at
    if finding.present:
        pen.rectangle(
            (x - line // 4, y - line // 8, x + column - line // 2, y + line - line // 8 - 1), fill=WHITE
        )
    cells = (words.name(finding, reading.card), *words.numbers(finding))
    _row(pen, at, column, font, cells, BLACK if finding.present else LIGHT)


def _row(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    column: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    cells: tuple[str, str, str],
    grey: int,
) -> None:
    x, y = at
    label, score, threshold = cells
    label = _fitted(label, font, round(column * 0.50))
    pen.text((x, y), label, fill=grey, font=font)
    pen.text((x + round(column * 0.66), y), score, fill=grey, font=font, anchor="ra")
    pen.text((x + round(column * 0.93), y), threshold, fill=grey, font=font, anchor="ra")


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """`text`, cut with dots where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_fitted(one, font, width) for one in lines]
