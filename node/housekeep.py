"""The housekeeper: what has to be done again and again and belongs to no stage (APScheduler).

Seals of the audit log, checkpoints of the database's log, expiry of images, of results and of the log's months,
removal of half-written files, a word in the log when the disk nears its floor.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler

from node import log
from node.anchoring import Anchoring
from node.child import start
from node.retention import expire_log
from node.settings import Settings
from storage.audit.seal import seal_all
from storage.errors import StorageError
from storage.store import Store

SEAL_SECONDS = 1
CHECKPOINT_SECONDS = 5
DISK_SECONDS = 60
EXPIRY_SECONDS = 3600
# nobody pauses so long within one file: receiving breaks off after a minute of silence
LEFTOVER_SECONDS = 3600.0


class Housekeeper:
    """The chores, each a method that does one round and returns."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._below_floor = False
        self._anchoring = Anchoring(store, settings)

    def seal(self) -> None:
        """Seals the records that have been committed since the last time."""
        seal_all(self._store.database, self._store.clock)

    def anchor(self) -> None:
        """Puts the newest seal down at a second place; apart from sealing, which a folder that hangs must not stop."""
        self._anchoring.run()

    def checkpoint(self) -> None:
        self._store.database.checkpoint()

    def watch_disk(self) -> None:
        """Says once when free space falls below the floor, and once when it is back."""
        floor = self._settings.receive.min_free_bytes
        free = self._store.spool.free_bytes()
        if (free < floor) != self._below_floor:
            self._below_floor = free < floor
            if self._below_floor:
                log.get().error(
                    "disk below its floor: no image is received or read", free=free, min_free_bytes=floor
                )
            else:
                log.get().info("disk above its floor again", free=free, min_free_bytes=floor)

    def expire(self) -> int:
        """Removes what is older than `[retention]` says; nothing unread or undelivered; how many files.

        The row and the audit record come first: a crash in between leaves a file without a row, which the next start
        deletes or adopts, never a row that promises a file.
        """
        retention = self._settings.retention
        images, results = self._store.objects, self._store.results
        return self._expire(retention.images_days, images.expirable, images.forget_file) + self._expire(
            retention.results_days, results.expirable, results.forget_file
        )

    def expire_log(self) -> int:
        """Lets go the months of the audit log whose time is over; how many."""
        run = expire_log(self._store, self._settings)
        for month, archived in run.months:
            log.get().info("a month of the audit log has expired", month=month.name, archive=archived.name)
        if run.waits:
            log.get().warning("a month of the audit log waits to expire", reason=run.waits)
        return len(run.months)

    def sweep(self) -> int:
        """Removes half-written files that a dead worker left; what is still being written is younger."""
        return self._store.spool.sweep(idle_seconds=LEFTOVER_SECONDS)

    def _expire(
        self, days: int, expirable: Callable[..., list[tuple[int, str]]], forget: Callable[..., None]
    ) -> int:
        if not days:
            return 0
        before = self._store.clock.now() - timedelta(days=days)
        removed = 0
        last = 0
        while True:
            with self._store.database.write() as tx:
                page = expirable(tx, before, after=last)
                for row_id, _ in page:
                    forget(tx, row_id)
            for _, file in page:
                self._store.spool.remove(file)
            removed += len(page)
            if not page:
                return removed
            last = page[-1][0]


def _careful(chore: Callable[[], object]) -> Callable[[], None]:
    """A chore that can't be done now is done next time."""

    def run() -> None:
        try:
            chore()
        except StorageError as e:
            log.get().error("a chore is put off", chore=chore.__name__, reason=str(e))

    return run


def main() -> None:
    child = start()
    settings = child.settings
    store = Store.open(settings.node.data_dir, keeps_names=settings.audit.keeps_names)
    keeper = Housekeeper(store, child.settings)
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1})
    for chore, seconds in (
        (keeper.seal, SEAL_SECONDS),
        (keeper.anchor, SEAL_SECONDS),
        (keeper.checkpoint, CHECKPOINT_SECONDS),
        (keeper.watch_disk, DISK_SECONDS),
        (keeper.expire, EXPIRY_SECONDS),
        (keeper.sweep, EXPIRY_SECONDS),
    ):
        scheduler.add_job(_careful(chore), "interval", seconds=seconds)
    # it may take minutes; the node is ready meanwhile
    scheduler.add_job(
        _careful(keeper.expire_log), "interval", seconds=EXPIRY_SECONDS, next_run_time=datetime.now(UTC)
    )
    for chore in (keeper.watch_disk, keeper.expire):
        _careful(chore)()
    scheduler.start()
    child.ready()
    child.wait_for_stop()
    scheduler.shutdown(wait=True)
    _careful(keeper.checkpoint)()
    store.close()


if __name__ == "__main__":
    main()
