"""``turso.sync`` for asyncio: replicas whose calls are awaited.

::

    import turso.aio.sync

    async with turso.aio.sync.connect("./app.db", remote_url="libsql://...", remote_auth_token=token) as conn:
        await conn.execute("INSERT INTO notes(text) VALUES (?)", ("written here",))
        await conn.commit()
        await conn.push()
        await conn.pull()
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

import turso.sync
from turso import LEGACY_TRANSACTION_CONTROL
from turso._options import checked, either, refuse_unknown
from turso.sync import (
    DataError,
    DatabaseError,
    Error,
    Hydrated,
    IntegrityError,
    InterfaceError,
    InternalError,
    Mutation,
    NotSupportedError,
    OperationalError,
    PartialSyncOpts,
    PartialSyncPrefixBootstrap,
    PartialSyncQueryBootstrap,
    ProgrammingError,
    RemoteEncryptionCipher,
    Rewrite,
    Skip,
    Stats,
    Warning,
    apilevel,
    paramstyle,
    sqlite_version,
    sqlite_version_info,
    threadsafety,
)

from ._below import Below
from ._connection import Connection
from ._cursor import Cursor

if TYPE_CHECKING:
    from turso._connection import IsolationLevel
    from turso.sync import TransformResult

__all__ = [
    "ConnectionSync",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Error",
    "Hydrated",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "Mutation",
    "NotSupportedError",
    "OperationalError",
    "PartialSyncOpts",
    "PartialSyncPrefixBootstrap",
    "PartialSyncQueryBootstrap",
    "ProgrammingError",
    "RemoteEncryptionCipher",
    "Rewrite",
    "Skip",
    "Stats",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "sqlite_version",
    "sqlite_version_info",
    "threadsafety",
]

#: A str, or a function that gives one, which may be asynchronous.
Source = str | Callable[[], str | None] | Callable[[], Awaitable[str | None]]


class ConnectionSync(Connection):
    """A connection to a replica. Made by :func:`turso.aio.sync.connect`."""

    async def pull(self) -> bool:
        """Brings the remote's changes and puts local ones that were not pushed back on top. True if
        anything changed."""
        changed: bool = await self._run(lambda: self._below().pull())
        return changed

    async def push(self) -> None:
        """Sends local changes to the remote, whole transactions in order."""
        await self._run(lambda: self._below().push())

    async def discard_change(self, change: int, *, with_dependents: bool = False) -> int:
        """Gives up a local change that the remote refuses (the exception's ``change``), alone or with the later
        changes that cannot stay without it. Gives how many changes were given up."""
        count: int = await self._run(
            lambda: self._below().discard_change(change, with_dependents=with_dependents)
        )
        return count

    async def hydrate(
        self, query: str | None = None, *, progress: Callable[[int, int], object] | None = None
    ) -> Hydrated:
        """Fetches absent pages: all of them, or those that a SELECT touches when the remote runs it. ``progress``
        is called in another thread."""
        hydrated: Hydrated = await self._run(lambda: self._below().hydrate(query, progress=progress))
        return hydrated

    async def checkpoint(self) -> None:
        """Moves the write-ahead log into the database file."""
        await self._run(lambda: self._below().checkpoint())

    async def stats(self) -> Stats:
        """Counters and sizes."""
        stats: Stats = await self._run(lambda: self._below().stats())
        return stats


def connect(
    path: str | os.PathLike[str],
    remote_url: Source | None = None,
    *,
    remote_auth_token: Source | None = None,
    auth_token: Source | None = None,
    partial_sync_opts: PartialSyncOpts | None = None,
    partial_sync_experimental: PartialSyncOpts | None = None,
    client_name: str | None = None,
    long_poll_timeout_ms: int | None = None,
    bootstrap_if_empty: bool = True,
    accept_new_url: bool = False,
    isolation_level: IsolationLevel = "DEFERRED",
    transform: Callable[[Mutation], TransformResult] | None = None,
    push_operations_threshold: int | None = None,
    pull_bytes_threshold: int | None = None,
    remote_encryption_key: str | None = None,
    remote_encryption_cipher: RemoteEncryptionCipher | str | None = None,
    experimental_features: str | None = None,
    logical_mvcc_pull: bool | None = None,
    timeout: float = 5.0,
    request_timeout: float | None = None,
    detect_types: int = 0,
    check_same_thread: bool = False,
    cached_statements: int = 128,
    autocommit: bool | int | str = LEGACY_TRANSACTION_CONTROL,
    iter_chunk_size: int = 64,
    **unknown: NoReturn,
) -> ConnectionSync:
    """Opens a replica: ``conn = await connect(path, ...)``, or ``async with connect(path, ...) as conn``,
    which closes it in the end.

    The options are those of :func:`turso.sync.connect`. ``remote_url`` and the token may be asynchronous
    functions too, which run on the event loop that uses the connection; other functions are called in another
    thread.
    """
    if unknown:
        refuse_unknown(connect, unknown)
    token = either(("remote_auth_token", remote_auth_token), ("auth_token", auth_token))
    options: dict[str, Any] = {
        "partial_sync_opts": partial_sync_opts,
        "partial_sync_experimental": partial_sync_experimental,
        "client_name": client_name,
        "long_poll_timeout_ms": long_poll_timeout_ms,
        "bootstrap_if_empty": bootstrap_if_empty,
        "accept_new_url": accept_new_url,
        "isolation_level": isolation_level,
        "transform": transform,
        "push_operations_threshold": push_operations_threshold,
        "pull_bytes_threshold": pull_bytes_threshold,
        "remote_encryption_key": remote_encryption_key,
        "remote_encryption_cipher": remote_encryption_cipher,
        "experimental_features": experimental_features,
        "logical_mvcc_pull": logical_mvcc_pull,
        "timeout": timeout,
        "request_timeout": request_timeout,
        "detect_types": detect_types,
        "check_same_thread": check_same_thread,
        "cached_statements": cached_statements,
        "autocommit": autocommit,
    }
    below = Below(turso.sync.ConnectionSync, turso.sync.connect, (path,), options)
    options["transform"] = below.keeping(transform)
    options["remote_url"] = below.asking(remote_url)
    options["remote_auth_token"] = below.asking(token)
    return ConnectionSync(below, isolation_level, autocommit, checked("iter_chunk_size", iter_chunk_size))
