"""The program's own code that SQLite calls: functions that raise, that use their connection, that outlive it, and what holds them. The
names of the tests begin with the rows of the table in docs/proof.md.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.aio
import turso.aio.sync
import turso.sync
from servers import eventually
from turso.sync import Mutation, PartialSyncOpts, PartialSyncPrefixBootstrap

PREFIX = PartialSyncOpts(bootstrap_strategy=PartialSyncPrefixBootstrap(length=4096))


class AtTheEnd:
    """An aggregate whose end touches the connection."""

    connection: Any
    happened: list[Any]

    def step(self, *_: Any) -> None: ...
    def inverse(self, *_: Any) -> None: ...
    def value(self) -> int:
        return 1

    def finalize(self) -> int:
        for call in (
            lambda: self.connection.execute("SELECT 1").fetchone(),
            self.connection.commit,
            self.connection.close,
            lambda: self.connection.in_transaction,
        ):
            try:
                self.happened.append(call())
            except turso.ProgrammingError as error:
                self.happened.append(str(error))
        return 1


@pytest.mark.parametrize("how", ["close", "cursor close", "cursor again", "drop", "collect"])
def test_b4_finalize_at_the_end_of_a_statement_may_touch_the_connection(how: str) -> None:
    conn = turso.connect(":memory:")

    class Mine(AtTheEnd):
        connection, happened = conn, []

    conn.create_window_function("w", 1, Mine)
    conn.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (3), (4)")
    cursor = conn.execute("SELECT w(a) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM t")
    assert cursor.fetchone() == (1,)
    Mine.happened.clear()
    if how == "close":
        conn.close()
    elif how == "cursor close":
        cursor.close()
    elif how == "cursor again":
        cursor.execute("SELECT 1")
    elif how == "drop":
        del cursor
    else:
        cursor.row_factory = lambda *_: cursor
        del cursor
        gc.collect()
    assert len(Mine.happened) == 4 and all(
        what is None if how == "close" and i == 2 else "Recursive use" in what or "closed" in what
        for i, what in enumerate(Mine.happened)
    ), Mine.happened
    if how != "close":
        assert conn.execute("SELECT 2").fetchone() == (2,)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_b4_destructors_of_functions_factories_and_adapters_may_touch_the_connection() -> None:
    happened: list[Any] = []

    class Callable_:
        def __init__(self, conn: Any, cursor: Any = None) -> None:
            self.conn, self.cursor = conn, cursor

        def __call__(self, *arguments: Any) -> Any:
            return arguments[-1] if arguments else 1

        def __del__(self) -> None:
            calls: list[Callable[[], Any]] = [
                lambda: self.conn.execute("SELECT 1").fetchone(),
                lambda: self.conn.__setattr__("row_factory", None),
                lambda: self.cursor and self.cursor.__setattr__("row_factory", None),
                lambda: self.cursor and self.cursor.fetchone(),
            ]
            for call in calls:
                try:
                    happened.append(call())
                except turso.Error as error:
                    happened.append(error)

    conn = turso.connect(":memory:", detect_types=turso.PARSE_COLNAMES)
    cursor = conn.cursor()
    conn.row_factory = Callable_(conn, cursor)
    conn.row_factory = None
    conn.text_factory = Callable_(conn)
    conn.text_factory = str
    cursor.row_factory = Callable_(conn, cursor)
    cursor.row_factory = None
    conn.set_trace_callback(Callable_(conn))
    conn.set_trace_callback(None)
    conn.create_function("f", -1, Callable_(conn))
    conn.create_function("f", -1, None)
    conn.create_collation("c", Callable_(conn))
    conn.create_collation("c", None)
    turso.register_converter("mine", Callable_(conn, cursor))
    cursor.execute("SELECT 1 AS 'a [mine]'")
    turso.register_converter("mine", bytes)
    cursor.execute("SELECT 1 AS 'a [mine]'")

    class Value:
        def __conform__(self, protocol: Any) -> int:
            happened.append("conform")
            Callable_(conn)
            return 3

    assert conn.execute("SELECT ?", (Value(),)).fetchone() == (3,)

    class Factory(turso.Cursor):
        def __init__(self, connection: Any) -> None:
            super().__init__(connection)
            self.row_factory = Callable_(conn, self)

    conn.row_factory = turso.Row
    conn.cursor(Factory)
    conn.create_function("f", -1, Callable_(conn))
    conn.close()
    gc.collect()
    assert len(happened) > 30


def test_b4_threads_that_use_a_connection_that_closes_are_told_that_it_is_closed() -> None:
    for _ in range(20):
        conn = turso.connect(":memory:", isolation_level=None)
        failures: list[str] = []

        def use() -> None:
            try:
                while True:
                    conn.execute("SELECT 1").fetchone()
            except turso.ProgrammingError as error:
                failures.append(str(error))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        conn.close()
        for thread in threads:
            thread.join()
        assert failures == ["Cannot operate on a closed database."] * 4


def test_b9_a_collation_that_raises_fails_the_statement_and_undoes_it(tmp_path: Path) -> None:
    conn = turso.connect(tmp_path / "a.db", isolation_level=None)
    refused: list[str] = []

    def order(a: str, b: str) -> int:
        if a in refused or b in refused:
            raise ValueError(f"no order of {a} and {b}")
        return (a > b) - (a < b)

    conn.create_collation("mine", order)
    conn.executescript("CREATE TABLE t(a TEXT COLLATE mine PRIMARY KEY); INSERT INTO t VALUES ('a'), ('b'), ('c')")
    refused.append("c")
    statements = [
        "SELECT a FROM t WHERE a = 'c'",
        "SELECT a FROM t ORDER BY a || '' COLLATE mine",
        "INSERT INTO t VALUES ('c')",
        "INSERT INTO t VALUES ('d')",
        "INSERT INTO t VALUES ('d') RETURNING a",
        "DELETE FROM t WHERE a > 'b'",
        "UPDATE t SET a = 'c' WHERE a = 'a'",
        "CREATE INDEX i ON t(a)",
        "REPLACE INTO t VALUES ('c')",
    ]
    for begin in (False, True):
        for sql in statements:
            if begin:
                conn.execute("BEGIN")
                conn.execute("INSERT INTO t VALUES ('0')")
            with pytest.raises(turso.OperationalError, match="user-defined collation raised") as caught:
                conn.execute(sql).fetchall()
            assert isinstance(caught.value.__cause__, ValueError), sql
            assert conn.in_transaction == begin
            if begin:
                assert conn.execute("SELECT COUNT(*) FROM t WHERE rowid > 0").fetchone() == (4,), sql
                conn.execute("ROLLBACK")
    with pytest.raises(turso.OperationalError, match="user-defined collation raised"):
        conn.executemany("INSERT INTO t VALUES (?)", [("0",), ("c",)])
    with pytest.raises(turso.OperationalError, match="user-defined collation raised"):
        conn.executescript("INSERT INTO t VALUES ('1'); INSERT INTO t VALUES ('e'); INSERT INTO t VALUES ('f')")
    refused.clear()
    assert conn.execute("SELECT a FROM t ORDER BY a").fetchall() == [(a,) for a in "01abc"]
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_b9_what_a_function_gives_is_refused_as_a_parameter_is() -> None:
    conn = turso.connect(":memory:")
    given: list[Any] = [None]
    conn.create_function("give", 0, lambda: given[0])
    for value in ([1, 2, 3], (1, 2), {1}, object(), range(3)):
        given[0] = value
        name = type(value).__name__
        with pytest.raises(turso.OperationalError) as caught:
            conn.execute("SELECT give()").fetchone()
        assert f"type '{name}' is not supported" in str(caught.value.__cause__)
        with pytest.raises(turso.ProgrammingError, match=f"type '{name}' is not supported"):
            conn.execute("SELECT ?", (value,))
    for value in (b"ab", bytearray(b"ab"), memoryview(b"ab")):
        given[0] = value
        assert conn.execute("SELECT give(), typeof(give())").fetchone() == (b"ab", "blob")


def test_b9_a_function_that_raises_for_size_or_memory_fails_as_in_the_standard_library() -> None:
    conn = turso.connect(":memory:")

    def fails(error: Exception) -> None:
        raise error

    conn.create_function("too_large", 0, lambda: 2**63)
    conn.create_function("overflows", 0, lambda: fails(OverflowError()))
    conn.create_function("no_memory", 0, lambda: fails(MemoryError()))
    for name, error in [
        ("too_large", turso.DataError),
        ("overflows", turso.DataError),
        ("no_memory", MemoryError),
    ]:
        with pytest.raises(error):
            conn.execute(f"SELECT {name}()")


@pytest.mark.parametrize(
    "kind", ["function", "collation", "text_factory", "row_factory", "trace", "adapter", "iterator"]
)
def test_b9_a_daemon_thread_in_a_function_of_the_program_does_not_crash_the_end_of_it(kind: str) -> None:
    program = """
