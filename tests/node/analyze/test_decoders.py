"""One image that hangs, dies or wants too much memory costs itself only."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID

from model.card import Card
from model.pixels import prepare, read, wrap
from model.scope import Policy
from node.analyze.decoder import room
from node.analyze.decoders import Decoders, Failed, Ready, Skipped

CARD = Card(
    name="test", version="1", intended_use="triage", limits="", folder=Path(), weights="w", sha256="",
    architecture="vgg16", pools=(), size=224, fit="stretch", scale=255.0, mean=(103.939, 116.779, 123.68),
    labels=(), display={}, thresholds={}, rule="",
)  # fmt: skip
MEGABYTE = 1_000_000


def draw(path: Path, side: int = 200) -> Path:
    ramp = np.tile(np.linspace(0, 255, side).astype(np.uint8), (side, 1))
    Pillow.fromarray(ramp).save(path)
    return path


def deflated(path: Path, rows: int, columns: int) -> Path:
    """A whole deflated chest radiograph of 16-bit zeros: a few kilobytes that ask for much memory."""
    dataset = wrap(draw(path.with_suffix(".png")))
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelData = bytes(rows * columns * 2)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = UID("2.25.1")
    file, body = DicomBytesIO(), DicomBytesIO()
    file.write(bytes(128) + b"DICM")
    write_file_meta_info(file, dataset.file_meta)
    body.is_little_endian, body.is_implicit_VR = True, False
    write_dataset(body, dataset)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    path.write_bytes(file.getvalue() + squeeze.compress(body.getvalue()) + squeeze.flush())
    return path


@pytest.fixture(scope="module")
def pool() -> Iterator[Decoders]:
    with Decoders(2, 1500 * MEGABYTE, 30, Policy(), (CARD,)) as decoders:
        yield decoders


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_answers_come_in_the_order_of_the_paths(pool: Decoders, tmp_path: Path) -> None:
    picture, text = draw(tmp_path / "a.png"), tmp_path / "b.dcm"
    text.write_text("not an image at all\n" * 20)
    answers = pool.examine([picture, text, tmp_path / "absent.dcm", picture], view="AP", age=50)
    kinds = [getattr(answer, "kind", type(answer).__name__) for answer in answers]
    assert kinds == ["Ready", "unreadable", "io", "Ready"]
    first = answers[0]
    assert isinstance(first, Ready)
    assert first.inputs[0].shape == (224, 224, 3) and first.picture.shape == (200, 200)
    assert (first.picture[0, 0], first.picture[0, -1]) == (0, 255)
    assert (first.header.ViewPosition, first.header.PatientAge) == ("AP", "050Y")
    assert "PixelData" not in first.header and len(pickle.dumps(first.header)) < 20_000


def test_each_card_gets_its_own_input_and_what_two_see_alike_is_prepared_once(tmp_path: Path) -> None:
    small = dataclasses.replace(CARD, size=64, channels=1, mean=(0.0, 0.0, 0.0), scale=1.0)
    alike = dataclasses.replace(CARD, name="another", thresholds={})
    picture = draw(tmp_path / "a.png")
    with Decoders(1, 1500 * MEGABYTE, 30, Policy(), (CARD, small, alike)) as pool:
        (ready,) = pool.examine([picture])
        assert isinstance(ready, Ready)
        (expected,) = pool.examine([picture])
    first, second, third = ready.inputs
    image = read(wrap(picture, view="PA", age=40))
    assert np.array_equal(first, prepare(image, CARD)) and third is first
    assert np.array_equal(second, prepare(image, small)) and second.shape == (64, 64, 1)
    assert isinstance(expected, Ready) and expected.picture.tobytes() == ready.picture.tobytes()
    assert room((CARD, small, alike)) == room((CARD, small))


def test_view_and_age_of_a_picture_are_judged_too(pool: Decoders, tmp_path: Path) -> None:
    assert isinstance(pool.examine([draw(tmp_path / "child.png")], age=7)[0], Skipped)


@pytest.mark.corpus
def test_headers_that_come_out_are_small_whatever_came_in(pool: Decoders, corpus: Path) -> None:
    files = sorted((corpus / "corpus" / "header").glob("*.dcm")) + sorted(
        (corpus / "corpus/broken").glob("nested*")
    )
    answers = pool.examine(files)
    assert {getattr(a, "kind", None) for a in answers} <= {None, "unreadable"}
    ready = [answer for answer in answers if isinstance(answer, Ready)]
    assert len(ready) > 100
    assert max(len(pickle.dumps(answer.header)) for answer in ready) < 50_000


def test_a_decoder_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png")
    with Decoders(1, 1500 * MEGABYTE, 1.5, Policy(), (CARD,)) as pool:
        assert isinstance(pool.examine([picture])[0], Ready)
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        hung, next_one = pool.examine([picture, picture])
        assert isinstance(hung, Failed) and hung.kind == "timeout"
        assert isinstance(next_one, Ready)
        assert time.monotonic() - started < 15
        assert gone(pid) and pool.pids != [pid]


def test_a_decoder_that_is_killed_at_work_costs_its_own_image_only(tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png")
    with Decoders(1, 1500 * MEGABYTE, 30, Policy(), (CARD,)) as pool:
        pool.examine([picture])
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)  # so that it surely is at work when the signal comes
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        killer.start()
        dead, next_one = pool.examine([picture, picture])
        killer.join()
        assert dead == Failed("The decoder died (SIGKILL)", "died")
        assert isinstance(next_one, Ready)


def test_a_decoder_that_died_between_images_costs_none(tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png")
    with Decoders(1, 1500 * MEGABYTE, 30, Policy(), (CARD,)) as pool:
        pool.examine([picture])
        os.kill(pool.pids[0], signal.SIGKILL)
        assert gone(pool.pids[0])
        assert isinstance(pool.examine([picture])[0], Ready)


def test_an_image_that_wants_too_much_memory_fails_alone(tmp_path: Path) -> None:
    big, picture = deflated(tmp_path / "big.dcm", 7000, 7000), draw(tmp_path / "a.png")
    assert big.stat().st_size < MEGABYTE
    with Decoders(1, 150 * MEGABYTE, 30, Policy(), (CARD,)) as pool:
        greedy, next_one = pool.examine([big, picture])
        assert isinstance(greedy, Failed) and greedy.kind == "memory"
        assert isinstance(next_one, Ready)


def test_decoders_know_no_tensorflow_and_leave_nothing_behind(tmp_path: Path) -> None:
    with Decoders(1, 1500 * MEGABYTE, 30, Policy(), (CARD,)) as pool:
        assert isinstance(pool.examine([draw(tmp_path / "a.png")])[0], Ready)
        (pid,) = pool.pids
        assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()
    assert not Path(f"/proc/{pid}").exists()


def test_decoders_die_with_their_parent(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "import sys\nsys.path.insert(0, sys.argv[1])\n"
        "from test_decoders import CARD, Decoders, Policy\nimport time\n"
        "pool = Decoders(2, 1500_000_000, 30, Policy(), (CARD,))\n"
        "print(*pool.pids, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, program, Path(__file__).parent], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2 and all(gone(pid) for pid in pids)
