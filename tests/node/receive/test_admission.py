"""Who may associate."""

from ipaddress import ip_address

import pytest

from node.receive import admission
from node.settings import Settings

PEERS = [
    {"ae_title": "CR1", "host": "10.1.2.3"},
    {"ae_title": "PACS", "host": "10.2.0.0/16"},
    {"ae_title": "WARD", "host": "ward.example"},
]
SETTINGS = Settings.model_validate({"receive": {"peers": PEERS, "max_associations": 5}})


def judge(calling: str, host: str, called: str = "HILUM", others: int = 0) -> admission.Rejection | None:
    names = {"ward.example": {ip_address("10.9.9.9")}}
    return admission.judge(SETTINGS, called, calling, host, others, lambda name: names.get(name, set()))


@pytest.mark.parametrize(
    ("calling", "host"),
    [("CR1", "10.1.2.3"), ("CR1 ", "::ffff:10.1.2.3"), ("PACS", "10.2.7.7"), ("WARD", "10.9.9.9")],
)
def test_a_listed_title_at_its_host_is_admitted(calling: str, host: str) -> None:
    assert judge(calling, host) is None


@pytest.mark.parametrize(
    ("calling", "host"),
    [("CR1", "10.1.2.4"), ("PACS", "10.1.2.3"), ("NOBODY", "10.1.2.3"), ("WARD", "fe80::1%eth0")],
)
def test_everybody_else_is_a_calling_title_not_recognized(calling: str, host: str) -> None:
    assert judge(calling, host) == admission.CALLING_UNKNOWN


def test_the_called_title_and_the_number_of_associations_count_too() -> None:
    assert judge("CR1", "10.1.2.3", called="OTHER") == admission.CALLED_UNKNOWN
    assert judge("CR1", "10.1.2.3", others=5) == admission.TOO_MANY


def test_without_peers_everybody_is_admitted() -> None:
    assert admission.judge(Settings(), "HILUM", "ANY", "127.0.0.1", 0) is None
