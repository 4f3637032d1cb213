"""What people do with the standard library's sqlite3, done with it and with turso: the answers must be the
same.
"""

from __future__ import annotations

import datetime
import decimal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import turso

Program = Callable[[Any, Path], Any]


def _outcome(module: Any, path: Path, program: Program) -> Any:
    """What a program gives, or the name of the exception that it ends with."""
    try:
        return program(module, path)
    except Exception as error:
        return type(error).__name__


def _first_steps(module: Any, path: Path) -> Any:
    con = module.connect(path / "tutorial.db")
    cur = con.cursor()
    cur.execute("CREATE TABLE movie(title, year, score)")
    seen = [cur.execute("SELECT name FROM sqlite_master").fetchone()]
    seen.append(cur.execute("SELECT name FROM sqlite_master WHERE name='spam'").fetchone())
    cur.execute(
        "INSERT INTO movie VALUES ('Monty Python and the Holy Grail', 1975, 8.2), ('Life', 1971, 7.5)"
    )
    con.commit()
    data = [("Live", 1982, 7.9), ("The Meaning of Life", 1983, 7.5), ("Brian", 1979, 8.0)]
    cur.executemany("INSERT INTO movie VALUES(?, ?, ?)", data)
    con.commit()
    seen.append(list(cur.execute("SELECT year, title FROM movie ORDER BY year")))
    con.close()
    new = module.connect(path / "tutorial.db")
    seen.append(new.execute("SELECT title, year FROM movie ORDER BY score DESC").fetchone())
    new.close()
    return seen


def _placeholders(module: Any, path: Path) -> Any:
    cur = module.connect(":memory:").cursor()
    return [
        cur.execute("SELECT ?, ?", (1, "two")).fetchone(),
        cur.execute("SELECT ?, ?", [1, "two"]).fetchone(),
        cur.execute("SELECT :a, @b, $c", {"a": 1, "b": 2, "c": 3, "unused": 4}).fetchone(),
        cur.execute("SELECT ?2, ?1", (1, 2)).fetchone(),
        cur.execute("SELECT :a, :b, :a", {"a": 1, "b": 2}).fetchone(),
    ]


def _values(module: Any, path: Path) -> Any:
    cur = module.connect(":memory:").cursor()
    values = [
        None,
        True,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        1.5,
        -0.0,
        float("inf"),
        float("nan"),
        "",
        "text",
        "naïve 🐍 \u0000 nul",
        b"",
        b"\x00\xff",
        bytearray(b"array"),
        memoryview(b"view"),
    ]
    return [repr(cur.execute("SELECT ?, typeof(?1)", (value,)).fetchone()) for value in values]


def _one_value(value: Any) -> Program:
    return lambda module, path: module.connect(":memory:").execute("SELECT ?", (value,)).fetchone()


def _implicit_transactions(module: Any, path: Path) -> Any:
    con = module.connect(path / "a.db")
    seen = [con.in_transaction]
    con.execute("CREATE TABLE t(a)")
    seen.append(con.in_transaction)
    con.execute("SELECT 1")
    seen.append(con.in_transaction)
    con.execute("  -- a comment\n /* and another */ iNsErT INTO t VALUES (1)")
    seen.append(con.in_transaction)
    con.rollback()
    seen += [con.in_transaction, con.execute("SELECT COUNT(*) FROM t").fetchone()]
    con.execute("WITH a(x) AS (VALUES (1)) INSERT INTO t SELECT x FROM a")
    seen.append(con.in_transaction)
    con.execute("REPLACE INTO t VALUES (2)")
    seen.append(con.in_transaction)
    con.execute("CREATE TABLE u(a)")
    seen.append(con.in_transaction)
    con.executescript("INSERT INTO t VALUES (3); INSERT INTO t VALUES (4);")
    seen.append(con.in_transaction)
    con.execute("DELETE FROM t")
    con.close()
    con = module.connect(path / "a.db", isolation_level=None)
    seen.append(con.execute("SELECT a FROM t ORDER BY a").fetchall())
    con.execute("INSERT INTO t VALUES (5)")
    seen.append(con.in_transaction)
    con.execute("BEGIN")
    con.execute("INSERT INTO t VALUES (6)")
    seen.append(con.in_transaction)
    con.rollback()
    seen.append(con.execute("SELECT COUNT(*) FROM t").fetchone())
    return seen


