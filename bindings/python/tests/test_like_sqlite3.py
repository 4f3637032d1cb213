"""Programs made at random, run with the standard library's sqlite3 and with turso: the answers must be the same.

A program is a list of operations on two connections to one file and on their cursors. What each gives, or which
exception it raises, is taken down together with everything that connections and cursors tell about themselves.

Not asked for, as they differ on purpose: here a statement that changes something and has RETURNING runs to its
end at once, a statement whose parameters are wrong begins no transaction, ``fetchmany(0)`` gives nothing, and a
query that a rollback breaks gives the row that it had before it says so.
"""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import turso

STEPS = 40

SELECTS = [
    ("SELECT a, b FROM t ORDER BY rowid", ()),
    ("SELECT a, b FROM t ORDER BY b, rowid", ()),
    ("SELECT a AS x, b AS 'y z' FROM t WHERE a > ? ORDER BY rowid", (2,)),
    ("SELECT COUNT(*), SUM(a) FROM t", ()),
    ("SELECT :n, typeof(:n)", {"n": "text"}),
    ("SELECT ?, ?", ("ü\0x", b"\0")),
    ("VALUES (1), (2), (3)", ()),
    ("WITH n(i) AS (VALUES (1), (2)) SELECT i FROM n", ()),
    ("PRAGMA user_version", ()),
    ("EXPLAIN QUERY PLAN SELECT 1", ()),
    ("-- nothing", ()),
    ("", ()),
]
CHANGES = [
    ("INSERT INTO t(a, b) VALUES (?, ?)", (5, "five")),
    ("INSERT INTO t(a, b) VALUES (1, 'one'), (2, 'two'), (3, 'three')", ()),
    ("INSERT INTO t(a, b) SELECT a + 10, b FROM t WHERE a < 3", ()),
    ("INSERT OR IGNORE INTO u(k) VALUES (1)", ()),
    ("INSERT OR REPLACE INTO u(k, v) VALUES (1, 'again')", ()),
    ("REPLACE INTO u(k, v) VALUES (2, 'two')", ()),
    ("UPDATE t SET b = b || '!' WHERE a % 2 = ?", (1,)),
    ("UPDATE t SET a = a WHERE 0", ()),
    ("DELETE FROM t WHERE a > :a", {"a": 8}),
    ("DELETE FROM u", ()),
    ("WITH x(i) AS (VALUES (4)) INSERT INTO t(a) SELECT i FROM x", ()),
    (" /* c */ insert into t(a) values (6)", ()),
]
CONTROL = [
    ("BEGIN", ()),
    ("BEGIN IMMEDIATE", ()),
    ("COMMIT", ()),
    ("ROLLBACK", ()),
    ("SAVEPOINT s", ()),
    ("PRAGMA user_version = 3", ()),
    ("RELEASE s", ()),
    ("ROLLBACK TO s", ()),
]
WRONG = [
    ("SELEC 1", ()),
    ("SELECT * FROM nowhere", ()),
    ("INSERT INTO u(k) VALUES (1)", ()),
    ("INSERT INTO u(k) VALUES (NULL)", ()),
    ("SELECT a FROM t WHERE a = ?", ()),
    ("SELECT a FROM t WHERE a = ?", (1, 2)),
    ("SELECT a FROM t WHERE a = :a", {"b": 1}),
    ("SELECT 1; SELECT 2", ()),
    ("INSERT INTO t(a) VALUES (abs(-9223372036854775808))", ()),
]
STATEMENTS = SELECTS * 4 + CHANGES * 4 + CONTROL * 2 + WRONG

MANY: list[tuple[str, list[Any]]] = [
    ("INSERT INTO t(a, b) VALUES (?, ?)", [(i, str(i)) for i in range(3)]),
    ("INSERT INTO u(k) VALUES (?)", [(100,), (101,), (100,)]),
    ("INSERT INTO t(a) VALUES (:a)", [{"a": 1}, {"a": 2}]),
    ("INSERT INTO t(a) VALUES (?)", [(1,), (2, 3)]),
    ("UPDATE t SET b = ? WHERE a = ?", [("x", 1), ("y", 2)]),
    ("DELETE FROM t WHERE a = ?", [(1,), (2,)]),
    ("SELECT ?", [(1,)]),
    ("PRAGMA user_version = 4", [()]),
    ("WITH x(i) AS (VALUES (?)) INSERT INTO t(a) SELECT i FROM x", [(30,), (31,)]),
]
SCRIPTS = [
    "INSERT INTO t(a) VALUES (20); INSERT INTO t(a) VALUES (21);",
    "BEGIN; INSERT INTO t(a) VALUES (22); COMMIT;",
    "BEGIN; INSERT INTO t(a) VALUES (23);",
    "INSERT INTO t(a) VALUES (24); nonsense; INSERT INTO t(a) VALUES (25)",
    "SELECT * FROM t; -- the end",
    "",
]


def program(seed: int) -> list[tuple[Any, ...]]:
    """A list of operations: a name, which connection, which cursor, and arguments."""
    dice = random.Random(seed)
    operations: list[tuple[Any, ...]] = []
    for _ in range(STEPS):
        where = (dice.randrange(2) if dice.random() < 0.5 else 0, dice.randrange(2))
        name = dice.choices(
            [
                "execute",
                "fetchone",
                "fetchmany",
                "fetchall",
                "next",
                "executemany",
                "executescript",
                "connection",
            ]
            + ["commit", "rollback", "block", "set", "new cursor", "reopen"],
            [30, 12, 6, 6, 4, 6, 2, 6, 8, 4, 3, 6, 4, 1],
        )[0]
        match name:
            case "execute" | "connection":
                operations.append((name, *where, dice.choice(STATEMENTS)))
            case "executemany":
                operations.append((name, *where, dice.choice(MANY)))
            case "executescript":
                operations.append((name, *where, dice.choice(SCRIPTS)))
            case "fetchmany":
                operations.append((name, *where, dice.choice([None, 1, 2, 5, 100])))
            case "block":
                operations.append((name, *where, dice.choice(STATEMENTS), dice.random() < 0.3))
            case "set":
                operations.append(
                    (name, *where)
                    + dice.choice(
                        [
                            ("isolation_level", None),
                            ("isolation_level", ""),
                            ("isolation_level", "DEFERRED"),
                            ("isolation_level", "IMMEDIATE"),
                            ("row_factory", None),
                            ("row_factory", "Row"),
                            ("text_factory", str),
                            ("text_factory", bytes),
                            ("arraysize", 3),
                        ]
                    )
                )
            case _:
                operations.append((name, *where))
    return operations


class Machine:
    """Runs operations on a module."""

    def __init__(self, module: Any, path: Path) -> None:
        self.module = module
        self.path = path
        with module.connect(path) as conn:
            conn.executescript(
                "PRAGMA journal_mode = WAL; CREATE TABLE t(a, b); CREATE TABLE u(k PRIMARY KEY NOT NULL, v);"
                "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')"
            )
        conn.close()
        self.conns = [self.connect(), self.connect()]
        self.cursors = [[conn.cursor(), conn.cursor()] for conn in self.conns]

    def connect(self) -> Any:
        return self.module.connect(self.path, timeout=0, isolation_level="DEFERRED")

    def run(self, operation: tuple[Any, ...]) -> Any:
        name, c, k, *rest = operation
        try:
            answer = self.do(name, c, k, rest)
        except StopIteration:
            answer = "StopIteration"
        except Exception as error:
            answer = (type(error).__name__, getattr(error, "sqlite_errorname", None))
        return answer, [self.seen(conn, cursors) for conn, cursors in zip(self.conns, self.cursors)]

    def seen(self, conn: Any, cursors: list[Any]) -> Any:
        """Everything that is told without doing anything."""
        return (
            conn.in_transaction,
            conn.total_changes,
            conn.isolation_level,
            [(cursor.rowcount, cursor.lastrowid, cursor.description, cursor.arraysize) for cursor in cursors],
        )

    def do(self, name: str, c: int, k: int, rest: list[Any]) -> Any:
        conn, cursor = self.conns[c], self.cursors[c][k]
        match name:
            case "execute":
                return cursor.execute(*rest[0]) is cursor
            case "connection":
                return self.plain(conn.execute(*rest[0]).fetchall())
            case "executemany":
                return cursor.executemany(*rest[0]) is cursor
            case "executescript":
                return cursor.executescript(rest[0]) is cursor
            case "fetchone":
                return self.plain(cursor.fetchone())
            case "fetchmany":
                return self.plain(cursor.fetchmany() if rest[0] is None else cursor.fetchmany(rest[0]))
            case "fetchall":
                return self.plain(cursor.fetchall())
            case "next":
                return self.plain(next(cursor))
            case "commit":
                return conn.commit()
            case "rollback":
                return conn.rollback()
            case "block":
                with conn:
                    conn.execute(*rest[0])
                    if rest[1]:
                        raise LookupError
                return None
            case "set":
                value = self.module.Row if rest[1] == "Row" else rest[1]
                return setattr(cursor if rest[0] == "arraysize" else conn, rest[0], value)
            case "new cursor":
                cursor.close()
                self.cursors[c][k] = conn.cursor()
                return self.plain([cursor.rowcount, cursor.lastrowid, cursor.description])
            case "reopen":
                conn.close()
                self.conns[c] = self.connect()
                self.cursors[c] = [self.conns[c].cursor(), self.conns[c].cursor()]
                return None
        raise AssertionError(name)

    def plain(self, rows: Any) -> Any:
        """Rows of both modules as something that can be compared."""
        if isinstance(rows, list):
            return [self.plain(row) for row in rows]
        if isinstance(rows, self.module.Row):
            return ("Row", rows.keys(), tuple(rows))
        return rows

    def close(self) -> None:
        for conn in self.conns:
            conn.close()


def check(seed: int, folder: Path) -> None:
    """Runs a program with both modules, side by side."""
    ours, theirs = Machine(turso, folder / "ours.db"), Machine(sqlite3, folder / "theirs.db")
    done: list[str] = []
    try:
        for operation in program(seed):
            done.append(repr(operation))
            mine, other = ours.run(operation), theirs.run(operation)
            assert mine == other, f"after seed {seed}'s\n" + "\n".join(done)
    finally:
        ours.close()
        theirs.close()


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)
