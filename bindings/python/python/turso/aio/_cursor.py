"""`turso.aio.Cursor`: a cursor whose calls are awaited."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import turso

if TYPE_CHECKING:
    from ._connection import Connection

C = TypeVar("C", bound="Cursor")
T = TypeVar("T")

#: Rows that the first piece of an `async for` reads; each further piece reads twice as many, up to
#: `iter_chunk_size`.
_FIRST_CHUNK = 8


def taken(parameters: Any) -> Any:
    """Parameters as they are now: they are bound when the call has its turn, and other tasks may change a list meanwhile."""
    if type(parameters) is list:
        return tuple(parameters)
    return dict(parameters) if type(parameters) is dict else parameters


def all_taken(many: Iterable[Any]) -> Iterable[Any]:
    """The same for the parameters of many calls. What is not a list is read when the call has its turn."""
    return [taken(one) for one in many] if isinstance(many, list | tuple) else many


class Cursor:
    """Runs statements and hands out their rows. Made by `Connection.cursor()` and the `execute` methods.

    ``await connection.cursor()`` and ``async with connection.cursor() as cursor`` work too.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor: turso.Cursor | None = None
        # Rows that were read and not handed out. The thread of the connection puts them here itself: when
        # the one who asked for them is cancelled at the last moment, they are there for the next who asks.
        self._rows: deque[Any] = deque()
        # There are no others.
        self._ended = True
        self._failed: BaseException | None = None
        self._chunk = _FIRST_CHUNK
        self._closed = False
        self._description: Any = None
        self._rowcount = -1
        self._lastrowid: int | None = None
        self._arraysize = 1
        self._row_factory = connection.row_factory

    async def execute(self: C, sql: str, parameters: Any = ()) -> C:
        """Runs one statement. Parameters: a sequence for `?`, a mapping for `:name`, `@name` and `$name`."""
        given = taken(parameters)
        await self._begin(lambda cursor: cursor.execute(sql, given))
        return self

    async def executemany(self: C, sql: str, parameters: Iterable[Any]) -> C:
        """Runs a statement that changes something once for each of the parameters."""
        given = all_taken(parameters)
        await self._begin(lambda cursor: cursor.executemany(sql, given))
        return self

    async def executescript(self: C, sql_script: str) -> C:
        """Commits the transaction that is open, and runs all statements of a script."""
        self._check()
        # As with blocking cursors, rows of an earlier statement can still be fetched.
        await self._connection._run(lambda: self._below().executescript(sql_script))
        return self

    async def fetchone(self) -> Any:
        """The next row; None at the end."""
        self._check()
        if not self._rows and not self._ended:
            await self._read(lambda: self._fetch(1))
        return self._rows.popleft() if self._rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows, at most `size` (default: `arraysize`)."""
        self._check()
        wanted = self._arraysize if size is None else size
        if wanted > len(self._rows) and not self._ended:
            missing = wanted - len(self._rows)
            await self._read(lambda: self._fetch(missing))
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    async def fetchall(self) -> list[Any]:
        """All rows that are left."""
        self._check()
        if not self._ended:
            await self._read(lambda: self._fetch(None))
        rows = list(self._rows)
        self._rows.clear()
        return rows

    async def _execute_fetchall(self, sql: str, parameters: Any) -> list[Any]:
        """Runs one statement and gives its rows, in one turn."""
        self._check()
        given = taken(parameters)

        def work() -> list[Any]:
            self._execute(lambda cursor: cursor.execute(sql, given))
            if not self._ended:
                self._fetch(None)
            rows = list(self._rows)
            self._rows.clear()
            return rows

        return await self._connection._run(work)

    def __aiter__(self: C) -> C:
        return self

    async def __anext__(self) -> Any:
        self._check()
        if not self._rows and not self._ended:
            chunk = min(self._chunk, self._connection.iter_chunk_size)
            self._chunk = chunk * 2
            await self._read(lambda: self._fetch_ahead(chunk))
        if not self._rows:
            raise StopAsyncIteration
        return self._rows.popleft()

    async def close(self) -> None:
        """Ends the statement, after the calls that wait already; the cursor cannot be used any more."""
        if self._closed:
            return
        self._closed = True
        self._rows.clear()
        if self._cursor is not None and self._connection.is_open:
            # Whatever is called next comes after it, so there is nothing to wait for.
            self._connection._run_later(self._cursor.close)

    def __await__(self: C) -> Generator[Any, Any, C]:
        return self
        yield

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def connection(self) -> Connection:
        """The connection."""
        return self._connection

    @property
    def description(self) -> Any:
        """The columns of the result, seven values each, of which only the first, the name, is not None."""
        return self._description

    @property
    def rowcount(self) -> int:
        """Rows that the last INSERT, UPDATE, DELETE or REPLACE changed; -1 after anything else."""
        return self._rowcount

    @property
    def lastrowid(self) -> int | None:
        """Rowid of the last row that was inserted."""
        return self._lastrowid

    @property
    def arraysize(self) -> int:
        """How many rows `fetchmany` gives. Default: 1."""
        return self._arraysize

    @arraysize.setter
    def arraysize(self, size: int) -> None:
        self._arraysize = size

    @property
    def row_factory(self) -> Any:
        """Makes rows: called with the cursor below this one and a tuple. None: tuples."""
        return self._row_factory

    @row_factory.setter
    def row_factory(self, factory: Any) -> None:
        if self._row_factory is None and factory is not None:
            self._rows = deque(factory(self._cursor, row) for row in self._rows)
        self._row_factory = factory

    def setinputsizes(self, sizes: Any) -> None:
        """Does nothing; for the DB-API."""

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Does nothing; for the DB-API."""

    def _check(self) -> None:
        if self._closed:
            raise turso.ProgrammingError("Cannot operate on a closed cursor.")
        self._connection._check()

    async def _begin(self, work: Callable[[turso.Cursor], object]) -> None:
        self._check()
        await self._connection._run(lambda: self._execute(work))

    async def _read(self, fetch: Callable[[], None]) -> None:
        try:
            await self._connection._run(fetch)
        except asyncio.CancelledError:
            raise
        except BaseException:
            # It has been told.
            self._failed = None
            raise

    # In the thread of the connection.

    def _below(self) -> turso.Cursor:
        if self._cursor is None:
            self._cursor = self._connection._below().cursor()
            self._connection._cursors.add(self)
        if self._cursor.row_factory is not self._row_factory:
            self._cursor.row_factory = self._row_factory
        return self._cursor

    def _execute(self, work: Callable[[turso.Cursor], object]) -> None:
        self._rows.clear()
        self._ended = True
        self._failed = None
        self._chunk = _FIRST_CHUNK
        cursor = self._below()
        try:
            work(cursor)
        finally:
            self._description = cursor.description
            self._rowcount = cursor.rowcount
            self._lastrowid = cursor.lastrowid
        if self._description is None:
            return
        self._ended = False
        if self._row_factory is None:
            # The first row is there already: it need not be asked for.
            try:
                self._fetch(1)
            except Exception:
                # Anyone who asks for it is told.
                pass

    def _fetch(self, most: int | None) -> None:
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        cursor = self._below()
        try:
            if most == 1:
                row = cursor.fetchone()
                rows = [] if row is None else [row]
            else:
                rows = cursor.fetchall() if most is None else cursor.fetchmany(most)
            self._rows.extend(rows)
            self._ended = most is None or len(rows) < most
        except BaseException as error:
            # Where nobody waits any more: the end that follows must not be taken for the end of the rows.
            self._failed = error
            raise

    def _fetch_ahead(self, most: int) -> None:
        """For `async for`, which gets the rows before an error, and then the error."""
        if self._failed is not None:
            self._fetch(1)
        before = len(self._rows)
        cursor = self._below()
        try:
            # The buffer grows row by row.
            self._rows.extend(itertools.islice(cursor, most))
            self._ended = len(self._rows) - before < most
        except BaseException as error:
            self._failed = error
            if len(self._rows) == before:
                raise

    def _settle(self) -> None:
        """After an interrupt that continues. SQLite holds on to one as long as any statement is under way,
        so a query of which rows are left makes every other statement fail: let it fail itself, and say so
        later."""
        if self._ended or self._failed is not None:
            return
        try:
            # The row that it stands on already, and another one.
            for _ in range(2):
                self._fetch(1)
        except turso.Error:
            pass
