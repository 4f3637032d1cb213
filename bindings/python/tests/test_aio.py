"""`turso.aio`: local databases."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.aio
from loops import in_a_loop
from servers import eventually

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"


def numbers(count: int) -> str:
    return f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count}) SELECT i FROM n"


# Opening and closing.


@in_a_loop
async def test_a_connection_can_be_awaited_entered_or_just_used() -> None:
    awaited = await turso.aio.connect(":memory:")
    assert await awaited.execute_fetchall("SELECT 1") == [(1,)]
    await awaited.close()
    async with turso.aio.connect(":memory:") as entered:
        assert await entered.execute_fetchall("SELECT 2") == [(2,)]
    used = turso.aio.connect(":memory:")
    assert await used.execute_fetchall("SELECT 3") == [(3,)]
    await used.close()
    assert isinstance(awaited, turso.aio.Connection)


@in_a_loop
async def test_calls_made_before_the_connection_is_open_wait_for_it() -> None:
    conn = turso.aio.connect(":memory:")
    await asyncio.gather(
        conn.execute("CREATE TABLE t(a)"), conn.execute("INSERT INTO t VALUES (1)"), conn.commit()
    )
    assert await conn.execute_fetchall("SELECT a FROM t") == [(1,)]
    await conn.close()


@in_a_loop
async def test_leaving_the_block_closes_and_undoes_what_was_not_committed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with turso.aio.connect(path) as conn:
        await conn.execute("CREATE TABLE t(a)")
        await conn.execute("INSERT INTO t VALUES (1)")
        await conn.commit()
        await conn.execute("INSERT INTO t VALUES (2)")
        cursor = conn.cursor()
    with pytest.raises(turso.ProgrammingError, match="closed database"):
        await conn.execute("SELECT 1")
    with pytest.raises(turso.ProgrammingError, match="closed database"):
        await cursor.execute("SELECT 1")
    with pytest.raises(turso.ProgrammingError, match="closed database"):
        conn.cursor()
    await conn.close()
    with turso.connect(path) as again:
        assert again.execute("SELECT a FROM t").fetchall() == [(1,)]


@in_a_loop
async def test_a_database_that_cannot_be_opened_says_so_to_everybody_who_waits(tmp_path: Path) -> None:
    conn = turso.aio.connect(tmp_path / "no such folder" / "a.db")
    with pytest.raises(turso.OperationalError):
        await conn
    with pytest.raises(turso.ProgrammingError, match="closed database"):
        await conn.execute("SELECT 1")


def test_options_are_those_of_the_blocking_connect() -> None:
    def options(function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}

    blocking, asynchronous = options(turso.connect), options(turso.aio.connect)
    del blocking["factory"]
    assert asynchronous.pop("iter_chunk_size") == 64
    assert asynchronous == blocking


def test_an_unknown_option_is_an_error_at_once_that_names_the_nearest() -> None:
    with pytest.raises(TypeError, match='"isolation"; did you mean "isolation_level"'):
        turso.aio.connect(":memory:", isolation="DEFERRED")  # type: ignore[arg-type]


@in_a_loop
async def test_a_connection_that_nobody_closed_closes_when_it_is_forgotten() -> None:
    conn = await turso.aio.connect(":memory:")
    threads = threading.active_count()
    with pytest.warns(ResourceWarning, match="was not closed"):
        del conn
        gc.collect()
    eventually(lambda: threading.active_count() < threads)


def test_a_connection_can_be_used_by_one_event_loop_after_another() -> None:
    async def open() -> turso.aio.Connection:
        conn = await turso.aio.connect(":memory:")
        await conn.execute("CREATE TABLE t(a)")
        return conn

    async def use(conn: turso.aio.Connection) -> None:
        await conn.execute("INSERT INTO t VALUES (1)")
        assert await conn.execute_fetchall("SELECT a FROM t") == [(1,)]
        await conn.close()

    asyncio.run(use(asyncio.run(open())))


# Statements.


@in_a_loop
async def test_rows_come_one_by_one_in_pieces_all_at_once_and_in_a_loop() -> None:
    async with turso.aio.connect(":memory:") as conn:
        cursor = await conn.execute(numbers(1000))
        assert await cursor.fetchone() == (1,)
        assert await cursor.fetchmany(2) == [(2,), (3,)]
        assert await cursor.fetchmany() == [(4,)]
        async for (i,) in cursor:
            if i == 500:
                break
        assert await cursor.fetchone() == (501,)
        assert await cursor.fetchmany(3) == [(502,), (503,), (504,)]
        assert await cursor.fetchall() == [(i,) for i in range(505, 1001)]
        assert await cursor.fetchone() is None
        assert await cursor.fetchmany(5) == []
        assert await cursor.fetchall() == []
        assert [row async for row in cursor] == []


@in_a_loop
async def test_execute_can_be_entered_and_iterated() -> None:
    async with turso.aio.connect(":memory:") as conn:
        async with conn.execute(numbers(100)) as cursor:
            assert [i async for (i,) in cursor] == list(range(1, 101))
        with pytest.raises(turso.ProgrammingError, match="closed cursor"):
            await cursor.fetchone()
        assert [i async for (i,) in conn.execute(numbers(3))] == [1, 2, 3]
        task = asyncio.create_task(conn.execute("SELECT 7"))
        assert await (await task).fetchone() == (7,)
        async with conn.cursor() as entered:
            await entered.execute("SELECT 8")
            assert await entered.fetchone() == (8,)
        awaited = await conn.cursor()
        assert awaited.connection is conn


@in_a_loop
async def test_a_cursor_tells_what_its_statement_did() -> None:
    async with turso.aio.connect(":memory:") as conn:
        cursor = conn.cursor()
        assert (cursor.description, cursor.rowcount, cursor.lastrowid) == (None, -1, None)
        await cursor.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
        assert await cursor.execute("INSERT INTO t(a) VALUES (?), (?)", (1, 2)) is cursor
        assert (cursor.rowcount, cursor.lastrowid) == (2, 2)
        await cursor.execute("SELECT id, a FROM t WHERE a = :a", {"a": 2})
        assert [column[0] for column in cursor.description or ()] == ["id", "a"]
        await cursor.executemany("INSERT INTO t(a) VALUES (?)", ((i,) for i in range(5)))
        assert cursor.rowcount == 5
        await cursor.executescript("CREATE TABLE u(b); INSERT INTO u VALUES (1)")
        returning = await conn.execute("INSERT INTO t(a) VALUES (9) RETURNING a")
        assert await returning.fetchall() == [(9,)]


@in_a_loop
async def test_transactions_are_those_of_the_blocking_connection(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with turso.aio.connect(path) as conn, turso.aio.connect(path) as other:
        await conn.execute("CREATE TABLE t(a)")
        await conn.execute("INSERT INTO t VALUES (1)")
        assert conn.in_transaction and conn.total_changes == 1
        assert await other.execute_fetchall("SELECT COUNT(*) FROM t") == [(0,)]
        await conn.commit()
        assert not conn.in_transaction
        assert await other.execute_fetchall("SELECT COUNT(*) FROM t") == [(1,)]
        await conn.execute("DELETE FROM t")
        await conn.rollback()
        assert await conn.execute_fetchall("SELECT COUNT(*) FROM t") == [(1,)]


@in_a_loop
async def test_settings_take_effect_in_the_order_in_which_they_are_made() -> None:
    async with turso.aio.connect(":memory:", isolation_level=None) as conn:
        assert conn.isolation_level is None
        await conn.execute("CREATE TABLE t(a)")
        await conn.execute("INSERT INTO t VALUES (1)")
        assert not conn.in_transaction
        conn.isolation_level = "immediate"
        assert conn.isolation_level == "IMMEDIATE"
        await conn.execute("INSERT INTO t VALUES (2)")
        assert conn.in_transaction
        conn.isolation_level = None
        await conn.execute("SELECT 1")
        assert not conn.in_transaction, "as in the standard library, this commits"
        with pytest.raises(ValueError, match="'LATER' is not one of"):
            conn.isolation_level = "LATER"
        conn.autocommit = False
        await conn.execute("SELECT 1")
        assert conn.in_transaction and conn.autocommit is False
        with pytest.raises(turso.ProgrammingError, match="'no' is not one of"):
            conn.autocommit = "no"


@in_a_loop
async def test_a_setting_that_fails_says_so_at_the_next_call(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with turso.aio.connect(path, timeout=0) as conn, turso.aio.connect(path) as other:
        await conn.executescript(
            "CREATE TABLE p(id PRIMARY KEY); CREATE TABLE t(a REFERENCES p DEFERRABLE INITIALLY DEFERRED)"
        )
        await conn.execute("PRAGMA foreign_keys = ON")
        await conn.execute("INSERT INTO t VALUES (1)")
        conn.isolation_level = None
        with pytest.raises(turso.IntegrityError, match="FOREIGN KEY"):
            await conn.execute("SELECT 1")
        await conn.rollback()
        assert await conn.execute_fetchall("SELECT COUNT(*) FROM t") == [(0,)]
        assert await other.execute_fetchall("SELECT COUNT(*) FROM t") == [(0,)]


@in_a_loop
async def test_factories_of_rows_and_text() -> None:
    conn = turso.aio.connect(":memory:")
    conn.row_factory = turso.Row
    async with conn:
        before = conn.cursor()
        row = (await conn.execute_fetchall("SELECT 1 AS one"))[0]
        assert row["one"] == 1
        conn.row_factory = lambda cursor, row: [*row]
        await before.execute("SELECT 2 AS two")
        assert (await before.fetchone())["two"] == 2, "a cursor keeps the factory that it was made with"
        assert await (await conn.execute("SELECT 3")).fetchall() == [[3]]
        before.row_factory = None
        assert await (await before.execute("SELECT 4")).fetchone() == (4,)
        conn.text_factory = bytes
        assert await conn.execute_fetchall("SELECT 'a'") == [[b"a"]]


@in_a_loop
async def test_a_row_factory_that_is_set_after_the_statement_makes_all_of_its_rows() -> None:
    async with turso.aio.connect(":memory:") as conn:
        cursor = await conn.execute("VALUES (1), (2)")
        cursor.row_factory = lambda cursor, row: (cursor.description[0][0], *row)
        assert await cursor.fetchall() == [("column1", 1), ("column1", 2)]


@in_a_loop
async def test_a_value_that_cannot_be_read_is_an_error_where_it_is_fetched() -> None:
    async with turso.aio.connect(":memory:") as conn:
        cursor = await conn.execute("SELECT CAST(x'ff' AS TEXT)")
        with pytest.raises(turso.OperationalError, match="[Cc]ould not decode"):
            await cursor.fetchone()


@in_a_loop
async def test_a_loop_gets_the_rows_before_an_error_and_then_the_error() -> None:
    async with turso.aio.connect(":memory:") as conn:
        seen = []
        with pytest.raises(turso.OperationalError, match="[Cc]ould not decode"):
            async for (text,) in conn.execute("VALUES ('a'), ('b'), ('c'), (CAST(x'ff' AS TEXT)), ('e')"):
                seen.append(text)
        assert seen == ["a", "b", "c"]


@in_a_loop
async def test_rows_of_a_closed_connection_are_not_handed_out() -> None:
    conn = await turso.aio.connect(":memory:")
    cursor = await conn.execute("SELECT 1")
    await conn.close()
    with pytest.raises(turso.ProgrammingError, match="closed database"):
        await cursor.fetchone()


@in_a_loop
async def test_errors_are_those_of_the_blocking_connection_and_harm_nothing() -> None:
    async with turso.aio.connect(":memory:") as conn:
        await conn.execute("CREATE TABLE t(a UNIQUE)")
        await conn.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(turso.IntegrityError, match="UNIQUE constraint failed: t.a") as caught:
            await conn.execute("INSERT INTO t VALUES (1)")
        assert caught.value.sqlite_errorname == "SQLITE_CONSTRAINT_UNIQUE"
        with pytest.raises(turso.OperationalError, match="no such table: u"):
            await conn.execute("SELECT * FROM u")
        with pytest.raises(turso.ProgrammingError):
            await conn.execute("SELECT ?")
        assert await conn.execute_fetchall("SELECT a FROM t") == [(1,)]


@in_a_loop
async def test_a_function_of_the_program_that_raises_stop_iteration_leaves_nobody_waiting() -> None:
    def factory(cursor: object, row: tuple[object, ...]) -> None:
        raise StopIteration

    async with turso.aio.connect(":memory:") as conn:
        conn.row_factory = factory
        with pytest.raises(RuntimeError, match="StopIteration"):
            await conn.execute_fetchall("SELECT 1")
        conn.row_factory = None
        assert await conn.execute_fetchall("SELECT 1") == [(1,)]


@in_a_loop
async def test_a_batch_gives_what_each_statement_gave() -> None:
    async with turso.aio.connect(":memory:") as conn:
        created, inserted, read = await conn.batch(
            ["CREATE TABLE t(a)", ("INSERT INTO t VALUES (?)", (5,)), "SELECT a FROM t"], "immediate"
        )
        assert (inserted.rowcount, inserted.lastrowid) == (1, 1)
        assert read.rows == [(5,)] and created.rows == []
        assert not conn.in_transaction


@in_a_loop
async def test_a_dump_makes_the_same_database() -> None:
    async with turso.aio.connect(":memory:") as conn, turso.aio.connect(":memory:") as copy:
        await conn.executescript("CREATE TABLE t(a); CREATE INDEX ta ON t(a)")
        await conn.executemany("INSERT INTO t VALUES (?)", [(f"it's {i}",) for i in range(200)])
        script = "\n".join([line async for line in conn.iterdump()])
        await copy.executescript(script)
        assert await copy.execute_fetchall("SELECT a FROM t") == await conn.execute_fetchall(
            "SELECT a FROM t"
        )


@in_a_loop
async def test_functions_and_collations_of_the_program() -> None:
    class Longest:
        def __init__(self) -> None:
            self.longest = ""

        def step(self, text: str) -> None:
            self.longest = max(self.longest, text, key=len)

        def finalize(self) -> str:
            return self.longest

    async with turso.aio.connect(":memory:") as conn:
        await conn.create_function("twice", 1, lambda x: x * 2, deterministic=True)
        await conn.create_aggregate("longest", 1, Longest)
        await conn.create_collation("backwards", lambda a, b: (a < b) - (a > b))
        assert await conn.execute_fetchall("SELECT twice(21)") == [(42,)]
        letters = "(SELECT 'a' AS x UNION ALL SELECT 'ccc' UNION ALL SELECT 'bb')"
        assert await conn.execute_fetchall(f"SELECT longest(x) FROM {letters}") == [("ccc",)]
        rows = await conn.execute_fetchall(f"SELECT x FROM {letters} ORDER BY x COLLATE backwards")
        assert rows == [("ccc",), ("bb",), ("a",)]


@in_a_loop
async def test_a_statement_that_takes_longer_than_the_query_timeout_fails() -> None:
    async with turso.aio.connect(":memory:") as conn:
        assert conn.get_query_timeout() == 0
        conn.set_query_timeout(50)
        with pytest.raises(turso.OperationalError, match="interrupted"):
            await conn.execute(ENDLESS)
        await conn.set_query_timeout(0)
        assert await conn.execute_fetchall("SELECT 1") == [(1,)]
        with pytest.raises(turso.ProgrammingError, match='"set_query_timeout.milliseconds" is -1; '):
            conn.set_query_timeout(-1)


# Order, and calls that are broken off.


@in_a_loop
async def test_calls_run_in_the_order_in_which_they_were_made() -> None:
    async with turso.aio.connect(":memory:") as conn:
        await conn.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, a)")
        await asyncio.gather(*(conn.execute("INSERT INTO t(a) VALUES (?)", (i,)) for i in range(200)))
        assert await conn.execute_fetchall("SELECT a FROM t ORDER BY i") == [(i,) for i in range(200)]


@in_a_loop
async def test_a_cancelled_task_interrupts_its_statement_and_the_connection_stays_usable() -> None:
    async with turso.aio.connect(":memory:") as conn:
        for _ in range(20):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(conn.execute(ENDLESS), 0.02)
            assert await conn.execute_fetchall("SELECT 1") == [(1,)]


@in_a_loop
async def test_a_cancelled_task_leaves_the_statements_of_other_tasks_alone() -> None:
    async with turso.aio.connect(":memory:") as conn:
        long = asyncio.create_task(conn.execute_fetchall(f"SELECT COUNT(*) FROM ({numbers(1_500_000)})"))
        await asyncio.sleep(0.02)
        waiting = asyncio.create_task(conn.execute("CREATE TABLE never(a)"))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await long == [(1_500_000,)]
        assert await conn.execute_fetchall("SELECT COUNT(*) FROM sqlite_schema") == [(0,)], "it was not begun"


@in_a_loop
async def test_after_a_cancelled_statement_a_half_read_one_fails_and_others_work() -> None:
    async with turso.aio.connect(":memory:") as conn:
        half_read = await conn.execute(numbers(100))
        assert await half_read.fetchone() == (1,)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(conn.execute(ENDLESS), 0.05)
        assert await conn.execute_fetchall("SELECT 1") == [(1,)]
        with pytest.raises(turso.OperationalError, match="interrupted"):
            await half_read.fetchall()
        assert await (await half_read.execute(numbers(2))).fetchall() == [(1,), (2,)]


@in_a_loop
async def test_no_row_is_lost_when_fetches_are_cancelled_at_any_moment() -> None:
    async with turso.aio.connect(":memory:") as conn:
        interrupted = 0
        for moment in range(100):
            cursor = await conn.execute(numbers(30))
            seen: list[int] = []
            fetch = asyncio.ensure_future(cursor.fetchmany(10))
            for _ in range(moment % 10):
                await asyncio.sleep(0)
            fetch.cancel()
            try:
                seen.extend(i for (i,) in await fetch)
            except asyncio.CancelledError:
                pass
            try:
                while row := await cursor.fetchone():
                    seen.append(row[0])
            except turso.OperationalError:
                interrupted += 1
            else:
                assert seen == list(range(1, 31)), f"cancelled after {moment % 10} turns of the loop"
        assert interrupted < 100


@in_a_loop
async def test_interrupt_breaks_what_runs_and_may_be_awaited() -> None:
    async with turso.aio.connect(":memory:") as conn:
        for awaits in (False, True):
            running = asyncio.create_task(conn.execute(ENDLESS))
            await asyncio.sleep(0.05)
            if awaits:
                await conn.interrupt()
            else:
                conn.interrupt()
            with pytest.raises(turso.OperationalError, match="interrupted"):
                await running
        await conn.interrupt()
        half_read = await conn.execute(numbers(10))
        running = asyncio.create_task(conn.execute(ENDLESS))
        await asyncio.sleep(0.05)
        conn.interrupt()
        with pytest.raises(turso.OperationalError, match="interrupted"):
            await running
        assert await conn.execute_fetchall("SELECT 1") == [(1,)]
        with pytest.raises(turso.OperationalError, match="interrupted"):
            await half_read.fetchall()


@in_a_loop
async def test_stop_breaks_what_runs_and_closes() -> None:
    conn = await turso.aio.connect(":memory:")
    running = asyncio.create_task(conn.execute(ENDLESS))
    await asyncio.sleep(0.05)
    conn.stop()
    with pytest.raises(turso.OperationalError, match="interrupted"):
        await running
    with pytest.raises(turso.ProgrammingError, match="closed database"):
        await conn.execute("SELECT 1")
