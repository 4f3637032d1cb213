"""Interrupts, Ctrl-C and cancelled tasks end what they meet, and leave nothing half done. The names of the tests begin with the rows
of the table in docs/proof.md.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.aio
from loops import in_a_loop

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


@pytest.mark.parametrize("kind", ["look ahead", "iterate", "fetchmany", "execute", "script", "many"])
def test_b5_ctrl_c_in_the_middle_of_anything_is_raised_and_not_swallowed(kind: str) -> None:
    program = """
import signal, sys, threading, turso
conn = turso.connect(":memory:")
conn.execute("CREATE TABLE t(a)")
endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
rows = conn.execute(endless + "SELECT i FROM n WHERE i = 1 OR i < 0")
calls = {
    "look ahead": rows.fetchone,
    "iterate": lambda: next(rows),
    "fetchmany": lambda: rows.fetchmany(1),
    "execute": lambda: conn.execute(endless + "INSERT INTO t SELECT i FROM n WHERE i < 0"),
    "script": lambda: conn.executescript(endless + "INSERT INTO t SELECT i FROM n WHERE i < 0"),
    "many": lambda: conn.executemany("INSERT INTO t VALUES (?)", ((i,) for i in iter(int, 1))),
}
threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
try:
    calls[sys.argv[1]]()
    print("swallowed")
except KeyboardInterrupt:
    print("interrupted")
rows.close()
conn.rollback()
print(conn.execute("SELECT COUNT(*) FROM t").fetchone())
"""
    done = subprocess.run([sys.executable, "-c", program, kind], capture_output=True, text=True, timeout=15)
    assert done.stdout == "interrupted\n(0,)\n", (done.stdout, done.stderr)


@pytest.mark.parametrize("kind", ["function", "aggregate", "collation", "trace", "commit's trace"])
def test_b5_ctrl_c_in_a_function_of_the_program_is_raised_and_not_swallowed(kind: str) -> None:
    program = """
import signal, sys, turso
conn = turso.connect(":memory:")
conn.execute("CREATE TABLE t(a)")
def struck(*_):
    signal.raise_signal(signal.SIGINT)
    return 1
class Struck:
    step = struck
    finalize = lambda self: 1
conn.create_function("f", 0, struck)
conn.create_aggregate("g", 1, Struck)
conn.create_collation("c", struck)
conn.execute("INSERT INTO t VALUES (1)")
def traced(call):
    conn.set_trace_callback(struck)
    call()
calls = {
    "function": lambda: conn.execute("INSERT INTO t SELECT f()"),
    "aggregate": lambda: conn.execute("INSERT INTO t SELECT g(1)"),
    "collation": lambda: conn.execute("INSERT INTO t SELECT 'a' < 'b' COLLATE c"),
    "trace": lambda: traced(lambda: conn.execute("INSERT INTO t VALUES (2)")),
    "commit's trace": lambda: traced(conn.commit),
}
try:
    calls[sys.argv[1]]()
    print("swallowed")
except KeyboardInterrupt:
    print("interrupted")
