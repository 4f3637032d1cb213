"""Replicas: local SQLite databases that hold some pages of a remote one, and fetch others for a query.

::

    import turso.sync

    conn = turso.sync.connect(
        path="./app.db",
        remote_url="libsql://...",
        remote_auth_token=os.environ["TURSO_AUTH_TOKEN"],
        partial_sync_opts=turso.sync.PartialSyncOpts(
            bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
        ),
    )
    conn.execute("INSERT INTO notes(text) VALUES (?)", ("written here",))
    conn.commit()
    conn.push()
    conn.pull()
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Union

from . import _dbapi, _turso
from ._connection import Connection, IsolationLevel
from ._dbapi import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
    apilevel,
    paramstyle,
    sqlite_version,
    sqlite_version_info,
    threadsafety,
)
from ._options import Remote, changed, checked, checked_or_none, either, refuse_unknown

__all__ = [
    "ConnectionSync",
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


@dataclass
class PartialSyncPrefixBootstrap:
    """At the first connect, fetch the first ``length`` bytes of the database file."""

    length: int


@dataclass
class PartialSyncQueryBootstrap:
    """At the first connect, fetch the pages that a SELECT touches, which the remote runs."""

    query: str


@dataclass
class PartialSyncOpts:
    """Partial sync: what to fetch at the first connect, and how to fetch the rest later."""

    #: None: only the page without which nothing can be opened.
    bootstrap_strategy: PartialSyncPrefixBootstrap | PartialSyncQueryBootstrap | None = None
    #: Bytes around an absent page that are fetched with it. Default: 128 KiB.
    segment_size: int | None = None
    #: What comes along with an absent page. None: its segment and, where the remote can, what the SELECT that misses it
    #: touches: the statement is sent, with its values. True: also what a query is expected to want next. False: its segment alone.
    prefetch: bool | None = None


class RemoteEncryptionCipher(enum.Enum):
    """How a remote encrypts its database."""

    Aes256Gcm = "aes256gcm"
    Aes128Gcm = "aes128gcm"
    ChaCha20Poly1305 = "chacha20poly1305"
    Aegis128L = "aegis128l"
    Aegis128X2 = "aegis128x2"
    Aegis128X4 = "aegis128x4"
    Aegis256 = "aegis256"
    Aegis256X2 = "aegis256x2"
    Aegis256X4 = "aegis256x4"


@dataclass(frozen=True)
class Mutation:
    """A local change of a row, as a ``transform`` function sees it."""

    #: When it was made, in seconds since 1970.
    change_time: int
    table_name: str
    #: The row's key, where that is one integer.
    id: int | None
    change_type: Literal["insert", "update", "delete"]
    #: The row before, by column; None of an insert.
    before: dict[str, Any] | None
    #: The row after; None of a delete.
    after: dict[str, Any] | None
    #: Of an update: the new values of the columns that changed.
    updates: dict[str, Any] | None


@dataclass(frozen=True)
class Skip:
    """A ``transform`` function's answer: leave the change out."""


@dataclass(frozen=True)
class Rewrite:
    """A ``transform`` function's answer: this statement takes the change's place."""

    sql: str
    values: Sequence[Any] = ()


#: None keeps the change. ``{"operation": "skip"}`` and ``{"operation": "rewrite", "stmt": {"sql": ...,
#: "values": ...}}`` mean the same as :class:`Skip` and :class:`Rewrite`.
TransformResult = Union[None, Skip, Rewrite, Mapping[str, Any]]


@dataclass(frozen=True)
class Stats:
    """Counters and sizes of a replica. Bytes and requests count from the opening."""

    #: Local changes that were not pushed.
    cdc_operations: int
    #: Bytes of the write-ahead log.
    main_wal_size: int
    #: Bytes of the file of a pull under way.
    revert_wal_size: int
    #: In seconds since 1970.
    last_pull_unix_time: int | None
    last_push_unix_time: int | None
    #: The remote's revision that the replica is at.
    revision: str | None
    network_sent_bytes: int
    network_received_bytes: int
    requests: int
    page_size: int
    pages_total: int
    pages_present: int
    #: Pages that local transactions wrote since the revision.
    pages_dirty: int
    #: Pages that prefetch added and a query read later, and those that no query has read.
    prefetch_hits: int
    prefetch_wasted: int


@dataclass(frozen=True)
class Hydrated:
    """What a hydration did."""

    #: Pages that it fetched.
    fetched: int
    #: Pages of the remote's database that are still absent.
    absent: int


class ConnectionSync(Connection):
    """A connection to a replica. Made by :func:`turso.sync.connect`."""

    def pull(self) -> bool:
        """Brings the remote's changes and puts local ones that were not pushed back on top. True if anything
        changed.
        """
        return self._pull()

    def push(self) -> None:
        """Sends local changes to the remote, whole transactions in order."""
        self._push()

    def discard_change(self, change: int, *, with_dependents: bool = False) -> int:
        """Gives up a local change that the remote refuses (the exception's ``change``): it is neither pushed nor put
        back, and what it did is gone from here with the next pull. ``with_dependents``: also the later changes that
        cannot stay without it. Gives how many changes were given up.
        """
        return self._discard_change(change, with_dependents)

    def hydrate(
        self, query: str | None = None, *, progress: Callable[[int, int], object] | None = None
    ) -> Hydrated:
        """Fetches absent pages: all of them, or those that a SELECT touches when the remote runs it.
        ``progress(fetched, total)`` is called for each page, perhaps on another thread; ``total`` is 0 for a query.
        It cannot use the connection, and what it raises ends the call. What has come stays.
        """
        return Hydrated(*self._hydrate(query, progress))

    def checkpoint(self) -> None:
        """Moves the write-ahead log into the database file."""
        self._checkpoint()

    def stats(self) -> Stats:
        """Counters and sizes."""
        return Stats(**json.loads(self._stats()))


def connect(
    path: str | os.PathLike[str],
    remote_url: str | Callable[[], str | None] | None = None,
    *,
    remote_auth_token: str | Callable[[], str | None] | None = None,
    auth_token: str | Callable[[], str | None] | None = None,
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
    autocommit: bool | int | str = _dbapi.LEGACY_TRANSACTION_CONTROL,
    factory: Callable[..., ConnectionSync] = ConnectionSync,
    **unknown: NoReturn,
) -> ConnectionSync:
    """Opens a replica at ``path``, made from ``remote_url`` when there is none yet; ``:memory:`` leaves no file.

    ``remote_url`` (``libsql://``, ``https://``, ``http://``) and the token may be functions, which are asked
    before each request; a url of None pauses sync. Without ``remote_url`` this is a plain local database, or,
    where a replica is at the path, that replica with the url that it knows. Without ``partial_sync_opts`` the first connect
    fetches everything.

    Every option is described in docs/python.md.
    """
    if unknown:
        refuse_unknown(connect, unknown)
    checked_or_none("logical_mvcc_pull", logical_mvcc_pull)
    partial = either(
        ("partial_sync_opts", partial_sync_opts), ("partial_sync_experimental", partial_sync_experimental)
    )
    remote = Remote(
        url=checked_or_none("remote_url", remote_url),
        auth_token=either(
            ("remote_auth_token", checked_or_none("remote_auth_token", remote_auth_token)),
            ("auth_token", checked_or_none("auth_token", auth_token)),
        ),
        client_name=_turso._client_name if client_name is None else checked("client_name", client_name),
        long_poll_timeout_ms=checked_or_none("long_poll_timeout_ms", long_poll_timeout_ms),
        bootstrap_if_empty=checked("bootstrap_if_empty", bootstrap_if_empty),
        accept_new_url=checked("accept_new_url", accept_new_url),
        transform=None if transform is None else _transformer(transform),
        push_operations_threshold=checked_or_none("push_operations_threshold", push_operations_threshold),
        pull_bytes_threshold=checked_or_none("pull_bytes_threshold", pull_bytes_threshold),
        encryption=_encryption(remote_encryption_key, remote_encryption_cipher),
        request_timeout=checked_or_none("request_timeout", request_timeout),
        **_partial(partial),
    )
    options = {
        "timeout": timeout,
        "detect_types": detect_types,
        "isolation_level": isolation_level,
        "check_same_thread": check_same_thread,
        "cached_statements": cached_statements,
        "autocommit": autocommit,
    }
    return factory(path, **changed(connect, options), _remote=remote)


def _partial(opts: Any) -> dict[str, Any]:
    if opts is None:
        return {"partial": False, "bootstrap": None, "segment_size": None, "prefetch": None}
    if not isinstance(opts, PartialSyncOpts):
        raise _turso._wrong_option("partial_sync_opts", opts, "a PartialSyncOpts")
    strategy = opts.bootstrap_strategy
    bootstrap: int | str | None
    if strategy is None:
        bootstrap = None
    elif isinstance(strategy, PartialSyncPrefixBootstrap):
        bootstrap = checked("PartialSyncPrefixBootstrap.length", strategy.length)
    elif isinstance(strategy, PartialSyncQueryBootstrap):
        bootstrap = checked("PartialSyncQueryBootstrap.query", strategy.query)
    else:
        raise _turso._wrong_option(
            "PartialSyncOpts.bootstrap_strategy",
            strategy,
            "a PartialSyncPrefixBootstrap or a PartialSyncQueryBootstrap",
        )
    return {
        "partial": True,
        "bootstrap": bootstrap,
        "segment_size": checked_or_none("PartialSyncOpts.segment_size", opts.segment_size),
        "prefetch": checked_or_none("PartialSyncOpts.prefetch", opts.prefetch),
    }


def _encryption(
    key: str | None, cipher: RemoteEncryptionCipher | str | None
) -> tuple[str, str | None] | None:
    if key is None:
        if cipher is not None:
            raise ProgrammingError("remote_encryption_cipher needs remote_encryption_key")
        return None
    name = cipher.value if isinstance(cipher, RemoteEncryptionCipher) else cipher
    return checked("remote_encryption_key", key), checked_or_none("remote_encryption_cipher", name)


def _transformer(transform: Callable[[Mutation], TransformResult]) -> Callable[..., Any]:
    """Makes of the answers what the native part expects: None, False, or SQL and values."""
    checked("transform", transform)

    def ask(*mutation: Any) -> None | Literal[False] | tuple[str, tuple[Any, ...]]:
        answer = transform(Mutation(*mutation))
        if answer is None:
            return None
        if isinstance(answer, Skip):
            return False
        if isinstance(answer, Rewrite):
            return _rewrite(answer.sql, answer.values)
        if isinstance(answer, Mapping):
            operation = answer.get("operation")
            if operation == "skip":
                return False
            if operation == "rewrite":
                stmt = answer["stmt"]
                return _rewrite(stmt["sql"], stmt.get("values", ()))
        raise TypeError(f"transform gave {answer!r}; it must give None, Skip() or Rewrite(sql, values)")

    return ask


def _rewrite(sql: Any, values: Any) -> tuple[str, tuple[Any, ...]]:
    if not isinstance(sql, str):
        raise TypeError(f"the SQL of a rewrite must be a str, not {type(sql).__name__}: {sql!r}")
    if isinstance(values, (str, bytes, Mapping)):
        raise TypeError(f"the values of a rewrite must be a sequence of values, not {type(values).__name__}")
    return sql, tuple(values)
