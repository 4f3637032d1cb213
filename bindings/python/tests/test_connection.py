"""Connections and cursors where they go beyond the standard library's, or are newer than the oldest Python."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

import turso


@pytest.fixture
def conn() -> turso.Connection:
    conn = turso.connect(":memory:")
    conn.execute("CREATE TABLE t(a, b)")
    return conn


def test_what_the_module_says_of_itself() -> None:
    assert (turso.apilevel, turso.paramstyle, turso.threadsafety) == ("2.0", "qmark", 3)
    assert turso.sqlite_version_info >= (3, 50, 0)
    for name in ("Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError"):
        assert getattr(turso.Connection, name) is getattr(turso, name)
    for name in ("IntegrityError", "InternalError", "ProgrammingError", "NotSupportedError"):
        assert getattr(turso.Connection, name) is getattr(turso, name)
        assert issubclass(getattr(turso, name), turso.DatabaseError)
    assert turso.Connection.__name__ == "Connection" and turso.OperationalError.__module__ == "turso"


def test_a_batch_gives_a_result_for_each_statement(conn: turso.Connection) -> None:
    results = conn.batch(
        [
            "CREATE TABLE u(a)",
            ("INSERT INTO u VALUES (?)", (1,)),
            ("-- said first\nINSERT INTO u VALUES (:a)", {"a": 2}),
            "SELECT a AS x FROM u ORDER BY a",
        ]
    )
    none = (None,) * 6
    assert results == [
        turso.BatchResult(rows=[], description=None, rowcount=0, lastrowid=None),
        turso.BatchResult(rows=[], description=None, rowcount=1, lastrowid=1),
        turso.BatchResult(rows=[], description=None, rowcount=1, lastrowid=2),
        turso.BatchResult(rows=[(1,), (2,)], description=(("x", *none),), rowcount=-1, lastrowid=None),
    ]
    assert not conn.in_transaction and conn.isolation_level == "DEFERRED"


@pytest.mark.parametrize(("mode", "left"), [(None, 1), ("deferred", 0), ("IMMEDIATE", 0), ("exclusive", 0)])
def test_an_error_in_a_batch_says_where(conn: turso.Connection, mode: str | None, left: int) -> None:
    with pytest.raises(turso.OperationalError, match="no such table: nope") as caught:
        conn.batch(["INSERT INTO t VALUES (1, 1)", "INSERT INTO nope VALUES (1)", "SELECT 1"], mode)
    error: Any = caught.value
    assert error.batch_index == 1
    assert [result is None for result in error.batch_results] == [False, True, True]
    assert conn.execute("SELECT COUNT(*) FROM t").fetchone() == (left,)
    assert not conn.in_transaction


def test_a_batch_is_part_of_the_transaction_that_is_open(conn: turso.Connection) -> None:
    conn.execute("INSERT INTO t VALUES (1, 1)")
    conn.batch(["INSERT INTO t VALUES (2, 2)"], "immediate")
    assert conn.in_transaction
    conn.rollback()
    assert conn.execute("SELECT COUNT(*) FROM t").fetchone() == (0,)


def test_a_batch_mode_that_is_none(conn: turso.Connection) -> None:
    with pytest.raises(turso.ProgrammingError, match="batch mode must be one of deferred, .* not 'read'"):
        conn.batch([], "read")


def test_autocommit_false_always_has_a_transaction_open(tmp_path: Path) -> None:
    conn = turso.connect(tmp_path / "a.db", autocommit=False)
    assert conn.autocommit is False and conn.in_transaction
    conn.execute("CREATE TABLE t(a)")
    conn.commit()
    assert conn.in_transaction
    with conn:
        conn.execute("INSERT INTO t VALUES (1)")
    conn.execute("INSERT INTO t VALUES (2)")
    conn.rollback()
    conn.executescript("INSERT INTO t VALUES (3)")
    assert conn.in_transaction
    conn.close()
    again = turso.connect(tmp_path / "a.db", autocommit=True)
    assert again.execute("SELECT a FROM t").fetchall() == [(1,)]
    again.execute("INSERT INTO t VALUES (4)")
    assert not again.in_transaction
    again.execute("BEGIN")
    again.commit()
    assert again.in_transaction, "commit() does nothing: the program begins and ends transactions itself"
    again.autocommit = turso.LEGACY_TRANSACTION_CONTROL
    assert again.in_transaction and again.autocommit == "LEGACY"
    again.commit()
    assert not again.in_transaction
    again.autocommit = -1
    assert again.autocommit == turso.LEGACY_TRANSACTION_CONTROL
    again.autocommit = False
    assert again.in_transaction


def test_a_write_with_returning_is_done_before_its_rows_are_fetched(tmp_path: Path) -> None:
    conn = turso.connect(tmp_path / "a.db", isolation_level=None)
    conn.execute("CREATE TABLE t(a)")
    cursor = conn.execute("INSERT INTO t VALUES (1), (2), (3) RETURNING a")
    assert cursor.rowcount == 3
    other = turso.connect(tmp_path / "a.db", timeout=0)
    other.execute("INSERT INTO t VALUES (4)")
    other.commit()
    assert cursor.fetchall() == [(1,), (2,), (3,)]


def test_numbers_of_array_libraries_are_stored_as_numbers(conn: turso.Connection) -> None:
    class Int32:
        def __index__(self) -> int:
            return 7

    assert conn.execute("SELECT ?, typeof(?1)", (Int32(),)).fetchone() == (7, "integer")


def test_a_table_that_changes_shape_is_seen_by_statements_that_ran_before(conn: turso.Connection) -> None:
    sql = "SELECT * FROM t"
    conn.execute("INSERT INTO t VALUES (1, 2)")
    assert [c[0] for c in conn.execute(sql).description or ()] == ["a", "b"]
    conn.execute("ALTER TABLE t ADD COLUMN c DEFAULT 3")
    cursor = conn.execute(sql)
    assert [c[0] for c in cursor.description or ()] == ["a", "b", "c"] and cursor.fetchall() == [(1, 2, 3)]
    conn.execute("ALTER TABLE t RENAME COLUMN a TO x")
    cursor = conn.execute(sql)
    assert [c[0] for c in cursor.description or ()] == ["x", "b", "c"]


def test_statements_are_kept_and_given_up_again() -> None:
    for statements in (0, 1, 2, 128):
        conn = turso.connect(":memory:", cached_statements=statements)
        for _ in range(3):
            cursors = [conn.execute(f"SELECT {i % 5}, ?", (i,)) for i in range(300)]
            assert [cursor.fetchone() for cursor in cursors] == [(i % 5, i) for i in range(300)]


def test_one_statement_may_be_read_twice_at_a_time(conn: turso.Connection) -> None:
    conn.executemany("INSERT INTO t VALUES (?, 0)", [(i,) for i in range(4)])
    one, two = (conn.execute("SELECT a FROM t ORDER BY a") for _ in range(2))
    assert [one.fetchone(), one.fetchone(), two.fetchone(), one.fetchone()] == [(0,), (1,), (0,), (2,)]
    assert (one.fetchall(), two.fetchall()) == ([(3,)], [(1,), (2,), (3,)])


def test_an_error_in_the_middle_of_a_query_ends_it(conn: turso.Connection) -> None:
    conn.executemany("INSERT INTO t VALUES (?, 0)", [(1,), (2,), (-9223372036854775808,), (4,)])
    cursor = conn.execute("SELECT abs(a) FROM t")
    assert cursor.fetchone() == (1,)
    with pytest.raises(turso.OperationalError, match="integer overflow"):
        cursor.fetchall()
    assert cursor.fetchone() is None
    # As in sqlite3 it is met by anyone who asks for the row before it, and by no other statement.
    cursor = conn.execute("SELECT abs(a) FROM t WHERE a != 1")
    assert conn.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(turso.OperationalError, match="integer overflow"):
        cursor.fetchone()
    assert cursor.fetchone() is None


def test_a_callback_cannot_use_the_connection_that_calls_it(conn: turso.Connection) -> None:
    conn.create_function("again", 0, lambda: conn.execute("SELECT 1").fetchone()[0])
    with pytest.raises(turso.OperationalError, match="user-defined function raised exception") as caught:
        conn.execute("SELECT again()").fetchone()
    assert isinstance(caught.value.__cause__, turso.ProgrammingError)
    conn.row_factory = lambda cursor, row: conn.execute("SELECT 2").fetchall() if row == (1,) else row
    assert conn.execute("SELECT 1").fetchone() == [(2,)], "a row factory can"


def test_errors_carry_the_codes_of_sqlite(conn: turso.Connection) -> None:
    conn.execute("CREATE UNIQUE INDEX i ON t(a)")
    conn.execute("INSERT INTO t VALUES (1, 1)")
    with pytest.raises(turso.IntegrityError) as caught:
        conn.execute("INSERT INTO t VALUES (1, 1)")
    assert (caught.value.sqlite_errorcode, caught.value.sqlite_errorname) == (2067, "SQLITE_CONSTRAINT_UNIQUE")
    assert str(caught.value) == "UNIQUE constraint failed: t.a"


def test_subclasses_of_connections_cursors_and_rows() -> None:
    class Cursor(turso.Cursor):
        def __init__(self, connection: turso.Connection) -> None:
            super().__init__(connection)
            self.runs = 0

        def execute(self, sql: str, parameters: Any = ()) -> Cursor:
            self.runs += 1
            return super().execute(sql, parameters)

    class Connection(turso.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.mine = True

        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    class Row(turso.Row):
        def shout(self) -> str:
            return str(self[0]).upper()

    conn = turso.connect(":memory:", factory=Connection)
    assert isinstance(conn, Connection) and conn.mine
    conn.row_factory = Row
    cursor = conn.cursor()
    assert isinstance(cursor, Cursor) and cursor.execute("SELECT 'a' AS x").fetchone().shout() == "A"
    assert cursor.runs == 1


def test_a_cursor_that_refers_to_itself_is_collected(conn: turso.Connection) -> None:
    cursor = conn.cursor()
    cursor.row_factory = lambda c, row, mine=cursor: row
    gone = weakref.ref(cursor)
    del cursor
    gc.collect()
    assert gone() is None


def test_a_trace_callback_is_told_what_runs(conn: turso.Connection) -> None:
    told: list[str] = []
    conn.set_trace_callback(told.append)
    conn.execute("INSERT INTO t VALUES (?, :b)", (1, "x'y"))
    conn.commit()
    conn.executescript("SELECT 1; SELECT 2")
    conn.set_trace_callback(None)
    conn.execute("SELECT 3")
    assert [sql.strip() for sql in told] == [
        "BEGIN DEFERRED",
        "INSERT INTO t VALUES (1, 'x''y')",
        "COMMIT",
        "SELECT 1;",
        "SELECT 2",
    ]


@pytest.mark.parametrize("sql", ["VACUUM", "PRAGMA journal_mode = DELETE"])
def test_what_a_replica_cannot_do_is_not_supported(shared_url: str, sql: str) -> None:
    import turso.sync

    replica = turso.sync.connect(":memory:", shared_url)
    with pytest.raises(turso.NotSupportedError, match="is not possible on a replica"):
        replica.execute(sql)
