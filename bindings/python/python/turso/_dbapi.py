"""The names of the DB-API that need no connection: constants, exceptions, constructors, adapters and
converters.
"""

from __future__ import annotations

import collections.abc
import datetime
import time
from typing import Any, Callable, TypeVar

from . import _turso
from ._turso import (
    PARSE_COLNAMES,
    PARSE_DECLTYPES,
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    PrepareProtocol,
    ProgrammingError,
    Warning,
    adapters,
    converters,
    sqlite_version,
)

apilevel = "2.0"
paramstyle = "qmark"
#: Threads may share the module, connections and cursors.
threadsafety = 3

sqlite_version_info: tuple[int, int, int] = tuple(map(int, sqlite_version.split(".")))  # type: ignore[assignment]
version = "2.6.0"
version_info = (2, 6, 0)

#: ``Connection.autocommit`` of connections whose ``isolation_level`` says when transactions begin.
LEGACY_TRANSACTION_CONTROL = "LEGACY"

_T = TypeVar("_T")

Date = datetime.date
Time = datetime.time
Timestamp = datetime.datetime
Binary = memoryview


def DateFromTicks(ticks: float) -> datetime.date:
    """The local date of a time in seconds since 1970."""
    return Date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> datetime.time:
    """The local time of day of a time in seconds since 1970."""
    return Time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> datetime.datetime:
    """The local date and time of a time in seconds since 1970."""
    return Timestamp(*time.localtime(ticks)[:6])


def register_adapter(type: type[_T], adapter: Callable[[_T], Any], /) -> None:
    """Makes ``adapter`` turn objects of exactly this type into something that SQLite can store."""
    if type in (int, float, str, bytearray):
        _turso._adapt_basic_types()
    adapters[(type, PrepareProtocol)] = adapter


def register_converter(typename: str, converter: Callable[[bytes], Any], /) -> None:
    """Makes ``converter`` turn values of columns of this declared type into objects; see ``detect_types``."""
    if not isinstance(typename, str):
        raise TypeError(f"register_converter() argument 1 must be str, not {type(typename).__name__}")
    converters[typename.upper()] = converter


_MISSING = object()


def adapt(obj: Any, protocol: Any = PrepareProtocol, alternative: Any = _MISSING, /) -> Any:
    """What an adapter, or the object's ``__conform__``, makes of it by a protocol; else ``alternative``."""
    adapted = _turso._adapt(obj, protocol)
    if adapted is not None:
        return adapted
    if alternative is _MISSING:
        raise ProgrammingError("can't adapt")
    return alternative


def _adapt_date(value: datetime.date) -> str:
    return value.isoformat()


def _adapt_datetime(value: datetime.datetime) -> str:
    return value.isoformat(" ")


def _convert_date(value: bytes) -> datetime.date:
    return datetime.date(*map(int, value.split(b"-")))


def _convert_timestamp(value: bytes) -> datetime.datetime:
    return datetime.datetime.fromisoformat(value.decode())


register_adapter(datetime.date, _adapt_date)
register_adapter(datetime.datetime, _adapt_datetime)
register_converter("date", _convert_date)
register_converter("timestamp", _convert_timestamp)

collections.abc.Sequence.register(_turso.Row)

for _name, _code in _turso.error_codes:
    globals()[_name] = _code

__all__ = [
    "PARSE_COLNAMES",
    "PARSE_DECLTYPES",
    "LEGACY_TRANSACTION_CONTROL",
    "Binary",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "PrepareProtocol",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "adapt",
    "adapters",
    "apilevel",
    "converters",
    "paramstyle",
    "register_adapter",
    "register_converter",
    "sqlite_version",
    "sqlite_version_info",
    "threadsafety",
    "version",
    "version_info",
    *(name for name, _ in _turso.error_codes),
]
