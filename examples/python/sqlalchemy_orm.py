"""SQLAlchemy: objects in a replica. Needs `pip install turso[sqlalchemy]`.

TURSO_DATABASE_URL=http://127.0.0.1:8080 python sqlalchemy_orm.py [app.db]
"""

import os
import sys

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import turso.sync
from turso.sqlalchemy import get_sync_connection


class Base(DeclarativeBase):
    pass


class Message(Base):
    __tablename__ = "messages"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    text: Mapped[str]


engine = create_engine(
    f"sqlite+turso:///{sys.argv[1] if len(sys.argv) > 1 else 'app.db'}",
    connect_args={
        "remote_url": os.environ["TURSO_DATABASE_URL"],
        "remote_auth_token": os.environ.get("TURSO_AUTH_TOKEN"),
        "partial_sync_opts": turso.sync.PartialSyncOpts(
            bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
            prefetch=True,
        ),
    },
)

with Session(engine) as session:
    session.add(Message(user_id="u_123", text="from an object"))
    session.commit()
    replica = get_sync_connection(session)
    replica.push()
    replica.pull()
    query = select(Message).where(Message.user_id == "u_123").order_by(Message.id.desc()).limit(2)
    for message in session.scalars(query):
        print(message.id, message.text)
    print(session.scalar(select(func.count()).where(Message.user_id == "u_123")), "messages")

engine.dispose()
