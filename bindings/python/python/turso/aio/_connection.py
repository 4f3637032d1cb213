"""`turso.aio.Connection`: a connection whose calls are awaited."""

from __future__ import annotations

import asyncio
import builtins
import itertools
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from types import TracebackType
from typing import Any, TypeVar

import turso
from turso._options import checked

from ._awaiting import Done, Opening
from ._below import Below, Kept
from ._cursor import Cursor, all_taken, taken
from ._worker import Call, Worker

S = TypeVar("S", bound="Connection")
T = TypeVar("T")

_CLOSED = "Cannot operate on a closed database."
_numbers = itertools.count(1)


def _autocommit(value: Any) -> Any:
    """The same under one name, where it has two."""
    return turso.LEGACY_TRANSACTION_CONTROL if value == -1 else value


class Connection:
    """A connection, made by `turso.aio.connect`. It opens when it is awaited, entered or first used.

    Calls are run one after the other, in the order in which they were made, in a thread of the connection's
    own. A task that is cancelled while it awaits one interrupts it, a wait for the network included, and the
    connection stays usable.
    """

    def __init__(
        self, below: Below[Any], isolation_level: str | None, autocommit: Any, iter_chunk_size: int
    ) -> None:
        self._base = below
        # Functions of the program; below they are not kept.
        self._kept, below.kept = below.kept, []
        self._functions: dict[Any, Kept] = {}
        self._worker: Worker | None = None
        self._closed = False
        self._cursors: weakref.WeakSet[Cursor] = weakref.WeakSet()
        #: Rows that `async for` reads ahead at most.
        self.iter_chunk_size = iter_chunk_size
        self._settings: dict[str, Any] = {
            "isolation_level": isolation_level.upper()
            if isinstance(isolation_level, str)
            else isolation_level,
            "autocommit": _autocommit(autocommit),
            "row_factory": None,
            "text_factory": str,
        }
        self._query_timeout = 0
        # Settings that were made before the connection was open.
        self._early: list[Callable[[Any], None]] = []
        self._late: BaseException | None = None
        self._in_transaction = False
        self._total_changes = 0

    # Opening and closing.

    def __await__(self: S) -> Generator[Any, Any, S]:
        return self._opened().__await__()

    async def _opened(self: S) -> S:
        await self._run(lambda: None)
        return self

    async def __aenter__(self: S) -> S:
        return await self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection after the calls that wait already; a transaction that is open is rolled
        back."""
        if self._closed:
            return
        self._closed = True
        worker = self._worker
        if worker is not None and not worker.stopped:
            call = worker.submit(self._base.close)
            worker.stop()
            await worker.result(call)

    def stop(self) -> None:
        """Closes the connection without waiting for that, and breaks what runs on it."""
        self._closed = True
        if self._worker is not None:
            self._worker.break_off(lambda: turso.ProgrammingError(_CLOSED))

    def __del__(self) -> None:
        worker = getattr(self, "_worker", None)
        if worker is not None and not worker.stopped:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            worker.stop()

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not closed."""
        return self._worker is not None and not self._closed

    # Statements.

    def cursor(self, factory: Callable[[Connection], Cursor] | None = None) -> Cursor:
        """A new cursor; `factory` makes it, given the connection."""
        self._check()
        return Cursor(self) if factory is None else factory(self)

    def execute(self, sql: str, parameters: Any = ()) -> Opening[Cursor]:
        """Runs one statement on a new cursor and gives the cursor.

        ``cursor = await connection.execute(...)``, or ``async with connection.execute(...) as cursor``.
        """
        return Opening(self._execute(sql, parameters))

    def executemany(self, sql: str, parameters: Iterable[Any]) -> Opening[Cursor]:
        """Runs a statement once for each of the parameters, on a new cursor."""
        return Opening(self._executemany(sql, parameters))

    def executescript(self, sql_script: str) -> Opening[Cursor]:
        """Commits the transaction that is open, and runs all statements of a script."""
        return Opening(self._executescript(sql_script))

    async def _execute(self, sql: str, parameters: Any) -> Cursor:
        return await self.cursor().execute(sql, parameters)

    async def _executemany(self, sql: str, parameters: Iterable[Any]) -> Cursor:
        return await self.cursor().executemany(sql, parameters)

    async def _executescript(self, sql_script: str) -> Cursor:
        return await self.cursor().executescript(sql_script)

    async def execute_fetchall(self, sql: str, parameters: Any = ()) -> list[Any]:
        """Runs a query and gives its rows."""
        given = taken(parameters)
        return await self._run(lambda: self._below().execute(sql, given).fetchall())

    async def batch(self, statements: Iterable[Any], mode: str | None = None) -> list[turso.BatchResult]:
        """Runs statements, each SQL or a pair of SQL and parameters; with a `mode` ("deferred",
        "immediate" or "exclusive") as one transaction."""
        given = statements
        if isinstance(statements, list | tuple):
            given = [tuple(all_taken(one)) if isinstance(one, list | tuple) else one for one in statements]
        return await self._run(lambda: self._below().batch(given, mode))

    async def commit(self) -> None:
        """Makes the changes of the open transaction permanent."""
        await self._run(lambda: self._below().commit())

    async def rollback(self) -> None:
        """Undoes the changes of the open transaction."""
        await self._run(lambda: self._below().rollback())

    async def iterdump(self) -> AsyncIterator[str]:
        """The database as SQL, statement by statement."""
        lines = await self._run(lambda: iter(self._below().iterdump()))
        while piece := await self._run(lambda: list(itertools.islice(lines, self.iter_chunk_size))):
            for line in piece:
                yield line

    async def create_function(
        self, name: str, narg: int, func: Callable[..., Any] | None, *, deterministic: bool = False
    ) -> None:
        """Makes a function for SQL, or with None removes it. It is called in the thread of the connection."""
        func = self._keep((name.lower(), narg), func)
        await self._run(lambda: self._below().create_function(name, narg, func, deterministic=deterministic))

    async def create_aggregate(
        self, name: str, n_arg: int, aggregate_class: Callable[[], Any] | None
    ) -> None:
        """Makes an aggregate function for SQL, of a class with `step` and `finalize`."""
        aggregate_class = self._keep((name.lower(), n_arg), aggregate_class)
        await self._run(lambda: self._below().create_aggregate(name, n_arg, aggregate_class))

    async def create_collation(self, name: str, callable: Callable[[str, str], int] | None) -> None:
        """Makes a collation, of a function that gives a negative number, 0 or a positive one."""
        callable = self._keep(name.lower(), callable)
        await self._run(lambda: self._below().create_collation(name, callable))

    def _keep(self, key: Any, function: Any) -> Any:
        """Keeps a function as long as SQL has it, and gives what stands for it below."""
        if not builtins.callable(function):
            self._functions.pop(key, None)
            return function
        kept = self._functions[key] = Kept(function)
        return kept.weakly()

    def set_query_timeout(self, milliseconds: int) -> Done:
        """Sets how long a statement may run, network waits included; 0: for ever. It need not be awaited."""
        checked("set_query_timeout.milliseconds", milliseconds)
        self._query_timeout = milliseconds
        self._later(lambda connection: connection.set_query_timeout(milliseconds))
        return Done()

    def get_query_timeout(self) -> int:
        """How long a statement may run, in milliseconds; 0: as long as it takes."""
        return self._query_timeout

    def interrupt(self) -> Done:
        """Breaks what runs on this connection now, a wait for the network included. It need not be
        awaited."""
        self._check()
        if self._worker is not None and self._worker.interrupt():
            self._run_later(self._settle)
        return Done()

    # Settings.

    @property
    def in_transaction(self) -> bool:
        """True while a transaction is open, as of the last call that has ended."""
        return self._in_transaction

    @property
    def total_changes(self) -> int:
        """Rows changed since the connection was opened, as of the last call that has ended."""
        return self._total_changes

    @property
    def isolation_level(self) -> str | None:
        """How an implicit transaction is begun: "DEFERRED", "IMMEDIATE" or "EXCLUSIVE"; None: there are
        none."""
        level: str | None = self._settings["isolation_level"]
        return level

    @isolation_level.setter
    def isolation_level(self, level: str | None) -> None:
        levels = ("", "DEFERRED", "IMMEDIATE", "EXCLUSIVE")
        if level is not None and not isinstance(level, str):
            raise TypeError("isolation_level must be str or None")
        if level is not None and level.upper() not in levels:
            raise ValueError(
                f"isolation_level = {level!r} is not one of {', '.join(map(repr, levels))} and None"
            )
        self._set("isolation_level", level if level is None else level.upper())

    @property
    def autocommit(self) -> Any:
        """True: there are no implicit transactions. False: one is always open. "LEGACY" (the default): as
        `isolation_level` says."""
        return self._settings["autocommit"]

    @autocommit.setter
    def autocommit(self, value: Any) -> None:
        if not (isinstance(value, bool) or value == "LEGACY" or value == -1):
            raise turso.ProgrammingError(
                f"autocommit = {value!r} is not one of True, False and turso.LEGACY_TRANSACTION_CONTROL"
            )
        self._set("autocommit", _autocommit(value))

    @property
    def row_factory(self) -> Any:
        """Makes the rows of cursors made from now on: called with the cursor and a tuple. None: tuples."""
        return self._settings["row_factory"]

    @row_factory.setter
    def row_factory(self, factory: Any) -> None:
        self._set("row_factory", factory)

    @property
    def text_factory(self) -> Any:
        """Makes TEXT into something: `str` (the default), `bytes`, `bytearray`, or a function of bytes."""
        return self._settings["text_factory"]

    @text_factory.setter
    def text_factory(self, factory: Any) -> None:
        self._set("text_factory", factory)

    def _set(self, name: str, value: Any) -> None:
        self._settings[name] = value
        self._later(lambda connection: setattr(connection, name, value))

    def _later(self, change: Callable[[Any], None]) -> None:
        """Changes something below, after the calls that wait already. An error of it comes from the next
        call."""
        self._check()
        if self._worker is None:
            self._early.append(change)
        else:
            self._worker.submit(lambda: self._change(change), forget=True)

    # Calls.

    def _check(self) -> None:
        if self._closed or (self._worker is not None and self._worker.stopped):
            raise turso.ProgrammingError(_CLOSED)

    def _run_later(self, work: Callable[[], object]) -> None:
        """Runs something that nobody waits for and that does not fail."""
        if self._worker is not None and not self._worker.stopped:
            self._worker.submit(work, forget=True)

    async def _run(self, work: Callable[[], T]) -> T:
        """Runs something in the thread of the connection, after what is waiting already."""
        self._check()
        self._base.loop = asyncio.get_running_loop()
        opening: Call[None] | None = None
        worker = self._worker
        if worker is None:
            name = f"turso.aio connection {next(_numbers)}"
            worker = self._worker = Worker(name, self._base.interrupt, self._base.close)
            opening = worker.submit(self._open)
        call = worker.submit(lambda: self._noting(work))
        if opening is not None:
            try:
                await worker.result(opening)
            except BaseException:
                call.abandoned = True
                self.stop()
                raise
        try:
            return await worker.result(call)
        finally:
            if call.abandoned:
                self._run_later(self._settle)

    # In the thread of the connection.

    def _below(self) -> Any:
        return self._base.get()

    def _open(self) -> None:
        self._base.open()
        for change in self._early:
            self._change(change)

    def _noting(self, work: Callable[[], T]) -> T:
        if self._late is not None:
            late, self._late = self._late, None
            raise late
        try:
            return work()
        finally:
            self._note()

    def _note(self) -> None:
        if self._base.is_open:
            connection = self._base.get()
            self._in_transaction = connection.in_transaction
            self._total_changes = connection.total_changes

    def _change(self, change: Callable[[Any], None]) -> None:
        try:
            change(self._below())
        except BaseException as error:
            self._late = error
        self._note()

    def _settle(self) -> None:
        """Sees to it, after an interrupt, that statements can be run again."""
        try:
            self._below().execute("SELECT 1").close()
        except turso.OperationalError:
            for cursor in list(self._cursors):
                cursor._settle()
        self._note()
