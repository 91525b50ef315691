import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from peers.web import Web, serving

from model.data import download
from model.data.fetch import fetch
from model.data.source import NIH
from model.data.source import read as read_source
from model.errors import BadData, NotFetched

PAUSES = (0.01, 0.01)
NOISE = np.random.default_rng(0).bytes(200_000)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(Web()) as served:
        yield served


def tar_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


PICTURES = {"images/1.png": NOISE[:5000], "images/2.png": NOISE[5000:9000]}


def source(tmp_path: Path, web: Web, **files: str) -> Path:
    """A source of the files that the server has; the keyword's value is what its entry says besides."""
    text = "".join(
        f'[[file]]\nname = "{name}"\nurl = "{web.url}/{name}"\n{files.get(name.partition(".")[0], "")}\n'
        for name in web.files
    )
    file = tmp_path / "source.toml"
    file.write_text(text)
    return file


def get(to: Path, source: Path, *, keep: bool = True, only: tuple[str, ...] = ()) -> None:
    fetch(to, source, keep_archives=keep, only=only, pauses=PAUSES)


def test_a_file_arrives_and_the_manifest_says_what_it_is(
    tmp_path: Path, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    web.files = {"a.bin": NOISE}
    get(tmp_path / "to", source(tmp_path, web))
    assert (tmp_path / "to" / "a.bin").read_bytes() == NOISE
    entry = json.loads((tmp_path / "to" / "manifest.json").read_text())["files"]["a.bin"]
    assert entry["bytes"] == len(NOISE)
    assert entry["sha256"] == hashlib.sha256(NOISE).hexdigest()
    assert entry["etag"] == web.etag
    assert "1 files, 200 kB" in capsys.readouterr().out


def test_a_second_run_fetches_and_unpacks_nothing(tmp_path: Path, web: Web) -> None:
    web.files = {"a.tar.gz": tar_of(PICTURES)}
    file = source(tmp_path, web, a='unpack = "tar.gz"')
    to = tmp_path / "to"
    get(to, file)
    (to / "images" / "1.png").unlink()  # would be back if it were unpacked again
    get(to, file)
    assert len(web.asked) == 1
    assert not (to / "images" / "1.png").exists()


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_an_archive_is_unpacked_and_removed_when_asked(tmp_path: Path, web: Web, kind: str) -> None:
    web.files = {f"a.{kind}": (tar_of if kind == "tar.gz" else zip_of)(PICTURES)}
    to = tmp_path / "to"
    file = source(tmp_path, web, a=f'unpack = "{kind}"')
    get(to, file, keep=False)
    assert {p.relative_to(to).as_posix(): p.read_bytes() for p in to.glob("images/*")} == PICTURES
    assert not (to / f"a.{kind}").exists()
    get(to, file, keep=False)
    assert len(web.asked) == 1


def test_an_archive_stays_while_its_files_are_not_all_there(
    tmp_path: Path, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    web.files = {"a.tar.gz": tar_of(PICTURES)}
    file = source(tmp_path, web, a='unpack = "tar.gz"')
    to = tmp_path / "to"
    get(to, file)
    (to / "images" / "1.png").unlink()
    get(to, file, keep=False)
    assert (to / "a.tar.gz").exists()
    assert "1 of its files" in capsys.readouterr().err


def test_a_broken_connection_goes_on_where_it_broke(tmp_path: Path, web: Web) -> None:
    web.files = {"a.bin": NOISE}
    web.cuts = [50_000, 30_000]
    get(tmp_path / "to", source(tmp_path, web))
    assert (tmp_path / "to" / "a.bin").read_bytes() == NOISE
    assert web.asked == [None, "bytes=50000-", "bytes=80000-"]
    assert web.sent == len(NOISE)


def test_a_killed_download_is_resumed_and_no_byte_is_sent_twice(tmp_path: Path, web: Web) -> None:
    web.files = {"a.bin": NOISE}
    web.stall_after = 70_000
    to, file = tmp_path / "to", source(tmp_path, web)
    program = (
        "from pathlib import Path; from model.data.fetch import fetch; import sys;"
        "fetch(Path(sys.argv[1]), Path(sys.argv[2]), keep_archives=True, only=[])"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(to), str(file)])
    part = to / "a.bin.part"
    until = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size == 70_000):
        assert time.monotonic() < until and child.poll() is None
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    web.released.set()
    web.stall_after = None
    get(to, file)
    assert (to / "a.bin").read_bytes() == NOISE
    assert web.asked == [None, "bytes=70000-"]
    assert web.sent == len(NOISE)


