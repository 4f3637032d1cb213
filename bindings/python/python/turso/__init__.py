"""SQLite databases, local ones and replicas of remote ones, through the DB-API 2.0.

``turso.connect(path)`` opens a plain local database; it can be used like the standard library's ``sqlite3``.
``turso.sync.connect(path, remote_url=...)`` opens a replica: see :mod:`turso.sync`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, NoReturn, TypeVar, overload

from . import _interpreter  # noqa: F401, I001  (first: the others load the native part)
from . import _dbapi, _options, _turso
from ._connection import BatchResult, Connection, EncryptionOpts
from ._dbapi import *  # noqa: F403
from ._logging import setup_logging
from ._turso import Cursor, Row

if TYPE_CHECKING:
    from ._connection import IsolationLevel

__version__ = "0.8.0"

__all__ = [
    "BatchResult",
    "Connection",
    "Cursor",
    "EncryptionOpts",
    "Row",
    "connect",
    "setup_logging",
    *_dbapi.__all__,
]

_C = TypeVar("_C", bound=Connection)

os.register_at_fork(after_in_child=_turso._after_fork_in_child)


@overload
def connect(
    database: str | os.PathLike[str],
    timeout: float = ...,
    detect_types: int = ...,
    isolation_level: IsolationLevel = ...,
    check_same_thread: bool = ...,
    *,
    cached_statements: int = ...,
    uri: bool = ...,
    autocommit: bool | int | str = ...,
    experimental_features: str | None = ...,
    vfs: str | None = ...,
    encryption: EncryptionOpts | None = ...,
    extra_io: Callable[[], None] | None = ...,
) -> Connection: ...
@overload
def connect(
    database: str | os.PathLike[str],
    timeout: float = ...,
    detect_types: int = ...,
    isolation_level: IsolationLevel = ...,
    check_same_thread: bool = ...,
    factory: Callable[..., _C] = ...,
    cached_statements: int = ...,
    uri: bool = ...,
    *,
    autocommit: bool | int | str = ...,
    experimental_features: str | None = ...,
    vfs: str | None = ...,
    encryption: EncryptionOpts | None = ...,
    extra_io: Callable[[], None] | None = ...,
) -> _C: ...
def connect(
    database: str | os.PathLike[str],
    timeout: float = 5.0,
    detect_types: int = 0,
    isolation_level: IsolationLevel = "DEFERRED",
    check_same_thread: bool = False,
    factory: Callable[..., Any] = Connection,
    cached_statements: int = 128,
    uri: bool = False,
    *,
    autocommit: bool | int | str = _dbapi.LEGACY_TRANSACTION_CONTROL,
    experimental_features: str | None = None,
    vfs: str | None = None,
    encryption: EncryptionOpts | None = None,
    extra_io: Callable[[], None] | None = None,
    **unknown: NoReturn,
) -> Any:
    """Opens a plain local database; ``:memory:`` leaves no file.

    ``timeout``: seconds that a statement waits for another connection's lock. ``isolation_level`` and
    ``autocommit``: see :class:`Connection`. ``check_same_thread``: refuse use from other threads; not needed,
    for threads that share a connection take turns. ``detect_types``: ``PARSE_DECLTYPES`` and
    ``PARSE_COLNAMES``. ``factory`` makes the connection.

    Where a replica is at the path, that replica is opened, offline.
    """
    if unknown:
        _options.refuse_unknown(connect, unknown)
    options = {
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
    return factory(database, **_options.changed(connect, options))
