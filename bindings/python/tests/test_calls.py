"""What a call returned is what happened: commits, rewrites that are none, rows and values. The names of the tests begin with the
rows of the table in docs/proof.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.aio
import turso.aio.sync
import turso.sync
from loops import in_a_loop
from servers import Proxy, eventually
from turso.sync import Mutation, PartialSyncOpts, PartialSyncPrefixBootstrap, Rewrite, Skip

PREFIX = PartialSyncOpts(bootstrap_strategy=PartialSyncPrefixBootstrap(length=4096))

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


class Text(str):
    """Its content is a str's, whatever it says of itself."""

    def __str__(self) -> str:
        return "DROP TABLE notes"


def test_b1_a_statement_with_returning_has_committed_before_its_first_row_or_fails(tmp_path: Path) -> None:
    conn = turso.connect(tmp_path / "a.db", isolation_level=None)
    conn.executescript(
        "CREATE TABLE p(a PRIMARY KEY); CREATE TABLE c(a REFERENCES p(a) DEFERRABLE INITIALLY DEFERRED);"
        "PRAGMA foreign_keys = ON"
    )
    other = turso.connect(tmp_path / "a.db")
    cursor = conn.execute("INSERT INTO p VALUES (1), (2) RETURNING a")
    assert other.execute("SELECT COUNT(*) FROM p").fetchone() == (2,), "before a row was asked for"
    assert cursor.fetchall() == [(1,), (2,)]
    with pytest.raises(turso.IntegrityError, match="FOREIGN KEY"):
        conn.execute("INSERT INTO c VALUES (3) RETURNING a")
    assert not conn.in_transaction
    assert other.execute("SELECT COUNT(*) FROM c").fetchone() == (0,)


@pytest.mark.parametrize("end", ["rollback", "commit", "with"])
def test_b3_a_transaction_that_sqlite_has_rolled_back_takes_nothing_until_it_is_ended(tmp_path: Path, end: str) -> None:
    conn = turso.connect(tmp_path / "a.db", isolation_level=None)
    conn.execute("CREATE TABLE t(a)")

    def lose() -> None:
        conn.execute("BEGIN")
        conn.execute("INSERT INTO t VALUES (1)")
        conn.set_query_timeout(50)
        with pytest.raises(turso.OperationalError, match="interrupted"):
            conn.execute(ENDLESS + "INSERT INTO t SELECT i FROM n WHERE i < 0")
        conn.set_query_timeout(0)
        assert conn.in_transaction
        for _ in range(2):
            with pytest.raises(turso.OperationalError, match="rolled back"):
                conn.execute("INSERT INTO t VALUES (2)")

    if end == "with":
        with pytest.raises(turso.OperationalError, match="rolled back"):
            with conn:
                lose()
                conn.execute("INSERT INTO t VALUES (3)")
    else:
        lose()
        if end == "commit":
            with pytest.raises(turso.OperationalError, match="rolled back"):
                conn.commit()
        else:
            conn.rollback()
    assert not conn.in_transaction
    conn.execute("INSERT INTO t VALUES (4)")
    assert turso.connect(tmp_path / "a.db").execute("SELECT a FROM t").fetchall() == [(4,)]


@pytest.mark.parametrize("traced", [False, True])
def test_b3_a_conflict_clause_that_says_rollback_ends_the_transaction_in_a_script_too(traced: bool) -> None:
    conn = turso.connect(":memory:")
    conn.executescript("CREATE TABLE t(a PRIMARY KEY); INSERT INTO t VALUES (1)")
    if traced:
        conn.set_trace_callback(lambda _: None)
    with pytest.raises(turso.IntegrityError):
        conn.executescript("BEGIN; INSERT INTO t VALUES (2); INSERT OR ROLLBACK INTO t VALUES (1); INSERT INTO t VALUES (3)")
    assert not conn.in_transaction
    assert conn.execute("SELECT a FROM t").fetchall() == [(1,)]


def test_b3_isolation_level_none_stays_where_the_commit_that_it_means_fails(tmp_path: Path) -> None:
    conn, other = (turso.connect(tmp_path / "a.db", timeout=0) for _ in range(2))
    conn.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2)")
    conn.execute("INSERT INTO t VALUES (3)")
    reading = other.execute("SELECT a FROM t")
    reading.fetchone()
    with pytest.raises(turso.OperationalError, match="locked"):
        conn.isolation_level = None
    assert conn.isolation_level is None and conn.in_transaction
    reading.close()
    conn.commit()
    conn.execute("INSERT INTO t VALUES (4)")
    assert not conn.in_transaction


