"""SQLAlchemy with asyncio: objects in a replica. Needs `pip install turso[sqlalchemy]`.

TURSO_DATABASE_URL=http://127.0.0.1:8080 python sqlalchemy_async.py [app.db]
"""

import asyncio
import os
import sys

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import turso.aio.sync


class Base(DeclarativeBase):
    pass


class Message(Base):
    __tablename__ = "messages"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    text: Mapped[str]


async def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "app.db"
    engine = create_async_engine(
        f"sqlite+aioturso:///{path}?bootstrap_prefix=131072&segment_size=16384",
        connect_args={
            "remote_url": os.environ["TURSO_DATABASE_URL"],
            "remote_auth_token": os.environ.get("TURSO_AUTH_TOKEN"),
        },
    )
    async with AsyncSession(engine) as session:
        query = select(Message).where(Message.user_id == "u_123").limit(3)
        for message in await session.scalars(query):
            print(message.id, message.text)
        session.add(Message(user_id="u_123", text="from a coroutine"))
        await session.commit()
        replica = (await (await session.connection()).get_raw_connection()).driver_connection
        assert isinstance(replica, turso.aio.sync.ConnectionSync)
        await replica.push()
    await engine.dispose()


asyncio.run(main())
