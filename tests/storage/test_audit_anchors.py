"""Anchors: what a second place knows of the log, whatever crashes, fills up or is forged meanwhile."""

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from clocks import Time

from storage.audit.agreement import compare, standing
from storage.audit.anchors import Anchor, Anchors, after, keys_of, newest, parse, read
from storage.audit.seal import Seal, seal_all
from storage.audit.verify import Findings, opened
from storage.errors import Unavailable
from storage.spool import Disk
from storage.store import Store


class Moody(Disk):
    """Fails where the test says so."""

    def __init__(self) -> None:
        self.fails = ""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self.fails == "write":
            # something of it arrives
            super().write(fd, memoryview(data)[:40])
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(fd, memoryview(data)[:50])

    def rename(self, old: Path | str, new: Path | str) -> None:
        if self.fails == "rename":
            raise OSError(errno.EIO, "Input/output error")
        super().rename(old, new)


def seal(block: int, month: str = "2026-11") -> Seal:
    time = f"{month}-03T10:00:00.000000Z"
    return Seal(block, time, block * 10, block * 10 + 9, time, time, False, bytes([block % 256]) * 32)


def numbers(folder: Path) -> list[int]:
    return [anchor.number for anchor in read(folder)]


def test_each_seal_is_one_line_under_a_key_that_is_gone(tmp_path: Path) -> None:
    anchors = Anchors(tmp_path)
    first = anchors.begin()
    for block in (1, 2, 2, 3):
        anchors.write(seal(block))
    lines = list(read(anchors.folder))
    assert [(line.block, line.number) for line in lines] == [(1, 0), (2, 1), (3, 2)]
    assert [line.mac for line in lines] == [
        first.mac(lines[0]), first.next().mac(lines[1]), first.next().next().mac(lines[2]),
    ]  # fmt: skip
    assert anchors.key() == first.next().next().next()
    assert anchors.key_file.stat().st_mode & 0o777 == 0o600
    assert first.secret.hex() not in anchors.key_file.read_text()


def test_another_process_goes_on_where_the_last_ended_and_repeats_nothing(tmp_path: Path) -> None:
    Anchors(tmp_path).begin()
    assert Anchors(tmp_path).write(seal(1))
    assert not Anchors(tmp_path).write(seal(1))
    assert Anchors(tmp_path).write(seal(2))
    assert numbers(tmp_path / "anchors") == [0, 1]


def test_several_writers_never_use_a_number_twice(tmp_path: Path) -> None:
    Anchors(tmp_path).begin()

    def write(of: int) -> None:
        mine = Anchors(tmp_path)
        for block in range(of, 200, 4):
            mine.write(seal(block + 1))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(tmp_path / "anchors") == list(range(200))


@pytest.mark.parametrize("fails", ["write", "rename"])
def test_a_failing_disk_costs_no_number_and_the_next_anchor_covers_all(tmp_path: Path, fails: str) -> None:
    disk = Moody()
    anchors = Anchors(tmp_path, disk=disk)
    first = anchors.begin()
    anchors.write(seal(1))
    disk.fails = fails
    for _ in range(3):
        with pytest.raises(Unavailable):
            anchors.write(seal(2))
    disk.fails = ""
    anchors.write(seal(3))
    found = list(read(anchors.folder))
    assert sorted({line.number for line in found}) == list(range(found[-1].number + 1))
    assert found[-1].block == 3
    key = first
    for line in found:
        while key.number < line.number:
            key = key.next()
        assert key.mac(line) == line.mac


def test_a_line_that_a_crash_cut_is_left_out_and_hides_no_other(tmp_path: Path) -> None:
    Anchors(tmp_path).begin()
    Anchors(tmp_path).write(seal(1))
    (file,) = (tmp_path / "anchors").iterdir()
    with file.open("a") as out:
        out.write('{"block":2,"hash":"0202')
    Anchors(tmp_path).write(seal(3))
    assert [line.block for line in read(tmp_path / "anchors")] == [1, 3]


def test_a_month_has_its_file_and_a_clock_put_back_changes_no_order(tmp_path: Path) -> None:
    anchors = Anchors(tmp_path)
    anchors.begin()
    for block, month in enumerate(("2026-11", "2026-12", "2026-11", "2027-01"), 1):
        anchors.write(seal(block, month))
    assert sorted(file.name for file in anchors.folder.iterdir()) == [
        "anchors-2026-11.jsonl", "anchors-2026-12.jsonl", "anchors-2027-01.jsonl",
    ]  # fmt: skip
    assert numbers(anchors.folder) == [0, 1, 2, 3]
    assert [anchor.number for anchor in after(anchors.folder, 1)] == [2, 3]
    assert [anchor.number for anchor in after(anchors.folder, -1)] == [0, 1, 2, 3]
    last = newest(anchors.folder)
    assert last is not None
    assert last.block == 4


def test_a_folder_that_is_configured_is_never_made(tmp_path: Path) -> None:
    anchors = Anchors(tmp_path, tmp_path / "not-mounted")
    anchors.begin()
    with pytest.raises(Unavailable, match="not-mounted"):
        anchors.write(seal(1))
    assert not (tmp_path / "not-mounted").exists()
    assert newest(tmp_path / "not-mounted") is None


