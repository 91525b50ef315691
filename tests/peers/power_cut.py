"""A power cut at every step of a recorded run: what may be on the disk then.

    for cut in cuts([log], root):                 each moment at which a cut would leave something new
        for name, state in cut.states(seed):      {path under root: content}, None for a folder

The disk that is modelled is as unkind as POSIX lets it be. What was written to a file since its last fsync or
fdatasync is there, is missing or is torn where pages meet, in any order, and the file is as long as it ever was since.
A name (create, rename, unlink, mkdir) is there or not until its own folder was synced, each for itself; a rename is one
step. sync_file_range keeps nothing. What the trace does not show or the model does not know (io_uring, a shared
mapping, O_DSYNC) raises Blind: half a trace proves nothing.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, pairwise
from pathlib import Path

from peers.recorded import NAMINGS, OPENS, RESIZES, SENDS, STRANGE, SYNCS, WRITES, Blind, Call, calls

PAGE = 4096


# --- files and folders, and what of them is not on the disk yet ------------------------------------------------------


class Content:
    """A file's bytes, with their digest: equal states are met again and again."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self._digest = b""

    @property
    def digest(self) -> bytes:
        self._digest = self._digest or blake2b(self.data, digest_size=16).digest()
        return self._digest


@dataclass(eq=False)
class Write:
    offset: int
    data: bytes
    # has the call returned? a sync covers only what had
    done: bool = False


@dataclass(eq=False)
class Resize:
    size: int
    # fallocate never cuts
    grows: bool = False
    done: bool = False


@dataclass(eq=False)
class Naming:
    """Names in one folder that change in one step; None removes."""

    names: "dict[str, File | Folder | None]"
    done: bool = False


@dataclass(eq=False)
class File:
    name: str
    synced: Content = field(default_factory=Content)
    pending: list[Write | Resize] = field(default_factory=list)
    # where `write` goes on
    position: int = 0
    _kept: Content | None = None

    @property
    def is_database(self) -> bool:
        return self.name.startswith("hilum.db")

    def changed(self) -> None:
        self._kept = None

    def sync(self, covered: list[Write | Resize]) -> None:
        self.synced = Content(_written(self.synced.data, covered))
        self.pending = [op for op in self.pending if op not in covered]

    def kept(self) -> Content:
        """With everything that was written."""
        if self._kept is None:
            self._kept = Content(_written(self.synced.data, self.pending)) if self.pending else self.synced
        return self._kept

    def zeroed(self) -> Content:
        """As long as it is, but nothing of what was written since has come."""
        if not self.pending:
            return self.synced
        size = len(self.kept().data)
        return Content(self.synced.data[:size].ljust(size, b"\0"))

    def torn(self, luck: random.Random) -> Content:
        """Any pages of what was written since, and any length that it may have."""
        if not self.pending:
            return self.synced
        share = luck.choice((0.0, 0.5, 0.9, 1.0))
        data = _written(self.synced.data, [op for op in _pages(self.pending) if luck.random() < share])
        shortest, longest = sorted((len(self.synced.data), len(self.kept().data)))
        size = luck.choice((len(data), longest, luck.randint(shortest, longest)))
        return Content(data[:size].ljust(size, b"\0"))


@dataclass(eq=False)
class Folder:
    name: str
    synced: "dict[str, File | Folder]" = field(default_factory=dict)
    pending: list[Naming] = field(default_factory=list)

    def changed(self) -> None:
        pass

    def sync(self, covered: list[Naming]) -> None:
        self.synced = _named(self.synced, covered)
        self.pending = [op for op in self.pending if op not in covered]


def _written(data: bytes, changes: list[Write | Resize]) -> bytes:
    out = bytearray(data)
    for op in changes:
        if isinstance(op, Write):
            out.extend(bytes(max(0, op.offset - len(out))))
            out[op.offset : op.offset + len(op.data)] = op.data
        elif op.size > len(out):
            out.extend(bytes(op.size - len(out)))
        elif not op.grows:
            del out[op.size :]
    return bytes(out)


