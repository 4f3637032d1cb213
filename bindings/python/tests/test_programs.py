"""A sample of the random programs of programs.py; `python tests/programs.py 100000` runs more of them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

import programs
import turso

#: Seconds; the sample ends sooner when it has run so many programs.
SAMPLE, PROGRAMS = 30.0, int(os.environ.get("PROGRAMS", "600"))


def test_every_known_difference_is_documented_and_every_documented_one_known() -> None:
    assert programs.documented() == set(programs.KNOWN)


@pytest.mark.takes(120)
def test_random_programs_see_what_they_see_with_sqlite3(tmp_path: Path) -> None:
    end = time.monotonic() + SAMPLE
    for seed in range(PROGRAMS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        programs.compare(seed, folder)
        if time.monotonic() > end:
            break


# What they have found, each by itself.

MODULES = pytest.mark.parametrize("module", [sqlite3, turso], ids=lambda module: module.__name__)


@MODULES
def test_a_statement_that_has_failed_stays_compiled(module: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    conn, other = module.connect(path), module.connect(path)
    conn.executescript("CREATE TABLE u(c UNIQUE); INSERT INTO u VALUES (1)")
    with pytest.raises(module.IntegrityError):
        conn.execute("INSERT INTO u VALUES (1)")
    conn.rollback()
    other.execute("ALTER TABLE u ADD COLUMN d")
    assert conn.execute("SELECT * FROM u").fetchall() == [(1, None)]
    # One that is compiled now does not get as far as its transaction.
    with pytest.raises(module.OperationalError, match="has 2 columns"):
        conn.execute("INSERT INTO u VALUES (1)")
    assert conn.in_transaction


@MODULES
def test_a_statement_that_fails_where_there_are_collations_writes_nothing(module: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    conn, reader = module.connect(path, isolation_level=None), module.connect(path, timeout=0)
    conn.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(a PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    conn.create_collation("back", lambda a, b: (a < b) - (a > b))
    rows = reader.execute("SELECT a FROM t")
    with pytest.raises(module.IntegrityError):
        conn.execute("UPDATE t SET a = 7")
    # What the reader sees is still the newest, so that it may write.
    reader.execute("INSERT INTO t VALUES (3)")
    assert rows.fetchall() == [(1,), (2,), (3,)]


@MODULES
def test_what_or_fail_leaves_behind_and_cannot_be_committed_is_an_error_of_the_lock(module: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    conn, reader = module.connect(path, isolation_level=None, timeout=0), module.connect(path)
    conn.executescript("CREATE TABLE t(a PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    conn.create_collation("back", lambda a, b: (a < b) - (a > b))
    rows = reader.execute("SELECT a FROM t")
    with pytest.raises(module.OperationalError):
        conn.execute("INSERT OR FAIL INTO t VALUES (0), (1)")
    assert rows.fetchall() == [(1,), (2,)]
    assert not conn.in_transaction and conn.execute("SELECT COUNT(*) FROM t").fetchone() == (2,)
    with pytest.raises(module.IntegrityError):
        conn.execute("INSERT OR FAIL INTO t VALUES (0), (1)")
    assert conn.execute("SELECT COUNT(*) FROM t").fetchone() == (3,)


@MODULES
@pytest.mark.parametrize("sql", ["CREATE TABLE IF NOT EXISTS extra(x)", "ALTER TABLE t ADD COLUMN b"])
def test_a_schema_change_that_has_been_made_before_leaves_no_lock(module: Any, sql: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    conn, other = module.connect(path, timeout=0), module.connect(path, timeout=0)
    conn.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1), (2)")
    conn.execute(sql)
    unread = conn.execute("SELECT a FROM t")
    with contextlib.suppress(module.OperationalError):
        conn.execute(sql)
    other.execute("INSERT INTO t(a) VALUES (3)")
    other.commit()
    assert unread.fetchall() == [(1,), (2,)]


@MODULES
def test_a_table_that_is_there_is_not_made_again_beside_readers(module: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    conn, other = module.connect(path, timeout=0), module.connect(path)
    conn.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2)")
    conn.execute("CREATE TABLE IF NOT EXISTS extra(x)")
    unread, rows = conn.execute("SELECT 1"), other.execute("SELECT a FROM t")
    conn.execute("CREATE TABLE IF NOT EXISTS extra(x)")
    assert unread.fetchall() == [(1,)] and rows.fetchall() == [(1,), (2,)]
