"""Days that are declared complete, and days whose new state Dagster was not told of yet."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table("arrivals", Column("day", Text, primary_key=True), Column("change", Text, nullable=False))
    op.create_table("completions", Column("day", Text, primary_key=True), Column("landed", Text))
