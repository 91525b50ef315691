"""The ORU^R01, read by the `hl7` library."""

import copy
import dataclasses

import hl7
import pytest

from node import report
from node.report import InvalidResult
from node.report.oru import OruMessage, escape


def message(made: report.Report) -> hl7.Message:
    (result,) = report.make("oru", made)
    return hl7.parse(result.data.decode())


def observations(parsed: hl7.Message, kind: str) -> list[hl7.Segment]:
    return [obx for obx in parsed.segments("OBX") if str(obx(2)) == kind]


def test_the_header_says_what_it_is(read) -> None:
    parsed = message(read())
    msh = parsed.segment("MSH")
    assert [str(msh(n)) for n in (3, 5, 6, 9, 11, 12, 18)] == [
        "HILUM", "", "", "ORU^R01^ORU_R01", "P", "2.5.1", "UNICODE UTF-8",
    ]  # fmt: skip
    assert len(str(msh(10))) == 20
    assert [str(segment[0]) for segment in parsed][:4] == ["MSH", "PID", "ORC", "OBR"]


def test_a_repeat_has_the_same_control_id_and_another_report_has_another(read) -> None:
    ids = [str(message(read(revision=n)).segment("MSH")(10)) for n in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


def test_patient_and_order_are_the_source_s(read, source) -> None:
    source.PatientName, source.PatientBirthDate = "Phantom^Ada^M^Dr^Jr", "19480312"
    source.IssuerOfPatientID, source.AccessionNumber = "HOSPITAL", "A-1"
    source.StudyDate, source.StudyTime = "20200102", "101112.123456"
    parsed = message(read())
    pid, obr = parsed.segment("PID"), parsed.segment("OBR")
    # suffix before prefix, unlike in DICOM
    assert [str(pid(n)) for n in (3, 5, 7, 8)] == [
        "P-1^^^HOSPITAL", "Phantom^Ada^M^Jr^Dr", "19480312", "F",
    ]  # fmt: skip
    (result,) = report.make("oru", read())
    assert str(obr(3)) == str(parsed.segment("ORC")(3)) == f"{result.sop_instance}^HILUM"
    assert [str(obr(n)) for n in (4, 7, 18, 25)] == [
        "399208008^Plain chest X-ray^SCT", "20200102101112.1234", "A-1", "P",
    ]  # fmt: skip


def test_separators_in_values_are_escaped_and_come_back(read, source) -> None:
    source.PatientID, source.PatientName, source.AccessionNumber = "P|1^2&3~4#5", "O|Hara & Co~^Ada", "A|^~&1"
    parsed = message(read())
    pid = parsed.segment("PID")
    assert len(parsed.segments("PID")) == 1
    assert parsed.unescape(str(pid(3))) == "P|1^2&3~4#5"
    assert [parsed.unescape(part) for part in str(pid(5)).split("^")] == ["O|Hara & Co~", "Ada"]
    assert parsed.unescape(str(parsed.segment("OBR")(18))) == "A|^~&1"
    # a DICOM value has no backslash; a card may
    assert escape("a\\b|c") == r"a\E\b\F\c" and escape("one\r\ntwo\x0b\x1c") == r"one\.br\two"


def test_a_line_break_in_the_card_makes_no_segment(read, card) -> None:
    parsed = message(read(card=dataclasses.replace(card, limits="One.\r\nPID|1||P-2\nThree.\x0b\x1c")))
    assert len(parsed.segments("PID")) == 1
    assert any(r"One. PID\F\1\F\\F\P-2 Three." in str(o(5)) for o in observations(parsed, "TX"))
    assert "\x0b" not in str(parsed) and "\x1c" not in str(parsed)


def test_each_finding_has_a_presence_and_a_score_with_its_threshold(read) -> None:
    parsed = message(read())
    presence, scores = observations(parsed, "CWE"), observations(parsed, "NM")
    assert [tuple(str(o(n)) for n in (3, 4, 5, 8)) for o in presence[1:3]] == [
        ("60046008^Pleural effusion^SCT", "1.2", "52101004^Present^SCT", "A"),
        ("46621007^Atelectasis^SCT", "1.3", "272519000^Absent^SCT", "N"),
    ]
    assert [tuple(str(o(n)) for n in (3, 4, 5, 7, 8)) for o in scores[1:3]] == [
        ("60046008^Pleural effusion^SCT", "1.2.1", "0.6100", "<0.5000", "A"),
        ("46621007^Atelectasis^SCT", "1.3.1", "0.1200", "<0.5000", "N"),
    ]
    assert {str(o(11)) for o in parsed.segments("OBX")} == {"P"}


def test_the_headline_comes_first_and_what_it_must_not_be_used_for_second(read, source) -> None:
    parsed = message(read())
    first, second = observations(parsed, "TX")[:2]
    assert str(first(5)) == "Findings above threshold: Lung Opacity 0.83, Effusion 0.61."
    assert "for research use only" in str(second(5))
    assert [str(o(5)) for o in observations(parsed, "ST")] == [
        source.StudyInstanceUID,
        source.SOPInstanceUID,
    ]


def test_a_study_s_images_are_told_apart(read, source) -> None:
    other = copy.deepcopy(source)
    other.SOPInstanceUID = "2.25.7"
    whole = read()
    whole = dataclasses.replace(whole, readings=(whole.first, dataclasses.replace(whole.first, source=other)))
    parsed = message(whole)
    assert [(str(o(4)), str(o(5))) for o in observations(parsed, "ST")[1:]] == [
        ("1", source.SOPInstanceUID),
        ("2", "2.25.7"),
    ]
    subs = [str(o(4)) for o in observations(parsed, "NM") + observations(parsed, "CWE")]
    assert len(set(subs)) == len(subs) == 16
    assert [str(o(1)) for o in parsed.segments("OBX")] == [
        str(n + 1) for n in range(len(parsed.segments("OBX")))
    ]


@pytest.mark.parametrize("empty", ["PatientID", "PatientName", "AccessionNumber", "StudyDate", "StudyTime"])
def test_what_the_source_does_not_say_stays_empty(read, source, empty) -> None:
    setattr(source, empty, "")
    parsed = message(read())
    segment, field = {
        "PatientID": ("PID", 3), "PatientName": ("PID", 5), "AccessionNumber": ("OBR", 18), "StudyDate": ("OBR", 7),
        "StudyTime": ("OBR", 7),
    }[empty]  # fmt: skip
    assert str(parsed.segment(segment)(field)) == ("20000101" if empty == "StudyTime" else "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("PID|1||P-1", "PID|1||P-2"),
        ("|RAD|P", "|RAD|F"),
        ("110180^Study Instance UID^DCM||2.25", "110180^Study Instance UID^DCM||2.26"),
        ("research use only", "use"),
        ("52101004^Present", "272519000^Absent"),
        ("OBR|", "ZZZ|"),
        ("MSH|", "XXX|"),
    ],
)
def test_the_check_stops_what_is_wrong(read, old, new) -> None:
    text = report.make("oru", read())[0].data.decode()
    assert old in text
    with pytest.raises(InvalidResult):
        OruMessage().check(text.replace(old, new).encode(), read())