NO_REWRITES: list[Any] = [
    Rewrite(None),  # type: ignore[arg-type]
    Rewrite(b"DELETE FROM notes"),  # type: ignore[arg-type]
    Rewrite(bytearray(b"DELETE FROM notes")),  # type: ignore[arg-type]
    Rewrite(7),  # type: ignore[arg-type]
    Rewrite("DELETE FROM notes WHERE text = '\ud800'"),
    Rewrite("INSERT INTO notes VALUES (1, ?)", "ab"),
    Rewrite("INSERT INTO notes VALUES (1, ?)", {"a": 1}),  # type: ignore[arg-type]
    Rewrite("INSERT INTO notes VALUES (1, ?)", [object()]),
    Rewrite("INSERT INTO notes VALUES (1, ?)", [[1, 2]]),
    Rewrite("INSERT INTO notes VALUES (1, ?)", ["\ud800"]),
    Rewrite("INSERT INTO notes VALUES (1, ?)", [2**63]),
    Rewrite("INSERT INTO notes VALUES (1, ?)", 5),  # type: ignore[arg-type]
    {"operation": "rewrite"},
    {"operation": "rewrite", "stmt": None},
    {"operation": "rewrite", "stmt": {"values": []}},
    {"operation": "rewrite", "stmt": {"sql": None}},
    {"operation": "other"},
    {},
    False,
    True,
    0,
    "",
    "skip",
    Skip,
    Rewrite,
    ("DELETE FROM notes", ()),
    ("DELETE FROM notes",),
    [],
]


@pytest.mark.parametrize("answer", NO_REWRITES, ids=lambda answer: repr(answer)[:60])
def test_b2_an_answer_that_is_no_rewrite_stops_the_push_and_the_change_stays(
    empty_url: str, tmp_path: Path, answer: Any
) -> None:
    answers = [answer]
    conn = turso.sync.connect(
        tmp_path / "a.db", empty_url, transform=lambda m: answers[0] if m.table_name == "notes" else None
    )
    conn.executescript("CREATE TABLE notes(id INTEGER PRIMARY KEY, text)")
    conn.push()
    conn.execute("INSERT INTO notes VALUES (1, 'here')")
    conn.commit()
    with pytest.raises(turso.Error) as caught:
        conn.push()
    assert caught.value.__cause__ is not None
    assert conn.stats().cdc_operations == 1, "nothing was sent, and nothing forgotten"
    answers[0] = None
    conn.push()
    other = turso.sync.connect(tmp_path / "b.db", empty_url)
    assert other.execute("SELECT * FROM notes").fetchall() == [(1, "here")]


def test_b2_a_subclass_of_str_is_the_text_that_it_holds(empty_url: str, tmp_path: Path) -> None:
    def transform(m: Mutation) -> Rewrite | None:
        if m.table_name != "notes":
            return None
        return Rewrite(Text("INSERT INTO notes VALUES (?, ?)"), (m.id, Text("there")))

    conn = turso.sync.connect(tmp_path / "a.db", empty_url, transform=transform)
    conn.executescript("CREATE TABLE notes(id INTEGER PRIMARY KEY, text); INSERT INTO notes VALUES (1, 'here')")
    conn.push()
    other = turso.sync.connect(tmp_path / "b.db", empty_url)
    assert other.execute("SELECT * FROM notes").fetchall() == [(1, "there")]


def test_b6_no_statement_steps_the_query_of_another_cursor() -> None:
    conn = turso.connect(":memory:")
    steps: list[int] = []

    def seen(a: int) -> int:
        steps.append(a)
        return a

    conn.create_function("seen", 1, seen)
    conn.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (3), (4), (5)")
    cursors = [conn.execute("SELECT seen(a) FROM t") for _ in range(3)]
    for cursor in cursors:
        cursor.fetchone()
    steps.clear()
    conn.execute("SELECT 1").fetchone()
    conn.execute("INSERT INTO t VALUES (6)")
    conn.commit()
    conn.rollback()
    assert steps == []


