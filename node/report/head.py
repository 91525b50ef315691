"""What every result begins with that is written attribute by attribute: class, UIDs, series, equipment."""

from pydicom import Dataset

from node.report.findings import Code
from node.report.reading import MANUFACTURER, Report, result_uid, serial_number, series_uid, software_version


def head(
    report: Report,
    writer: str,
    image: int,
    *,
    sop_class: str,
    modality: str,
    series_number: int,
    description: str,
) -> Dataset:
    """SOP Common, Series and General Equipment (PS3.3 C.12.1, C.7.3.1, C.7.5.1), without times and patient."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = result_uid(report, writer, "", image)
    dataset.SeriesInstanceUID = series_uid(result_uid(report, writer, ""))
    dataset.SeriesNumber = series_number
    dataset.SeriesDescription = description
    dataset.Modality = modality
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MANUFACTURER
    dataset.SoftwareVersions = software_version()
    dataset.DeviceSerialNumber = serial_number(report.card)
    return dataset


def coded(code: Code) -> Dataset:
    """A code sequence's item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item
