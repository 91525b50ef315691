"""How the node does, gathered from its database, its folder and what the supervisor says of itself.

Works as well while the node is stopped. Nothing here predicts, sends or changes anything.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from node import active, show
from node.anchoring import problems as anchoring_problems
from node.atna.condition import Forwarding
from node.atna.condition import look as forwarding
from node.settings import Settings
from node.shadow import trouble
from node.state import NodeState, there
from storage.clock import Clock
from storage.commitments import Awaited
from storage.outbox import DestinationState
from storage.spool import Disk
from storage.store import DATABASE, Store

STUDY_STATES = ("waiting", "running", "parked")
JOB_STATES = ("queued", "running", "done", "skipped", "parked", "discarded")
DELIVERY_STATES = ("waiting", "sending", "delivered", "committed", "parked", "discarded")


@dataclass(frozen=True)
class Status:
    """One look at the node. `problems` are sentences, worst first; `holds` is the exit code's question."""

    node: str
    since: str | None
    received: int
    refused_associations: int
    conflicts: int
    jobs: dict[str, int]
    studies: dict[str, int]
    deliveries: dict[str, int]
    oldest_queued_seconds: float
    workers: dict[str, int]
    destinations: dict[str, DestinationState]
    # by destination: what it was delivered and has not committed to yet
    awaited: dict[str, Awaited]
    disk_free_bytes: int
    # name, version, sha256, from, since, by, runtime, shadow
    model: dict[str, Any]
    # where [audit.repository] is set
    repository: Forwarding | None
    problems: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """The node runs, and neither a destination nor the audit repository is down (one that was never tried is
        not)."""
        reached = self.repository is None or not self.repository.down
        return (
            self.node == "running" and reached and all(d.state != "down" for d in self.destinations.values())
        )

    def as_json(self) -> dict[str, Any]:
        destinations = {
            name: {
                "state": found.state,
                "waiting": found.waiting,
                "last_success": show.stamp(found.last_success),
                "last_error": found.last_error,
                "uncommitted": self.awaited.get(name, Awaited()).results,
                "commitment_error": self.awaited.get(name, Awaited()).trouble or None,
            }
            for name, found in self.destinations.items()
        }
        told = {key: value for key, value in vars(self).items() if key != "awaited"}
        repository = self.repository and self.repository.as_json()
        return {
            **told,
            "destinations": destinations,
            "repository": repository,
            "problems": list(self.problems),
        }


@dataclass(frozen=True)
class _Counted:
    """What the database says."""

    received: int = 0
    refused_associations: int = 0
    conflicts: int = 0
    jobs: dict[str, int] | None = None
    studies: dict[str, int] | None = None
    deliveries: dict[str, int] | None = None
    oldest: datetime | None = None
    destinations: dict[str, DestinationState] | None = None
    awaited: dict[str, Awaited] = field(default_factory=dict)
    repository: Forwarding | None = None
    audit_problems: tuple[str, ...] = ()


def collect(
    settings: Settings, running: NodeState | None, *, clock: Clock | None = None, disk: Disk | None = None
) -> Status:
    """The state of the node of these settings; `running` is None where none runs.

    A folder in which no node has run yet is a stopped node that received nothing. Raises Elsewhere where the
    database is of another version, Unavailable where it does not answer.
    """
    clock, disk = clock or Clock(), disk or Disk()
    data_dir = settings.node.data_dir
    names = [d.name for d in settings.destinations]
    fresh = not (data_dir / DATABASE).exists()
    counted = _Counted() if fresh else _count(settings, names)
    unknown = DestinationState("unknown", 0, None, None)
    destinations = {name: (counted.destinations or {}).get(name, unknown) for name in names}
    free = disk.free_bytes(there(data_dir))
    jobs = dict.fromkeys(JOB_STATES, 0) | (counted.jobs or {})
    studies = {state: (counted.studies or {}).get(state, 0) for state in STUDY_STATES}
    deliveries = dict.fromkeys(DELIVERY_STATES, 0) | (counted.deliveries or {})
    waited = (clock.now() - counted.oldest).total_seconds() if counted.oldest else 0.0
    return Status(
        node="running" if running else "stopped",
        since=running.since if running else None,
        received=counted.received,
        refused_associations=counted.refused_associations,
        conflicts=counted.conflicts,
        jobs=jobs,
        studies=studies,
        deliveries=deliveries,
        oldest_queued_seconds=round(max(0.0, waited), 3),
        workers=running.workers if running else {"ready": 0, "wanted": settings.analyze.workers},
        destinations=destinations,
        awaited=counted.awaited,
        disk_free_bytes=free,
        model=_model(settings, running),
        repository=counted.repository,
        problems=tuple(
            _problems(
                settings,
                running,
                fresh,
                free,
                counted.conflicts,
                jobs,
                deliveries,
                destinations,
                counted.awaited,
            )
        )
        + ((counted.repository.problem,) if counted.repository and counted.repository.problem else ())
        + counted.audit_problems,
    )


