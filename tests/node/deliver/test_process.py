"""The deliverer as the process that it is: started, stopped, killed at the worst moment."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers.node import until
from peers.results import add, encoded, picture
from peers.servers import Storescp, running
from pydicom import dcmread

from node.settings import DimseDestination, FolderDestination, Node, Settings
from node.wakeup import notify
from storage.audit import Filter
from storage.outbox import Delivery
from storage.store import Store

Start = Callable[[Settings], Any]


def settings(store: Store, *destinations: DimseDestination | FolderDestination) -> Settings:
    return Settings(node=Node(data_dir=store.spool.root), destinations=destinations)


def deliveries(store: Store) -> list[Delivery]:
    with store.database.read() as tx:
        return store.outbox.listing(tx)


def states(store: Store) -> list[str]:
    return [delivery.state for delivery in deliveries(store)]


def count(store: Store, event: str) -> int:
    with store.database.read() as tx:
        return len(store.audit.page(tx, Filter(event=event)))


def test_each_destination_has_its_lane_and_a_stop_is_clean(
    store: Store, pacs: Callable[..., Any], deliverer: Start, tmp_path: Path
) -> None:
    peer, out = pacs(lambda event: 0xC000), tmp_path / "out"
    archive = FolderDestination(name="archive", kind="folder", path=out)
    process = deliverer(settings(store, peer.destination, archive))
    process.start()
    dataset = picture()
    add(store, dataset, "pacs", "archive", "no longer configured")
    began = time.monotonic()
    notify(store.spool.root, "deliverer")
    until(lambda: states(store) == ["parked", "delivered", "waiting"], 10)
    assert time.monotonic() - began < 2.5
    assert (out / f"{dataset.SOPInstanceUID}.dcm").read_bytes() == encoded(dataset)
    code, log = process.stop()
    assert code == 0 and "process='deliverer'" in log and "destination='pacs'" in log
    assert "Unmistakable" not in log and "4711" not in log
    assert list((store.spool.root / "run").iterdir()) == []


def test_a_kill_between_success_and_its_record_sends_the_same_instance_again(
    store: Store, pacs: Callable[..., Any], deliverer: Start
) -> None:
    answered, killed = threading.Event(), threading.Event()

    def answer_and_lock(_event: Any) -> int:
        """From the answer on the deliverer's record has to wait."""
        if not answered.is_set():
            threading.Thread(target=hold).start()
            locked.wait(10)
        return 0x0000

    locked = threading.Event()

    def hold() -> None:
        with store.database.write():
            locked.set()
            killed.wait(20)

    peer = pacs(answer_and_lock)
    dataset = picture()
    add(store, dataset, "pacs")
    process = deliverer(settings(store, peer.destination))
    process.start()
    until(lambda: peer.instances, 10)
    until(lambda: locked.is_set(), 10)
    time.sleep(0.3)
    process.kill()
    answered.set()
    killed.set()
    assert states(store) == ["sending"]
    with store.database.write() as tx:
        assert store.outbox.recover(tx) == 1
    process.start()
    until(lambda: states(store) == ["delivered"], 10)
    assert process.stop()[0] == 0
    assert peer.instances == [str(dataset.SOPInstanceUID)] * 2
    assert len({data for _, _, data in peer.received}) == 1
    assert (count(store, "delivery.attempted"), count(store, "delivery.delivered")) == (2, 1)


def test_a_stop_lets_the_send_in_flight_finish(
    store: Store, pacs: Callable[..., Any], deliverer: Start
) -> None:
    add(store, picture(), "pacs")
    add(store, picture(), "pacs")
    peer = pacs(lambda event: time.sleep(1.5) or 0x0000)
    process = deliverer(settings(store, peer.destination))
    process.start()
    until(lambda: peer.instances, 10)
    assert process.stop()[0] == 0
    assert states(store) == ["delivered", "waiting"]


def test_a_stop_does_not_wait_for_a_peer_that_never_answers(
    store: Store, pacs: Callable[..., Any], deliverer: Start
) -> None:
    never = threading.Event()
    add(store, picture(), "pacs")
    peer = pacs(lambda event: never.wait(30) and 0x0000)
    process = deliverer(settings(store, peer.destination))
    process.start()
    until(lambda: peer.instances, 10)
    began = time.monotonic()
    assert process.stop()[0] == 0
    never.set()
    assert time.monotonic() - began < 8
    assert states(store) == ["sending"]


@pytest.mark.peer
def test_a_pacs_that_dies_and_comes_back_gets_everything_once(
    store: Store,
    deliverer: Start,
    program: Callable[[str], str],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    peer = Storescp(program("storescp"), free_port(), tmp_path / "received")
    destination = DimseDestination(name="pacs", ae_title=peer.ae_title, host="127.0.0.1", port=peer.port)
    process = deliverer(settings(store, destination))
    sent = [picture(side=500) for _ in range(6)]
    with running(peer):
        process.start()
        for dataset in sent[:3]:
            add(store, dataset, "pacs")
        until(lambda: "delivered" in states(store), 10)
        peer.kill()
        for dataset in sent[3:]:
            add(store, dataset, "pacs")
        notify(store.spool.root, "deliverer")
        until(lambda: any(d.state == "waiting" and d.reason for d in deliveries(store)), 10)
        with store.database.read() as tx:
            assert store.outbox.destination_states(tx, ["pacs"])["pacs"].state == "down"
        peer.start()
        until(lambda: set(states(store)) == {"delivered"}, 20)
    assert process.stop()[0] == 0
    received = {str(dcmread(file).SOPInstanceUID): dcmread(file) for file in peer.files}
    assert received == {str(dataset.SOPInstanceUID): dataset for dataset in sent}
    assert count(store, "delivery.delivered") == len(sent)


@pytest.mark.peer
def test_several_associations_at_once_where_the_peer_allows_them(
    store: Store, deliverer: Start, storescp: Storescp
) -> None:
    destination = DimseDestination(
        name="pacs", ae_title=storescp.ae_title, host="127.0.0.1", port=storescp.port, associations=3
    )
    sent = [picture(side=300) for _ in range(30)]
    for dataset in sent:
        add(store, dataset, "pacs")
    process = deliverer(settings(store, destination))
    process.start()
    until(lambda: set(states(store)) == {"delivered"}, 20)
    code, log = process.stop()
    received = {str(dcmread(file).SOPInstanceUID): dcmread(file) for file in storescp.files}
    assert received == {str(dataset.SOPInstanceUID): dataset for dataset in sent}
    assert (code, log.count("not delivered")) == (0, 0)
    assert count(store, "delivery.attempted") == count(store, "delivery.delivered") == len(sent)
    assert storescp.log.read_text(errors="replace").count("Association Received") >= 2


def test_a_delivery_that_comes_without_a_nudge_is_found(
    store: Store, pacs: Callable[..., Any], deliverer: Start
) -> None:
    peer = pacs()
    process = deliverer(settings(store, peer.destination))
    process.start()
    add(store, picture(), "pacs")
    until(lambda: states(store) == ["delivered"], 10)
    assert process.stop()[0] == 0


def test_the_deliverer_loads_neither_a_network_of_neurons_nor_a_dicom_library() -> None:
    unwanted = {"tensorflow", "keras", "highdicom", "pynetdicom", "pydicom", "numpy"}
    code = f"import sys, node.deliver.lanes; print({unwanted} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
