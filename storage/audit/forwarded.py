"""How far each taker of the log has got: the last record that it has for sure.

The log itself is the spool of what is still to be sent, so that nothing is lost while a taker is away.
"""

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from storage.schema import audit, audit_forwarded


def position(tx: Connection, name: str) -> int:
    """The number up to which this taker has everything; 0 for one that is new."""
    found = select(audit_forwarded.c.last_id).where(audit_forwarded.c.name == name)
    return tx.execute(found).scalar() or 0


def move(tx: Connection, name: str, last_id: int) -> None:
    """It has everything up to there. Never moves back: a process that is late does no harm."""
    row = insert(audit_forwarded).values(name=name, last_id=last_id)
    later = func.max(audit_forwarded.c.last_id, row.excluded.last_id)
    tx.execute(row.on_conflict_do_update(index_elements=["name"], set_={"last_id": later}))


def waiting(tx: Connection, name: str) -> int:
    """How many records it does not have for sure yet. Ids have no gaps but what has expired at their begin."""
    newest = tx.execute(select(func.max(audit.c.id))).scalar() or 0
    oldest = tx.execute(select(func.min(audit.c.id))).scalar() or 1
    return max(0, newest - max(position(tx, name), oldest - 1))
