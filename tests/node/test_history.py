"""What is asked of the audit log and what leaves it: recorded first, in the form that was asked for, safe there."""

import csv
import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from node.history import COLUMNS
from storage.audit import About, Actor, Filter, Patient, Record

NOBODY = Patient()
UNMISTAKABLE = ("ID-1", "DOE^JANE", "A-1")


def last(station: Any) -> Record:
    """The newest record: who asked."""
    with station.store.database.read() as tx:
        (record,) = station.store.audit.page(tx, Filter(), limit=1, newest=True)
    return record  # type: ignore[no-any-return]


def ids(station: Any, *options: str) -> list[int]:
    return [record["id"] for record in station.json("audit", "query", "--json", *options)]


def write(station: Any, actor: str, detail: dict[str, Any], patient: Patient = NOBODY) -> None:
    audit = station.store.audit
    with station.store.database.write() as tx:
        about = About(audit.identify(tx, patient))
        audit.record(tx, "config.changed", about=about, actor=Actor(actor), detail=detail)


# what is asked


def test_a_patient_is_found_by_number_by_name_and_by_accession_number(station: Any) -> None:
    station.receive(1)
    station.receive(2)
    assert ids(station, "--patient", "ID-1") == [1, 2]
    assert ids(station, "--patient", "ID-2", "--event", "job.queued") == [4]
    # the questions about this name are about her too, and come after
    assert ids(station, "--name", "DOE^JANE") == [1, 2, 3, 4]
    assert ids(station, "--accession", "A-1", "--outcome", "success", "--ae", "CR_ROOM") == [1, 3]
    assert ids(station, "--name", "doe^jane") == []


def test_what_failed_is_found_alone(station: Any) -> None:
    station.park(1)
    (failed,) = station.json("audit", "query", "--json", "--outcome", "failure")
    assert failed["event"] == "job.parked"
    assert station.run("audit", "query", "--outcome", "bad")[0] == 2


def test_pages_lead_from_one_to_the_next_in_both_directions(station: Any) -> None:
    for number in range(5):
        station.receive(number)
    options = ("audit", "query", "--json", "--ae", "CR_ROOM")
    for direction, whole in (((), [1, 3, 5, 7, 9]), (("--newest",), [9, 7, 5, 3, 1])):
        found: list[int] = []
        more: tuple[str, ...] = ()
        while True:
            code, out, err = station.run(*options, *direction, "--limit", "2", *more)
            assert code == 0
            found += [record["id"] for record in json.loads(out)]
            if not err:
                break
            hint, *rest = err.split()
            assert hint == "more:"
            more = tuple(rest)
        assert found == whole


def test_the_last_page_names_no_next(station: Any) -> None:
    station.receive(1)
    assert station.run("audit", "query", "--ae", "CR_ROOM", "--limit", "1")[2] == ""
    assert station.run("audit", "query", "--study", "1.2", "--limit", "1")[2] == "more: --after 1\n"


def test_newest_first_leaves_out_the_question_itself(station: Any) -> None:
    station.receive(1)
    assert ids(station, "--newest") == [2, 1]
    assert ids(station, "--newest", "--after", "1000") == [3, 2, 1]


