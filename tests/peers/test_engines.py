"""Both engines are given the same bytes: real senders' streams as they are, cut anywhere, and damaged in every way.

Never tolerated: another verdict on an object, other stored bytes, a partial file, a row or a record too many or too
few. TOLERATED is the whole list of what may differ.
"""

import json
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from peers import differential
from peers.differential import MUTATIONS, Answer, Recorder, Seen, Side
from peers.servers import Orthanc
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

DX = "1.2.840.10008.5.1.4.1.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
# of each mutation; a night's run may want more
CASES = int(os.environ.get("HILUM_DIFFERENTIAL_CASES", "4"))
SEED = int(os.environ.get("HILUM_DIFFERENTIAL_SEED", "10"))


@dataclass(frozen=True)
class Tolerated:
    """A difference between two answers in the same place (None: closed) that is none, and why."""

    why: str
    of: Callable[[Answer | None, Answer | None], bool]
    ends: bool = False
    """From there on they are in different conversations."""


TOLERATED = [
    Tolerated(
        "An A-ABORT by the provider: pynetdicom gives no reason (0), ours the one of PS3.8 9.3.8.",
        lambda ours, theirs: ours is not None and ours[:2] == ("ABORT", 2) and theirs == ("ABORT", 2, 0),
    ),
    Tolerated(
        "Ours sees in a header what is wrong and aborts; pynetdicom waits for the whole PDU, which never came.",
        lambda ours, theirs: ours is not None and ours[0] == "ABORT" and theirs is None,
    ),
    Tolerated(
        "First bytes that are no PDU at all: ours hangs up on who speaks no DICOM; pynetdicom sends an A-ABORT.",
        lambda ours, theirs: ours is None and theirs == ("ABORT", 0, 0),
    ),
    Tolerated(
        "A request with something that pynetdicom can't read (another kind of item, a UID or a title that is none): "
        "ours skips it (PS3.8 9.3.1) and judges the rest, pynetdicom aborts.",
        lambda ours, theirs: ours is not None and ours[0] in {"AC", "RJ"} and theirs == ("ABORT", 0, 0),
        ends=True,
    ),
    Tolerated(
        "Another protocol version: ours rejects it (PS3.8 9.3.2, 9.3.4), pynetdicom never looks.",
        lambda ours, theirs: ours == ("RJ", 1, 2, 2) and theirs is not None and theirs[0] in {"AC", "RJ"},
        ends=True,
    ),
    Tolerated(
        "A-ASSOCIATE-AC: bytes 36 to 68 go back as they came (PS3.8 9.3.3); pynetdicom sends zeros.",
        lambda ours, theirs: bool(ours and theirs) and ours[:-1] == theirs[:-1] and ours[-1][:36] == theirs[-1][:36],
    ),
]  # fmt: skip

