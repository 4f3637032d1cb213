"""Kinds of errors: the table in docs/errors.md, and what happens for real."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import turso
import turso.sync
from turso import _turso

DOCUMENT = Path(__file__).parents[3] / "docs" / "errors.md"


def documented() -> dict[str, tuple[str, str]]:
    """The class and the code's name of each kind."""
    rows = re.findall(r"^\| `(\w+)` \|.*?\| `(\w+)` \| `\w+` \| `\w+` \| `(\w+)` \|$", DOCUMENT.read_text(), re.MULTILINE)
    return {kind: (name, code) for kind, code, name in rows}


def test_the_table_in_the_documentation_is_the_one_of_the_code() -> None:
    names = {code: name for name, code in _turso.error_codes}
    ours = {kind: (cls.__name__, names.get(code, str(code))) for kind, cls, code in _turso._kinds_of_errors()}
    assert ours == documented()


Situation = Callable[[Path, str], None]


def _sql(tmp: Path, url: str) -> None:
    turso.connect(":memory:").execute("SELEC 1")


def _busy(tmp: Path, url: str) -> None:
    one, two = turso.connect(tmp / "a.db"), turso.connect(tmp / "a.db", timeout=0)
    one.execute("BEGIN IMMEDIATE")
    try:
        two.execute("BEGIN IMMEDIATE")
    finally:
        one.rollback()


def _constraint(tmp: Path, url: str) -> None:
    turso.connect(":memory:").executescript("CREATE TABLE t(a CHECK (a > 0)); INSERT INTO t VALUES (0)")


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def _interrupted(tmp: Path, url: str) -> None:
    conn = turso.connect(":memory:")
    conn.set_query_timeout(50)
    conn.execute(ENDLESS).fetchone()


def _transaction_lost(tmp: Path, url: str) -> None:
    conn = turso.connect(":memory:")
    conn.execute("CREATE TABLE t(a)")
    conn.execute("INSERT INTO t VALUES (1)")
    conn.set_query_timeout(50)
    with pytest.raises(turso.OperationalError, match="interrupted"):
        conn.execute(f"INSERT INTO t {ENDLESS}")
    conn.execute("INSERT INTO t VALUES (2)")


def _read_only(tmp: Path, url: str) -> None:
    turso.connect(":memory:").executescript("CREATE TABLE t(a); PRAGMA query_only = 1; INSERT INTO t VALUES (1)")


def _not_a_database(tmp: Path, url: str) -> None:
    (tmp / "a.db").write_bytes(b"this is not a database" * 100)
    turso.connect(tmp / "a.db").execute("SELECT * FROM sqlite_schema")


def _full(tmp: Path, url: str) -> None:
    conn = turso.connect(":memory:")
    conn.executescript("CREATE TABLE t(a); PRAGMA max_page_count = 2; INSERT INTO t VALUES (zeroblob(100000))")


def _cannot_open(tmp: Path, url: str) -> None:
    turso.connect(tmp / "no such folder" / "a.db").execute("SELECT 1")


def _too_big(tmp: Path, url: str) -> None:
    turso.connect(":memory:").execute("SELECT zeroblob(2000000000)").fetchone()


def _misuse(tmp: Path, url: str) -> None:
    turso.sync.connect(tmp / "a.db", url, partial_sync_opts=turso.sync.PartialSyncOpts(segment_size=2**40))


def _network(tmp: Path, url: str) -> None:
    turso.sync.connect(tmp / "a.db", "http://127.0.0.1:1").execute("SELECT 1")


def _unsupported(tmp: Path, url: str) -> None:
    turso.sync.connect(tmp / "a.db", url).execute("PRAGMA journal_mode = DELETE")


def _no_remote(tmp: Path, url: str) -> None:
    turso.sync.connect(tmp / "a.db").pull()


def _other_remote(tmp: Path, url: str) -> None:
    turso.sync.connect(tmp / "a.db", url).close()
    turso.sync.connect(tmp / "a.db", "http://127.0.0.1:1")


def _push_constraint(tmp: Path, url: str) -> None:
    one, two = turso.sync.connect(tmp / "one.db", url), turso.sync.connect(tmp / "two.db", url)
    one.execute("CREATE UNIQUE INDEX messages_text ON messages(text)")
    one.commit()
    one.push()
    two.execute("INSERT INTO messages VALUES (50002, 'two', (SELECT text FROM messages WHERE id = 1))")
    two.commit()
    two.push()


def _pull_conflict(tmp: Path, url: str) -> None:
    one, two = turso.sync.connect(tmp / "one.db", url), turso.sync.connect(tmp / "two.db", url)
    one.execute("DROP TABLE messages")
    one.commit()
    one.push()
    two.execute("CREATE UNIQUE INDEX messages_text ON messages(text)")
    two.commit()
    two.pull()


SITUATIONS: dict[str, Situation] = {name[1:]: f for name, f in list(globals().items()) if re.match(r"_[a-z]", name) and callable(f)}


@pytest.mark.parametrize("kind", sorted(SITUATIONS))
def test_what_happens_has_the_documented_kind_class_and_code(kind: str, url: str, tmp_path: Path) -> None:
    with pytest.raises(turso.Error) as caught:
        SITUATIONS[kind](tmp_path, url)
    name, code = documented()[kind]
    error = caught.value
    assert (error.kind, type(error).__name__) == (kind, name)
    assert error.sqlite_errorname.startswith(code)
    assert error.sqlite_errorcode & 0xFF == getattr(sqlite3, code) & 0xFF
