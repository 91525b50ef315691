"""`hilum audit trace`: what the compliance officer reads is what happened, and that she asked is recorded first."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from lives import ANNA, CT, JANE, SR, Life, eventful
from pypdf import PdfReader
from sqlalchemy import select, text

from node.cli import main
from node.paper import html, lasting, numbers, pdf
from node.paper.printing import Printing
from node.trace import find, now
from node.trace.ask import read
from node.trace.pages import paper
from node.trace.story import Story, tell
from storage.audit import About, Actor, Patient
from storage.results import Made
from storage.schema import audit
from storage.store import Store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path)
    yield life
    life.store.close()


@pytest.fixture
def run(life: Life, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("ID-4711", "--format", "html")`: a trace's exit code, stdout and stderr."""

    def trace(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["audit", "trace", *arguments, "--config", str(life.config)])
        return code, *capsys.readouterr()

    return trace


def plain(out: str) -> str:
    """Without the breaks of lines."""
    return " ".join(out.split())


def story(life: Life, given: str = "1.2.840.1") -> Story:
    (told,) = read(life.store, find.find(life.store, given))
    return told


def steps(life: Life, sop: str) -> list[str]:
    return [told.text for image in story(life).images if image.sop == sop for told in image.steps]


# the story


def test_from_the_first_byte_to_the_acknowledgement_each_step_has_its_time_and_what_it_took(
    life: Life, run: Run
) -> None:
    life.whole()
    code, out, err = run("1.2.840.1")
    assert (code, err) == (0, "")
    told = plain(out)
    for sentence in (
        "10:22:31.000 received in 0.40 s from CT1 at 10.0.0.7 (TLS certificate CN=ct1.example): Digital X-Ray Image"
        " - For Presentation, 8.4 MB; queued to be read [1-2]",
        "10:22:31.050 +50 ms read by worker-1, attempt 1, in 0.36 s (decode 21 ms, predict 0.21 s, render 80 ms, keep"
        " 6 ms); model chest-vgg16 1.2 (sha256 abababababab) [3-4]",
        "10:22:31.410 Structured Report 2.25.10 made, checked and kept [5]",
        "10:22:31.420 +10 ms Structured Report sent to pacs, attempt 1; pacs acknowledged it 12 ms later, status 0000"
        " [7-8]",
        "State now: Delivered everywhere: 2 of 2 deliveries.",
        "First byte 2025-03-14 10:22:30.600 +01:00",
        "Last acknowledgement 2025-03-14 10:22:31.444 +01:00",
        "From first to last 0.84 s",
        "Patient id ID-4711",
        "Patient's name Doe Jane",
        "10 records of the audit log, ids 1 to 10",
    ):
        assert sentence in told


def test_findings_stand_with_score_and_threshold_and_never_as_a_diagnosis(life: Life, run: Run) -> None:
    life.whole()
    told = plain(run("1.2.840.1")[1])
    assert "Effusion 0.71 0.50 present Mass 0.10 0.50 absent" in told
    assert "AI result for research use only. Not a diagnosis. Not verified by a physician." in told


def test_what_went_wrong_has_its_reason_and_what_a_person_did_her_name(life: Life, run: Run) -> None:
    eventful(life, JANE)
    told = plain(run("1.2.840.1")[1])
    for sentence in (
        "! 10:22:31.000 refused from CT1 at 10.0.0.7 (TLS certificate CN=ct1.example), status A700: sync or commit"
        " failed: no space left on device",
        "looked at by worker-1, attempt 1, in 30 ms, and not read: no frontal view: ViewPosition is LL",
        "Structured Report sent to pacs, attempts 1 to 11 in 5 min 03 s: none of them got through; in the"
        " end: no connection to the destination",
        "Structured Report sent to pacs, attempt 12: the destination answered 0124 (not authorized). Parked: a person"
        " must decide",
        "\N{BULLET} 11:33:37.054 +50 min 00 s anna on ws-3 had the Structured Report sent to pacs again",
        "the same object came again",
        "pacs was asked to commit to Structured Report and Secondary Capture (transaction 2.25.99)",
        "pacs committed to the Secondary Capture, as PACS at 10.0.0.2 reports, 2.50 s after it was asked",
        "2025-04-03 (+02:00) 12:33:40.022 anna on ws-3 asked the log for records (table): study 1.2.840.1",
        "2 received, 1 sent again, 1 refused, 1 read, 1 not read (outside the scope of the model)",
    ):
        assert sentence in told


def test_what_waits_or_is_parked_says_what_a_person_must_do(life: Life, run: Run) -> None:
    job = life.receive(life.arrival(1))
    assert "State now: 1 image waits to be read." in plain(run("1.2.840.1")[1])
    life.claim()
    life.read(job)
    life.postponed(life.attempt()[0])
    told = plain(run("1.2.840.1")[1])
    assert "State now: 2 results wait for pacs (last try: no connection to the destination)." in told
    assert "attempt 1: did not get through: no connection to the destination" in told
    (postponed,) = life.records("delivery.postponed")
    assert postponed.outcome == "failure" and postponed.detail["reason"] == "no connection to the destination"
    life.parked(life.attempt()[0], "it answered C000")
    told = plain(run("1.2.840.1")[1])
    assert "Structured Report for pacs is parked: it answered C000." in told
    assert "A person must decide: `hilum deliveries retry 1` sends it again" in told


def test_an_image_that_kills_its_worker_is_told_attempt_by_attempt(life: Life) -> None:
    life.receive(life.arrival(1))
    for number in range(3):
        life.claim(f"worker-1:{number}")
        life.wait(2)
        with life.store.database.write() as tx:
            life.store.jobs.died(tx, f"worker-1:{number}")
    told = steps(life, "1.2.840.1.1.1")
    ended = "did not come to an end (the process or the node stopped)"
    assert told[1:3] == [f"worker-1 began to read it, attempt {n}: {ended}" for n in (1, 2)]
    assert "the reading process died on this image three times. Parked: a person must decide" in told[3]


def test_a_claim_that_was_given_back_is_no_attempt(life: Life) -> None:
    job = life.receive(life.arrival(1))
    life.claim()
    life.read(job)
    batch = life.attempt(most=2)
    with life.store.database.write() as tx:
        life.store.outbox.returned(tx, batch[1:])
    told = steps(life, "1.2.840.1.1.1")
    assert told[-1].endswith("claimed together with others and not tried; this attempt does not count")


def test_a_result_that_comes_back_is_told_with_its_image(life: Life) -> None:
    job = life.receive(life.arrival(1))
    life.claim()
    (result, _) = life.read(job)
    life.receive(
        life.arrival(2, sop_instance=result, sop_class=SR, own=True, sender=Actor("PACS", "h")), queued=False
    )
    assert len(story(life).images) == 1
    assert "this result of ours came back in 0.40 s from PACS at h: kept, never read" in steps(
        life, "1.2.840.1.1.1"
    )
    assert story(life).counts.received == 1


def test_a_study_with_one_report_tells_it_once_for_all_its_images(life: Life, run: Run) -> None:
    jobs = [life.receive(life.arrival(n)) for n in (1, 2)]
    life.claim()
    for job in jobs:
        with life.store.database.write() as tx:
            life.store.jobs.finish(tx, job, "worker-1:41", "done")
            life.store.studies.wait(tx, life.store.jobs.get(tx, [job])[0], 60, 600)
    life.wait(60)
    with life.store.database.write() as tx:
        study = life.store.studies.claim(tx, "worker-1:41", 60, 1)
        assert study is not None
        made = [Made("sr", "", SR, "2.25.7", "sha256:r", "f", ("pacs",))]
        life.store.results.add_of_study(tx, study.subject, study.images, 1, made)
        images = [job.sop_instance for job in study.images]
        life.store.studies.reported(tx, study, "worker-1:41", {}, {"images": images, "ms": {"read": 40}})
    life.deliver()
    told = story(life)
    assert [image.steps[-1].text for image in told.images] == 2 * [
        "read; waits for the rest of the study, which gets one report"
    ]
    as_whole = " / ".join(one.text for one in told.as_whole)
    assert "Structured Report 2.25.7, of 2 images made, checked and kept" in as_whole
    assert "the study's report was made by worker-1 of 2 images (read 40 ms)" in as_whole
    assert "pacs acknowledged it 12 ms later" in as_whole
    assert "The study as a whole" in run("1.2.840.1")[1]


