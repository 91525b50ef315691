"""The slow campaign of forgeries: tests/storage/test_audit_verify.py, 10,000 of each kind.

Logs are written by four threads at once, sealed and anchored meanwhile; each forgery is made on a copy. Every one must
be found; in as many logs that nobody forged, gone on in every way that a node may, nothing.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import forgeries
from forgeries import FOUND_ALONE, FOUND_BY_ANCHORS, Log

LOGS = 12
CHUNK = 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/forge-audit")
    parser.add_argument("--times", type=int, default=10_000, metavar="N", help="of each kind")
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86_400, metavar="S")
    parser.add_argument("--processes", type=int, default=1, metavar="P")
    parser.add_argument("--only", default="", metavar="NAME", help="kinds whose name holds this")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}: {LOGS} logs are written", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        logs = [
            forgeries.unguarded(
                forgeries.written(
                    Path(folder) / str(number), chosen.seed * LOGS + number, expires=number % 3 == 0
                )
            )
            for number in range(LOGS)
        ]
    print(f"{'what was done':48} {'times':>7} {'missed':>7} {'ms each':>8}", flush=True)
    missed, nothing = 0, 0
    with ProcessPoolExecutor(chosen.processes) as pool:
        for name in NAMES:
            if chosen.only not in name:
                continue
            began = time.perf_counter()
            rounds = [
                (name, logs, chosen.seed, at, min(CHUNK, chosen.times - at))
                for at in range(0, chosen.times, CHUNK)
            ]
            found = list(pool.map(_round, rounds))
            wrong, void = (sum(each) for each in zip(*found, strict=True))
            each = (time.perf_counter() - began) / chosen.times * 1000 * chosen.processes
            print(f"{name.replace('_', ' '):48} {chosen.times - void:7,} {wrong:7,} {each:8.2f}", flush=True)
            missed, nothing = missed + wrong, nothing + void
    print(f"missed or wrongly found: {missed}; draws with nothing to forge: {nothing}")
    return 1 if missed else 0


def _round(asked: tuple[str, list[Log], int, int, int]) -> tuple[int, int]:
    """(how many were judged wrongly, in how many there was nothing to forge)."""
    name, logs, seed, first, times = asked
    chance = random.Random(f"{seed} {name} {first}")
    wrong = void = 0
    for number in range(first, first + times):
        held = KINDS[name](logs[number % len(logs)], chance)
        wrong += held is False
        void += held is None
    return wrong, void


def _found(forge: Callable[..., bool], log: Log, chance: random.Random) -> bool | None:
    told = forgeries.forged(log, forge, chance)
    return None if told is None else bool(told)


def _anchors_rewritten(log: Log, chance: random.Random) -> bool:
    return bool(forgeries.whoever_rewrites_the_anchors_too(log, chance))


def _appended(log: Log, chance: random.Random) -> bool:
    checked, told = forgeries.appended(log, chance)
    return checked.unsealed == 1 and not told


def _nothing_found(log: Log, chance: random.Random) -> bool:
    return not forgeries.unforged(log, chance)[1]


KINDS: dict[str, Callable[[Log, random.Random], bool | None]] = {
    **{forge.__name__: partial(_found, forge) for forge in (*FOUND_ALONE, *FOUND_BY_ANCHORS)},
    "rewrite_the_anchors_too": _anchors_rewritten,
    "append_a_record_(named_as_not_sealed)": _appended,
    "nothing_was_forged_(nothing_is_found)": _nothing_found,
}
NAMES = tuple(KINDS)


if __name__ == "__main__":
    sys.exit(main())
