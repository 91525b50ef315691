"""Options that several benchmarks share, and what their words mean."""

import argparse
import re
from pathlib import Path

QUICK_ROUNDS = 3
QUICK_SECONDS = 8.0
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def size(text: str) -> int:
    """1KB, 10MB: bytes."""
    match = re.fullmatch(r"(\d+)\s*([KMG]?B)", text.upper())
    if not match:
        raise argparse.ArgumentTypeError("a size is like 1KB, 10MB")
    return int(match[1]) * _UNITS[match[2]]


def sizes(text: str) -> list[int]:
    return [size(one) for one in text.split(",")]


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def words(text: str) -> list[str]:
    return text.split(",")


def of_bytes(count: int) -> str:
    """1 KB, 10 MB."""
    for unit in ("GB", "MB", "KB"):
        if count >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:g} {unit}"
    return f"{count} B"


def add_shared(parser: argparse.ArgumentParser, rounds: int) -> None:
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N")
    parser.add_argument("--engine", type=words, default=[""], metavar="hilum,pynetdicom",
                        help="[receive] engine; several give a row each; left out: the default")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="3 rounds of few images: a look, no measurement")
    parser.add_argument(
        "--max-seconds", type=float, default=60.0, metavar="S", help="a row in a round at most"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="whose disk is measured; default: the temporary folder's"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures of every round")


def rounds(chosen: argparse.Namespace) -> int:
    return min(chosen.rounds, QUICK_ROUNDS) if chosen.quick else int(chosen.rounds)


def seconds(chosen: argparse.Namespace) -> float:
    """How long a row may take in a round; what was not sent by then is said."""
    return min(chosen.max_seconds, QUICK_SECONDS) if chosen.quick else float(chosen.max_seconds)
