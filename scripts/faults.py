"""The slow campaign of crashes: tests/test_crashes.py over moments that are drawn, not chosen.

One image is watched on its way first: which system calls do receiver, worker and deliverer make, and how often?
Then moments are drawn: a process, one of its calls, and the how manieth of a thread; the process gets SIGKILL as it
enters that call. One draw in six kills everything at once, some milliseconds after the sender began. After each,
images are sent until they are acknowledged, and what was acknowledged is compared with what is stored, read, made and
delivered.
"""

import argparse
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from peers.node import running_node, until
from peers.servers import Storescp, running
from test_crashes import Campaign

PROCESSES = ("receiver", "worker-1", "deliverer")
CALLS = (
    "openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "fcntl", "sendto", "recvfrom",
    "sendmsg", "close",
)  # fmt: skip
# a call that only time brings about may not come; that is said, and is no fault
COMES_SECONDS = 20.0
EVERYTHING = "everything"
LONGEST_WAIT_MS = 4000

Moment = tuple[str, str, int]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/faults")
    parser.add_argument("--moments", type=int, default=200, metavar="N")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="M", help="stop after so many")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    chosen = parser.parse_args()
    if missing := [name for name in ("storescu", "storescp", "strace") if not program(name)]:
        print(f"faults: not installed: {', '.join(missing)}", file=sys.stderr)
        return 3
    until_then = time.monotonic() + 60 * chosen.minutes
    drawn, tried, not_reached, faults = random.Random(chosen.seed), 0, 0, 0
    population: list[Moment] = []
    print(f"{'process':12} {'call':10} {'nth':>5}  {'s':>5}  what became of it", flush=True)
    while tried < chosen.moments and time.monotonic() < until_then:
        with campaign() as one:
            population = population or watch(one)
            while tried < chosen.moments and time.monotonic() < until_then:
                moment = draw(drawn, population)
                began = time.monotonic()
                fault, came = strike(one, moment)
                tried, not_reached, faults = tried + 1, not_reached + (not came), faults + bool(fault)
                process, call, nth = moment
                told = (
                    f"FAULT: {fault}" if fault else "nothing lost, nothing twice" if came else "not reached"
                )
                print(f"{process:12} {call:10} {nth:5}  {time.monotonic() - began:5.1f}  {told}", flush=True)
                if fault:
                    # its books stay wrong: the next moments get a node of their own
                    break
    print(
        f"\nseed {chosen.seed}: {tried} moments of {len(population)} that one image passes, {not_reached} not reached; "
        f"{faults or 'no'} {'fault' if faults == 1 else 'faults'}"
    )
    return 1 if faults else 0


def draw(drawn: random.Random, population: list[Moment]) -> Moment:
    """Process and call evenly, so that the many reads and writes don't hide the few syncs."""
    if drawn.randrange(6) == 0:
        return EVERYTHING, "ms", drawn.randrange(LONGEST_WAIT_MS)
    process = drawn.choice(PROCESSES)
    call = drawn.choice(sorted({call for of, call, _ in population if of == process}))
    return drawn.choice([moment for moment in population if moment[:2] == (process, call)])


def strike(one: Campaign, moment: Moment) -> tuple[str, bool]:
    """What went wrong ("" if nothing), and whether the moment came."""
    process, call, nth = moment
    try:
        if process != EVERYTHING:
            return "", one.crash(process, call, nth, COMES_SECONDS)
        image = one.image()
        sending = threading.Thread(target=one.send, args=(image,))
        sending.start()
        time.sleep(nth / 1000)
        one.node.kill_everything()
        sending.join()
        one.node.start()
        one.send_until_acknowledged(image)
        one.compare()
        return "", True
    except AssertionError as e:
        broken = traceback.extract_tb(e.__traceback__)[-1].line or ""
        return f"{broken} {' '.join(str(e).split())[:200]}".strip(), True


def watch(one: Campaign) -> list[Moment]:
    """Every (process, call, nth) while one image passes."""
    one.send_until_acknowledged(one.image())
    until(one.node.settled)
    traces = {name: one.folder.parent / f"{one.folder.name}-{name}.strace" for name in PROCESSES}
    tracers = [
        subprocess.Popen(
            [one.strace, "-f", "-qq", "-o", str(file), "-e", f"trace={','.join(CALLS)}",
             "-p", str(one.node.children()[name])]
        )
        for name, file in traces.items()
    ]  # fmt: skip
    time.sleep(2)
    one.send_until_acknowledged(one.image())
    until(one.node.settled)
    for tracer in tracers:
        tracer.terminate()
        tracer.wait()
    found: list[Moment] = []
    for name, file in traces.items():
        # strace counts the calls of each thread by itself
        calls = Counter(re.findall(r"^(\d+) +(\w+)\(", file.read_text(errors="replace"), re.MULTILINE))
        most: dict[str, int] = {}
        for (_, call), count in calls.items():
            most[call] = max(count, most.get(call, 0))
        found += [(name, call, n) for call, count in sorted(most.items()) for n in range(1, count + 1)]
    return found


@contextmanager
def campaign() -> Iterator[Campaign]:
    """A node, a storescp as its PACS, and folders that go with them."""
    with tempfile.TemporaryDirectory(prefix="hilum-faults-") as made:
        folder = Path(made)
        (folder / "images").mkdir()
        pacs = Storescp(program("storescp"), free_port(), folder / "pacs" / "received", "--fork")
        config = (
            f'min_free_bytes = 0\n[[destinations]]\nname = "pacs"\nae_title = "{pacs.ae_title}"\n'
            f'host = "127.0.0.1"\nport = {pacs.port}\n'
        )
        with running(pacs), running_node(folder / "node", config, free_port()) as node:
            yield Campaign(node, pacs, program("storescu"), program("strace"), folder / "images")


def program(name: str) -> str:
    """The real peer's program; pynetdicom puts programs of the same names beside this Python."""
    return shutil.which(name, path="/usr/bin:/usr/local/bin:/bin") or ""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
