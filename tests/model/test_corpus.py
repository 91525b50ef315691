"""Each file of the corpus is treated as its table says, by the path that `hilum analyze` takes."""

import csv
from pathlib import Path

import pytest

from model.errors import ModelError, Undecodable, Unreadable
from model.header import text
from model.pixels import open_dataset, read
from model.scope import Policy, judge, judge_picture
from model.stored_only import stored_only

OTHERWISE = {
    # 64 x 64 pixels: the rule that skips Rows or Columns below 100 wins over the row
    "header/text_image_comments_64kb.dcm": "skip",
    # refused as broken off, which the corpus allows for its rows that hang on a rule
    "broken/stream_without_sequence_delimiter.dcm": "refuse",
    # overwritten bytes that no decoder notices
    "broken/stream_j2k_64_bytes_overwritten.dcm": "analyze",
    "broken/stream_jpeg_baseline_64_bytes_overwritten.dcm": "analyze",
}
"""Rows that come out differently, all marked `rule`, and why."""


def treat(path: Path) -> tuple[str, str]:
    try:
        dataset = open_dataset(path)
    except Unreadable as error:
        return "refuse", str(error)
    reason = stored_only(text(dataset, "SOPClassUID"), text(dataset, "PresentationIntentType"))
    if reason:
        return "store-only", reason
    if reason := judge(dataset, Policy()):
        return "skip", reason
    try:
        reason = judge_picture(read(dataset))
    except Undecodable as error:
        return "park", str(error)
    return ("skip", reason) if reason else ("analyze", "")


def rows(corpus: Path, folder: str) -> list[dict[str, str]]:
    with (corpus / "index.csv").open(encoding="utf-8", newline="") as table:
        return [row for row in csv.DictReader(table) if row["file"].startswith(folder + "/")]


@pytest.mark.corpus
@pytest.mark.parametrize("folder", ["syntax", "pixels", "header", "scope", "broken"])
def test_each_file_is_treated_as_the_table_says(corpus: Path, folder: str) -> None:
    wrong = []
    for row in rows(corpus, folder):
        outcome, reason = treat(corpus / "corpus" / row["file"])
        expected = OTHERWISE.get(row["file"], row["expect"])
        if row["expect"] != "refuse" and outcome != expected:
            wrong.append((row["file"], expected, outcome, reason))
    assert wrong == []


@pytest.mark.corpus
def test_what_comes_out_otherwise_hangs_on_a_rule(corpus: Path) -> None:
    marked = {
        row["file"]: row["depends_on"] for folder in ("header", "broken") for row in rows(corpus, folder)
    }
    assert {marked[file] for file in OTHERWISE} == {"rule"}


@pytest.mark.corpus
def test_what_the_walk_refuses_does_no_harm_here_either(corpus: Path) -> None:
    for folder in ("syntax", "pixels", "header", "scope", "broken"):
        for row in rows(corpus, folder):
            if row["expect"] == "refuse":
                treat(corpus / "corpus" / row["file"])


@pytest.mark.corpus
def test_udacitys_six_are_told_apart(corpus: Path) -> None:
    treated = [treat(corpus / "udacity" / f"test{n}.dcm") for n in range(1, 7)]
    assert [outcome for outcome, _ in treated] == ["analyze"] * 3 + ["skip"] * 3
    assert "ribcage" in treated[3][1]
    assert "CT" in treated[4][1]
    assert "frontal view" in treated[5][1]


@pytest.mark.corpus
def test_all_chest_radiographs_are_analyzed(corpus: Path) -> None:
    files = sorted((corpus / "chest").glob("*.dcm"))
    assert len(files) == 11
    assert {treat(file)[0] for file in files} == {"analyze"}


@pytest.mark.corpus
def test_a_file_cut_anywhere_is_never_half_a_picture(corpus: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.dcm"
    for name in ("pixels/mono2_08", "syntax/cr_pa_jls_lossless", "syntax/cr_pa_deflated", "syntax/cr_pa_rle"):
        whole = (corpus / "corpus" / f"{name}.dcm").read_bytes()
        for length in range(
            1, len(whole) - 4, len(whole) // 60
        ):  # the last 4 bytes only close the last element
            cut.write_bytes(whole[:length])
            with pytest.raises(ModelError):
                read(open_dataset(cut))
