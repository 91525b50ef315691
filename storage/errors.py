"""The errors of `storage`, all of them.

StorageError
├── Unavailable    the disk or the database does not take the work: full, read-only, I/O error, locked too long
├── WrongState     a row is not in the state that the change needs (retry of a job that runs)
└── Elsewhere      another node holds this data folder, or the database is of another version
"""


class StorageError(Exception):
    """What `storage` raises; the message is one sentence and names no patient."""


class Unavailable(StorageError):
    """Nothing was recorded; whoever asked for it must not act as if it were."""


class WrongState(StorageError):
    """The change does not fit the row's state; nothing was changed."""


class Elsewhere(StorageError):
    """The data folder belongs to another node or another version of Hilum."""

    def __init__(self, message: str, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid
