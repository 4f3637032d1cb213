"""The SQLAlchemy dialects: what programs do with `sqlite://`, with `sqlite+turso://` and `sqlite+aioturso://`."""

from __future__ import annotations

import asyncio
import datetime
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm, pool
from sqlalchemy.dialects import registry
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

import turso
import turso.aio.sync
import turso.sync
from loops import in_a_loop
from servers import Proxy
from turso.sqlalchemy import get_sync_connection

ENTRY_POINTS = {
    "turso": "TursoDialect",
    "turso_sync": "TursoSyncDialect",
    "aioturso": "AioTursoDialect",
    "aioturso_sync": "AioTursoSyncDialect",
}


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(unique=True)
    born: orm.Mapped[datetime.date | None]
    books: orm.Mapped[list[Book]] = orm.relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "books"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str] = orm.mapped_column(index=True)
    author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("authors.id"))
    author: orm.Mapped[Author] = orm.relationship(back_populates="books")
    details: orm.Mapped[dict[str, Any] | None] = orm.mapped_column(sa.JSON)
    printed: orm.Mapped[datetime.datetime | None]
    price: orm.Mapped[Decimal | None] = orm.mapped_column(sa.Numeric(10, 2))
    cover: orm.Mapped[bytes | None]
    sold: orm.Mapped[bool] = orm.mapped_column(default=False)


def some_books() -> Author:
    return Author(
        name="Ursula",
        born=datetime.date(1929, 10, 21),
        books=[
            Book(
                title="The Dispossessed",
                details={"pages": 341, "places": ["Anarres", "Urras"]},
                printed=datetime.datetime(1974, 5, 1, 12, 30, 15, 250),
                price=Decimal("9.99"),
                cover=b"\0\xff",
                sold=True,
            ),
            Book(title="Rocannon's World"),
        ],
    )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = sa.create_engine(f"sqlite+turso:///{tmp_path}/a.db")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_the_dialects_are_found_by_their_names() -> None:
    for name, expected in ENTRY_POINTS.items():
        assert registry.load(f"sqlite.{name}").__name__ == expected


# Objects.


def test_objects_with_relationships_and_every_type_come_back(engine: sa.Engine) -> None:
    with orm.Session(engine) as session:
        session.add(some_books())
        session.commit()
    with orm.Session(engine) as session:
        book = session.scalars(
            sa.select(Book).join(Book.author).where(Author.name == "Ursula").order_by(Book.title)
        ).all()[1]
        assert book.author.born == datetime.date(1929, 10, 21)
        assert book.details == {"pages": 341, "places": ["Anarres", "Urras"]}
        assert book.printed == datetime.datetime(1974, 5, 1, 12, 30, 15, 250)
        assert book.price == Decimal("9.99")
        assert (book.cover, book.sold) == (b"\0\xff", True)
        assert (
            session.scalar(sa.select(Book.title).where(Book.details["pages"].as_integer() == 341))
            == book.title
        )
        other = book.author.books[1]
        assert other.details is None and other.price is None and other.sold is False
        session.delete(book.author)
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 0


def test_bulk_inserts_updates_upserts_and_returning(engine: sa.Engine) -> None:
    from sqlalchemy.dialects.sqlite import insert

    with orm.Session(engine) as session:
        ids = session.scalars(
            sa.insert(Author).returning(Author.id), [{"name": f"a{i}"} for i in range(2500)]
        ).all()
        assert sorted(ids) == list(range(1, 2501))
        changed: Any = session.execute(
            sa.update(Author).where(Author.id <= 10).values(born=datetime.date(2000, 1, 1))
        )
        assert changed.rowcount == 10
        upsert = insert(Author).values(name="a0", born=datetime.date(1999, 1, 1))
        session.execute(
            upsert.on_conflict_do_update(index_elements=["name"], set_={"born": upsert.excluded.born})
        )
        assert session.scalar(sa.select(Author.born).where(Author.name == "a0")) == datetime.date(1999, 1, 1)
        session.commit()


def test_functions_that_sqlalchemy_gives_its_connections(engine: sa.Engine) -> None:
    with engine.connect() as conn:
        letters = sa.select(sa.literal("abc").label("x")).subquery()
        assert conn.scalar(sa.select(letters.c.x).where(letters.c.x.regexp_match("^a.c$"))) == "abc"
        assert conn.scalar(sa.select(letters.c.x).where(letters.c.x.regexp_match("^b"))) is None
        assert conn.scalar(sa.select(sa.func.floor(-1.5))) == -2


# Transactions.


def test_what_is_rolled_back_is_gone_and_what_is_committed_stays(engine: sa.Engine) -> None:
    with engine.connect() as conn:
        conn.execute(sa.insert(Author).values(name="one"))
        conn.rollback()
        conn.execute(sa.insert(Author).values(name="two"))
        conn.commit()
        conn.execute(sa.insert(Author).values(name="three"))
    with pytest.raises(ZeroDivisionError), engine.begin() as conn:
        conn.execute(sa.insert(Author).values(name="four"))
        raise ZeroDivisionError
    with engine.connect() as conn:
        assert conn.scalars(sa.select(Author.name)).all() == ["two"]


def test_constraints_are_integrity_errors(engine: sa.Engine) -> None:
    with orm.Session(engine) as session:
        session.add_all([Author(name="same"), Author(name="same")])
        with pytest.raises(sa.exc.IntegrityError, match="UNIQUE constraint failed: authors.name") as caught:
            session.commit()
        assert isinstance(caught.value.orig, turso.IntegrityError)
        session.rollback()
        session.add(Author(name="same"))
        session.commit()


@pytest.mark.parametrize("autocommit", ["LEGACY", False])
def test_savepoints(tmp_path: Path, autocommit: Any) -> None:
    engine = sa.create_engine(f"sqlite+turso:///{tmp_path}/a.db", connect_args={"autocommit": autocommit})
    Base.metadata.create_all(engine)
    with orm.Session(engine) as session:
        session.add(Author(name="kept"))
        session.flush()
        with pytest.raises(sa.exc.IntegrityError), session.begin_nested():
            session.add(Author(name="kept"))
        with session.begin_nested():
            session.add(Author(name="nested"))
        with session.begin_nested() as savepoint:
            session.add(Author(name="gone"))
            session.flush()
            savepoint.rollback()
        session.commit()
    with orm.Session(engine) as session:
        assert session.scalars(sa.select(Author.name).order_by(Author.id)).all() == ["kept", "nested"]
    engine.dispose()


def test_with_autocommit_off_a_rollback_takes_back_savepoints_and_tables_too(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite+turso:///{tmp_path}/a.db?autocommit=false")
    with engine.connect() as conn:
        with conn.begin_nested():
            conn.execute(sa.text("CREATE TABLE t(a)"))
        conn.rollback()
        assert not sa.inspect(conn).has_table("t")
    engine.dispose()


@pytest.mark.parametrize("level", ["SERIALIZABLE", "READ UNCOMMITTED", "AUTOCOMMIT"])
def test_isolation_levels(engine: sa.Engine, level: Any) -> None:
    with engine.connect().execution_options(isolation_level=level) as conn:
        conn.execute(sa.insert(Author).values(name="one"))
        conn.rollback()
        assert conn.get_isolation_level() in (level, "SERIALIZABLE")
        expected = ["one"] if level == "AUTOCOMMIT" else []
        assert conn.scalars(sa.select(Author.name)).all() == expected
    with engine.connect() as conn:
        conn.execute(sa.insert(Author).values(name="two"))
        conn.rollback()
        assert conn.scalars(sa.select(Author.name)).all() == expected, (
            "the next who has the connection has the default"
        )


# The schema.


def test_reflection(engine: sa.Engine) -> None:
    inspector = sa.inspect(engine)
    assert inspector.get_table_names() == ["authors", "books", "messages"]
    columns = {column["name"]: column for column in inspector.get_columns("books")}
    assert isinstance(columns["printed"]["type"], sa.DateTime) and isinstance(
        columns["details"]["type"], sa.JSON
    )
    assert inspector.get_pk_constraint("books")["constrained_columns"] == ["id"]
    assert inspector.get_foreign_keys("books")[0]["referred_table"] == "authors"
    assert inspector.get_indexes("books")[0]["column_names"] == ["title"]
    assert inspector.get_unique_constraints("authors")[0]["column_names"] == ["name"]
    reflected = sa.MetaData()
    reflected.reflect(engine)
    with engine.connect() as conn:
        assert conn.execute(sa.select(reflected.tables["books"])).all() == []
    Base.metadata.drop_all(engine)
    assert sa.inspect(engine).get_table_names() == []


# Engines.


def test_pools_are_those_of_sqlite(tmp_path: Path) -> None:
    for url, expected in {
        "sqlite+turso://": pool.SingletonThreadPool,
        "sqlite+turso:///:memory:": pool.SingletonThreadPool,
        f"sqlite+turso:///{tmp_path}/a.db": pool.QueuePool,
    }.items():
        assert type(sa.create_engine(url).pool) is expected
    for url, async_expected in {
        "sqlite+aioturso://": pool.StaticPool,
        f"sqlite+aioturso:///{tmp_path}/a.db": pool.AsyncAdaptedQueuePool,
    }.items():
        assert type(create_async_engine(url).pool) is async_expected


def test_a_database_in_memory_lasts_as_long_as_its_engine() -> None:
    engine = sa.create_engine("sqlite+turso://")
    with engine.begin() as conn:
        conn.execute(sa.text("CREATE TABLE t(a)"))
    with engine.connect() as conn:
        assert conn.execute(sa.text("SELECT * FROM t")).all() == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("remote_ulr=x", 'unknown option "remote_ulr"; did you mean "remote_url"'),
        ("segment_size=big", "segment_size='big' .* must be an integer"),
        ("prefetch=perhaps", "prefetch='perhaps' .* must be true or false"),
        ("bootstrap_prefix=1&bootstrap_query=SELECT+1", "give one of them"),
        ("timeout=1&timeout=2", "'timeout' more than once"),
    ],
)
def test_a_wrong_option_in_the_url_is_an_error_that_names_it(query: str, message: str) -> None:
    with pytest.raises(sa.exc.ArgumentError, match=message):
        sa.create_engine(f"sqlite+turso:///a.db?{query}").connect()


def test_a_wrong_option_in_connect_args_is_an_error_that_names_it(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite+turso:///{tmp_path}/a.db", connect_args={"isolation": "IMMEDIATE"})
    with pytest.raises(TypeError, match='"isolation"; did you mean "isolation_level"'):
        engine.connect()


def test_a_host_in_the_url_is_an_error_that_says_where_the_remote_goes() -> None:
    with pytest.raises(sa.exc.ArgumentError, match="remote_url"):
        sa.create_engine("sqlite+turso://db.example.com/a.db").connect()


def test_a_closed_connection_is_replaced(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite+turso:///{tmp_path}/a.db", pool_pre_ping=True)
    with engine.connect() as conn:
        driver: Any = conn.connection.driver_connection
    driver.close()
    with engine.connect() as conn:
        assert conn.scalar(sa.text("SELECT 1")) == 1
    engine.dispose()


# Replicas.


class Message(Base):
    __tablename__ = "messages"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    user_id: orm.Mapped[str]
    text: orm.Mapped[str]


def test_a_replica_by_the_options_in_the_url(slow: tuple[str, Proxy], tmp_path: Path) -> None:
    url, proxy = slow
    engine = sa.create_engine(
        sa.make_url(f"sqlite+turso:///{tmp_path}/a.db").update_query_dict(
            {"remote_url": url, "bootstrap_prefix": "131072", "segment_size": "16384", "prefetch": "true"}
        ),
        connect_args={"remote_auth_token": "secret"},
    )
    with engine.connect() as conn:
        assert get_sync_connection(conn).stats().pages_present == 32
        assert conn.scalar(sa.select(sa.func.count()).select_from(Message)) == 20_000
    assert set(proxy.authorizations) == {"Bearer secret"}
    engine.dispose()


def test_two_engines_push_and_pull(url: str, tmp_path: Path) -> None:
    one = sa.create_engine(f"sqlite+turso:///{tmp_path}/a.db", connect_args={"remote_url": url})
    other = sa.create_engine(f"sqlite+turso_sync:///{tmp_path}/b.db?remote_url={url}")
    with orm.Session(one) as session, orm.Session(other) as others:
        assert others.get(Message, 20_001) is None
        others.rollback()
        session.add(Message(user_id="u_new", text="hello"))
        session.commit()
        get_sync_connection(session).push()
        assert get_sync_connection(others).pull()
        assert others.scalars(sa.select(Message.text).where(Message.user_id == "u_new")).all() == ["hello"]
    one.dispose()
    other.dispose()


def test_a_local_connection_is_no_replica(engine: sa.Engine) -> None:
    with engine.connect() as conn, pytest.raises(TypeError, match="not connected to a replica"):
        get_sync_connection(conn)


# Asynchronous engines.


@in_a_loop
async def test_asynchronous_sessions(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aioturso:///{tmp_path}/a.db")
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    async with sessions() as session:
        session.add(some_books())
        await session.commit()
    async with sessions() as session:
        query = sa.select(Author).options(orm.selectinload(Author.books))
        author = (await session.scalars(query)).one()
        assert [book.title for book in author.books] == ["The Dispossessed", "Rocannon's World"]
        session.add(Author(name="Ursula"))
        with pytest.raises(sa.exc.IntegrityError):
            await session.commit()
        await session.rollback()
        async with session.begin_nested():
            session.add(Author(name="nested"))
        await session.commit()
        assert await session.scalar(sa.select(sa.func.count()).select_from(Author)) == 2
    async with engine.connect() as conn:
        assert await conn.run_sync(lambda c: sa.inspect(c).get_table_names()) == [
            "authors",
            "books",
            "messages",
        ]
        assert await conn.scalar(sa.select(sa.literal("abc").regexp_match("b"))) == 1
    await engine.dispose()


@in_a_loop
async def test_asynchronous_streaming_isolation_and_rollback(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aioturso:///{tmp_path}/a.db")
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
        await conn.execute(sa.insert(Author), [{"name": f"a{i}"} for i in range(300)])
    async with engine.connect() as conn:
        async with conn.stream(sa.select(Author.id).order_by(Author.id)) as rows:
            assert [row.id async for row in rows] == list(range(1, 301))
        await conn.execute(sa.delete(Author))
        await conn.rollback()
        assert await conn.scalar(sa.select(sa.func.count()).select_from(Author)) == 300
    async with engine.connect() as conn:
        conn = await conn.execution_options(isolation_level="AUTOCOMMIT")
        await conn.execute(sa.delete(Author).where(Author.id > 100))
        await conn.rollback()
        assert await conn.scalar(sa.select(sa.func.count()).select_from(Author)) == 100
    await engine.dispose()


@in_a_loop
async def test_an_asynchronous_database_in_memory_is_shared_by_tasks() -> None:
    engine = create_async_engine("sqlite+aioturso://")
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)

    async def add(i: int) -> None:
        async with AsyncSession(engine) as session:
            session.add(Author(name=f"a{i}"))
            await session.commit()

    for i in range(5):
        await add(i)
    async with engine.connect() as conn:
        assert await conn.scalar(sa.select(sa.func.count()).select_from(Author)) == 5
    await engine.dispose()


@in_a_loop
async def test_an_asynchronous_replica(url: str, tmp_path: Path) -> None:
    async def token() -> str:
        return "a-token"

    engine = create_async_engine(
        f"sqlite+aioturso:///{tmp_path}/a.db?remote_url={url}&bootstrap_prefix=131072",
        connect_args={"remote_auth_token": token},
    )
    async with AsyncSession(engine) as session:
        session.add(Message(user_id="u_new", text="hello"))
        await session.commit()
        raw = await (await session.connection()).get_raw_connection()
        replica: Any = raw.driver_connection
        assert isinstance(replica, turso.aio.sync.ConnectionSync)
        await replica.push()
    await engine.dispose()
    with turso.sync.connect(":memory:", url) as check:
        assert check.execute("SELECT text FROM messages WHERE user_id = 'u_new'").fetchall() == [("hello",)]


@in_a_loop
async def test_a_cancelled_query_of_an_asynchronous_engine_gives_its_connection_back(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    url, proxy = slow
    engine = create_async_engine(
        f"sqlite+aioturso:///{tmp_path}/a.db?remote_url={url}&bootstrap_prefix=131072",
        pool_size=1,
        max_overflow=0,
    )
    async with engine.connect() as conn:
        await conn.execute(sa.text("SELECT 1"))
        await conn.rollback()
        proxy.delay = 3
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(conn.scalar(sa.select(sa.func.count()).select_from(Message)), 0.2)
    proxy.delay = 0
    async with engine.connect() as conn:
        assert await conn.scalar(sa.text("SELECT 1")) == 1
    await engine.dispose()


@pytest.mark.parametrize("example", ["sqlalchemy_orm", "sqlalchemy_async"])
def test_examples(example: str, url: str, tmp_path: Path) -> None:
    program = Path(__file__).parents[3] / "examples/python" / f"{example}.py"
    environment = {**os.environ, "TURSO_DATABASE_URL": url, "TURSO_AUTH_TOKEN": "a-token"}
    result = subprocess.run(
        [sys.executable, program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "")
    with turso.sync.connect(":memory:", url) as check:
        count = check.execute("SELECT COUNT(*) FROM messages WHERE text LIKE 'from a%'").fetchone()
    assert count == (1,)
