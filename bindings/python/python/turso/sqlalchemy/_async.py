"""``sqlite+aioturso`` and ``sqlite+aioturso_sync``: the same over ``turso.aio``.

SQLAlchemy's own code is not asynchronous; it runs in a greenlet, and an adapted connection switches to the
event loop where it has to wait.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from sqlalchemy.connectors.asyncio import (
    AsyncAdapt_dbapi_connection,
    AsyncAdapt_dbapi_cursor,
    AsyncAdapt_dbapi_module,
    AsyncAdapt_terminate,
)
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.util import await_only

import turso
import turso.aio
import turso.aio.sync

from ._dialect import OfTurso


class AdaptedCursor(AsyncAdapt_dbapi_cursor):
    """A `turso.aio.Cursor` whose statements and all of their rows come in one turn of the connection's
    thread."""

    __slots__ = ()

    _cursor: Any

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        async with self._adapt_connection._execute_mutex:
            self._rows = deque(await self._cursor._execute_fetchall(operation, parameters))


class AdaptedConnection(AsyncAdapt_terminate, AsyncAdapt_dbapi_connection):
    """A `turso.aio.Connection` that looks like a blocking one."""

    __slots__ = ()

    _cursor_cls = AdaptedCursor
    _connection: Any

    @property
    def isolation_level(self) -> Any:
        return self._connection.isolation_level

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        self._connection.isolation_level = level

    @property
    def autocommit(self) -> Any:
        return self._connection.autocommit

    @autocommit.setter
    def autocommit(self, value: Any) -> None:
        self._connection.autocommit = value

    def create_function(self, *arguments: Any, **options: Any) -> None:
        await_only(self._connection.create_function(*arguments, **options))

    async def _terminate_graceful_close(self) -> None:
        await self._connection.close()

    def _terminate_force_close(self) -> None:
        self._connection.stop()


class AdaptedModule(AsyncAdapt_dbapi_module):
    """`turso`, but for connecting."""

    paramstyle = turso.paramstyle
    has_stop = True

    def __init__(self) -> None:
        # The base class takes them from its second version on.
        self.driver = turso.aio
        self.dbapi_module = turso

    def __getattr__(self, name: str) -> Any:
        return getattr(turso, name)

    def connect(
        self, *arguments: Any, is_replica: bool = False, async_creator_fn: Any = None, **options: Any
    ) -> Any:
        connect: Any = turso.aio.sync.connect if is_replica else turso.aio.connect
        if async_creator_fn is not None:
            connect = async_creator_fn
        return AdaptedConnection(self, await_only(connect(*arguments, **options)))


class AioTursoDialect(OfTurso, SQLiteDialect_aiosqlite):
    """``sqlite+aioturso:///path``, for ``create_async_engine``."""

    driver = "aioturso"
    supports_statement_cache = True
    has_terminate = True

    @classmethod
    def import_dbapi(cls) -> Any:
        return AdaptedModule()

    def connect(self, *arguments: Any, **options: Any) -> Any:
        dbapi: Any = self.dbapi
        return dbapi.connect(*arguments, is_replica=self.is_replica(options), **options)

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.terminate()


class AioTursoSyncDialect(AioTursoDialect):
    """``sqlite+aioturso_sync:///path?remote_url=...``."""

    driver = "aioturso_sync"
    supports_statement_cache = True
    always_replica = True
