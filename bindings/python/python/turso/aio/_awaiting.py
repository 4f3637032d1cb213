"""What `execute` and its like give: something to await, or to enter with `async with`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol, TypeVar


class Closable(Protocol):
    async def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class Opening(Coroutine[Any, Any, C]):
    """`cursor = await opening`, or `async with opening as cursor`, which closes it in the end."""

    __slots__ = ("_coroutine", "_opened")

    def __init__(self, coroutine: Coroutine[Any, Any, C]) -> None:
        self._coroutine = coroutine
        self._opened: C | None = None

    def __await__(self) -> Generator[Any, Any, C]:
        return self._coroutine.__await__()

    # The rest of a coroutine, so that `asyncio.create_task` takes it.

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    async def __aenter__(self) -> C:
        self._opened = await self._coroutine
        return self._opened

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """`async for row in connection.execute(...)`."""
        async with self as cursor:
            async for row in cursor:  # type: ignore[attr-defined]
                yield row


class Done:
    """For calls that have nothing to wait for: they may be awaited all the same."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield
