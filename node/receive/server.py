"""The receiver process: opens the port, serves associations until told to stop. Never imports TensorFlow."""

import os
import sys
from typing import Protocol

from model.stored_only import stored_only
from node import active, log
from node.child import Child, start
from node.errors import BadEnvironment, Misuse
from node.receive.accept import Receiver
from node.receive.commitment import addresses
from node.settings import Settings
from node.wakeup import Bell
from storage.errors import StorageError
from storage.store import Store


class Engine(Protocol):
    """Listens from `start` to `stop`."""

    @property
    def port(self) -> int: ...

    def start(self) -> None: ...

    def stop(self, seconds: float = ...) -> None: ...


# the supervisor gives 5
STOP_SECONDS = 4.0


def run(child: Child) -> None:
    """Receives until the child is asked to stop. Raises BadEnvironment, StorageError."""
    settings = child.settings
    data_dir = settings.node.data_dir
    store = Store.open(data_dir, keeps_names=settings.audit.keeps_names)
    # empty where the card can't be used: the node goes on receiving, and the worker says what is wrong
    model = active.sha256(settings)
    receiver = Receiver(
        store,
        settings.receive,
        model,
        stored_only,
        on_kept=Bell(data_dir, "worker").ring,
        reports_to=addresses(settings),
    )
    engine = open_engine(settings, receiver)
    engine.start()
    log.get().info("listening", host=settings.receive.host, port=engine.port)
    child.ready(f"ready {engine.port}")
    child.wait_for_stop()
    engine.stop(STOP_SECONDS)
    store.close()


def open_engine(settings: Settings, receiver: Receiver) -> Engine:
    """The engine that `[receive] engine` names. Raises BadEnvironment, Misuse."""
    if settings.receive.engine == "hilum":
        from node.receive.engine import Engine as Streaming

        return Streaming(settings, receiver)
    # 40 MB of memory that the other engine does without
    from node.receive.association import Engine as OnPynetdicom

    return OnPynetdicom(settings, receiver)


def main() -> None:
    child = start()
    try:
        run(child)
    except (BadEnvironment, Misuse, StorageError) as e:
        log.get().error("the receiver can't work", reason=str(e))
        sys.exit(BadEnvironment.exit_code)
    # pynetdicom's upper-layer threads are no daemons: one that is stuck must not hold the process
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