BUSY_SOONER = Tolerated(
    "association.aborted, detail `busy`: ours knows that an object comes once its command is there, pynetdicom once "
    "the PDU that holds the command is whole.",
    lambda ours, theirs: bool(ours and theirs) and ours[0] == "association.aborted" and ours[:-1] == theirs[:-1]
    and (ours[-1], theirs[-1]) == ((("busy", "True"),), (("busy", "False"),)),
)  # fmt: skip


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    both = tuple(Side(name, tmp_path_factory.mktemp(name) / "node") for name in ("hilum", "pynetdicom"))
    yield both[0], both[1]
    for side in both:
        side.end()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, so that a stream has few bytes; its UIDs are long enough to be told apart."""
    dataset = Dataset()
    dataset.SOPClassUID = DX
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
        f"1.2.826.0.1.3680043.8.498.{n}000000" for n in (1, 2, 3)
    )
    dataset.PatientID, dataset.PatientName, dataset.AccessionNumber = "P1", "Doe^Jane", "A1"
    dataset.Modality, dataset.PresentationIntentType = "DX", "FOR PRESENTATION"
    dataset.Rows = dataset.Columns = 24
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = random.Random(1).randbytes(2 * 24 * 24)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = tmp_path_factory.mktemp("images") / "small.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


UID = b"1.2.826.0.1.3680043.8.498.1000000"


def another(stream: list[bytes], n: int) -> list[bytes]:
    """The stream with an instance of its own."""
    return differential.pdus(b"".join(stream).replace(UID, UID[:-6] + f"{n:06d}".encode()))


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, image: Path, program: Callable[[str], str]
) -> dict[str, list[bytes]]:
    """What real senders said, by sender."""
    # each sends the image in an encoding of its own
    node = Side("hilum", tmp_path_factory.mktemp("recorded") / "node", on_conflict="analyze")
    found: dict[str, list[bytes]] = {}

    def record(name: str, send: Callable[[int], None]) -> None:
        recorder = Recorder(node.engine.port)
        send(recorder.port)
        (found[name],) = recorder.end()

    def storescu(*options: str) -> Callable[[int], None]:
        command = [program("storescu"), *options, "-aec", "HILUM", "127.0.0.1"]
        return lambda at: subprocess.run([*command, str(at), str(image)], check=True, timeout=60) and None

    record("storescu", storescu())
    record("storescu, implicit, small PDUs", storescu("-xi", "--max-send-pdu", "4096"))
    record("storescu, many contexts", storescu("+C", "-R"))
    record("echoscu", lambda at: subprocess.run(
        [program("echoscu"), "--repeat", "2", "-aec", "HILUM", "127.0.0.1", str(at)], check=True) and None)  # fmt: skip
    record("pynetdicom", lambda at: _with_pynetdicom(at, image))
    node.end()
    return found


def _with_pynetdicom(port: int, image: Path) -> None:
    """Every extended negotiation that it knows, then an echo and an image."""
    import pydicom

    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = STORAGE_COMMITMENT, False, True
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = DX, b"\2\0\3\0\1\0"
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid, common.service_class_uid = DX, "1.2.840.10008.4.2"
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"user", b"word"
    identity.positive_response_requested = False
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 1
    entity = AE("PYNETDICOM")
    for context in (VERIFICATION, STORAGE_COMMITMENT, "1.2.840.10008.5.1.4.1.2.2.1"):
        entity.add_requested_context(context)
    entity.add_requested_context(DX, ExplicitVRLittleEndian)
    items = [role, extended, common, identity, window]
    association = entity.associate("127.0.0.1", port, ae_title="HILUM", ext_neg=items)
    assert association.is_established
    assert association.send_c_echo().Status == 0
    assert association.send_c_store(pydicom.dcmread(image)).Status == 0
    association.release()


def play(sides: tuple[Side, Side], chunks: list[bytes]) -> tuple[Seen, Seen]:
    ours = sides[0].play(chunks)
    return ours, sides[1].play(chunks, ours)


def differences(ours: Seen, theirs: Seen) -> list[str]:
    """What differs and is not tolerated, one line each."""
    found = [f"left over: {seen.parts}" for seen in (ours, theirs) if seen.parts]
    for n, (one, other) in enumerate(zip_longest(ours.spoken, theirs.spoken)):
        if one == other:
            continue
        tolerated = next((each for each in TOLERATED if each.of(one, other)), None)
        if tolerated is None:
            found.append(f"answer {n}: {one} | {other}")
        elif tolerated.ends:
            return found
    found += [
        f"{what}: {getattr(ours, what)} | {getattr(theirs, what)}"
        for what in ("files", "rows", "jobs")
        if getattr(ours, what) != getattr(theirs, what)
    ]
    for one, other in zip_longest(ours.audit, theirs.audit):
        if one != other and not BUSY_SOONER.of(one, other):
            found.append(f"audit: {one} | {other}")
    return found


@pytest.mark.peer
@pytest.mark.parametrize("name", MUTATIONS)
def test_both_engines_answer_and_keep_the_same(
    sides: tuple[Side, Side], recorded: dict[str, list[bytes]], name: str
) -> None:
    wrong = []
    senders = sorted(recorded)
    for case in range(CASES):
        chance = random.Random(f"{name} {SEED} {case}")
        sender = chance.choice(senders)
        stream = another(recorded[sender], chance.randrange(10**6))
        try:
            stream = MUTATIONS[name](stream, chance)
        except IndexError:
            continue
        chunks = differential.cut(differential.pdus(b"".join(stream)), chance, chance.choice([0, 3, 20]))
        ours, theirs = play(sides, chunks)
        wrong += [f"{name}, case {case}, {sender}: {line}" for line in differences(ours, theirs)]
    assert wrong == []


@pytest.mark.peer
def test_what_orthanc_sends_is_kept_alike(
    sides: tuple[Side, Side], orthanc: Orthanc, image: Path, tmp_path: Path
) -> None:
    instance = json.loads(orthanc.post("/instances", image.read_bytes()))["ID"]
    node = Side("hilum", tmp_path / "node")
    recorder = Recorder(node.engine.port)
    there = json.dumps({"AET": "HILUM", "Host": "127.0.0.1", "Port": recorder.port}).encode()
    address = f"http://127.0.0.1:{orthanc.http_port}/modalities/node"
    urlopen(Request(address, data=there, method="PUT"), timeout=10).close()
    orthanc.post("/modalities/node/store", instance.encode())
    node_stops = threading.Thread(target=node.end)
    node_stops.start()
    (stream,) = recorder.end()
    node_stops.join()
    ours, theirs = play(sides, differential.cut(stream, random.Random(SEED), 20))
    assert differences(ours, theirs) == [] and len(ours.rows) == 1


@pytest.mark.peer
def test_messages_sent_ahead_of_their_answers_are_answered_alike(
    sides: tuple[Side, Side], recorded: dict[str, list[bytes]]
) -> None:
    request, *messages, release = recorded["pynetdicom"]
    ahead = b"".join(b"".join(another([request, *messages], n)[1:]) for n in range(10**6 - 3, 10**6))
    ours, theirs = play(sides, [request, ahead, release])
    assert differences(ours, theirs) == []
    assert len(ours.rows) == 3 and len(ours.spoken) == 1 + 6 + 1


@pytest.mark.peer
def test_a_whole_stream_cut_at_each_of_its_bytes_is_kept_alike(
    sides: tuple[Side, Side], recorded: dict[str, list[bytes]]
) -> None:
    stream = another(recorded["storescu"], 10**6 - 4)
    first = b"".join(stream[1:3])
    # from the first byte of the first message into its data set
    chunks = [stream[0], *(first[n : n + 1] for n in range(400)), first[400:], *stream[3:]]
    ours, theirs = play(sides, chunks)
    assert differences(ours, theirs) == [] and len(ours.rows) == 1
