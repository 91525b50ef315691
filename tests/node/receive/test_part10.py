"""DICOM files on disk: the corpus, row by row, and files without a proper beginning."""

import csv
import hashlib
from pathlib import Path

import pytest

from model import phantom
from node.receive.header import Damaged
from node.receive.part10 import walk_file

# decided by what the store holds or by what the file is for, not by the file alone
ELSEWHERE = {
    "broken/sop_instance_mismatch_meta.dcm": "disagreement",
    "header/dup_c_same_uid_other_pixels.dcm": "a conflict in a store",
    "header/dup_d_same_uid_other_patient.dcm": "a conflict in a store",
}


@pytest.mark.corpus
def test_each_file_of_the_corpus_walks_unless_it_is_to_be_refused(corpus: Path) -> None:
    wrong = []
    with (corpus / "index.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    for row in rows:
        try:
            walk = walk_file(corpus / "corpus" / row["file"])
            refused = bool(walk.disagreement) and row["file"] in ELSEWHERE
        except Damaged:
            refused = True
        if refused != (row["expect"] == "refuse") and not ELSEWHERE.get(row["file"], "").startswith(
            "a conflict"
        ):
            wrong.append((row["file"], row["expect"]))
    assert wrong == [] and len(rows) > 400


@pytest.mark.corpus
def test_the_real_chests_walk(corpus: Path) -> None:
    files = [*(corpus / "chest").glob("*.dcm"), *(corpus / "udacity").glob("*.dcm")]
    assert len(files) > 10
    assert {walk_file(path).disagreement for path in files} == {""}


@pytest.mark.corpus
def test_our_own_results_of_the_corpus_are_known_unless_every_mark_was_changed(corpus: Path) -> None:
    marks = {p.name: walk_file(p).header.own_mark for p in (corpus / "corpus" / "scope").glob("own_result_*")}
    assert marks.pop("own_result_sc_manufacturer_changed.dcm") == ""
    assert set(marks.values()) == {"manufacturer Hilum"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.dcm"
    phantom.draw(1, patch=False).save_as(path, enforce_file_format=True)
    return path


def test_the_content_hash_is_of_the_data_set_alone(file: Path) -> None:
    walk = walk_file(file)
    body = file.read_bytes()[walk.start :]
    assert walk.content_hash == "sha256:" + hashlib.sha256(body).hexdigest()
    assert walk.size == len(body)


def test_files_without_preamble_or_meta_are_read(file: Path) -> None:
    whole, walk = file.read_bytes(), walk_file(file)
    for part in (whole[132:], whole[walk.start :]):
        file.write_bytes(part)
        again = walk_file(file)
        assert (again.content_hash, again.transfer_syntax) == (walk.content_hash, walk.transfer_syntax)


def test_a_cut_file_is_damaged_wherever_it_is_cut(file: Path) -> None:
    whole = file.read_bytes()
    for cut in [*range(0, 600, 7), len(whole) - 1]:
        file.write_bytes(whole[:cut])
        with pytest.raises(Damaged):
            walk_file(file)
