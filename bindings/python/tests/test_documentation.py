"""The examples of the documentation page "Partial sync", as they stand there but for the url."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import turso.sync
from servers import eventually

QUERY = "SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURSO_AUTH_TOKEN", "a-token")


def test_prefix_bootstrap(shared_url: str) -> None:
    conn = turso.sync.connect(
        path="./app.db",
        remote_url=shared_url,
        remote_auth_token=os.environ["TURSO_AUTH_TOKEN"],
        partial_sync_opts=turso.sync.PartialSyncOpts(
            bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
        ),
    )
    assert conn.stats().pages_present == 32
    assert conn.execute("SELECT COUNT(*) FROM messages").fetchone() == (20_000,)
    assert Path("app.db").exists()
    conn.close()


def test_query_bootstrap(shared_url: str, tmp_path: Path) -> None:
    conn = turso.sync.connect(
        path=":memory:",
        remote_url=shared_url,
        partial_sync_opts=turso.sync.PartialSyncOpts(
            bootstrap_strategy=turso.sync.PartialSyncQueryBootstrap(
                query="SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100"
            ),
        ),
    )
    requests = conn.stats().requests
    assert len(conn.execute(QUERY).fetchall()) == 67
    assert conn.stats().requests == requests, "the bootstrap brought what the query needs"
    assert list(tmp_path.iterdir()) == [], "no file is left"
    conn.close()


def test_segment_size(shared_url: str) -> None:
    conn = turso.sync.connect(
        path="./app.db",
        remote_url=shared_url,
        partial_sync_opts=turso.sync.PartialSyncOpts(
            bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
            segment_size=16 * 1024,
            prefetch=False,
        ),
    )
    before = conn.stats()
    assert (
        conn.execute("SELECT text FROM messages WHERE id = 15000").fetchone()[0].startswith("message 14999 ")
    )
    segments = conn.stats().requests - before.requests
    assert segments >= 1
    # The row is given when its page is here, and the rest of the segment arrives after it.
    eventually(lambda: conn.stats().pages_present == before.pages_present + 4 * segments)
    conn.close()


def test_prefetch(shared_url: str) -> None:
    conn = turso.sync.connect(
        path="./app.db",
        remote_url=shared_url,
        partial_sync_opts=turso.sync.PartialSyncOpts(
            bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
            prefetch=True,
        ),
    )
    requests = conn.stats().requests
    assert len(conn.execute(QUERY).fetchall()) == 67
    assert conn.stats().requests == requests + 1, "a cold query takes one round trip"
    conn.close()
