"""asyncio: a replica of which 128 KiB are here at once; while a query fetches more, the event loop is free.

TURSO_DATABASE_URL=http://127.0.0.1:8080 python aio_prefix.py [app.db]
"""

import asyncio
import os
import sys

import turso.aio.sync


async def token() -> str | None:
    """Asked before each request, so it may change."""
    return os.environ.get("TURSO_AUTH_TOKEN")


async def main() -> None:
    async with turso.aio.sync.connect(
        path=sys.argv[1] if len(sys.argv) > 1 else "./app.db",
        remote_url=os.environ["TURSO_DATABASE_URL"],
        remote_auth_token=token,
        partial_sync_opts=turso.aio.sync.PartialSyncOpts(
            bootstrap_strategy=turso.aio.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
        ),
    ) as conn:
        before = await conn.stats()
        print(f"{before.pages_present} of {before.pages_total} pages are here")
        async with conn.execute(
            "SELECT id, text FROM messages WHERE user_id = ? LIMIT 3", ("u_123",)
        ) as cursor:
            async for id, text in cursor:
                print(id, text)

        # Anyone who does not want to wait any longer cancels, and continues with the connection.
        try:
            await asyncio.wait_for(conn.execute_fetchall("SELECT COUNT(*) FROM messages"), timeout=10)
        except asyncio.TimeoutError:
            print("that takes too long")
        after = await conn.stats()
        print(f"{after.pages_present} of {after.pages_total} pages are here, after {after.requests} requests")


asyncio.run(main())
