"""The tables. One row is one thing; the states of a row are in its comment.

Times are UTC, ISO 8601 with microseconds and `Z`: they sort as text and a person can read them. Leases count in
seconds of the system's monotonic clock; a restart of the node clears them.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

UID = String(64)
TIME = String(27)
HASH = String(71)

objects = Table(
    "objects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_instance", UID, nullable=False),
    # 1 for the first; other bytes under the same UID raise it where the site wants them read
    Column("revision", Integer, nullable=False),
    Column("sop_class", UID, nullable=False),
    Column("series", UID, nullable=False),
    Column("study", UID, nullable=False),
    # keyed hash of the PatientID, for conflicts; no name and no identifier lies in this table
    Column("patient", String(64), nullable=False),
    # the audit log's keys of the patient's name and the accession number
    Column("patient_name", String(64), nullable=False),
    Column("accession", String(64), nullable=False),
    Column("transfer_syntax", UID, nullable=False),
    Column("size", Integer, nullable=False),
    Column("content_hash", HASH, nullable=False),
    # the file's name in the spool; null once it has expired
    Column("file", String(255), unique=True),
    Column("received_at", TIME, nullable=False),
    Column("calling_ae", String(16), nullable=False),
    Column("host", String(255), nullable=False),
    # a result of our own that came back
    Column("own", Boolean, nullable=False),
    UniqueConstraint("sop_instance", "revision"),
    Index(None, "study"),
    Index(None, "patient"),
    Index(None, "received_at"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("object_id", ForeignKey("objects.id"), nullable=False),
    # the SHA-256 of the model's weights
    Column("model", HASH, nullable=False),
    Column("request", Integer, nullable=False),
    # queued, running, done, skipped, parked, discarded
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    # how often it was claimed
    Column("attempt", Integer, nullable=False),
    # lone attempts that ended in a dead process or an I/O error; at three it is parked
    Column("failures", Integer, nullable=False),
    # to be tried alone, since a worker died with it in its batch
    Column("alone", Boolean, nullable=False),
    # how many jobs were claimed together with it, itself included
    Column("batch", Integer, nullable=False),
    Column("owner", String(64)),
    Column("lease_until", Float),
    Column("picture_hash", HASH),
    Column("created_at", TIME, nullable=False),
    Column("finished_at", TIME),
    UniqueConstraint("object_id", "model", "request"),
    Index(None, "state", "id"),
)

scores = Table(
    "scores",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("label", String(64), primary_key=True),
    Column("raw", Float, nullable=False),
    Column("calibrated", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("present", Boolean, nullable=False),
)

reports = Table(
    "reports",
    metadata,
    Column("id", Integer, primary_key=True),
    # what it reports on: a SOP Instance UID, or `studies.subject`
    Column("subject", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("created_at", TIME, nullable=False),
    UniqueConstraint("subject", "revision"),
)

report_jobs = Table(
    "report_jobs",
    metadata,
    Column("report_id", ForeignKey("reports.id"), primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Index(None, "job_id"),
)

studies = Table(
    "studies",
    metadata,
    Column("id", Integer, primary_key=True),
    # SHA-256, hex, of the study and the patient's keys: two patients under one study's UID never meet
    Column("subject", String(64), nullable=False, unique=True),
    Column("study", UID, nullable=False),
    # as in `objects`
    Column("patient", String(64), nullable=False),
    Column("patient_name", String(64), nullable=False),
    # waiting, running, done, parked
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    # when the first image was read that no report is made of yet; null where there is none
    Column("first_at", TIME),
    # when its report is due: a quiet period after the newest of these images, but not later than the limit
    Column("due_at", TIME, nullable=False),
    Column("limit_at", TIME, nullable=False),
    Column("attempt", Integer, nullable=False),
    # attempts that ended in a dead process or an I/O error; at three it is parked
    Column("failures", Integer, nullable=False),
    Column("owner", String(64)),
    Column("lease_until", Float),
    Index(None, "state", "due_at"),
)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("report_id", ForeignKey("reports.id"), nullable=False),
    Column("writer", String(32), nullable=False),
    # the SOP class or whatever else a destination makes differ
    Column("variant", String(32), nullable=False),
    # made, quarantined
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("sop_class", UID, nullable=False),
    Column("sop_instance", UID, nullable=False, unique=True),
    Column("content_hash", HASH, nullable=False),
    Column("file", String(255), unique=True),
    Column("made_at", TIME, nullable=False),
    UniqueConstraint("report_id", "writer", "variant"),
    Index(None, "made_at"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("result_id", ForeignKey("results.id"), nullable=False),
    Column("destination", String(32), nullable=False),
    # waiting, sending, delivered, committed, parked, discarded
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("next_attempt_at", TIME, nullable=False),
    Column("owner", String(64)),
    Column("lease_until", Float),
    Column("reason", Text, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("finished_at", TIME),
    UniqueConstraint("result_id", "destination"),
    Index(None, "destination", "state", "next_attempt_at"),
)

commitments = Table(
    "commitments",
    metadata,
    Column("id", Integer, primary_key=True),
    # one row is one round: the destination is to commit to what this delivery brought it
    Column("delivery_id", ForeignKey("deliveries.id"), nullable=False),
    # due (to be asked), asked, committed, failed, unanswered, parked, withdrawn
    Column("state", String(16), nullable=False),
    # shared by all that is asked with one message; null until then
    Column("transaction_uid", UID),
    # rounds of this delivery in a row that ended without commitment, before this one
    Column("failures", Integer, nullable=False),
    # how often in a row the destination refused to be asked
    Column("refusals", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    # until when an answer is waited for; null while it is not asked
    Column("until", TIME),
    Index(None, "transaction_uid"),
    Index(None, "delivery_id"),
    Index(None, "state", "until"),
)

commitment_reports = Table(
    "commitment_reports",
    metadata,
    Column("id", Integer, primary_key=True),
    # one row is one N-EVENT-REPORT that this node owes a peer; it goes once the peer has it
    Column("ae_title", String(16), nullable=False),
    Column("host", String(255), nullable=False),
    Column("port", Integer, nullable=False),
    Column("transaction_uid", UID, nullable=False),
    # its data set, Implicit VR Little Endian
    Column("data", LargeBinary, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("next_attempt_at", TIME, nullable=False),
    Column("created_at", TIME, nullable=False),
    UniqueConstraint("ae_title", "transaction_uid"),
    Index(None, "next_attempt_at"),
)

destinations = Table(
    "destinations",
    metadata,
    Column("name", String(32), primary_key=True),
    # did the last try reach it?
    Column("reached", Boolean, nullable=False),
    Column("last_try", TIME, nullable=False),
    Column("last_success", TIME),
    Column("last_error", Text),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    # canonical JSON, UTF-8; holds all of the record
    Column("payload", LargeBinary, nullable=False),
    # SHA-256 of the payload
    Column("hash", LargeBinary(32), nullable=False),
    sqlite_autoincrement=True,
)

# made by the sealer, a moment after the record; can be made again from the records at any time
audit_posting = Table(
    "audit_posting",
    metadata,
    # what a record is found by: see storage.audit.index
    Column("term", Integer, primary_key=True, autoincrement=False),
    Column("record", Integer, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

audit_identity = Table(
    "audit_identity",
    metadata,
    # the keyed hash that the payload carries
    Column("key", String(64), primary_key=True),
    # patient_id, patient_name, accession
    Column("kind", String(16), nullable=False),
    # null once it has been erased, and where only keyed hashes are kept
    Column("value", Text),
    sqlite_with_rowid=False,
)

audit_seal = Table(
    "audit_seal",
    metadata,
    Column("block", Integer, primary_key=True),
    # when it was sealed
    Column("time", TIME, nullable=False),
    Column("first_id", Integer, nullable=False),
    Column("last_id", Integer, nullable=False),
    # the earliest time of its records; the latest of these and of all before them
    Column("earliest", TIME, nullable=False),
    Column("latest", TIME, nullable=False),
    # the clock was put back: it has records that are earlier than those of blocks before it
    Column("stepped", Boolean, nullable=False),
    # SHA-256 of the previous block's hash, of all the columns above and of the records' ids and hashes
    Column("hash", LargeBinary(32), nullable=False),
    UniqueConstraint("last_id"),
    Index("ix_audit_seal_stepped", "earliest", sqlite_where=text("stepped")),
)

# what was exported, anchored, and then let go; a row per expiry, and the only way past the triggers
audit_expiry = Table(
    "audit_expiry",
    metadata,
    Column("last_id", Integer, primary_key=True, autoincrement=False),
    # the last block that expired and its hash: what the next one continues
    Column("block", Integer, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("time", TIME, nullable=False),
    # the exported file's name, and the SHA-256 of its bytes
    Column("export", Text, nullable=False),
    Column("export_hash", HASH, nullable=False),
)

# how far each taker of the log (a syslog server) has got
audit_forwarded = Table(
    "audit_forwarded",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("last_id", Integer, nullable=False),
)
