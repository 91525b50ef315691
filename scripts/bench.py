"""Rates of the node beside DCMTK's storescp, measured in one run with one sender.

The sender is DCMTK's storescu for all (its start and its reading of files are in every figure). Nodes take turns
round by round, the order reversed each time, in fresh folders on the same disk, which is synced before. Compare the
ratios of one run only: absolute rates move with the machine. `storescp` answers Success before anything is on stable
storage; Hilum only after file, folder, row and audit record are.
"""

import argparse
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation

from model import phantom

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "TCP_BUFFER_LENGTH": "262144"}
PATIENCE = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("what", choices=["receive", "end-to-end"])
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--kilobytes", type=int, default=1000)
    chosen = parser.parse_args()
    for program in ("storescu", "storescp"):
        if not dcmtk(program):
            print(f"bench: {program} is not installed: apt-get install dcmtk", file=sys.stderr)
            return 3
    with tempfile.TemporaryDirectory(prefix="hilum-bench-") as folder:
        if chosen.what == "receive":
            receive(Path(folder), chosen.images or 200, chosen.rounds, chosen.senders, chosen.kilobytes)
        else:
            end_to_end(Path(folder), chosen.images or 40)
    return 0


def receive(folder: Path, images: int, rounds: int, senders: int, kilobytes: int) -> None:
    """Images a second until the last Success."""
    nodes: dict[str, Callable[[Path], AbstractContextManager[int]] | None] = {
        "disk: write, fsync, rename, fsync folder": None,
        "storescp": lambda at: storescp(at, 0),
        "storescp --fork +B": lambda at: storescp(at, 0, "--fork", "+B"),
        "hilum": lambda at: hilum(at, ""),
    }
    rates: dict[str, list[float]] = {name: [] for name in nodes}
    cpu: dict[str, list[float]] = {name: [] for name in nodes}
    for number in range(rounds):
        source = folder / "source"
        files = make_images(source, images, kilobytes)
        order = list(nodes) if number % 2 == 0 else list(reversed(nodes))
        for name in order:
            at = folder / "node"
            at.mkdir()
            os.sync()
            start = nodes[name]
            if start is None:
                rates[name].append(images / disk(at, files, senders))
            else:
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                with start(at) as port:
                    sent, sender_cpu = send(port, files, senders)
                    rates[name].append(images / sent)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - sender_cpu
                cpu[name].append(1000 * used / images)
            shutil.rmtree(at)
        shutil.rmtree(source)
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    reference = statistics.median(rates["storescp --fork +B"])
    print(f"receive: {images} images of {kilobytes} kB, {senders} senders, {rounds} rounds, medians\n")
    print(
        f"{'node':42} {'images/s':>9} {'best..worst':>14} {'ratio':>6} {'CPU ms/image':>13}  durable at Success"
    )
    for name, found in rates.items():
        median = statistics.median(found)
        spread = f"{max(found):.0f}..{min(found):.0f}"
        burnt = f"{statistics.median(cpu[name]):.1f}" if cpu[name] else ""
        durable = "no" if "storescp" in name else "yes"
        print(f"{name:42} {median:9.1f} {spread:>14} {median / reference:6.2f} {burnt:>13}  {durable}")
    print("\nCPU includes the node's start. Ratio: to storescp --fork +B.")


def end_to_end(folder: Path, images: int) -> None:
    """Images a second from the first byte sent until the last result is at a storescp."""
    files = make_phantoms(folder / "source", images)
    plain = folder / "plain"
    plain.mkdir()
    with storescp(plain, 0, "--fork", "+B") as port:
        received, _ = send(port, files, 1)
    pacs, at = folder / "pacs", folder / "node"
    pacs.mkdir()
    at.mkdir()
    with storescp(pacs, 0, "--fork", "+B") as pacs_port:
        destination = (
            f'[[destinations]]\nname = "pacs"\nae_title = "PEER"\nhost = "127.0.0.1"\nport = {pacs_port}\n'
        )
        with hilum(at, destination, workers=1) as port:
            began = time.monotonic()
            answered, _ = send(port, files, 1)
            while len(list(pacs.iterdir())) < 2 * images:
                if time.monotonic() - began > PATIENCE:
                    raise SystemExit("bench: not every result arrived")
                time.sleep(0.02)
            whole = time.monotonic() - began
    print(f"end to end: {images} phantoms of 1024 x 1024, 12 bits, one sender, one worker\n")
    print(f"{'storescp --fork +B, receiving alone':45} {images / received:8.1f} images/s   1.000")
    print(f"{'hilum, receiving':45} {images / answered:8.1f} images/s   {received / answered:.3f}")
    print(
        f"{'hilum, until every SR and SC is at the PACS':45} {images / whole:8.1f} images/s   {received / whole:.3f}"
    )