def test_b6_a_fetch_keeps_to_the_query_timeout_and_a_commit_after_it_does_nothing() -> None:
    conn = turso.connect(":memory:")
    conn.set_query_timeout(100)
    cursor = conn.execute(ENDLESS + "SELECT i FROM n WHERE i = 1 OR i < 0")
    with pytest.raises(turso.OperationalError, match="interrupted"):
        cursor.fetchone()
    assert cursor.fetchone() is None
    assert conn.execute("SELECT 1").fetchone() == (1,)
    conn.commit()


def test_b6_what_comes_after_a_fetchone_fetches_no_page(slow: tuple[str, Proxy], tmp_path: Path) -> None:
    url, proxy = slow
    # Segments alone.
    opts = dataclasses.replace(PREFIX, prefetch=False)
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=opts)
    # The first row is here soon; the next one that fits, if there were one, would be anywhere.
    cursor = conn.execute("SELECT text FROM messages WHERE text LIKE 'message 0 %'")
    assert cursor.fetchone()[0].startswith("message 0 ")
    # A row is given when its page is here, and the rest of the segment, pages 1 to 32, arrives after it.
    eventually(lambda: conn.stats().pages_present == 32)
    before = proxy.requests
    conn.commit()
    conn.rollback()
    conn.execute("SELECT 1").fetchone()
    assert (proxy.requests, conn.stats().pages_present) == (before, 32)
    assert cursor.fetchone() is None
    assert conn.stats().pages_present > 32


ONE_ROW = [
    "SELECT text FROM messages WHERE id = 7",
    "SELECT COUNT(*), MAX(id) FROM messages",
    "SELECT text FROM messages ORDER BY id LIMIT 1",
    "SELECT a.text, b.text FROM messages a JOIN messages b ON b.id = a.id + 1 WHERE a.id = 3",
    "SELECT 1",
    "PRAGMA user_version",
    "SELECT EXISTS (SELECT 1 FROM messages WHERE user_id = 'u_1')",
    "SELECT (SELECT MAX(id) FROM messages), 2",
]


@pytest.mark.parametrize("sql", ONE_ROW)
def test_b6_a_query_that_has_one_row_at_most_has_ended_with_it(url: str, tmp_path: Path, sql: str) -> None:
    one = turso.sync.connect(tmp_path / "one.db", url)
    two = turso.sync.connect(tmp_path / "two.db", url, partial_sync_opts=PREFIX)
    cursor = two.execute(sql)
    assert cursor.fetchone() is not None
    one.execute("DELETE FROM messages WHERE id > 10")
    one.commit()
    one.push()
    assert two.pull()
    assert two.execute("SELECT COUNT(*) FROM messages").fetchone() == (10,), "it holds no snapshot"
    assert cursor.fetchone() is None


def test_b9_the_package_has_what_its_types_declare() -> None:
    import ast

    import turso._turso

    stub = ast.parse(Path(turso._turso.__file__).with_name("_turso.pyi").read_text())
    for node in stub.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            assert hasattr(turso._turso, node.name), node.name
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    assert hasattr(getattr(turso._turso, node.name), member.name), (node.name, member.name)
    for module in (turso, turso.sync, turso.aio, turso.aio.sync):
        for name in module.__all__:
            assert hasattr(module, name), (module.__name__, name)


def test_b9_a_subinterpreter_is_refused() -> None:
    interpreters = pytest.importorskip("_xxsubinterpreters")
    program = """
import sys, _xxsubinterpreters as interpreters
%s
other = interpreters.create()
code = f'''
import sys
sys.path[:] = {sys.path!r}
try:
    import turso
    print("imported")
except ImportError as error:
    print(error)
'''
interpreters.run_string(other, code)
import turso
print(turso.connect(":memory:").execute("SELECT 1").fetchone())
"""
    for before in ("", "import turso"):
        done = subprocess.run([sys.executable, "-c", program % before], capture_output=True, text=True, timeout=15)
        assert "cannot be used in a subinterpreter" in done.stdout and done.stdout.endswith("(1,)\n"), done
    assert interpreters