def test_a_refused_request_for_commitment_is_found_by_its_transaction(life: Life) -> None:
    life.whole()
    about = About(life.store.audit.keys_of(JANE), "1.2.840.1", "1.2.840.1.1.1")
    life.record("commitment.requested", about, destination="pacs", transaction="2.25.5", results=["2.25.10"])
    refused = {"destination": "pacs", "outcome": "failure", "reason": "it knows no such service"}
    life.record("commitment.refused", transaction="2.25.5", **refused)
    life.record("commitment.refused", transaction="2.25.6", **refused)
    told = steps(life, "1.2.840.1.1.1")
    assert told.count("pacs did not take the request to commit: it knows no such service") == 1


# what is asked for


@pytest.mark.parametrize("given", ["1.2.840.1", "1.2.840.1.1.1", "2.25.11", "ACC-9", "ID-4711"])
def test_whatever_names_the_study_finds_it(life: Life, run: Run, given: str) -> None:
    life.whole()
    life.seal()
    life.whole("1.2.840.2", Patient("ID-2", "Roe^Richard", "ACC-2"))
    code, out, _ = run(given)
    assert code == 0
    assert "Trace of study 1.2.840.1\n" in out
    assert "ID-2" not in out


def test_each_study_of_a_patient_is_told_in_turn(life: Life, run: Run) -> None:
    life.whole()
    life.whole("1.2.840.2", JANE)
    code, out, _ = run("ID-4711", "--format", "json")
    assert code == 0
    assert [study["study_instance_uid"] for study in json.loads(out)["studies"]] == ["1.2.840.1", "1.2.840.2"]
    assert "Trace of 2 studies" in run("--patient", "ID-4711")[1]


def test_what_may_be_two_things_is_asked_back(life: Life, run: Run) -> None:
    life.whole(patient=Patient("4711", "A^B", "1"))
    life.whole("1.2.840.2", Patient("2", "C^D", "4711"))
    code, out, err = run("4711")
    assert (code, out) == (2, "")
    assert "say which with --accession or --patient" in err
    assert "Trace of study 1.2.840.2\n" in run("4711", "--accession")[1]


def test_a_number_that_stands_for_half_the_hospital_is_not_one_answer(
    life: Life, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "MOST_STUDIES", 2)
    for number in range(3):
        life.receive(life.arrival(1, f"1.2.840.{number}"))
    code, out, err = run("ID-4711")
    assert (code, out) == (2, "") and "more than 2 studies" in err


def test_what_was_only_refused_has_a_story_too(life: Life, run: Run) -> None:
    life.record(
        "object.refused", About(sop="1.2.3.4"), CT, outcome="failure", reason="it breaks off", status="C000"
    )
    code, out, _ = run("1.2.3.4")
    assert code == 0
    assert (
        "refused from CT1 at 10.0.0.7 (TLS certificate CN=ct1.example), status C000: it breaks off"
        in plain(out)
    )
    assert "Nothing of it was kept." in out


def test_the_unknown_is_one_line_and_what_was_typed_is_nowhere_in_the_log(life: Life, run: Run) -> None:
    code, out, err = run("Unmistakable-4711")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and "Unmistakable" not in err
    (asked,) = life.records()
    assert (asked.event, asked.outcome) == ("audit.queried", "failure")
    with life.store.database.read() as tx:
        assert b"Unmistakable" not in tx.execute(select(audit.c.payload)).scalar_one()


def test_that_somebody_asked_makes_nothing_known(life: Life, run: Run) -> None:
    life.record("audit.queried", About(study="1.2.3"), ANNA, filter={"study": "1.2.3"})
    assert run("1.2.3")[0] == 1


