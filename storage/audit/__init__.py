"""The audit log: a record for each thing that happens, in the transaction of the thing itself; sealed, never rewritten.

- written and read: `records`, by the catalogue in `events`; found by `index`; `log` is what the stages see
- nobody rewrites it: `seal`, `anchors`; `verify`, `agreement`, `reindex` find whoever did
- nothing stays for ever: `erase`, `archive`, `expire`
- others take it: `forwarded`
"""

from storage.audit.events import CATALOGUE, EVENTS, OF_NAME, Event
from storage.audit.index import PAGE, Filter, pages
from storage.audit.log import Audit
from storage.audit.records import About, Actor, Entry, Patient, PatientKeys, Record, shown, values_of

__all__ = [
    "CATALOGUE", "EVENTS", "OF_NAME", "PAGE", "About", "Actor", "Audit", "Entry", "Event", "Filter", "Patient",
    "PatientKeys", "Record", "pages", "shown", "values_of",
]  # fmt: skip
