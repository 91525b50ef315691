"""Hilum's results in a real PACS: there, equal, once, and fast."""

import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from peers.results import add, picture
from peers.servers import Orthanc, running
from pydicom import Dataset, dcmread

from node.deliver.dimse import DimseSender, echo
from node.deliver.outcome import Delivered, Outcome
from node.settings import DimseDestination
from storage.outbox import Delivery
from storage.store import Store

pytestmark = pytest.mark.peer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "data")
    yield store
    store.close()


def destination(peer: Orthanc) -> DimseDestination:
    return DimseDestination(name="pacs", ae_title=peer.ae_title, host="127.0.0.1", port=peer.port)


def claimed(store: Store, dataset: Dataset) -> tuple[Delivery, Path]:
    add(store, dataset, "pacs")
    with store.database.write() as tx:
        delivery = store.outbox.claim(tx, "pacs", "test", 60)
    assert delivery is not None and delivery.file is not None
    return delivery, store.spool.path(delivery.file)


def test_a_result_is_read_back_equal_element_by_element(orthanc: Orthanc, store: Store) -> None:
    dataset = picture(side=400, study="1.2.3.1")
    sender = DimseSender(destination(orthanc), "HILUM")
    assert sender.send(*claimed(store, dataset)) == Delivered("0000")
    sender.rest()
    (instance,) = orthanc.find("1.2.3.1")
    assert dcmread(BytesIO(orthanc.file(instance))) == dataset


def test_the_same_instance_again_is_no_second_one(orthanc: Orthanc, store: Store) -> None:
    delivery, file = claimed(store, picture(study="1.2.3.2"))
    sender = DimseSender(destination(orthanc), "HILUM")
    assert [sender.send(delivery, file) for _ in range(2)] == [Delivered("0000")] * 2
    sender.rest()
    assert len(orthanc.find("1.2.3.2")) == 1


def test_echo_finds_that_it_takes_every_class_of_ours(orthanc: Orthanc) -> None:
    for sr_class in ("comprehensive3d", "comprehensive", "enhanced"):
        asked = destination(orthanc).model_copy(update={"sr_class": sr_class})
        result = echo(asked, "HILUM")
        assert (result.answered, result.accepts) == (True, {"sr": True, "sc": True})


def test_no_result_waits_for_a_delayed_acknowledgement(
    store: Store, program: Callable[[str], str], free_port: Callable[[], int], tmp_path: Path
) -> None:
    """An Orthanc as it comes, with Nagle's algorithm on: 44 ms and more a result, unless we acknowledge at once."""
    with running(
        Orthanc(program("Orthanc"), free_port(), free_port(), tmp_path / "orthanc", environment={})
    ) as peer:
        sender = DimseSender(destination(peer), "HILUM")
        seconds: list[float] = []
        outcomes: list[Outcome] = []
        for _ in range(30):
            delivery, file = claimed(store, picture(side=300))
            began = time.monotonic()
            outcomes.append(sender.send(delivery, file))
            seconds.append(time.monotonic() - began)
        sender.rest()
    assert outcomes == [Delivered("0000")] * 30
    # without it 10 to 20 of the 30 wait
    assert sum(s > 0.040 for s in seconds) <= 6
