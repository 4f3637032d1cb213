"""Push and pull: writes are local first, a push sends them, a pull brings those of others.

TURSO_DATABASE_URL=http://127.0.0.1:8080 python push_and_pull.py
"""

import os

import turso.sync


def replica() -> turso.sync.ConnectionSync:
    return turso.sync.connect(
        path=":memory:",
        remote_url=os.environ["TURSO_DATABASE_URL"],
        remote_auth_token=os.environ.get("TURSO_AUTH_TOKEN"),
        partial_sync_opts=turso.sync.PartialSyncOpts(
            bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
        ),
    )


laptop = replica()
phone = replica()

with laptop:
    cursor = laptop.execute("INSERT INTO messages (user_id, body) VALUES ('u_123', ?)", ("from my laptop",))
print(f"{laptop.stats().cdc_operations} change is local")
laptop.push()
print(f"{laptop.stats().cdc_operations} changes are local")

print(f"something new on the phone: {phone.pull()}")
print(phone.execute("SELECT user_id, body FROM messages WHERE id = ?", (cursor.lastrowid,)).fetchone())

laptop.close()
phone.close()
