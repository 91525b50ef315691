"""Every command: what it prints, how it ends, what it records, and that it starts quickly."""

import csv
import io
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from node import cli, operate, status
from node.cli import main
from node.codecs import faults
from node.errors import Misuse
from node.history import COLUMNS, wanted
from node.state import locked

HEAVY = ("tensorflow", "keras", "highdicom")


def events(station: Any, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = station.json("audit", "query", "--event", kind, "--format", "json")
    return found


# how commands end


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hilum ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["serve", "--port", "x"],
        ["analyze"],
        ["status", "--config", "/nowhere/config.toml"],
        ["audit", "query", "--event", "object.eaten"],
        ["audit", "query", "--since", "yesterday"],
        ["audit", "query", "--format", "xml"],
        ["check", "--requeue"],
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("hilum: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["frobnicate"], "hilum"),
        (["analyze"], "hilum analyze"),
        (["model", "predict", "x.png", "--frobnicate"], "hilum model predict"),
    ],
)
def test_wrong_usage_names_the_help_of_the_command_that_was_meant(
    arguments: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.endswith(f"(see `{command} --help`)\n")


@pytest.mark.parametrize("arguments", [["jobs", "list"], ["deliveries", "list"], ["audit", "query"]])
def test_where_no_node_has_run_there_is_nothing_to_list(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 3
    assert "no node has run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_node_without_peers_does_not_listen_beyond_loopback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--host", "0.0.0.0", "--data-dir", str(tmp_path / "data")]) == 2
    assert "peers" in capsys.readouterr().err


