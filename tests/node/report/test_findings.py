"""Codes and sentences."""

from dataclasses import replace

import pytest
from pydicom.sr.codedict import codes
from studies import LABELS

from model import card as cards
from model.card import Temperature
from node.report import findings as words


def verhoeff(number: str) -> bool:
    """SNOMED CT identifiers end in a Verhoeff check digit."""

    def times(a: int, b: int) -> int:
        """The dihedral group of order 10."""
        if a < 5:
            return (a + b) % 5 if b < 5 else (a + b - 5) % 5 + 5
        return (a - b) % 5 + 5 if b < 5 else (a - b) % 5

    turn = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    check = 0
    for place, digit in enumerate(reversed(number)):
        turned = int(digit)
        for _ in range(place % 8):
            turned = turn[turned]
        check = times(check, turned)
    return check == 0


@pytest.mark.parametrize("label", LABELS)
def test_every_label_has_a_code_that_is_what_it_says(label: str) -> None:
    concept = words.concept(label)
    for code in (concept.finding, concept.site):
        assert len(code.meaning) <= 64 and code.meaning.isascii() and len(code.value) <= 16
        if code.scheme == "SCT":
            assert verhoeff(code.value)
        known = {meaning.lower() for value, meaning in _dictionary(code.scheme) if value == code.value}
        assert not known or code.meaning.lower() in known


def _dictionary(scheme: str) -> list[tuple[str, str]]:
    from pydicom.sr._concepts_dict import concepts

    return [(value, row[0]) for rows in concepts.get(scheme, {}).values() for value, row in rows.items()]


def test_the_check_digit_test_would_notice_a_typing_error() -> None:
    assert verhoeff("95436008")
    assert not verhoeff("95436003")


def test_no_two_labels_share_a_code() -> None:
    assert len({words.concept(label).finding[:2] for label in LABELS}) == len(LABELS)


def test_cardiomegaly_is_the_heart_s_and_not_the_fetal_ultrasound_s() -> None:
    assert words.concept("Cardiomegaly").finding.value == "8186001" != codes.SCT.Cardiomegaly.value


def test_the_shipped_model_has_no_label_without_a_code() -> None:
    if not (cards.SHIPPED / cards.CARD).exists():
        pytest.skip("no model is shipped in this tree")
    labels = cards.load(cards.SHIPPED).labels
    assert all(words.concept(label).site != words.CHEST for label in labels)


def test_a_hospital_s_own_label_gets_a_code_of_our_scheme_and_no_foreign_one() -> None:
    short, long = words.concept("Rib fracture"), words.concept("Röntgen: etwas sehr Langes und Seltenes")
    assert short.finding == ("RIBFRACTURE", "99HILUM", "Rib fracture")
    assert len(long.finding.value) == 16 and long.finding.meaning.isascii()


def test_a_score_just_under_its_threshold_is_never_shown_as_equal(finding) -> None:
    assert words.numbers(finding("Mass", 0.4996)) == ("0.4996", "0.5000")
    assert words.numbers(finding("Mass", 0.7)) == ("0.70", "0.50")


def test_the_headline_names_what_is_above_its_threshold_highest_first(finding, card) -> None:
    findings = [finding("Effusion", 0.61), finding("Mass", 0.2), finding("Lung Opacity", 0.83)]
    assert words.headline(findings, card) == "Findings above threshold: Lung Opacity 0.83, Effusion 0.61."
    assert words.headline(findings[1:2], card) == "No finding above threshold."


def test_a_close_call_is_said_and_a_clear_one_is_not(finding, card) -> None:
    clear = replace(finding("Mass", 0.2), low=0.1, high=0.4)
    close = replace(finding("Effusion", 0.52), low=0.41, high=0.6)
    assert words.unsettled([clear, finding("Mass", 0.9)], card) == ""
    said = words.unsettled([clear, close], card)
    assert said.endswith("disagree): Effusion 0.410 to 0.600 (threshold 0.500).")


def test_a_calibrated_score_says_for_which_place_and_an_uncalibrated_one_that_it_is_no_probability(
    finding, card
) -> None:
    assert "uncalibrated" in words.calibration(card)
    assert words.calibration_of(finding("Mass", 0.3), card) == "none, uncalibrated score"
    shares = dict.fromkeys(card.labels, 0.031) | {card.labels[0]: 0.21}
    calibrated = replace(
        card, calibrations=dict.fromkeys(card.labels, Temperature(1.5, -0.2)), prevalence=shares
    )
    assert "3.1 % to 21 % of the images, by finding" in words.calibration(calibrated)
    said = words.calibration_of(finding(card.labels[0], 0.3), calibrated)
    assert said == "temperature, for a prevalence of 21 %"
