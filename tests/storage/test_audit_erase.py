"""A patient's right: the names go, from the bytes of the files too; what happened stays, and its seals hold."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from storage.audit import About, Actor, Filter, Patient, values_of
from storage.audit.erase import Whose, erasable, erase, erase_all, kept
from storage.audit.seal import seal_all
from storage.audit.verify import Findings, opened, verify
from storage.schema import audit, audit_seal
from storage.store import Store

HER = Patient("ID-4711", "Zwetschgenhuber^Ottilie", "ACC-1")
OFFICER = Actor("officer", "desk")


@dataclass
class Ward:
    store: Store

    def visit(self, patient: Patient, study: str, event: str = "object.received") -> None:
        with self.store.database.write() as tx:
            about = About(self.store.audit.identify(tx, patient), study, f"{study}.1")
            self.store.audit.record(tx, event, about=about)

    def seal(self) -> None:
        seal_all(self.store.database, self.store.clock)

    def whose(self, patient: Patient, study: str = "") -> Whose:
        return Whose(self.store.audit.keys_of(patient).id, study)

    def erase(self, patient: Patient, study: str = "") -> dict[str, int]:
        """How many values went, by kind."""
        found = erase(self.store.database, self.store.audit, self.whose(patient, study), OFFICER)
        return dict(found.values)

    def told(self) -> set[str]:
        """Every value that is still known."""
        with self.store.database.read() as tx:
            records = self.store.audit.page(tx, Filter())
            keys = [key for r in records for key in vars(r.about.patient).values()]
            return set(values_of(tx, keys).values())

    def bytes(self) -> bytes:
        """All that lies in the database's files."""
        folder = self.store.database.file.parent
        return b"".join(path.read_bytes() for path in sorted(folder.glob("hilum.db*")))


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    store = Store.create(tmp_path)
    yield Ward(store)
    store.close()


@pytest.mark.parametrize("sealed", [True, False])
def test_after_an_erasure_nothing_names_the_patient_and_the_log_is_as_it_was(
    ward: Ward, sealed: bool
) -> None:
    ward.visit(HER, "1.1")
    ward.visit(Patient("ID-8", "Other^One", "ACC-8"), "1.8")
    if sealed:
        ward.seal()
    with ward.store.database.read() as tx:
        before = tx.execute(select(audit)).all(), tx.execute(select(audit_seal)).all()
    assert ward.erase(HER) == {"patient": 1, "name": 1, "accession": 1}
    assert ward.told() == {"ID-8", "Other^One", "ACC-8"}
    with ward.store.database.read() as tx:
        after = tx.execute(select(audit)).all(), tx.execute(select(audit_seal)).all()
        shown = [record.patient_id for record in ward.store.audit.page(tx, Filter(study="1.1"))]
        (erased,) = ward.store.audit.page(tx, Filter(event="identity.erased"))
    assert (after[0][:2], after[1]) == (before[0], before[1])
    assert shown == [f"#{ward.whose(HER).patient[:12]}"]
    assert (erased.actor, erased.detail["values"], len(erased.detail["keys"])) == ("officer", 3, 3)
    ward.seal()
    findings = Findings()
    with opened(ward.store.database.file) as connection:
        verify(connection, findings)
    assert findings.told == []


def test_no_byte_of_an_erased_value_is_left_in_the_databases_files(ward: Ward) -> None:
    # so many that pages have split, which leaves copies in their gaps
    with ward.store.database.write() as tx:
        for number in range(3000):
            patient = Patient(f"ID-{number:05d}", f"Huber{number:05d}^Ida", f"ACC-{number:05d}")
            about = About(ward.store.audit.identify(tx, patient), f"1.{number}")
            ward.store.audit.record(tx, "object.received", about=about)
    ward.store.database.checkpoint()
    gone = [f"{number:05d}" for number in range(0, 3000, 500)]
    assert all(f"Huber{number}^Ida".encode() in ward.bytes() for number in gone)
    for number in gone:
        ward.erase(Patient(f"ID-{number}"))
    left = ward.bytes()
    assert not [
        number for number in gone for word in ("ID-", "Huber", "ACC-") if f"{word}{number}".encode() in left
    ]
    assert b"Huber00001^Ida" in left


def test_what_others_have_too_stays(ward: Ward) -> None:
    ward.visit(HER, "1.1")
    ward.visit(Patient("ID-8", HER.name, "ACC-8"), "1.8")
    ward.seal()
    ward.visit(Patient("ID-9", "Other^One", HER.accession), "1.9")
    with ward.store.database.read() as tx:
        found = erasable(tx, ward.whose(HER))
    assert (dict(found.values), dict(found.shared)) == ({"patient": 1}, {"name": 1, "accession": 1})
    ward.erase(HER)
    assert ward.told() == {HER.name, HER.accession, "ID-8", "ACC-8", "ID-9", "Other^One"}


def test_that_somebody_asked_for_a_name_does_not_keep_it(ward: Ward) -> None:
    ward.visit(HER, "1.1")
    with ward.store.database.write() as tx:
        keys = ward.store.audit.keys_of(Patient(name=HER.name))
        ward.store.audit.record(tx, "audit.queried", about=About(keys))
    assert ward.erase(HER)["name"] == 1


def test_of_one_study_only_what_no_other_study_has_goes(ward: Ward) -> None:
    ward.visit(HER, "1.1")
    ward.visit(Patient(HER.id, HER.name, "ACC-2"), "1.2")
    ward.seal()
    assert ward.erase(HER, "1.1") == {"accession": 1}
    assert ward.told() == {HER.id, HER.name, "ACC-2"}
    assert ward.erase(HER, "1.1") == {}
    assert ward.erase(Patient(), "1.2") == {"accession": 1}


def test_erased_stays_erased_when_the_patient_comes_again(ward: Ward) -> None:
    """Her next image is recorded under the same key, and found by whoever types her number."""
    ward.visit(HER, "1.1")
    ward.erase(HER)
    ward.visit(Patient(HER.id, HER.name, "ACC-NEW"), "1.2")
    assert ward.told() == {"ACC-NEW"}
    with ward.store.database.read() as tx:
        found = ward.store.audit.page(tx, Filter(patient=HER.id, event="object.received"))
    assert [record.study for record in found] == ["1.1", "1.2"]


def test_all_values_go_at_once(ward: Ward) -> None:
    ward.visit(HER, "1.1")
    ward.visit(Patient("ID-8", "Other^One"), "1.8")
    assert erase_all(ward.store.database, ward.store.audit, OFFICER) == 5
    assert erase_all(ward.store.database, ward.store.audit, OFFICER) == 0
    with ward.store.database.read() as tx:
        assert kept(tx) == 0
        (erased,) = ward.store.audit.page(tx, Filter(event="identity.erased"))
    assert erased.detail == {"values": 5}
    assert b"Zwetschgenhuber" not in ward.bytes()


def test_with_keyed_hashes_alone_no_value_is_put_down_and_patients_can_be_told_apart(tmp_path: Path) -> None:
    store = Store.create(tmp_path, keeps_names=False)
    ward = Ward(store)
    ward.visit(HER, "1.1")
    ward.visit(HER, "1.2")
    ward.visit(Patient("ID-8"), "1.8")
    with store.database.read() as tx:
        first, second, other = (record.patient_id for record in store.audit.page(tx, Filter()))
        found = store.audit.page(tx, Filter(patient=HER.id))
    assert first == second != other and first.startswith("#")
    assert len(found) == 2
    for secret in vars(HER).values():
        assert secret.encode() not in ward.bytes()
    store.close()
