"""Real senders, and one that breaks every rule, against the receiver."""

import csv
import hashlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from model import phantom
from node.receive.part10 import walk_file

DX = b"1.2.840.10008.5.1.4.1.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
PROPOSAL = [(1, DX.decode(), [EXPLICIT])]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn chest as a DICOM file."""
    path = tmp_path_factory.mktemp("images") / "chest.dcm"
    phantom.draw(1, patch=False).save_as(path, enforce_file_format=True)
    return path


def data_set(path: Path) -> bytes:
    return path.read_bytes()[walk_file(path).start :]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60)


def variant(body: bytes, old: bytes, new: bytes) -> bytes:
    """Another object: each `old` replaced by a `new` of the same length."""
    assert len(old) == len(new) and old in body
    return body.replace(old, new)


@pytest.mark.peer
def test_storescu_sends_and_every_byte_of_the_data_set_is_kept(
    program: Callable[[str], str], receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving()
    sent = run(
        program("storescu"), "-v", "-xe", "-aet", "MODALITY", "-aec", "HILUM", "127.0.0.1", node.port, image
    )
    assert sent.returncode == 0, sent.stderr
    (file,) = node.files()
    walk = walk_file(file)
    assert data_set(file) == data_set(image)
    assert walk.content_hash == "sha256:" + hashlib.sha256(data_set(image)).hexdigest()
    assert node.jobs() == {"queued": 1}
    events = [(r.event, r.actor, r.host) for r in node.audit()]
    assert events[:2] == [
        ("association.accepted", "MODALITY", "127.0.0.1"),
        ("object.received", "MODALITY", "127.0.0.1"),
    ]


@pytest.mark.peer
def test_dcmtk_reads_what_was_kept_as_a_dicom_file(
    program: Callable[[str], str], receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving()
    run(program("storescu"), "-aec", "HILUM", "127.0.0.1", node.port, image)
    (file,) = node.files()
    assert run(program("dcmftest"), file).returncode == 0


@pytest.mark.peer
def test_the_same_object_again_is_success_and_no_second_job(
    program: Callable[[str], str], receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving()
    sent = run(program("storescu"), "-aec", "HILUM", "127.0.0.1", node.port, image, image)
    assert sent.returncode == 0, sent.stderr
    assert len(node.files()) == 1
    assert node.jobs() == {"queued": 1}
    assert len(node.audit("object.repeated")) == 1


@pytest.mark.peer
def test_echo_is_answered(program: Callable[[str], str], receiving: Callable[..., Any]) -> None:
    node = receiving()
    assert run(program("echoscu"), "-aec", "HILUM", "127.0.0.1", node.port).returncode == 0
    assert node.wait_for_audit("association.accepted")


@pytest.mark.peer
def test_a_wrong_called_title_is_refused_and_audited(
    program: Callable[[str], str], receiving: Callable[..., Any]
) -> None:
    node = receiving()
    refused = run(program("echoscu"), "-aec", "OTHER", "127.0.0.1", node.port)
    assert "Called AE Title Not Recognized" in refused.stderr
    (record,) = node.wait_for_audit("association.refused")
    assert record.detail["rejection"] == [1, 1, 7]


def test_a_sender_that_is_no_peer_is_refused(raw: ModuleType, receiving: Callable[..., Any]) -> None:
    node = receiving(
        peers=[{"ae_title": "PACS", "host": "127.0.0.0/8"}, {"ae_title": "RAW", "host": "192.0.2.7"}]
    )
    with pytest.raises(raw.Rejected) as refused:
        raw.Sender(node.port, PROPOSAL)
    assert (refused.value.result, refused.value.source, refused.value.reason) == (1, 1, 3)
    with raw.Sender(node.port, PROPOSAL, calling="PACS") as sender:
        sender.release()


def test_more_associations_than_allowed_are_told_so(raw: ModuleType, receiving: Callable[..., Any]) -> None:
    node = receiving(max_associations=1)
    with raw.Sender(node.port, PROPOSAL) as first:
        with pytest.raises(raw.Rejected) as refused:
            raw.Sender(node.port, PROPOSAL)
        first.release()
    assert (refused.value.result, refused.value.source, refused.value.reason) == (2, 3, 2)


def test_contexts_are_refused_by_class_and_by_syntax(raw: ModuleType, receiving: Callable[..., Any]) -> None:
    node = receiving(extra_classes=["1.2.840.99.1"])
    proposals = [
        (1, DX.decode(), ["1.2.840.10008.1.2.4.102"]),
        (3, "1.3.12.2.1107.5.9.1", [EXPLICIT]),
        (5, "1.2.840.99.1", [EXPLICIT]),
        (7, "1.2.840.10008.5.1.4.1.1.2", ["1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2"]),
        (9, "1.2.840.10008.1.3.10", [EXPLICIT]),
    ]
    with raw.Sender(node.port, proposals) as sender:
        assert sender.refused == {1: 4, 3: 3, 9: 3}
        assert sender.accepted == {5: EXPLICIT, 7: "1.2.840.10008.1.2"}


def test_a_node_for_radiographs_only_refuses_other_storage(
    raw: ModuleType, receiving: Callable[..., Any]
) -> None:
    node = receiving(other_storage="refuse")
    classes = [b"1.2.840.10008.5.1.4.1.1.2", DX, b"1.2.840.10008.5.1.4.1.1.7"]
    proposals = [(2 * n + 1, c.decode(), [EXPLICIT]) for n, c in enumerate(classes)]
    with raw.Sender(node.port, proposals) as sender:
        assert sender.refused == {1: 3}
        assert set(sender.accepted) == {3, 5}


def test_a_command_of_another_class_than_its_context_is_0122(
    raw: ModuleType, receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving()
    with raw.Sender(node.port, PROPOSAL) as sender:
        status, comment = sender.store(1, b"1.2.840.10008.5.1.4.1.1.2", b"1.2.3", data_set(image))
    assert status == 0x0122 and comment
    assert node.files() == []


def test_command_and_data_set_that_disagree_are_a900(
    raw: ModuleType, receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving()
    with raw.Sender(node.port, PROPOSAL) as sender:
        status, comment = sender.store(1, DX, b"1.2.3", data_set(image))
    assert (status, comment) == (0xA900, "command and data set name different SOP instances")
    assert node.files() == []
    assert [r.detail["status"] for r in node.audit("object.refused")] == ["A900"]


@pytest.mark.parametrize(
    "hostile", [b"../../../../tmp/x", b"/etc/passwd", b"", b"1." * 32 + b"1", b"1.2\\3", b"%s%n"]
)
def test_a_hostile_uid_writes_nothing(
    raw: ModuleType, receiving: Callable[..., Any], tmp_path: Path, image: Path, hostile: bytes
) -> None:
    node = receiving()
    before = set(tmp_path.rglob("*"))
    with raw.Sender(node.port, PROPOSAL) as sender:
        status, _ = sender.store(1, DX, hostile, data_set(image))
        sender.release()
    assert status == 0xC000
    assert {path.name for path in set(tmp_path.rglob("*")) - before} <= {"hilum.db-wal", "hilum.db-shm"}


def test_conflicts_are_refused_and_the_first_stays(
    raw: ModuleType, receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving()
    walk, body = walk_file(image), data_set(image)
    uid = walk.sop_instance.encode()
    other_pixels = body[:-100] + bytes(100)
    other_series = variant(body, walk.header.series.encode(), walk.header.series[:-1].encode() + b"0")
    with raw.Sender(node.port, PROPOSAL) as sender:
        answers = [sender.store(1, DX, uid, b)[0] for b in (body, other_pixels, other_series, body)]
    assert answers == [0, 0xC000, 0xC000, 0]
    (file,) = node.files()
    assert data_set(file) == body
    assert len(node.audit("object.conflict")) == 2 and node.jobs() == {"queued": 1}


def test_a_site_may_keep_other_content_as_a_revision(
    raw: ModuleType, receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving(on_conflict="analyze")
    walk, body = walk_file(image), data_set(image)
    with raw.Sender(node.port, PROPOSAL) as sender:
        answers = [
            sender.store(1, DX, walk.sop_instance.encode(), b)[0] for b in (body, body[:-100] + bytes(100))
        ]
    assert answers == [0, 0] and node.jobs() == {"queued": 2} and len(node.files()) == 2


def test_below_the_disks_floor_nothing_is_written_and_one_record_counts(
    raw: ModuleType, receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving(min_free_bytes=10**18)
    walk = walk_file(image)
    with raw.Sender(node.port, PROPOSAL) as sender:
        answers = [sender.store(1, DX, walk.sop_instance.encode(), data_set(image))[0] for _ in range(3)]
        sender.release()
    assert answers == [0xA700] * 3 and node.files() == []
    (record,) = node.wait_for_audit("object.refused")
    assert record.detail["objects"] == 3


def test_an_object_above_the_bound_is_drained_and_refused(
    raw: ModuleType, receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving(max_object_bytes=100_000)
    walk = walk_file(image)
    with raw.Sender(node.port, PROPOSAL) as sender:
        status, comment = sender.store(1, DX, walk.sop_instance.encode(), data_set(image))
        assert (status, comment) == (0xC000, "the object is larger than max_object_bytes")
        sender.release()
    assert node.files() == []


@pytest.mark.parametrize(
    "cut", ["inside a PDU header", "inside a fragment", "between fragments", "abort", "release"]
)
def test_what_breaks_off_leaves_nothing(
    raw: ModuleType, receiving: Callable[..., Any], image: Path, cut: str
) -> None:
    node = receiving()
    walk, body = walk_file(image), data_set(image)
    with raw.Sender(node.port, PROPOSAL) as sender:
        message = sender.message(1, DX, walk.sop_instance.encode(), body, step=10_000)
        command = len(raw.store_command(DX, walk.sop_instance.encode())) + 12
        ends = {"inside a PDU header": 10_012 + 3, "inside a fragment": 10_012 + 500}
        sender.socket.sendall(message[: command + ends.get(cut, 2 * 10_012)])
        node.wait_for_files(1)
        if cut == "abort":
            sender.socket.sendall(raw.pdu(7, bytes(4)))
        if cut == "release":
            sender.socket.sendall(raw.pdu(5, bytes(4)))
    assert node.wait_for_files(0) == []
    if cut != "release":
        assert node.wait_for_audit("association.aborted")
    assert node.audit("object.received") == []


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + bytes(100),
        b"\x04\x00\xff\xff\xff\xff" + bytes(50),
        b"\x01\x00\xff\xff\xff\xf0" + bytes(50),
        bytes(200),
    ],
)
def test_rubbish_on_the_port_does_no_harm(
    raw: ModuleType, receiving: Callable[..., Any], image: Path, rubbish: bytes
) -> None:
    node = receiving()
    with socket.create_connection(("127.0.0.1", node.port), 5) as connection:
        connection.sendall(rubbish)
        connection.settimeout(5)
        try:
            while connection.recv(4096):
                pass
        except OSError:
            pass
    with raw.Sender(node.port, PROPOSAL) as sender:
        assert sender.store(1, DX, walk_file(image).sop_instance.encode(), data_set(image))[0] == 0


@pytest.mark.parametrize(
    "broken", ["data first", "foreign context", "command inside", "endless command", "bad PDV", "find"]
)
def test_a_broken_protocol_is_aborted(raw: ModuleType, receiving: Callable[..., Any], broken: str) -> None:
    node = receiving()
    store = raw.store_command(DX, b"1.2.3")
    with raw.Sender(node.port, PROPOSAL) as sender:
        sent = {
            "data first": [sender.fragment(1, 0, bytes(100))],
            "foreign context": [sender.fragment(9, 3, store)],
            "command inside": [sender.fragment(1, 3, store), sender.fragment(1, 3, store)],
            "endless command": [sender.fragment(1, 1, bytes(60_000)), sender.fragment(1, 1, bytes(60_000))],
            "bad PDV": [raw.pdu(4, struct.pack(">LBB", 5000, 1, 3) + store)],
            "find": [
                sender.fragment(
                    1,
                    3,
                    store.replace(
                        struct.pack("<HHLH", 0, 0x100, 2, 1), struct.pack("<HHLH", 0, 0x100, 2, 0x20)
                    ),
                )
            ],
        }[broken]
        for piece in sent:
            sender.socket.sendall(piece)
        with pytest.raises((raw.Aborted, OSError)):
            sender.answer()
    assert node.wait_for_files(0) == []


def test_a_sender_that_does_not_wait_for_answers_gets_them_in_order(
    raw: ModuleType, receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving()
    walk, body = walk_file(image), data_set(image)
    with raw.Sender(node.port, PROPOSAL) as sender:
        one = sender.message(1, DX, walk.sop_instance.encode(), body)
        sender.socket.sendall(one * 3)
        assert [sender.answer()[0] for _ in range(3)] == [0, 0, 0]
    assert len(node.files()) == 1 and node.jobs() == {"queued": 1}


def test_the_same_object_from_two_senders_at_once_is_kept_once(
    raw: ModuleType, receiving: Callable[..., Any], image: Path
) -> None:
    node = receiving()
    walk, body = walk_file(image), data_set(image)
    answers: list[int] = []

    def send() -> None:
        with raw.Sender(node.port, PROPOSAL) as sender:
            answers.append(sender.store(1, DX, walk.sop_instance.encode(), body)[0])

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0] * 4
    assert len(node.files()) == 1 and node.jobs() == {"queued": 1}


def test_the_process_starts_quickly_without_tensorflow_and_ends_on_sigterm(
    raw: ModuleType, receiver_process: Callable[..., Any]
) -> None:
    node = receiver_process()
    assert node.seconds_to_ready < 5, "on a busy machine; about one second alone"
    assert "tensorflow" not in Path(f"/proc/{node.process.pid}/maps").read_text()
    with raw.Sender(node.port, PROPOSAL):
        began = time.monotonic()
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(6) == 0
    assert time.monotonic() - began < 5


def test_an_object_on_its_way_at_sigterm_is_finished(
    raw: ModuleType, receiver_process: Callable[..., Any], image: Path
) -> None:
    node = receiver_process()
    walk, body = walk_file(image), data_set(image)
    with raw.Sender(node.port, PROPOSAL) as sender:
        message = sender.message(1, DX, walk.sop_instance.encode(), body)
        sender.socket.sendall(message[:100_000])
        node.wait_for_files(1)
        node.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        sender.socket.sendall(message[100_000:])
        assert sender.answer()[0] == 0
    assert node.process.wait(6) == 0
    assert len(node.audit("object.received")) == 1


def test_what_was_acknowledged_before_kill_9_is_there(
    raw: ModuleType, receiver_process: Callable[..., Any], image: Path
) -> None:
    node = receiver_process()
    walk, body = walk_file(image), data_set(image)
    old = walk.sop_instance
    acknowledged: set[str] = set()
    killer = threading.Timer(0.3, lambda: os.kill(node.process.pid, signal.SIGKILL))
    with raw.Sender(node.port, PROPOSAL) as sender:
        try:
            for n in range(100_000):
                if n == 1:
                    killer.start()
                uid = old[:-6] + f"{n:06d}"
                sent = variant(body, old.encode(), uid.encode())
                if sender.store(1, DX, uid.encode(), sent)[0] == 0:
                    acknowledged.add(uid)
        except (raw.Aborted, OSError):
            pass
    killer.join()
    assert acknowledged
    with node.store.database.read() as tx:
        jobs = {job.sop_instance: job for job in node.store.jobs.listing(tx)}
    assert acknowledged <= set(jobs)
    for uid in acknowledged:
        assert walk_file(node.data_dir / jobs[uid].file).content_hash == jobs[uid].content_hash


def _rows(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "index.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def _meta(file: bytes) -> tuple[bytes, bytes, str, bytes] | None:
    """Class, instance and transfer syntax of the meta group, and the bytes behind it; None without a meta group."""
    if file[128:132] != b"DICM" or file[132:136] != b"\x02\0\0\0":
        return None
    end = 144 + struct.unpack_from("<L", file, 140)[0]
    values, at = {}, 144
    while at + 8 <= min(end, len(file)):
        element, vr, length = struct.unpack_from("<2xH2sH", file, at)
        at += 8
        if vr in {b"OB", b"UN"}:
            length = struct.unpack_from("<L", file, at)[0]
            at += 4
        values[element] = file[at : at + length].rstrip(b"\0 ")
        at += length
    if end > len(file) or not {2, 3, 0x10} <= set(values):
        return None
    return values[2], values[3], values[0x10].decode(), file[end:]


# in these the meta group names another instance than the data set: sent under the data set's own
OWN_UID = {
    "broken/real_bad_sequence.dcm", "broken/real_bad_vr.dcm", "pixels/real_cr_modality_lut.dcm",
    "scope/real_rtdose.dcm", "scope/real_rtplan.dcm",
}  # fmt: skip
# the second of two files with one and the same instance in it
TWICE = {
    "scope/real_rtdose.dcm",
    "broken/real_mr_truncated.dcm",
    "broken/real_no_preamble_no_meta_fuji_cr.dcm",
}


@pytest.mark.corpus
def test_each_file_of_the_corpus_is_answered_as_the_index_says(
    raw: ModuleType, receiving: Callable[..., Any], corpus: Path
) -> None:
    node = receiving()
    wrong: list[str] = []
    sent = kept = 0
    for row in _rows(corpus):
        path = corpus / "corpus" / row["file"]
        meta = _meta(path.read_bytes())
        if meta is None and row["expect"] != "refuse":
            # a file without a meta group: by C-STORE an ordinary object
            walk = walk_file(path)
            meta = (walk.sop_class.encode(), walk.sop_instance.encode(), walk.transfer_syntax, data_set(path))
        if meta is None or row["file"] in TWICE:
            continue
        sop_class, instance, syntax, body = meta
        if row["file"] in OWN_UID:
            instance = walk_file(path).sop_instance.encode()
        sent += 1
        with raw.Sender(node.port, [(1, sop_class.decode(), [syntax])]) as sender:
            status = sender.store(1, sop_class, instance, body)[0] if sender.accepted else None
        kept += status == 0 and row["file"] != "header/dup_b_same_bytes.dcm"
        if (status == 0) != (row["expect"] != "refuse"):
            wrong.append(f"{row['file']}: {row['expect']}, answered {status}")
    assert wrong == []
    assert sent > 390
    assert len(node.files()) == kept