def test_a_file_that_changed_meanwhile_comes_anew(tmp_path: Path, web: Web) -> None:
    web.files = {"a.bin": NOISE}
    web.cuts = [50_000] * 3
    to, file = tmp_path / "to", source(tmp_path, web)
    web.statuses = []
    with pytest.raises(NotFetched, match="run again to go on"):
        get(to, file)
    web.etag, web.files["a.bin"] = '"two"', NOISE[::-1]
    get(to, file)
    assert (to / "a.bin").read_bytes() == NOISE[::-1]
    assert web.asked[-1] == "bytes=150000-"


def test_a_server_that_glues_two_versions_together_is_not_believed(tmp_path: Path, web: Web) -> None:
    web.files = {"a.bin": NOISE}
    web.cuts = [50_000] * 3
    to, file = tmp_path / "to", source(tmp_path, web)
    with pytest.raises(NotFetched):
        get(to, file)
    web.etag, web.files["a.bin"], web.ignores_if_range = '"two"', NOISE[::-1], True
    get(to, file)
    assert (to / "a.bin").read_bytes() == NOISE[::-1]


@pytest.mark.parametrize(("etag", "ranges"), [('"one"', False), ("", True), ('W/"weak"', True)])
def test_without_ranges_or_a_version_the_file_comes_anew(
    tmp_path: Path, web: Web, etag: str, ranges: bool
) -> None:
    web.files, web.etag, web.ranges = {"a.bin": NOISE}, etag, ranges
    web.cuts = [50_000]
    get(tmp_path / "to", source(tmp_path, web))
    assert (tmp_path / "to" / "a.bin").read_bytes() == NOISE
    assert web.sent == len(NOISE) + 50_000


def test_trouble_that_passes_is_waited_for_and_trouble_that_stays_is_told(tmp_path: Path, web: Web) -> None:
    web.files = {"a.bin": NOISE}
    web.statuses = [503, 500]
    to, file = tmp_path / "to", source(tmp_path, web)
    get(to, file)
    assert (to / "a.bin").exists()
    web.statuses = [404]
    with pytest.raises(NotFetched, match=r"a\.bin: the server says 404 Not Found"):
        get(tmp_path / "other", file)
    assert len(web.asked) == 4


def test_attempts_are_bounded(tmp_path: Path, web: Web) -> None:
    web.files = {"a.bin": NOISE}
    web.statuses = [503] * 50
    with pytest.raises(NotFetched, match="503"):
        get(tmp_path / "to", source(tmp_path, web))
    assert len(web.asked) == 1 + len(PAUSES)


def test_wrong_bytes_are_refused_kept_aside_and_fetched_anew(tmp_path: Path, web: Web) -> None:
    right = hashlib.sha256(NOISE).hexdigest()
    web.files = {"a.bin": NOISE[::-1]}
    to, file = tmp_path / "to", source(tmp_path, web, a=f'sha256 = "{right}"')
    with pytest.raises(NotFetched, match="SHA-256"):
        get(to, file)
    assert not (to / "a.bin").exists()
    assert (to / "a.bin.wrong").exists()
    web.files["a.bin"], web.etag = NOISE, '"two"'
    get(to, file)
    assert (to / "a.bin").read_bytes() == NOISE


def test_another_size_than_promised_is_refused_before_it_is_fetched(tmp_path: Path, web: Web) -> None:
    web.files = {"a.bin": NOISE}
    with pytest.raises(NotFetched, match="200,000 bytes, the source says 5"):
        get(tmp_path / "to", source(tmp_path, web, a="bytes = 5"))
    assert not (tmp_path / "to" / "a.bin.part").exists()


