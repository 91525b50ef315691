"""Which image gets a result, and what a radiographer reads where there is none."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from model.guard import Scoped
from model.header import quietly
from model.pixels import Image
from model.scope import (
    DX_FOR_PRESENTATION,
    RULES,
    SECONDARY_CAPTURE,
    STORED,
    Policy,
    age_in_years,
    doubt,
    flagged,
    judge,
    judge_looks,
    judge_picture,
    with_age,
)
from model.stored_only import stored_only

ANALYZE_ALL = Policy(unknown_body_part="analyze", unknown_view="analyze")


def chest(**changes: Any) -> Dataset:
    """A frontal chest radiograph of an adult; None takes an attribute away."""
    said: dict[str, Any] = {
        "SOPClassUID": DX_FOR_PRESENTATION, "Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA",
        "PatientAge": "065Y", "StudyDate": "20250314", "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1,
        "Rows": 256, "Columns": 256, "BitsAllocated": 8,
    }  # fmt: skip
    dataset = Dataset()
    with quietly():
        for keyword, value in {**said, **changes}.items():
            if value is not None:
                setattr(dataset, keyword, value)
    return dataset


def code(value: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return Sequence([item])


def maker(name: str) -> Sequence:
    item = Dataset()
    item.Manufacturer = name
    return Sequence([item])


def test_the_document_lists_the_rules_that_the_code_asks() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scope.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z-]+)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
    print("\n".join(f"{rule.name}: {rule.says}" for rule in RULES))
    assert [(name, says) for name, says, _ in listed] == [
        (rule.name, rule.says.removesuffix(": stored only")) for rule in RULES
    ]


def test_a_frontal_chest_is_analyzed() -> None:
    assert judge(chest(), Policy()) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"BodyPartExamined": "HAND"}, "Not a chest radiograph (hand): stored, not analyzed"),
        ({"ViewPosition": "LL"}, "Lateral view: stored, not analyzed"),
        ({"ViewPosition": "LLD"}, "Decubitus view: stored, not analyzed"),
        ({"ViewPosition": "RAO"}, "Oblique view: stored, not analyzed"),
        ({"Modality": "CT"}, "Modality says CT, not CR, DX or RG: stored, not analyzed"),
        ({"QualityControlImage": "YES"}, "Quality-control exposure: stored, not analyzed"),
        ({"PatientSpeciesDescription": "Canine"}, "Animal study: stored, not analyzed"),
        ({"ProtocolName": "EQUINE THORAX"}, "Animal study: stored, not analyzed"),
        (
            {"PatientOrientation": ["A", "F"]},
            "Patient Orientation says that this is no frontal view: stored, not analyzed",
        ),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "Not a plain radiograph (CT): stored, not analyzed"),
    ],
)  # fmt: skip
def test_the_reason_is_in_plain_words(changes: dict[str, Any], reason: str) -> None:
    assert judge(chest(**changes), Policy()) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"BodyPartExamined": " chest "},
        {"BodyPartExamined": None, "AnatomicRegionSequence": code("51185008", "Chest")},
        {"BodyPartExamined": None, "StudyDescription": "Tórax p.a."},
        {"ViewPosition": None, "ViewCodeSequence": code("272479007", "postero-anterior")},
        {"ViewPosition": None, "PatientPosition": "AP"},
        {"ViewPosition": None, "SeriesDescription": "CHEST PA ERECT"},
        {"StudyDescription": "XR chest PA and lateral"},
        {"StudyDescription": "Chest and abdomen"},
        {"PatientSpeciesCodeSequence": code("337915000", "homo sapiens")},
        {"PatientOrientation": ["F", "L"]},
        {"PatientAge": None, "PatientBirthDate": "1960.02.29"},
        {"PatientAge": None, "PatientBirthDate": "20990101"},
    ],
)
def test_what_says_frontal_chest_in_another_way_is_analyzed(changes: dict[str, Any]) -> None:
    assert judge(chest(**changes), Policy()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"BodyPartExamined": None},
        {"BodyPartExamined": "MYSTERY"},
        {"ViewPosition": "XX"},
        {"ViewPosition": "P A"},
        {"ViewPosition": None, "StudyDescription": "XR chest PA and lateral"},
        {"SeriesDescription": "Chest lateral"},
        {"StudyDescription": "Right knee"},
    ],
)
def test_silence_and_contradiction_go_the_sites_way(changes: dict[str, Any]) -> None:
    assert judge(chest(**changes), Policy()) is not None
    assert judge(chest(**changes), ANALYZE_ALL) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"BodyPartExamined": "HAND", "StudyDescription": "Chest"},
        {"BodyPartExamined": "RIBCAGE"},
        {"ViewPosition": "LATERAL", "SeriesDescription": "Chest PA"},
        {"ViewPosition": "XX", "SeriesDescription": "CHEST LAT"},
        {"SOPClassUID": SECONDARY_CAPTURE, "BodyPartExamined": None},
        {"SOPClassUID": SECONDARY_CAPTURE, "ViewPosition": None},
        {"SOPClassUID": SECONDARY_CAPTURE, "Modality": "OT"},
    ],
)
def test_a_no_stays_a_no_at_any_site(changes: dict[str, Any]) -> None:
    assert judge(chest(**changes), ANALYZE_ALL) is not None


def test_a_site_adds_its_own_words() -> None:
    site = Policy(chest_words=("pulmones",), other_view_words=("apical",))
    assert judge(chest(BodyPartExamined="PULMONES"), site) is None
    assert judge(chest(ViewPosition="APICAL"), site) == "Special view: stored, not analyzed"


@pytest.mark.parametrize(
    ("age", "born", "years"),
    [
        ("081Y", "", 81), ("81", "", 81), ("024M", "", 2), ("", "20190301", 6), ("", "20190315", 5),
        ("414Y", "19600229", 65), ("", "20990101", None), ("", "", None), ("old", "1960.02.29", 65),
    ],
)  # fmt: skip
def test_age_is_read_as_people_write_it(age: str, born: str, years: float | None) -> None:
    assert age_in_years(chest(PatientAge=age, PatientBirthDate=born)) == years


def test_children_are_left_to_their_own_models() -> None:
    assert judge(chest(PatientAge="017Y"), Policy()) is not None
    assert judge(chest(PatientAge="017Y"), Policy(min_age=16)) is None
    assert judge(chest(PatientAge=None), Policy(unknown_age="skip")) is not None


def test_what_the_header_leaves_open_may_be_the_guards_to_decide_but_a_no_of_the_header_stays() -> None:
    site = Policy(unknown_view="model", unknown_body_part="model", unknown_age="model")
    for open_ in ({"ViewPosition": None}, {"BodyPartExamined": None}, {"PatientAge": None}):
        silent = chest(SeriesDescription=None, StudyDescription=None, ProtocolName=None, **open_)
        assert doubt(silent, site) == judge(silent, site) is not None
        assert doubt(silent, Policy()) is None
    assert doubt(chest(), site) is None
    for no in ({"ViewPosition": "LATERAL"}, {"PatientAge": "007Y"}, {"Modality": "CT"}):
        assert judge(chest(**no), site) and doubt(chest(**no), site) is None
    # a Secondary Capture must say it itself
    assert doubt(chest(ViewPosition=None, SOPClassUID=SECONDARY_CAPTURE), site) is None


def test_a_strange_picture_is_skipped_with_the_guards_reason_and_the_headers() -> None:
    strange = Scoped(0.9, True, "rotated", "The picture looks turned: stored, not analyzed")
    said = "Age not stated: stored, not analyzed (site rule)"
    assert judge_looks(Scoped(0.1, False), said) is None
    assert judge_looks(strange) == strange.reason
    assert judge_looks(strange, said) == "Age not stated. The picture looks turned: stored, not analyzed"
    assert (
        judge_looks(Scoped(0.9, True))
        == "The picture looks unlike those that the model was made for" + STORED
    )
    assert flagged(strange) == "The picture looks turned: its scores may mean nothing."
    assert flagged(Scoped(0.1, False)) == ""


def test_our_own_result_is_known_by_any_of_its_marks() -> None:
    marked = chest()
    marked.private_block(0x0099, "HILUM", create=True).add_new(1, "LO", "sha256")
    for result in (
        marked,
        chest(ContributingEquipmentSequence=maker("Hilum")),
        chest(Manufacturer="Hilum"),
        chest(ManufacturerModelName="HILUM "),
    ):
        assert judge(result, ANALYZE_ALL) == "A result of Hilum: stored, never analyzed"
    assert judge(chest(ContributingEquipmentSequence=maker("PACS Router")), Policy()) is None


@pytest.mark.parametrize(
    ("sop_class", "intent", "stored"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.33", "", True),  # Comprehensive SR
        ("1.2.840.10008.5.1.4.1.1.104.1", "", True),  # PDF
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "", True),  # ECG
        ("1.2.840.10008.5.1.4.1.1.481.5", "", True),  # RT Plan
        ("1.2.840.10008.5.1.4.1.1.1.1.1", "", True),  # DX For Processing
        (DX_FOR_PRESENTATION, "for processing", True),
        (DX_FOR_PRESENTATION, "FOR PRESENTATION", False),
        ("1.2.840.10008.5.1.4.1.1.481.2", "", False),  # RT Dose: has pixels
        ("1.2.840.10008.5.1.4.1.1.66.4", "", False),  # Segmentation
        ("1.3.12.2.1107.5.9.1", "", False),  # private: a job says why it is skipped
    ],
)
def test_what_is_no_image_by_its_class_gets_no_job(sop_class: str, intent: str, stored: bool) -> None:
    assert (stored_only(sop_class, intent) is not None) is stored


def test_a_reason_never_quotes_free_text() -> None:
    secret = chest(Modality="JONES^MARY", BodyPartExamined="JONES HAND", StudyDescription="JONES chest")
    assert "JONES" not in str(judge(secret, Policy())).upper()
    del secret.Modality
    secret.Modality = "DX"
    assert "JONES" not in str(judge(secret, Policy())).upper()


def test_a_blank_picture_is_told_from_a_faint_one() -> None:
    assert (
        judge_picture(Image(np.full((200, 200), 0.5, np.float32)))
        == "The image is blank: stored, not analyzed"
    )
    faint = np.tile(np.linspace(0.4, 0.6, 200, dtype=np.float32), (200, 1))
    assert judge_picture(Image(faint)) is None


def test_an_age_in_the_header_goes_before_what_a_picture_looks_like() -> None:
    child = Scoped(
        0.8, True, "child", "The patient looks like a child: stored, not analyzed", Scoped(0.1, False)
    )
    stated, silent, impossible = Dataset(), Dataset(), Dataset()
    stated.PatientAge, impossible.PatientAge = "054Y", "999Y"

    assert not with_age(child, stated).is_strange
    assert with_age(child, silent) is child
    assert with_age(child, impossible) is child
    rotated = Scoped(0.9, True, "rotated", "The picture looks rotated: stored, not analyzed")
    assert with_age(rotated, stated) is rotated
