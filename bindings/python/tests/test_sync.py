"""Replicas: pull and push, what values survive them, and the functions that a program may give."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.sync
from servers import Proxy, proxied, serve
from turso.sync import Mutation, PartialSyncOpts, PartialSyncPrefixBootstrap, Rewrite, Skip

PREFIX = PartialSyncOpts(bootstrap_strategy=PartialSyncPrefixBootstrap(length=64 * 1024))


def test_what_one_replica_pushes_another_one_pulls(url: str, tmp_path: Path) -> None:
    one = turso.sync.connect(tmp_path / "one.db", url, partial_sync_opts=PREFIX)
    two = turso.sync.connect(tmp_path / "two.db", url, partial_sync_opts=PREFIX)
    with one:
        one.execute("INSERT INTO messages(user_id, text) VALUES (?, ?)", ("me", "hello"))
        one.execute("UPDATE messages SET text = 'changed' WHERE id = 7")
        one.execute("DELETE FROM messages WHERE id = 8")
    assert one.stats().cdc_operations == 3
    assert two.pull() is False, "nothing was pushed yet"
    one.push()
    assert one.stats().cdc_operations == 0
    assert two.pull() is True
    assert two.pull() is False
    assert two.execute("SELECT text FROM messages WHERE user_id = 'me'").fetchall() == [("hello",)]
    assert two.execute("SELECT id, text FROM messages WHERE id IN (7, 8)").fetchall() == [(7, "changed")]


def test_a_query_of_which_one_row_was_read_sees_what_a_pull_brings(url: str, tmp_path: Path) -> None:
    one = turso.sync.connect(tmp_path / "one.db", url)
    two = turso.sync.connect(":memory:", url)
    cursor = two.cursor()
    assert cursor.execute("SELECT COUNT(*) FROM messages").fetchone() == (20_000,)
    one.execute("DELETE FROM messages WHERE id > 10")
    one.commit()
    one.push()
    assert two.pull()
    assert two.execute("SELECT COUNT(*) FROM messages").fetchone() == (10,)


VALUES: list[Any] = [
    None,
    0,
    2**63 - 1,
    -(2**63),
    -0.0,
    1.7976931348623157e308,
    5e-324,
    float("inf"),
    float("-inf"),
    "",
    "plain",
    "a\u0000b\u0000",
    "🐍 \u202e \uffff \U0010ffff e\u0301",
    b"",
    bytes(range(256)),
    "x" * 1_000_000,
]


def test_every_value_comes_back_through_a_push_and_a_pull(empty_url: str, tmp_path: Path) -> None:
    one = turso.sync.connect(tmp_path / "one.db", empty_url)
    two = turso.sync.connect(tmp_path / "two.db", empty_url)
    one.execute("CREATE TABLE v(id INTEGER PRIMARY KEY, v)")
    one.executemany("INSERT INTO v(v) VALUES (?)", ((v,) for v in VALUES))
    one.execute("INSERT INTO v(v) VALUES (?)", (float("nan"),))
    one.commit()
    one.push()
    two.pull()
    for conn in one, two:
        got = [v for (v,) in conn.execute("SELECT v FROM v ORDER BY id")]
        assert list(map(repr, got)) == [*map(repr, VALUES), "None"], "NaN is NULL, as in SQLite"


@pytest.mark.takes(400)
def test_a_blob_of_100_megabytes_comes_back_through_a_push_and_a_pull(empty_url: str, tmp_path: Path) -> None:
    blob = bytes(range(256)) * (100_000_000 // 256)
    one = turso.sync.connect(tmp_path / "one.db", empty_url, request_timeout=150)
    one.execute("CREATE TABLE b(b)")
    one.execute("INSERT INTO b VALUES (?)", (blob,))
    one.commit()
    one.push()
    one.close()
    two = turso.sync.connect(tmp_path / "two.db", empty_url, request_timeout=150)
    assert two.execute("SELECT b FROM b").fetchone()[0] == blob


def test_local_writes_and_reads_go_on_while_the_remote_is_away(url: str, tmp_path: Path) -> None:
    with proxied(url) as (proxy_url, proxy):
        conn = turso.sync.connect(tmp_path / "a.db", proxy_url)
        proxy.fail = True
        conn.execute("INSERT INTO messages(user_id, text) VALUES ('me', 'offline')")
        conn.commit()
        with pytest.raises(turso.OperationalError, match="503"):
            conn.push()
        with pytest.raises(turso.OperationalError):
            conn.pull()
        assert conn.stats().cdc_operations == 1
        proxy.fail = False
        conn.push()
        assert conn.stats().cdc_operations == 0


def test_a_replica_is_opened_again_without_the_remote(url: str, tmp_path: Path) -> None:
    with proxied(url) as (proxy_url, proxy):
        turso.sync.connect(tmp_path / "a.db", proxy_url).close()
        proxy.fail = True
        conn = turso.sync.connect(tmp_path / "a.db", proxy_url)
        assert conn.execute("SELECT COUNT(*) FROM messages").fetchone() == (20_000,)
    # Without a url it is the same replica, offline.
    conn.close()
    offline = turso.sync.connect(tmp_path / "a.db")
    assert offline.execute("SELECT COUNT(*) FROM messages").fetchone() == (20_000,)
    with pytest.raises(turso.OperationalError):
        offline.pull()


def test_without_a_remote_it_is_a_plain_database(tmp_path: Path) -> None:
    conn = turso.sync.connect(tmp_path / "a.db")
    conn.execute("CREATE TABLE t(a)")
    conn.commit()
    conn.checkpoint()
    assert conn.stats().revision is None
    for call in conn.pull, conn.push:
        with pytest.raises(turso.ProgrammingError, match="without one: give its url"):
            call()


def test_a_replica_can_begin_without_the_remote(url: str, tmp_path: Path) -> None:
    with proxied(url) as (proxy_url, proxy):
        proxy.fail = True
        conn = turso.sync.connect(tmp_path / "a.db", proxy_url, bootstrap_if_empty=False)
        conn.execute("CREATE TABLE notes(text)")
        conn.execute("INSERT INTO notes VALUES ('before the first pull')")
        conn.commit()
        assert proxy.requests == 0
        proxy.fail = False
        assert conn.pull() is True
        assert conn.execute("SELECT COUNT(*) FROM messages").fetchone() == (20_000,)
        assert conn.execute("SELECT text FROM notes").fetchall() == [("before the first pull",)]
        conn.push()
    other = turso.sync.connect(":memory:", url)
    assert other.execute("SELECT text FROM notes").fetchall() == [("before the first pull",)]


def test_a_url_of_none_at_the_first_connect_begins_without_the_remote(url: str, tmp_path: Path) -> None:
    urls: list[str | None] = [None]
    conn = turso.sync.connect(tmp_path / "a.db", lambda: urls[-1])
    conn.execute("CREATE TABLE notes(text)")
    conn.commit()
    urls.append(url)
    conn.pull()
    assert conn.execute("SELECT COUNT(*) FROM messages").fetchone() == (20_000,)


def test_the_token_and_the_url_may_be_functions(messages_file: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote.db"
    shutil.copy(messages_file, remote)
    urls: list[str | None] = []
    tokens = iter(f"token-{i}" for i in range(1000))
    with serve(remote) as upstream, proxied(upstream) as (proxy_url, proxy):
        urls.append(proxy_url)
        conn = turso.sync.connect(tmp_path / "a.db", lambda: urls[-1], auth_token=lambda: next(tokens))
        conn.pull()
        assert proxy.authorizations[:2] == ["Bearer token-0", "Bearer token-1"], "asked for each request"
        urls.append(None)
        with pytest.raises(turso.OperationalError, match="sync is paused"):
            conn.pull()
        conn.execute("INSERT INTO messages(user_id, text) VALUES ('me', 'paused')")
        conn.commit()
        urls.append(proxy_url)
        conn.push()


def test_what_a_function_of_the_program_raises_is_the_cause(shared_url: str, tmp_path: Path) -> None:
    def fails() -> str:
        raise LookupError("no token today")

    with pytest.raises(turso.OperationalError, match="no token today") as caught:
        turso.sync.connect(tmp_path / "a.db", shared_url, auth_token=fails)
    assert isinstance(caught.value.__cause__, LookupError)
    assert list(tmp_path.iterdir()) == [], "a first connect that failed leaves nothing"


def test_what_a_url_function_raises_is_the_error_of_the_call(url: str, tmp_path: Path) -> None:
    urls: list[str] = []

    def function() -> str:
        if not urls:
            raise LookupError("no settings yet")
        return urls[-1]

    with pytest.raises(turso.OperationalError, match="the url function failed: .*no settings yet") as caught:
        turso.sync.connect(tmp_path / "a.db", function)
    assert isinstance(caught.value.__cause__, LookupError) and caught.value.kind == "callback"
    assert list(tmp_path.glob("a.db*")) == [], "a first connect that failed leaves nothing"
    urls.append(url)
    conn = turso.sync.connect(tmp_path / "a.db", function)
    urls.clear()
    with pytest.raises(turso.OperationalError, match="the url function failed: .*no settings yet"):
        conn.pull()


def test_a_transform_keeps_skips_and_rewrites_changes(url: str, tmp_path: Path) -> None:
    seen: list[Mutation] = []

    def transform(mutation: Mutation) -> Any:
        seen.append(mutation)
        if mutation.change_type == "delete":
            return Skip()
        if mutation.change_type == "update":
            assert mutation.updates is not None
            return Rewrite(
                "UPDATE messages SET text = text || ? WHERE id = ?", (mutation.updates["text"], mutation.id)
            )
        return None

    conn = turso.sync.connect(tmp_path / "a.db", url, transform=transform)
    conn.execute("DELETE FROM messages WHERE id = 1")
    conn.execute("UPDATE messages SET text = '!' WHERE id = 2")
    conn.execute("INSERT INTO messages VALUES (99999, 'me', 'new')")
    conn.commit()
    conn.push()
    other = turso.sync.connect(":memory:", url)
    rows = other.execute("SELECT id, text FROM messages WHERE id IN (1, 2, 99999)").fetchall()
    assert [row[0] for row in rows] == [1, 2, 99999]
    assert rows[1][1].startswith("message 1 ") and rows[1][1].endswith("!")
    assert [m.change_type for m in seen] == ["delete", "update", "insert"]
    assert seen[2].after == {"id": 99999, "user_id": "me", "text": "new"} and seen[2].before is None
    assert seen[1].updates == {"text": "!"} and seen[0].table_name == "messages"


@pytest.mark.parametrize(
    "answer",
    [
        {"operation": "skip"},
        {"operation": "rewrite", "stmt": {"sql": "UPDATE messages SET text = ''", "values": []}},
    ],
)
def test_a_transform_may_answer_with_dictionaries(url: str, tmp_path: Path, answer: Any) -> None:
    conn = turso.sync.connect(tmp_path / "a.db", url, transform=lambda mutation: answer)
    conn.execute("INSERT INTO messages VALUES (99999, 'me', 'new')")
    conn.commit()
    conn.push()
    other = turso.sync.connect(":memory:", url)
    assert other.execute("SELECT COUNT(*) FROM messages WHERE id = 99999").fetchone() == (0,)
    emptied = other.execute("SELECT COUNT(*) FROM messages WHERE text = ''").fetchone()
    assert emptied == (0 if answer["operation"] == "skip" else 20_000,)


def test_what_a_transform_raises_stops_the_push(url: str, tmp_path: Path) -> None:
    def transform(mutation: Mutation) -> Any:
        raise ValueError("cannot decide")

    conn = turso.sync.connect(tmp_path / "a.db", url, transform=transform)
    conn.execute("DELETE FROM messages WHERE id = 1")
    conn.commit()
    with pytest.raises(turso.OperationalError, match="cannot decide") as caught:
        conn.push()
    assert isinstance(caught.value.__cause__, ValueError)
    assert conn.stats().cdc_operations == 1


def test_hydrating_fetches_what_is_absent_and_tells_how_far_it_is(url: str, tmp_path: Path) -> None:
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
    some = conn.hydrate("SELECT text FROM messages WHERE id = 15000")
    assert some.fetched > 0 and some.absent > 0
    requests = conn.stats().requests
    conn.execute("SELECT text FROM messages WHERE id = 15000").fetchall()
    assert conn.stats().requests == requests

    def raises(fetched: int, total: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        conn.hydrate(progress=raises)
    told: list[tuple[int, int]] = []
    everything = conn.hydrate(progress=lambda *at: told.append(at))
    assert everything == turso.sync.Hydrated(told[-1][0], 0) and told[-1][0] == told[-1][1]
    requests = conn.stats().requests
    assert conn.execute("SELECT COUNT(*) FROM messages WHERE text <> ''").fetchone() == (20_000,)
    assert conn.stats().requests == requests
    with pytest.raises(turso.Error, match="nowhere"):
        conn.hydrate("SELECT * FROM nowhere")


def test_what_is_told_of_a_hydration_cannot_use_the_connection(url: str, tmp_path: Path) -> None:
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
    with pytest.raises(turso.OperationalError, match="in the middle of a request"):
        conn.hydrate(progress=lambda *at: conn.execute("SELECT text FROM messages WHERE id = 15000").fetchall())
    with pytest.raises(turso.ProgrammingError, match="in the middle of a request"):
        conn.hydrate(progress=lambda *at: conn.pull())
    assert conn.hydrate().absent == 0


def test_a_change_that_breaks_a_constraint_of_the_remote_is_an_integrity_error(
    url: str, tmp_path: Path
) -> None:
    one = turso.sync.connect(tmp_path / "one.db", url)
    two = turso.sync.connect(tmp_path / "two.db", url)
    one.execute("CREATE UNIQUE INDEX messages_text ON messages(text)")
    one.execute("INSERT INTO messages VALUES (50001, 'one', 'taken')")
    one.commit()
    one.push()
    two.execute("INSERT INTO messages VALUES (50002, 'two', 'taken')")
    two.commit()
    with pytest.raises(turso.IntegrityError, match="UNIQUE constraint failed: messages.text"):
        two.push()


def test_s3_a_replica_follows_its_database_to_a_new_url(url: str, messages_file: Path, tmp_path: Path) -> None:
    before = turso.sync.connect(tmp_path / "app.db", url, partial_sync_opts=PREFIX)
    before.execute("INSERT INTO messages VALUES (50001, 'me', 'not pushed')")
    before.commit()
    before.close()
    shutil.copy(messages_file, tmp_path / "moved.db")
    with serve(tmp_path / "moved.db") as moved:
        with pytest.raises(turso.Error, match="accept_new_url"):
            turso.sync.connect(tmp_path / "app.db", moved)
        after = turso.sync.connect(tmp_path / "app.db", moved, accept_new_url=True)
        after.pull()
        after.push()
        other = turso.sync.connect(tmp_path / "other.db", moved, partial_sync_opts=PREFIX)
        for conn in (after, other):
            found = conn.execute("SELECT text FROM messages WHERE id = 50001").fetchone()
            assert found == ("not pushed",)
            conn.close()


def test_s6_a_refused_change_is_discarded_with_what_depends_on_it(url: str, tmp_path: Path) -> None:
    one = turso.sync.connect(tmp_path / "one.db", url)
    two = turso.sync.connect(tmp_path / "two.db", url)
    one.execute("INSERT INTO messages VALUES (50001, 'one', 'same'), (50002, 'one', 'same')")
    one.commit()
    one.push()
    two.execute("CREATE UNIQUE INDEX messages_text ON messages(text) WHERE id > 50000")
    two.execute("DROP INDEX messages_text")
    two.execute("PRAGMA user_version = 5")
    with pytest.raises(turso.DatabaseError, match=r"discard_change\(\d+\)") as caught:
        two.push()
    assert two.discard_change(10_000) == 0
    assert two.discard_change(caught.value.change, with_dependents=True) == 2
    two.push()
    two.pull()
    assert two.stats().cdc_operations == 0
    one.pull()
    assert one.execute("PRAGMA user_version").fetchone() == (5,)


def test_a_checkpoint_empties_the_log(url: str, tmp_path: Path) -> None:
    conn = turso.sync.connect(tmp_path / "a.db", url)
    conn.execute("UPDATE messages SET text = 'short'")
    conn.commit()
    assert conn.stats().main_wal_size > 0
    conn.checkpoint()
    assert conn.stats().main_wal_size == 0


def test_the_file_of_a_replica_is_a_sqlite_database(url: str, tmp_path: Path) -> None:
    conn = turso.sync.connect(tmp_path / "a.db", url)
    conn.execute("SELECT SUM(length(text)) FROM messages").fetchone()
    conn.close()
    with sqlite3.connect(tmp_path / "a.db") as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    plain.close()


def test_requests_carry_the_encryption_key_and_wrong_tokens_are_operational_errors(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    url, proxy = slow
    conn = turso.sync.connect(
        tmp_path / "a.db",
        url,
        remote_encryption_key="a2V5",
        remote_encryption_cipher=turso.sync.RemoteEncryptionCipher.Aes256Gcm,
    )
    conn.close()
    assert any(name.lower().endswith("encryption-key") for name in proxy.header_names)


def test_the_engine_speaks_through_logging(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="turso"):
        turso.setup_logging()
        conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
        conn.execute("SELECT COUNT(*) FROM messages").fetchone()
        fetches = [record for record in caplog.records if record.name == "turso"]
        assert fetches and all(record.levelno == logging.DEBUG for record in fetches)
    turso.setup_logging(logging.WARNING)
    caplog.clear()
    conn.execute("SELECT SUM(length(text)) FROM messages").fetchone()
    assert not caplog.records