def make_images(folder: Path, count: int, kilobytes: int) -> list[Path]:
    """DX images of random pixels with UIDs of their own."""
    folder.mkdir()
    rng = np.random.default_rng()
    template = phantom.draw(1, patch=False)
    rows = max(1, kilobytes * 1000 // 2 // 1024)
    files = []
    for number in range(count):
        image = rename(template, f"{time.time_ns()}{number:05d}")
        image.SOPClassUID = DigitalXRayImageStorageForPresentation
        image.Rows, image.Columns = rows, 1024
        image.PixelData = rng.integers(0, 4096, rows * 1024, np.uint16).tobytes()
        files.append(folder / f"{number:05d}.dcm")
        image.save_as(files[-1], enforce_file_format=True)
    return files


def make_phantoms(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    template = phantom.draw(1, patch=True)
    files = []
    for number in range(count):
        files.append(folder / f"{number:05d}.dcm")
        rename(template, f"{time.time_ns()}{number:05d}").save_as(files[-1], enforce_file_format=True)
    return files


def rename(image: Dataset, tail: str) -> Dataset:
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"2.25.1{tail}"
    image.SeriesInstanceUID, image.StudyInstanceUID = f"2.25.2{tail}", f"2.25.3{tail}"
    return image


def send(port: int, files: list[Path], senders: int) -> tuple[float, float]:
    """Seconds until the last Success, and the senders' own CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    running = [
        subprocess.Popen(
            [
                dcmtk("storescu"),
                "-R",
                "-pdu",
                "131072",
                "-aec",
                "HILUM",
                "127.0.0.1",
                str(port),
                *files[n::senders],
            ],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for n in range(senders)
    ]
    for sender in running:
        _, error = sender.communicate(timeout=PATIENCE)
        if sender.returncode:
            raise SystemExit(f"bench: storescu failed: {error.decode(errors='replace')}")
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def disk(folder: Path, files: list[Path], writers: int) -> float:
    """Seconds to write the same bytes durably, by as many threads as there are senders."""
    from concurrent.futures import ThreadPoolExecutor

    def write(file: Path) -> None:
        data = file.read_bytes()
        fd = os.open(folder / f"{file.name}.part", os.O_WRONLY | os.O_CREAT)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        (folder / f"{file.name}.part").rename(folder / file.name)
        at = os.open(folder, os.O_RDONLY)
        os.fsync(at)
        os.close(at)

    began = time.monotonic()
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, files))
    return time.monotonic() - began


@contextmanager
def storescp(folder: Path, port: int, *options: str) -> Iterator[int]:
    port = port or free_port()
    with running(
        [dcmtk("storescp"), *options, "-aet", "PEER", "-od", str(folder), "-pdu", "131072", str(port)]
    ):
        until_open(port)
        yield port


@contextmanager
def hilum(folder: Path, destination: str, workers: int = 0) -> Iterator[int]:
    port = free_port()
    config = folder / "config.toml"
    config.write_text(
        f'[node]\ndata_dir = "data"\n[receive]\nport = {port}\nmin_free_bytes = 0\n'
        f"[analyze]\nworkers = {workers}\n{destination}"
    )
    with running([sys.executable, "-m", "node.cli", "serve", "--config", str(config)]) as process:
        assert process.stdout is not None
        if not process.stdout.readline().startswith(b"ready"):
            raise SystemExit("bench: the node did not start")
        yield port


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def dcmtk(program: str) -> str:
    """DCMTK's program, not pynetdicom's of the same name beside this Python."""
    return shutil.which(program, path="/usr/bin:/usr/local/bin:/opt/homebrew/bin") or ""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def until_open(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"bench: nothing answers on port {port}")


if __name__ == "__main__":
    sys.exit(main())
