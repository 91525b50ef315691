"""What `hilum demo` sends: a person's own files or drawn phantoms, each as one object for a C-STORE.

The data set of a DICOM file goes out as its bytes are, so that the node sees what a modality would have sent.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID
from pynetdicom import AE, _config

from model import phantom
from model.errors import Unreadable
from model.files import is_picture, wrap
from model.stored_only import stored_only
from node.errors import Refused
from node.readout import walked
from node.receive.part10 import walk_file
from node.wire.contexts import EXPLICIT_LITTLE

SENDER = "DEMO"
SEEDS = (1, 2, 3)
# the one of the phantoms that is drawn with a dense patch
PATCHED = 3
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Xray:
    """One object to send. `stem` names its results; `fault` says why it can't be sent at all; `is_picture`: it was a
    PNG or JPEG, and what it shows is assumed."""

    name: str
    stem: str
    file: Path = Path()
    sop_class: str = ""
    sop_instance: str = ""
    transfer_syntax: str = ""
    stored_only: str = ""
    fault: str = ""
    is_picture: bool = False


def phantoms(work: Path) -> Iterator[Xray]:
    """Three drawn chests, one of them with a dense patch."""
    for seed in SEEDS:
        patch = seed == PATCHED
        name = f"phantom-{seed}-patch" if patch else f"phantom-{seed}"
        yield _drawn(phantom.draw(seed, patch=patch), name, name, work)


def chosen(files: Sequence[Path], work: Path) -> Iterator[Xray]:
    """A person's files, those of a folder one by one."""
    seen: Counter[str] = Counter()
    for path in walked(files):
        seen[path.stem] += 1
        stem = path.stem if seen[path.stem] == 1 else f"{path.stem}-{seen[path.stem]}"
        try:
            if is_picture(path):
                yield replace(_drawn(wrap(path), str(path), stem, work), is_picture=True)
            else:
                yield _dicom(path, stem, work)
        except (Unreadable, Refused) as e:
            yield Xray(str(path), stem, fault=str(e))
        except OSError as e:
            yield Xray(str(path), stem, fault=f"can't be read: {e.strerror}")


def _drawn(dataset: Dataset, name: str, stem: str, work: Path) -> Xray:
    file = work / f"{stem}.dcm"
    dataset.save_as(file, enforce_file_format=True)
    return Xray(name, stem, file, dataset.SOPClassUID, dataset.SOPInstanceUID, EXPLICIT_LITTLE)


def _dicom(path: Path, stem: str, work: Path) -> Xray:
    """A copy with a meta group that says what the data set is. Raises Damaged, OSError."""
    walk = walk_file(path)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(walk.sop_class)
    meta.MediaStorageSOPInstanceUID = UID(walk.sop_instance)
    meta.TransferSyntaxUID = UID(walk.transfer_syntax)
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    head = DicomBytesIO()
    write_file_meta_info(head, meta)
    file = work / f"{stem}.dcm"
    with path.open("rb") as source, file.open("wb") as copy:
        source.seek(walk.start)
        copy.write(b"\0" * 128 + b"DICM" + head.getvalue())
        while piece := source.read(1 << 20):
            copy.write(piece)
    reason = stored_only(walk.sop_class, walk.header.presentation_intent) or ""
    return Xray(str(path), stem, file, walk.sop_class, walk.sop_instance, walk.transfer_syntax, reason)


def send(xray: Xray, port: int, ae_title: str) -> str:
    """One C-STORE to the node at the loopback's `port`; the reason why it was not taken, empty where it was."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    ae = AE(ae_title=SENDER)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_SECONDS
    ae.add_requested_context(xray.sop_class, xray.transfer_syntax)
    association = ae.associate("127.0.0.1", port, ae_title=ae_title)
    if not association.is_established:
        return "the node takes no objects of this kind"
    try:
        answer = association.send_c_store(xray.file)
    finally:
        if association.is_established:
            association.release()
    status = answer.get("Status")
    if status == 0:
        return ""
    if status is None:
        return "the node did not answer"
    return f"refused with {status:04X}: {answer.get('ErrorComment', 'no reason given')}"
