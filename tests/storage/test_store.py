"""What is kept survives, and what can't be kept says so."""

import errno
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from storage import database
from storage.database import REVISION
from storage.errors import Elsewhere, Unavailable
from storage.schema import metadata
from storage.spool import Disk, Spool
from storage.store import Store


class FullDisk(Disk):
    def __init__(self, fails: str) -> None:
        self.fails = fails

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self.fails == "write":
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(fd, memoryview(data)[:3])

    def sync(self, fd: int) -> None:
        if self.fails == "sync":
            raise OSError(errno.EIO, "Input/output error")


def test_the_migrations_make_just_the_tables_of_the_schema(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    with store.database.read() as tx:
        assert compare_metadata(MigrationContext.configure(tx), metadata) == []
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION
    store.close()


def test_a_kept_file_has_all_its_bytes_even_where_the_system_writes_short(tmp_path: Path) -> None:
    spool = Spool(tmp_path, disk=FullDisk("nothing"))
    spool.prepare()
    with spool.incoming("objects") as incoming:
        incoming.write(b"0123456789")
        kept = incoming.keep()
    assert spool.path(kept.name).read_bytes() == b"0123456789"
    assert list(spool.names("objects")) == [kept.name]


@pytest.mark.parametrize("fails", ["write", "sync"])
def test_a_full_or_failing_disk_leaves_nothing_and_says_so(tmp_path: Path, fails: str) -> None:
    spool = Spool(tmp_path, disk=FullDisk(fails))
    spool.prepare()
    with pytest.raises(Unavailable), spool.incoming("objects") as incoming:
        incoming.write(b"0123456789")
        incoming.keep()
    assert [p for p in (tmp_path / "objects").rglob("*") if p.is_file()] == []


def test_what_is_not_kept_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.prepare()
    with spool.incoming("objects") as incoming:
        incoming.write(b"half of it")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_data_folder_that_no_node_has_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(Elsewhere, match="does not exist"):
        Store.open(tmp_path)


def test_a_lost_identity_key_is_not_silently_replaced(tmp_path: Path) -> None:
    Store.create(tmp_path).close()
    (tmp_path / "identity.key").unlink()
    with pytest.raises(Elsewhere, match="put it back"):
        Store.create(tmp_path)
