"""A synthetic frontal chest as a DX For Presentation data set: something to send where no X-ray may lie.

Geometry drawn by hand: thorax, lungs, ribs, clavicles, heart, spine, diaphragm, vessels. Everything adds up
as attenuation along the beam, as in a radiograph after the logarithm. It looks like a chest X-ray from two metres;
no network was trained on it, and a score that one gives it means nothing.

The same seed gives the same data set, pixel for pixel and UID for UID.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

SIDE = 1024
"""Rows and columns."""
SPACING = 0.4
"""Millimetres between pixels at the detector: a field of 41 cm."""
BITS = 12

Plane = NDArray[Any]


def draw(seed: int, *, patch: bool) -> Dataset:
    """A frontal chest, PA, of an invented adult; with `patch`, a dense area in the right lower zone.

    Explicit VR Little Endian, MONOCHROME2, 12 of 16 bits, with file meta: `save_as` writes a Part 10 file.
    """
    dataset = _header(f"{seed}{' with patch' if patch else ''}")
    dataset.PatientName = f"Phantom^Chest^{'Patch' if patch else 'Plain'} {seed}"
    dataset.PatientID = f"PHANTOM-{seed}{'-P' if patch else ''}"
    dataset.PatientSex = "O"
    dataset.PatientAge = "040Y"
    levels = np.rint(picture(seed, patch=patch) * (2**BITS - 1)).astype("<u2")
    dataset.PixelData = levels.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def picture(seed: int, *, patch: bool) -> Plane:
    """SIDE x SIDE from 0 (air, black) to 1 (bright): the drawing without its header."""
    rng = np.random.default_rng(seed)
    body = _Body(rng)
    attenuation = body.tissue() + body.bones() + body.vessels(rng) + (body.patch(rng) if patch else 0)
    attenuation = _blur(attenuation.astype(np.float32), 1.6)
    grain = _blur(rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32), 0.8)
    attenuation = attenuation + grain * (0.030 - 0.010 * np.clip(attenuation, 0, 1))
    shown = 1 / (1 + np.exp(-4.6 * (attenuation - 0.58)))
    shown = np.maximum(shown, body.marker())
    return np.clip((shown - 0.062) / 0.87, 0, 1).astype(np.float32)


class _Body:
    """One person's measures. x goes from -1 (the person's right, at the image's left) to 1, y from -1 (head) to 1."""

    def __init__(self, rng: np.random.Generator) -> None:
        axis = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1
        self.x, self.y = np.meshgrid(axis, axis)
        self.width = rng.uniform(0.66, 0.72)
        """Half the thorax's width inside the ribs."""
        self.base = rng.uniform(0.40, 0.50)
        """Height of the right dome of the diaphragm."""
        self.heart = rng.uniform(0.92, 1.06)
        self.tilt = rng.uniform(-0.03, 0.03)
        self.rib_gap = rng.uniform(0.128, 0.138)
        self.x = self.x - self.tilt * self.y
        self.lung = self._lungs()

    def tissue(self) -> Plane:
        """Everything soft: the trunk, less the air in it, and the organs between the lungs."""
        x, y = self.x, self.y
        neck, trunk = 0.25, 0.90 + 0.03 * np.sin(3 * y)
        shoulders = _step(y + 0.84 - 0.16 * np.abs(x), 0.08)
        half = neck + (trunk - neck) * shoulders + 0.35 * _bump(y + 0.62, 0.22)
        trunk_depth = np.sqrt(np.clip(1 - (x / half) ** 2, 0, 1)) ** 0.7
        belly = 0.16 * _step(y - 0.35, 0.25)
        flesh = trunk_depth * (0.80 + belly)

        middle = np.maximum(self._heart(), self._mediastinum())
        air = 0.52 * self.lung * (1 - 0.82 * middle)
        windpipe = _step(0.036 - np.abs(x - 0.005), 0.008) * _step(-0.27 - y, 0.02) * 0.13
        stomach = 0.14 * _step(1 - np.hypot((x - 0.36) / 0.15, (y - self.base - 0.12) / 0.07), 0.12)
        fold = 0.05 * _bump(np.abs(x) - half + 0.09, 0.05) * _step(y - 0.0, 0.2)
        return np.asarray(flesh - air - windpipe - stomach + fold + 0.05 * middle * trunk_depth, np.float32)

    def bones(self) -> Plane:
        x, y = self.x, self.y
        out = np.zeros_like(x)
        beside = np.abs(x)
        reach = self._outline(y) + 0.03
        u = np.clip((beside - 0.06) / np.maximum(reach - 0.06, 0.05), 0, 1.2)
        inside = _step(reach - beside, 0.012) * _step(beside - 0.06, 0.02)
        fade = 1 - 0.75 * _step(y - self.base - 0.02, 0.06)
        for n in range(11):
            start = -0.80 + self.rib_gap * n
            back = start - 0.045 * np.sin(np.pi * np.clip(u * 1.25, 0, 1)) + (0.13 + 0.012 * n) * u**2.6
            out += 0.125 * _tube(y - back, 0.025) * inside * fade * _step(y + 0.80, 0.02)
            if 1 <= n <= 7:
                front = start + 0.30 + (0.17 + 0.01 * n) * np.clip(1 - u, 0, 1) ** 1.3 - 0.02
                cartilage = _step(u - 0.40, 0.10)
                out += 0.065 * _tube(y - front, 0.028) * inside * cartilage * fade
        run = np.clip((beside - 0.07) / 0.62, 0, 1)
        collar = -0.56 - 0.13 * run - 0.030 * np.sin(2 * np.pi * run)
        ends = _step(beside - 0.075, 0.012) * _step(0.72 - beside, 0.03)
        out += 0.20 * _tube(y - collar, 0.027 + 0.006 * (1 - run)) * ends
        blade = np.abs(beside - (0.72 + 0.10 * (y + 0.30))) / 0.030
        out += 0.08 * np.exp(-(blade**2)) * _step(y + 0.68, 0.05) * _step(-0.02 - y, 0.08)
        out += (
            0.05
            * _step(beside - 0.70 - 0.10 * (y + 0.30), 0.02)
            * _step(y + 0.70, 0.05)
            * _step(-0.05 - y, 0.1)
        )
        out += 0.12 * _step(1 - np.hypot((beside - 0.90) / 0.085, (y + 0.60) / 0.10), 0.2)
        out += self._spine()
        return np.asarray(out, np.float32)

    def vessels(self, rng: np.random.Generator) -> Plane:
        """Branches from both hila, thinner and fainter towards the rim; and the hila themselves."""
        sheet = Image.new("F", (SIDE, SIDE))
        pen = ImageDraw.Draw(sheet)

        def branch(x: float, y: float, angle: float, width: float) -> None:
            while width > 0.9:
                length = rng.uniform(16, 30)
                x2, y2 = x + length * np.cos(angle), y + length * np.sin(angle)
                pen.line((x, y, x2, y2), fill=0.025 + 0.016 * width, width=max(1, round(width)))
                x, y, width = x2, y2, width * rng.uniform(0.80, 0.92)
                angle += rng.normal(0, 0.16)
                if rng.random() < 0.55:
                    branch(x, y, angle + rng.choice((-1, 1)) * rng.uniform(0.35, 0.8), width * 0.72)

        for side in (-1, 1):
            for spread in np.linspace(-1.15, 1.25, 9):
                angle = (0 if side > 0 else np.pi) + side * (spread + rng.normal(0, 0.08))
                branch(SIDE / 2 * (1 + side * 0.17), SIDE * 0.46, angle, rng.uniform(6, 10))
        hila = sum(
            0.14 * np.exp(-(((self.x - s * 0.165) / 0.050) ** 2) - ((self.y + 0.05) / 0.13) ** 2)
            for s in (-1, 1)
        )
        lines = _blur(np.asarray(sheet, np.float32), 1.6)
        return np.asarray(
            (lines + hila) * np.clip(1.4 * self.lung, 0, 1) * (1 - 0.8 * self._heart()), np.float32
        )

    def patch(self, rng: np.random.Generator) -> Plane:
        """Airspace that holds no air: cloudy, with soft borders, in the lower zone of the person's right lung."""
        clouds = _blur(rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32), 22)
        clouds = clouds / (np.abs(clouds).max() + 1e-6)
        far = np.hypot((self.x + 0.40) / 0.21, (self.y - self.base + 0.27) / 0.19)
        dense = np.clip(1.15 - far**2 + 0.9 * clouds, 0, 1)
        return np.asarray(0.34 * dense * np.clip(1.3 * self.lung, 0, 1), np.float32)

    def marker(self) -> Plane:
        """A lead letter L at the person's left shoulder."""
        sheet = Image.new("F", (SIDE, SIDE))
        pen = ImageDraw.Draw(sheet)
        pen.rectangle((950, 64, 957, 100), fill=1.0)
        pen.rectangle((950, 93, 974, 100), fill=1.0)
        return _blur(np.asarray(sheet, np.float32), 0.8)

    def _outline(self, y: Plane) -> Plane:
        """Half the inner width of the thorax at height y: narrow at the apex, widest above the diaphragm."""
        down = np.clip((y + 0.82) / 1.36, 0, 1)
        return np.asarray(self.width * np.sin(np.pi / 2 * np.clip(down * 1.18, 0, 1)) ** 0.52, np.float32)

    def _lungs(self) -> Plane:
        """How much of the beam's way goes through air, 0 to 1."""
        x, y = self.x, self.y
        beside = np.abs(x)
        rim = self._outline(y)
        left = x > 0
        dome = np.where(left, self.base + 0.05, self.base)
        floor = dome + 1.15 * np.clip(beside - 0.36, 0, 1) ** 1.7 + 0.5 * np.clip(0.36 - beside, 0, 1) ** 2
        inner = np.where(left, 0.08, 0.09)
        across = np.clip((rim - beside) / np.maximum(rim - inner, 0.05), 0, 1)
        depth = np.sqrt(np.clip(1 - (1 - across) ** 2.4, 0, 1)) * _step(beside - inner, 0.02)
        top = np.clip((y + 0.82) / 0.30, 0, 1) ** 0.6
        return np.asarray(depth * top * _step(floor - y, 0.007), np.float32)

    def _heart(self) -> Plane:
        x, y, s = self.x, self.y, self.heart
        turn = 0.50
        dx, dy = x - 0.115, y - (self.base - 0.13)
        along, across = dx * np.cos(turn) + dy * np.sin(turn), -dx * np.sin(turn) + dy * np.cos(turn)
        chambers = _step(1 - np.hypot(along / (0.335 * s), across / (0.235 * s)), 0.06)
        atrium = _step(1 - np.hypot((x + 0.055) / (0.150 * s), (y - self.base + 0.17) / 0.25), 0.06)
        return np.asarray(np.maximum(chambers, atrium), np.float32)

    def _mediastinum(self) -> Plane:
        x, y = self.x, self.y
        flare = 0.035 * _step(-0.45 - y, 0.25) + 0.05 * _step(y - 0.10, 0.5)
        band = _step(0.088 + flare - np.abs(x - 0.005), 0.03)
        knob = _step(1 - np.hypot((x - 0.100) / 0.070, (y + 0.33) / 0.080), 0.12)
        trunk = _step(1 - np.hypot((x - 0.07) / 0.100, (y + 0.10) / 0.22), 0.16)
        return np.asarray(np.maximum(np.maximum(band, knob), trunk), np.float32)

    def _spine(self) -> Plane:
        x, y = self.x, self.y
        column = _step(0.075 - np.abs(x), 0.015)
        discs = 0.5 + 0.5 * np.cos(2 * np.pi * y / 0.118)
        pedicles = sum(np.exp(-(((x - s * 0.045) / 0.014) ** 2)) for s in (-1, 1)) * (1 - discs) ** 2
        spines = np.exp(-((x / 0.010) ** 2)) * discs**2
        return np.asarray(
            column * (0.055 - 0.030 * discs**3) + 0.030 * column * (pedicles + spines), np.float32
        )