def _pages(changes: list[Write | Resize]) -> Iterator[Write | Resize]:
    """Writes cut where pages meet."""
    for op in changes:
        if isinstance(op, Resize):
            yield op
            continue
        at = 0
        while at < len(op.data):
            end = at + PAGE - (op.offset + at) % PAGE
            yield Write(op.offset + at, op.data[at:end])
            at = end


def _named(names: "dict[str, File | Folder]", changes: list[Naming]) -> "dict[str, File | Folder]":
    out = dict(names)
    for name, node in (item for op in changes for item in op.names.items()):
        if node is None:
            out.pop(name, None)
        else:
            out[name] = node
    return out


State = dict[str, Content | None]


class Disk:
    """All below one folder, by the calls that changed it. `counts(call)`: False for a sync that does nothing."""

    def __init__(self, root: Path, counts: Callable[[Call], bool] = lambda call: True) -> None:
        self.root = Folder(root.name)
        # changes whenever a power cut might leave something else
        self.version = 0
        self._counts = counts
        self._at: dict[str, File | Folder] = {str(root): self.root}
        self._begun: dict[Call, list[tuple[File | Folder, Write | Resize | Naming]]] = {}

    def told(self, call: Call, returned: bool) -> None:
        """A call has begun, or has returned. Raises Blind."""
        if call.name in SYNCS:
            step = self._synced if returned else self._syncing
        elif call.name in WRITES and call.opened.startswith("TCP:"):
            return
        elif call.name in WRITES:
            step = self._returned if returned else self._writing
        elif call.name in NAMINGS:
            step = self._returned if returned else self._naming
        elif call.name in RESIZES:
            step = self._returned if returned else self._resizing
        elif call.name in STRANGE:
            step = self._wondering
        elif call.name in OPENS and returned and not call.failed:
            step = self._opened
        elif call.name == "lseek" and returned and not call.failed:
            step = self._moved
        else:
            return
        step(call)

    def state(self, named: Callable[[Naming], bool], content: Callable[[File], Content]) -> State:
        """What is there if these namings reached the disk, and this of each file."""
        state: State = {}

        def walk(folder: Folder, path: str) -> None:
            for name, node in _named(folder.synced, [op for op in folder.pending if named(op)]).items():
                here = f"{path}{name}"
                if isinstance(node, File):
                    state[here] = content(node)
                else:
                    state[here] = None
                    walk(node, f"{here}/")

        walk(self.root, "")
        return state

    def _node(self, path: str) -> File | Folder | None:
        """What stands at a path; None where nothing is promised: SQLite's shared memory, run/, elsewhere."""
        if path in self._at:
            return self._at[path]
        if self._is_promised(path):
            raise Blind(f"{path} appeared unseen")
        return None

    def _is_promised(self, path: str) -> bool:
        inside = Path(path).parent
        return str(inside) in self._at and not path.endswith("-shm") and inside.name != "run"

    def _begin(self, call: Call, node: File | Folder, op: Write | Resize | Naming) -> None:
        node.pending.append(op)  # type: ignore[arg-type]
        self._begun.setdefault(call, []).append((node, op))
        self._changed(node)

    def _returned(self, call: Call) -> None:
        for node, op in self._begun.pop(call, []):
            op.done = True
            # another thread may have been quicker to make the folder
            if call.failed and call.error != "EEXIST":
                node.pending.remove(op)  # type: ignore[arg-type]
                self._changed(node)
            elif isinstance(op, Write) and call.result < len(op.data):
                op.data = op.data[: call.result]
                self._changed(node)
            if call.name in {"write", "writev"} and isinstance(node, File) and not call.failed:
                node.position += call.result
        if call.name in NAMINGS and not call.failed and not call.name.startswith(("mkdir", "link")):
            self._at.pop(call.paths[0], None)

    def _changed(self, node: File | Folder) -> None:
        node.changed()
        self.version += 1

    def _writing(self, call: Call) -> None:
        node = self._node(call.opened)
        if not isinstance(node, File):
            return
        numbers = call.numbers
        if call.name == "pwritev2" and not call.arguments.endswith(", 0"):
            raise Blind("pwritev2 with flags")
        at = {"pwrite64": -1, "pwritev": -1, "pwritev2": -2}.get(call.name)
        self._begin(call, node, Write(node.position if at is None else numbers[at], call.data))

    def _resizing(self, call: Call) -> None:
        node = self._node(call.paths[0] if call.name == "truncate" else call.opened)
        if not isinstance(node, File):
            return
        if call.name != "fallocate":
            self._begin(call, node, Resize(call.numbers[-1]))
        elif re.search(r">, 0, \d+, \d+$", call.arguments):
            self._begin(call, node, Resize(sum(call.numbers[-2:]), grows=True))
        elif "KEEP_SIZE" not in call.arguments or "|" in call.arguments:
            raise Blind("fallocate with flags")

    def _naming(self, call: Call) -> None:
        old, new = call.paths[0], call.paths[-1]
        inside = self._at.get(str(Path(new).parent))
        if not isinstance(inside, Folder) or not self._is_promised(new):
            return
        name = Path(new).name
        if call.name.startswith("mkdir"):
            if new not in self._at:
                self._at[new] = Folder(name)
                self._begin(call, inside, Naming({name: self._at[new]}))
        elif old in self._at and call.name.startswith(("unlink", "rmdir")):
            self._begin(call, inside, Naming({name: None}))
        elif old in self._at:
            node = self._at[new] = self._at[old]
            gone: dict[str, File | Folder | None] = {}
            if call.name.startswith("rename"):
                if Path(old).parent != Path(new).parent or "RENAME_EXCHANGE" in call.arguments:
                    raise Blind("a rename from one folder into another")
                gone = {Path(old).name: None}
            self._begin(call, inside, Naming({**gone, name: node}))

    def _opened(self, call: Call) -> None:
        flags = set(re.findall(r"O_[A-Z]+", call.arguments)) | (
            {"O_CREAT"} if call.name == "creat" else set()
        )
        path = call.paths[0]
        if not flags & {"O_CREAT", "O_WRONLY", "O_RDWR"} or not self._is_promised(path):
            return
        if odd := flags & {"O_SYNC", "O_DSYNC", "O_APPEND", "O_TMPFILE"}:
            raise Blind(f"{path} opened with {odd}")
        inside = self._at[str(Path(path).parent)]
        if path not in self._at and isinstance(inside, Folder):
            self._at[path] = File(Path(path).name)
            inside.pending.append(Naming({Path(path).name: self._at[path]}, done=True))
            self._changed(inside)
        node = self._node(path)
        if isinstance(node, File):
            node.position = 0
            if "O_TRUNC" in flags or call.name == "creat":
                node.pending.append(Resize(0, done=True))
                self._changed(node)

    def _moved(self, call: Call) -> None:
        node = self._node(call.opened)
        if isinstance(node, File):
            node.position = call.result

    def _syncing(self, call: Call) -> None:
        everything = call.name in {"sync", "syncfs"}
        nodes = (
            list({id(n): n for n in self._at.values()}.values()) if everything else [self._node(call.opened)]
        )
        self._begun[call] = [(node, op) for node in nodes if node for op in node.pending if op.done]

    def _synced(self, call: Call) -> None:
        covered = self._begun.pop(call, [])
        if call.failed or not self._counts(call):
            return
        for node in {id(node): node for node, _ in covered}.values():
            node.sync([op for of, op in covered if of is node and op in node.pending])  # type: ignore[misc]
            self._changed(node)

    def _wondering(self, call: Call) -> None:
        if call.name == "mmap":
            is_written = "MAP_SHARED" in call.arguments and "PROT_WRITE" in call.arguments
            if not is_written or not self._is_promised(call.mapped):
                return
        raise Blind(str(call))


