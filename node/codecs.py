"""Do the decoders work on this machine? Each decodes a tiny drawn gradient, encoded in advance.

The streams were made by DCMTK (JPEG), CharLS (JPEG-LS), OpenJPEG (JPEG 2000) and pydicom (RLE). No encoder of HTJ2K is
at hand: there it is asked whether the OpenJPEG library is new enough to know it.
"""

import base64
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from model.errors import Undecodable
from model.streams import DECODERS, Layout

# the first OpenJPEG that decodes HTJ2K (ISO/IEC 15444-15)
HTJ2K_SINCE = (2, 5)


@dataclass(frozen=True)
class Sample:
    """A square gradient of `side` pixels and `bits` bits; `off` is what a lossy codec may be wrong by."""

    family: str
    syntax: str
    side: int
    bits: int
    off: int
    stream: str

    @property
    def expected(self) -> np.ndarray:
        ramp = np.arange(self.side)
        return np.add.outer(ramp, ramp) * ((2**self.bits - 1) // (2 * self.side - 2))


SAMPLES = (
    Sample(
        "RLE",
        "1.2.840.10008.1.2.5",
        8,
        12,
        0,
        "AgAAAEAAAACIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAcAAQIDBAUG"
        "BwcBAgMEBQYHCQcCAwQFBgcJCgcDBAUGBwkKCwcEBQYHCQoLDAcFBgcJCgsMDQcGBwkKCwwNDgcHCQoLDA0ODwcAJEhskLTY"
        "/AckSGyQtNj8IAdIbJC02PwgRAdskLTY/CBEaAeQtNj8IERojAe02PwgRGiMsAfY/CBEaIyw1Af8IERojLDU+A==",
    ),
    Sample(
        "JPEG Baseline",
        "1.2.840.10008.1.2.4.50",
        8,
        8,
        2,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQ"
        "ERMUFRUVDA8XGBYUGBIUFRT/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAA//EABkQAAEFAAAAAAAAAAAAAAAA"
        "AAgAJDRCUf/aAAgBAQAAPwAhbFuI0yq//9k=",
    ),
    Sample(
        "JPEG Extended",
        "1.2.840.10008.1.2.4.51",
        8,
        12,
        2,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQ"
        "ERMUFRUVDA8XGBYUGBIUFRT/wQALDAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABP/EABsQAAEEAwAAAAAAAAAAAAAA"
        "AAwAKDhGVWJz/9oACAEBAAA/ACCzQs3EVouKr3PRf///2Q==",
    ),
    Sample(
        "JPEG Lossless",
        "1.2.840.10008.1.2.4.57",
        8,
        12,
        0,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALEAAIAAgBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAACAkQ/9oACAEBAAYAANSSklJK"
        "SUkpJSSkiSSSSSSSSSSpIkkkkkkkkkkqSJJJJJJJJJJKkiSSSSSSSSSSpIkkkkkkkkkkqSJJJJJJJJJJKkiSSSSSSSSSS//Z",
    ),
    Sample(
        "JPEG-LS",
        "1.2.840.10008.1.2.4.80",
        8,
        12,
        0,
        "/9j/9wALDAAIAAgBAREA/9oACAEBAAAAAIARwBHKKUMoJPyegCQAJBRiiFCKAT4ASEeI6RwjZGiMkYFGRcixFSKETIkREURE"
        "CHkOIaQwhZChQkJIQQcgxBSCEDFAQIgJAH/f5/X8E+/b9Py/D7vs+pHg/9k=",
    ),
    Sample(
        "JPEG 2000",
        "1.2.840.10008.1.2.4.90",
        32,
        12,
        0,
        "/0//UQApAAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAABCwEB/1IADAAAAAEABQQEAAH/XAATQGBoaHBoaHBo"
        "aHBoaHBoaHD/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjL/kAAKAAAAAAB7AAH/k8fsBAhtx/IFH8gQ"
        "BEYERsP2BIfsCA0CEgMLPYsBwfmDwfmDgCIaCF2OvX8Df91RoR3fwPwC4H4BYDahma5jo0eMdBF/PaY0WxDcWISzuY/AfaGQ"
        "H2hYX6fHiLqXxAAAwEM/nawpQQdtCADBZjn/2Q==",
    ),
)


def faults() -> dict[str, str]:
    """Codec family -> what is wrong with its decoder; empty where it works."""
    found = {}
    for sample in SAMPLES:
        with _quiet():
            found[sample.family] = _fault(sample)
    found["HTJ2K"] = _htj2k_fault()
    return found


def _fault(sample: Sample) -> str:
    layout = Layout(
        rows=sample.side,
        columns=sample.side,
        allocated=8 if sample.bits == 8 else 16,
        stored=sample.bits,
        high_bit=sample.bits - 1,
        signed=False,
    )
    try:
        decoded = DECODERS[sample.syntax](base64.b64decode(sample.stream), layout)
    except (ImportError, Undecodable) as e:
        return str(e)
    wrong = int(np.abs(decoded.astype(np.int64) - sample.expected).max())
    return "" if wrong <= sample.off else f"a known picture is decoded wrong, by up to {wrong}"


def _htj2k_fault() -> str:
    try:
        from openjpeg.utils import get_openjpeg_version
    except ImportError as e:
        return str(e)
    version = get_openjpeg_version()
    return "" if version >= HTJ2K_SINCE else f"OpenJPEG {version} does not know it"


@contextmanager
def _quiet() -> Iterator[None]:
    """gdcm first tries 8 bits and complains on the process's stderr before it takes 12."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
