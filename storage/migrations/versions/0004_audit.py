"""The audit log, whole: a record is its payload alone; the index, the seals and the expiry stand beside it.

Records that are there already keep their ids and payloads; the first sealing seals and indexes them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

UNCHANGEABLE = "SELECT RAISE(ABORT, 'the audit log is never changed')"
EXPIRED = "OLD.{0} <= (SELECT coalesce(max(last_id), 0) FROM audit_expiry)"
TRIGGERS = (
    f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN {UNCHANGEABLE}; END",
    f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit WHEN NOT {EXPIRED.format('id')} BEGIN {UNCHANGEABLE}; END",
    f"CREATE TRIGGER audit_seal_no_update BEFORE UPDATE ON audit_seal BEGIN {UNCHANGEABLE}; END",
    f"CREATE TRIGGER audit_seal_no_delete BEFORE DELETE ON audit_seal WHEN NOT {EXPIRED.format('last_id')} "
    f"BEGIN {UNCHANGEABLE}; END",
    f"CREATE TRIGGER audit_expiry_no_update BEFORE UPDATE ON audit_expiry BEGIN {UNCHANGEABLE}; END",
    f"CREATE TRIGGER audit_expiry_no_delete BEFORE DELETE ON audit_expiry BEGIN {UNCHANGEABLE}; END",
    "CREATE TRIGGER audit_identity_erase_only BEFORE UPDATE ON audit_identity "
    "WHEN NEW.value IS NOT NULL OR NEW.key IS NOT OLD.key OR NEW.kind IS NOT OLD.kind "
    f"BEGIN {UNCHANGEABLE}; END",
)


def upgrade() -> None:
    for table in ("audit", "audit_seal"):
        for verb in ("update", "delete"):
            op.execute(f"DROP TRIGGER {table}_no_{verb}")
    op.drop_table("audit_seal")
    op.create_table(
        "audit_seal",
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("time", sa.String(length=27), nullable=False),
        sa.Column("first_id", sa.Integer(), nullable=False),
        sa.Column("last_id", sa.Integer(), nullable=False),
        sa.Column("earliest", sa.String(length=27), nullable=False),
        sa.Column("latest", sa.String(length=27), nullable=False),
        sa.Column("stepped", sa.Boolean(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("block", name=op.f("pk_audit_seal")),
        sa.UniqueConstraint("last_id", name=op.f("uq_audit_seal_last_id")),
    )
    op.create_index(
        "ix_audit_seal_stepped", "audit_seal", ["earliest"], unique=False, sqlite_where=sa.text("stepped")
    )
    op.create_table(
        "audit_posting",
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("record", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("term", "record", name=op.f("pk_audit_posting")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit_expiry",
        sa.Column("last_id", sa.Integer(), nullable=False),
        sa.Column("block", sa.Integer(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("time", sa.String(length=27), nullable=False),
        sa.Column("export", sa.Text(), nullable=False),
        sa.Column("export_hash", sa.String(length=71), nullable=False),
        sa.PrimaryKeyConstraint("last_id", name=op.f("pk_audit_expiry")),
    )
    op.create_table(
        "audit_forwarded",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("last_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_forwarded")),
    )
    for index in ("time", "event_id", "study_id", "sop_id"):
        op.drop_index(f"ix_audit_{index}", "audit")
    # without its own temporary table Alembic would lose AUTOINCREMENT
    op.rename_table("audit", "audit_before")
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    op.execute("INSERT INTO audit (id, payload, hash) SELECT id, payload, hash FROM audit_before ORDER BY id")
    op.drop_table("audit_before")
    op.drop_index("ix_audit_identity_value", "audit_identity")
    op.rename_table("audit_identity", "audit_identity_before")
    op.create_table(
        "audit_identity",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_audit_identity")),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO audit_identity SELECT key, kind, value FROM audit_identity_before")
    op.drop_table("audit_identity_before")
    for trigger in TRIGGERS:
        op.execute(trigger)