import sys, threading, time, turso
conn = turso.connect(":memory:", isolation_level=None)
called = threading.Event()
def slow(*given):
    called.set()
    time.sleep(0.005)
    return given[-1] if given else 0
class Adapted:
    def __conform__(self, protocol):
        return slow(1)
def rows():
    while True:
        yield (slow(1),)
conn.create_function("f", 0, slow)
conn.create_collation("c", lambda a, b: slow(0))
if sys.argv[1] == "text_factory": conn.text_factory = slow
if sys.argv[1] == "row_factory": conn.row_factory = slow
if sys.argv[1] == "trace": conn.set_trace_callback(slow)
conn.execute("CREATE TABLE t(a)")
calls = {
    "function": lambda: conn.execute("SELECT f()").fetchall(),
    "collation": lambda: conn.execute("SELECT 'a' < 'b' COLLATE c").fetchall(),
    "adapter": lambda: conn.execute("SELECT ?", (Adapted(),)).fetchall(),
    "iterator": lambda: conn.executemany("INSERT INTO t VALUES (?)", rows()),
}
def work():
    while True:
        calls.get(sys.argv[1], lambda: conn.execute("SELECT 'a' UNION SELECT 'b'").fetchall())()
threading.Thread(target=work, daemon=True).start()
called.wait()
"""
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", program, kind], capture_output=True, text=True, timeout=15
        )
        assert (done.returncode, done.stderr) == (0, "")


class Service:
    """An object with a connection whose functions are its methods."""

    def __init__(self, connect: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self.conn = connect(
            *arguments, remote_auth_token=self.token, transform=self.transform, **options
        )

    def token(self) -> str:
        return "token"

    def transform(self, mutation: Mutation) -> None: ...

    def function(self, *_: Any) -> int:
        return 7


def test_b9_a_connection_whose_functions_are_methods_is_collected(shared_url: str, tmp_path: Path) -> None:
    service = Service(turso.sync.connect, tmp_path / "a.db", shared_url, partial_sync_opts=PREFIX)
    service.conn.create_function("f", -1, service.function)
    service.conn.create_aggregate("g", -1, service.function)
    service.conn.create_collation("h", service.function)
    service.conn.set_trace_callback(service.function)
    service.conn.row_factory = service.function
    assert service.conn.execute("SELECT f()").fetchone() == 7
    gone = weakref.ref(service)
    # While another connection has the replica, the engine asks this one's functions for it.
    other = turso.sync.connect(tmp_path / "a.db", shared_url, partial_sync_opts=PREFIX)
    del service
    gc.collect()
    assert other.execute("SELECT COUNT(*) FROM messages").fetchone() == (20_000,)
    other.close()
    del other
    gc.collect()
    assert gone() is None
    turso.sync.connect(tmp_path / "a.db", shared_url).close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_b9_an_asynchronous_connection_whose_functions_are_methods_is_collected(
    shared_url: str, tmp_path: Path
) -> None:
    async def use() -> weakref.ref[Service]:
        service = Service(turso.aio.sync.connect, tmp_path / "a.db", shared_url, partial_sync_opts=PREFIX)
        await service.conn.create_function("f", -1, service.function)
        assert await service.conn.execute_fetchall("SELECT f()") == [(7,)]
        return weakref.ref(service)

    gone = asyncio.run(use())

    def is_collected() -> bool:
        gc.collect()
        return gone() is None

    # Its thread may still be in its last call, and the rest of a segment on its way.
    eventually(is_collected)
