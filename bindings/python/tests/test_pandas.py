"""pandas: frames from queries and into tables, over plain connections and over SQLAlchemy's engines."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.sync
from servers import proxied

pd = pytest.importorskip("pandas")
sa = pytest.importorskip("sqlalchemy")

# pandas says this of every connection that is neither SQLAlchemy's nor the standard library's.
pytestmark = pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy connectable:UserWarning")


@pytest.fixture(params=["connection", "engine"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Something to give pandas."""
    if request.param == "connection":
        conn = turso.connect(tmp_path / "a.db")
        yield conn
        conn.close()
    else:
        engine = sa.create_engine(f"sqlite+turso:///{tmp_path}/a.db")
        yield engine
        engine.dispose()


def frame() -> Any:
    return pd.DataFrame(
        {
            "id": [1, 2, 3],
            "name": ["Zoë", None, "x" * 5000],
            "height": [1.5, None, -0.0],
            "born": pd.to_datetime(["2001-02-03 04:05:06", None, "1969-12-31 00:00:00"]),
            "raw": [b"\0", b"", None],
        }
    )


def test_a_frame_goes_into_a_table_and_comes_back(database: Any) -> None:
    assert frame().to_sql("people", database, index=False) == 3
    back = pd.read_sql("SELECT * FROM people ORDER BY id", database, parse_dates=["born"])
    pd.testing.assert_frame_equal(back, frame(), check_dtype=False)


def test_a_frame_is_the_same_as_over_the_standard_library(database: Any) -> None:
    other = (
        sqlite3.connect(":memory:")
        if isinstance(database, turso.Connection)
        else sa.create_engine("sqlite://")
    )
    for target in (database, other):
        frame().drop(columns="raw").to_sql("people", target, index=False)
    query = "SELECT *, height * 2 AS twice FROM people WHERE name IS NOT NULL"
    pd.testing.assert_frame_equal(pd.read_sql(query, database), pd.read_sql(query, other))
    other.close() if isinstance(other, sqlite3.Connection) else other.dispose()


def test_appending_replacing_and_failing(database: Any) -> None:
    frame().to_sql("people", database, index=False)
    frame().to_sql("people", database, index=False, if_exists="append", method="multi")
    assert pd.read_sql("SELECT COUNT(*) AS n FROM people", database).n[0] == 6
    frame().to_sql("people", database, index=False, if_exists="replace")
    assert pd.read_sql("SELECT COUNT(*) AS n FROM people", database).n[0] == 3
    with pytest.raises(ValueError, match="already exists"):
        frame().to_sql("people", database, index=False)


def test_parameters_pieces_and_an_index(database: Any) -> None:
    pd.DataFrame({"i": range(1000)}).to_sql("numbers", database, index=False)
    query, parameters = "SELECT i, i * i AS square FROM numbers WHERE i >= ?", (500,)
    if isinstance(database, turso.Connection):
        found = pd.read_sql(query, database, params=parameters, index_col="i")
    else:
        found = pd.read_sql(sa.text(query.replace("?", ":i")), database, params={"i": 500}, index_col="i")
    assert found.square[999] == 999 * 999 and len(found) == 500
    pieces = [len(piece) for piece in pd.read_sql("SELECT i FROM numbers", database, chunksize=300)]
    assert pieces == [300, 300, 300, 100]


def test_a_plain_connection_commits_what_a_frame_wrote(tmp_path: Path) -> None:
    with turso.connect(tmp_path / "a.db") as conn, turso.connect(tmp_path / "a.db") as other:
        frame().to_sql("people", conn, index=False)
        assert other.execute("SELECT COUNT(*) FROM people").fetchone() == (3,)


def test_a_query_of_a_replica_fetches_the_pages_it_needs(shared_url: str, tmp_path: Path) -> None:
    with proxied(shared_url) as (url, proxy):
        conn = turso.sync.connect(
            tmp_path / "a.db",
            url,
            partial_sync_opts=turso.sync.PartialSyncOpts(turso.sync.PartialSyncPrefixBootstrap(length=4096)),
        )
        requests = proxy.requests
        found = pd.read_sql("SELECT user_id, COUNT(*) AS n FROM messages GROUP BY user_id", conn)
        assert len(found) == 300 and found.n.sum() == 20_000
        assert proxy.requests > requests
        conn.close()


def test_dates_that_were_adapted_come_back_as_dates(tmp_path: Path) -> None:
    with turso.connect(tmp_path / "a.db", detect_types=turso.PARSE_DECLTYPES) as conn:
        conn.execute("CREATE TABLE t(day DATE)")
        conn.execute("INSERT INTO t VALUES (?)", (datetime.date(2020, 2, 29),))
        assert pd.read_sql("SELECT day FROM t", conn).day[0] == datetime.date(2020, 2, 29)
