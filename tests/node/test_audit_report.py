"""`hilum audit report`: what a month's page says is what its records say, and never more."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lives import ANNA, Life
from pypdf import PdfReader

from node.audit_report.availability import CRASHED, STOPPED, Availability, availability
from node.audit_report.make import count
from node.audit_report.months import Month, months
from node.audit_report.tally import MOST_KINDS, Counted, Durations
from node.cli import main
from node.errors import Misuse
from storage.audit import Actor, Patient, Record
from storage.clock import stamp

BERLIN = ZoneInfo("Europe/Berlin")
MARCH = Month(datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC))
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path, MARCH.begin)
    yield life
    life.store.close()


@pytest.fixture
def run(life: Life, capsys: pytest.CaptureFixture[str]) -> Run:
    def report(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["audit", "report", *arguments, "--config", str(life.config)])
        return code, *capsys.readouterr()

    return report


def plain(out: str) -> str:
    return " ".join(out.split())


# months


def test_months_begin_at_midnight_of_the_reports_zone_in_summer_and_in_winter() -> None:
    asked = months("2025-03", "2025-04", datetime(2025, 6, 1, tzinfo=UTC), BERLIN)
    assert [(stamp(m.begin)[:16], stamp(m.end)[:16], m.name) for m in asked] == [
        ("2025-02-28T23:00", "2025-03-31T22:00", "2025-03"),
        ("2025-03-31T22:00", "2025-04-30T22:00", "2025-04"),
    ]


def test_without_dates_it_is_the_last_month_and_days_count_whole() -> None:
    now = datetime(2025, 1, 10, tzinfo=UTC)
    assert [m.name for m in months("", "", now, UTC)] == ["2024-12"]
    asked = months("2024-11-20", "2024-12-05", now, UTC)
    assert [m.name for m in asked] == ["2024-11, days 20 to 30", "2024-12, days 1 to 5"]
    assert [m.name for m in months("2024-12", "", now, UTC)] == ["2024-12", "2025-01"]


@pytest.mark.parametrize(
    ("since", "until"), [("March", ""), ("2025-02", "2025-01"), ("2025-13", ""), ("2030-01", "")]
)
def test_months_that_are_none_are_refused(since: str, until: str) -> None:
    with pytest.raises(Misuse):
        months(since, until, datetime(2025, 6, 1, tzinfo=UTC), UTC)


# counts


def month_of(life: Life) -> None:
    """Three images read and sent, one skipped, one parked; a delivery that needed three attempts."""
    life.record("node.started", port=1)
    life.record("association.accepted", actor=Actor("CT1", "10.0.0.7"))
    life.record(
        "association.refused",
        actor=Actor("ROGUE", "10.9.9.9"),
        outcome="failure",
        reason="not among the peers",
    )
    for number in range(3):
        life.whole(f"1.2.840.{number}", Patient(f"P{number}", "A^B", f"A{number}"))
        life.wait(100)
    for number, (state, reason) in enumerate(
        (("skipped", "no frontal view"), ("parked", "it breaks off")), 5
    ):
        life.receive(life.arrival(number))
        life.end(life.claim()[0], state, reason)
    job = life.receive(life.arrival(9))
    life.claim()
    life.read(job, writers=("sr",))
    for _ in range(2):
        (delivery,) = life.attempt()
        life.wait(50)
        life.postponed(delivery)
    life.deliver()
    life.record(
        "object.refused", actor=Actor("CT1"), outcome="failure", reason="disk below its floor", objects=7
    )
    life.record("config.changed", key="analyze.workers", old=1, new=2)
    life.record("model.changed", key="threshold.Effusion", old=0.5, new=0.55)
    life.record("audit.verified", actor=ANNA, records=9)
    life.record("identity.erased", actor=ANNA, keys=3)
    with life.store.database.write() as tx:
        life.store.jobs.retry(tx, 5, ANNA)
    life.seal()


def test_a_month_is_told_by_sender_destination_reason_model_and_person(life: Life, run: Run) -> None:
    month_of(life)
    life.at = datetime(2025, 4, 2, tzinfo=UTC)
    life.whole("1.2.840.77", Patient("P77", "A^B", "A77"))
    code, out, err = run("--from", "2025-03", "--to", "2025-03")
    assert (code, err) == (0, "")
    told = plain(out)
    for sentence in (
        "Images read 4 of 6 objects received",
        "Not read 1 skipped, 1 parked for a person",
        "Results 7 made: 4 Structured Report, 3 Secondary Capture",
        "Skipped because no frontal view (1)",
        "CT1 1 0 6 7 50.4 MB",
        "ROGUE 0 1 0 0 0 B",
        "pacs 7 2 0 0 0",
        "an image could not be read; a person must decide it breaks off 1",
        "a peer was turned away not among the peers 1",
        "chest-vgg16 1.2 abababababab 4 2025-03-01",
        "config.changed analyze.workers: 1 -> 2",
        "model.changed threshold.Effusion: 0.5 -> 0.55",
        "patients erased: 1",
        "readings tried again: 1",
        "by anna on ws-3: all in order",
    ):
        assert sentence in told, sentence
    assert "Last block 1, hash " in told


def test_what_is_counted_is_what_the_records_say(life: Life) -> None:
    month_of(life)
    counted = count(life.store, MARCH)
    records = life.records()
    assert counted.records == len(records)
    for event in {record.event for record in records}:
        assert counted.events[event] == sum(record.event == event for record in records)
    assert sum(counted.failures.values()) == sum(record.outcome == "failure" for record in records)
    assert counted.destinations["pacs"].durations.quantile(1) == pytest.approx(100.012, rel=0.01)


def test_an_image_of_last_month_that_is_delivered_in_this_one_has_its_duration(life: Life) -> None:
    life.at = MARCH.begin - timedelta(hours=1)
    job = life.receive(life.arrival(1))
    life.claim()
    life.read(job)
    life.seal()
    life.wait(7200)
    life.deliver()
    assert count(life.store, MARCH).destinations["pacs"].durations.quantile(0.5) == pytest.approx(
        7200, rel=0.01
    )


def test_a_month_without_records_says_so(life: Life, run: Run) -> None:
    month_of(life)
    out = run("--from", "2024-12", "--to", "2024-12")[1]
    assert "The log has no records of this time." in out
    assert "no start of it is in the log" in plain(out)


def test_a_report_is_recorded_before_it_is_shown(life: Life, run: Run) -> None:
    month_of(life)
    assert run("--from", "2025-03", "--to", "2025-03")[0] == 0
    asked = life.records()[-1]
    assert asked.event == "audit.exported"
    span = {"since": "2025-02-28T23:00:00.000000Z", "until": "2025-03-31T22:00:00.000000Z"}
    assert asked.detail == {"what": "report", "filter": span, "format": "text"}


def test_each_month_begins_a_page_and_a_quiet_one_fits_on_it(life: Life, run: Run, tmp_path: Path) -> None:
    month_of(life)
    file = tmp_path / "report.pdf"
    assert run("--from", "2025-02", "--to", "2025-03", "--format", "pdf", "--out", str(file))[0] == 0
    pages = PdfReader(BytesIO(file.read_bytes()), strict=True).pages
    assert len(pages) == 2
    assert "2025-02" in pages[0].extract_text() and "no records" in pages[0].extract_text()
    assert "chest-vgg16" in pages[1].extract_text()


def test_json_has_the_same_figures(life: Life, run: Run) -> None:
    month_of(life)
    (month,) = json.loads(run("--from", "2025-03", "--to", "2025-03", "--format", "json")[1])["months"]
    assert month["destinations"]["pacs"]["failed_attempts"] == 2
    assert month["senders"]["CT1"] == {"associations": 1, "received": 6, "refused": 7}
    assert month["seals"]["blocks"] == 1 and month["seals"]["unsealed"] == 0


# constant memory


@given(st.lists(st.floats(0.002, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.95]))
def test_median_and_percentile_are_right_within_one_percent(values: list[float], part: float) -> None:
    durations = Durations()
    for value in values:
        durations.add(value)
    right = sorted(values)[max(0, -int(-part * len(values) // 1) - 1)]
    found = durations.quantile(part)
    assert found == pytest.approx(right, rel=0.01)


def test_senders_that_call_themselves_otherwise_each_time_are_counted_together() -> None:
    counted = Counted(lambda _: "")
    for number in range(3 * MOST_KINDS):
        counted.add(
            Record(number + 1, "2025-03-01T00:00:00.000000Z", "association.refused", f"AE{number}", "", "", "", "", "",
                   "failure", {"reason": f"reason {number}"}, Actor)  # type: ignore[arg-type]
        )  # fmt: skip
    assert len(counted.senders) <= MOST_KINDS + 1
    assert sum(counted.senders.values()) == sum(counted.failures.values()) == 3 * MOST_KINDS


# availability


def up(
    life: Life, *, is_running: bool = True, now: datetime = datetime(2025, 5, 1, tzinfo=UTC)
) -> Availability:
    return availability(life.store, MARCH, now, is_running=is_running)


def at(life: Life, day: int, hour: int = 0, *, month: int = 3) -> None:
    life.at = datetime(2025, month, day, hour, tzinfo=UTC)


def test_a_node_that_was_always_up_was_up_all_the_time(life: Life) -> None:
    at(life, 1, month=2)
    life.record("node.started")
    found = up(life)
    assert (found.share, found.interruptions, found.is_least) == (1.0, [], False)


def test_an_orderly_stop_counts_from_the_stop_to_the_start(life: Life) -> None:
    at(life, 1, month=2)
    life.record("node.started")
    at(life, 10)
    life.record("node.stopped")
    at(life, 10, 6)
    life.record("node.started")
    found = up(life)
    (one,) = found.interruptions
    assert (one.cause, one.seconds, found.is_least) == (STOPPED, 6 * 3600, False)
    assert found.share == pytest.approx(1 - 6 / (31 * 24))


def test_after_a_crash_it_counts_as_down_since_its_last_sign_of_life(life: Life) -> None:
    at(life, 1)
    life.record("node.started")
    at(life, 10)
    life.whole()
    sign = life.at
    at(life, 10, 3)
    life.record("audit.queried", actor=ANNA, filter={})
    life.receive(life.arrival(2))  # adopted by the start
    life.record("node.recovered", adopted=1)
    life.record("node.started")
    found = up(life)
    (one,) = found.interruptions
    assert (one.cause, found.is_least) == (CRASHED, True)
    assert abs((one.begin - sign).total_seconds()) < 0.1


def test_a_crash_without_a_restart_ends_what_is_known(life: Life) -> None:
    at(life, 1)
    life.record("node.started")
    at(life, 15)
    life.whole()
    assert up(life, is_running=True).share == 1.0
    assert up(life, is_running=False).share == pytest.approx(14 / 31, abs=0.001)


def test_an_interruption_over_the_end_of_the_month_is_cut_there(life: Life) -> None:
    at(life, 1)
    life.record("node.started")
    at(life, 31)
    life.record("node.stopped")
    at(life, 3, month=4)
    life.record("node.started")
    (one,) = up(life).interruptions
    assert (one.seconds, one.end) == (86_400, None)


def test_restarts_of_less_than_a_minute_are_counted_and_not_listed(life: Life) -> None:
    at(life, 1)
    life.record("node.started")
    for _ in range(3):
        life.wait(3600)
        life.record("node.stopped")
        life.wait(5)
        life.record("node.started")
    found = up(life)
    assert (found.interruptions, found.short, found.starts) == ([], 3, 4)


def test_the_month_in_which_the_node_began_is_counted_from_there(life: Life) -> None:
    at(life, 21)
    life.record("node.started")
    found = up(life)
    assert (found.share, found.seconds) == (1.0, 11 * 86_400)
