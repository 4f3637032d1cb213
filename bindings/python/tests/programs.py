"""Random programs, run with turso and with the standard library's sqlite3: results, exceptions by class and the files
afterwards must be the same. Where they may differ is a list in docs/python.md, each with a name; this reads the list.

    python tests/programs.py COUNT [FIRST_SEED]     runs so many, and prints what differed

A seed makes the same program each time.
"""

from __future__ import annotations

import faulthandler
import itertools
import random
import re
import shutil
import sqlite3
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import turso

#: Whether errors are printed.
SHOW = False
DOCUMENT = Path(__file__).parents[3] / "docs" / "python.md"

Step = tuple[Any, ...]


def documented() -> set[str]:
    """The names of the differences that docs/python.md lists."""
    text = DOCUMENT.read_text()
    section = text.split("### What differs from `sqlite3`", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^- `([a-z-]+)`:", section, re.MULTILINE))


# Making programs.

LEVELS = [None, "", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"]
CONFLICTS = ["", "OR ABORT", "OR FAIL", "OR IGNORE", "OR REPLACE", "OR ROLLBACK"]


class Maker:
    """Makes a program: a list of steps, each a name and its arguments."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def program(self) -> list[Step]:
        pick = self.random
        steps: list[Step] = [("open", 0, pick.choice(LEVELS)), ("setup", 0, pick.random() < 0.3)]
        if pick.random() < 0.2:
            steps.insert(0, ("collation", 0))
        if pick.random() < 0.5:
            steps.append(("open", 1, pick.choice(LEVELS)))
        return steps + [self.step(0) for _ in range(pick.randrange(5, 40))]

    def step(self, depth: int) -> Step:
        pick = self.random
        connection, cursor = int(pick.random() < 0.25), pick.randrange(3)
        kind = pick.choices(
            ["execute", "fetch", "end", "many", "script", "with", "level", "cursor", "close", "stop", "late", "reads", "all"],
            [40, 22, 12, 6, 3, 5 if depth < 2 else 0, 2, 2, 1, 3, 2, 3, 4],
        )[0]
        if kind == "execute":
            return ("execute", connection, cursor, *self.statement())
        if kind == "fetch":
            how = pick.choice(["one", "one", "one", "many", "all", "next", "list"])
            return ("fetch", connection, cursor, how, pick.randrange(1, 5))
        if kind == "end":
            return (pick.choice(["commit", "commit", "rollback"]), connection)
        if kind == "many":
            rows = [(pick.randrange(12), pick.randrange(5)) for _ in range(pick.randrange(5))]
            how = pick.choice(["list", "generator", "raises", "uses", "wrong"])
            sql = f"INSERT {pick.choice(CONFLICTS)} INTO t(a, b) VALUES (?, ?)"
            return ("many", connection, cursor, how, sql, rows)
        if kind == "script":
            texts = [self.plain() for _ in range(pick.randrange(1, 4))]
            return ("script", connection, "; ".join(texts))
        if kind == "with":
            inner = [self.step(depth + 1) for _ in range(pick.randrange(1, 5))]
            return ("with", connection, pick.choice(["", "", "raise", "caught"]), inner)
        if kind == "level":
            return ("level", connection, pick.choice(LEVELS))
        if kind == "cursor":
            return ("cursor", connection, cursor, pick.choice(["close", "new", "drop"]))
        if kind == "close":
            return ("close", connection, pick.choice(LEVELS))
        if kind == "all":
            parameters = (pick.randrange(12), pick.randrange(5))
            return ("all", connection, cursor, self.returning(), parameters)
        if kind == "stop":
            # Interrupted by itself at a certain row.
            sql = pick.choice(
                [
                    "SELECT stop(a) FROM t",
                    "INSERT INTO u SELECT stop(a) FROM t",
                    "UPDATE t SET b = stop(b)",
                    "DELETE FROM t WHERE stop(a) >= 0",
                    "SELECT COUNT(stop(a)) FROM t, u",
                ]
            )
            return ("stop", connection, cursor, sql, pick.randrange(1, 4))
        if kind == "late":
            endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            sql = pick.choice(["SELECT COUNT(*) FROM n", "INSERT INTO u SELECT i FROM n WHERE i < 0"])
            return ("late", connection, cursor, endless + sql)
        return ("reads", connection, pick.choice(["in_transaction", "total_changes"]))

    def plain(self) -> str:
        """A statement without parameters."""
        sql, parameters = self.statement()
        for value in parameters if isinstance(parameters, tuple) else ():
            sql = sql.replace("?", repr(value) if value is not None else "NULL", 1)
        return sql if isinstance(parameters, tuple) else "SELECT 1"

    def returning(self) -> str:
        return self.random.choice(
            [
                f"INSERT {self.random.choice(CONFLICTS)} INTO t(a, b) VALUES (?, ?) RETURNING a, b",
                "UPDATE t SET b = b WHERE a > ? AND a > ? RETURNING a, b",
                "DELETE FROM t WHERE a > ? AND b IS NOT ? RETURNING a",
            ]
        )

    def statement(self) -> tuple[str, Any]:
        pick = self.random
        a, b = pick.randrange(12), pick.choice([None, 0, 1, 2, "x"])
        writes: list[tuple[str, Any]] = [
            (f"INSERT {pick.choice(CONFLICTS)} INTO t(a, b) VALUES (?, ?)", (a, b)),
            (f"INSERT {pick.choice(CONFLICTS)} INTO t(a, b) SELECT a + ?, b FROM t", (pick.randrange(1, 6),)),
            (f"UPDATE {pick.choice(CONFLICTS)} t SET a = a + ? WHERE a > ?", (pick.choice([1, -1]), a)),
            ("UPDATE t SET b = ? WHERE a = ?", (b, a)),
            ("DELETE FROM t WHERE a = ?", (a,)),
            ("REPLACE INTO t(a, b) VALUES (?, ?)", (a, b)),
            ("INSERT INTO t(a, b) VALUES (:a, :b)", {"a": a, "b": b}),
            ("INSERT INTO u(c) VALUES (?)", (a,)),
            ("DELETE FROM u", ()),
            ("INSERT INTO child(a) VALUES (?)", (a,)),
            ("INSERT INTO t(a, b) VALUES (boom(?), 1)", (a,)),
            ("UPDATE t SET b = boom(a)", ()),
            ("WITH n(i) AS (SELECT ?) INSERT INTO u SELECT i FROM n", (a,)),
            ("INSERT INTO t(a, b) VALUES (?, -1)", (a,)),
            ("INSERT INTO u VALUES (peek())", ()),
        ]
        reads: list[tuple[str, Any]] = [
            ("SELECT a, b FROM t ORDER BY a", ()),
            ("SELECT a FROM t WHERE a = ?", (a,)),
            ("SELECT COUNT(*), SUM(a) FROM t", ()),
            ("SELECT * FROM t, u ORDER BY a, c", ()),
            ("SELECT a FROM t UNION ALL SELECT c FROM u", ()),
            ("SELECT boom(a) FROM t ORDER BY a", ()),
            ("SELECT abs(a - 9223372036854775807 - 1) FROM t WHERE a < ?", (a,)),
            ("SELECT b FROM t WHERE b IS NOT NULL ORDER BY b LIMIT 2", ()),
            ("SELECT peek()", ()),
            ("SELECT a FROM t WHERE a < :a", {"a": a}),
            ("SELECT agg(a) FROM t", ()),
            ("SELECT a FROM t ORDER BY b || '' COLLATE back, a", ()),
            ("VALUES (1, 2), (3, 4)", ()),
            ("SELECT 1", ()),
            ("PRAGMA foreign_keys", ()),
        ]
        control: list[tuple[str, Any]] = [
            (pick.choice(["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]), ()),
            ("COMMIT", ()),
            ("ROLLBACK", ()),
            ("END", ()),
            ("SAVEPOINT s", ()),
            ("RELEASE s", ()),
            ("ROLLBACK TO s", ()),
            ("PRAGMA foreign_keys = ON", ()),
            ("CREATE TABLE IF NOT EXISTS extra(x)", ()),
            ("DROP TABLE IF EXISTS extra", ()),
            ("CREATE INDEX IF NOT EXISTS by_b ON t(b)", ()),
            ("DROP INDEX IF EXISTS by_b", ()),
            ("ALTER TABLE u ADD COLUMN d", ()),
            ("INSERT INTO extra VALUES (1)", ()),
            ("SELECT * FROM extra", ()),
        ]
        wrong: list[tuple[str, Any]] = [
            (self.returning(), (a, 1)),
            ("SELEC 1", ()),
            ("SELECT ?", ()),
            ("SELECT ?", (1, 2)),
            ("SELECT ?", (object,)),
            ("SELECT :a", {}),
            ("SELECT ?", {"a": 1}),
            ("SELECT ?", 5),
            ("SELECT ?", (2**64,)),
            ("SELECT 1; SELECT 2", ()),
            ("SELECT nothing", ()),
            ("", ()),
            ("-- nothing", ()),
            ("INSERT INTO t(a, b) VALUES (?, ?)", ("\ud800", 1)),
            ("INSERT INTO t(a, b) VALUES (?, ?)", ([1, 2], 1)),
        ]
        return pick.choice(pick.choices([writes, reads, control, wrong], [45, 30, 20, 5])[0])


# Running them.


class Own(Exception):
    """Raised by the program itself."""


class Aggregate:
    def __init__(self) -> None:
        self.sum = 0

    def step(self, value: Any) -> None:
        if value == 11:
            raise Own("step")
        self.sum += value

    def finalize(self) -> int:
        if self.sum % 5 == 3:
            raise Own("finalize")
        return self.sum


class Raised(str):
    """The class of an exception, with what else is known of it."""

    text: str
    #: The class of the exception in whose place it was raised.
    over: str

    @classmethod
    def of(cls, error: Exception) -> Raised:
        made = cls(type(error).__name__)
        made.text, made.over = str(error), type(error.__context__).__name__
        return made

    def __repr__(self) -> str:
        return f"{str(self)}({self.text!r})"


class Player:
    """Runs a program with one of the modules and writes down what it sees."""

    def __init__(self, module: Any, folder: Path) -> None:
        self.module = module
        self.path = folder / "program.db"
        self.connections: dict[int, Any] = {}
        self.cursors: dict[tuple[int, int], Any] = {}
        self.calls = self.stop_at = 0
        self.has_collation = False
        self.seen: list[tuple[Step, Any]] = []

    def play(self, program: list[Step]) -> list[tuple[Step, Any]]:
        for step in program:
            self.note(step)
        # The standard library keeps a database that is closed as long as it has cursors.
        for cursor in self.cursors.values():
            cursor.close()
        for connection in self.connections.values():
            connection.close()
        return self.seen

    def note(self, step: Step) -> None:
        if step[0] not in ("open", "collation") and step[1] not in self.connections:
            return
        try:
            answer = getattr(self, "do_" + step[0])(*step[1:])
        except Exception as error:
            answer = ("raised", Raised.of(error))
            if SHOW:
                print(self.module.__name__, step, repr(error))
        connection = self.connections.get(step[1])
        state = connection and (connection.in_transaction, connection.total_changes, self.last_rowid(step))
        self.seen.append((step, (answer, state)))

    def last_rowid(self, step: Step) -> Any:
        """Of the cursor that a step used."""
        if step[0] in ("execute", "fetch", "many", "all", "stop", "late"):
            return self.cursors[step[1], step[2]].lastrowid
        return None

    def do_open(self, number: int, level: Any) -> Any:
        connection = self.module.connect(self.path, timeout=0, isolation_level=level)
        connection.create_function("boom", 1, self.boom)
        connection.create_function("stop", 1, lambda value: self.stop(connection, value))
        connection.create_function("peek", 0, self.peek)
        connection.create_aggregate("agg", 1, Aggregate)
        if self.has_collation:
            connection.create_collation("back", lambda a, b: (a < b) - (a > b))
        self.connections[number] = connection
        for cursor in range(3):
            self.cursors[number, cursor] = connection.cursor()

    def do_collation(self, number: int) -> Any:
        self.has_collation = True

    def do_setup(self, number: int, wal: bool) -> Any:
        self.connections[number].executescript(
            ("PRAGMA journal_mode = WAL;" if wal else "")
            + """
            CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b CHECK (b IS NOT -1));
            CREATE TABLE IF NOT EXISTS u(c);
            CREATE TABLE IF NOT EXISTS child(a REFERENCES t(a) DEFERRABLE INITIALLY DEFERRED);
            CREATE TRIGGER IF NOT EXISTS noted AFTER DELETE ON t BEGIN INSERT INTO u VALUES (old.a); END;
            INSERT INTO t VALUES (1, 'one'), (2, 2), (3, NULL), (4, 4.5), (5, x'05');
            """
        )

    def boom(self, value: Any) -> Any:
        if value in (3, 7):
            raise Own("boom")
        return value

    def stop(self, connection: Any, value: Any) -> Any:
        self.calls += 1
        if self.calls == self.stop_at:
            connection.interrupt()
        return value

    def peek(self) -> Any:
        """Another connection, in the middle of a statement."""
        other = self.module.connect(self.path, timeout=0)
        try:
            return other.execute("SELECT COUNT(*) FROM t").fetchone()[0]
        finally:
            other.close()

    def do_execute(self, number: int, cursor: int, sql: str, parameters: Any) -> Any:
        used = self.cursors[number, cursor]
        used.execute(sql, parameters)
        return used.rowcount, used.lastrowid, used.description and [column[0] for column in used.description]

    def do_fetch(self, number: int, cursor: int, how: str, size: int) -> Any:
        used = self.cursors[number, cursor]
        if how == "one":
            return used.fetchone()
        if how == "many":
            return used.fetchmany(size)
        if how == "all":
            return used.fetchall()
        return next(used, "none") if how == "next" else list(itertools.islice(used, size))

    def do_all(self, number: int, cursor: int, sql: str, parameters: Any) -> Any:
        return self.cursors[number, cursor].execute(sql, parameters).fetchall()

    def do_commit(self, number: int) -> Any:
        return self.connections[number].commit()

    def do_rollback(self, number: int) -> Any:
        return self.connections[number].rollback()

    def do_many(self, number: int, cursor: int, how: str, sql: str, rows: list[Any]) -> Any:
        def given() -> Iterator[Any]:
            for i, row in enumerate(rows):
                if how == "raises" and i == 2:
                    raise Own("parameters")
                if how == "uses":
                    self.cursors[number, (cursor + 1) % 3].execute("SELECT COUNT(*) FROM t").fetchone()
                yield row if how != "wrong" or i != 1 else (1,)

        used = self.cursors[number, cursor]
        used.executemany(sql, rows if how == "list" else given())
        return used.rowcount, used.lastrowid

    def do_script(self, number: int, sql: str) -> Any:
        self.connections[number].executescript(sql)

    def do_with(self, number: int, how: str, inner: list[Step]) -> Any:
        with self.connections[number]:
            for step in inner:
                self.note(step)
            if how == "caught":
                try:
                    raise Own("caught")
                except Own:
                    pass
            elif how:
                raise Own("in a block")

    def do_level(self, number: int, level: Any) -> Any:
        self.connections[number].isolation_level = level

    def do_cursor(self, number: int, cursor: int, how: str) -> Any:
        used = self.cursors[number, cursor]
        if how == "close":
            used.close()
        elif how == "new":
            self.cursors[number, cursor] = self.connections[number].cursor()
        else:
            self.cursors[number, cursor] = None
            del used
            self.cursors[number, cursor] = self.connections[number].cursor()

    def do_close(self, number: int, level: Any) -> Any:
        for cursor in range(2):
            self.cursors[number, cursor].close()
        self.connections.pop(number).close()
        failures = []
        for cursor in range(3):
            try:
                self.cursors[number, cursor].fetchone()
            except Exception as error:
                failures.append(type(error).__name__)
        self.do_open(number, level)
        return failures

    def do_stop(self, number: int, cursor: int, sql: str, at: int) -> Any:
        self.calls, self.stop_at = 0, at
        try:
            return self.cursors[number, cursor].execute(sql).fetchall()
        finally:
            self.stop_at = 0

    def do_late(self, number: int, cursor: int, sql: str) -> Any:
        """A query timeout; the standard library has none, but it can say after a while that it has passed."""
        connection = self.connections[number]
        if self.module is turso:
            connection.set_query_timeout(5)
        else:
            connection.set_progress_handler(lambda: 1, 20_000)
        try:
            return self.cursors[number, cursor].execute(sql).fetchall()
        finally:
            if self.module is turso:
                connection.set_query_timeout(0)
            else:
                connection.set_progress_handler(None, 0)

    def do_reads(self, number: int, name: str) -> Any:
        return getattr(self.connections[number], name)


def contents(path: Path) -> Any:
    """What is in a file, and whether it is sound."""
    connection = sqlite3.connect(path)
    try:
        sound = connection.execute("PRAGMA integrity_check").fetchall()
        return sound, list(connection.iterdump())
    finally:
        connection.close()


# Comparing.

@dataclass
class Before:
    """What has happened in a program before a step, as far as it explains the step."""

    #: Whether its connections have a collation of the program's.
    collation: bool
    #: A statement was interrupted.
    interrupted: bool = False
    #: The connections that have run a statement that changes the schema, and those that are in a transaction.
    schema: set[int] = field(default_factory=set)
    in_transaction: set[int] = field(default_factory=set)
    #: Those that have found the database locked once another had changed the schema.
    locked: set[int] = field(default_factory=set)
    #: Those of which a schema change has found the database locked, or with a collation anything, perhaps reading the schema.
    undone: set[int] = field(default_factory=set)

    def note(self, step: Step, seen: Any) -> None:
        """Both have seen the same of a step."""
        raised, state = _raised(seen), seen[1]
        self.interrupted |= raised is not None and raised.text == "interrupted"
        if _changes_schema(step):
            self.schema.add(step[1])
        if _is_locked(raised) and 1 - step[1] in self.schema:
            self.locked.add(step[1])
        if _is_locked(raised) and (_changes_schema(step) or self.collation):
            self.undone.add(step[1])
        if state:
            (self.in_transaction.add if state[0] else self.in_transaction.discard)(step[1])


Explains = Callable[[Step, Any, Any, Before], bool]


def _raised(answer: Any) -> Raised | None:
    return answer[0][1] if isinstance(answer[0], tuple) and answer[0][:1] == ("raised",) else None


#: By the name of a difference in docs/python.md: whether it explains that a step gave `theirs` there and `ours` here.
KNOWN: dict[str, Explains] = {}


def known(name: str) -> Callable[[Explains], Explains]:
    def add(explains: Explains) -> Explains:
        KNOWN[name] = explains
        return explains

    return add


@known("returning")
def _returning(step: Step, theirs: Any, ours: Any, before: Before) -> bool:
    if step[0] == "execute":
        return "RETURNING" in step[3] and theirs[1][0] == ours[1][0]
    # Where the rows are read at once the difference is what a statement leaves behind that cannot be committed.
    there, here = _raised(theirs), _raised(ours)
    return step[0] == "all" and there is not None and there == here and theirs[1][:2] == ours[1][:2]


@known("locked-schema")
def _locked_schema(step: Step, theirs: Any, ours: Any, before: Before) -> bool:
    there, here = _raised(theirs), _raised(ours)
    if here is None:
        # The same, of a statement that had nothing to do once its transaction had begun.
        is_empty = step[0] == "many" and not step[5]
        return is_empty and _is_locked(there) and not theirs[1][0] and theirs[1][1] == ours[1][1]
    if here != "OperationalError":
        return False
    if there == here and ours[1][0] and not theirs[1][0]:
        # The schema had been read by a statement that needs none, so this one got as far as its transaction.
        return _is_locked(here) and _is_locked(there) or _of_the_schema(there)
    sql = step[3] if step[0] == "execute" else step[2] if step[0] == "script" else "t"
    is_without_tables = re.search(r"\b(t|u|child|extra)\b", sql) is None
    # The rest of a script may begin a transaction.
    is_same_state = step[0] == "script" or theirs[1][:2] == ours[1][:2]
    return _is_locked(here) and is_without_tables and is_same_state


@known("nothing-to-do")
def _nothing_to_do(step: Step, theirs: Any, ours: Any, before: Before) -> bool:
    there, here = _raised(theirs), _raised(ours)
    if not _is_locked(there) or _is_locked(here):
        return False
    # The lock may be that of another connection, of which such a statement is in the transaction.
    if 1 - step[1] in before.schema & before.in_transaction:
        return True
    has_nothing_to_do = here is None or _of_the_schema(here)
    return step[0] == "execute" and _changes_schema(step) and has_nothing_to_do and theirs[1][:2] == ours[1][:2]


@known("counts-locked")
def _counts_locked(step: Step, theirs: Any, ours: Any, before: Before) -> bool:
    are_locked = _is_locked(_raised(theirs)) and _is_locked(_raised(ours))
    is_counted = theirs[1][0] == ours[1][0] and theirs[1][1] > ours[1][1]
    if are_locked and is_counted and 1 - step[1] in before.schema:
        return True
    return step[1] in before.locked and _without_rowid(step, theirs) == _without_rowid(step, ours)


def _without_rowid(step: Step, seen: Any) -> Any:
    answer, state = seen
    if step[0] in ("execute", "many") and _raised(seen) is None:
        answer = answer[:1] + answer[2:]
    return answer, state and state[:2]


def _changes_schema(step: Step) -> bool:
    sql = step[3] if step[0] == "execute" else step[2] if step[0] == "script" else ""
    return re.search(r"\b(CREATE|DROP|ALTER)\b", sql) is not None


def _is_locked(raised: Raised | None) -> bool:
    return raised == "OperationalError" and raised.text == "database is locked"


def _of_the_schema(raised: Raised) -> bool:
    """Whether a statement does not fit the schema."""
    return re.search(r"^table \w+ has \d+ columns but|^no such |^duplicate column|already exists$", raised.text) is not None


@known("lost-transaction")
def _lost_transaction(step: Step, theirs: Any, ours: Any, before: Before) -> bool:
    there, here = _raised(theirs), _raised(ours)
    return there == here == "OperationalError" and there.text == "interrupted" and ours[1][0] and not theirs[1][0]


@known("undone-schema")
def _undone_schema(step: Step, theirs: Any, ours: Any, before: Before) -> bool:
    there, here = _raised(theirs), _raised(ours)
    is_ended = here == "OperationalError" and here.text == "abort due to ROLLBACK"
    return is_ended and there is None and step[1] in before.undone and theirs[1] == ours[1]


@known("error-before")
def _error_before(step: Step, theirs: Any, ours: Any, before: Before) -> bool:
    there, here = _raised(theirs), _raised(ours)
    return there is not None and here is not None and there.over == here and theirs[1] == ours[1]


@known("interrupt-lasts")
def _interrupt_lasts(step: Step, theirs: Any, ours: Any, before: Before) -> bool:
    there, here = _raised(theirs), _raised(ours)
    if not before.interrupted:
        return False
    if here is not None and here.text.startswith("the transaction was rolled back when a statement failed (interrupted)"):
        return True
    return (there is not None and there.text == "interrupted") != (here is not None and here.text == "interrupted")


@known("collations")
def _collations(step: Step, theirs: Any, ours: Any, before: Before) -> bool:
    there, here = _raised(theirs), _raised(ours)
    if not before.collation or there is None or here is None or theirs[1][0] != ours[1][0]:
        return False
    # SQLite's text of an error of the lock may be that of the constraint before it.
    is_locked = there == "OperationalError" and there.text.endswith(("constraint failed: t.a", " locked"))
    return there == here and theirs[1][1] < ours[1][1] or is_locked and here == "IntegrityError" and there.text == here.text


class Difference(AssertionError):
    pass


def compare(seed: int, folder: Path) -> str | None:
    """Runs the program of a seed with both. Gives the name of the known difference that it met, if any."""
    program = Maker(seed).program()
    seen = {}
    for module in (sqlite3, turso):
        place = folder / module.__name__
        place.mkdir()
        seen[module] = Player(module, place).play(program)
    met = None
    before = Before(collation=("collation", 0) in program)
    for (step, theirs), (step_here, ours) in zip(seen[sqlite3], seen[turso]):
        if step == step_here and theirs == ours:
            before.note(step, ours)
            continue
        explained = (name for name, explains in KNOWN.items() if step == step_here and explains(step, theirs, ours, before))
        met = next(explained, None)
        if met is None:
            raise Difference(f"seed {seed}: {step!r}\n  sqlite3: {theirs!r}\n  turso:   {ours!r}")
        break
    ours = contents(folder / "turso" / "program.db")
    if ours[0] != [("ok",)]:
        raise Difference(f"seed {seed}: the file is damaged: {ours[0]}")
    if met is None:
        theirs = contents(folder / "sqlite3" / "program.db")
        if theirs != ours:
            raise Difference(f"seed {seed}: the files differ\n  sqlite3: {theirs!r}\n  turso:   {ours!r}")
    return met


def main() -> int:
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    met: Counter[str | None] = Counter()
    failed = 0
    for seed in range(first, first + count):
        faulthandler.dump_traceback_later(20, exit=True)
        folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        try:
            met[compare(seed, folder)] += 1
        except Difference as difference:
            failed += 1
            print(difference, flush=True)
        except Exception:
            failed += 1
            print(f"seed {seed}")
            traceback.print_exc()
        finally:
            shutil.rmtree(folder)
        if failed >= 20:
            break
        if (seed - first) % 5000 == 4999:
            print(f"{seed - first + 1} programs, {failed} that differ; known differences met: {dict(met)}", flush=True)
    print(f"{sum(met.values()) + failed} programs, {failed} that differ; known differences met: {dict(met)}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
