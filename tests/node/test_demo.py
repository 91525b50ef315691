"""`hilum demo`: one command shows everything, and leaves nothing behind but the results."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread

from model import phantom
from node.cli import main
from node.demo import as_toml
from node.demo_xrays import chosen
from node.settings import Settings, load

DEMO = [sys.executable, "-m", "node.cli", "demo"]


def processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that work under `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            here = (entry / "cwd").readlink()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if here == folder and command:
            found.append(command)
    return found


def test_a_node_three_phantoms_and_every_result(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run(DEMO, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "scores mean nothing" in done.stdout
    (folder,) = (tmp_path / "hilum-demo").iterdir()
    assert str(folder.relative_to(tmp_path)) in done.stdout
    for stem in ("phantom-1", "phantom-2", "phantom-3-patch"):
        assert stem in done.stdout
        report = dcmread(folder / f"{stem}.sr.dcm")
        assert report.Modality == "SR"
        assert "Not a diagnosis" in (folder / f"{stem}.sr.txt").read_text()
        assert dcmread(folder / f"{stem}.sc.dcm").SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        with Image.open(folder / f"{stem}.sc.png") as picture:
            assert min(picture.size) >= 512
    assert list(temporary.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_a_demo_that_is_stopped_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        DEMO,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell starts what runs in the background with ctrl-C ignored; a person's terminal does not
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as demo:
        until = time.monotonic() + 60
        while not list(temporary.glob("*/data/hilum.db")) and time.monotonic() < until:
            time.sleep(0.05)
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert b"Traceback" not in errors
    assert list(temporary.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_files_that_can_not_be_sent_are_told_with_their_reason(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    whole, cut, junk = tmp_path / "a.dcm", tmp_path / "cut.dcm", tmp_path / "junk.txt"
    phantom.draw(1, patch=False).save_as(whole, enforce_file_format=True)
    cut.write_bytes(whole.read_bytes()[:4000])
    junk.write_text("no X-ray")
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "a.png"
    Image.new("L", (128, 128), 90).save(twin)
    found = list(chosen([whole, twin, cut, junk, tmp_path / "none.dcm"], work))
    assert [bool(xray.fault) for xray in found] == [False, False, True, True, True]
    assert [xray.stem for xray in found[:2]] == ["a", "a-2"]
    assert found[1].is_picture
    assert "No such file" in found[4].fault
    # what goes out is the data set as it lies in the file
    sent, kept = found[0].file.read_bytes(), whole.read_bytes()
    assert sent[-1_000_000:] == kept[-1_000_000:]


def test_the_demos_configuration_is_what_serve_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[node]\ndata_dir = "d"\n[scope]\nmin_age = 3\nwords = { view = { frontal = ["A \\"b\\" ü"] } }\n'
        '[[destinations]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 104\n'
    )
    before = load(file)
    file.write_text(as_toml(before))
    assert load(file) == before
    file.write_text(as_toml(Settings().with_changes("node", data_dir=tmp_path)))
    assert load(file) == Settings().with_changes("node", data_dir=tmp_path)


def test_a_model_that_can_not_be_loaded_ends_the_demo_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.toml").write_text('[analyze]\nmodel = "model"\n')
    assert main(["demo"]) == 2
    assert "card.toml: can't be read" in capsys.readouterr().err
    assert not Path("hilum-demo").exists()
