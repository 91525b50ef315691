"""The errors of `node`, all of them, and what each means outside.

HilumError                  exit code
├── Misuse                  2   wrong usage or configuration: file, key, what is wrong, what would be right
├── BadEnvironment          3   port taken, folder not writable, disk full, another node runs here
├── NotHeld                 1   the thing asked for did not hold: a check failed, a result did not arrive
└── Refused                 -   an object that is not kept; carries the answer to C-STORE (PS3.4 B.2.3, PS3.7 C)
    ├── OutOfResources      A700  out of disk, sync or commit failed
    ├── NotAsAnnounced      A900  command and data set disagree on class or instance
    ├── CannotUnderstand    C000  damaged, unsafe UID, conflict
    └── ClassNotSupported   0122  the command's class is not its context's
"""


class HilumError(Exception):
    """What a person is told in one line; names no patient."""

    exit_code = 1


class NotHeld(HilumError):
    """A check failed, a result did not arrive."""

    exit_code = 1


class Misuse(HilumError):
    """Wrong usage or configuration."""

    exit_code = 2


class BadEnvironment(HilumError):
    """The machine, not the person: port taken, folder not writable, another node runs here."""

    exit_code = 3


class Refused(HilumError):
    """An object is not kept. `reason` goes into the audit log and, cut to 64 characters, into Error Comment."""

    status = 0xC000

    @property
    def reason(self) -> str:
        return str(self)


class OutOfResources(Refused):
    status = 0xA700


class NotAsAnnounced(Refused):
    status = 0xA900


class CannotUnderstand(Refused):
    status = 0xC000


class ClassNotSupported(Refused):
    status = 0x0122
