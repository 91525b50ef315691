"""`hilum analyze`: files in, what the model says out; as JSON, as a table, as DICOM results in a folder."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node import log, show
from node.settings import Settings

if TYPE_CHECKING:
    from node.offline import Analyzed
    from node.report import Result


def read(
    settings: Settings, files: Sequence[Path], *, as_json: bool, out: Path | None, view: str, age: int
) -> bool:
    """Reads the files, those of a folder in the order of their names; whether none failed.

    Raises BadModel, and OSError where `out` can't be written.
    """
    log.configure("analyze")
    paths = list(walked(files))
    if out:
        out.mkdir(parents=True, exist_ok=True)
    print("hilum: no audit record is written: this is not the node", file=sys.stderr)
    print("hilum: not a diagnosis; research use only", file=sys.stderr)
    if any(_is_picture(path) for path in paths):
        print(f"hilum: {assumed(view, age)} (--view, --age)", file=sys.stderr)
    from node.offline import analyze

    rows, held = [], True
    for found in analyze(settings, paths, view=view, age=age, reports=out is not None):
        held &= found.status != "failed"
        if as_json:
            print(show.line(as_object(found)), flush=True)
        else:
            rows += _rows(found)
        if out:
            for result in found.results:
                _keep(result, out, found.path.stem)
    if not as_json:
        show.table(("file", "status", "finding", "score", "threshold"), rows)
    return held


def assumed(view: str = "PA", age: int = 40) -> str:
    """What is told of PNG and JPEG files; the defaults are `model.files.wrap`'s."""
    return f"a PNG or JPEG does not say what it shows; assumed: a chest X-ray, {view}, of a {age}-year-old"


def walked(files: Sequence[Path]) -> Iterator[Path]:
    """The files; for a folder every file under it, sorted."""
    for path in files:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file())
        else:
            yield path


def as_object(found: "Analyzed") -> dict[str, Any]:
    """One line of the JSON output."""
    return {
        "file": str(found.path),
        "sop_instance_uid": found.sop_instance or None,
        "status": found.status,
        "reason": found.reason or None,
        "findings": [
            {"label": f.label, "score": f.score, "threshold": f.threshold, "present": f.present}
            for f in found.findings
        ],
        "model": {"name": found.card.name, "version": found.card.version, "sha256": found.card.sha256},
    }


def shown_findings(findings: Sequence[Any]) -> list[tuple[str, str, str]]:
    """Label, score, threshold of what is over its threshold; of the highest score, so marked, where nothing is."""
    present = sorted((f for f in findings if f.present), key=lambda f: -f.score)
    if present:
        return [(f.label, f"{f.score:.2f}", f"{f.threshold:.2f}") for f in present]
    nearest = max(findings, key=lambda f: f.score / f.threshold if f.threshold else f.score)
    told = f"none over its threshold (nearest: {nearest.label})"
    return [(told, f"{nearest.score:.2f}", f"{nearest.threshold:.2f}")]


def _rows(found: "Analyzed") -> list[tuple[str, ...]]:
    if found.status != "analyzed":
        return [(str(found.path), found.status, found.reason, "", "")]
    first, *others = shown_findings(found.findings)
    return [(str(found.path), found.status, *first), *(("", "", *other) for other in others)]


def _keep(result: "Result", out: Path, stem: str) -> None:
    """Writes <stem>.<writer>.dcm, of a text <stem>.json or the like, and a picture's PNG; what is there with other
    bytes is never overwritten."""
    from io import BytesIO

    from pydicom import dcmread

    from node.readable import save_png

    ending = f".{result.writer}.dcm" if result.sop_class else result.suffix
    path, n = out / f"{stem}{ending}", 1
    while path.exists() and path.read_bytes() != result.data:
        n += 1
        path = out / f"{stem}-{n}{ending}"
    path.write_bytes(result.data)
    if result.writer == "sc":
        save_png(dcmread(BytesIO(result.data)), path.with_suffix(".png"))


def _is_picture(path: Path) -> bool:
    from model.files import is_picture

    try:
        return is_picture(path)
    except OSError:
        return False
