"""`hilum demo`: a node, a small receiving PACS and some X-rays, on this machine, in one command.

The node is a real `hilum serve` in a process of its own with a data folder of its own; the X-rays go in by C-STORE,
the results come out by C-STORE. Everything ends with the command, however it ends; only the results stay.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydicom import dcmread
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from model import card
from node import active, demo_pacs, log, show
from node.demo_pacs import Pacs
from node.demo_xrays import Xray, chosen, phantoms, send
from node.errors import NotHeld
from node.readable import save_png, text
from node.readout import assumed, shown_findings
from node.settings import DimseDestination, Node, Receive, Settings
from node.state import read_state
from storage.jobs import Found
from storage.store import Store

AE_TITLE = "HILUM"
RESULTS: tuple[Literal["sr", "sc"], ...] = ("sr", "sc")
# loading TensorFlow took 6 to 20 s on two busy cores
START_SECONDS = 180.0
# without any news from any image
PATIENCE_SECONDS = 180.0
STOP_SECONDS = 12.0
MIN_FREE_BYTES = 100 * 10**6
_SERVE = """
from node.parent import die_with_parent
die_with_parent()
from node.cli import main
raise SystemExit(main())
"""


@dataclass
class Exposure:
    """One X-ray on its way through the node. `reason`: why its results will not come."""

    xray: Xray
    sent_at: float = 0.0
    findings: list[Found] = field(default_factory=list)
    arrived: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def is_whole(self) -> bool:
        return all(writer in self.arrived for writer in RESULTS)

    @property
    def waits(self) -> bool:
        return not self.reason and not self.is_whole


def run(settings: Settings, files: Sequence[Path]) -> bool:
    """The whole show; whether every result arrived.

    Raises BadModel, and NotHeld if the node does not start or does not live.
    """
    log.configure("demo")
    settings = _with_active_model(settings)
    folder = _results_folder()
    with _terminable(), tempfile.TemporaryDirectory(prefix="hilum-demo-") as made:
        work = Path(made)
        xrays = list(chosen(files, work) if files else phantoms(work))
        exposures = [Exposure(xray, reason=xray.fault) for xray in xrays]
        with Pacs(work / "pacs") as pacs, _bars() as bars:
            bar = bars.add_task("starting the node: it loads the model", total=None)
            with _node(settings, work, pacs.port, folder / "node.log") as (process, port):
                bars.update(bar, description="reading", total=len(exposures) * len(RESULTS))
                store = Store.open(work / "data")
                try:
                    _send(exposures, port, store)
                    for done in _awaited(exposures, store, pacs, process, folder):
                        bars.update(bar, completed=done)
                finally:
                    store.close()
                bars.update(bar, description="stopping the node")
    _tell(exposures, folder, invented=not files)
    return all(exposure.is_whole for exposure in exposures)


def _with_active_model(settings: Settings) -> Settings:
    """The demo's node has a data folder of its own, and reads with the model that the configured node reads with.
    Raises BadModel."""
    folder = active.folder(settings)
    card.verify(card.load(folder))
    analyze = settings.analyze.model_copy(update={"model": folder, "shadow": None})
    return settings.model_copy(update={"analyze": analyze})


def _results_folder() -> Path:
    name = datetime.now().strftime("%Y-%m-%d_%H%M%S")
    for n in range(1, 100):
        folder = Path("hilum-demo") / (name if n == 1 else f"{name}-{n}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise NotHeld(f"hilum-demo/{name} is taken a hundred times")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the demo like ctrl-C: the node is stopped, the temporary folder removed."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _bars() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)


@contextmanager
def _node(
    settings: Settings, work: Path, pacs_port: int, log_file: Path
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A running node and its port; stopped at the end. Raises NotHeld if it does not become ready."""
    destination = DimseDestination(
        name="demo-pacs", ae_title=demo_pacs.AE_TITLE, host=demo_pacs.HOST, port=pacs_port, results=RESULTS
    )
    configured = Settings(
        node=Node(ae_title=AE_TITLE, data_dir=work / "data"),
        receive=Receive(port=0, min_free_bytes=MIN_FREE_BYTES),
        analyze=settings.analyze.model_copy(update={"workers": max(1, settings.analyze.workers)}),
        destinations=(destination,),
        scope=settings.scope,
        # the demo shows each image as it comes; nobody waits out a study's quiet period
        report=settings.report.model_copy(update={"per": "image"}),
    )
    (work / "config.toml").write_text(as_toml(configured), encoding="utf-8")
    with log_file.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, "serve", "--config", str(work / "config.toml")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            # ctrl-C reaches this process, which then stops the node in order
            start_new_session=True,
        )
    try:
        yield process, _ready(process, work / "data", log_file)
    finally:
        _stop(process)