def test_a_value_may_come_by_standard_input(station: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    station.receive(1)
    station.receive(2)
    monkeypatch.setattr("sys.stdin", io.StringIO("ID-2\nDOE^JANE\n"))
    assert ids(station, "--patient", "-", "--name", "-") == [3, 4]
    assert station.run("audit", "query", "--patient", "-")[0] == 2


# that it was asked


def test_a_question_is_recorded_with_keyed_hashes_alone_and_is_about_the_patient(station: Any) -> None:
    station.receive(1)
    station.run(
        "audit", "query", "--patient", "ID-1", "--name", "DOE^JANE", "--accession", "A-1", "--limit", "5"
    )
    asked = last(station)
    keys = station.store.audit.keys_of(Patient(*UNMISTAKABLE))
    assert asked.event == "audit.queried"
    assert asked.about.patient == keys
    assert asked.detail["filter"] == {
        "patient": keys.id,
        "name": keys.name,
        "accession": keys.accession,
        "limit": 5,
    }
    told = json.dumps(asked.detail)
    assert not any(secret in told for secret in UNMISTAKABLE)
    assert asked.id in ids(station, "--patient", "ID-1")


def test_asking_for_somebody_unknown_keeps_nothing_of_what_was_typed(station: Any) -> None:
    station.run("audit", "query", "--patient", "NEVER-SEEN", "--name", "NEVER^SEEN")
    station.store.database.checkpoint()
    kept = b"".join(path.read_bytes() for path in station.data_dir.rglob("*") if path.is_file())
    assert b"NEVER" not in kept


@pytest.mark.parametrize("form", ["csv", "jsonl", "dicom"])
def test_what_leaves_is_recorded_as_an_export(station: Any, form: str) -> None:
    station.receive(1)
    station.run("audit", "query", "--format", form)
    assert (last(station).event, last(station).detail) == (
        "audit.exported",
        {"filter": {}, "format": form, "what": "records"},
    )


def test_a_file_is_an_export_in_any_form(station: Any, tmp_path: Path) -> None:
    station.run("audit", "query", "--out", str(tmp_path / "a.txt"))
    assert last(station).event == "audit.exported"


@pytest.mark.parametrize("to_file", [False, True])
def test_where_the_log_takes_no_record_nothing_is_answered(
    station: Any, tmp_path: Path, to_file: bool
) -> None:
    station.receive(1)
    command = [
        sys.executable,
        "-m",
        "node.cli",
        "audit",
        "query",
        "--format",
        "csv",
        "--config",
        str(station.config),
    ]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "answer.csv")] if to_file else command,
        capture_output=True, text=True, check=False,
        # a disk that takes nothing
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("hilum: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "answer.csv").exists()


# what is written


def test_json_lines_and_the_array_tell_the_same(station: Any) -> None:
    station.receive(1)
    array = station.json("audit", "query", "--json")
    _, out, _ = station.run("audit", "query", "--format", "jsonl", "--limit", "2")
    assert [json.loads(line) for line in out.splitlines()] == array
    assert list(array[0]) == list(COLUMNS)


def test_no_cell_is_a_formula_and_each_comes_back_as_it_was(station: Any) -> None:
    nasty = [
        "=HYPERLINK(1)",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "＝1",
        "'=1",
        'say "hi", then\r\nleave',
        "",
    ]
    for actor in nasty:
        write(station, actor, {"key": "a\nb"}, Patient(id="=cmd|' /C calc'!A0"))
    _, out, _ = station.run("audit", "query", "--format", "csv")
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == list(COLUMNS)
    cells = [cell for row in rows[1:] for cell in row]
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r\n＝＋－＠"))]
    read = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [row["actor"].removeprefix("'") for row in read] == nasty
    assert {row["patient_id"].removeprefix("'") for row in read} == {"=cmd|' /C calc'!A0"}
    assert {row["detail"] for row in read} == {'{"key":"a\\nb"}'}


def test_dicom_writes_one_message_a_line(station: Any) -> None:
    station.receive(1)
    write(station, "two\nlines", {"key": "a\nb"})
    _, out, _ = station.run("audit", "query", "--format", "dicom")
    assert [ElementTree.fromstring(line).tag for line in out.splitlines()] == ["AuditMessage"] * 3
    assert "DOE" not in out


def test_dicom_into_a_folder_writes_a_file_a_record(station: Any, tmp_path: Path) -> None:
    station.receive(1)
    folder = tmp_path / "messages"
    assert station.run("audit", "query", "--format", "dicom", "--out", str(folder)) == (0, "", "")
    assert sorted(path.name for path in folder.iterdir()) == ["1.xml", "2.xml"]
    assert ElementTree.parse(folder / "1.xml").getroot().tag == "AuditMessage"
    assert (folder.stat().st_mode & 0o777, (folder / "1.xml").stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_file_is_the_owners_alone_and_holds_what_would_be_shown(station: Any, tmp_path: Path) -> None:
    station.receive(1)
    asked = ("audit", "query", "--ae", "CR_ROOM", "--format", "csv")
    umask = os.umask(0)
    try:
        assert station.run(*asked, "--out", str(tmp_path / "a.csv")) == (0, "", "")
    finally:
        os.umask(umask)
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a.csv").read_text() == station.run(*asked)[1]


@pytest.mark.parametrize("form", ["csv", "dicom"])
def test_nothing_is_written_over_and_then_nothing_was_asked(station: Any, tmp_path: Path, form: str) -> None:
    (tmp_path / "there").mkdir() if form == "dicom" else (tmp_path / "there").write_text("mine")
    before = last(station) if ids(station) else None
    code, out, err = station.run("audit", "query", "--format", form, "--out", str(tmp_path / "there"))
    assert (code, out) == (2, "")
    assert "is there already" in err
    if form == "csv":
        assert (tmp_path / "there").read_text() == "mine"
    assert last(station).event == "audit.queried" and before is None