def _model(settings: Settings, running: NodeState | None) -> dict[str, Any]:
    """The model that runs, or would at the next start; what it is computed with, or is to be; its shadow."""
    shadow = None
    if settings.analyze.shadow:
        shadow = {"folder": str(settings.analyze.shadow), "problem": trouble(settings.node.data_dir) or None}
    runtime = running.runtime if running and running.runtime else settings.analyze.runtime
    return {**active.told(settings), "runtime": runtime, "shadow": shadow}


def _count(settings: Settings, names: list[str]) -> _Counted:
    store = Store.open(settings.node.data_dir, keeps_names=settings.audit.keeps_names)
    try:
        audit_problems = tuple(anchoring_problems(store, settings))
        with store.database.read() as tx:
            return _Counted(
                received=store.objects.count(tx),
                refused_associations=store.audit.count(tx, "association.refused"),
                conflicts=store.audit.count(tx, "object.conflict"),
                jobs=store.jobs.counts(tx),
                studies=store.studies.counts(tx),
                deliveries=store.outbox.counts(tx),
                oldest=store.jobs.oldest_queued(tx),
                destinations=store.outbox.destination_states(tx, names),
                awaited=store.commitments.awaited(tx),
                repository=forwarding(tx, settings),
                audit_problems=audit_problems,
            )
    finally:
        store.close()


def _problems(
    settings: Settings,
    running: NodeState | None,
    fresh: bool,
    free: int,
    conflicts: int,
    jobs: dict[str, int],
    deliveries: dict[str, int],
    destinations: dict[str, DestinationState],
    awaited: dict[str, Awaited],
) -> list[str]:
    found = []
    if running is None:
        found.append(
            f"no node has run with {settings.node.data_dir} yet: start one with `hilum serve`"
            if fresh
            else "the node is stopped: start it with `hilum serve`"
        )
    elif running.problem:
        found.append(running.problem)
    if why := active.told(settings).get("problem"):
        found.append(f"the model can't be used: {why}")
    if settings.analyze.shadow and (why := trouble(settings.node.data_dir)):
        found.append(f"there is no shadow: {why}; it is tried again at the next start")
    floor = settings.receive.min_free_bytes
    if free < floor:
        found.append(
            f"the disk is below its floor: {show.size(free)} free, [receive] min_free_bytes is "
            f"{show.size(floor)}; nothing is received or analyzed until there is more room"
        )
    found += [
        f"destination {name} is down: {state.last_error or 'no answer'}"
        for name, state in destinations.items()
        if state.state == "down"
    ]
    found += [
        f"destination {name} does not commit to {open_.results} results that it was delivered: {open_.trouble}"
        for name, open_ in awaited.items()
        if open_.trouble
    ]
    if conflicts:
        found.append(
            f"{conflicts} objects came with other content under a UID that is kept, and were refused; "
            f'[receive] on_conflict is "{settings.receive.on_conflict}": "refuse" keeps the first, "analyze" '
            "reads later ones too (never those of another patient, study or series)"
        )
    if jobs["parked"]:
        found.append(f"{jobs['parked']} jobs are parked: see `hilum jobs list --state parked`")
    if deliveries["parked"]:
        found.append(
            f"{deliveries['parked']} deliveries are parked: see `hilum deliveries list --state parked`"
        )
    return found


def describe(status: Status) -> None:
    """Prints it for a person."""
    since = f" since {show.when(datetime.fromisoformat(status.since))}" if status.since else ""
    print(f"node        {status.node}{since}")
    print(f"workers     {status.workers['ready']} of {status.workers['wanted']} ready")
    print(f"model       {_model_line(status.model)}")
    print(f"received    {status.received} objects; {status.refused_associations} associations refused")
    print(f"jobs        {_counts(status.jobs)}")
    if any(status.studies.values()):
        print(f"studies     {_counts(status.studies)}")
    print(f"deliveries  {_counts(status.deliveries)}")
    if status.awaited:
        print(f"commitment  {sum(a.results for a in status.awaited.values())} delivered results wait for it")
    if status.jobs["queued"]:
        print(f"oldest      queued for {status.oldest_queued_seconds:.0f} s")
    if status.repository:
        print(f"repository  {status.repository.waiting:,} audit records wait to be settled there")
    print(f"disk        {show.size(status.disk_free_bytes)} free")
    if status.destinations:
        show.table(
            ("destination", "state", "waiting", "last success", "last error"),
            [
                (name, d.state, d.waiting, show.when(d.last_success), d.last_error or "")
                for name, d in status.destinations.items()
            ],
        )
    for problem in status.problems:
        print(f"! {problem}")


def _model_line(model: dict[str, Any]) -> str:
    shadow = f"; shadow {model['shadow']['folder']}" if model["shadow"] else ""
    return f"{active.sentence(model)}; runtime {model['runtime']}{shadow}"


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{n} {state}" for state, n in counted.items())