def test_a_patient_id_may_come_by_standard_input(
    life: Life, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from io import StringIO

    life.whole()
    monkeypatch.setattr("sys.stdin", StringIO("ID-4711\n"))
    assert "Trace of study 1.2.840.1\n" in run("--patient", "-")[1]


# asking is recorded


@pytest.mark.parametrize(
    ("form", "event"), [("text", "audit.queried"), ("json", "audit.queried"), ("html", "audit.exported")]
)
def test_asking_is_recorded_with_the_study_and_without_the_patient(
    life: Life, run: Run, form: str, event: str
) -> None:
    life.whole()
    assert run("ID-4711", "--format", form)[0] == 0
    asked = life.records()[-1]
    assert (asked.event, asked.study, asked.detail) == (event, "1.2.840.1", {"what": "trace", "format": form})
    with life.store.database.read() as tx:
        assert (
            b"ID-4711"
            not in tx.execute(select(audit.c.payload).order_by(audit.c.id.desc())).scalars().first()
        )
    assert "the log for a trace" in run("1.2.840.1")[1] or event == "audit.exported"


def test_where_the_log_takes_no_record_there_is_no_answer(life: Life) -> None:
    life.whole()
    limited = (
        "import resource, sys; from node.cli import main; import node.trace.ask;"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", limited, "audit", "trace", "1.2.840.1", "--config", str(life.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1


def test_nothing_is_left_of_a_file_that_could_not_be_made(life: Life, run: Run, tmp_path: Path) -> None:
    assert run("1.2.840.1", "--out", str(tmp_path / "trace.txt"))[0] == 1
    assert not (tmp_path / "trace.txt").exists()


def test_a_file_is_its_owners_alone_and_never_overwrites(life: Life, run: Run, tmp_path: Path) -> None:
    life.whole()
    file = tmp_path / "trace.pdf"
    code, out, _ = run("1.2.840.1", "--format", "pdf", "--out", str(file))
    assert (code, out) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    assert life.records()[-1].event == "audit.exported"
    before = file.read_bytes(), len(life.records())
    code, _, err = run("1.2.840.1", "--out", str(file))
    assert code == 2 and "is there already" in err
    assert (file.read_bytes(), len(life.records())) == before


# what the answer rests on


def test_records_younger_than_the_last_seal_are_named(life: Life, run: Run) -> None:
    life.whole()
    assert "none is sealed yet" in run("1.2.840.1")[1]
    life.seal()
    life.record("audit.queried", About(study="1.2.840.1"), ANNA, filter={})
    told = plain(run("1.2.840.1")[1])
    assert "but for those younger than the last seal: record 12" in told
    life.seal()
    assert "Seals all are sealed, in blocks 1-" in plain(run("1.2.840.1")[1])


def test_what_was_erased_is_shown_as_erased(life: Life, run: Run) -> None:
    life.whole()
    with life.store.database.write() as tx:
        tx.execute(text("UPDATE audit_identity SET value = NULL"))
    key = life.store.audit.keys_of(JANE).id
    told = plain(run("1.2.840.1")[1])
    assert f"Patient id #{key[:8]}" in told and "(erased)" in told
    assert "ID-4711" not in told
    assert "Trace of study 1.2.840.1" in run("ID-4711")[1]


def test_what_was_never_kept_is_shown_so(life: Life, run: Run) -> None:
    life.store.close()
    life.store = Store.create(life.folder / "data", keeps_names=False)
    life.whole()
    told = plain(run("1.2.840.1")[1])
    assert told.count("(never kept)") == 3


# paper


class Checked(HTMLParser):
    """Every element is closed, nothing is loaded, nothing runs."""

    VOID = ("meta", "br", "hr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "img", "iframe", "object"}
        assert not any(name.startswith("on") or name in {"src", "href"} for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


ODD = Patient("<script>alert(1)</script>&", "Müller^Jörg=山田^太郎=يونس", '"]]></style>')


def test_html_is_one_sound_file_that_loads_and_runs_nothing(life: Life, run: Run) -> None:
    eventful(life, ODD)
    code, out, _ = run("1.2.840.1", "--format", "html")
    assert code == 0
    page = Checked(out)
    assert "<script>alert(1)</script>&" in page.words and "山田 太郎" in page.words
    assert "http:" not in out and "https:" not in out and "@import" not in out


def pages_of(life: Life, **more: Any) -> PdfReader:
    printing = Printing(at=life.at, by="anna on ws-3", node="HILUM", version="1")
    return PdfReader(BytesIO(pdf.write(paper([story(life, **more)], printing))), strict=True)


def test_pdf_has_the_story_a_head_and_a_number_on_each_page_and_its_letters_with_it(life: Life) -> None:
    eventful(life, ODD)
    for number in range(3, 30):
        life.receive(life.arrival(number, patient=ODD))
    read_back = pages_of(life)
    assert len(read_back.pages) > 1
    for number, page in enumerate(read_back.pages, 1):
        told = plain(page.extract_text())
        assert "Hilum audit trace, 1.2.840.1, printed" in told
        assert f"page {number} of {len(read_back.pages)}" in told
        assert page.mediabox[2:] == pytest.approx((595.28, 841.89), abs=0.1)
        for font in page["/Resources"]["/Font"].values():
            embedded = "/FontDescriptor" in font and "/FontFile2" in font["/FontDescriptor"]
            # reportlab names Helvetica on each page, and writes nothing with it
            assert embedded or font["/BaseFont"] == "/Helvetica"
    whole = plain(" ".join(page.extract_text() for page in read_back.pages))
    assert "anna on ws-3 had the Structured Report sent to pacs again" in whole
    assert "Müller Jörg" in whole and "<script>alert(1)</script>&" in whole
    # from right to left, and so never set as if from left to right
    assert "[U+064A U+0648 U+0646 U+0633]" in whole


def test_a_reason_of_any_length_and_any_letters_breaks_no_page(life: Life) -> None:
    for number, reason in enumerate(("x" * 20_000, "word " * 5_000, "a\x00b\x1b[31m\ud7ff <b>&"), 1):
        life.receive(life.arrival(number))
        for job in life.claim():
            life.end(job, "parked", reason)
    read_back = pages_of(life)
    assert "Parked: a person must decide" in plain(" ".join(page.extract_text() for page in read_back.pages))
    printing = Printing(at=life.at, by="a", node="n", version="1")
    Checked(html.write(paper([story(life)], printing)))


# reads


def test_a_story_needs_no_more_than_its_own_records(life: Life) -> None:
    """Nothing is looked for but by an index, whatever else the log holds."""
    for number in range(30):
        life.whole(f"1.2.840.{number}", Patient(f"P{number}", "A^B", f"A{number}"))
    life.seal()
    with life.store.database.read() as tx:
        plans: list[str] = []
        execute = tx.execute

        def explained(statement: Any, *more: Any) -> Any:
            sql = statement.compile(tx.engine, compile_kwargs={"literal_binds": True})
            plans.extend(row[3] for row in execute(text(f"EXPLAIN QUERY PLAN {sql}")))
            return execute(statement, *more)

        tx.execute = explained  # type: ignore[method-assign]
        now.look(tx, "1.2.840.7")
        list(find._names(tx, life.records()[:5]))
        find._seals(tx, [1, 2, 3])
    scans = [plan for plan in plans if plan.startswith("SCAN")]
    assert scans == []


def test_tell_needs_no_queues(life: Life) -> None:
    """After the database was rebuilt the log may know a study of which the queues know nothing."""
    life.whole()
    with life.store.database.read() as tx:
        last = life.store.audit.newest(tx)
    (dossier,) = find.read(life.store, find.find(life.store, "1.2.840.1"), last)
    assert tell(dossier, now.Now()).counts.read == 1


# words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.021, "21 ms"), (0.3601, "0.36 s"), (9.999, "10 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"),
     (7_500, "2 h 05 min"), (90_000, "25 h 00 min"), (273_600, "3 d 4 h")],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


def test_runs_of_numbers_are_drawn_together() -> None:
    assert numbers([3, 5, 6, 7, 9]) == "3, 5-7, 9"