# --- moments ---------------------------------------------------------------------------------------------------------


class Answers:
    """The C-STORE responses that were handed to the sockets (PS3.7 9.3.1), by the peer's port and the message's id."""

    def __init__(self) -> None:
        self.successes: set[tuple[int, int]] = set()
        self._sent: dict[str, bytes] = {}

    def told(self, call: Call, returned: bool) -> None:
        if call.name not in SENDS or not call.opened.startswith("TCP:") or "->" not in call.opened:
            return
        sent = self._sent.get(call.opened, b"")
        if returned and not call.failed:
            self._sent[call.opened] = sent + call.data[: call.result]
        elif not returned:
            # it may reach the peer before the call returns
            port = int(call.opened.rpartition(":")[2].rstrip("]"))
            self.successes |= {(port, message) for message in _successes(sent + call.data)}


def _successes(stream: bytes) -> Iterator[int]:
    """The ids of the messages that are answered 0000, in a stream of PDUs of which each holds one command."""
    at = 0
    while len(stream) >= at + 6:
        length = int.from_bytes(stream[at + 2 : at + 6], "big")
        body = stream[at + 6 : at + 6 + length]
        if stream[at] == 4 and len(body) == length:
            values = {}
            element = 6
            while element < length:
                size = int.from_bytes(body[element + 4 : element + 8], "little")
                tag = int.from_bytes(body[element + 2 : element + 4], "little")
                values[tag] = int.from_bytes(body[element + 8 : element + 8 + size], "little")
                element += 8 + size
            if values[0x0100] == 0x8001 and values[0x0900] == 0:
                yield values[0x0120]
        at += 6 + length


