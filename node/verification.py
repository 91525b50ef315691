"""`hilum audit verify`: is the log what it was, and what says so? Told in lines, and itself recorded."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from node import show
from node.anchoring import anchors_of
from node.errors import Misuse
from node.operate import operator
from node.settings import Settings
from storage.audit import agreement, reindex
from storage.audit.agreement import Compared
from storage.audit.anchors import Anchor, Anchors, Key, keys_of, read, read_file
from storage.audit.reindex import Difference
from storage.audit.verify import Checked, Findings, at, opened, verify
from storage.errors import Unavailable
from storage.store import Store


@dataclass
class Verified:
    """All that was looked at. `index` and `repaired` only where they were asked for."""

    log: Checked
    anchors: Compared
    findings: Findings
    index: Difference | None = None
    repaired: Difference | None = None

    def as_json(self) -> dict[str, Any]:
        log, anchors = self.log, self.anchors
        return {
            "holds": not self.findings.count,
            "records": log.records,
            "blocks": log.blocks,
            "from": log.earliest or None,
            "to": log.latest or None,
            "unsealed": {"records": log.unsealed, "first": log.first_unsealed, "last": log.last_unsealed},
            "clock_put_back": log.stepped,
            "anchors": vars(anchors),
            "index": vars(self.index) if self.index else None,
            "repaired": vars(self.repaired) if self.repaired else None,
            "findings": self.findings.told,
            "more_findings": self.findings.more,
        }


def run(
    store: Store,
    settings: Settings,
    *,
    files: Sequence[Path] = (),
    key_file: Path | None = None,
    index: bool = False,
    repair: bool = False,
    as_json: bool = False,
) -> bool:
    """Checks, records audit.verified, prints; whether nothing was found. Raises Misuse, Unavailable."""
    keys = _keys(key_file)
    found = look(store, settings, files, keys, index=index, repair=repair)
    log, findings = found.log, found.findings
    detail: dict[str, Any] = {
        "records": log.records, "blocks": log.blocks, "unsealed": log.unsealed, "anchors": found.anchors.anchors,
        "findings": findings.count,
    }  # fmt: skip
    if found.repaired is not None:
        detail["repaired"] = vars(found.repaired)
    # told before it is recorded: who has forged the log may also keep the database from taking the record
    if as_json:
        print(show.line(found.as_json()))
    else:
        _print(found, keys)
    with store.database.write() as tx:
        outcome = "failure" if findings.count else "success"
        store.audit.record(tx, "audit.verified", actor=operator(), outcome=outcome, detail=detail)
    return not findings.count


def look(
    store: Store, settings: Settings, files: Sequence[Path], keys: Sequence[Key], *, index: bool, repair: bool
) -> Verified:
    """Everything, in the order in which it is told; nothing is changed but by `repair`. Raises Unavailable."""
    anchors, findings = anchors_of(settings), Findings()
    run_folder = settings.node.data_dir / "run"
    with opened(store.database.file) as connection:
        found = Verified(verify(connection, findings), Compared(), findings)
        compare = partial(agreement.compare, connection, keys=keys)
        found.anchors = compare(read(anchors.folder), findings, current=_current(anchors))
        for file in files:
            lines = sorted(read_file(file), key=lambda anchor: anchor.number)
            if not lines:
                raise Misuse(f"--anchors: {file} holds no anchor")
            found.anchors += compare(_once(lines), findings)
        if index:
            found.index = reindex.compare(connection, run_folder, findings)
            if repair and found.index.any:
                found.repaired = reindex.repair(store.database, connection, run_folder)
    return found


def _once(lines: Sequence[Anchor]) -> Sequence[Anchor]:
    """A server that was sent a line again has it twice."""
    return list(dict.fromkeys(lines))


def _current(anchors: Anchors) -> Callable[[], Key | None]:
    def key() -> Key | None:
        with suppress(Unavailable):
            return anchors.key()
        return None

    return key


def _keys(file: Path | None) -> list[Key]:
    if file is None:
        return []
    try:
        found = keys_of(file.read_text())
    except ValueError as e:
        raise Misuse(f"--key: {file}: {e}") from e
    if not found:
        raise Misuse(f"--key: {file} is empty")
    return found


def _print(found: Verified, keys: Sequence[Key]) -> None:
    log, anchors, findings = found.log, found.anchors, found.findings
    span = f", from {at(log.earliest)} to {at(log.latest)}" if log.earliest else ""
    print(f"log      {_many(log.records, 'record')} in {_many(log.blocks, 'block')}{span}")
    print(f"anchors  {_anchors(anchors, keys)}")
    if found.index is not None:
        print(
            f"index    {found.index.right:,} entries are right, {found.index.missing:,} were missing, "
            f"{found.index.false:,} false" + ("; made again" if found.repaired else "")
        )
    if log.unsealed:
        which = (
            f"{log.first_unsealed} to {log.last_unsealed}" if log.unsealed > 1 else f"{log.first_unsealed}"
        )
        print(f"younger  than the last seal: {_many(log.unsealed, 'record')} ({which})")
    if log.stepped:
        print(f"clock    was put back: {_many(log.stepped, 'block')} with records dated before earlier ones")
    for sentence in findings.told:
        print(f"! {sentence}")
    if findings.more:
        print(f"! and {findings.more:,} more findings")
    if not findings.count:
        print("nothing was changed, removed, inserted or put in another order")


def _anchors(anchors: Compared, keys: Sequence[Key]) -> str:
    if not anchors.anchors:
        return "there are none: an old copy of the database or a cut end can't be told"
    told = f"{anchors.agree:,} of {anchors.anchors - anchors.expired:,} agree"
    if anchors.expired:
        told += f"; beside them {anchors.expired:,} of what has expired"
    if not keys:
        return told + "; who made them was not checked (--key)"
    unchecked = f" ({anchors.unchecked_macs:,} are older than it)" if anchors.unchecked_macs else ""
    return told + f"; made with the key given: {anchors.macs:,}{unchecked}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
