"""Each file of the corpus is treated as its table expects, by `hilum analyze` and by C-STORE into a real node."""

import csv
import hashlib
import json
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from peers.node import RunningNode, running_node, until
from peers.raw_sender import Aborted, Sender

from node.offline import Analyzed, analyze
from node.settings import Settings
from node.wire.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(600)]

FOLDERS = ("syntax", "pixels", "header", "scope", "broken")

# the table says what headers decide: it has pictures that are inverted on purpose, and a site may only flag those
BY_HEADER = {"scope": {"learned": "flag"}}

# `expect` in the words of `hilum analyze` and of the node
BY_ANALYZE = {
    "analyze": "analyzed",
    "skip": "skipped",
    "store-only": "skipped",
    "park": "failed",
    "refuse": "failed",
}
BY_STORE = {
    "analyze": "done",
    "skip": "skipped",
    "store-only": "no job",
    "park": "parked",
    "refuse": "refused",
}

# what comes out otherwise than the table expects: by `hilum analyze`, by C-STORE, and why
OTHERWISE = {
    "header/dup_b_same_bytes": ("analyzed", "repeated", "the same bytes again: Success, no second job"),
    "header/dup_c_same_uid_other_pixels": ("analyzed", "refused", "`hilum analyze` knows no store"),
    "header/dup_d_same_uid_other_patient": ("analyzed", "refused", "`hilum analyze` knows no store"),
    "header/text_image_comments_64kb": ("skipped", "skipped", "64 x 64 pixels: too small by the scope's rule"),
    "broken/stream_j2k_64_bytes_overwritten": ("analyzed", "done", "no decoder notices it"),
    "broken/stream_jpeg_baseline_64_bytes_overwritten": ("analyzed", "done", "no decoder notices it"),
}  # fmt: skip

