"""`hilum analyze`: one JSON object a file, in the order of the files, and results in a folder."""

import json
import subprocess
import sys
from pathlib import Path

from pydicom import dcmread

from model import phantom
from node.readout import walked


def test_each_file_has_its_line_and_its_results(tmp_path: Path) -> None:
    xray, junk, again = tmp_path / "b.dcm", tmp_path / "a.txt", tmp_path / "sub" / "b.dcm"
    phantom.draw(1, patch=False).save_as(xray, enforce_file_format=True)
    again.parent.mkdir()
    phantom.draw(2, patch=False).save_as(again, enforce_file_format=True)
    junk.write_text("no X-ray")
    files = ["b.dcm", "a.txt", "none.dcm", "sub"]
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", "analyze", *files, "--json", "--out", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("hilum: no audit record is written")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"] for line in lines] == ["b.dcm", "a.txt", "none.dcm", "sub/b.dcm"]
    assert [line["status"] for line in lines] == ["analyzed", "failed", "failed", "analyzed"]
    assert set(lines[0]) == {"file", "sop_instance_uid", "status", "reason", "findings", "model"}
    assert lines[0]["sop_instance_uid"] == dcmread(xray).SOPInstanceUID
    assert len(lines[0]["findings"]) == 15
    assert set(lines[0]["findings"][0]) == {"label", "score", "threshold", "present"}
    assert set(lines[0]["model"]) == {"name", "version", "sha256"}
    assert lines[1]["findings"] == []
    assert lines[1]["reason"]
    made = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert made == ["b-2.sc.dcm", "b-2.sc.png", "b-2.sr.dcm", "b.sc.dcm", "b.sc.png", "b.sr.dcm"]
    # nothing of a node came to be
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.dcm", "out", "sub"]


def test_a_folder_is_all_that_lies_in_it_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("c", "a/z", "a/b", "b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in walked([tmp_path, tmp_path / "c"])]
    assert found == ["a/b", "a/z", "b", "c", "c"]
