"""The random programs of `test_like_sqlite3`, run through asyncio: the answers must be those of blocking
connections.

They differ in one thing: the first row of a query is read together with its execution. Programs that could
tell, by changing what a query is reading or the `text_factory` in between, are none of these.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.aio
from test_like_sqlite3 import Machine, program


class Blocking:
    """A connection or cursor of `turso.aio` that can be used like one of `turso`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, below: Any) -> None:
        self.__dict__.update(loop=loop, below=below)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.below, name)
        if not callable(value) or name.endswith("factory"):
            return value
        return lambda *arguments: self.answer(value(*arguments))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.below, name, value)

    def answer(self, value: Any) -> Any:
        if isinstance(value, turso.aio.Cursor):
            pass
        elif inspect.isawaitable(value):
            value = self.loop.run_until_complete(_result(value))
        if value is self.below:
            return self
        return Blocking(self.loop, value) if isinstance(value, turso.aio.Cursor) else value

    def __next__(self) -> Any:
        try:
            return self.loop.run_until_complete(_result(self.below.__anext__()))
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, *_: object) -> None:
        self.rollback() if kind else self.commit()

    @property
    def in_transaction(self) -> Any:
        # What was set takes effect before the next call.
        self.answer(self.below._opened())
        return self.below.in_transaction


async def _result(awaitable: Any) -> Any:
    return await awaitable


class AioMachine(Machine):
    """Runs operations on `turso.aio`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path) -> None:
        self.loop = loop
        super().__init__(turso, path)

    def connect(self) -> Any:
        return Blocking(self.loop, turso.aio.connect(self.path, timeout=0))


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.close()


@pytest.mark.parametrize("seed", range(40))
def test_random_programs(seed: int, tmp_path: Path) -> None:
    with event_loop() as loop:
        asynchronous, blocking = AioMachine(loop, tmp_path / "a.db"), Machine(turso, tmp_path / "b.db")
        done: list[str] = []
        try:
            for operation in program(seed):
                if "text_factory" in operation:
                    continue
                # One connection only: how long a query that is half read holds on to its snapshot differs.
                operation = (operation[0], 0, *operation[2:])
                done.append(repr(operation))
                one, other = asynchronous.run(operation), blocking.run(operation)
                assert one == other, f"after seed {seed}'s\n" + "\n".join(done)
        finally:
            asynchronous.close()
            blocking.close()
