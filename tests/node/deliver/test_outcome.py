"""The table of answers: each status of a peer has one meaning."""

import pytest

from node.deliver.outcome import Delivered, Parked, Postponed, of_status


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0x0000, Delivered),
        (0x0111, Delivered),
        (0xB000, Delivered),
        (0xB006, Delivered),
        (0xB007, Delivered),
        (0xA700, Postponed),
        (0xA701, Postponed),
        (0xA7FF, Postponed),
        (0x0001, Parked),
        (0x0110, Parked),
        (0x0117, Parked),
        (0x0122, Parked),
        (0x0124, Parked),
        (0x0211, Parked),
        (0xA800, Parked),
        (0xA900, Parked),
        (0xB100, Parked),
        (0xC000, Parked),
        (0xCFFF, Parked),
        (0xFE00, Parked),
    ],
)
def test_each_status_means_one_thing(status: int, kind: type) -> None:
    assert isinstance(of_status(status), kind)


def test_the_status_is_kept_with_a_warning() -> None:
    assert of_status(0xB007) == Delivered("B007")


def test_a_parked_delivery_says_what_was_answered() -> None:
    assert of_status(0xC123) == Parked("the destination answered C123 (cannot understand)")