def test_a_reader_who_has_enough_is_no_error(station: Any) -> None:
    for number in range(600):
        station.receive(number)
    command = [sys.executable, "-m", "node.cli", "audit", "query", "--json", "--config", str(station.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("command", [["status"], ["jobs", "list"], ["audit", "query"], ["--help"]])
def test_what_predicts_nothing_starts_at_once(station: Any, command: list[str]) -> None:
    script = (
        "import sys; from node.cli import main; main(sys.argv[1:]); "
        f"sys.exit(9 if any(m in sys.modules for m in {HEAVY!r}) else 0)"
    )
    options = [] if command == ["--help"] else ["--config", str(station.config)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script, *command, *options], capture_output=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    # CPU time: how long it takes on a machine that does nothing else
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def test_the_states_that_options_take_are_the_tables() -> None:
    assert tuple(cli.JobState) == status.JOB_STATES
    assert tuple(cli.DeliveryState) == status.DELIVERY_STATES


# jobs and deliveries


def test_jobs_are_listed_with_the_reason_why_they_are_parked(station: Any) -> None:
    parked, queued = station.park(1), station.receive(2)
    assert [job["id"] for job in station.json("jobs", "list", "--json")] == [parked, queued]
    (job,) = station.json("jobs", "list", "--json", "--state", "parked")
    assert job["state"] == "parked"
    assert job["reason"] == "The compressed image breaks off"
    assert job["sop_instance_uid"] == "1.2.3.1"
    _, out, _ = station.run("jobs", "list")
    assert "The compressed image breaks off" in out
    assert "DOE" not in out


def test_an_empty_list_is_json_too(station: Any) -> None:
    assert station.json("jobs", "list", "--json") == []
    assert station.json("deliveries", "list", "--json", "--state", "parked") == []


def test_a_parked_job_is_tried_again_and_the_audit_log_names_who_asked(
    station: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate, "_user", lambda _: "rosa")
    job_id = station.park(1)
    code, out, _ = station.run("jobs", "retry", str(job_id))
    assert (code, out) == (0, f"job {job_id} is queued again\n")
    assert station.json("jobs", "list", "--json")[0]["state"] == "queued"
    assert [record["actor"] for record in events(station, "job.retried")] == ["rosa"]


def test_all_parked_jobs_are_given_up_at_once(station: Any) -> None:
    for number in range(3):
        station.park(number)
    station.receive(9)
    assert station.run("jobs", "discard", "--all-parked")[0] == 0
    states = [job["state"] for job in station.json("jobs", "list", "--json")]
    assert states == ["discarded", "discarded", "discarded", "queued"]


def test_what_can_not_be_retried_is_told_and_the_others_are(station: Any) -> None:
    queued, parked = station.receive(1), station.park(2)
    code, out, err = station.run("jobs", "retry", str(queued), str(parked), "77")
    assert code == 1
    assert "there is no job 77" in err
    assert err.count("hilum: ") == 2
    assert out == f"job {parked} is queued again\n"


@pytest.mark.parametrize("ids", [[], ["1", "--all-parked"]])
def test_a_retry_says_which_or_all(station: Any, ids: list[str]) -> None:
    assert station.run("jobs", "retry", *ids)[0] == 2


def test_a_parked_delivery_is_sent_again(station: Any) -> None:
    delivery = station.make(1)
    with station.store.database.write() as tx:
        station.store.outbox.parked(tx, delivery, "presentation context refused")
    (told,) = station.json("deliveries", "list", "--json", "--state", "parked")
    assert (told["destination"], told["reason"]) == ("pacs", "presentation context refused")
    assert told["source_sop_instance_uid"] == "1.2.3.1"
    assert station.run("deliveries", "retry", "--all-parked")[0] == 0
    assert station.json("deliveries", "list", "--json")[0]["state"] == "waiting"
    assert station.run("deliveries", "discard", str(delivery.id))[0] == 0
    assert len(events(station, "delivery.discarded")) == 1


# the audit log


def test_the_audit_log_is_asked_by_study_sender_and_event(station: Any) -> None:
    station.receive(1)
    station.receive(2, sender="OTHER")
    assert len(station.json("audit", "query", "--study", "1.2", "--json")) == 4
    assert station.json("audit", "query", "--study", "9.9", "--json") == []
    (record,) = station.json("audit", "query", "--ae", "OTHER", "--json")
    assert list(record) == list(COLUMNS)
    assert record["event"] == "object.received"
    assert record["patient_id"] == "ID-2"
    assert record["sop"] == "1.2.3.2"


def test_who_asked_is_recorded_and_not_part_of_the_answer(station: Any) -> None:
    station.receive(1)
    first = station.json("audit", "query", "--sop", "1.2.3.1", "--json")
    assert [record["event"] for record in first] == ["object.received", "job.queued"]
    (asked,) = events(station, "audit.queried")[:1]
    assert asked["detail"] == {"filter": {"sop": "1.2.3.1"}, "format": "json"}
    assert asked["sop"] == "1.2.3.1"


def test_csv_has_a_line_a_record(station: Any) -> None:
    station.receive(1)
    _, out, _ = station.run("audit", "query", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["event"] for row in rows] == ["object.received", "job.queued"]
    assert json.loads(rows[0]["detail"])["size"] == 10


def test_a_table_names_no_patient(station: Any) -> None:
    station.receive(1)
    _, out, _ = station.run("audit", "query")
    assert "object.received" in out
    assert "DOE" not in out


def test_times_are_days_moments_or_ages() -> None:
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    berlin = ZoneInfo("Europe/Berlin")
    assert wanted(since="2h", now=now).since == "2026-01-31T10:00:00.000000Z"
    assert wanted(since="2026-01-31", zone=berlin).since == "2026-01-30T23:00:00.000000Z"
    assert wanted(until="2026-01-31", zone=berlin).until == "2026-01-31T22:59:59.999999Z"
    assert wanted(since="2026-01-31T14:30+02:00").since == "2026-01-31T12:30:00.000000Z"
    with pytest.raises(Misuse, match="--until"):
        wanted(until="2026-02-30")


def test_records_of_the_last_hour_are_found(station: Any) -> None:
    station.receive(1)
    assert len(station.json("audit", "query", "--since", "1h", "--event", "job.queued", "--json")) == 1
    assert station.json("audit", "query", "--until", "1h", "--event", "job.queued", "--json") == []


# check


def test_every_decoder_decodes_its_sample() -> None:
    assert {family: fault for family, fault in faults().items() if fault} == {}


def test_a_check_names_what_does_not_hold(station: Any) -> None:
    code, out, err = station.run("check", "--json")
    told = json.loads(out)
    assert (code, err) == (1, "")
    assert [check["what"] for check in told["checks"] if not check["holds"]] == ["destination pacs"]
    assert {"port", "data folder", "disk", "database", "model"} < {check["what"] for check in told["checks"]}


def test_a_damaged_database_is_found(station: Any) -> None:
    station.receive(1)
    station.store.database.checkpoint()
    station.store.close()
    file = station.data_dir / "hilum.db"
    content = bytearray(file.read_bytes())
    content[8192:40960] = b"\xa5" * (40960 - 8192)
    file.write_bytes(content)
    _, out, _ = station.run("check", "--json")
    (database,) = [check for check in json.loads(out)["checks"] if check["what"] == "database"]
    assert not database["holds"]
    assert "damaged" in database["detail"]


def test_a_repair_is_refused_while_a_node_holds_the_folder(station: Any) -> None:
    with locked(station.data_dir):
        code, _, err = station.run("check", "--repair")
    assert code == 3
    assert "another node" in err


def test_a_repair_says_what_it_did(station: Any) -> None:
    station.receive(1)
    code, out, _ = station.run("check", "--repair", "--json")
    assert code == 1
    assert json.loads(out)["repair"] == {"files_missing": ["objects/x/1.dcm"]}