@dataclass(frozen=True)
class Cut:
    """A power cut at one moment."""

    number: int
    # the call that had just begun or ended
    at: str
    # (peer's port, message id) of what had been answered 0000 by then
    acknowledged: frozenset[tuple[int, int]]
    disk: Disk
    # between two writes to one file: a moment much like its neighbours
    is_inner: bool = False

    def dropped(self) -> State:
        """Everything unsynced is lost."""
        return self.disk.state(lambda op: False, lambda file: file.synced)

    def kept(self) -> State:
        """Everything has reached the disk."""
        return self.disk.state(lambda op: True, File.kept)

    def states(self, seed: int, torn: int = 2) -> Iterator[tuple[str, State]]:
        """What may be found after it: the extremes, and so many states by chance. For use before the next cut."""
        state = self.disk.state

        def of_database(op: Naming) -> bool:
            return any(name.startswith("hilum.db") for name in op.names)

        yield "nothing unsynced", self.dropped()
        yield "everything", self.kept()
        yield "names without data", state(lambda op: True, lambda file: file.synced)
        yield "names with zeros", state(lambda op: True, File.zeroed)
        yield "data without names", state(lambda op: False, File.kept)
        yield "the database alone", state(of_database, lambda f: f.kept() if f.is_database else f.synced)
        yield (
            "all but the database",
            state(lambda op: not of_database(op), lambda f: f.synced if f.is_database else f.kept()),
        )
        for n in range(torn):
            luck = random.Random(f"{seed} {self.disk.version} {n}")
            share = luck.choice((0.0, 0.5, 0.9, 1.0))
            # luck's words are the walk's: a state is told by seed, version and n
            yield f"torn {seed}/{n}", state(lambda op: luck.random() < share, lambda f: f.torn(luck))  # noqa: B023


def cuts(
    logs: Iterable[Path], root: Path, counts: Callable[[Call], bool] = lambda call: True
) -> Iterator[Cut]:
    """Each moment of a trace at which a cut might leave something else, or something more had been promised.

    `counts(call)`: False for a sync that is to do nothing.
    """
    disk, answers = Disk(root, counts), Answers()
    before = (0, 0)
    moments = pairwise(chain(calls(logs, root), [(Call(0, "", ""), False)]))
    for number, ((call, returned), (following, _)) in enumerate(moments):
        disk.told(call, returned)
        answers.told(call, returned)
        now = (disk.version, len(answers.successes))
        if now != before:
            before = now
            inner = call.name in WRITES and following.name in WRITES and call.opened == following.opened
            yield Cut(number, str(call), frozenset(answers.successes), disk, inner)


def write(state: State, folder: Path) -> None:
    """Makes a new folder of a state."""
    folder.mkdir()
    for name, content in state.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content.data)