def test_a_later_run_checks_what_is_there_against_the_manifest(tmp_path: Path, web: Web) -> None:
    web.files = {"a.bin": NOISE}
    to, file = tmp_path / "to", source(tmp_path, web)
    get(to, file)
    (to / "a.bin").write_bytes(NOISE[::-1])
    with pytest.raises(NotFetched, match=r"manifest\.json"):
        get(to, file)
    (to / "a.bin").unlink()
    web.files["a.bin"] = NOISE[::-1]
    with pytest.raises(NotFetched, match=r"manifest\.json"):
        get(to, file)


def test_an_archive_that_a_person_put_there_is_taken(tmp_path: Path, web: Web) -> None:
    web.files = {"a.tar.gz": tar_of(PICTURES)}
    to = tmp_path / "to"
    to.mkdir()
    (to / "a.tar.gz").write_bytes(web.files["a.tar.gz"])
    get(to, source(tmp_path, web, a='unpack = "tar.gz"'))
    assert not web.asked
    assert (to / "images" / "2.png").read_bytes() == PICTURES["images/2.png"]


def test_only_the_named_files_are_fetched(tmp_path: Path, web: Web) -> None:
    web.files = {"a.bin": NOISE, "b.bin": NOISE[:10]}
    to, file = tmp_path / "to", source(tmp_path, web)
    get(to, file, only=("b.bin",))
    assert [p.name for p in sorted(to.glob("*.bin"))] == ["b.bin"]
    with pytest.raises(BadData, match=r"no file 'c\.bin'; it has a\.bin, b\.bin"):
        get(to, file, only=("c.bin",))


def test_a_web_page_is_no_archive(tmp_path: Path, web: Web) -> None:
    web.files, web.kind = {"a.tar.gz": b"<html>sign in</html>"}, "text/html; charset=utf-8"
    with pytest.raises(NotFetched, match="web page"):
        get(tmp_path / "to", source(tmp_path, web))


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_no_redirection_leaves_the_web(tmp_path: Path, web: Web, address: str) -> None:
    web.files, web.redirect = {"a.bin": NOISE}, address
    with pytest.raises(NotFetched):
        get(tmp_path / "to", source(tmp_path, web))
    assert not (tmp_path / "to" / "a.bin").exists()


