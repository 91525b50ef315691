"""One sender of stored files, as a process: `python -m scripts.benchmarks.delivering hilum|pynetdicom PORT FOLDER`.

Prints JSON: how many were taken, seconds from the first to the last, CPU seconds of these. Imports are off the clock;
opening the association and releasing it are on it.
"""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from scripts.benchmarks.image import DX_FOR_PRESENTATION
from scripts.benchmarks.nodes import AE_TITLE


def by_hilum(port: int, files: list[Path]) -> int:
    """The class that the deliverer's lanes send with, without outbox and audit; the files are named by their UIDs."""
    from node.deliver.dimse import DimseSender
    from node.deliver.outcome import Delivered, Outcome
    from node.settings import DimseDestination
    from storage.audit import About
    from storage.outbox import Delivery

    destination = DimseDestination(name="peer", ae_title=AE_TITLE, host="127.0.0.1", port=port)
    sender = DimseSender(destination, "HILUM")
    now = datetime.now(UTC)
    outcomes: list[Outcome] = []
    for number, file in enumerate(files):
        delivery = Delivery(
            id=number, destination="peer", state="sending", reason="", attempt=1, result_id=number, writer="sc",
            variant="", sop_class=DX_FOR_PRESENTATION, sop_instance=file.stem, file=file.name, created_at=now,
            next_attempt_at=now, about=About(),
        )  # fmt: skip
        outcomes.append(sender.send(delivery, file))
    sender.rest()
    if troubles := [outcome for outcome in outcomes if not isinstance(outcome, Delivered)]:
        sys.exit(f"{len(troubles)} of {len(files)} not delivered: {troubles[0].reason}")
    return len(outcomes)


def by_pynetdicom(port: int, files: list[Path]) -> int:
    """As its documentation shows it."""
    from pydicom import dcmread
    from pynetdicom import AE

    ae = AE("HILUM")
    ae.add_requested_context(DX_FOR_PRESENTATION)
    association = ae.associate("127.0.0.1", port, ae_title=AE_TITLE)
    if not association.is_established:
        return 0
    statuses = [association.send_c_store(dcmread(file)).get("Status") for file in files]
    association.release()
    return statuses.count(0)


def main() -> None:
    how, port = sys.argv[1], int(sys.argv[2])
    files = sorted(Path(sys.argv[3]).iterdir())
    send = {"hilum": by_hilum, "pynetdicom": by_pynetdicom}[how]
    # once at nothing, so that what is imported late is imported now
    send(port, [])
    cpu, began = time.process_time(), time.monotonic()
    taken = send(port, files)
    said = {"taken": taken, "seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
