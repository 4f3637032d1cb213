"""asyncio: writes are local first, a push sends them, a pull brings those of others.

TURSO_DATABASE_URL=http://127.0.0.1:8080 python aio_push_and_pull.py
"""

import asyncio
import os

import turso.aio.sync


def replica() -> turso.aio.sync.ConnectionSync:
    return turso.aio.sync.connect(
        path=":memory:",
        remote_url=os.environ["TURSO_DATABASE_URL"],
        remote_auth_token=os.environ.get("TURSO_AUTH_TOKEN"),
        partial_sync_opts=turso.aio.sync.PartialSyncOpts(
            bootstrap_strategy=turso.aio.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
        ),
    )


async def main() -> None:
    laptop, phone = await asyncio.gather(replica(), replica())

    cursor = await laptop.execute(
        "INSERT INTO messages(user_id, text) VALUES ('u_123', ?)", ("from my laptop",)
    )
    await laptop.commit()
    print(f"{(await laptop.stats()).cdc_operations} change is local")
    await laptop.push()
    print(f"{(await laptop.stats()).cdc_operations} changes are local")

    print(f"something new on the phone: {await phone.pull()}")
    print(
        await phone.execute_fetchall("SELECT user_id, text FROM messages WHERE id = ?", (cursor.lastrowid,))
    )

    await laptop.close()
    await phone.close()


asyncio.run(main())