conn.set_trace_callback(None)
print(conn.in_transaction, conn.execute("SELECT COUNT(*) FROM t").fetchone())
"""
    done = subprocess.run([sys.executable, "-c", program, kind], capture_output=True, text=True, timeout=15)
    assert done.stdout == "interrupted\nTrue (1,)\n", (done.stdout, done.stderr)


def test_b5_an_interrupt_ends_the_call_that_it_meets_also_between_two_statements() -> None:
    conn = turso.connect(":memory:")
    conn.execute("CREATE TABLE t(a)")

    def values() -> Any:
        for i in range(1000):
            if i == 500:
                conn.interrupt()
            yield (i,)

    with pytest.raises(turso.OperationalError, match="interrupted") as caught:
        conn.executemany("INSERT INTO t VALUES (?)", values())
    assert caught.value.sqlite_errorname == "SQLITE_INTERRUPT"
    assert conn.execute("SELECT COUNT(*) FROM t").fetchone() == (500,)
    # Between the statements of a script.
    conn.commit()
    conn.set_trace_callback(lambda sql: conn.interrupt() if "SELECT 1" in sql else None)
    with pytest.raises(turso.OperationalError, match="interrupted"):
        conn.executescript("SELECT 0; SELECT 1; INSERT INTO t VALUES (1000)")
    conn.set_trace_callback(None)
    assert conn.execute("SELECT COUNT(*) FROM t").fetchone() == (500,)


def test_b5_an_interrupt_of_a_commit_that_waits_fails_it_and_the_transaction_stays(tmp_path: Path) -> None:
    writer, reader = (turso.connect(tmp_path / "a.db", timeout=15) for _ in range(2))
    writer.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2)")
    open_cursor = writer.execute("SELECT a FROM t")
    open_cursor.fetchone()
    writer.execute("INSERT INTO t VALUES (3)")
    # A reader keeps a commit waiting where there is no write-ahead log.
    reading = reader.execute("SELECT a FROM t")
    started = time.monotonic()
    timer = threading.Timer(0.3, writer.interrupt)
    timer.start()
    with pytest.raises(turso.OperationalError, match="interrupted") as caught:
        writer.commit()
    assert caught.value.sqlite_errorname == "SQLITE_INTERRUPT"
    assert time.monotonic() - started < 10 and writer.in_transaction
    timer.join()
    reading.close()
    open_cursor.close()
    writer.commit()
    assert reader.execute("SELECT COUNT(*) FROM t").fetchone() == (3,)


def test_b3_a_collation_that_raises_while_an_interrupt_lasts_leaves_no_transaction_open(tmp_path: Path) -> None:
    conn = turso.connect(tmp_path / "a.db", isolation_level=None)
    other = turso.connect(tmp_path / "a.db", isolation_level=None)
    raises = False

    def order(a: str, b: str) -> int:
        if raises:
            # It lasts as long as a cursor is in the middle of its rows.
            conn.interrupt()
            raise ValueError("no order")
        return (a > b) - (a < b)

    conn.create_collation("mine", order)
    conn.executescript("CREATE TABLE t(a TEXT COLLATE mine PRIMARY KEY); INSERT INTO t VALUES ('a')")
    for begin in (False, True):
        unread = conn.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")
        assert unread.fetchone() == (1,)
        if begin:
            conn.execute("BEGIN")
        raises = True
        with pytest.raises(turso.OperationalError, match="collation raised"):
            conn.execute("INSERT INTO t VALUES ('b')")
        raises = False
        assert conn.in_transaction == begin
        unread.close()
        conn.execute("INSERT INTO t VALUES ('c')")
        if begin:
            conn.execute("COMMIT")
        assert other.execute("SELECT count(*), max(a || '' > 'b') FROM t").fetchone() == (2, 1)
        conn.execute("DELETE FROM t WHERE a = 'c'")


@pytest.mark.parametrize("struck", ["SELECT strike()", "INSERT INTO t SELECT strike()"])
def test_b3_a_batch_that_is_interrupted_again_and_again_leaves_no_transaction(
    tmp_path: Path, struck: str
) -> None:
    path = str(tmp_path / "local.db")
    conn = turso.connect(path, isolation_level=None)
    conn.execute("CREATE TABLE t(a)")
    conn.create_function("strike", 0, conn.interrupt)
    # While this is unread, the interrupt lasts: a ROLLBACK is interrupted too.
    unread = conn.execute(ENDLESS + "SELECT i FROM n")
    with pytest.raises(turso.OperationalError, match="interrupted"):
        conn.batch(["INSERT INTO t VALUES (1)", struck], mode="immediate")
    assert not conn.in_transaction
    unread.close()
    conn.execute("INSERT INTO t VALUES (2)")
    assert turso.connect(path).execute("SELECT a FROM t").fetchall() == [(2,)]


@in_a_loop
async def test_b9_a_second_cancel_does_not_leave_the_call_running() -> None:
    async with turso.aio.connect(":memory:") as conn:
        running = [0]

        def nap(a: int) -> int:
            # Keeps the interrupt from being seen for a while.
            running[0] += 1
            time.sleep(0.3)
            running[0] -= 1
            return a

        await conn.create_function("nap", 1, nap)
        task = asyncio.create_task(conn.execute_fetchall("SELECT nap(1) FROM (VALUES (1), (2), (3), (4))"))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert running == [0], "the call had ended before its task did"
        assert await conn.execute_fetchall("SELECT 2") == [(2,)]
