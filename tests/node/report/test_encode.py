"""What is written here are the bytes that pydicom writes."""

import warnings
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node import report
from node.report.encode import encoded

KINDS = [
    ("sr", "comprehensive3d"),
    ("sr", "comprehensive"),
    ("sr", "enhanced"),
    ("text-sr", ""),
    ("ko", ""),
    ("sc", ""),
]


def by_pydicom(dataset: Dataset) -> bytes:
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_dataset(out, dataset)
    return out.getvalue()


@pytest.mark.parametrize(("name", "variant"), KINDS)
@pytest.mark.parametrize("patient", ["Phantom^Ada", "Müller^Jörg"])
def test_a_results_bytes_are_those_that_pydicom_writes(read, source, name, variant, patient) -> None:
    source.SpecificCharacterSet, source.PatientName = "ISO_IR 100", patient
    (result,) = report.make(name, read(source=source), variant)
    again = dcmread(BytesIO(result.data))

    assert result.data.endswith(by_pydicom(again))
    assert encoded(dcmread(BytesIO(result.data))) == by_pydicom(again)


def test_a_sequence_without_items_and_a_value_that_is_no_text_are_written_too() -> None:
    item, dataset = Dataset(), Dataset()
    item.ContentSequence, item.GraphicData, item.NumericValue = [], [1.5, 2.5], "0.25"
    item.ReferencedFrameNumber, item.TextValue, item.UID = [1, 2], "odd", "1.2.3"
    dataset.SOPInstanceUID, dataset.ContentSequence = "1.2.3", [item, Dataset()]
    assert encoded(dataset) == by_pydicom(dataset)
