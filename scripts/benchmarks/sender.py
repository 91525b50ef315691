"""A process that sends images as fast as they are taken: `python -m scripts.benchmarks.sender`, a plan on stdin.

Everything is framed before it says `ready`; the clock begins with the line that lets it go. One process a sender:
threads would fight for one interpreter, and what is measured would be the sender.
"""

import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

from scripts.benchmarks.association import MAX_PDU, Association, Lost, Rejected
from scripts.benchmarks.image import Message

REJECTED_PAUSE = 0.05


@dataclass(frozen=True)
class Plan:
    """What one sender does. `others`: further storage classes to propose. `per_association` 0: all in one.

    `late`: associate after the start, for nodes that serve one association after the other.
    """

    port: int
    called: str
    size: int
    count: int
    run: str
    sender: int = 0
    others: tuple[str, ...] = ()
    per_association: int = 0
    late: bool = False
    max_seconds: float = 60.0
    timeout: float = 60.0


@dataclass
class Outcome:
    """Seconds of the monotonic clock. `acknowledged`: the numbers of the images that were answered 0000 or Bxxx."""

    began: float = 0.0
    ended: float = 0.0
    acknowledged: list[int] = field(default_factory=list)
    # from the first byte to the answer, and from the last byte to the answer
    whole: list[float] = field(default_factory=list)
    tail: list[float] = field(default_factory=list)
    associate: list[float] = field(default_factory=list)
    troubles: dict[str, int] = field(default_factory=dict)


class Sender:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._outcome = Outcome()
        self._troubles: Counter[str] = Counter()
        self._association: Association | None = None
        self._message: Message | None = None
        self._max_pdu = 0

    def prepare(self) -> None:
        """What must not be on the clock."""
        plan = self._plan
        if plan.late:
            self._frame(MAX_PDU)
            return
        self._association = self._open(time.monotonic() + plan.timeout)
        if plan.per_association:
            # it was opened to learn how long a PDU may be
            self._association.release()
            self._association = None
        self._outcome.associate.clear()

    def run(self) -> Outcome:
        plan, outcome = self._plan, self._outcome
        outcome.began = time.monotonic()
        until, on_this = outcome.began + plan.max_seconds, 0
        for number in range(plan.count):
            if time.monotonic() > until:
                self._troubles["not sent: time is up"] += plan.count - number
                break
            try:
                if self._association is None:
                    self._association, on_this = self._open(until), 0
                self._send(number, self._association)
                on_this += 1
                if on_this == plan.per_association:
                    self._association.release()
                    self._association = None
            except (OSError, Lost, Rejected) as e:
                self._troubles[f"{type(e).__name__}: {e}"] += 1
                if self._association:
                    self._association.socket.close()
                self._association = None
        outcome.ended = time.monotonic()
        if self._association:
            self._association.release()
        outcome.troubles = dict(self._troubles)
        return outcome

    def _open(self, until: float) -> Association:
        """A node that is full is asked again."""
        plan = self._plan
        while True:
            began = time.monotonic()
            try:
                opened = Association(plan.port, plan.called, plan.others, plan.timeout)
            except Rejected as e:
                self._troubles[str(e)] += 1
                if time.monotonic() > until:
                    raise
                time.sleep(REJECTED_PAUSE)
                continue
            self._outcome.associate.append(time.monotonic() - began)
            self._frame(opened.max_pdu)
            return opened

    def _frame(self, max_pdu: int) -> None:
        if max_pdu != self._max_pdu:
            self._message = Message(self._plan.size, self._plan.run, self._plan.sender, max_pdu=max_pdu)
            self._max_pdu = max_pdu

    def _send(self, number: int, association: Association) -> None:
        assert self._message
        self._message.be(number)
        began = time.monotonic()
        association.socket.sendall(self._message.bytes)
        sent = time.monotonic()
        status = association.status()
        answered = time.monotonic()
        if status == 0 or status & 0xF000 == 0xB000:
            self._outcome.acknowledged.append(number)
            self._outcome.whole.append(answered - began)
            self._outcome.tail.append(answered - sent)
        else:
            self._troubles[f"status {status:04X}"] += 1


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    sender = Sender(Plan(**{**plan, "others": tuple(plan["others"])}))
    try:
        sender.prepare()
    except (OSError, Lost, Rejected) as e:
        sys.exit(f"bench: the sender can't associate: {e}")
    print("ready", flush=True)
    if sys.stdin.readline():
        print(json.dumps(asdict(sender.run())), flush=True)


if __name__ == "__main__":
    main()
