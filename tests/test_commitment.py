"""Storage commitment with real peers and a real node: Orthanc both ways, and a node that is stopped in between."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from peers.node import RunningNode, running_node, until
from peers.results import add, encoded, picture
from peers.servers import Orthanc, running
from pydicom import Dataset
from pydicom.sequence import Sequence
from pynetdicom import AE, build_role, evt

from model.stored_only import stored_only
from node.deliver.commitment import Committing
from node.deliver.lanes import Lane, sender
from node.receive.accept import Receiver
from node.receive.association import Engine
from node.settings import DimseDestination, Settings
from storage.audit import Filter
from storage.clock import Clock
from storage.store import Store

pytestmark = pytest.mark.peer

PUSH = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"
SC = "1.2.840.10008.5.1.4.1.1.7"

ENGINES = ["hilum", "pynetdicom"]

Ports = Callable[[], int]
Program = Callable[[str], str]


def destination(port: int, ae_title: str = "ORTHANC", **keys: Any) -> str:
    lines = {"name": "pacs", "ae_title": ae_title, "host": "127.0.0.1", "port": port, **keys}
    return "\n[[destinations]]\n" + "".join(f"{key} = {json.dumps(v)}\n" for key, v in lines.items())


def states(node: RunningNode) -> dict[str, int]:
    store = Store.open(node.data)
    with store.database.read() as tx:
        counted = store.outbox.counts(tx)
    store.close()
    return counted


def put(data_dir: Path, count: int) -> list[Dataset]:
    """So many results that wait for `pacs`, in a folder where no node runs yet."""
    store = Store.create(data_dir)
    made = [picture(side=16) for _ in range(count)]
    for dataset in made:
        add(store, dataset, "pacs")
    store.close()
    return made


@pytest.fixture
def hilum_port(free_port: Ports) -> int:
    return free_port()


@pytest.fixture
def pacs(program: Program, free_port: Ports, hilum_port: int, tmp_path: Path) -> Iterator[Orthanc]:
    """An Orthanc that knows where this node listens."""
    modalities = {"hilum": ["HILUM", "127.0.0.1", hilum_port]}
    folder = tmp_path / "orthanc"
    peer = Orthanc(program("Orthanc"), free_port(), free_port(), folder, DicomModalities=modalities)
    with running(peer):
        yield peer


def test_orthanc_commits_to_what_it_was_delivered(pacs: Orthanc, hilum_port: int, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    put(folder / "data", 3)
    config = "min_free_bytes = 0\n[analyze]\nworkers = 0\n" + destination(pacs.port, commitment=True)
    with running_node(folder, config, hilum_port) as node:
        until(lambda: states(node) == {"committed": 3})
        told = node.audit("delivery.committed")
        assert {record["actor"] for record in told} == {"ORTHANC"}
        asked = {record["detail"]["transaction"] for record in node.audit("commitment.requested")}
        assert {record["detail"]["transaction"] for record in told} <= asked
        assert "committed" in node.hilum("deliveries", "list", "--state", "committed")
        status = node.status()
        assert (status["deliveries"]["committed"], status["destinations"]["pacs"]["uncommitted"]) == (3, 0)
    assert len(pacs.find()) == 3


def test_an_orthanc_that_does_not_know_us_is_named_and_what_it_was_delivered_stays_so(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    """Its DicomModalities are empty: it takes the association, and aborts it at the request."""
    put(tmp_path, 1)
    store = Store.open(tmp_path)
    there = DimseDestination(
        name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=orthanc.port, commitment=True
    )
    committing = Committing(there, "HILUM", store, Event())
    out = sender(there, "HILUM")
    lane = Lane("pacs", out, store, "test", Event(), committing=committing)
    while lane.turn() == 0:
        committing.turn()
    out.rest()
    with store.database.read() as tx:
        (delivery,) = store.outbox.listing(tx)
        (refused,) = store.audit.page(tx, Filter(event="commitment.refused"))
    store.close()
    why = "aborted by the peer instead of an answer: is this node among those that it knows?"
    assert (delivery.state, delivery.reason) == ("delivered", f"not committed yet: {why}")
    assert refused.detail["reason"] == why


def test_what_orthanc_has_lost_is_sent_three_times_more_and_then_parked(
    program: Program, free_port: Ports, hilum_port: int, tmp_path: Path
) -> None:
    """An Orthanc that deletes what it has taken, and says so when it is asked."""
    folder = tmp_path / "orthanc"
    folder.mkdir()
    (folder / "lose.lua").write_text("function OnStoredInstance(instance) Delete(instance) end\n")
    ahead = 0.0
    store = Store.create(
        tmp_path / "data",
        clock=Clock(
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=ahead),
            monotonic=lambda: time.monotonic() + ahead,
        ),
    )
    peer = Orthanc(
        program("Orthanc"), free_port(), free_port(), folder,
        DicomModalities={"hilum": ["HILUM", "127.0.0.1", hilum_port]},
        LuaScripts=[str(folder / "lose.lua")],
    )  # fmt: skip
    settings = Settings.model_validate({"receive": {"port": hilum_port}})
    engine = Engine(settings, Receiver(store, settings.receive, "sha256:test", stored_only))
    engine.start()
    add(store, picture(side=16), "pacs")
    sent = 0
    with running(peer):
        there = DimseDestination(
            name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=peer.port, commitment=True
        )
        committing = Committing(there, "HILUM", store, Event())
        out = sender(there, "HILUM")
        lane = Lane("pacs", out, store, "test", Event(), committing=committing)

        def state() -> str:
            with store.database.read() as tx:
                (delivery,) = store.outbox.listing(tx)
            return delivery.state

        while state() != "parked":
            while lane.turn() == 0:
                sent += 1
            out.rest()
            assert state() == "delivered"
            until(lambda: not peer.find())
            committing.turn()
            until(lambda: state() != "delivered", 20)
            ahead += 1000
    engine.stop(2)
    with store.database.read() as tx:
        (delivery,) = store.outbox.listing(tx)
        failed = store.audit.page(tx, Filter(event="commitment.failed"))
        committed = store.audit.page(tx, Filter(event="delivery.committed"))
    store.close()
    assert sent == 4 and delivery.attempt == 4 and len(failed) == 4 and not committed
    assert delivery.reason == "delivered, not committed: 0112 (no such object there)"


def ask_hilum(pacs: Orthanc, *instances: tuple[str, str]) -> dict[str, Any]:
    """Orthanc asks this node to commit; what it has heard in the end."""
    wanted = {"DicomInstances": [{"SOPClassUID": c, "SOPInstanceUID": i} for c, i in instances]}
    asked = json.loads(pacs.post("/modalities/hilum/storage-commitment", json.dumps(wanted).encode()))
    answer: dict[str, Any] = {}

    def heard() -> bool:
        answer.update(json.loads(pacs.get(asked["Path"])))
        return answer["Status"] != "Pending"

    until(heard, 30)
    return answer


@pytest.mark.parametrize("engine", ENGINES)
def test_orthanc_hears_what_is_kept_and_what_is_not(
    pacs: Orthanc, hilum_port: int, tmp_path: Path, engine: str
) -> None:
    """Its address is known from the destination of the same AE title."""
    config = f'engine = "{engine}"\nmin_free_bytes = 0\n[analyze]\nworkers = 0\n' + destination(pacs.port)
    with running_node(tmp_path / "node", config, hilum_port) as node:
        dataset = picture(side=16)
        instance = json.loads(pacs.post("/instances", encoded(dataset)))["ID"]
        pacs.post("/modalities/hilum/store", instance.encode())
        here = (SC, str(dataset.SOPInstanceUID))
        answer = ask_hilum(pacs, here)
        assert (answer["Status"], len(answer["Success"]), answer["Failures"]) == ("Success", 1, [])
        answer = ask_hilum(pacs, here, (SC, "1.2.3.4"), ("1.2.840.10008.5.1.4.1.1.1", here[1]))
        assert answer["Status"] == "Failure" and [s["SOPInstanceUID"] for s in answer["Success"]] == [here[1]]
        assert sorted(f["FailureReason"] for f in answer["Failures"]) == [0x0112, 0x0119]
        assert {r["actor"] for r in node.audit("commitment.asked")} == {"ORTHANC"}
        assert [r["outcome"] for r in node.audit("commitment.reported")] == ["success", "success"]


def test_a_report_that_comes_after_a_restart_commits(
    free_port: Ports, hilum_port: int, tmp_path: Path
) -> None:
    """Between the request and the report both processes of ours are gone."""
    asked: list[Dataset] = []

    def action(event: evt.Event) -> Any:
        asked.append(event.action_information)
        return 0x0000, None

    ae = AE(ae_title="PACS")
    ae.add_supported_context(SC, ["1.2.840.10008.1.2.1"])
    ae.add_supported_context(PUSH, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_N_ACTION, action), (evt.EVT_C_STORE, lambda event: 0x0000)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    port = server.socket.getsockname()[1]
    folder = tmp_path / "node"
    put(folder / "data", 2)
    config = "min_free_bytes = 0\n[analyze]\nworkers = 0\n" + destination(port, "PACS", commitment=True)
    try:
        with running_node(folder, config, hilum_port) as node:
            until(lambda: sum(len(a.ReferencedSOPSequence) for a in asked) == 2, 30)
            until(lambda: states(node) == {"delivered": 2}, 30)
            node.kill_everything()
            node.start()
            assert states(node) == {"delivered": 2}
            assert node.status()["destinations"]["pacs"]["uncommitted"] == 2
            for one in asked:
                assert reported(hilum_port, one) == 0
            assert states(node) == {"committed": 2}
    finally:
        server.shutdown()


def reported(port: int, asked: Dataset) -> int:
    told = Dataset()
    told.TransactionUID = asked.TransactionUID
    told.ReferencedSOPSequence = Sequence(asked.ReferencedSOPSequence)
    ae = AE(ae_title="PACS")
    ae.add_requested_context(PUSH)
    assoc = ae.associate(
        "127.0.0.1", port, ae_title="HILUM", ext_neg=[build_role(PUSH, scu_role=False, scp_role=True)]
    )
    assert assoc.is_established
    status, _ = assoc.send_n_event_report(told, 1, PUSH, INSTANCE)
    assoc.release()
    return int(status.Status)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_peer_whose_port_is_unknown_hears_it_on_its_own_association(
    hilum_port: int, tmp_path: Path, engine: str
) -> None:
    """pynetdicom as the modality: it stores, asks, and is told before it releases; 20,000 instances at once."""
    heard: list[Dataset] = []
    told = Event()

    def report(event: evt.Event) -> Any:
        heard.append(event.event_information)
        return 0x0000, None

    def sent(_event: evt.Event) -> None:
        """What is sent after the report is its answer. A release that overtakes it ends pynetdicom's thread."""
        if heard:
            told.set()

    dataset = picture(side=16)
    encoded(dataset)
    wanted = Dataset()
    wanted.TransactionUID = "1.2.3.99"
    wanted.ReferencedSOPSequence = Sequence()
    for instance in [str(dataset.SOPInstanceUID), *(f"1.2.3.{n}" for n in range(20_000))]:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = SC, instance
        wanted.ReferencedSOPSequence.append(item)
    config = f'engine = "{engine}"\nmin_free_bytes = 0\n[analyze]\nworkers = 0\n'
    with running_node(tmp_path / "node", config, hilum_port):
        ae = AE(ae_title="MODALITY")
        ae.add_requested_context(SC, "1.2.840.10008.1.2.1")
        ae.add_requested_context(PUSH)
        handlers = [(evt.EVT_N_EVENT_REPORT, report), (evt.EVT_PDU_SENT, sent)]
        assoc = ae.associate("127.0.0.1", hilum_port, ae_title="HILUM", evt_handlers=handlers)
        assert assoc.send_c_store(dataset).Status == 0
        status, _ = assoc.send_n_action(wanted, 1, PUSH, INSTANCE)
        assert status.Status == 0
        assert told.wait(60)
        assoc.release()
    (ds,) = heard
    assert [i.ReferencedSOPInstanceUID for i in ds.ReferencedSOPSequence] == [dataset.SOPInstanceUID]
    assert len(ds.FailedSOPSequence) == 20_000


def test_the_receiver_still_loads_no_dicom_library_for_it() -> None:
    code = "import sys, node.receive.commitment, node.wire.commitment; print('pydicom' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