def _ready(process: "subprocess.Popen[bytes]", data_dir: Path, log_file: Path) -> int:
    """The port, once the node has said that it is ready."""
    assert process.stdout is not None
    until = time.monotonic() + START_SECONDS
    said = b""
    while time.monotonic() < until:
        if select.select([process.stdout], [], [], 0.2)[0]:
            said += os.read(process.stdout.fileno(), 4096)
            if ready := re.search(rb"ready: .* on \S+:(\d+)\n", said):
                return int(ready[1])
        if process.poll() is not None:
            told = re.findall(r"^hilum: (.*)", log_file.read_text(errors="replace"), re.MULTILINE)
            raise NotHeld(f"the node did not start: {told[-1] if told else f'see {log_file}'}")
        state = read_state(data_dir)
        if state and state.problem:
            raise NotHeld(f"{state.problem}; see {log_file}")
    raise NotHeld(f"the node was not ready after {START_SECONDS:.0f} s; see {log_file}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except BaseException as e:
        # it hangs, or a second ctrl-C: its children die with it
        process.kill()
        process.wait()
        if not isinstance(e, subprocess.TimeoutExpired):
            raise
    finally:
        if process.stdout:
            process.stdout.close()


def _send(exposures: Sequence[Exposure], port: int, store: Store) -> None:
    for exposure in exposures:
        if exposure.waits:
            exposure.sent_at = time.monotonic()
            exposure.reason = send(exposure.xray, port, AE_TITLE)
    with store.database.read() as tx:
        queued = {job.sop_instance for job in store.jobs.listing(tx)}
    for exposure in exposures:
        if exposure.waits and exposure.xray.sop_instance not in queued:
            exposure.reason = f"stored only: {exposure.xray.stored_only or 'not analyzed'}"


def _awaited(
    exposures: Sequence[Exposure],
    store: Store,
    pacs: Pacs,
    process: "subprocess.Popen[bytes]",
    folder: Path,
) -> Iterator[int]:
    """Looks until nothing more can come; yields how many results came or will never. Raises NotHeld."""
    news, quiet_since = -1, time.monotonic()
    while any(exposure.waits for exposure in exposures):
        _look(exposures, store, pacs, folder)
        done = sum(len(RESULTS) if e.reason else len(e.arrived) for e in exposures)
        yield done
        if done != news:
            news, quiet_since = done, time.monotonic()
        if process.poll() is not None:
            raise NotHeld(f"the node ended before the results were there; see {folder / 'node.log'}")
        if time.monotonic() - quiet_since > PATIENCE_SECONDS:
            for exposure in exposures:
                if exposure.waits:
                    exposure.reason = f"nothing came for {PATIENCE_SECONDS:.0f} s; see node.log"
        time.sleep(0.1)
    yield len(exposures) * len(RESULTS)


def _look(exposures: Sequence[Exposure], store: Store, pacs: Pacs, folder: Path) -> None:
    """What the node's database and the PACS know by now."""
    with store.database.read() as tx:
        jobs = {job.sop_instance: job for job in store.jobs.listing(tx)}
        deliveries = store.outbox.listing(tx)
        found = {job.id: store.jobs.found(tx, job.id) for job in jobs.values() if job.state == "done"}
    for exposure in exposures:
        job = jobs.get(exposure.xray.sop_instance)
        if not exposure.waits or job is None or job.state in {"queued", "running"}:
            continue
        if job.state != "done":
            exposure.reason = f"{job.state}: {job.reason}"
            continue
        exposure.findings = found[job.id]
        mine = [d for d in deliveries if d.about.sop == job.sop_instance]
        if {d.writer for d in mine} != set(RESULTS):
            exposure.reason = "a result did not pass its check and was not sent; see node.log"
        for delivery in mine:
            come = pacs.arrived.get(delivery.sop_instance)
            if delivery.state == "parked":
                exposure.reason = f"delivery parked: {delivery.reason}"
            elif come and delivery.writer not in exposure.arrived:
                exposure.arrived[delivery.writer] = come.at - exposure.sent_at
                _keep(come.file, delivery.writer, folder / exposure.xray.stem)


def _keep(file: Path, writer: str, stem: Path) -> None:
    """Puts a result where a person finds it: the DICOM file, and the same for who has no viewer."""
    final = stem.with_name(f"{stem.name}.{writer}.dcm")
    shutil.copyfile(file, final)
    result = dcmread(final)
    if writer == "sr":
        final.with_suffix(".txt").write_text(text(result), encoding="utf-8")
    else:
        save_png(result, final.with_suffix(".png"))


def _tell(exposures: Sequence[Exposure], folder: Path, *, invented: bool) -> None:
    rows: list[tuple[str, ...]] = []
    for exposure in exposures:
        name = exposure.xray.name
        if exposure.findings:
            seconds = f"{exposure.arrived['sr']:.1f}" if "sr" in exposure.arrived else ""
            for finding in shown_findings(exposure.findings):
                rows.append((name, *finding, seconds))
                name = seconds = ""
        if exposure.reason:
            rows.append((name, f"no result: {exposure.reason}", "", "", ""))
    show.table(("image", "finding", "score", "threshold", "seconds to SR"), rows)
    if invented:
        print("These are drawn phantoms, not X-rays: their scores mean nothing.")
    if any(exposure.xray.is_picture for exposure in exposures):
        print(f"A{assumed()[1:]}.")
    print("Not a diagnosis; research use only.")
    print(f"SR (.dcm, .txt), SC (.dcm, .png) and the node's log lie in {folder}")


def as_toml(settings: Settings) -> str:
    """A configuration file with these settings."""
    tree = settings.model_dump(mode="json", exclude_none=True)
    destinations = tree.pop("destinations")
    tables = [(f"[{name}]", section) for name, section in tree.items()]
    tables += [("[[destinations]]", destination) for destination in destinations]
    return "\n".join(
        f"{head}\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
        for head, table in tables
    )


def _toml(value: Any) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case _:
            # a JSON string, number or truth value is TOML's, save for a delete character
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
