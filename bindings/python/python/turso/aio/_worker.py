"""The thread of a connection: runs what it is given, one call after the other, in the order in which calls
were made.

The event loop never waits for the database; it waits for futures. Two things are easily done wrong here. A
call that is broken off has to be interrupted again and again until it returns (what begins to wait after an
interrupt is not touched by it), but never once the next call has begun. And the thread must neither be a
daemon, which would be torn down in the middle of native code when the interpreter ends, nor keep the
interpreter alive when nobody closed the connection.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Seconds between two interrupts of a call that is to end.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


class Call(Generic[T]):
    """Something to run, and whom to tell."""

    __slots__ = ("work", "loop", "future", "abandoned")

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop | None) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[T] | None = loop.create_future() if loop else None
        #: Nobody wants it any more: it is not begun.
        self.abandoned = False

    def run(self) -> None:
        try:
            result = self.work()
        except StopIteration as error:
            # A future cannot carry it.
            stopped = RuntimeError("a function called by the database raised StopIteration")
            stopped.__cause__ = error
            self._tell(_set_exception, stopped)
        except BaseException as error:
            self._tell(_set_exception, error)
        else:
            self._tell(_set_result, result)

    def refuse(self, error: BaseException) -> None:
        """Fails without having run."""
        self._tell(_set_exception, error)

    def _tell(self, how: Callable[[asyncio.Future[T], Any], None], what: Any) -> None:
        if self.loop is None or self.future is None:
            return
        try:
            self.loop.call_soon_threadsafe(how, self.future, what)
        except RuntimeError:
            # The loop is closed, and anyone who waited with it gone.
            pass


def _set_result(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class Worker:
    """A thread and the calls that wait for it.

    `interrupt` breaks the call that is running, from any thread; `finish` is called when the thread ends.
    Neither may keep the object alive whose end stops the worker.
    """

    def __init__(self, name: str, interrupt: Callable[[], None], finish: Callable[[], None]) -> None:
        self._calls: queue.SimpleQueue[Call[Any] | None] = queue.SimpleQueue()
        self._interrupt = interrupt
        self._finish = finish
        # Held while a call begins, ends or is interrupted.
        self._turn = threading.Lock()
        self._current: Call[Any] | None = None
        self._stopped = False
        # No call that waits is begun any more, and this is why.
        self._refusal: Callable[[], BaseException] | None = None
        self._thread = threading.Thread(target=self._run, name=name)
        #: The thread that uses the connection.
        self._user = threading.current_thread()
        _start(self)

    @property
    def stopped(self) -> bool:
        """Whether no further call is taken."""
        return self._stopped

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return self._current is None and self._calls.empty()

    def submit(self, work: Callable[[], T], *, forget: bool = False) -> Call[T]:
        """Puts a call in the queue. `forget`: nobody is going to wait for it."""
        self._user = threading.current_thread()
        call = Call(work, None if forget else asyncio.get_running_loop())
        self._calls.put(call)
        return call

    async def result(self, call: Call[T]) -> T:
        """What a call gave. When the task is cancelled, the call is broken off first."""
        assert call.future is not None
        try:
            return await call.future
        except asyncio.CancelledError:
            await self._break_off(call)
            raise

    async def _break_off(self, call: Call[Any]) -> None:
        call.abandoned = True
        pause = _FIRST_PAUSE
        while self.interrupt(call):
            try:
                await asyncio.sleep(pause)
            except asyncio.CancelledError:
                # The task is being cancelled already; a call that is left running would be taken for one that has ended.
                pass
            pause = min(pause * 2, _LONGEST_PAUSE)

    def interrupt(self, call: Call[Any] | None = None) -> bool:
        """Interrupts this call, or whichever is running, and says whether one was."""
        with self._turn:
            if self._current is None or (call is not None and self._current is not call):
                return False
            self._interrupt()
            return True

    def stop(self) -> None:
        """Lets the thread end after the calls that wait already."""
        if not self._stopped:
            self._stopped = True
            self._calls.put(None)

    def break_off(self, why: Callable[[], BaseException]) -> None:
        """Lets the thread end without the calls that wait, and breaks the one that runs."""
        self._refusal = why
        self.stop()
        if not self.idle:
            threading.Thread(target=self._interrupt_to_the_end, name="turso.aio interrupting").start()

    def _interrupt_to_the_end(self) -> None:
        while self._thread.is_alive():
            self.interrupt()
            self._thread.join(_LONGEST_PAUSE)

    def _run(self) -> None:
        try:
            while (call := self._calls.get()) is not None:
                with self._turn:
                    if call.abandoned:
                        continue
                    if self._refusal is not None:
                        call.refuse(self._refusal())
                        continue
                    self._current = call
                try:
                    call.run()
                finally:
                    with self._turn:
                        self._current = None
                # What it referred to goes now, not when the next call comes.
                del call
        finally:
            try:
                self._finish()
            finally:
                _workers.discard(self)

    # When the interpreter ends.

    def _is_needed(self) -> bool:
        """After the main thread: whether the thread that uses the connection is one that the interpreter
        waits for."""
        user = self._user
        return user is not threading.main_thread() and user.is_alive() and not user.daemon

    def _abandon(self) -> None:
        self.stop()
        self.interrupt()


_workers: set[Worker] = set()
_starting = threading.Lock()
_watcher: threading.Thread | None = None


def _start(worker: Worker) -> None:
    global _watcher
    with _starting:
        if _watcher is None:
            _watcher = threading.Thread(target=_end_with_the_main_thread, name="turso.aio")
            _watcher.start()
        _workers.add(worker)
        try:
            worker._thread.start()
        except BaseException:
            _workers.discard(worker)
            raise


def _end_with_the_main_thread() -> None:
    """When the program is over, the threads of connections that nobody closed end too."""
    global _watcher
    threading.main_thread().join()
    while True:
        with _starting:
            if not _workers:
                _watcher = None
                return
        for worker in list(_workers):
            if not worker._is_needed():
                worker._abandon()
        time.sleep(_LONGEST_PAUSE)


def _after_fork_in_child() -> None:
    global _starting, _watcher
    # The threads are the parent's.
    for worker in list(_workers):
        worker._stopped = True
    _workers.clear()
    _starting = threading.Lock()
    _watcher = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
