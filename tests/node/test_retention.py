"""Retention: what the next run removes, what stays and why; names erased; months of the log let go, by commands."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, delete, insert

from node.cli import main
from node.retention import expire_log, preview
from node.settings import Node, Repository, Retention, Settings
from storage import schema
from storage.audit import About, Patient, archive, forwarded
from storage.audit.anchors import Anchors
from storage.audit.seal import seal_all
from storage.clock import Clock, stamp
from storage.store import Store

NOW = datetime(2026, 6, 15, tzinfo=UTC)
OLD, YOUNG = stamp(NOW - timedelta(days=100)), stamp(NOW - timedelta(days=1))
JOBS = ("queued", "running", "done", "skipped", "parked", "discarded")
DELIVERIES = ("waiting", "sending", "delivered", "committed", "parked", "discarded")
ROUNDS = ("due", "asked", "committed", "failed", "unanswered", "parked", "withdrawn")
STUDIES = ("waiting", "running", "done", "parked")


# images and results


@dataclass(frozen=True)
class Sent:
    """A delivery's state, and that of its last round of commitment (empty: none is asked for)."""

    state: str
    round: str = ""

    def holds(self) -> bool:
        return self.state in {"waiting", "sending", "parked"} or self.round in {"due", "asked"}


@dataclass(frozen=True)
class Image:
    """An image with one job at most, its results with their deliveries, and its study's state (empty: none)."""

    old: bool
    job: str = ""
    study: str = ""
    results: tuple[tuple[bool, tuple[Sent, ...]], ...] = ()

    def goes(self) -> bool:
        sent = [each for _, deliveries in self.results for each in deliveries]
        return (
            self.old
            and self.job not in {"queued", "running", "parked"}
            and self.study not in {"waiting", "running"}
            and not any(each.holds() for each in sent)
        )


sent = st.builds(Sent, st.sampled_from(DELIVERIES), st.sampled_from(("", "", *ROUNDS)))
results = st.tuples(st.booleans(), st.lists(sent, max_size=2).map(tuple))
read = st.builds(
    Image,
    st.booleans(),
    st.just("done"),
    st.sampled_from(("", *STUDIES)),
    st.lists(results, max_size=2).map(tuple),
)
unread = st.builds(Image, st.booleans(), st.sampled_from(("", *JOBS)), st.sampled_from(("", *STUDIES)))


