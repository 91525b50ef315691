"""Odd sources on the whole way: walked, decoded, read by the model, and every kind of result made of them.

Each gives results that are valid, bear the source's names and are taken by a PACS; or it says in one line why not.
"""

import copy
import hashlib
import json
import subprocess
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from peers.servers import Orthanc
from pydicom import Dataset, config, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from model import phantom
from node.analyze.pipeline import NOT_ANALYZED, Occasion, Outcome, Pipeline
from node.receive.part10 import walk_file
from node.receive.walk import Limits
from node.report import TEXT_WRITERS, WRITERS, Result
from node.settings import Settings
from node.wire.contexts import standard_storage

pytestmark = pytest.mark.peer

AT = datetime(2026, 11, 21, 22, 30, 15, tzinfo=UTC)
NAME = 0x00100010
LONG_NAME = "name of 200 characters in three scripts"
SMALLER = 4
"""The drawn chest is thinned by it: 256 x 256 pixels."""
DRAWING = {"sr", "sc", "gsps"}
KINDS = {"triage": {*WRITERS, *TEXT_WRITERS} - {"gsps", NOT_ANALYZED}, "marks": DRAWING}
"""What is made in each intended use: in marks those kinds that look otherwise there."""


def without(*keywords: str) -> Callable[[Dataset], None]:
    def change(source: Dataset) -> None:
        for keyword in keywords:
            source.pop(keyword, None)

    return change


def with_values(**values: object) -> Callable[[Dataset], None]:
    def change(source: Dataset) -> None:
        for keyword, value in values.items():
            setattr(source, keyword, value)

    return change


def called(name: bytes, *terms: str) -> Callable[[Dataset], None]:
    """The patient's name as bytes, in these character sets."""

    def change(source: Dataset) -> None:
        source.SpecificCharacterSet = list(terms) if len(terms) > 1 else terms[0]
        source[NAME] = RawDataElement(Tag(NAME), "PN", len(name), name, 0, False, True, True)

    return change


