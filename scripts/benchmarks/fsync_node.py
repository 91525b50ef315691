"""Stock pynetdicom, writing what it was sent and syncing it: the durable node that a page of Python makes.

`python -m scripts.benchmarks.fsync_node PORT FOLDER`: raw bytes, fsync, rename, fsync of the folder, Success.
"""

import itertools
import os
import sys
from pathlib import Path
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt

NUMBERS = itertools.count()


def keep(event: Any, folder: Path) -> int:
    """EVT_C_STORE: the status."""
    final = folder / f"{next(NUMBERS):08d}.dcm"
    temporary = final.with_suffix(".part")
    with temporary.open("wb") as out:
        out.write(event.encoded_dataset(include_meta=True))
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(final)
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(at)
    os.close(at)
    return 0


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    ae = AE("PEER")
    ae.maximum_associations = 1000
    ae.supported_contexts = AllStoragePresentationContexts
    ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, keep, [folder])])


if __name__ == "__main__":
    main()
