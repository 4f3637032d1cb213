"""SQLAlchemy dialects; installed with ``pip install turso[sqlalchemy]``.

::

    create_engine("sqlite+turso:///app.db")
    create_engine(
        "sqlite+turso:///app.db?remote_url=libsql://...&segment_size=16384",
        connect_args={"remote_auth_token": token},
    )
    create_async_engine("sqlite+aioturso:///app.db?remote_url=libsql://...")

Options of :func:`turso.connect` and :func:`turso.sync.connect` go into the URL or into ``connect_args``. The
database is a replica when one of those that only a replica has is among them. ``sqlite+turso_sync`` and
``sqlite+aioturso_sync`` always use :func:`turso.sync.connect`.
"""

from ._async import AioTursoDialect, AioTursoSyncDialect
from ._dialect import TursoDialect, TursoSyncDialect, get_sync_connection

__all__ = [
    "AioTursoDialect",
    "AioTursoSyncDialect",
    "TursoDialect",
    "TursoSyncDialect",
    "get_sync_connection",
]

dialect = TursoDialect
