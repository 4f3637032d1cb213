"""Prefix bootstrap: the first bytes of the file are here at once, the rest comes when a query needs it.

TURSO_DATABASE_URL=http://127.0.0.1:8080 python prefix.py
"""

import os

import turso.sync

conn = turso.sync.connect(
    path="./app.db",
    remote_url=os.environ["TURSO_DATABASE_URL"],
    remote_auth_token=os.environ.get("TURSO_AUTH_TOKEN"),
    partial_sync_opts=turso.sync.PartialSyncOpts(
        bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
    ),
)

before = conn.stats()
print(f"{before.pages_present} of {before.pages_total} pages are here")
(body,) = conn.execute("SELECT body FROM messages WHERE id = ?", (15_000,)).fetchone()
print(body.lstrip("0"))
after = conn.stats()
print(f"{after.pages_present} of {after.pages_total} pages are here, after {after.requests} requests")
conn.close()
