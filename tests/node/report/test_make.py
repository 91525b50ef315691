"""One reading, one object: the same bytes each time, marked as ours, and nothing invalid leaves."""

import copy
import dataclasses
import hashlib
import time
from datetime import timedelta
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from node import report
from node.report import InvalidResult
from node.report.check import check

KINDS = [("sr", "comprehensive3d"), ("sr", "comprehensive"), ("sr", "enhanced"), ("sc", "")]


@pytest.mark.parametrize(("name", "variant"), KINDS)
def test_the_same_reading_gives_the_same_bytes_at_any_time(read, name, variant) -> None:
    first = report.make(name, read(), variant)[0]
    time.sleep(0.01)
    assert report.make(name, read(), variant)[0] == first


def test_the_content_hash_is_that_of_the_data_set_bytes(read) -> None:
    result = report.make("sr", read(), "comprehensive3d")[0]
    group = dcmread(BytesIO(result.data)).file_meta.FileMetaInformationGroupLength
    body = result.data[132 + 12 + group :]
    assert result.content_hash == "sha256:" + hashlib.sha256(body).hexdigest()


def test_anything_that_changes_the_object_changes_its_uid(source, read, card, finding) -> None:
    def uid(name="sr", variant="comprehensive3d", **changes) -> str:
        return report.make(name, read(**changes), variant)[0].sop_instance

    few = [finding("Mass", 0.4)]
    other = copy.deepcopy(source)
    other.SOPInstanceUID = "2.25.7"
    uids = [
        uid(),
        uid(variant="enhanced"),
        uid("sc", ""),
        uid(revision=2),
        uid(content_hash="sha256:" + "00" * 32),
        uid(source=other),
        uid(findings=few),
        uid(findings=[dataclasses.replace(few[0], threshold=0.45)]),
        uid(card=dataclasses.replace(card, sha256="sha256:" + "11" * 32)),
        uid(card=dataclasses.replace(card, limits="None known.")),
        uid(timezone=None),
    ]
    assert len(set(uids)) == len(uids)
    assert all(u.startswith("2.25.") and len(u) <= 44 for u in uids)
    assert uid() == uids[0]


def test_a_result_is_known_as_ours_by_each_of_three_marks(read) -> None:
    for name, variant in KINDS:
        found = dcmread(BytesIO(report.make(name, read(), variant)[0].data))
        assert found.private_block(report.PRIVATE_GROUP, "HILUM")[0x01].value == read().first.content_hash
        (equipment,) = found.ContributingEquipmentSequence
        assert equipment.Manufacturer == "Hilum" and equipment.SoftwareVersions
        assert (found.Manufacturer, found.ManufacturerModelName) == ("Hilum", "Hilum")


def test_sr_and_sc_lie_in_the_patient_s_study_in_two_series_of_their_own(source, read) -> None:
    sr, sc = (dcmread(BytesIO(report.make(n, read(), v)[0].data)) for n, v in (KINDS[0], KINDS[3]))
    assert sr.StudyInstanceUID == sc.StudyInstanceUID == source.StudyInstanceUID
    assert len({sr.SeriesInstanceUID, sc.SeriesInstanceUID, source.SeriesInstanceUID}) == 3
    assert (sr.SeriesNumber, sc.SeriesNumber) == (9001, 9002)


def test_creation_times_come_from_the_reading(read) -> None:
    later = read().made_at + timedelta(days=400)
    found = dcmread(BytesIO(report.make("sc", read(made_at=later))[0].data))
    assert found.InstanceCreationDate == found.ContentDate == later.strftime("%Y%m%d")
    assert found.ContributingEquipmentSequence[0].ContributionDateTime == later.strftime(
        "%Y%m%d%H%M%S.%f+0000"
    )


@pytest.mark.parametrize(
    "keyword", ["SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
def test_a_source_that_can_t_be_named_gets_no_result(source, read, keyword) -> None:
    delattr(source, keyword)
    with pytest.raises(InvalidResult, match="UID"):
        report.make("sc", read())[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: setattr(ds, "PatientID", "P-2"), "PatientID"),
        (lambda ds: setattr(ds, "PatientName", "Phantom^Eve"), "PatientName"),
        (lambda ds: setattr(ds, "StudyInstanceUID", "2.25.1"), "StudyInstanceUID"),
        (lambda ds: setattr(ds, "VerificationFlag", "VERIFIED"), "VerificationFlag"),
        (lambda ds: setattr(ds, "SeriesInstanceUID", "1.2.3"), "not ours"),
        (lambda ds: delattr(ds, "CurrentRequestedProcedureEvidenceSequence"), "Evidence"),
        (lambda ds: delattr(ds, "ContributingEquipmentSequence"), "ContributingEquipment"),
        (lambda ds: ds.ContentSequence.pop(1), "research use"),
        (lambda ds: ds.ContentSequence[-1].ContentSequence.pop(), "findings"),
    ],
)
def test_the_check_stops_a_report_that_is_wrong(read, change, reason) -> None:
    found = dcmread(BytesIO(report.make("sr", read(), "comprehensive3d")[0].data))
    change(found)
    with pytest.raises(InvalidResult, match=reason):
        _check(found, read())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2]), "pixels"),
        (lambda ds: setattr(ds, "BurnedInAnnotation", "NO"), "BurnedInAnnotation"),
        (lambda ds: delattr(ds, "SourceImageSequence"), "SourceImageSequence"),
    ],
)
def test_the_check_stops_a_picture_that_is_wrong(read, change, reason) -> None:
    found = dcmread(BytesIO(report.make("sc", read())[0].data))
    change(found)
    with pytest.raises(InvalidResult, match=reason):
        _check(found, read())


def test_the_check_stops_a_file_that_is_cut(read) -> None:
    result = report.make("sc", read())[0]
    with pytest.raises(InvalidResult):
        check(result.data[:-100], result.content_hash, read(), 0, lambda back: None)
    with pytest.raises(InvalidResult):
        check(b"", result.content_hash, read(), 0, lambda back: None)


def _check(found: Dataset, reading) -> None:
    out = BytesIO()
    found.save_as(out)
    data = out.getvalue()
    start = 132 + 12 + dcmread(BytesIO(data)).file_meta.FileMetaInformationGroupLength
    writer = report.WRITERS["sr" if found.Modality == "SR" else "sc"]
    whole = "sha256:" + hashlib.sha256(data[start:]).hexdigest()
    check(data, whole, reading, 0, lambda back: writer.check(back, reading, 0))


def test_a_model_without_findings_makes_no_report(read) -> None:
    with pytest.raises(InvalidResult):
        report.make("sr", read(findings=[]), "comprehensive3d")[0]


def test_an_odd_number_of_pixels_is_padded(read) -> None:
    result = report.make("sc", read(picture=np.zeros((769, 769), np.uint8)))[0]
    assert len(dcmread(BytesIO(result.data)).PixelData) % 2 == 0
