"""The log that `scripts/bench audit` measures: records as a node writes them, questions that find what they name."""

from collections.abc import Iterator

import pytest

from scripts.benchmarks.audit_log import build
from scripts.benchmarks.audit_questions import questions, samples
from storage.audit import OF_NAME, Filter, pages
from storage.audit.events import ALWAYS
from storage.audit.index import sealed_to
from storage.store import Store

RECORDS = 6000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("log")
    assert build(folder, RECORDS).records >= RECORDS
    store = Store.open(folder)
    yield store
    store.close()


def test_every_record_of_the_log_is_one_that_the_catalogue_knows(log: Store) -> None:
    records = list(pages(log.audit, log.database.read, Filter()))
    assert len(records) >= RECORDS
    strange = [
        (record.event, key)
        for record in records
        for key in record.detail
        if key not in ALWAYS and key not in OF_NAME[record.event].details
    ]
    assert strange == []
    with log.database.read() as tx:
        assert sealed_to(tx) == records[-1].id


def test_an_image_has_its_whole_life_and_each_question_about_it_finds_some_of_it(log: Store) -> None:
    (one,) = samples(log, 1)
    with log.database.read() as tx:
        life = [record.event for record in log.audit.page(tx, Filter(sop=one.sop))]
        asked = dict(questions(one, log))
        for title in ("patient", "name", "accession", "study", "sop of a result", "everything at once"):
            found = log.audit.page(tx, asked[title])
            assert all(record.study == one.study for record in found) or title in {"patient", "name"}
    assert life[:4] == ["object.received", "job.queued", "job.claimed", "job.analyzed"]
    assert life.count("result.made") == life.count("delivery.delivered") == 2