def test_b9_a_thread_that_calls_again_and_again_does_not_keep_others_out() -> None:
    conn = turso.connect(":memory:")
    conn.execute("CREATE TABLE t(a)")
    busy = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT COUNT(*) FROM n"
    greedy = [0]
    stop = threading.Event()

    def hog() -> None:
        while not stop.is_set():
            conn.execute(busy).fetchone()
            greedy[0] += 1

    threads = [threading.Thread(target=hog) for _ in range(3)]
    for thread in threads:
        thread.start()
    while greedy[0] < 5:
        time.sleep(0.001)
    between = []
    for _ in range(20):
        before = greedy[0]
        conn.execute("SELECT 1").fetchone()
        between.append(greedy[0] - before)
    stop.set()
    for thread in threads:
        thread.join()
    # Each of the others has been before this one once, and once more while it came to ask.
    assert sorted(between)[10] <= 6, between


NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5) "


def test_b9_a_cursor_that_another_thread_closes_gives_no_rows_of_another_query() -> None:
    conn = turso.connect(":memory:", isolation_level=None)
    may_end = threading.Event()
    conn.create_function("hold", 0, lambda: may_end.wait(15) and None)
    cursor = conn.execute(NUMBERS + "SELECT 'closed', i FROM n")
    given: dict[str, Any] = {}

    def run(name: str, work: Callable[[], Any]) -> threading.Thread:
        waiting = threading.active_count()
        thread = threading.Thread(target=lambda: given.update({name: work()}))
        thread.start()
        eventually(lambda: threading.active_count() > waiting)
        # It has to have got its place in the queue.
        time.sleep(0.2)
        return thread

    threads = [
        run("holds", lambda: conn.execute("SELECT hold()").fetchall()),
        run("other", lambda: conn.execute(NUMBERS + "SELECT 'other', i, i FROM n").fetchall()),
        run("closed", cursor.fetchone),
    ]
    cursor.close()
    may_end.set()
    for thread in threads:
        thread.join(15)
    assert given["closed"] is None
    assert given["other"] == [("other", i, i) for i in range(1, 6)]


@pytest.mark.parametrize("read", ["fetchall", "fetchmany", "iteration"])
def test_b9_rows_after_one_that_could_not_be_converted_are_not_lost(read: str) -> None:
    conn = turso.connect(":memory:", isolation_level=None)
    conn.execute("CREATE TABLE t(i, x)")
    conn.executemany("INSERT INTO t VALUES (?, 'a')", [(i,) for i in range(100)])
    conn.execute("UPDATE t SET x = CAST(x'ff' AS TEXT) WHERE i = 30")
    cursor = conn.execute("SELECT i, x FROM t ORDER BY i")
    reads: dict[str, Callable[[], list[Any]]] = {
        "fetchall": cursor.fetchall,
        "fetchmany": lambda: cursor.fetchmany(90),
        "iteration": lambda: list(cursor),
    }
    for _ in range(2):
        with pytest.raises(turso.OperationalError, match="Could not decode"):
            reads[read]()
    conn.text_factory = bytes
    assert [i for i, _ in cursor.fetchmany(3)] == [30, 31, 32]
    assert [i for i, _ in cursor.fetchall()] == list(range(33, 100))
    assert cursor.fetchall() == []


@in_a_loop
async def test_b9_what_a_call_is_given_is_what_it_was_when_it_was_awaited() -> None:
    async with turso.aio.connect(":memory:", isolation_level=None) as conn:
        await conn.execute("CREATE TABLE t(a)")
        row, named = [0], {"a": 0}
        may_go = threading.Event()
        await conn.create_function("hold", 0, lambda: may_go.wait(15) and None)

        async def insert(i: int) -> None:
            row[0] = named["a"] = i
            match i % 4:
                case 0:
                    await conn.execute("INSERT INTO t VALUES (?)", row)
                case 1:
                    await conn.execute_fetchall("INSERT INTO t VALUES (:a)", named)
                case 2:
                    await conn.executemany("INSERT INTO t VALUES (?)", [row])
                case _:
                    await conn.batch([("INSERT INTO t VALUES (?)", row)])

        held = asyncio.create_task(conn.execute_fetchall("SELECT hold()"))
        tasks = [asyncio.create_task(insert(i)) for i in range(4)]
        await asyncio.sleep(0.05)
        may_go.set()
        await asyncio.gather(held, *tasks)
        assert await conn.execute_fetchall("SELECT a FROM t ORDER BY rowid") == [(i,) for i in range(4)]
