"""A result file tells what it is, so that a lost row can be written again; what is none of ours stays a stranger."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import studies
from pydicom import Dataset

from node import report
from node.report.adopt import Found, recognize

VARIANTS = {"sr": ("comprehensive3d", "comprehensive", "enhanced")}
KINDS = [(name, variant) for name in report.WRITERS for variant in VARIANTS.get(name, ("",))]


def results_of(source: Dataset, name: str, variant: str, images: int) -> list[report.Result]:
    whole = studies.report(source, 2, images=images)
    if name == "not-analyzed":
        readings = tuple(dataclasses.replace(r, findings=[], marks={}) for r in whole.readings)
        whole = dataclasses.replace(whole, readings=readings, reason="Lateral view: stored, not analyzed")
    return report.make(name, dataclasses.replace(whole, revision=3), variant)


def found_in(result: report.Result, folder: Path) -> Found:
    path = folder / f"{result.sop_instance}.dcm"
    path.write_bytes(result.data)
    found = recognize(path)
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "variant"), KINDS)
def test_each_kind_of_one_image_is_recognized(
    source: Dataset, tmp_path: Path, name: str, variant: str
) -> None:
    (result,) = results_of(source, name, variant, 1)
    found = found_in(result, tmp_path)
    assert (found.writer, found.variant) == (name, variant)
    assert (found.sop_class, found.sop_instance) == (result.sop_class, result.sop_instance)
    assert (found.content_hash, found.study) == (result.content_hash, source.StudyInstanceUID)
    assert found.sources == (f"sha256:{0:064x}",)
    assert (found.revision, found.of_study) == (3, False)


@pytest.mark.parametrize(("name", "variant"), [kind for kind in KINDS if kind[0] != "not-analyzed"])
def test_each_kind_of_a_study_is_recognized_by_its_images_or_by_its_series(
    source: Dataset, tmp_path: Path, name: str, variant: str
) -> None:
    results = results_of(source, name, variant, 3)
    found = [found_in(result, tmp_path) for result in results]
    assert [one.variant for one in found] == [result.variant for result in results]
    assert [source for one in found for source in one.sources] == [f"sha256:{n:064x}" for n in range(3)]
    assert len({one.series for one in found}) == 1
    assert any(one.of_study for one in found)


def test_what_is_none_of_ours_or_no_dicom_object_is_a_stranger(
    source: Dataset, tmp_path: Path, read: Any
) -> None:
    (ours,) = report.make("sc", read())
    path = tmp_path / "file.dcm"
    for data in (ours.data[:300], ours.data.replace(b"HILUM ", b"OTHER "), b"", b"{}", bytes(200)):
        path.write_bytes(data)
        assert recognize(path) is None
    assert recognize(tmp_path / "absent.dcm") is None
