"""Segment size: how many bytes around an absent page are fetched with it.

TURSO_DATABASE_URL=http://127.0.0.1:8080 python segment_size.py
"""

import os

import turso.sync

for segment_size in (16 * 1024, 128 * 1024):
    conn = turso.sync.connect(
        path=":memory:",
        remote_url=os.environ["TURSO_DATABASE_URL"],
        remote_auth_token=os.environ.get("TURSO_AUTH_TOKEN"),
        partial_sync_opts=turso.sync.PartialSyncOpts(
            bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
            segment_size=segment_size,
            prefetch=False,  # segments alone, without what else the statement will read
        ),
    )
    (total,) = conn.execute(
        "SELECT SUM(length(body)) FROM messages WHERE id BETWEEN 15000 AND 17000"
    ).fetchone()
    stats = conn.stats()
    print(
        f"segments of {segment_size} bytes: {stats.requests} requests, {stats.network_received_bytes} bytes"
    )
    conn.close()
