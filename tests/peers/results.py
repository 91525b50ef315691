"""Results in an outbox, without an analysis: what the deliverer's tests deliver."""

from datetime import date
from io import BytesIO

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from node.wire.kinds import kind_of
from storage.audit import Actor, Patient
from storage.objects import Arrival
from storage.results import Made
from storage.store import Store

MODEL = "sha256:" + "0" * 64
NOBODY = Patient("PAT-4711", "Unmistakable^Name", "ACC-4711")


def picture(*, side: int = 64, study: str = "1.2.3") -> Dataset:
    """A whole Secondary Capture of an invented patient, `side` × `side` grey pixels."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = generate_uid(None)
    ds.StudyDate, ds.StudyTime = date(2020, 1, 2).strftime("%Y%m%d"), "101112"
    ds.AccessionNumber = NOBODY.accession
    ds.Modality, ds.ConversionType = "DX", "WSD"
    ds.ReferringPhysicianName = "Ärztin^Änne"
    ds.PatientName, ds.PatientID = NOBODY.name, NOBODY.id
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, generate_uid(None)
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "1", 1, 1
    ds.PatientOrientation = ["L", "F"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = side
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.add_new("PixelData", "OB", np.arange(side * side, dtype=np.uint32).astype(np.uint8).tobytes())
    return ds


def encoded(dataset: Dataset) -> bytes:
    """The whole Part 10 file, Explicit VR Little Endian."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def add(store: Store, dataset: Dataset, *destinations: str, writer: str = "sc", text: bytes = b"") -> None:
    """A result made of one source image, waiting for its destinations: the data set, or `text` under its UID."""
    data = text or encoded(dataset)
    with store.spool.incoming("results", kind_of(writer).suffix) as incoming:
        incoming.write(data)
        file = incoming.keep().name
    source = generate_uid(None)
    arrival = Arrival(
        sop_class="1.2.840.10008.5.1.4.1.1.1.1",
        sop_instance=source,
        series="1.2.3.4",
        study=str(dataset.StudyInstanceUID),
        patient=NOBODY,
        transfer_syntax=str(ExplicitVRLittleEndian),
        size=10,
        content_hash="sha256:" + "a" * 64,
        sender=Actor("MODALITY", "10.0.0.1"),
    )
    made = Made(
        writer=writer,
        variant="",
        sop_class="" if text else str(dataset.SOPClassUID),
        sop_instance=str(dataset.SOPInstanceUID),
        content_hash="sha256:" + "b" * 64,
        file=file,
        destinations=destinations,
    )
    with store.database.write() as tx:
        object_id = store.objects.keep(tx, arrival, f"objects/{source}.dcm")
        job_id = store.jobs.queue(tx, object_id, MODEL)
        (job,) = store.jobs.get(tx, [job_id])
        store.results.add(tx, job, 1, [made])
