"""The picture that comes out of a data set is the one that a radiologist would look at."""

import csv
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from model import card
from model.decode import _stream, pixel_element, read_layout, stored_values
from model.errors import ModelError, Undecodable, Unreadable
from model.header import quietly
from model.pixels import Image, open_dataset, prepare, read, stored_points, to_uint8, wrap
from model.streams import Claim, _gdcm, _jpeg_lossless

CARD = replace(card.load(card.SHIPPED), size=224, scale=255.0, mean=(103.939, 116.779, 123.68))
RAMP = np.tile(np.arange(256, dtype=np.uint8), (120, 1))


def radiograph(values: np.ndarray = RAMP, **changes: Any) -> Dataset:
    """A small CR with these stored values."""
    dataset = Dataset()
    dataset.file_meta = cast(Any, Dataset())
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = values.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    with quietly():
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
    return dataset


def levels(source: Path | Dataset) -> np.ndarray:
    dataset = source if isinstance(source, Dataset) else open_dataset(source)
    return np.rint(read(dataset).pixels * 255).astype(int)


def notes(corpus: Path) -> dict[str, str]:
    with (corpus / "index.csv").open(encoding="utf-8", newline="") as table:
        return {row["file"]: row["note"] for row in csv.DictReader(table)}


@pytest.mark.corpus
def test_files_that_must_look_alike_differ_by_three_levels_at_most(corpus: Path) -> None:
    same = [file for file, note in notes(corpus).items() if "must look like pixels/mono2_08.dcm" in note]
    assert len(same) > 25
    reference = levels(corpus / "corpus/pixels/mono2_08.dcm")
    far = {file: int(np.abs(levels(corpus / "corpus" / file) - reference).max()) for file in same}
    assert {file: d for file, d in far.items() if d > 3} == {}


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name", ["upside_down", "mirrored_by_orientation", "slope_zero", "allocated_32_stored_16"]
)
def test_pictures_are_turned_upright(corpus: Path, name: str) -> None:
    reference = levels(corpus / "corpus/pixels/mono2_08.dcm")
    assert np.abs(levels(corpus / f"corpus/pixels/{name}.dcm") - reference).max() <= 3


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["aspect_ratio_2_to_1", "pixel_spacing_not_square"])
def test_pixels_that_are_not_square_are_stretched(corpus: Path, name: str) -> None:
    picture = read(open_dataset(corpus / f"corpus/pixels/{name}.dcm")).pixels
    assert picture.shape == (512, 512)
    small = np.asarray(Pillow.fromarray(picture).resize((256, 256), Pillow.Resampling.BILINEAR)) * 255
    assert np.abs(small - levels(corpus / "corpus/pixels/mono2_08.dcm")).mean() < 4


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(st.integers(12, 60), st.integers(12, 60)),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    lies=st.sampled_from(
        [None, "L\\F", "R\\F", "L\\H", "R\\H", "F\\L", "F\\R", "H\\L", "H\\R", "A\\F", "nonsense"]
    ),
    spacing=st.sampled_from([None, [0.2, 0.2], [0.3, 0.1], [0.1, 0.2], [0.9, 0.1]]),
)
def test_what_is_seen_in_the_picture_is_found_again_in_the_stored_pixels(
    shape: tuple[int, int], at: tuple[float, float], lies: str | None, spacing: list[float] | None
) -> None:
    row, column = (round(share * (side - 3)) for share, side in zip(at, shape, strict=True))
    values = np.zeros(shape, np.uint8)
    values[row : row + 3, column : column + 3] = 255
    given_ = {"PatientOrientation": lies, "ImagerPixelSpacing": spacing}
    dataset = radiograph(values, **{k: v for k, v in given_.items() if v})

    picture = read(dataset).pixels
    y, x = ((np.indices(picture.shape) + 0.5) * picture).sum(axis=(1, 2)) / picture.sum()
    [found] = stored_points(dataset, [(x / picture.shape[1], y / picture.shape[0])])

    assert found == pytest.approx((column + 1.5, row + 1.5), abs=0.35)


def test_the_corners_of_the_picture_are_the_corners_of_the_stored_pixels() -> None:
    corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    assert stored_points(radiograph(), corners) == [(0, 0), (256, 0), (256, 120), (0, 120)]
    on_its_side = radiograph(PatientOrientation=["F", "R"])
    assert stored_points(on_its_side, corners) == [(0, 120), (0, 0), (256, 0), (256, 120)]
    with pytest.raises(Undecodable):
        stored_points(Dataset(), corners)


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name", ["none", "width_zero", "width_one", "negative_width", "text_garbage", "outside_range"]
)
def test_a_useless_window_gives_least_to_greatest(corpus: Path, name: str) -> None:
    picture = levels(corpus / f"corpus/pixels/window_{name}.dcm")
    assert (picture.min(), picture.max()) == (0, 255)
    assert np.abs(picture - levels(corpus / "corpus/pixels/mono2_08.dcm")).max() <= 3