def _step(v: Any, soft: float) -> Any:
    """0 where v is negative, 1 where it is positive, an even slope of width `soft` between."""
    return 1 / (1 + np.exp(np.clip(-4 * v / soft, -50, 50)))


def _bump(v: Any, wide: float) -> Any:
    return np.exp(-((v / wide) ** 2))


def _tube(distance: Any, radius: Any) -> Any:
    """A hollow bone across the beam: bright rims, paler marrow."""
    r = np.abs(distance) / radius
    return np.sqrt(np.clip(1 - r**2, 0, 1)) - 0.62 * np.sqrt(np.clip(0.64 - r**2, 0, 1))


def _blur(plane: Plane, radius: float) -> Plane:
    """Gaussian, in floats: Pillow's filter knows 8 bits only, so rows and columns are convolved here."""
    reach = int(3 * radius + 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for _ in range(2):
        padded = np.pad(plane, ((reach, reach), (0, 0)), mode="reflect")
        plane = sum(w * padded[i : i + plane.shape[0]] for i, w in enumerate(kernel)).T
    return np.ascontiguousarray(plane, np.float32)


def _header(of: str) -> Dataset:
    """All that a DX image must say (PS3.3 A.26), except the patient and the pixels."""

    def uid(what: str) -> UID:
        digest = hashlib.sha256(f"hilum phantom {of} {what}".encode()).digest()
        return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")

    def code(value: str, scheme: str, meaning: str) -> Dataset:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        return item

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    ds.file_meta.MediaStorageSOPInstanceUID = uid("instance")
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = uid("instance")
    ds.StudyInstanceUID = uid("study")
    ds.SeriesInstanceUID = uid("series")

    ds.PatientBirthDate = ""
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20000101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.AccessionNumber = ""
    ds.ReferringPhysicianName = ""
    ds.StudyID = "1"
    ds.StudyDescription = "Synthetic phantom, not a patient"
    ds.SeriesDescription = "Chest PA, drawn"
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.Manufacturer = "Phantom"
    ds.ManufacturerModelName = "Drawn chest"
    ds.SoftwareVersions = "1"
    ds.DeviceSerialNumber = "1"
    ds.BodyPartExamined = "CHEST"
    ds.ImageLaterality = "U"
    ds.AnatomicRegionSequence = [code("51185008", "SCT", "Chest")]
    ds.ViewPosition = "PA"
    view = code("272479007", "SCT", "postero-anterior")
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]
    ds.PatientOrientation = ["L", "F"]
    ds.PositionerType = ""
    ds.DetectorType = "DIRECT"
    ds.ImagerPixelSpacing = [SPACING, SPACING]
    ds.AcquisitionContextSequence = []

    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = ds.Columns = SIDE
    ds.BitsAllocated = 16
    ds.BitsStored = BITS
    ds.HighBit = BITS - 1
    ds.PixelRepresentation = 0
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = -1
    ds.RescaleIntercept = 0
    ds.RescaleSlope = 1
    ds.RescaleType = "US"
    ds.PresentationLUTShape = "IDENTITY"
    ds.WindowCenter = 2**BITS / 2
    ds.WindowWidth = 2**BITS
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "NO"
    return ds