def test_a_new_chain_goes_on_with_the_numbers(tmp_path: Path) -> None:
    anchors = Anchors(tmp_path)
    anchors.begin()
    anchors.write(seal(1))
    anchors.write(seal(2))
    first = anchors.begin()
    anchors.write(seal(3))
    assert first.number == 2
    assert numbers(anchors.folder) == [0, 1, 2]
    assert keys_of(first.text) == [first]


@pytest.mark.parametrize(
    "around",
    ["{}", "<110>1 2026-11-03T10:00:00Z node hilum - - - {}", "<EventIdentification>{}</x>", "a {{b}} {} c"],
)
def test_an_anchor_is_found_in_whatever_line_it_stands(around: str) -> None:
    anchor = Anchor(5, "2026-11-03T10:00:00.000000Z", 59, "05" * 32, 4, "ab" * 32)
    assert parse(around.format(anchor.line)) == anchor
    assert parse(around.format(anchor.line.replace('"', "&quot;"))) == anchor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"block":1}',
        '{"block":"1","time":"","last_id":1,"hash":"","number":1,"mac":""}',
        "{" * 9999,
    ],
)
def test_what_is_no_anchor_is_none(text: str) -> None:
    assert parse(text) is None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path, clock=Time().clock)
    yield store
    store.close()


def sealed(store: Store, anchors: Anchors, records: int = 3) -> None:
    with store.database.write() as tx:
        for _ in range(records):
            store.audit.record(tx, "node.started")
    made = seal_all(store.database, store.clock)
    assert made is not None
    anchors.write(made)


def test_anchors_agree_with_the_log_that_they_anchor_and_no_other(tmp_path: Path, store: Store) -> None:
    anchors = Anchors(tmp_path)
    first = anchors.begin()
    for _ in range(5):
        sealed(store, anchors)
    findings = Findings()
    with opened(store.database.file) as connection:
        found = compare(connection, read(anchors.folder), findings, keys=[first], current=anchors.key)
        assert (found.anchors, found.agree, found.macs, findings.told) == (5, 5, 5, [])
        last = newest(anchors.folder)
        assert last is not None
        assert standing(connection, last) == "agrees"
        assert standing(connection, Anchor(**{**vars(last), "hash": "00" * 32})) == "differs"
        assert standing(connection, Anchor(**{**vars(last), "block": 6})) == "ahead"


def test_a_removed_a_changed_and_a_cut_line_are_found(tmp_path: Path, store: Store) -> None:
    anchors = Anchors(tmp_path)
    first = anchors.begin()
    for _ in range(6):
        sealed(store, anchors)
    (file,) = anchors.folder.iterdir()
    lines = file.read_text().splitlines(keepends=True)

    def told(left: list[str]) -> list[str]:
        file.write_text("".join(left))
        findings = Findings()
        with opened(store.database.file) as connection:
            compare(connection, read(anchors.folder), findings, keys=[first], current=anchors.key)
        return findings.told

    assert told(lines) == []
    assert told([*lines[:3], lines[2], *lines[3:]]) == []
    assert "anchor 2 is missing, between" in told([*lines[:2], *lines[3:]])[0]
    assert "anchors 4 to 5 are missing at the end" in told(lines[:4])[0]
    assert "no anchor is in the folder" in told([])[0]
    assert "comes anchor 1" in told([*lines, lines[1]])[0]
    changed = lines[3].replace('"last_id":12', '"last_id":13')
    assert [sentence[:15] for sentence in told([*lines[:3], changed, *lines[4:]])] == [
        "anchor 3 of 202", "block 4: the da",
    ]  # fmt: skip


def test_an_old_copy_of_the_whole_folder_is_found_by_anchors_that_lie_elsewhere(
    tmp_path: Path, store: Store
) -> None:
    elsewhere = tmp_path / "share"
    elsewhere.mkdir()
    anchors = Anchors(tmp_path, elsewhere)
    anchors.begin()
    sealed(store, anchors)
    old_key = anchors.key_file.read_text()
    sealed(store, anchors)
    sealed(store, anchors)
    anchors.key_file.write_text(old_key)
    findings = Findings()
    with opened(store.database.file) as connection:
        compare(connection, read(elsewhere), findings, current=anchors.key)
    assert ["an old copy of the data folder was put back" in told for told in findings.told] == [True]


def test_whoever_takes_the_machine_over_can_not_make_lines_of_before(tmp_path: Path, store: Store) -> None:
    anchors = Anchors(tmp_path)
    first = anchors.begin()
    for _ in range(4):
        sealed(store, anchors)
    # he makes his own chain, all lines anew, and puts his key where the node's was
    (file,) = anchors.folder.iterdir()
    old = list(read(anchors.folder))
    key = Anchors(tmp_path).key()
    forged = type(key)(0, key.secret)
    text = ""
    for anchor in old:
        text += Anchor(**{**vars(anchor), "mac": forged.mac(anchor)}).line + "\n"
        forged = forged.next()
    file.write_text(text)
    anchors.key_file.write_text(forged.text)
    unkeyed, keyed = Findings(), Findings()
    with opened(store.database.file) as connection:
        found = compare(connection, read(anchors.folder), unkeyed, current=anchors.key)
        compare(connection, read(anchors.folder), keyed, keys=[first], current=anchors.key)
    assert (unkeyed.told, found.unchecked_macs) == ([], 4)
    assert "not made with the key given" in keyed.told[0]
    assert "does not come from the key given" in keyed.told[1]