# the meta group is absent, or names another instance than the data set: sent under the data set's own UIDs
NAMED_BY_DATA_SET = {
    "broken/no_preamble_no_meta", "broken/real_no_preamble_no_meta_fuji_cr", "pixels/real_palette_face",
    "scope/real_rtstruct", "broken/real_bad_sequence", "broken/real_bad_vr", "pixels/real_cr_modality_lut",
    "scope/real_rtdose", "scope/real_rtplan",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the corpus's table."""

    name: str
    path: Path
    expect: str
    depends_on: str

    @property
    def by_analyze(self) -> str:
        return OTHERWISE[self.name][0] if self.name in OTHERWISE else BY_ANALYZE[self.expect]

    @property
    def by_store(self) -> str:
        return OTHERWISE[self.name][1] if self.name in OTHERWISE else BY_STORE[self.expect]


@pytest.fixture(scope="module")
def rows(corpus: Path) -> list[Row]:
    """In the order of their names: so the ones that are to be sent in order are."""
    with (corpus / "index.csv").open(encoding="utf-8", newline="") as table:
        lines = sorted(csv.DictReader(table), key=lambda line: line["file"])
    return [
        Row(
            line["file"].removesuffix(".dcm"),
            corpus / "corpus" / line["file"],
            line["expect"],
            line["depends_on"],
        )
        for line in lines
    ]


@pytest.fixture(scope="module")
def others(corpus: Path) -> dict[str, Path]:
    """Udacity's six and the chests, by their names."""
    files = [*sorted((corpus / "udacity").glob("*.dcm")), *sorted((corpus / "chest").glob("*.dcm"))]
    return {file.stem: file for file in files}


@pytest.fixture(scope="module")
def analyzed(rows: list[Row], others: dict[str, Path]) -> dict[str, Analyzed]:
    """What `hilum analyze` says of every file."""
    names = [row.name for row in rows] + list(others)
    paths = [row.path for row in rows] + list(others.values())
    return dict(zip(names, analyze(Settings.model_validate(BY_HEADER), paths), strict=True))


class Station:
    """A node with an empty data folder, and what it answered to each file."""

    def __init__(self, node: RunningNode) -> None:
        self.node = node
        self.instances: dict[str, str] = {}
        self.accepted: dict[str, Path] = {}
        self.answers: dict[str, str] = {}
        self.kept: Counter[str] = Counter()

    def store(self, name: str, path: Path) -> None:
        sop_class, instance, syntax, data = taken_apart(name, path)
        self.instances[name] = instance
        answer = self._send(sop_class, instance, syntax, data)
        content = hashlib.sha256(data).hexdigest()
        self.answers[name] = "repeated" if answer == "success" and content in self.kept else answer
        if answer == "success":
            self.kept[content] = 1
            self.accepted[instance] = path

    def _send(self, sop_class: str, instance: str, syntax: str, data: bytes) -> str:
        with Sender(self.node.port, [(1, sop_class, [syntax])]) as sender:
            if 1 in sender.refused:
                return f"context rejected ({sender.refused[1]})"
            try:
                status, comment = sender.store(1, sop_class.encode(), instance.encode(), data)
            except Aborted:
                return "aborted"
            sender.release()
            assert len(comment) <= 64
            return f"{status:04X}" if status else "success"

    def outcomes(self) -> dict[str, tuple[str, str]]:
        """The state of each file's job, or what stands for it, and its reason."""
        until(self.node.settled, 240)
        jobs = {job["sop_instance_uid"]: job for job in json.loads(self.node.hilum("jobs", "list", "--json"))}
        outcomes = {}
        for name, answer in self.answers.items():
            job = jobs.get(self.instances[name], {"state": "no job", "reason": ""})
            match answer:
                case "success":
                    outcomes[name] = (job["state"], job["reason"])
                case "repeated":
                    outcomes[name] = ("repeated", "")
                case refusal:
                    outcomes[name] = ("refused", refusal)
        return outcomes

    def on_disk(self) -> Counter[str]:
        """The SHA-256 of each stored data set."""
        files = [path for path in (self.node.data / "objects").rglob("*") if path.is_file()]
        return Counter(hashlib.sha256(behind_meta(path.read_bytes())[1]).hexdigest() for path in files)


def behind_meta(raw: bytes) -> tuple[bytes, bytes]:
    """The meta group (by its own length; empty where there is none) and the data set."""
    at = 132 if raw[128:132] == b"DICM" else 0
    if raw[at : at + 4] != b"\2\0\0\0" or len(raw) < at + 12:
        return b"", raw[at:]
    end = at + 12 + int(struct.unpack_from("<L", raw, at + 8)[0])
    return raw[at:end], raw[end:]


def taken_apart(name: str, path: Path) -> tuple[str, str, str, bytes]:
    """SOP class, SOP instance, transfer syntax and data set, as a sender would announce what it does not look into.

    What names no class or syntax itself goes out as a DX image in Explicit Little Endian.
    """
    meta_bytes, data = behind_meta(path.read_bytes())
    sop_class, instance, syntax = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4.5", EXPLICIT_LITTLE
    with pydicom.config.disable_value_validation():
        if meta_bytes:
            meta = pydicom.dcmread(BytesIO(meta_bytes), force=True).file_meta
            sop_class = str(meta.get("MediaStorageSOPClassUID") or sop_class)
            instance = str(meta.get("MediaStorageSOPInstanceUID") or instance)
            syntax = str(meta.get("TransferSyntaxUID") or syntax)
        if name in NAMED_BY_DATA_SET:
            dataset = pydicom.dcmread(path, force=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
            sop_class, instance = str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)
            if not meta_bytes and dataset.original_encoding[0]:
                syntax = IMPLICIT_LITTLE
    return sop_class, instance, syntax, data


CONFIG = """
min_free_bytes = 0
[[destinations]]
name = "folder"
kind = "folder"
path = "delivered"
results = ["sc"]
"""


@pytest.fixture(scope="module")
def station(
    rows: list[Row], tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Station]:
    """Has all but broken/, some of which are the same real instances as files elsewhere."""
    with running_node(
        tmp_path_factory.mktemp("all"), CONFIG + '\n[scope]\nlearned = "flag"\n', free_port()
    ) as node:
        station = Station(node)
        for row in rows:
            if not row.name.startswith("broken/"):
                station.store(row.name, row.path)
        yield station


@pytest.fixture(scope="module")
def second_station(
    rows: list[Row],
    others: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
) -> Iterator[Station]:
    """Has broken/, Udacity's six and the chests."""
    with running_node(
        tmp_path_factory.mktemp("second"), CONFIG + '\n[scope]\nlearned = "flag"\n', free_port()
    ) as node:
        station = Station(node)
        for row in rows:
            if row.name.startswith("broken/"):
                station.store(row.name, row.path)
        for name, path in others.items():
            station.store(name, path)
        yield station


def test_every_row_is_there_and_what_we_do_otherwise_hangs_on_a_rule(rows: list[Row]) -> None:
    assert Counter(row.name.partition("/")[0] for row in rows) == {
        "syntax": 36, "pixels": 80, "header": 162, "scope": 46, "broken": 94,
    }  # fmt: skip
    otherwise = {row.name: row for row in rows if row.name in OTHERWISE}
    assert len(otherwise) == len(OTHERWISE)
    assert all(row.depends_on == "rule" for row in otherwise.values() if row.by_store != "repeated")


def test_analyze_treats_each_file_as_the_table_expects(
    rows: list[Row], analyzed: dict[str, Analyzed]
) -> None:
    wrong = [
        (row.name, row.by_analyze, analyzed[row.name].status, analyzed[row.name].reason)
        for row in rows
        if analyzed[row.name].status != row.by_analyze
    ]
    assert wrong == []
    assert all(bool(one.reason) != (one.status == "analyzed") for one in analyzed.values())
    assert all(len(one.findings) == 15 for one in analyzed.values() if one.status == "analyzed")


def test_a_node_treats_each_file_as_the_table_expects(
    rows: list[Row], station: Station, second_station: Station
) -> None:
    outcomes = station.outcomes() | second_station.outcomes()
    wrong = [
        (row.name, row.by_store, *outcomes[row.name]) for row in rows if outcomes[row.name][0] != row.by_store
    ]
    assert wrong == []


def test_a_node_and_analyze_give_the_same_reasons(
    rows: list[Row], station: Station, second_station: Station, analyzed: dict[str, Analyzed]
) -> None:
    outcomes = station.outcomes() | second_station.outcomes()
    for row in rows:
        state, reason = outcomes[row.name]
        if state in {"skipped", "parked"}:
            assert reason == analyzed[row.name].reason, row.name


def test_what_is_refused_leaves_nothing_and_what_is_kept_is_kept_as_it_came(
    station: Station, second_station: Station
) -> None:
    for one in (station, second_station):
        one.outcomes()
        assert one.on_disk() == one.kept
        outside = {path.name for path in one.node.folder.iterdir()}
        assert outside == {"config.toml", "data", "node.log", "delivered"}


def test_each_analyzed_image_is_delivered_once_under_its_own_patient_and_study(
    station: Station, second_station: Station
) -> None:
    for one in (station, second_station):
        done = [name for name, (state, _) in one.outcomes().items() if state == "done"]
        results = list((one.node.folder / "delivered").glob("*.dcm"))
        assert len(results) == len(done)
        sources = set()
        with warnings.catch_warnings():
            # of odd values in the sources
            warnings.simplefilter("ignore")
            for path in results:
                result = pydicom.dcmread(path, stop_before_pixels=True)
                instance = str(result.SourceImageSequence[0].ReferencedSOPInstanceUID)
                source = pydicom.dcmread(one.accepted[instance], stop_before_pixels=True, force=True)
                for keyword in ("PatientID", "StudyInstanceUID"):
                    assert str(result.get(keyword, "")) == str(source.get(keyword) or ""), one.accepted[
                        instance
                    ]
                sources.add(instance)
        assert len(sources) == len(done)


def test_udacitys_six_by_analyze_and_by_c_store(
    analyzed: dict[str, Analyzed], second_station: Station
) -> None:
    tests = [f"test{n}" for n in range(1, 7)]
    assert [analyzed[name].status for name in tests] == ["analyzed"] * 3 + ["skipped"] * 3
    # the last three are the first's instance with other words in the header
    outcomes = second_station.outcomes()
    assert [outcomes[name][0] for name in tests] == ["done"] * 3 + ["refused"] * 3


def test_the_chests_are_analyzed_and_the_two_of_one_instance_are_a_conflict(
    others: dict[str, Path], analyzed: dict[str, Analyzed], second_station: Station
) -> None:
    chests = [name for name in others if name.startswith(("rsna", "siim"))]
    assert len(chests) == 11
    assert {analyzed[name].status for name in chests} == {"analyzed"}
    outcomes = second_station.outcomes()
    assert [name for name in chests if outcomes[name][0] != "done"] == ["siim_6904_monochrome2"]
    assert outcomes["siim_6904_monochrome2"] == ("refused", "C000")
    assert second_station.node.status()["conflicts"] == 4
