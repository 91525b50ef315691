"""Names and numbers of patients stay in the spool and in the audit log's identities, whatever becomes of their images.

One node gets images that are analyzed, skipped, parked, refused and conflicting, all of them full of unmistakable
words; afterwards these are looked for in everything that an administrator, a log collector or another user of the
machine could see.
"""

import base64
import copy
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from peers.node import RunningNode, running_node, until
from peers.raw_sender import Sender
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

import node
from model import phantom
from node.report.adopt import recognize

pytestmark = [pytest.mark.timeout(400)]

DX = b"1.2.840.10008.5.1.4.1.1.1.1"
# what stands in the headers; each word is found nowhere else
SECRETS = (
    "Zwetschgenhuber", "Ottokar", "PX77314QZ", "ACCQ55812", "19510223", "1951-02-23", "Quastenflosser",
    "Krumme Gasse", "Quittenmus", "Pflaumenklinik", "Birnbaum", "QUITTE",
)  # fmt: skip


def forms(secret: str) -> list[bytes]:
    """What it looks like where somebody has printed, dumped or encoded it; in lower case, as it is searched for."""
    plain = [secret.encode(), secret.encode("utf-16-le"), secret.upper().encode(), secret.lower().encode()]
    # of Base64 only whole triples that stand alone are found
    encoded = [base64.b64encode(p[: len(p) // 3 * 3]) for p in plain]
    return [form.lower() for form in {*plain, *encoded, *(p.hex().encode() for p in plain)}]


FORMS = {secret: forms(secret) for secret in SECRETS}


def told(where: str, content: bytes) -> list[str]:
    """The secrets that stand in it."""
    lower = content.lower()
    return [f"{where}: {secret}" for secret, looks in FORMS.items() if any(look in lower for look in looks)]


@cache
def picture() -> pydicom.Dataset:
    return phantom.draw(1, patch=False)


def chest(number: int, **changes: str) -> pydicom.Dataset:
    """A chest with every place of the header that may name somebody filled in."""
    dataset = copy.deepcopy(picture())
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(dataset, keyword, f"{dataset[keyword].value[:40]}.{number}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    # codes would decide before words do
    del dataset.AnatomicRegionSequence, dataset.ViewCodeSequence
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.PatientName = "Zwetschgenhuber^Ottokar"
    dataset.PatientID = f"PX77314QZ-{number}"
    dataset.OtherPatientIDs = "PX77314QZ-OTHER"
    dataset.PatientBirthDate = "19510223"
    dataset.PatientAge = "070Y"
    dataset.AccessionNumber = "ACCQ55812"
    dataset.ReferringPhysicianName = "Quastenflosser^Ida"
    dataset.PatientAddress = "Krumme Gasse 7"
    dataset.PatientComments = dataset.ImageComments = "Likes Quittenmus"
    dataset.InstitutionName = "Pflaumenklinik"
    dataset.OperatorsName = "Birnbaum^Edda"
    dataset.StudyDescription = "Chest, Quittenmus"
    with pydicom.config.disable_value_validation():
        for keyword, value in changes.items():
            # an element that is there already validates as it did when it was made
            dataset.pop(keyword, None)
            setattr(dataset, keyword, value)
    return dataset


def a_cut_jpeg(number: int) -> pydicom.Dataset:
    dataset = chest(number)
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xe0 Zwetschgenhuber " + bytes(40)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return dataset


def written(dataset: pydicom.Dataset) -> bytes:
    """The whole Part 10 file."""
    out = BytesIO()
    with pydicom.config.disable_value_validation():
        dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def encoded(dataset: pydicom.Dataset) -> bytes:
    """The data set as a sender would send it, without the meta group."""
    raw = written(dataset)
    return raw[144 + int.from_bytes(raw[140:144], "little") :]


@cache
def images() -> dict[str, tuple[pydicom.Dataset, str]]:
    """name -> an image, and the state that its job comes to."""
    same_study = str(chest(1).StudyInstanceUID)
    return {
        "good": (chest(1), "done"),
        "another person, same study": (
            chest(2, PatientName="Birnbaum^Edda", StudyInstanceUID=same_study),
            "done",
        ),
        "lateral": (chest(3, ViewPosition="LL"), "skipped"),
        "a child": (chest(4, PatientAge="007Y"), "skipped"),
        "a name as body part": (chest(5, BodyPartExamined="ZWETSCHGENHUBER"), "skipped"),
        "a name as modality": (chest(6, Modality="QUITTE"), "skipped"),
        "a name in a description": (chest(7, SeriesDescription="lateral, Quittenmus"), "skipped"),
        "a name as photometric interpretation": (chest(8, PhotometricInterpretation="QUITTE"), "skipped"),
        "an undecodable image": (a_cut_jpeg(9), "parked"),
        "a number that can't be copied": (chest(10, PatientID="PX77314QZ" * 9), "parked"),
    }


class Watched:
    """The node, what it answered, and what its processes showed while they lived."""

    def __init__(self, node: RunningNode, temporary: Path) -> None:
        self.node = node
        self.temporary = temporary
        self.comments: list[str] = []
        self.jobs: dict[str, str] = {}
        self.seen: list[str] = []

    def send(self, data: bytes, instance: str, syntax: str) -> int:
        with Sender(self.node.port, [(1, DX.decode(), [syntax])]) as sender:
            status, comment = sender.store(1, DX, instance.encode(), data)
            self.comments.append(comment)
            return status

    def processes(self) -> dict[str, bytes]:
        """Command lines, environments, names and open files of the supervisor and all that run under it."""
        assert self.node.process is not None
        pids, found = [self.node.process.pid], {}
        for pid in pids:
            folder = Path(f"/proc/{pid}")
            shown = b"".join((folder / name).read_bytes() for name in ("cmdline", "environ", "comm"))
            links = [str(link.readlink()) for link in (folder / "fd").iterdir() if link.is_symlink()]
            found[f"process {pid}"] = shown + "\n".join(links).encode()
            for children in folder.glob("task/*/children"):
                pids += [int(child) for child in children.read_text().split()]
        return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Watched]:
    temporary = tmp_path_factory.mktemp("temporary")
    # nobody listens at the destinations that are down: errors of delivery are told too
    config = f"""
    min_free_bytes = 0
    [report]
    intended_use = "marks"
    [[destinations]]
    name = "all"
    kind = "folder"
    path = "all"
    results = ["sr", "sc", "text-sr", "gsps", "ko", "pdf", "json", "fhir", "not-analyzed"]
    [[destinations]]
    name = "web-down"
    kind = "web"
    url = "http://127.0.0.1:{free_port()}/dicom-web"
    [[destinations]]
    name = "http-down"
    kind = "http"
    url = "http://127.0.0.1:{free_port()}"
    results = ["fhir"]
    [[destinations]]
    name = "hl7-down"
    kind = "hl7"
    host = "127.0.0.1"
    port = {free_port()}
    [[destinations]]
    name = "folder"
    kind = "folder"
    path = "delivered"
    [[destinations]]
    name = "down"
    ae_title = "DOWN"
    host = "127.0.0.1"
    port = {free_port()}
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        with running_node(tmp_path_factory.mktemp("node"), config, free_port()) as node:
            watched = Watched(node, temporary)
            for dataset, _ in images().values():
                syntax = str(dataset.file_meta.TransferSyntaxUID)
                assert watched.send(encoded(dataset), str(dataset.SOPInstanceUID), syntax) == 0
            _send_what_is_refused(watched)
            states = [state for _, state in images().values()]
            until(lambda: sum(node.status()["jobs"][s] for s in {*states}) == len(states), 120)
            for name in ("down", "web-down", "http-down", "hl7-down"):
                until(lambda name=name: node.status()["destinations"][name]["state"] == "down", 30)
            rows = json.loads(node.hilum("jobs", "list", "--json"))
            watched.jobs = {row["sop_instance_uid"]: row["state"] for row in rows}
            yield watched


def _send_what_is_refused(watched: Watched) -> None:
    implicit, explicit = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
    known, new = (str(chest(number).SOPInstanceUID) for number in (1, 20))
    data = encoded(chest(20))
    for refused, instance, syntax in (
        (encoded(chest(1, PatientID="PX77314QZ-ELSE")), known, explicit),
        (encoded(chest(1, PatientComments="Birnbaum")), known, explicit),
        (data[: len(data) // 2], new, explicit),
        (data[:400], new, explicit),
        (data, new, implicit),
        (data, "../Zwetschgenhuber", explicit),
        (data.replace(b"PN\x18\x00Zwetsch", b"PN\x99\x99Zwetsch"), new, explicit),
        (b"\x10\0\x10\0PN\x10\0Zwetschgenhuber " + data, new, explicit),
    ):
        assert watched.send(refused, instance, syntax) == 0xC000
    assert watched.send(data, "1.2.3", explicit) == 0xA900


def test_every_image_met_the_fate_that_it_was_made_for(watched: Watched) -> None:
    fates = {name: watched.jobs[dataset.SOPInstanceUID] for name, (dataset, _) in images().items()}
    assert fates == {name: state for name, (_, state) in images().items()}


def test_the_words_would_be_found(watched: Watched) -> None:
    spool = b"".join(path.read_bytes() for path in (watched.node.data / "objects").rglob("*.dcm"))
    assert {found.partition(": ")[2] for found in told("spool", spool)} >= {*SECRETS} - {"1951-02-23"}


def test_nobody_is_named_in_the_log_or_in_an_answer(watched: Watched) -> None:
    assert len(watched.node.log.read_bytes()) > 1000
    assert told("log", watched.node.log.read_bytes()) == []
    assert all(len(comment) <= 64 for comment in watched.comments)
    assert told("comments", "\n".join(watched.comments).encode()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["status"], ["status", "--json"], ["jobs", "list"], ["jobs", "list", "--json"], ["deliveries", "list"],
        ["deliveries", "list", "--json"], ["check"], ["check", "--json"], ["jobs", "retry", "999999"],
        ["audit", "verify"], ["audit", "expire"], ["retention", "preview"], ["retention", "preview", "--json"],
        ["audit", "erase", "--patient", "PX77314QZ-1"], ["audit", "erase", "--patient", "QUITTE"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_nobody_is_named_by_a_command(watched: Watched, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", *command, "--config", watched.node.config], capture_output=True
    )
    assert done.stdout + done.stderr
    assert told(" ".join(command), done.stdout + done.stderr) == []


def test_the_audit_log_names_a_patient_in_the_column_of_the_number_alone(watched: Watched) -> None:
    records = watched.node.audit()
    assert any("PX77314QZ" in record["patient_id"] for record in records)
    rest = [{key: value for key, value in record.items() if key != "patient_id"} for record in records]
    assert told("audit", json.dumps(rest).encode()) == []


def test_nobody_is_named_in_a_command_line_an_environment_or_a_temporary_file(watched: Watched) -> None:
    processes = watched.processes()
    # supervisor, receiver, deliverer, housekeeper, worker, decoders
    assert len(processes) >= 6
    for where, content in processes.items():
        assert told(where, content) == []
    for path in watched.temporary.rglob("*"):
        assert told(str(path), path.name.encode() + (path.read_bytes() if path.is_file() else b"")) == []


def test_a_process_that_dies_leaves_no_core_and_no_socket_is_named_after_anybody(watched: Watched) -> None:
    for process in watched.processes():
        limits = Path(f"/proc/{process.split()[1]}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
    assert told("sockets", Path("/proc/net/unix").read_bytes()) == []


def test_in_the_data_folder_only_the_spool_and_the_identities_name_anybody(watched: Watched) -> None:
    data = watched.node.data
    for path in data.rglob("*"):
        assert told("a file's name", path.name.encode()) == []
        spooled = path.is_relative_to(data / "objects") or path.is_relative_to(data / "results")
        if path.is_file() and not spooled and not path.name.startswith("hilum.db"):
            assert told(str(path), path.read_bytes()) == []
    tables = {}
    with sqlite3.connect(f"file:{data / 'hilum.db'}?mode=ro", uri=True) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            rows = database.execute(f"SELECT * FROM {name}")
            tables[name] = b"\n".join(repr(row).encode() for row in rows)
    database.close()
    assert len(tables["audit"]) > 1000
    named = {name for name, content in tables.items() if told(name, content)}
    assert named == {"audit_identity"}
    # of whoever the log tells, the number, the name and the visit, and no more
    assert {found.partition(": ")[2] for found in told("", tables["audit_identity"])} == {
        "Zwetschgenhuber", "Ottokar", "PX77314QZ", "ACCQ55812", "Birnbaum",
    }  # fmt: skip


def test_others_on_the_machine_can_not_open_what_is_stored(watched: Watched) -> None:
    open_to_others = [
        str(path)
        for path in [watched.node.data, *watched.node.data.rglob("*")]
        if not path.is_symlink() and path.stat().st_mode & 0o077  # the tests share networks by a link
    ]
    assert open_to_others == []


def test_each_result_bears_its_own_sources_patient_and_study(watched: Watched) -> None:
    until(lambda: len(list((watched.node.folder / "delivered").glob("*.dcm"))) == 4, 30)
    good = {str(d.SOPInstanceUID): d for d, state in images().values() if state == "done"}
    of: list[str] = []
    for path in (watched.node.folder / "delivered").glob("*.dcm"):
        result = pydicom.dcmread(path)
        if "SourceImageSequence" in result:
            source = result.SourceImageSequence[0].ReferencedSOPInstanceUID
        else:
            study = result.CurrentRequestedProcedureEvidenceSequence[0]
            source = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for keyword in (
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "StudyInstanceUID",
            "AccessionNumber",
        ):
            assert result[keyword].value == good[source][keyword].value
        of.append(source)
    assert sorted(of) == sorted([*good, *good])


def test_every_kind_of_result_bears_its_own_sources_patient_and_study(watched: Watched) -> None:
    sources = {str(dataset.SOPInstanceUID): dataset for dataset, _ in images().values()}
    seen = Counter()
    for path in (watched.node.folder / "all").glob("*.dcm"):
        found = recognize(path)
        assert found is not None
        result, (source,) = pydicom.dcmread(path, stop_before_pixels=True), found.instances
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"):
            assert result[keyword].value == sources[source][keyword].value, (found.writer, keyword)
        seen[found.writer] += 1
    assert seen.pop("not-analyzed") >= 4 and {*seen} >= {"sr", "sc", "text-sr", "gsps", "pdf"}
    for path in (watched.node.folder / "all").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        (source,) = [uid for uid in sources if f'{uid}"' in text]
        assert str(sources[source].PatientID) in text
        others = {str(one.PatientID) for one in sources.values()} - {str(sources[source].PatientID)}
        assert not [number for number in others if f'"{number}"' in text]


def test_each_result_says_that_it_is_for_research_and_no_diagnosis(watched: Watched) -> None:
    for path in (watched.node.folder / "delivered").glob("*.dcm"):
        said = [str(e.value) for e in pydicom.dcmread(path, stop_before_pixels=True).iterall()]
        assert any("research use only. Not a diagnosis" in text for text in said)


def test_analyze_names_nobody_says_what_it_is_not_for_and_leaves_nothing(
    watched: Watched, tmp_path: Path
) -> None:
    files = []
    for number, (dataset, _) in enumerate(images().values()):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(written(dataset))
    whole = files[0].read_bytes()
    for length in (140, 400, 1000, len(whole) // 2):
        files.append(tmp_path / f"cut{length}.dcm")
        files[-1].write_bytes(whole[:length])
    files.append(tmp_path / "text.dcm")
    files[-1].write_text("Zwetschgenhuber^Ottokar\n" * 100)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", "analyze", "--json", *files],
        capture_output=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert told("analyze", done.stdout + done.stderr) == []
    assert b"not a diagnosis; research use only" in done.stderr
    outcomes = [json.loads(line)["status"] for line in done.stdout.splitlines()]
    by_job = {"done": "analyzed", "skipped": "skipped", "parked": "failed"}
    # without --out no report is written, so that a number that can't be copied is not noticed
    expected = [by_job[state] for _, state in images().values()][:-1] + ["analyzed"] + ["failed"] * 5
    assert outcomes == expected
    assert list(temporary.iterdir()) == []


# identifiers = "keyed-hash"


@dataclass
class Nameless:
    """A node that keeps no name in its log, what it sent to the audit repository, and its data folder's files."""

    node: RunningNode
    messages: bytes

    def files(self) -> dict[str, bytes]:
        data = self.node.data
        spool = (data / "objects", data / "results")
        return {
            str(path.relative_to(data)): path.read_bytes()
            for path in data.rglob("*")
            if path.is_file() and not any(path.is_relative_to(folder) for folder in spool)
        }


@pytest.fixture(scope="module")
def nameless(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Nameless]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as repository:
        repository.bind(("127.0.0.1", 0))
        repository.setblocking(False)
        config = f"""
        min_free_bytes = 0
        [audit]
        identifiers = "keyed-hash"
        [audit.repository]
        host = "127.0.0.1"
        port = {repository.getsockname()[1]}
        transport = "udp"
        [[destinations]]
        name = "folder"
        kind = "folder"
        path = "delivered"
        [[destinations]]
        name = "down"
        ae_title = "DOWN"
        host = "127.0.0.1"
        port = {free_port()}
        """
        with running_node(tmp_path_factory.mktemp("nameless"), config, free_port()) as node:
            watched = Watched(node, node.folder)
            names = ("good", "lateral", "an undecodable image", "a number that can't be copied")
            for name in names:
                dataset, _ = images()[name]
                syntax = str(dataset.file_meta.TransferSyntaxUID)
                assert watched.send(encoded(dataset), str(dataset.SOPInstanceUID), syntax) == 0
            _send_what_is_refused(watched)
            states = [images()[name][1] for name in names]
            until(lambda: sum(node.status()["jobs"][state] for state in {*states}) == len(states), 120)
            until(lambda: node.status()["destinations"]["down"]["state"] == "down", 30)
            heard: list[bytes] = []

            def hear() -> int:
                with suppress(BlockingIOError):
                    while True:
                        heard.append(repository.recv(65_536))
                return len(heard)

            until(lambda: hear() >= 40, 30)
            yield Nameless(node, b"\n".join(heard))


def test_with_keyed_hashes_nobody_is_named_but_in_the_spool(nameless: Nameless) -> None:
    files = nameless.files()
    assert {"hilum.db", "hilum.db-wal"} <= files.keys() and any(name.startswith("anchors") for name in files)
    for name, content in files.items():
        assert told(name, content) == []
    assert len(nameless.messages) > 1000
    assert told("messages to the repository", nameless.messages) == []
    assert told("log", nameless.node.log.read_bytes()) == []


def test_with_keyed_hashes_an_answer_of_the_log_names_nobody(nameless: Nameless) -> None:
    study = str(images()["good"][0].StudyInstanceUID)
    for command in (
        ["audit", "query"], ["audit", "query", "--format", "json"], ["audit", "query", "--format", "dicom"],
        ["audit", "trace", study], ["audit", "erase", "--patient", "PX77314QZ-1"],
    ):  # fmt: skip
        said = nameless.node.hilum(*command)
        assert said and told(" ".join(command), said.encode()) == []
    found = json.loads(nameless.node.hilum("audit", "query", "--patient", "PX77314QZ-1", "--format", "json"))
    assert {"object.received", "job.analyzed"} <= {record["event"] for record in found}
    (patient,) = {record["patient_id"] for record in found}
    assert re.fullmatch("#[0-9a-f]{12}", patient)


def test_whoever_opens_the_store_says_whether_names_are_kept() -> None:
    calls = [
        (path.name, call)
        for path in Path(node.__file__).parent.rglob("*.py")
        for call in re.findall(r"Store\.(?:open|create)\(.*", path.read_text())
        # the demo's node is asked, not written to
        if path.name != "demo.py"
    ]
    assert len(calls) >= 8
    assert [call for call in calls if "keeps_names=" not in call[1]] == []