@pytest.mark.corpus
def test_padding_is_black_and_the_rest_unchanged(corpus: Path) -> None:
    picture = levels(corpus / "corpus/pixels/padding_value.dcm")
    assert picture[:, :40].max() == picture[:, -40:].max() == 0
    reference = levels(corpus / "corpus/pixels/mono2_08.dcm")
    assert np.abs(picture - reference)[:, 40:-40].max() <= 3
    assert levels(corpus / "corpus/pixels/padding_range.dcm")[:40].max() == 0


@pytest.mark.corpus
def test_every_transfer_syntax_gives_the_same_picture(corpus: Path) -> None:
    reference = levels(corpus / "corpus/syntax/cr_pa_explicit_le.dcm")
    eight = levels(corpus / "corpus/syntax/cr_pa_explicit_le_8bit.dcm")
    for file in notes(corpus):
        if not file.startswith("syntax/cr_pa_") or any(k in file for k in ("jpip", "mpeg4", "jpegxl")):
            continue
        lossy = any(k in file for k in ("near", "lossy", "baseline", "extended_12bit"))
        other = eight if "8bit" in file else reference
        difference = np.abs(levels(corpus / "corpus" / file) - other).max()
        assert difference <= (16 if lossy else 0), file


def test_a_window_follows_the_standards_formula() -> None:
    picture = levels(radiograph(WindowCenter="128", WindowWidth="129"))[0]
    assert picture[63] == 0 and picture[64] == 1  # (64 - 127.5) / 128 + 0.5, PS3.3 C.11.2.1.2
    assert picture[191] == 254 and picture[192] == 255


