"""`hilum render`: one DICOM result as something that everybody can open. A picture becomes PNG, a report HTML.

What the patient is called stands in the file that was asked for, as it does in the result, and nowhere else.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread

from model.errors import ModelError
from model.files import open_dataset
from model.header import quietly
from node.errors import HilumError, Misuse
from node.wire.contexts import SECONDARY_CAPTURE

SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
"""What the UIDs of all SR classes begin with, key object selections among them (PS3.4 B.5)."""
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"


def render(file: Path, out: Path | None = None, image: Path | None = None) -> Path:
    """Writes what `file` shows, beside it or to `out`; where. `image`: the X-ray on which its marks are drawn.

    Raises Misuse: no DICOM file, no kind that can be shown, another image, an ending that does not fit.
    """
    with quietly():
        result = _read(file)
        show, ending = _way(file, result, image)
        target = out or file.with_suffix(ending)
        if target.suffix.lower() != ending:
            raise Misuse(f"{target}: this result becomes a {ending[1:]} file; name one that ends in {ending}")
        if target.exists() and target.samefile(file):
            raise Misuse(f"{target}: that is the result itself; name another file with --out")
        content = _told_of(file, show)
    target.write_bytes(content)
    return target


def _read(file: Path) -> Dataset:
    """The data set, whole, its text in its own character set."""
    try:
        open_dataset(file)
        return dcmread(file, force=True)
    except FileNotFoundError:
        raise Misuse(f"{file}: no such file") from None
    except IsADirectoryError:
        raise Misuse(f"{file}: is a folder; name one file") from None
    except ModelError as error:
        raise Misuse(f"{file}: {error}") from error


def _way(file: Path, result: Dataset, image: Path | None) -> tuple[Callable[[], bytes], str]:
    """How it is shown, and the ending of that file."""
    from node import result_page

    sop_class = str(result.get("SOPClassUID", ""))
    is_document, is_state = sop_class.startswith(SR_CLASSES), sop_class == PRESENTATION_STATE
    if image is not None:
        if not is_document and not is_state:
            raise Misuse(f"{file}: --image goes with a report or a presentation state")
        return lambda: _marked(result, _read(image)), ".png"
    if is_document:
        return lambda: result_page.of_document(result).encode(), ".html"
    if is_state:
        return lambda: result_page.of_state(result).encode(), ".html"
    if sop_class == ENCAPSULATED_PDF:
        return lambda: _pdf(result), ".pdf"
    if sop_class == SECONDARY_CAPTURE:
        return lambda: _picture(result), ".png"
    raise Misuse(
        f"{file}: is no Structured Report, Secondary Capture, presentation state or PDF (SOP class {sop_class})"
    )


def _told_of(file: Path, show: Callable[[], bytes]) -> bytes:
    """What `show` makes; one line that names the file where it can't."""
    try:
        return show()
    except (HilumError, ModelError) as error:
        raise Misuse(f"{file}: {error}") from error
    except (
        Exception
    ) as error:  # whatever a foreign object lacks: its text may hold a value, its type does not
        raise Misuse(f"{file}: its content can't be shown ({type(error).__name__})") from error


def _marked(result: Dataset, source: Dataset) -> bytes:
    from node.marked_picture import draw

    out = BytesIO()
    draw(result, source).save(out, format="PNG")
    return out.getvalue()


def _picture(result: Dataset) -> bytes:
    """As it is where it is uncompressed with 8 bits; else as the model's own reader sees it."""
    import numpy as np
    from PIL import Image

    from model import pixels

    samples = {"MONOCHROME2": 1, "RGB": 3}.get(str(result.get("PhotometricInterpretation", "")), 0)
    plain = not result.file_meta.TransferSyntaxUID.is_compressed and result.get("BitsAllocated") == 8
    if plain and samples == result.get("SamplesPerPixel") and not result.get("PlanarConfiguration"):
        shape = (result.Rows, result.Columns, 3) if samples == 3 else (result.Rows, result.Columns)
        drawn = np.frombuffer(result.PixelData, np.uint8, count=int(np.prod(shape))).reshape(shape)
    else:
        drawn = pixels.to_uint8(pixels.read(result))
    out = BytesIO()
    Image.fromarray(drawn).save(out, format="PNG")
    return out.getvalue()


def _pdf(result: Dataset) -> bytes:
    """Without the byte that made its length even."""
    page = bytes(result.EncapsulatedDocument)
    length = result.get("EncapsulatedDocumentLength")
    page = page[:length] if length else page.rstrip(b"\0")
    if not page.startswith(b"%PDF-"):
        raise Misuse("what it holds is no PDF")
    return page
