"""The SQL text of a whole database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._connection import Connection


def iterdump(connection: Connection) -> Iterator[str]:
    """Gives the statements that make the same database, as the sqlite3 shell's ``.dump`` does."""
    cursor = connection.cursor()
    cursor.row_factory = None

    def rows(sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return cursor.execute(sql, parameters).fetchall()

    yield "BEGIN TRANSACTION;"
    tables = rows(
        "SELECT name, sql FROM sqlite_master WHERE sql NOT NULL AND type = 'table' ORDER BY name",
    )
    virtual = [name for name, sql in tables if sql.upper().startswith("CREATE VIRTUAL")]
    sequences = writes_schema = False
    for name, sql in tables:
        if name == "sqlite_sequence":
            sequences = True
            continue
        if name.startswith("sqlite_stat"):
            yield 'ANALYZE "sqlite_master";'
        elif name.startswith("sqlite_") or name.startswith("partial_sync_"):
            continue
        elif name in virtual:
            if not writes_schema:
                writes_schema = True
                yield "PRAGMA writable_schema=ON;"
            yield (
                "INSERT INTO sqlite_master(type,name,tbl_name,rootpage,sql)"
                f"VALUES('table',{_text(name)},{_text(name)},0,{_text(sql)});"
            )
            continue
        else:
            yield f"{sql};"
        columns = [row[1] for row in rows(f"PRAGMA table_info({_name(name)})")]
        values = " || ',' || ".join(f"quote({_name(column)})" for column in columns)
        contents = connection.cursor()
        contents.row_factory = None
        contents.execute(
            f"SELECT 'INSERT INTO {_quoted(_name(name))} VALUES(' || {values} || ')' FROM {_name(name)}"
        )
        for (row,) in contents:
            yield f"{row};"
    for (sql,) in rows(
        "SELECT sql FROM sqlite_master WHERE sql NOT NULL AND type IN ('index', 'trigger', 'view') ORDER BY rowid"
    ):
        yield f"{sql};"
    if writes_schema:
        yield "PRAGMA writable_schema=OFF;"
    if sequences:
        yield 'DELETE FROM "sqlite_sequence";'
        for name, seq in rows("SELECT name, seq FROM sqlite_sequence"):
            yield f'INSERT INTO "sqlite_sequence" VALUES({_text(name)},{seq});'
    yield "COMMIT;"


def _name(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _text(text: str) -> str:
    return f"'{_quoted(text)}'"
