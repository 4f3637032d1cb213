"""``sqlite+turso`` and ``sqlite+turso_sync``: SQLAlchemy's dialect for the standard library's driver, over
``turso``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import util
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL, Connection
from sqlalchemy.orm import Session
from sqlalchemy.pool import PoolProxiedConnection

import turso
import turso.sync

from . import _url


class OfTurso:
    """What the blocking and the asynchronous dialect have in common."""

    #: Whether the database is a replica, whatever the options are.
    always_replica = False

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        return _url.connect_args(url)

    def retrieve_dbapi_version(self, dbapi: Any) -> Any:
        return util.parse_version_string(turso.__version__)

    def is_replica(self, options: dict[str, Any]) -> bool:
        return self.always_replica or not _url.REPLICA_KEYWORDS.isdisjoint(options)


class TursoDialect(OfTurso, SQLiteDialect_pysqlite):
    """``sqlite+turso:///path``."""

    driver = "turso"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        return turso

    def connect(self, *arguments: Any, **options: Any) -> Any:
        if self.is_replica(options):
            return turso.sync.connect(*arguments, **options)
        return turso.connect(*arguments, **options)


class TursoSyncDialect(TursoDialect):
    """``sqlite+turso_sync:///path?remote_url=...``."""

    driver = "turso_sync"
    supports_statement_cache = True
    always_replica = True


def get_sync_connection(
    connection: Connection | Session | PoolProxiedConnection,
) -> turso.sync.ConnectionSync:
    """The connection of :mod:`turso.sync` below one of SQLAlchemy or a session, for ``pull()``, ``push()``,
    ``checkpoint()`` and ``stats()``."""
    below: Any = connection
    if isinstance(below, Session):
        below = below.connection()
    if isinstance(below, Connection):
        below = below.connection
    driver = getattr(below, "driver_connection", below)
    if not isinstance(driver, turso.sync.ConnectionSync):
        raise TypeError(f"{connection!r} is not connected to a replica, but with {type(driver).__qualname__}")
    return driver
