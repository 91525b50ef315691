"""`scripts/bench end-to-end`: from an image's last byte to the PACS's answer to its report, stage by stage.

A drawn chest of 2500 x 2048 pixels goes to a node with one worker: one at a time, then at half and at full load.
The stages come from the sender's clock and from the audit log, which is the same clock on one machine.
"""

import argparse
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from model import card, phantom
from model.scope import Policy
from node.analyze.decoders import Decoders, Ready
from scripts.benchmarks import nodes, processes
from scripts.benchmarks.association import Association
from scripts.benchmarks.image import Message, Uids, new_run, uids
from scripts.benchmarks.nodes import PEERS, hilum, running
from scripts.benchmarks.report import Report, quantile
from scripts.benchmarks.senders import ROOT, Failed
from storage.audit import Filter, Record
from storage.clock import moment
from storage.store import Store

PATIENCE = 120.0
LOOK_SECONDS = 0.02
ROWS, COLUMNS = 2500, 2048
WARM_UP = 3
WHOLE = "last byte -> answer of the PACS"
MAKING = ("decode", "predict", "render")
GAPS = (
    "committed -> claimed",
    "claim's commit, handing over, hash",
    "recorded, committed -> claimed for sending",
)
"""Where nothing is made, written to disk or sent but the queue's own rows."""
GOALS = {"decode, uncompressed": 20.0, "decode, JPEG Lossless": 110.0}
"""Milliseconds, medians."""
RATIO, GAP, IDLE_CPU = 1.2, 20.0, 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=20, metavar="N", help="of each load")
    parser.add_argument("--results", default="sr,sc", metavar="sr,sc", help="the kinds that the PACS wants")
    parser.add_argument("--pacs", default="storescp-fork", metavar="storescp-fork|orthanc|...")
    parser.add_argument(
        "--idle-seconds", type=float, default=20.0, metavar="S", help="the idle node is watched"
    )
    parser.add_argument("--engine", default="", metavar="hilum|pynetdicom")
    parser.add_argument("--folder", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE")


def run(chosen: argparse.Namespace, root: Path, report: Report) -> int:
    chest = _Chest()
    _decoding(chest, root, report)
    with _site(chosen, root, chest) as site:
        site.one_by_one(WARM_UP)
        before = processes.cpu_seconds(site.pid)
        time.sleep(chosen.idle_seconds)
        idle = 100 * (processes.cpu_seconds(site.pid) - before) / chosen.idle_seconds
        report.heading(
            f"end to end: {ROWS} x {COLUMNS}, 16 bits, one worker, PACS: {chosen.pacs}, {chosen.results}"
        )
        _table("idle: one image at a time", site.one_by_one(chosen.images), report, judged=True)
        report.line(
            f"  CPU of the whole node, nothing to do: {idle:.2f} % of a core  (goal: under {IDLE_CPU:g})"
        )
        full = site.every(0.0, chosen.images)
        rate = len(full) / (max(one.acknowledged for one in full) - min(one.sent for one in full))
        _table(f"half load: {rate / 2:.1f} images/s", site.every(2 / rate, chosen.images), report)
        _table(f"full load: sent as fast as they are taken, {rate:.1f} reports/s", full, report)
    return 0


@dataclass
class Way:
    """One image's way through the node. Moments in seconds since 1970."""

    sent: float
    kept: float = 0.0
    claimed: float = 0.0
    analyzed: float = 0.0
    attempted: float = 0.0
    acknowledged: float = 0.0
    made: dict[str, float] = field(default_factory=dict)
    """Milliseconds of what makes a report of an image."""

    @property
    def stages(self) -> dict[str, float]:
        """Milliseconds, in the order of time; the last is the whole."""
        making = {stage: self.made.get(stage, 0.0) for stage in MAKING}
        keep = self.made.get("keep", 0.0)
        rest = 1e3 * (self.analyzed - self.claimed) - sum(making.values()) - keep
        return {
            "last byte -> committed, Success": 1e3 * (self.kept - self.sent),
            # below zero where the worker was quicker than the answer to the sender
            GAPS[0]: 1e3 * (self.claimed - self.kept),
            **making,
            "results on disk": keep,
            GAPS[1]: rest,
            GAPS[2]: 1e3 * (self.attempted - self.analyzed),
            "sent -> acknowledged by the PACS": 1e3 * (self.acknowledged - self.attempted),
            WHOLE: 1e3 * (self.acknowledged - self.sent),
        }

    def take(self, record: Record) -> None:
        """A record of the audit log about this image."""
        at = moment(record.time).timestamp()
        match record.event:
            case "job.claimed":
                self.claimed = at
            case "job.analyzed":
                self.analyzed, self.made = at, record.detail.get("ms", {})
            case "delivery.attempted" if record.detail.get("writer") == "sr":
                self.attempted = at
            case "delivery.delivered" if record.detail.get("writer") == "sr":
                self.acknowledged = at


class Site:
    """A node between a modality, which is this process, and a PACS."""

    def __init__(self, pid: int, port: int, store: Store, chest: "_Chest") -> None:
        self.pid = pid
        self._port = port
        self._store = store
        self._chest = chest
        self._read_to = 0

    def one_by_one(self, images: int) -> list[Way]:
        """The next when the report on the last has been answered."""
        return [way for _ in range(images) for way in self.every(0.0, 1)]

    def every(self, seconds: float, images: int) -> list[Way]:
        """One image each so many seconds; 0: as fast as they are taken."""
        run, ways = new_run(), {}
        association = Association(self._port, nodes.AE_TITLE)
        message = Message(0, run, 0, max_pdu=association.max_pdu, make=self._chest.encoded)
        due = time.monotonic()
        for number in range(images):
            time.sleep(max(0.0, due - time.monotonic()))
            due += seconds
            message.be(number)
            association.socket.sendall(message.bytes)
            way = Way(sent=time.time())
            if status := association.status():
                raise Failed(f"the node answers {status:04X}")
            way.kept = time.time()
            ways[uids(run, 0, number)[0].decode()] = way
        self._follow(ways)
        association.release()
        return list(ways.values())

    def _follow(self, ways: dict[str, Way]) -> None:
        until = time.monotonic() + PATIENCE
        while not all(way.acknowledged for way in ways.values()):
            if time.monotonic() > until:
                raise Failed("not every report arrived")
            time.sleep(LOOK_SECONDS)
            with self._store.database.read() as tx:
                records = self._store.audit.page(tx, Filter(), after=self._read_to)
            for record in records:
                self._read_to = record.id
                if record.event == "job.skipped" or record.event.endswith("parked"):
                    raise Failed(f"{record.event}: {record.detail.get('reason')}")
                if record.sop in ways:
                    ways[record.sop].take(record)


@contextmanager
def _site(chosen: argparse.Namespace, root: Path, chest: "_Chest") -> Iterator[Site]:
    wanted = ", ".join(f'"{kind}"' for kind in chosen.results.split(","))
    with running(PEERS[chosen.pacs], root / "pacs") as pacs:
        destination = (
            f'[[destinations]]\nname = "pacs"\nae_title = "{nodes.AE_TITLE}"\nhost = "127.0.0.1"\n'
            f"port = {pacs.port}\nresults = [{wanted}]\n"
        )
        with running(hilum(chosen.engine, destination, workers=1), root / "node") as node:
            store = Store.open(node.folder / "data")
            try:
                yield Site(node.pid, node.port, store, chest)
            finally:
                store.close()


class _Chest:
    """The image that is sent."""

    def __init__(self) -> None:
        drawn = Pillow.fromarray(phantom.picture(1, patch=True)).resize(
            (COLUMNS, ROWS), Pillow.Resampling.BILINEAR
        )
        grain = np.random.default_rng(1).normal(0, 0.0015, (ROWS, COLUMNS))
        levels = np.clip(np.rint((np.asarray(drawn) * 0.95 + grain) * 65535), 0, 65535).astype("<u2")
        self.dataset = phantom.draw(1, patch=True)
        self.dataset.Rows, self.dataset.Columns = ROWS, COLUMNS
        self.dataset.BitsStored, self.dataset.HighBit = 16, 15
        self.dataset.WindowCenter, self.dataset.WindowWidth = 32768, 65536
        self.dataset.ImagerPixelSpacing = [0.17, 0.17]
        self.dataset.PixelData = levels.tobytes()
        self.dataset["PixelData"].VR = "OW"

    def encoded(self, _size: int, _run: str, identity: Uids) -> bytes:
        """As `Message` wants it; nothing but its UIDs changes."""
        dataset = Dataset()
        dataset.update(self.dataset)
        dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID = (
            uid.decode() for uid in identity
        )
        out = DicomBytesIO()
        out.is_little_endian, out.is_implicit_VR = True, False
        write_dataset(out, dataset)
        return out.getvalue()


def _decoding(chest: _Chest, root: Path, report: Report) -> None:
    """A decoder process from the request to its answer: decode, judge, and make the network's input of it."""
    plain, packed = root / "plain.dcm", root / "lossless.dcm"
    chest.dataset.save_as(plain, enforce_file_format=True)
    subprocess.run([nodes.dcmtk("dcmcjpeg"), "+e1", str(plain), str(packed)], check=True)
    report.heading(f"decode and preprocessing: {ROWS} x {COLUMNS}, one decoder process")
    with Decoders(1, 2 * 2**30, 60, Policy(), (card.load(ROOT / "model" / "shipped"),)) as decoders:
        for (name, goal), file in zip(GOALS.items(), (plain, packed), strict=True):
            seconds = []
            for _ in range(WARM_UP + 20):
                (found,) = decoders.examine([file])
                if not isinstance(found, Ready):
                    raise Failed(f"{name}: {found}")
                seconds.append(found.seconds)
            report.line(
                f"  {name:45} {_spread([1e3 * s for s in seconds[WARM_UP:]])}  (goal: p50 at most {goal:g})"
            )


def _table(title: str, ways: Sequence[Way], report: Report, *, judged: bool = False) -> None:
    report.line(f"\n{title}; {len(ways)} images, milliseconds {'p50':>12} {'p95':>8} {'p99':>8}")
    columns = {stage: [way.stages[stage] for way in ways] for stage in ways[0].stages}
    for stage, values in columns.items():
        report.line(f"  {stage:45} {_spread(values)}")
    making = [sum(way.stages[stage] for stage in MAKING) for way in ways]
    report.line(f"  {' + '.join(MAKING):45} {_spread(making)}")
    if judged:
        ratios = [way.stages[WHOLE] / made for way, made in zip(ways, making, strict=True)]
        gaps = {stage: quantile(columns[stage], 0.5) for stage in GAPS}
        longest = max(gaps, key=lambda stage: gaps[stage])
        report.line(
            f"  the whole / {' + '.join(MAKING)}: {quantile(ratios, 0.5):.2f}  (goal: at most {RATIO:g})"
        )
        report.line(f"  longest gap, p50: {gaps[longest]:.1f} ms, {longest}  (goal: at most {GAP:g})")


def _spread(values: Sequence[float]) -> str:
    return " ".join(f"{quantile(values, q):8.1f}" for q in (0.5, 0.95, 0.99))
