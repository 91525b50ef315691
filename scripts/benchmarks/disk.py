"""The disk reference: threads that write, fsync, rename and fsync the folder, the same bytes as the nodes get."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.benchmarks.image import data_set, file, new_run, uids


def write(folder: Path, size: int, count: int, threads: int) -> tuple[float, float]:
    """Seconds, and CPU seconds, until `count` files of about `size` bytes last."""
    run = new_run()
    identity = uids(run, 0, 0)
    data = file(data_set(size, run, identity), identity[0])
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(time.sleep, [0.01] * threads))  # all threads are there
        cpu, began = time.process_time(), time.monotonic()
        list(pool.map(lambda number: _write(folder, number, data), range(count)))
        return time.monotonic() - began, time.process_time() - cpu


def _write(folder: Path, number: int, data: bytes) -> None:
    final, temporary = f"{folder}/{number:08d}.dcm", f"{folder}/{number:08d}.part"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
    os.fsync(fd)
    os.close(fd)
    os.rename(temporary, final)  # noqa: PTH104
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(at)
    os.close(at)