def test_a_full_disk_is_told_before_a_byte_is_written(
    tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RESERVE", 10**18)
    web.files = {"a.bin": NOISE}
    with pytest.raises(NotFetched, match="no room"):
        get(tmp_path / "to", source(tmp_path, web))
    assert not web.sent


def test_two_runs_do_not_share_a_folder(tmp_path: Path, web: Web) -> None:
    import fcntl

    web.files = {"a.bin": NOISE}
    to = tmp_path / "to"
    to.mkdir()
    with (to / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NotFetched, match="another run"):
            get(to, source(tmp_path, web))


EVIL = {
    "up": tar_of({"images/1.png": b"1", "../evil": b"x"}),
    "absolute in zip": zip_of({"/evil": b"x"}),
    "up in zip": zip_of({"images/../../evil": b"x"}),
    "backslash": zip_of({"..\\evil": b"x"}),
}


def link(kind: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("images")
        member.type, member.linkname = kind, "elsewhere"
        tar.addfile(member)
    return packed.getvalue()


def zip_link() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        member = zipfile.ZipInfo("images")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc")
    return packed.getvalue()


EVIL |= {
    "symbolic link": link(tarfile.SYMTYPE),
    "hard link": link(tarfile.LNKTYPE),
    "device": link(tarfile.CHRTYPE),
    "link in zip": zip_link(),
    "bomb": zip_of({"zeros": bytes(120_000_000)}),
}


@pytest.mark.parametrize("what", EVIL)
def test_nothing_is_unpacked_outside_the_folder_nor_links_nor_bombs(
    tmp_path: Path, web: Web, what: str
) -> None:
    kind = "zip" if EVIL[what][:2] == b"PK" else "tar.gz"
    web.files = {f"a.{kind}": EVIL[what]}
    to = tmp_path / "to"
    with pytest.raises(NotFetched, match=rf"a\.{kind}"):
        get(to, source(tmp_path, web, a=f'unpack = "{kind}"'), keep=False)
    assert not list(tmp_path.glob("**/evil")) and not list(tmp_path.glob("**/zeros"))
    assert (to / f"a.{kind}").exists()
    assert not [p for p in to.rglob("*") if p.is_symlink()]


BROKEN = {
    "cut tar.gz": tar_of(PICTURES)[:-3000],
    "no end of gzip": tar_of(PICTURES)[:-4],
    "wrong checksum": tar_of(PICTURES)[:-8] + b"\0\0\0\0" + tar_of(PICTURES)[-4:],
    "rubbish in the tar": gzip.compress(gzip.decompress(tar_of(PICTURES))[:6144] + NOISE[:10240]),
    "cut zip": zip_of(PICTURES)[:-30],
    "changed zip": zip_of(PICTURES).replace(NOISE[100:110], NOISE[110:120]),
    "no archive": b"nothing of the kind",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_damaged_archive_is_named_and_what_to_do_is_said(tmp_path: Path, web: Web, what: str) -> None:
    kind = "zip" if BROKEN[what][:2] == b"PK" else "tar.gz"
    web.files = {f"a.{kind}": BROKEN[what]}
    to = tmp_path / "to"
    file = source(tmp_path, web, a=f'unpack = "{kind}"')
    with pytest.raises(NotFetched, match=rf"a\.{kind}: is truncated or damaged .*delete it and run again"):
        get(to, file, keep=False)
    (to / f"a.{kind}").unlink()
    web.files = {f"a.{kind}": (tar_of if kind == "tar.gz" else zip_of)(PICTURES)}
    get(to, file, keep=False)
    assert {p.relative_to(to).as_posix(): p.read_bytes() for p in to.glob("images/*")} == PICTURES


def test_one_bad_archive_does_not_hold_up_the_others(
    tmp_path: Path, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    web.files = {"a.tar.gz": BROKEN["cut tar.gz"], "b.tar.gz": tar_of(PICTURES)}
    file = source(tmp_path, web, a='unpack = "tar.gz"', b='unpack = "tar.gz"')
    with pytest.raises(NotFetched, match=r"1 of 2 files did not arrive: a\.tar\.gz"):
        get(tmp_path / "to", file)
    assert (tmp_path / "to" / "images" / "1.png").exists()
    assert "a.tar.gz: is truncated or damaged" in capsys.readouterr().err


def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path, web: Web) -> None:
    web.files = {"a.zip": zip_of({"labels.csv": b"theirs"})}
    to = tmp_path / "to"
    to.mkdir()
    (to / "labels.csv").write_text("mine")
    with pytest.raises(NotFetched, match=r"labels\.csv is here already"):
        get(to, source(tmp_path, web, a='unpack = "zip"'))
    assert (to / "labels.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "list of"),
        ('[[file]]\nname = "../x"\nurl = "http://h/x"', "plain file name"),
        ('[[file]]\nname = "manifest.json"\nurl = "http://h/x"', "taken"),
        ('[[file]]\nname = "x"\nurl = "file:///etc/passwd"', "http"),
        ('[[file]]\nname = "x"\nurl = "http://h/x"\nmd5 = "1"', "unknown key 'md5'"),
        ('[[file]]\nname = "x"\nurl = "http://h/x"\nsha256 = "1"', "64"),
        ('[[file]]\nname = "x"\nurl = "http://h/x"\nunpack = "rar"', "unpack"),
        ('[[file]]\nname = "x"\nurl = "http://h/x"\n' * 2, "twice"),
        ("[[file", "TOML"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "source.toml"
    file.write_text(text)
    with pytest.raises(BadData, match=said) as told:
        read_source(file)
    assert str(file) in str(told.value)


def test_nihs_twelve_archives_are_all_named() -> None:
    items = read_source(NIH)
    assert [item.name for item in items] == [f"images_{n:02}.tar.gz" for n in range(1, 13)]
    assert len({item.url for item in items}) == 12
    assert all(item.url.startswith("https://nihcc.box.com/shared/static/") for item in items)
