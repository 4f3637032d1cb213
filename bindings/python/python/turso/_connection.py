"""``turso.Connection``: what the native connection does not need to be fast at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, cast
from urllib.parse import unquote_to_bytes, urlsplit

from . import _dbapi, _turso
from ._dump import iterdump
from ._options import Local, Remote, checked, checked_or_none

IsolationLevel = Union[Literal["DEFERRED", "IMMEDIATE", "EXCLUSIVE", ""], str, None]
Parameters = Union[Sequence[Any], Mapping[str, Any]]
Description = tuple[tuple[str, None, None, None, None, None, None], ...]

_BATCH_MODES = ("deferred", "immediate", "exclusive")


@dataclass
class EncryptionOpts:
    """How a local file would be encrypted, which this package does not do; see ``remote_encryption_key`` for
    remotes.
    """

    cipher: str
    hexkey: str


@dataclass
class BatchResult:
    """What one statement of :meth:`Connection.batch` gave."""

    rows: list[tuple[Any, ...]]
    description: Description | None
    #: Rows changed; -1 for a statement that gives rows, 0 for other statements that change none.
    rowcount: int
    #: Rowid of the row inserted; None unless the statement is an INSERT or REPLACE.
    lastrowid: int | None
    #: Of other drivers; always None here.
    rows_read: int | None = None
    rows_written: int | None = None
    query_duration_ms: float | None = None


class Connection(_turso.Connection):
    """A connection to a database. Made by :func:`turso.connect`.

    Before an INSERT, UPDATE, DELETE or REPLACE a transaction is begun, as ``isolation_level`` says, and stays
    open until :meth:`commit` or :meth:`rollback`. With ``isolation_level=None`` or ``autocommit=True`` every
    statement is a transaction of its own; with ``autocommit=False`` one is always open.

    As a context manager it commits, or rolls back after an exception; it does not close. Threads may share it
    and take turns; transactions are then shared too.
    """

    Warning = _turso.Warning
    Error = _turso.Error
    InterfaceError = _turso.InterfaceError
    DatabaseError = _turso.DatabaseError
    DataError = _turso.DataError
    OperationalError = _turso.OperationalError
    IntegrityError = _turso.IntegrityError
    InternalError = _turso.InternalError
    ProgrammingError = _turso.ProgrammingError
    NotSupportedError = _turso.NotSupportedError

    def __init__(
        self,
        database: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        timeout: float = 5.0,
        detect_types: int = 0,
        isolation_level: IsolationLevel = "DEFERRED",
        check_same_thread: bool = False,
        factory: Any = None,
        cached_statements: int = 128,
        uri: bool = False,
        *,
        autocommit: bool | int | str = _dbapi.LEGACY_TRANSACTION_CONTROL,
        experimental_features: str | None = None,
        vfs: str | None = None,
        encryption: EncryptionOpts | None = None,
        extra_io: Callable[[], None] | None = None,
        _remote: Remote | None = None,
    ) -> None:
        checked_or_none("encryption", encryption)
        checked_or_none("vfs", vfs)
        # `experimental_features` asks for what another SQL engine has behind a switch and SQLite simply has,
        # and `extra_io` is called by an event loop that is not needed here.
        del factory, experimental_features, extra_io
        path = os.fsdecode(database)
        if checked("uri", uri) and path.startswith("file:"):
            path = _path_of_uri(path)
        if "\0" in path:
            raise ValueError("embedded null character")
        self.isolation_level = isolation_level
        local = Local(
            path=path or ":memory:",
            timeout=checked("timeout", timeout),
            cached_statements=checked("cached_statements", cached_statements),
            detect_types=checked("detect_types", detect_types),
            check_same_thread=bool(check_same_thread),
        )
        self._open(local, _remote)
        self.autocommit = autocommit

    def batch(
        self,
        statements: Iterable[str | tuple[str, Parameters]],
        mode: str | None = None,
    ) -> list[BatchResult]:
        """Runs statements, each SQL or a pair of SQL and parameters, in order, and gives what each gave.

        With ``mode`` ("deferred", "immediate" or "exclusive") they are one transaction, of which all or
        nothing is done; without, each is a transaction of its own. Where a transaction is open already they
        are part of it. The first error ends the batch; the exception has ``batch_index``, which statement it
        was, and ``batch_results``, with None for it and those after it.
        """
        wanted = [(s, ()) if isinstance(s, str) else (s[0], s[1]) for s in statements]
        if mode is not None and mode.lower() not in _BATCH_MODES:
            raise _turso.ProgrammingError(
                f"batch mode must be one of {', '.join(_BATCH_MODES)} or None, not {mode!r}"
            )
        begins = mode is not None and not self.in_transaction
        results: list[BatchResult | None] = [None] * len(wanted)
        isolation_level = self.isolation_level
        keeps_open = self.in_transaction
        cursor = _turso.Cursor(self)
        cursor.row_factory = None
        if begins:
            cursor.execute(f"BEGIN {cast(str, mode).upper()}")
        try:
            if not keeps_open and not begins and isolation_level is not None:
                self.isolation_level = None
            try:
                for index, (sql, parameters) in enumerate(wanted):
                    try:
                        results[index] = _run_one(cursor, sql, parameters)
                    except Exception as error:
                        error.batch_index = index  # type: ignore[attr-defined]
                        error.batch_results = results  # type: ignore[attr-defined]
                        raise
            finally:
                if self.isolation_level != isolation_level:
                    self.isolation_level = isolation_level
            if begins:
                cursor.execute("COMMIT")
        except BaseException:
            if begins:
                self._undo()
            raise
        return cast("list[BatchResult]", results)

    def set_query_timeout(self, milliseconds: int) -> None:
        """Sets how long a statement may run, network waits included; it then fails with OperationalError. 0:
        for ever.
        """
        self._set_query_timeout(checked("set_query_timeout.milliseconds", milliseconds))

    def iterdump(self) -> Iterator[str]:
        """The SQL that makes the same database, statement by statement."""
        return iterdump(self)


def _run_one(cursor: _turso.Cursor, sql: str, parameters: Parameters) -> BatchResult:
    cursor.execute(sql, parameters)
    rows = cursor.fetchall()
    return BatchResult(
        rows=rows,
        description=cursor.description,
        rowcount=-1 if cursor.description is not None else max(cursor.rowcount, 0),
        lastrowid=cursor.lastrowid if _turso._is_insert(sql) else None,
    )


def _path_of_uri(uri: str) -> str:
    """The path of a ``file:`` URI, whose parameters must be ones that mean nothing here."""
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise _turso.ProgrammingError(
            f"the authority {parts.netloc!r} of {uri!r} is not possible; it must be empty"
        )
    path = os.fsdecode(unquote_to_bytes(parts.path))
    for parameter in filter(None, parts.query.split("&")):
        if parameter == "mode=memory":
            return ":memory:"
        if parameter not in ("mode=rwc", "cache=private"):
            raise _turso.NotSupportedError(
                f"uri parameter {parameter!r} is not supported: only mode=rwc, mode=memory and cache=private are"
            )
    return path
