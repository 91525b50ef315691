"""The log as the rest of the program sees it: written to, asked, counted."""

from sqlalchemy import Connection

from storage.audit import index
from storage.audit.index import PAGE, Filter
from storage.audit.records import Record, Records


class Audit(Records):
    """Writes and reads records."""

    def count(self, tx: Connection, event: str) -> int:
        """How often something happened."""
        return index.count(tx, event)

    def page(
        self, tx: Connection, wanted: Filter, *, after: int = 0, limit: int = PAGE, newest: bool = False
    ) -> list[Record]:
        """At most `limit` records with ids above `after`, oldest first; with `newest` below `after` (0: from the
        end), newest first."""
        return index.page(self, tx, wanted, after=after, limit=limit, newest=newest)