def test_monochrome1_with_an_inverse_shape_is_one_inversion() -> None:
    plain = levels(radiograph())
    both = levels(radiograph(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"))
    assert np.array_equal(both, 255 - plain)


@pytest.mark.parametrize(
    "orientation", [["L", "F"], ["R", "F"], ["L", "H"], ["R", "H"], ["F", "L"], ["H", "R"], ["F", "R"]]
)
def test_any_turn_is_undone(orientation: list[str]) -> None:
    upright = np.arange(120 * 130, dtype=np.uint16).reshape(120, 130)
    row, column = orientation
    lying = upright.T if row in "HF" else upright
    if row in "RH":
        lying = lying[:, ::-1]
    if column in "RH":
        lying = lying[::-1]
    turned = read(radiograph(np.ascontiguousarray(lying), PatientOrientation=list(orientation)))
    assert np.array_equal(turned.pixels, read(radiograph(upright)).pixels)


@pytest.mark.parametrize("value", ["", "L", ["LE", "CD"], ["X", "Y"], ["P", "F"]])
def test_an_orientation_that_says_nothing_turns_nothing(value: Any) -> None:
    assert np.array_equal(levels(radiograph(PatientOrientation=value)), levels(radiograph()))


def test_big_endian_bytes_in_words_are_put_in_order() -> None:
    swapped = RAMP.view("<u2").byteswap()
    dataset = radiograph(RAMP, PixelData=swapped.tobytes())
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.2")
    assert np.array_equal(levels(dataset), levels(radiograph()))


@pytest.mark.parametrize(
    "shutter",
    [
        {"ShutterShape": "RECTANGULAR", "ShutterUpperHorizontalEdge": 11, "ShutterLowerHorizontalEdge": 110,
             "ShutterLeftVerticalEdge": 21, "ShutterRightVerticalEdge": 230},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [60, 128], "RadiusOfCircularShutter": 50},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [5, 5, 5, 250, 115, 250, 115, 5]},
    ],
)  # fmt: skip
def test_what_a_shutter_hides_is_black(shutter: dict[str, Any]) -> None:
    picture = levels(radiograph(np.full((120, 256), 200, np.uint8) + RAMP // 8, **shutter))
    assert picture[0].max() == 0 and picture[60, 150] > 0


def test_a_shutter_that_hides_everything_is_ignored() -> None:
    hidden = radiograph(ShutterShape="CIRCULAR", CenterOfCircularShutter=[1, 1], RadiusOfCircularShutter=2)
    assert np.array_equal(levels(hidden), levels(radiograph()))


def test_a_lookup_table_of_bytes_is_read() -> None:
    item = Dataset()
    item.add_new(0x00283002, "US", [256, 0, 8])
    item.add_new(0x00283006, "OW", bytes(range(255, -1, -1)))
    assert np.array_equal(levels(radiograph(VOILUTSequence=Sequence([item]))), 255 - RAMP)


@pytest.mark.corpus
def test_both_decoders_of_jpeg_lossless_give_the_same(corpus: Path) -> None:
    pytest.importorskip("imagecodecs")
    for name in ("p14", "sv1", "sv1_fragments_no_bot"):
        dataset = open_dataset(corpus / f"corpus/syntax/cr_pa_jpeg_lossless_{name}.dcm")
        stream, layout = _stream(pixel_element(dataset)[0]), read_layout(dataset)
        claim = Claim(layout.rows, layout.columns, layout.stored, 1)
        assert np.array_equal(_gdcm(stream, claim), _jpeg_lossless(stream, layout))


def test_an_impossible_size_allocates_nothing() -> None:
    dataset = radiograph(Rows=65535, Columns=65535)
    tracemalloc.start()
    try:
        with pytest.raises(Undecodable):
            read(dataset)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.corpus
def test_a_deflate_bomb_is_stopped_at_its_bound(corpus: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="unpacks"):
            open_dataset(corpus / "corpus/broken/deflate_bomb_320mb.dcm", max_inflated=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_pydicom_does_not_talk_about_a_patients_values(caplog: pytest.LogCaptureFixture) -> None:
    dataset = radiograph(PatientOrientation="SECRET^NAME")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(dataset)
    assert caught == [] and "SECRET" not in caplog.text


def test_the_network_sees_the_mean_free_picture() -> None:
    seen = prepare(Image(np.ones((300, 200), np.float32)), CARD)
    assert seen.shape == (224, 224, 3) and seen.dtype == np.float32
    assert np.allclose(seen[0, 0], [255 - 103.939, 255 - 116.779, 255 - 123.68], atol=1e-4)


def test_fine_stripes_become_grey_not_noise() -> None:
    stripes = np.zeros((896, 896), np.float32)
    stripes[::2] = 1
    seen = prepare(Image(stripes), CARD)[..., 0] + 103.939
    assert np.abs(seen[5:-5] - 127.5).max() < 8


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(st.integers(30, 900), st.integers(30, 900)), seed=st.integers(0, 9))
def test_the_network_sees_what_pillow_makes_of_the_picture(shape: tuple[int, int], seed: int) -> None:
    pixels = np.random.default_rng(seed).random(shape, np.float32)
    pillow = Pillow.fromarray(pixels).resize((224, 224), Pillow.Resampling.BILINEAR)
    seen = prepare(Image(pixels), CARD)[..., 0] + np.float32(103.939)
    assert np.abs(seen / 255 - np.asarray(pillow)).max() < 1e-6


def test_a_picture_of_many_blocks_is_windowed_as_one() -> None:
    values = np.random.default_rng(1).integers(-2048, 2048, (900, 701)).astype(np.int16)
    values[:, :9] = -2000
    found = read(
        radiograph(
            values, BitsStored=12, HighBit=11, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1",
            RescaleSlope="2", RescaleIntercept="-100", WindowCenter="0", WindowWidth="3001",
        )
    ).pixels  # fmt: skip
    expected = 1 - np.clip((values * 2.0 - 100 + 0.5) / 3000 + 0.5, 0, 1)
    expected[values == -2000] = 0
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_beside_the_stored_ones_and_the_sign_are_understood(bits: int, signed: bool) -> None:
    low = -(1 << bits - 1) if signed else 0
    values = np.linspace(low, low + (1 << bits) - 1, 256 * 120).astype(np.int64).reshape(120, 256)
    beside = np.random.default_rng(1).integers(0, 1 << 16, values.shape) & ~((1 << bits) - 1)
    words = ((values & ((1 << bits) - 1)) | beside).astype(np.uint16)
    found = stored_values(
        radiograph(words, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(signed))
    )
    assert np.array_equal(found, values)


@pytest.mark.parametrize("share", [0.9, 0.99, 1.01, 1.1, 3.0])
def test_a_picture_varies_if_its_standard_deviation_is_enough(share: float) -> None:
    some = np.random.default_rng(1).normal(0.5, 1, (333, 200)).astype(np.float32)
    pixels = ((some - some.mean()) / some.std() * np.float32(0.01 * share) + np.float32(0.9)).astype(
        np.float32
    )
    assert Image(pixels).varies(0.01) == (share > 1)


def test_the_picture_handed_on_keeps_its_shape_and_has_a_limit() -> None:
    assert to_uint8(Image(np.ones((300, 200), np.float32))).shape == (300, 200)
    assert to_uint8(Image(np.zeros((600, 200), np.float32)), longest=300).shape == (300, 100)


def test_a_png_is_wrapped_as_the_same_instance_each_time(tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    Pillow.fromarray(RAMP).save(picture)
    first, second = wrap(picture, view="AP", age=7), wrap(picture)
    assert first.SOPInstanceUID == second.SOPInstanceUID and first.SOPInstanceUID.startswith("2.25.")
    assert (first.Modality, first.BodyPartExamined, first.ViewPosition, first.PatientAge) == (
        "DX",
        "CHEST",
        "AP",
        "007Y",
    )
    assert np.array_equal(levels(first), RAMP)


def test_sixteen_bits_of_a_png_are_kept(tmp_path: Path) -> None:
    deep = np.arange(120 * 256, dtype=np.uint16).reshape(120, 256) * 2
    Pillow.fromarray(deep).save(tmp_path / "deep.png")
    assert wrap(tmp_path / "deep.png").PixelData == deep.tobytes()


def test_half_a_jpeg_file_is_unreadable(tmp_path: Path) -> None:
    picture = tmp_path / "x.jpg"
    Pillow.fromarray(RAMP).save(picture)
    picture.write_bytes(picture.read_bytes()[:-200])
    with pytest.raises(ModelError):
        wrap(picture)
