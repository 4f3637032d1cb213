"""What a call returned is what happened: rewrites that are none, code that runs at the end of a statement, interrupts, and
functions that raise. The names of the tests begin with the rows of the table in docs/proof.md.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
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


# B1 and B3: commits and transactions.


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


# B2: rewrites.

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


# B4: code that runs at the end.


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


# B5: interrupts.


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


# B6: looking ahead.


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
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
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


# B9: functions that raise, and objects that leak.


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




# What a hostile reading found: cursors, conversions, Ctrl-C in callbacks, daemon threads.

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
