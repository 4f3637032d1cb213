"""The part of an engine's URL after the ``?``: options of ``connect``, as text."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import URL

import turso.sync
from turso import _turso


def _boolean(text: str) -> bool:
    values = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if text.lower() not in values:
        raise ValueError("must be true or false")
    return values[text.lower()]


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be an integer") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number") from None


def _isolation_level(text: str) -> str | None:
    return None if text.upper() in ("AUTOCOMMIT", "NONE") else text


def _autocommit(text: str) -> bool | str:
    return text if text.upper() == "LEGACY" else _boolean(text)


#: Of `turso.connect` and `turso.sync.connect`.
_BOTH: Mapping[str, Callable[[str], Any]] = {
    "timeout": _number,
    "isolation_level": _isolation_level,
    "autocommit": _autocommit,
    "detect_types": _integer,
    "check_same_thread": _boolean,
    "cached_statements": _integer,
    "experimental_features": str,
}
_LOCAL: Mapping[str, Callable[[str], Any]] = {"uri": _boolean}
_REPLICA: Mapping[str, Callable[[str], Any]] = {
    "remote_url": str,
    "remote_auth_token": str,
    "auth_token": str,
    "client_name": str,
    "long_poll_timeout_ms": _integer,
    "bootstrap_if_empty": _boolean,
    "accept_new_url": _boolean,
    "push_operations_threshold": _integer,
    "pull_bytes_threshold": _integer,
    "remote_encryption_key": str,
    "remote_encryption_cipher": str,
    "request_timeout": _number,
}
#: What `PartialSyncOpts` holds.
_PARTIAL: Mapping[str, Callable[[str], Any]] = {
    "bootstrap_prefix": _integer,
    "bootstrap_query": str,
    "segment_size": _integer,
    "prefetch": _boolean,
}
_ALL = {**_BOTH, **_LOCAL, **_REPLICA, **_PARTIAL}

#: Keywords that only `turso.sync.connect` knows.
REPLICA_KEYWORDS = frozenset(
    [*_REPLICA, "partial_sync_opts", "partial_sync_experimental", "transform", "logical_mvcc_pull"]
)


def connect_args(url: URL) -> tuple[list[Any], dict[str, Any]]:
    """What `connect` is called with."""
    if url.username or url.password or url.host or url.port:
        raise exc.ArgumentError(
            f"a database is named by its path: sqlite+turso:///relative.db, sqlite+turso:////absolute.db or "
            f"sqlite+turso:// for one in memory, with the remote as ?remote_url=...; not {url}"
        )
    options: dict[str, Any] = {}
    for name, value in url.query.items():
        if name not in _ALL:
            raise exc.ArgumentError(
                f"the URL of the engine has an {_turso._unknown_option(name, list(_ALL))}"
            )
        if not isinstance(value, str):
            raise exc.ArgumentError(f"the URL of the engine has the option {name!r} more than once")
        try:
            options[name] = _ALL[name](value)
        except ValueError as error:
            raise exc.ArgumentError(f"{name}={value!r} in the URL of the engine {error}") from None
    partial = {name: options.pop(name) for name in _PARTIAL if name in options}
    if partial:
        options["partial_sync_opts"] = _partial_sync_opts(**partial)
    path = url.database or ":memory:"
    if path != ":memory:" and not options.get("uri"):
        path = os.path.abspath(path)
    return [path], options


def _partial_sync_opts(
    bootstrap_prefix: int | None = None, bootstrap_query: str | None = None, **rest: Any
) -> turso.sync.PartialSyncOpts:
    if bootstrap_prefix is not None and bootstrap_query is not None:
        raise exc.ArgumentError(
            "bootstrap_prefix and bootstrap_query in the URL of the engine: give one of them"
        )
    strategy: turso.sync.PartialSyncPrefixBootstrap | turso.sync.PartialSyncQueryBootstrap | None = None
    if bootstrap_prefix is not None:
        strategy = turso.sync.PartialSyncPrefixBootstrap(bootstrap_prefix)
    if bootstrap_query is not None:
        strategy = turso.sync.PartialSyncQueryBootstrap(bootstrap_query)
    return turso.sync.PartialSyncOpts(bootstrap_strategy=strategy, **rest)
