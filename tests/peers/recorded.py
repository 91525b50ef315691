"""A receiver under strace, and what strace wrote of it.

with recording(strace, log, data_dir) as node:     something is sent to node.port
for call, returned in calls([log], root):          each call about files under root, and about connections
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from node import recover
from node.settings import Settings
from storage.store import Store

REPOSITORY = Path(__file__).parents[2]
STOP_SECONDS = 60
MODEL = "sha256:test"

WRITES = {"write", "writev", "pwrite64", "pwritev", "pwritev2"}
SYNCS = {"fsync", "fdatasync", "sync", "syncfs"}
SENDS = {"write", "writev", "sendto", "sendmsg"}
OPENS = {"open", "creat", "openat", "openat2"}
NAMINGS = {
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
}
RESIZES = {"ftruncate", "truncate", "fallocate"}
HARMLESS = {"sync_file_range"}
# writes that the model does not know, traced to be noticed
STRANGE = {
    "mmap",
    "io_uring_setup",
    "copy_file_range",
    "sendfile",
    "splice",
    "sendmmsg",
    "symlink",
    "symlinkat",
}
TRACED = WRITES | SYNCS | SENDS | OPENS | NAMINGS | RESIZES | STRANGE | {"lseek"}


class Blind(Exception):
    """The run did something that the trace does not show, or that its reader does not know."""


# --- the run ---------------------------------------------------------------------------------------------------------


class Recorded:
    """A receiver under strace, with a data folder that it made itself."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        pid, port = self._answer().split()
        self._pid, self.port = int(pid), int(port)

    def checkpoint(self) -> None:
        """As the housekeeper does: the database's log goes into its file."""
        assert self._process.stdin
        self._process.stdin.write("checkpoint\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def kill(self) -> None:
        """Everything dies at once, with what it had in hand."""
        # the receiver dies with its parent, and strace with those whom it traces
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline().strip()
        if not line:
            raise PermissionError("processes may not be traced here")
        return line


@contextmanager
def recording(strace: str, log: Path, data_dir: Path, *options: str) -> Iterator[Recorded]:
    """A store is made or recovered and a receiver started, as the supervisor does; at the end both stop in order.

    `options` are strace's. Raises PermissionError where processes may not be traced.
    """
    process = subprocess.Popen(
        [strace, "-f", "--seccomp-bpf", "-qq", "-yy", "-xx", "-v", "-s", "100000000", "-o", log,
         "-e", f"trace={','.join(sorted(TRACED | HARMLESS))}", *options,
         sys.executable, "-m", "peers.recorded", data_dir],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": "tests"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin and process.stdout
    with process:
        node = Recorded(process)
        try:
            yield node
            process.stdin.close()
            process.wait(STOP_SECONDS)
        except BaseException:
            node.kill()
            raise


def _live(data_dir: Path, said: IO[str]) -> None:
    """The traced side of `recording`."""
    from peers.conftest import ReceiverProcess

    start(data_dir).close()
    node = ReceiverProcess(data_dir)
    print(os.getpid(), node.port, flush=True)
    for _ in said:
        node.store.database.checkpoint()
        print("done", flush=True)
    # a thread that the tracer has just held may take the signal, and Python's main thread sleeps on
    while node.process.poll() is None:
        node.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            node.process.wait(1)
    node.end()


def start(data_dir: Path) -> Store:
    """The store of a node that starts here, recovered. Raises BadEnvironment, StorageError."""
    recover.refuse_lost_database(data_dir)
    store = Store.create(data_dir)
    try:
        recover.after_stop(store, Settings.model_validate({"node": {"data_dir": data_dir}}), MODEL)
    except BaseException:
        store.close()
        raise
    return store


# --- what strace wrote -----------------------------------------------------------------------------------------------

_HEX = r"(?:\\x[0-9a-f]{2})*"
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
_RETURNED = re.compile(rf"(.*)\) += (-?\d+|0x[0-9a-f]+|\?)(?:<{_HEX}>)?((?: [^\"]*)?)")
_STRING = re.compile(rf'"({_HEX})"(\.\.\.)?')
_PATH = re.compile(rf'(?:(?:AT_FDCWD|\d+)<({_HEX})>(?:\(deleted\))?, )?"({_HEX})"')
_DESCRIPTOR = re.compile(rf"\d+<({_HEX}|[A-Z0-9]+:\[[^\]]*\])>(\(deleted\))?")
_UNFINISHED = " <unfinished ...>"


@dataclass(eq=False)
class Call:
    """One system call, its arguments as strace writes them."""

    thread: int
    name: str
    arguments: str
    # what it returned, and the error's name
    result: int = -1
    error: str = ""

    @property
    def failed(self) -> bool:
        return self.result < 0

    @property
    def data(self) -> bytes:
        """All its buffers."""
        found = _STRING.findall(self.arguments)
        if any(cut for _, cut in found):
            raise Blind(f"{self.name}: its data is cut short in the trace")
        return b"".join(_bytes(text) for text, _ in found)

    @property
    def paths(self) -> list[str]:
        """The files that it names."""
        found = [(_text(folder), _text(name)) for folder, name in _PATH.findall(self.arguments)]
        return [os.path.normpath(os.path.join(folder, name)) for folder, name in found]  # noqa: PTH118

    @property
    def opened(self) -> str:
        """What its first argument is open on: a path (empty if it has none any more), `TCP:[here->there]`."""
        found = _DESCRIPTOR.match(self.arguments)
        if found is None or found[2]:
            return ""
        return _text(found[1]) if found[1].startswith("\\x") else found[1]

    @property
    def mapped(self) -> str:
        """The file that an mmap maps."""
        found = re.search(rf"\d+<({_HEX})>", self.arguments)
        return _text(found[1]) if found else ""

    @property
    def numbers(self) -> list[int]:
        """The numbers after the descriptor and the buffers."""
        rest = re.split(r'["\]>]', self.arguments)[-1]
        return [int(number) for number in re.findall(r"(?<!\w)-?\d+(?!\w)", rest)]

    def __str__(self) -> str:
        about = self.paths if self.name in NAMINGS | OPENS else [self.opened]
        return f"{self.name}({', '.join(Path(path).name for path in about)})"


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _text(text: str) -> str:
    return os.fsdecode(_bytes(text))


def calls(logs: Iterable[Path], root: Path) -> Iterator[tuple[Call, bool]]:
    """(call, whether it has returned) in the order in which it happened: each call when it begins and when it ends.

    Calls about files under `root` and connections only. Of several logs, one follows the other.
    """
    for log in logs:
        yield from _calls(log, root)


def _calls(log: Path, root: Path) -> Iterator[tuple[Call, bool]]:
    marks = ("".join(f"\\x{byte:02x}" for byte in os.fsencode(root)), "<TCP", "io_uring_setup(", " sync()")
    unfinished: dict[int, Call] = {}
    with log.open(encoding="ascii") as lines:
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            thread, rest = int(found[1]), found[4]
            if found[3]:
                if not any(mark in line for mark in marks):
                    continue
                call = Call(thread, found[3], rest.removesuffix(_UNFINISHED))
                if rest.endswith(_UNFINISHED):
                    unfinished[thread] = call
                    yield call, False
                    continue
            elif thread in unfinished:
                call = unfinished.pop(thread)
                rest = call.arguments + rest
            else:
                continue
            returned = _RETURNED.fullmatch(rest)
            if returned is None:
                raise Blind(f"not understood: {line[:200]}")
            call.arguments = returned[1]
            if found[3]:
                yield call, False
            if returned[2] != "?":
                call.result, call.error = int(returned[2], 0), returned[3].strip().partition(" ")[0]
                yield call, True


if __name__ == "__main__":
    _live(Path(sys.argv[1]), sys.stdin)