def _context_manager(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    con.execute("CREATE TABLE lang(id INTEGER PRIMARY KEY, name VARCHAR UNIQUE)")
    seen = []
    with con:
        con.execute("INSERT INTO lang(name) VALUES(?)", ("Python",))
    try:
        with con:
            con.execute("INSERT INTO lang(name) VALUES(?)", ("C",))
            con.execute("INSERT INTO lang(name) VALUES(?)", ("Python",))
    except module.IntegrityError as error:
        seen.append(str(error))
    seen.append(con.execute("SELECT name FROM lang").fetchall())
    return seen


def _counts(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    cur = con.cursor()
    seen: list[Any] = [(cur.rowcount, cur.lastrowid, cur.description, cur.arraysize)]
    for sql, parameters in [
        ("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", ()),
        ("INSERT INTO t(b) VALUES (1), (2), (3)", ()),
        ("UPDATE t SET b = b + 1 WHERE a > ?", (1,)),
        ("UPDATE t SET b = 0 WHERE a > 100", ()),
        ("SELECT a AS x, b FROM t", ()),
        ("DELETE FROM t WHERE a = 1", ()),
        ("DELETE FROM t", ()),
        ("REPLACE INTO t VALUES (77, 1)", ()),
        ("INSERT OR IGNORE INTO t VALUES (77, 2)", ()),
    ]:
        cur.execute(sql, parameters)
        seen.append((cur.rowcount, cur.lastrowid, cur.description))
    cur.executemany("INSERT INTO t(b) VALUES (?)", [(i,) for i in range(5)])
    seen.append((cur.rowcount, con.total_changes))
    return seen


def _fetching(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    cur = con.cursor()
    cur.execute("CREATE TABLE t(a)")
    cur.executemany("INSERT INTO t VALUES (?)", ((i,) for i in range(10)))
    cur.execute("SELECT a FROM t ORDER BY a")
    seen = [
        cur.fetchone(),
        cur.fetchmany(),
        cur.fetchmany(3),
        next(cur),
        list(cur),
        cur.fetchone(),
        cur.fetchall(),
    ]
    cur.arraysize = 4
    cur.execute("SELECT a FROM t ORDER BY a")
    seen += [cur.fetchmany(), cur.fetchmany(100), cur.fetchmany(), cur.fetchmany(0)]
    cur.execute("SELECT a FROM t ORDER BY a")
    for (a,) in cur:
        seen.append((a, con.execute("SELECT COUNT(*) FROM t WHERE a < ?", (a,)).fetchone()))
    cur.execute("INSERT INTO t VALUES (10), (11) RETURNING a, a * 2 AS double")
    seen += [cur.description, cur.fetchall()]
    return seen


def _nested(module: Any, path: Path) -> Any:
    """A query that is being read while other statements run on the connection."""
    con = module.connect(path / "n.db")
    con.execute("CREATE TABLE t(a)")
    con.executemany("INSERT INTO t VALUES (?)", ((i,) for i in range(6)))
    con.commit()
    out = []
    for (a,) in con.execute("SELECT a FROM t ORDER BY a"):
        con.execute("INSERT INTO t VALUES (?)", (a + 100,)) if a < 3 else None
        con.commit()
        out.append(a)
        if len(out) > 50:
            break
    con.execute("DROP TABLE t")
    con.commit()
    return out


def _rows(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    con.row_factory = module.Row
    row = con.execute("SELECT 1 AS Name, 2 AS age, 'x' AS \"a b\"").fetchone()
    seen: list[Any] = [row["name"], row["NAME"], row[1], row[-1], row[0:2], row.keys(), tuple(row), len(row)]
    seen += [
        dict(row),
        list(row),
        row == con.execute("SELECT 1 AS Name, 2 AS age, 'x' AS \"a b\"").fetchone(),
    ]
    seen += [row == con.execute("SELECT 1 AS other, 2 AS age, 'x' AS \"a b\"").fetchone(), 2 in row, 9 in row]
    seen.append(hash(row) == hash(con.execute("SELECT 1 AS Name, 2 AS age, 'x' AS \"a b\"").fetchone()))
    for key in ("nope", 3, -4, 1.5):
        try:
            seen.append(row[key])
        except IndexError as error:
            seen.append(str(error))
    a, b, c = row
    seen += [a, b, c, sorted(con.execute("SELECT 3 AS z, 1 AS y").fetchone())]
    return seen


def _row_factories(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")

    def dict_factory(cursor: Any, row: tuple[Any, ...]) -> dict[str, Any]:
        return {column[0]: value for column, value in zip(cursor.description, row)}

    con.row_factory = dict_factory
    seen: list[Any] = [con.execute("SELECT 1 AS a, 2 AS b").fetchone()]
    cur = con.cursor()
    cur.row_factory = lambda cursor, row: row[0]
    seen += [cur.execute("VALUES (1), (2), (3)").fetchall(), list(cur.execute("VALUES (1), (2)"))]
    con.row_factory = None
    seen.append(con.execute("SELECT 1").fetchone())
    return seen


def _text_factories(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    seen = []
    for factory in (bytes, bytearray, lambda data: data.decode("utf-8") + "foo", str):
        con.text_factory = factory
        seen.append(con.execute("SELECT ?, x'41', 1, NULL", ("Österreich",)).fetchone())
    con.text_factory = lambda data: data.decode(errors="replace")
    seen.append(con.execute("SELECT CAST(x'ff41' AS TEXT)").fetchone())
    return seen


def _not_utf8(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    try:
        con.execute("SELECT CAST(x'ff41' AS TEXT) AS broken").fetchone()
    except module.OperationalError as error:
        return str(error)[:40]


def _dates(module: Any, path: Path) -> Any:
    con = module.connect(":memory:", detect_types=module.PARSE_DECLTYPES | module.PARSE_COLNAMES)
    cur = con.cursor()
    today, now = datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 12, 30, 45, 123456)
    cur.execute("CREATE TABLE t(d DATE, ts TIMESTAMP, n)")
    cur.execute("INSERT INTO t VALUES (?, ?, ?)", (today, now, today))
    seen = [cur.execute("SELECT d, ts, n FROM t").fetchone()]
    seen.append(
        cur.execute("SELECT n AS 'n [date]', ts AS 'ts [timestamp]', NULL AS 'x [date]' FROM t").fetchone()
    )
    seen.append(cur.description)
    return seen


class _Point:
    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y

    def __repr__(self) -> str:
        return f"Point({self.x}, {self.y})"


class _Conforming(_Point):
    def __conform__(self, protocol: Any) -> str:
        return f"{self.x};{self.y}"


def _adapters(module: Any, path: Path) -> Any:
    module.register_adapter(_Point, lambda point: f"{point.x};{point.y}")
    module.register_adapter(decimal.Decimal, str)
    module.register_converter("point", lambda data: _Point(*map(float, data.split(b";"))))
    con = module.connect(":memory:", detect_types=module.PARSE_DECLTYPES)
    con.execute("CREATE TABLE test(p point)")
    con.execute("INSERT INTO test VALUES (?), (?)", (_Point(4.0, -3.2), _Conforming(1, 2)))
    seen: list[Any] = [repr(con.execute("SELECT p FROM test").fetchall())]
    seen.append(con.execute("SELECT ?", (decimal.Decimal("1.10"),)).fetchone())
    return seen


def _errors(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    con.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE NOT NULL, c CHECK (c > 0))")
    con.execute("INSERT INTO t VALUES (1, 1, 1)")
    seen: list[Any] = []
    for sql, parameters in [
        ("SELEC 1", ()),
        ("SELECT * FROM nope", ()),
        ("INSERT INTO t VALUES (1, 2, 3)", ()),
        ("INSERT INTO t VALUES (2, 1, 3)", ()),
        ("INSERT INTO t VALUES (3, NULL, 3)", ()),
        ("INSERT INTO t VALUES (4, 4, -1)", ()),
        ("INSERT INTO t VALUES ('x', 5, 1)", ()),
        ("SELECT 1; SELECT 2", ()),
        ("SELECT ?", ()),
        ("SELECT ?", (1, 2)),
        ("SELECT ?", {"a": 1}),
        ("SELECT :a", {}),
        ("SELECT ?", 5),
        ("SELECT ?", (object(),)),
        ("SELECT ?", (2**63,)),
        ("SELECT ?", ("\ud800",)),
        ("SELECT abs(-9223372036854775808)", ()),
        ("COMMIT; COMMIT", ()),
        (5, ()),
    ]:
        try:
            con.execute(sql, parameters).fetchall()
            seen.append("fine")
        except Exception as error:
            seen.append((type(error).__name__, getattr(error, "sqlite_errorname", None)))
    return seen


def _closed(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    cur = con.cursor()
    closed_cursor = con.cursor()
    closed_cursor.close()
    seen = []
    calls: list[Callable[[], Any]] = [lambda: closed_cursor.execute("SELECT 1"), closed_cursor.fetchone]
    con.execute("SELECT 1")
    for call in calls:
        try:
            call()
        except Exception as error:
            seen.append((type(error).__name__, str(error)))
    con.close()
    con.close()
    for call in [
        lambda: con.execute("SELECT 1"),
        lambda: cur.execute("SELECT 1"),
        cur.fetchone,
        cur.fetchall,
        con.cursor,
        con.commit,
        con.rollback,
        lambda: con.in_transaction,
        lambda: con.total_changes,
        con.__enter__,
    ]:
        try:
            call()
            seen.append(("nothing", ""))
        except Exception as error:
            seen.append((type(error).__name__, str(error)))
    return seen


def _many(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    con.execute("CREATE TABLE t(a, b)")
    con.executemany("INSERT INTO t VALUES (:a, :b)", ({"a": i, "b": str(i)} for i in range(3)))
    con.executemany("INSERT INTO t VALUES (?, ?)", iter([(7, 8)]))
    con.executemany(
        "INSERT INTO t SELECT a + ?, b FROM t WHERE a = ?", con.execute("SELECT 10, a FROM t").fetchall()
    )
    seen = [con.execute("SELECT * FROM t ORDER BY a").fetchall(), con.in_transaction]
    try:
        con.executemany("INSERT INTO t VALUES (?, ?)", [(1, 2), (3,)])
    except Exception as error:
        seen.append(type(error).__name__)
    try:
        con.executemany("SELECT ?", [(1,)])
    except Exception as error:
        seen.append(type(error).__name__)
    seen.append(con.execute("SELECT COUNT(*) FROM t").fetchone())
    return seen


def _scripts(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    con.executescript(
        """
        -- a script
        CREATE TABLE person(name, age);
        CREATE TRIGGER older AFTER INSERT ON person BEGIN
            UPDATE person SET age = age + 1; SELECT 1;
        END;
        INSERT INTO person VALUES ('a;b', 1);
        """
    )
    try:
        con.executescript("INSERT INTO person VALUES ('c', 2); nonsense; INSERT INTO person VALUES ('d', 3);")
    except module.OperationalError:
        pass
    return con.execute("SELECT * FROM person").fetchall()


def _dump(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    con.executescript(
        """
        CREATE TABLE "quo""ted"(a INTEGER PRIMARY KEY AUTOINCREMENT, "b c" TEXT, d BLOB);
        INSERT INTO "quo""ted"("b c", d) VALUES ('it''s', x'00ff'), (NULL, 1.5);
        CREATE VIEW v AS SELECT a FROM "quo""ted";
        CREATE INDEX i ON "quo""ted"("b c");
        """
    )
    return list(con.iterdump())


def _functions(module: Any, path: Path) -> Any:
    con = module.connect(":memory:")
    con.create_function("md5ish", 1, lambda text: f"<{text}>")
    con.create_function("total", -1, lambda *values: sum(values), deterministic=True)

    class MySum:
        def __init__(self) -> None:
            self.count = 0

        def step(self, value: int) -> None:
            self.count += value

        def finalize(self) -> int:
            return self.count

    con.create_aggregate("mysum", 1, MySum)
    con.create_collation("reverse", lambda a, b: (a < b) - (a > b))
    con.execute("CREATE TABLE t(a)")
    con.executemany("INSERT INTO t VALUES (?)", [("a",), ("c",), ("b",)])
    seen = [
        con.execute("SELECT md5ish(?)", ("foo",)).fetchone(),
        con.execute("SELECT total(1, 2, 3), total()").fetchone(),
        con.execute("SELECT mysum(value) FROM (SELECT 1 AS value UNION ALL SELECT 2)").fetchone(),
        con.execute("SELECT a FROM t ORDER BY a COLLATE reverse").fetchall(),
    ]
    con.create_function("fails", 0, lambda: 1 / 0)
    try:
        con.execute("SELECT fails()").fetchone()
    except module.OperationalError as error:
        seen.append(str(error))
    return seen


def _two_connections(module: Any, path: Path) -> Any:
    first = module.connect(path / "two.db", timeout=0.05)
    first.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
    second = module.connect(path / "two.db", timeout=0.05)
    first.execute("INSERT INTO t VALUES (1)")
    seen = [second.execute("SELECT COUNT(*) FROM t").fetchone()]
    try:
        second.execute("INSERT INTO t VALUES (2)")
    except module.OperationalError as error:
        seen.append((str(error), error.sqlite_errorname))
    second.rollback()
    first.commit()
    # A query of which one row was read does not keep the other connection's commits from being seen.
    cursor = second.cursor()
    seen.append(cursor.execute("SELECT COUNT(*) FROM t").fetchone())
    first.execute("INSERT INTO t VALUES (3)")
    first.commit()
    seen.append(second.execute("SELECT COUNT(*) FROM t").fetchone())
    return seen


PROGRAMS: list[Program] = [
    _first_steps,
    _placeholders,
    _values,
    _implicit_transactions,
    _context_manager,
    _counts,
    _fetching,
    _nested,
    _rows,
    _row_factories,
    _text_factories,
    _not_utf8,
    _dates,
    _adapters,
    _errors,
    _closed,
    _many,
    _scripts,
    _dump,
    _functions,
    _two_connections,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__.strip("_"))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_same_program_gives_the_same_answers(program: Program, tmp_path: Path) -> None:
    if sys.version_info < (3, 11) and program in (_errors, _closed, _two_connections):
        pytest.skip("errors of sqlite3 have their codes since Python 3.11")
    ours, theirs = tmp_path / "turso", tmp_path / "sqlite3"
    ours.mkdir()
    theirs.mkdir()
    wanted = program(sqlite3, theirs)
    assert program(turso, ours) == wanted