def long_uids(source: Dataset) -> None:
    for number, keyword in enumerate(["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]):
        # 64 characters, the most there are (PS3.5 9.1)
        setattr(source, keyword, f"2.25.{number + 1}" + "9" * 58)
    source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID


def sized(rows: int, columns: int) -> Callable[[Dataset], None]:
    def change(source: Dataset) -> None:
        source.Rows, source.Columns = rows, columns
        source.BitsAllocated, source.BitsStored, source.HighBit = 8, 8, 7
        source.WindowCenter, source.WindowWidth = 128, 256
        source.PixelData = bytes(range(256)) * (rows * columns // 256) + bytes(
            rows * columns % 256 + rows % 2
        )

    return change


KANJI = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
HANGUL = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
LONG = "=".join(("Maximilian " * 6 + "^A", "山田太郎" * 16 + "^花", "やまだたろう" * 11 + "^は"))

SOURCES: dict[str, Callable[[Dataset], None]] = {
    "whole": lambda source: None,
    "no study ID": without("StudyID"),
    "no accession number": without("AccessionNumber"),
    "no sex": without("PatientSex"),
    "no spacing": without("ImagerPixelSpacing"),
    "none of these": without("StudyID", "AccessionNumber", "PatientSex", "ImagerPixelSpacing", "StudyDate"),
    "sex U": with_values(PatientSex="U"),
    "sex X": with_values(PatientSex="X"),
    "UIDs of 64 characters": long_uids,
    LONG_NAME: called(LONG.encode(), "ISO_IR 192"),
    "ISO_IR 100": called("Buc^Jérôme".encode("latin-1"), "ISO_IR 100"),
    "ISO_IR 144": called("Люкceмбypг".encode("iso8859_5"), "ISO_IR 144"),
    "ISO_IR 192": called("Wang^XiaoDong=王^小東=ワン^シャオドン".encode(), "ISO_IR 192"),
    "ISO 2022 IR 87": called(KANJI, "", "ISO 2022 IR 87"),
    "ISO 2022 IR 149": called(HANGUL, "", "ISO 2022 IR 149"),
    "GB18030": called("Wang^XiaoDong=王^小东".encode("gb18030"), "GB18030"),
    "undecodable": called(b"M\xfcller^J\xfcrgen", "ISO_IR 192"),
    "undecodable, no set": called(b"M\xfcller^J\xfcrgen", ""),
}
NO_RESULT: dict[str, tuple[Callable[[Dataset], None], str, str]] = {
    "1 x 1": (sized(1, 1), "skipped", "too small"),
    "10,000 x 10,000": (sized(10_000, 10_000), "failed", "impossible size (10000 x 10000)"),
}
TOLERATED = {
    # it counts the bytes of a name's groups together; the standard 64 characters in each (PS3.5 6.2)
    LONG_NAME: ("(0x0010,0x0010) PN", "contains invalid data values"),
}
UNREADABLE = "M\ufffdller^J\ufffdrgen"
NAMES = {
    # each group cut to 64 bytes of UTF-8
    LONG_NAME: "=".join(group.encode()[:64].decode(errors="ignore") for group in LONG.split("=")),
    "undecodable": UNREADABLE,
    "undecodable, no set": UNREADABLE,
}


@dataclass(frozen=True)
class Made:
    """What became of one source, in one intended use."""

    case: str
    use: str
    source: Dataset
    outcome: Outcome
    results: list[Result]


@cache
def chest() -> Dataset:
    source = phantom.draw(1, patch=True)
    source.PixelData = source.pixel_array[::SMALLER, ::SMALLER].tobytes()
    source.Rows = source.Columns = phantom.SIDE // SMALLER
    source.ImagerPixelSpacing = [phantom.SPACING * SMALLER] * 2
    return source


def drawn(case: str, change: Callable[[Dataset], None]) -> Dataset:
    """A drawn chest in a study of its own, changed."""
    source = copy.deepcopy(chest())
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(source, keyword, f"{source[keyword].value[:30]}.{sum(case.encode())}.{len(case)}")
    source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
    with config.disable_value_validation():
        change(source)
    return source


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    changes = {case: change for case, (change, *_) in NO_RESULT.items()} | SOURCES
    written = {}
    for number, (case, change) in enumerate(changes.items()):
        written[case] = folder / f"{number}.dcm"
        with config.disable_value_validation(), warnings.catch_warnings():
            # pydicom tells what is odd about them
            warnings.simplefilter("ignore")
            drawn(case, change).save_as(written[case], enforce_file_format=True)
    return written


@pytest.fixture(scope="module")
def made(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Made]]:
    """Of each source in each intended use, with one model loaded and one pool of decoders."""
    settings = Settings.model_validate({"node": {"data_dir": tmp_path_factory.mktemp("node")}})
    pipeline = Pipeline.open(settings)
    try:
        outcomes = dict(zip(files, pipeline.read(list(files.values())), strict=True))
        yield [
            all_made(pipeline, settings.with_changes("report", intended_use=use), case, file, outcomes[case])
            for use in KINDS
            for case, file in files.items()
        ]
    finally:
        pipeline.close()


def all_made(pipeline: Pipeline, settings: Settings, case: str, file: Path, outcome: Outcome) -> Made:
    """As the worker does it."""
    use = settings.report.intended_use
    kinds = sorted({*KINDS[use], NOT_ANALYZED})
    wanted = [(kind, "comprehensive3d" if kind == "sr" else "") for kind in kinds]
    walked = walk_file(file, Limits(), set(standard_storage()))
    using = Pipeline(settings, pipeline.reader, pipeline._decoders)
    if outcome.status == "analyzed":
        results = using.report([(walked.content_hash, outcome)], wanted, Occasion(AT))
    else:
        results = using.not_analyzed(walked.content_hash, outcome, wanted, Occasion(AT))
    return Made(case, use, read(file.read_bytes()), outcome, results)


def read(data: bytes) -> Dataset:
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(BytesIO(data))
        dataset.decode()
        return dataset


def objects(made: list[Made]) -> list[tuple[Made, Result]]:
    return [(one, result) for one in made for result in one.results if result.writer in WRITERS]


def test_each_source_gives_every_kind_or_says_in_one_line_why_not(made: list[Made]) -> None:
    for one in made:
        kinds = {result.writer for result in one.results}
        if one.case in NO_RESULT:
            _, status, why = NO_RESULT[one.case]
            assert (one.case, one.outcome.status, kinds - {NOT_ANALYZED}) == (one.case, status, set())
            assert why in one.outcome.reason and "\n" not in one.outcome.reason
        else:
            assert (one.case, one.outcome.status, one.outcome.reason) == (one.case, "analyzed", "")
            assert (one.case, one.use, kinds) == (one.case, one.use, KINDS[one.use])


@pytest.fixture(scope="module")
def dciodvfy(
    program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bytes], set[str]]:
    """What it calls an error in a whole file's bytes."""
    command = program("dciodvfy")
    folder = tmp_path_factory.mktemp("judged")

    def judge(data: bytes) -> set[str]:
        file = folder / hashlib.sha256(data).hexdigest()
        file.write_bytes(data)
        said = subprocess.run([command, file], capture_output=True, check=False).stderr
        return {line for line in said.decode(errors="replace").splitlines() if line.startswith("Error")}

    return judge


def test_dciodvfy_finds_no_error_in_any(made: list[Made], dciodvfy: Callable[[bytes], set[str]]) -> None:
    judged = [(one, result) for one, result in objects(made)]
    with ThreadPoolExecutor(2) as judges:
        verdicts = judges.map(dciodvfy, [result.data for _, result in judged])
    errors = [
        (one.case, one.use, result.writer, line[:300])
        for (one, result), verdict in zip(judged, verdicts, strict=True)
        for line in verdict
        if not (one.case in TOLERATED and any(part in line for part in TOLERATED[one.case]))
    ]
    assert errors == []


def test_each_bears_the_patient_and_the_study_of_its_source(made: list[Made]) -> None:
    for one, result in objects(made):
        found = read(result.data)
        for keyword in ("StudyInstanceUID", "PatientID", "AccessionNumber", "StudyID"):
            assert found[keyword].value == one.source.get(keyword, ""), (one.case, result.writer, keyword)
        assert str(found.PatientName) == NAMES.get(one.case, str(one.source.PatientName))


def test_a_pacs_takes_each_and_gives_it_back_unchanged(made: list[Made], orthanc: Orthanc) -> None:
    for one, result in objects(made):
        answer = json.loads(orthanc.post("/instances", result.data))
        assert (one.case, result.writer, answer["Status"]) == (one.case, result.writer, "Success")
        assert read(orthanc.file(answer["ID"])) == read(result.data)
