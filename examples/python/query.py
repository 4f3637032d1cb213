"""Query bootstrap: the pages that a query touches are here at once. Here in memory: no file is left.

TURSO_DATABASE_URL=http://127.0.0.1:8080 python query.py
"""

import os

import turso.sync

conn = turso.sync.connect(
    path=":memory:",
    remote_url=os.environ["TURSO_DATABASE_URL"],
    remote_auth_token=os.environ.get("TURSO_AUTH_TOKEN"),
    partial_sync_opts=turso.sync.PartialSyncOpts(
        bootstrap_strategy=turso.sync.PartialSyncQueryBootstrap(
            query="SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100"
        ),
    ),
)

rows = conn.execute("SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100").fetchall()
stats = conn.stats()
print(f"{len(rows)} messages, {stats.pages_present} of {stats.pages_total} pages, {stats.requests} request")
conn.close()
