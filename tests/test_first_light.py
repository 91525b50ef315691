"""The main job, on real input with real peers: an X-ray goes in by C-STORE, an SR and an SC come out at the PACS."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from peers.node import RunningNode, running_node, send, until
from peers.servers import Orthanc, Storescp

from storage.audit import OF_NAME
from storage.audit.events import ALWAYS

pytestmark = pytest.mark.peer

SR = "1.2.840.10008.5.1.4.1.1.88.34"
SC = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture(scope="module")
def chest(shared_data: Path) -> list[Path]:
    """Real radiographs; of the two that are the same instance, one."""
    return sorted((shared_data / "dicom/chest").glob("rsna_*.dcm"))[:4]


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory,
    orthanc: Orthanc,
    storescp: Storescp,
    free_port: Callable[[], int],
) -> Iterator[RunningNode]:
    config = f"""
    min_free_bytes = 0
    [[destinations]]
    name = "pacs"
    ae_title = "{orthanc.ae_title}"
    host = "127.0.0.1"
    port = {orthanc.port}
    [[destinations]]
    name = "second"
    ae_title = "{storescp.ae_title}"
    host = "127.0.0.1"
    port = {storescp.port}
    sr_class = "comprehensive"
    """
    with running_node(tmp_path_factory.mktemp("node"), config, free_port()) as node:
        yield node


@pytest.fixture(scope="module")
def sent(node: RunningNode, chest: list[Path], program: Callable[[str], str]) -> list[pydicom.Dataset]:
    done = send(program("storescu"), node.port, chest, "-xy")
    assert done.returncode == 0, done.stdout + done.stderr
    until(node.settled)
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in chest]


def results_in(orthanc: Orthanc, source: pydicom.Dataset, sop_class: str) -> list[pydicom.Dataset]:
    """What of that class lies in the PACS in the source's study and was made from it."""
    found = []
    for instance in orthanc.find(source.StudyInstanceUID):
        dataset = pydicom.dcmread(BytesIO(orthanc.file(instance)))
        if dataset.SOPClassUID == sop_class:
            found.append(dataset)
    return found


def test_each_image_has_one_sr_and_one_sc_in_the_pacs(sent: list[pydicom.Dataset], orthanc: Orthanc) -> None:
    for source in sent:
        for sop_class in (SR, SC):
            (result,) = results_in(orthanc, source, sop_class)
            assert (result.PatientID, result.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
            assert result.SeriesInstanceUID != source.SeriesInstanceUID


def test_the_sr_read_back_from_the_pacs_is_valid_and_says_what_it_is(
    sent: list[pydicom.Dataset], orthanc: Orthanc, program: Callable[[str], str], tmp_path: Path
) -> None:
    (result,) = results_in(orthanc, sent[0], SR)
    file = tmp_path / "sr.dcm"
    result.save_as(file)
    dump = subprocess.run([program("dsrdump"), "+U8", "+Pl", "+Pu", file], capture_output=True, text=True)
    assert dump.returncode == 0, dump.stderr
    for words in ("Hilum", "Not a diagnosis", "research use", "Pneumothorax", str(sent[0].SOPInstanceUID)):
        assert words in dump.stdout
    verdict = subprocess.run([program("dciodvfy"), file], capture_output=True, text=True, errors="replace")
    assert not [line for line in verdict.stderr.splitlines() if line.startswith("Error")]


def test_the_second_destination_has_the_sr_class_that_it_asked_for(
    sent: list[pydicom.Dataset], storescp: Storescp
) -> None:
    classes = [pydicom.dcmread(f, stop_before_pixels=True).SOPClassUID for f in storescp.folder.iterdir()]
    assert sorted(classes) == sorted([SC, "1.2.840.10008.5.1.4.1.1.88.33"] * len(sent))


def test_each_step_stands_in_the_audit_log(sent: list[pydicom.Dataset], node: RunningNode) -> None:
    story = [record["event"] for record in node.audit() if record["sop"] == sent[0].SOPInstanceUID]
    assert story[:5] == ["object.received", "job.queued", "job.claimed", "job.analyzed", "result.made"]
    assert story.count("result.made") == 3  # an SR of each class, and the SC
    assert story.count("delivery.attempted") == story.count("delivery.delivered") == 4
    for record in node.audit():
        assert set(record["detail"]) <= {*OF_NAME[record["event"]].details, *ALWAYS}, record


def test_a_trace_tells_the_story_to_its_end(sent: list[pydicom.Dataset], node: RunningNode) -> None:
    trace = json.loads(node.hilum("audit", "trace", str(sent[0].SOPInstanceUID), "--format", "json"))
    (study,) = trace["studies"]
    assert study["state"].startswith("Delivered everywhere")
    assert study["counts"]["delivered"] == {"pacs": 2, "second": 2}
    (image,) = study["images"]
    told = [step["text"] for step in image["steps"]]
    assert told[0].startswith("received in ") and told[1].startswith("read by worker-1, attempt 1, in ")
    assert sum("acknowledged it" in text for text in told) == 4
    assert 0 < study["seconds"] < 60


def test_status_tells_that_all_is_well(sent: list[pydicom.Dataset], node: RunningNode) -> None:
    status = node.status()
    assert status["node"] == "running"
    assert status["received"] == len(sent)
    assert status["workers"] == {"ready": 1, "wanted": 1}
    assert {d["state"] for d in status["destinations"].values()} == {"up"}


def test_a_result_that_comes_back_makes_no_second_one(
    sent: list[pydicom.Dataset],
    node: RunningNode,
    orthanc: Orthanc,
    program: Callable[[str], str],
    tmp_path: Path,
) -> None:
    for number, sop_class in enumerate((SR, SC)):
        (result,) = results_in(orthanc, sent[0], sop_class)
        file = tmp_path / f"{number}.dcm"
        result.save_as(file)
        assert send(program("storescu"), node.port, [file]).returncode == 0
    until(node.settled)
    assert node.status()["jobs"]["done"] == len(sent)
    assert len(results_in(orthanc, sent[0], SR)) == 1


def test_analyze_gives_the_same_scores_without_a_network(
    sent: list[pydicom.Dataset], node: RunningNode, chest: list[Path]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", "analyze", "--json", str(chest[0])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == "analyzed" and told["sop_instance_uid"] == sent[0].SOPInstanceUID
    (analyzed,) = [r for r in node.audit("job.analyzed") if r["sop"] == sent[0].SOPInstanceUID]
    detail = analyzed["detail"] if isinstance(analyzed["detail"], dict) else json.loads(analyzed["detail"])
    assert detail["over_threshold"] == [f["label"] for f in told["findings"] if f["present"]]
