"""How forwarding does: what the forwarder says of itself in `run/forwarder.json`, how many records wait, and what an
administrator is told of it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Connection

from node.settings import Repository, Settings
from storage.audit import forwarded

FILE = "forwarder.json"


@dataclass(frozen=True)
class Condition:
    """`since`: a stamp, when it came to be so. `reason`: why the server is not reached. `cut`: so many messages went
    without their detail, being too long for a datagram."""

    reached: bool
    since: str
    reason: str = ""
    cut: int = 0


def write(data_dir: Path, condition: Condition) -> None:
    file = data_dir / "run" / FILE
    file.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(asdict(condition)))
    temporary.rename(file)


def read(data_dir: Path) -> Condition | None:
    """None where no forwarder has said anything yet."""
    try:
        return Condition(**json.loads((data_dir / "run" / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def taker(repository: Repository) -> str:
    """A server's name in `audit_forwarded`: another server gets the whole log."""
    name = f"{repository.transport}:{repository.host}:{repository.port}"
    # the column holds no more
    return name if len(name) <= 64 else hashlib.sha256(name.encode()).hexdigest()


def anchors_of(repository: Repository) -> str:
    """The same for the anchors, whose numbers are those of blocks."""
    return hashlib.sha256(f"anchors of {taker(repository)}".encode()).hexdigest()


@dataclass(frozen=True)
class Forwarding:
    """One look, for `hilum status`. `condition`: None where no forwarder has run yet."""

    waiting: int
    condition: Condition | None

    def as_json(self) -> dict[str, object]:
        told = self.condition
        return {
            "waiting": self.waiting,
            "reached": told.reached if told else None,
            "since": told.since if told else None,
            "last_error": told.reason or None if told else None,
            "cut": told.cut if told else 0,
        }

    @property
    def down(self) -> bool:
        return self.condition is not None and not self.condition.reached and self.condition.reason != ""

    @property
    def problem(self) -> str:
        """A sentence; empty where all is well."""
        if not self.down or self.condition is None:
            return ""
        return (
            f"the audit repository is not reached since {self.condition.since}: {self.condition.reason}; "
            f"{self.waiting:,} records wait for it"
        )


def look(tx: Connection, settings: Settings) -> Forwarding | None:
    """None where no repository is set."""
    repository = settings.audit.repository
    if repository is None:
        return None
    return Forwarding(forwarded.waiting(tx, taker(repository)), read(settings.node.data_dir))
