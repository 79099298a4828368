"""Runs the scripts beside it over the connection that `hero.store.migrate` passes in."""

from alembic import context

from hero.compute.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
