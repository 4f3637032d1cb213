"""Prefetch: pages that a query is expected to want next are fetched along with the one that it waits for.

TURSO_DATABASE_URL=http://127.0.0.1:8080 python prefetch.py
"""

import os

import turso.sync

for prefetch in (False, True):
    conn = turso.sync.connect(
        path=":memory:",
        remote_url=os.environ["TURSO_DATABASE_URL"],
        remote_auth_token=os.environ.get("TURSO_AUTH_TOKEN"),
        partial_sync_opts=turso.sync.PartialSyncOpts(
            bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
            prefetch=prefetch,
        ),
    )
    rows = conn.execute("SELECT body FROM messages WHERE user_id = 'u_123'").fetchall()
    print(f"prefetch={prefetch}: {len(rows)} messages after {conn.stats().requests} requests")
    conn.close()
