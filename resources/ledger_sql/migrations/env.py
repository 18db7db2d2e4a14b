"""How Alembic runs here: only from `migration.migrate`, inside its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
