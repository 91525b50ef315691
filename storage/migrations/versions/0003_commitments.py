"""Storage commitment: what is asked of destinations, and the reports that peers are owed."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "commitments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("refusals", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("until", sa.String(length=27), nullable=True),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name=op.f("fk_commitments_delivery_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
    )
    op.create_index(op.f("ix_commitments_transaction_uid"), "commitments", ["transaction_uid"], unique=False)
    op.create_index(op.f("ix_commitments_delivery_id"), "commitments", ["delivery_id"], unique=False)
    op.create_index(op.f("ix_commitments_state_until"), "commitments", ["state", "until"], unique=False)
    op.create_table(
        "commitment_reports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.String(length=27), nullable=False),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_reports")),
        sa.UniqueConstraint(
            "ae_title", "transaction_uid", name=op.f("uq_commitment_reports_ae_title_transaction_uid")
        ),
    )
    op.create_index(
        op.f("ix_commitment_reports_next_attempt_at"), "commitment_reports", ["next_attempt_at"], unique=False
    )
