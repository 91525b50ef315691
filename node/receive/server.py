"""The receiver process: opens the port, serves associations until told to stop. Never imports TensorFlow."""

import os
import sys

from model import card
from model.scope import stored_only
from node import log
from node.child import Child, start
from node.errors import BadEnvironment
from node.receive.accept import Receiver
from node.receive.association import Engine
from node.wakeup import notify
from storage.errors import StorageError
from storage.store import Store

# the supervisor gives 5
STOP_SECONDS = 4.0


def run(child: Child) -> None:
    """Receives until the child is asked to stop. Raises BadEnvironment, StorageError."""
    settings = child.settings
    data_dir = settings.node.data_dir
    store = Store.open(data_dir)
    # empty where the card can't be used: the node goes on receiving, and the worker says what is wrong
    model = card.sha256_of(settings.analyze.folder)
    receiver = Receiver(store, settings.receive, model, stored_only, lambda: notify(data_dir, "worker"))
    engine = Engine(settings, receiver)
    engine.start()
    log.get().info("listening", host=settings.receive.host, port=engine.port)
    child.ready(f"ready {engine.port}")
    child.stopping.wait()
    engine.stop(STOP_SECONDS)
    store.close()


def main() -> None:
    child = start()
    try:
        run(child)
    except (BadEnvironment, StorageError) as e:
        log.get().error("the receiver can't work", reason=str(e))
        sys.exit(BadEnvironment.exit_code)
    # pynetdicom's upper-layer threads are no daemons: one that is stuck must not hold the process
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
