"""One report per study: what waits for its report; earlier images of a patient are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("study", sa.String(length=64), nullable=False),
        sa.Column("patient", sa.String(length=64), nullable=False),
        sa.Column("patient_name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("first_at", sa.String(length=27), nullable=True),
        sa.Column("due_at", sa.String(length=27), nullable=False),
        sa.Column("limit_at", sa.String(length=27), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=True),
        sa.Column("lease_until", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_studies")),
        sa.UniqueConstraint("subject", name=op.f("uq_studies_subject")),
    )
    op.create_index(op.f("ix_studies_state_due_at"), "studies", ["state", "due_at"], unique=False)
    op.create_index(op.f("ix_objects_patient"), "objects", ["patient"], unique=False)
    op.create_index(op.f("ix_report_jobs_job_id"), "report_jobs", ["job_id"], unique=False)
