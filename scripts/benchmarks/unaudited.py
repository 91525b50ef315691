"""`hilum serve` without an audit log, for `scripts/bench audit` alone: what the log costs is the difference.

The receiver writes no record and no identity, hashes the patient's number alone (objects are compared by it), and
nobody seals. The node's own start and stop are recorded as ever.

    python -m scripts.benchmarks.unaudited serve --config FILE
"""

import sys
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from node import cli, housekeep, supervise
from node.receive import server
from storage.audit import Entry, Patient, PatientKeys
from storage.audit.records import Records

_OURS = ("node.receive.server", "node.housekeep")


class _Process(supervise.Process):
    """Our two children run by this module, which knows them by their names."""

    def __init__(self, name: str, module: str) -> None:
        super().__init__(name, __spec__.name if module in _OURS else module)


def _record_all(_self: Records, _tx: Connection, _entries: Sequence[Entry]) -> None:
    return None


def _identify_all(self: Records, _tx: Connection, patients: Sequence[Patient]) -> list[PatientKeys]:
    return [PatientKeys(self.key_of("patient_id", patient.id)) for patient in patients]


def main() -> int:
    run_by: Any = sys.argv[1]
    if run_by == "receiver":
        Records.record_all = _record_all  # type: ignore[method-assign]
        Records.identify_all = _identify_all  # type: ignore[method-assign]
        server.main()
    elif run_by == "housekeeper":
        housekeep.seal_all = lambda *_: None  # type: ignore[attr-defined]
        housekeep.main()
    else:
        supervise.Process = _Process  # type: ignore[misc]
        return cli.main(sys.argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
