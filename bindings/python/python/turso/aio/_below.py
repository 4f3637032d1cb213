"""The blocking connection below an asynchronous one, and the functions of the program that it calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import turso

B = TypeVar("B", bound=turso.Connection)

#: Seconds between two looks whether the event loop that is to answer still runs.
_LOOK = 0.1


class Kept:
    """A function of the program. The asynchronous connection alone keeps it: the thread of the connection, which lives until
    that connection goes, only looks at it. A method of an object that has the connection would keep both for ever else."""

    __slots__ = ("function", "__weakref__")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def weakly(self) -> Callable[..., Any]:
        """The same, without keeping it."""
        kept = weakref.ref(self)

        def call(*arguments: Any) -> Any:
            here = kept()
            if here is None:
                raise ReferenceError("the connection that this function was given to is gone")
            return here.function(*arguments)

        return call


class Below(Generic[B]):
    """The blocking connection. Only the worker's thread uses it, but for interrupting it."""

    def __init__(
        self, kind: type[B], connect: Callable[..., B], arguments: tuple[Any, ...], options: dict[str, Any]
    ):
        self._kind = kind
        self._connect = connect
        self._arguments = arguments
        self._options = options
        self._connection: B | None = None
        self.is_open = False
        #: The loop of the last call, which asynchronous functions run on.
        self.loop: asyncio.AbstractEventLoop | None = None
        #: Functions that were given when it was made, for the asynchronous connection to keep.
        self.kept: list[Kept] = []
        # Answers of such functions that the database waits for.
        self._awaited: set[concurrent.futures.Future[Any]] = set()

    def open(self) -> None:
        self._connect(*self._arguments, **self._options, factory=self._make)
        self.is_open = True

    def _make(self, *arguments: Any, **options: Any) -> B:
        # Anyone who wants to break off the opening finds the connection before it is open.
        self._connection = self._kind.__new__(self._kind)
        self._connection.__init__(*arguments, **options)  # type: ignore[misc]
        return self._connection

    def get(self) -> B:
        """The connection, which is open."""
        if self._connection is None or not self.is_open:
            raise turso.ProgrammingError("Cannot operate on a closed database.")
        return self._connection

    def interrupt(self) -> None:
        for future in list(self._awaited):
            future.cancel()
        connection = self._connection
        if connection is not None:
            try:
                connection.interrupt()
            except turso.ProgrammingError:
                # It has been closed meanwhile.
                pass

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self.is_open:
            self.is_open = False
            connection.close()

    def keeping(self, function: Any) -> Any:
        """A function as one that is not kept here. Anything else stays what it is."""
        if isinstance(function, str) or not callable(function):
            return function
        kept = Kept(function)
        self.kept.append(kept)
        return kept.weakly()

    def asking(self, function: Any) -> Any:
        """A function, which may be asynchronous, as one that other threads can call. Anything else stays
        what it is."""
        if isinstance(function, str) or not callable(function):
            return function
        function = self.keeping(function)

        def ask() -> Any:
            answer = function()
            return self._wait_for(answer) if inspect.isawaitable(answer) else answer

        return ask

    def _wait_for(self, answer: Awaitable[Any]) -> Any:
        loop = self.loop
        waiting = _the_answer(answer)
        try:
            if loop is None:
                raise RuntimeError("there is no event loop")
            future = asyncio.run_coroutine_threadsafe(waiting, loop)
        except RuntimeError:
            waiting.close()
            raise
        self._awaited.add(future)
        try:
            return _result(future, loop)
        finally:
            self._awaited.discard(future)


def _result(future: concurrent.futures.Future[Any], loop: asyncio.AbstractEventLoop) -> Any:
    while True:
        try:
            return future.result(_LOOK)
        except concurrent.futures.CancelledError:
            raise RuntimeError("interrupted while a function was asked") from None
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            if not loop.is_running():
                future.cancel()
                raise RuntimeError("the event loop ended before a function gave its answer") from None


async def _the_answer(answer: Awaitable[Any]) -> Any:
    return await answer
