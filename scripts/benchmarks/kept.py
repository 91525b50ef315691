"""Is everything there that was acknowledged? Read back after each round; a rate that lost a file is worth nothing."""

import hashlib
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

from scripts.benchmarks.image import data_set, uids
from scripts.benchmarks.nodes import Running
from scripts.benchmarks.senders import Failed, Sent


def check(node: Running, sent: Sent) -> None:
    """After the node has ended. Raises Failed where something acknowledged is missing or differs."""
    if node.kind.is_hilum:
        _hilum(node.folder / "data", sent)
    elif node.kind.name == "floor":
        _floor(node.folder / node.kind.files, sent)
    elif node.kind.name != "discard":
        _peer(node.folder / node.kind.files, sent)


def _hilum(data_dir: Path, sent: Sent) -> None:
    """Every row, its file's bytes against what was sent, its hash, and the audit record."""
    with closing(sqlite3.connect(f"file:{data_dir}/hilum.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT sop_instance, file, size, content_hash FROM objects").fetchall()
        audited = database.execute(
            "SELECT count(*) FROM audit WHERE json_extract(payload, '$.event') = 'object.received'"
        ).fetchone()[0]
    kept = {instance: rest for instance, *rest in rows}
    wanted = {uids(sent.run, *one)[0].decode(): one for one in sent.acknowledged}
    if missing := wanted.keys() - kept.keys():
        raise Failed(f"{len(missing)} acknowledged images have no row")
    if audited != len(rows):
        raise Failed(f"{len(rows)} objects, but {audited} audit records")
    original = _Original(sent)
    for instance, one in wanted.items():
        name, size, content_hash = kept[instance]
        data = _behind_meta((data_dir / name).read_bytes())
        if content_hash != f"sha256:{hashlib.sha256(data).hexdigest()}" or not original.equals(data, one):
            raise Failed(f"a stored file of {size} bytes is not what was sent")


def _peer(folder: Path, sent: Sent) -> None:
    """As many files as were acknowledged, none shorter than its pixels."""
    pixels = len(_Original(sent).pixels)
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.name.startswith("index")]
    whole = sum(size > pixels for size in sizes)
    if whole < len(sent.acknowledged):
        raise Failed(f"{len(sent.acknowledged)} images acknowledged, {whole} stored")


def _floor(folder: Path, sent: Sent) -> None:
    """Every file's bytes: the data set alone, whose own identifier says which image it is to be."""
    original = _Original(sent)
    missing = {uids(sent.run, *one)[0]: one for one in sent.acknowledged}
    for path in folder.glob("*.dcm"):
        data = memoryview(path.read_bytes())
        one = missing.pop(original.instance(data), None)
        if one is not None and not original.equals(data, one):
            raise Failed(f"a stored file of {len(data)} bytes is not what was sent")
    if missing:
        raise Failed(f"{len(missing)} acknowledged images are not stored")


class _Original:
    """What was sent: the pixels are the same for all images of a run."""

    def __init__(self, sent: Sent) -> None:
        self._run = sent.run
        self._first = uids(sent.run, 0, 0)
        whole = data_set(sent.load.size, sent.run, self._first)
        pixels_at = whole.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW")) + 12
        self._head, self.pixels = whole[:pixels_at], memoryview(whole)[pixels_at:]

    def instance(self, data: memoryview) -> bytes:
        """The SOP instance of a data set that was sent: it lies at the same place in each."""
        at = self._head.index(self._first[0])
        return bytes(data[at : at + len(self._first[0])])

    def equals(self, data: memoryview, one: tuple[int, int]) -> bool:
        head = self._head
        for old, new in zip(self._first, uids(self._run, *one), strict=True):
            head = head.replace(old, new)
        return data[: len(head)] == head and data[len(head) :] == self.pixels


def _behind_meta(file: bytes) -> memoryview:
    """The data set of a DICOM file (PS3.10 7.1)."""
    if file[128:132] != b"DICM":
        raise Failed("a stored file is no DICOM file")
    (length,) = struct.unpack_from("<L", file, 140)
    return memoryview(file)[144 + length :]
