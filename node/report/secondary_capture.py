"""The Secondary Capture: the picture, and beneath it in words what the model says (PS3.3 A.8.1).

For viewers that show no SR, and for a glance. 8 bits, one frame, uncompressed: every PACS takes that. Grey; RGB only
where findings are marked. What is drawn stands in `sheet`.
"""

from pydicom import Dataset

from node.report import findings as words
from node.report import sentences, sheet
from node.report.check import hold, present
from node.report.head import coded, head
from node.report.reading import InvalidResult, Reading, Report
from node.wire.contexts import SECONDARY_CAPTURE

SERIES_NUMBER = 9002
SERIES_DESCRIPTION = "Hilum AI findings (picture)"
PURPOSE = words.Code("121322", "DCM", "Source image for image processing operation")

_IN_SC = [
    "ConversionType",
    "ImageType",
    "BurnedInAnnotation",
    "DerivationDescription",
    "SourceImageSequence",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
]


class SecondaryCapture:
    """Writes the SC of one image; its only variant is the empty one."""

    name = "sc"
    each_image = True

    def write(self, report: Report, variant: str, image: int) -> Dataset:
        """The SC, still without the patient, whom `report.make` puts in; raises InvalidResult."""
        if variant:
            raise InvalidResult(f"no SC variant {variant!r}")
        card, reading = report.card, report.readings[image]
        pixels = sheet.draw(report, image)
        sc = head(
            report,
            self.name,
            image,
            sop_class=SECONDARY_CAPTURE,
            modality="OT",
            series_number=SERIES_NUMBER,
            description=SERIES_DESCRIPTION,
        )
        sc.InstanceNumber = image + 1
        sc.BodyPartExamined = "CHEST"
        sc.PatientOrientation = ""
        sc.ConversionType = "WSD"
        sc.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        sc.BurnedInAnnotation = "YES"
        what = f", and marked in colour: {sentences.WHERE_FROM}" if pixels.ndim == 3 else ""
        sc.DerivationDescription = (
            f"{words.RESEARCH_USE} Picture resized, findings of {sentences.model(report)} "
            f"written beneath{what}."
        )[:1024]
        said = [words.RESEARCH_USE, words.headline(reading.findings, card), words.ascii_text(reading.unlike)]
        sc.ImageComments = " ".join(part for part in said if part)[:10_240]
        sc.SourceImageSequence = [_source(reading)]
        _carry_lossy_compression(reading.source, sc)
        sc.Rows, sc.Columns = pixels.shape[:2]
        sc.BitsAllocated = sc.BitsStored = 8
        sc.HighBit = 7
        sc.PixelRepresentation = 0
        if pixels.ndim == 3:
            sc.SamplesPerPixel, sc.PhotometricInterpretation, sc.PlanarConfiguration = 3, "RGB", 0
        else:
            sc.SamplesPerPixel, sc.PhotometricInterpretation = 1, "MONOCHROME2"
            # the identity (PS3.3 C.11.2.1.2.1): a viewer that invents a window would make the panel unreadable
            sc.WindowCenter, sc.WindowWidth = "128", "256"
        data = pixels.tobytes()
        sc.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
        return sc

    def check(self, result: Dataset, report: Report, image: int) -> None:
        """Required attributes, the source image and the size of the pixels; raises InvalidResult."""
        identity = report.readings[image].identity
        present(result, _IN_SC)
        source = result.SourceImageSequence[0]
        hold(
            (source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID)
            == (identity.sop_class, identity.sop_instance),
            "the source image is not the image that was analyzed",
        )
        hold(result.BurnedInAnnotation == "YES", "BurnedInAnnotation is not YES")
        samples = 3 if sheet.marked(report, image) else 1
        hold(result.SamplesPerPixel == samples, "it is marked, or not, against the intended use")
        pixels = result.Rows * result.Columns * samples
        hold(len(result.PixelData) == pixels + pixels % 2, "the pixels do not fill rows and columns")


def _source(reading: Reading) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reading.identity.sop_class
    item.ReferencedSOPInstanceUID = reading.identity.sop_instance
    item.PurposeOfReferenceCodeSequence = [coded(PURPOSE)]
    return item


def _carry_lossy_compression(source: Dataset, sc: Dataset) -> None:
    """What was once compressed with loss stays so, whatever is done with it later (PS3.3 C.7.6.1.1.5)."""
    if str(source.get("LossyImageCompression", "")).strip() == "01":
        sc.LossyImageCompression = "01"
