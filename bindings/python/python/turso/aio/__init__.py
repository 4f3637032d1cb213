"""``turso`` for asyncio: the same connections and cursors, whose calls are awaited.

::

    import turso.aio

    async with turso.aio.connect("app.db") as conn:
        await conn.execute("CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, text)")
        await conn.execute("INSERT INTO notes(text) VALUES (?)", ("a note",))
        await conn.commit()
        async with conn.execute("SELECT id, text FROM notes") as cursor:
            async for id, text in cursor:
                print(id, text)

Each connection has a thread of its own, so the event loop never waits for the disk or the network. For
replicas see :mod:`turso.aio.sync`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import turso
from turso import BatchResult, EncryptionOpts, Row, _dbapi
from turso._dbapi import *  # noqa: F403
from turso._options import checked, refuse_unknown

from ._below import Below
from ._connection import Connection
from ._cursor import Cursor

if TYPE_CHECKING:
    from turso._connection import IsolationLevel

__all__ = ["BatchResult", "Connection", "Cursor", "EncryptionOpts", "Row", "connect", *_dbapi.__all__]


def connect(
    database: str | os.PathLike[str],
    timeout: float = 5.0,
    detect_types: int = 0,
    isolation_level: IsolationLevel = "DEFERRED",
    check_same_thread: bool = False,
    cached_statements: int = 128,
    uri: bool = False,
    *,
    autocommit: bool | int | str = _dbapi.LEGACY_TRANSACTION_CONTROL,
    experimental_features: str | None = None,
    vfs: str | None = None,
    encryption: EncryptionOpts | None = None,
    extra_io: Callable[[], None] | None = None,
    iter_chunk_size: int = 64,
    **unknown: NoReturn,
) -> Connection:
    """Opens a plain local database: ``conn = await connect(path)``, or ``async with connect(path) as conn``,
    which closes it in the end.

    The options are those of :func:`turso.connect`, and ``iter_chunk_size``: the rows that ``async for`` reads
    ahead at most.
    """
    if unknown:
        refuse_unknown(connect, unknown)
    options: dict[str, Any] = {
        "timeout": timeout,
        "detect_types": detect_types,
        "isolation_level": isolation_level,
        "check_same_thread": check_same_thread,
        "cached_statements": cached_statements,
        "uri": uri,
        "autocommit": autocommit,
        "experimental_features": experimental_features,
        "vfs": vfs,
        "encryption": encryption,
        "extra_io": extra_io,
    }
    below = Below(turso.Connection, turso.connect, (database,), options)
    return Connection(below, isolation_level, autocommit, checked("iter_chunk_size", iter_chunk_size))