class Rows:
    """A store whose rows are put down as they might stand, whatever way led there."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.create(folder, clock=Clock(now=lambda: NOW))
        self.settings = Settings(
            node=Node(data_dir=folder), retention=Retention(images_days=30, results_days=90)
        )

    def put(self, images: list[Image]) -> None:
        self.numbers: Counter[str] = Counter()
        rows: dict[Table, list[dict[str, Any]]] = {}

        def add(table: Table, **values: Any) -> int:
            self.numbers[table.name] += 1
            number = self.numbers[table.name]
            rows.setdefault(table, []).append({"id": number, **values} if "id" in table.c else values)
            return number

        for at, image in enumerate(images):
            time = OLD if image.old else YOUNG
            key = f"{at:064x}"
            object_id = add(
                schema.objects, sop_instance=f"1.{at}", revision=1, sop_class="1.2", series="1.3", study=f"1.4.{at}",
                patient=key, patient_name=key, accession="", transfer_syntax="1.5", size=1000, content_hash="sha256:0",
                file=f"objects/{at}.dcm", received_at=time, calling_ae="CT", host="h", own=False,
            )  # fmt: skip
            if image.study:
                add(
                    schema.studies, subject=key, study=f"1.4.{at}", patient=key, patient_name=key, state=image.study,
                    reason="", due_at=time, limit_at=time, attempt=0, failures=0,
                )  # fmt: skip
            if not image.job:
                continue
            job_id = add(
                schema.jobs, object_id=object_id, model="sha256:m", request=1, state=image.job, reason="", attempt=1,
                failures=0, alone=False, batch=1, created_at=time,
            )  # fmt: skip
            if image.results:
                report_id = add(schema.reports, subject=key, revision=1, created_at=time)
                add(schema.report_jobs, report_id=report_id, job_id=job_id)
            for number, (old, deliveries) in enumerate(image.results):
                result_id = add(
                    schema.results, report_id=report_id, writer=f"w{number}", variant="", state="made", reason="",
                    sop_class="1.2", sop_instance=f"2.{at}.{number}", content_hash="sha256:1",
                    file=f"results/{at}.{number}.dcm", made_at=OLD if old else YOUNG,
                )  # fmt: skip
                for place, each in enumerate(deliveries):
                    delivery_id = add(
                        schema.deliveries, result_id=result_id, destination=f"d{place}", state=each.state, attempt=1,
                        next_attempt_at=time, reason="", created_at=time,
                    )  # fmt: skip
                    if each.round:
                        add(
                            schema.commitments, delivery_id=delivery_id, state=each.round, failures=0, refusals=0,
                            reason="",
                        )  # fmt: skip
        with self.store.database.write() as tx:
            for table in (
                schema.commitments, schema.deliveries, schema.results, schema.report_jobs, schema.reports, schema.jobs,
                schema.studies, schema.objects,
            ):  # fmt: skip
                tx.execute(delete(table))
            for table, values in rows.items():
                tx.execute(insert(table), values)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    rows = Rows(tmp_path_factory.mktemp("rows"))
    yield rows
    rows.store.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(read, unread), max_size=8))
def test_nothing_goes_that_is_unread_undelivered_uncommitted_or_waits_for_a_person(
    rows: Rows, images: list[Image]
) -> None:
    rows.put(images)
    found = preview(rows.store, rows.settings)
    with rows.store.database.read() as tx:
        gone = rows.store.objects.expirable(tx, NOW - timedelta(days=30), 1000)
        results_gone = rows.store.results.expirable(tx, NOW - timedelta(days=90), 1000)
    assert [file for _, file in gone] == [
        f"objects/{at}.dcm" for at, image in enumerate(images) if image.goes()
    ]
    assert [file for _, file in results_gone] == [
        f"results/{at}.{number}.dcm"
        for at, image in enumerate(images)
        for number, (old, deliveries) in enumerate(image.results)
        if old and not any(each.holds() for each in deliveries)
    ]
    # the preview counts the same, and all that is old is either going or staying for a reason
    assert (found.images.go.count, found.results.go.count) == (len(gone), len(results_gone))
    old_results = sum(old for image in images for old, _ in image.results)
    assert sum(found.images.stay.values()) == sum(image.old for image in images) - len(gone)
    assert sum(found.results.stay.values()) == old_results - len(results_gone)


def test_the_preview_says_why_what_is_old_stays(rows: Rows) -> None:
    def result(*sent: Sent) -> tuple[tuple[bool, tuple[Sent, ...]], ...]:
        return ((True, sent),)

    rows.put(
        [
            Image(old=True),
            Image(old=True, job="skipped"),
            Image(old=False),
            Image(old=True, job="queued"),
            Image(old=True, job="parked"),
            Image(old=True, job="done", study="waiting"),
            Image(old=True, job="done", results=result(Sent("delivered"), Sent("waiting"))),
            Image(old=True, job="done", results=result(Sent("delivered", "asked"))),
            Image(old=True, job="done", results=result(Sent("parked"))),
        ]
    )
    images, results = preview(rows.store, rows.settings).images, preview(rows.store, rows.settings).results
    assert (images.go.count, images.go.size, images.go.oldest) == (2, 2000, OLD)
    assert images.stay == {"parked": 2, "unread": 2, "undelivered": 1, "uncommitted": 1}
    assert (results.go.count, results.stay) == (0, {"parked": 1, "undelivered": 1, "uncommitted": 1})


def test_the_preview_is_printed_and_removes_nothing(station: Any) -> None:
    station.make(1)
    told = station.json("retention", "preview", "--json")
    assert told["images"] == {"days": 30, "go": 0, "bytes": 0, "oldest": None, "stay": {}}
    assert told["audit"] == {"days": 0, "months": [], "waits": None, "next_month": None, "next_on": None}
    code, out, _ = station.run("retention", "preview")
    assert code == 0
    assert "30 days" in out and "audit log: kept for ever" in out


# the log's months


class Log:
    """A log with a record a day from January to mid-June 2026, its anchors, and its settings."""

    def __init__(self, folder: Path, **audit: Any) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.store = Store.create(folder, clock=Clock(now=lambda: self.now))
        tree = {"node": {"data_dir": folder}, "retention": {"audit_days": 90}, "audit": audit}
        self.settings = Settings.model_validate(tree)
        self.anchors = Anchors(folder)
        self.anchors.begin()
        while self.now < NOW:
            with self.store.database.write() as tx:
                keys = self.store.audit.identify(tx, Patient(f"P-{self.now:%m}"))
                self.store.audit.record(tx, "object.received", about=About(keys, "1.2"))
            self.now += timedelta(days=1)

    def anchor(self) -> None:
        sealed = seal_all(self.store.database, self.store.clock)
        assert sealed is not None
        self.anchors.write(sealed)

    def expire(self) -> tuple[list[str], str]:
        run = expire_log(self.store, self.settings)
        return [month.name for month, _ in run.months], run.waits


def test_a_month_waits_for_its_anchor(tmp_path: Path) -> None:
    log = Log(tmp_path)
    months, waits = log.expire()
    assert months == [] and "anchor" in waits
    assert preview(log.store, log.settings).log.waits == waits
    seal_all(log.store.database, log.store.clock)
    with log.store.database.write() as tx:
        log.store.audit.record(tx, "node.started")
    log.anchor()
    found = preview(log.store, log.settings).log
    assert ([month.name for month in found.months], found.waits) == (["2026-01", "2026-02"], "")
    assert found.next == ("2026-03", "2026-06-30")
    assert log.expire() == (["2026-01", "2026-02"], "")
    assert log.expire() == ([], "")
    log.store.close()


def test_a_month_waits_for_the_audit_repository(tmp_path: Path) -> None:
    from node.atna.condition import taker

    log = Log(tmp_path, repository={"host": "arr.hospital.example"})
    log.anchor()
    months, waits = log.expire()
    assert months == [] and "arr.hospital.example" in waits
    assert isinstance(log.settings.audit.repository, Repository)
    with log.store.database.write() as tx:
        forwarded.move(tx, taker(log.settings.audit.repository), 40)
    months, waits = log.expire()
    assert months == ["2026-01"] and "arr.hospital.example" in waits
    log.store.close()


def test_nothing_goes_while_anchor_and_log_disagree(tmp_path: Path) -> None:
    log = Log(tmp_path)
    sealed = seal_all(log.store.database, log.store.clock)
    assert sealed is not None
    log.anchors.write(replace(sealed, hash=bytes(32)))
    months, waits = log.expire()
    assert months == [] and "verify" in waits
    log.store.close()


def test_whoever_asks_about_an_expired_time_is_told_where_its_records_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(tmp_path / "data")
    log.anchor()
    log.store.close()
    config = tmp_path / "site.toml"
    config.write_text('[node]\ndata_dir = "data"\n[retention]\naudit_days = 90\n')

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--config", str(config)])
        return code, *capsys.readouterr()

    code, out, err = run("audit", "expire")
    assert (code, err) == (0, "")
    gone = [line.partition(":")[0] for line in out.splitlines()]
    assert gone[:2] == ["2026-01", "2026-02"]
    _, _, err = run("audit", "query", "--study", "1.2")
    assert "have expired; they are in audit-archive/audit-2026-01.jsonl.gz to audit-" in err
    _, out, err = run("audit", "query", "--since", "1h", "--format", "json")
    assert "expired" not in err and "audit.expired" in out
    code, out, _ = run("audit", "verify")
    assert code == 0, out
    files = sorted(str(path) for path in (tmp_path / "data" / archive.FOLDER).iterdir())
    options = [part for file in files for part in ("--export", file)]
    code, out, _ = run("audit", "verify", *options)
    assert code == 0 and out.count("as they were sealed") == len(files)
    Path(files[0]).write_bytes(Path(files[1]).read_bytes()[:-50])
    code, out, _ = run("audit", "verify", *options)
    assert code == 1 and "damaged" in out
    code, out, _ = run("audit", "expire")
    assert (code, out) == (0, "nothing is over\n")


# names


def test_an_erasure_is_shown_first_and_done_with_yes(station: Any) -> None:
    station.make(1)
    station.receive(2)
    code, out, _ = station.run("audit", "erase", "--patient", "ID-1")
    assert code == 0
    assert "would be erased: 1 patient number" in out
    assert "stay, since records of others carry them too: 1 name, 1 accession number" in out
    assert "not reached: 1 image in" in out and "not reached: 1 result in" in out and "--yes" in out
    assert "ID-1" not in out and "DOE" not in out
    records = station.json("audit", "query", "--patient", "ID-1", "--format", "json")
    assert {record["patient_id"] for record in records} == {"ID-1"}
    code, out, _ = station.run("audit", "erase", "--patient", "ID-1", "--yes")
    assert code == 0 and "\nerased: 1 patient number\n" in out and "--yes" not in out
    found = station.json(
        "audit", "query", "--patient", "ID-1", "--event", "object.received", "--format", "json"
    )
    (shown,) = {record["patient_id"] for record in found}
    assert shown.startswith("#")
    (told,) = station.json("audit", "query", "--event", "identity.erased", "--format", "json")
    assert told["patient_id"] == shown
    for path in station.data_dir.glob("hilum.db*"):
        assert b"ID-1" not in path.read_bytes()


def test_an_erasure_names_somebody_whom_the_log_knows(station: Any) -> None:
    station.receive(1)
    code, _, err = station.run("audit", "erase", "--patient", "ID-9", "--yes")
    assert code == 1 and "nothing is erased" in err and "ID-9" not in err
    code, _, err = station.run("audit", "erase")
    assert code == 2 and "--patient" in err
    code, _, err = station.run("audit", "erase", "--all", "--patient", "ID-1")
    assert code == 2


def test_all_values_are_erased_at_once(station: Any) -> None:
    station.receive(1)
    station.receive(2)
    code, out, _ = station.run("audit", "erase", "--all")
    assert (code, out) == (0, "erased: 4 values\n")
