"""`pyturso`, as published, as a client of a remote: the checks a user of that package would notice first.

Run by run.py, which says what the arguments mean. Must never look into the client's own files: only what its public
API says counts.
"""

import argparse
import json
import os
import re
import sqlite3
import sys
import threading
import time
import urllib.request

import turso.sync
from turso.sync import PartialSyncOpts, PartialSyncPrefixBootstrap, PartialSyncQueryBootstrap

DEADLINE_S = 20
FINGERPRINT = "SELECT count(*), sum(id), sum(length(body)), sum(score) FROM item"
CHECKS = []


def check(only=None, phase="first"):
    """Registers a check; its docstring is its name. `only="ours"`: something that only this project's server does."""

    def register(run):
        CHECKS.append((run.__doc__, run, only, phase))
        return run

    return register


def remote(sql, *args, url=None):
    """Runs one statement on the remote over `/v2/pipeline` and returns its rows as tuples."""
    statement = {"sql": sql, "args": [to_hrana(a) for a in args], "want_rows": True}
    headers = {"content-type": "application/json"}
    if OPTIONS.token:
        headers["authorization"] = f"Bearer {OPTIONS.token}"
    body = json.dumps({"baton": None, "requests": [{"type": "execute", "stmt": statement}]}).encode()
    request = urllib.request.Request((url or OPTIONS.url) + "/v2/pipeline", body, headers)
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
        result = json.load(response)["results"][0]
    assert result["type"] == "ok", f"{sql}: {result['error']}"
    return [tuple(from_hrana(v) for v in row) for row in result["response"]["result"]["rows"]]


def to_hrana(value):
    if value is None:
        return {"type": "null"}
    if isinstance(value, int):
        return {"type": "integer", "value": str(value)}
    if isinstance(value, float):
        return {"type": "float", "value": value}
    return {"type": "text", "value": value}


def from_hrana(value):
    if value["type"] == "null":
        return None
    return int(value["value"]) if value["type"] == "integer" else value.get("value", value.get("base64"))


def replica(name, url=None, token=None, **options):
    path = os.path.join(OPTIONS.dir, f"python-{name}.db")
    return turso.sync.connect(path, url or OPTIONS.url, auth_token=token or OPTIONS.token or None, **options)


def prefix(length, **options):
    return PartialSyncOpts(bootstrap_strategy=PartialSyncPrefixBootstrap(length=length), **options)


def query(sql, **options):
    return PartialSyncOpts(bootstrap_strategy=PartialSyncQueryBootstrap(query=sql), **options)


def rows(connection, sql, *args):
    return [tuple(row) for row in connection.execute(sql, args).fetchall()]


def write(connection, *statements):
    for statement in statements:
        connection.execute(statement)
    connection.commit()


def received(connection):
    return connection.stats().network_received_bytes


def equal(actual, expected):
    assert actual == expected, f"{actual!r} is not {expected!r}"


@check()
def full():
    """a full bootstrap reads every row"""
    db = replica("full")
    equal(rows(db, FINGERPRINT), remote(FINGERPRINT))
    equal(rows(db, "PRAGMA integrity_check"), [("ok",)])
    equal(db.pull(), False)


@check()
def chunks():
    """a bootstrap in chunks reads every row"""
    equal(rows(replica("chunks", pull_bytes_threshold=100_000), FINGERPRINT), remote(FINGERPRINT))


@check()
def prefix_bootstrap():
    """a prefix bootstrap downloads a part and fetches the rest on demand"""
    db = replica("prefix", partial_sync_experimental=prefix(32 * 1024, segment_size=16 * 1024))
    whole = remote("PRAGMA page_count")[0][0] * 4096
    sql = "SELECT id, score FROM item WHERE id = 1400"
    equal(rows(db, sql), remote(sql))
    assert received(db) < whole / 3, f"one row took {received(db)} of {whole} bytes"
    equal(rows(db, FINGERPRINT), remote(FINGERPRINT))


@check()
def segments_and_prefetch():
    """default segments and prefetch read the same rows, with ids beyond the end in their requests"""
    for prefetch in (False, True):
        db = replica(f"prefetch-{prefetch}", partial_sync_experimental=prefix(4096, prefetch=prefetch))
        equal(rows(db, "SELECT id FROM item WHERE id = 1490"), [(1490,)])
        equal(rows(db, FINGERPRINT), remote(FINGERPRINT))


@check()
def index_lookup():
    """an index lookup on absent pages finds its rows"""
    db = replica("index", partial_sync_experimental=prefix(4096, segment_size=4096))
    sql = "SELECT id FROM item WHERE score = 4200 ORDER BY id"
    equal(rows(db, sql), remote(sql))


@check()
def query_bootstrap():
    """rows of a query bootstrap are read without another request"""
    sql = "SELECT id, body, score FROM item WHERE id BETWEEN 200 AND 220"
    db = replica("query", partial_sync_experimental=query(sql))
    before = received(db)
    equal(rows(db, sql), remote(sql))
    equal(received(db), before)
    equal(rows(db, "SELECT id FROM item WHERE id = 1300"), [(1300,)])


@check(only="ours")
def query_bootstrap_is_small():
    """a query bootstrap sends only the pages that the query touches"""
    sql = "SELECT id, body, score FROM item WHERE id BETWEEN 200 AND 220"
    db = replica("query-small", partial_sync_experimental=query(sql))
    whole = remote("PRAGMA page_count")[0][0] * 4096
    assert received(db) < whole / 4, f"took {received(db)} of {whole} bytes"


@check()
def push():
    """inserts, updates and deletes arrive on the remote"""
    db = replica("push")
    write(
        db,
        "INSERT INTO item(id, body, score) VALUES (100001, 'new', 1), (100002, 'newer', 2)",
        "UPDATE item SET body = 'changed' WHERE id = 5",
        "DELETE FROM item WHERE id = 6",
    )
    db.push()
    equal(
        remote("SELECT id, body FROM item WHERE id IN (5, 6, 100001, 100002) ORDER BY id"),
        [(5, "changed"), (100001, "new"), (100002, "newer")],
    )
    db.push()
    db.pull()
    equal(rows(db, FINGERPRINT), remote(FINGERPRINT))


@check()
def partial_push():
    """a partial replica pushes a change of a row that it had to fetch"""
    db = replica("partial-push", partial_sync_experimental=prefix(4096, segment_size=8192))
    write(db, "UPDATE item SET body = 'from a partial replica' WHERE id = 1234")
    db.push()
    equal(remote("SELECT body FROM item WHERE id = 1234"), [("from a partial replica",)])


@check()
def values():
    """values of every kind arrive as they were"""
    db = replica("values")
    db.execute("CREATE TABLE kinds(k TEXT PRIMARY KEY, v)")
    kinds = [None, 7, -(2**63), 2**63 - 1, 1.5, 1e300, "", "žluť 漢字 🦀", "it's", b"\x00\xff\x10", b""]
    for i, value in enumerate(kinds):
        db.execute("INSERT INTO kinds VALUES (?, ?)", (f"k{i}", value))
    db.commit()
    db.push()
    sql = "SELECT k, typeof(v), quote(v), length(v) FROM kinds ORDER BY k"
    equal(rows(db, sql), remote(sql))


@check()
def two_clients():
    """two clients see each other, and the last push wins"""
    a, b = replica("two-a"), replica("two-b", partial_sync_experimental=prefix(8192))
    write(a, "UPDATE item SET body = 'A' WHERE id = 700", "INSERT INTO item(id, body, score) VALUES (200000, 'A', 1)")
    write(b, "UPDATE item SET body = 'B' WHERE id = 700", "INSERT INTO item(id, body, score) VALUES (200000, 'B', 2)")
    a.push()
    b.push()
    for db in (a, b):
        db.pull()
        equal(
            rows(db, "SELECT id, body FROM item WHERE id IN (700, 200000) ORDER BY id"), [(700, "B"), (200000, "B")]
        )


@check()
def pull_keeps_local_changes():
    """changes that were not pushed survive a pull"""
    a, b = replica("keep-a"), replica("keep-b")
    write(a, "INSERT INTO item(id, body, score) VALUES (300000, 'local', 1)")
    write(b, "INSERT INTO item(id, body, score) VALUES (300001, 'remote', 1)")
    b.push()
    equal(a.pull(), True)
    sql = "SELECT id FROM item WHERE id IN (300000, 300001) ORDER BY id"
    equal(rows(a, sql), [(300000,), (300001,)])
    a.push()
    equal(remote(sql), [(300000,), (300001,)])


@check()
def old_revision():
    """an absent page is read at the replica's own revision after the remote moved on"""
    db = replica("old", partial_sync_experimental=prefix(4096, segment_size=4096))
    sql = "SELECT body FROM item WHERE id = 1450"
    before = remote(sql)
    remote("UPDATE item SET body = 'moved on' WHERE id = 1450")
    equal(rows(db, sql), before)
    equal(db.pull(), True)
    equal(rows(db, sql), [("moved on",)])


@check()
def empty():
    """an empty database is opened, filled, pushed and opened by another client"""
    db = replica("empty", url=OPTIONS.empty_url)
    equal(db.pull(), False)
    write(db, "CREATE TABLE first(id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO first VALUES (1, 'one'), (2, 'two')")
    db.push()
    db.pull()
    for name, options in (("empty-2", {}), ("empty-3", {"partial_sync_experimental": prefix(8192)})):
        other = replica(name, url=OPTIONS.empty_url, **options)
        equal(rows(other, "SELECT id, v FROM first ORDER BY id"), [(1, "one"), (2, "two")])


@check()
def late_bootstrap():
    """a replica that was opened without a bootstrap gets everything with its first pull"""
    db = replica("late", bootstrap_if_empty=False)
    equal(db.pull(), True)
    equal(rows(db, FINGERPRINT), remote(FINGERPRINT))


@check()
def refused_change():
    """a refused change is reported with the text of the constraint"""
    a = replica("refused-a")
    write(a, "CREATE TABLE IF NOT EXISTS person(id INTEGER PRIMARY KEY, email TEXT UNIQUE)")
    a.push()
    b = replica("refused-b")
    write(a, "INSERT INTO person VALUES (1, 'same')")
    a.push()
    write(b, "INSERT INTO person VALUES (2, 'same')")
    try:
        b.push()
    except Exception as error:
        assert "UNIQUE constraint failed: person.email" in str(error), error
    else:
        raise AssertionError("the push was accepted")
    equal(remote("SELECT id FROM person"), [(1,)])


@check(only="ours")
def long_poll():
    """a long poll waits, and ends when something changes"""
    db = replica("poll", long_poll_timeout_ms=400)
    started = time.monotonic()
    equal(db.pull(), False)
    assert time.monotonic() - started > 0.35, "answered at once"
    patient = replica("poll-patient", long_poll_timeout_ms=15_000)
    change = threading.Thread(target=remote, args=("UPDATE item SET body = 'poll' WHERE id = 60",), daemon=True)
    change.start()
    started = time.monotonic()
    equal(patient.pull(), True)
    assert time.monotonic() - started < 10, "the change did not end the wait"
    equal(rows(patient, "SELECT body FROM item WHERE id = 60"), [("poll",)])


@check(only="ours")
def other_program():
    """a commit that another program made to the served file reaches the client"""
    db = replica("other-program", partial_sync_experimental=prefix(4096, segment_size=4096))
    old = rows(db, "SELECT body FROM item WHERE id = 800")
    with sqlite3.connect(OPTIONS.file, timeout=DEADLINE_S) as program:
        program.execute("UPDATE item SET body = 'by another program' WHERE id IN (800, 801)")
        program.execute("INSERT INTO item(id, body, score) VALUES (250000, 'by another program', 1)")
    program.close()
    equal(rows(db, "SELECT body FROM item WHERE id = 800"), old)
    equal(db.pull(), True)
    equal(
        rows(db, "SELECT id FROM item WHERE body = 'by another program' ORDER BY id"), [(800,), (801,), (250000,)]
    )


@check(only="ours")
def wrong_token():
    """a wrong token is refused with a clear error"""
    try:
        replica("wrong-token", token="not the token")
    except Exception as error:
        assert "status=401" in str(error), error
    else:
        raise AssertionError("the token was accepted")


@check()
def leave_behind():
    """a replica is left behind for the time after a restart"""
    options = prefix(4096, segment_size=4096)
    db = replica("left-behind", client_name="left-behind-py", partial_sync_experimental=options)
    write(db, "INSERT INTO item(id, body, score) VALUES (700000, 'before the restart', 1)")
    db.push()
    write(db, "INSERT INTO item(id, body, score) VALUES (700001, 'not pushed', 1)")
    db.close()


@check(only="ours", phase="reopened")
def reopened():
    """a replica from before continues where it was"""
    options = prefix(4096, segment_size=4096)
    db = replica("left-behind", client_name="left-behind-py", partial_sync_experimental=options)
    equal(rows(db, "SELECT id FROM item WHERE id = 1111"), [(1111,)])
    db.pull()
    db.push()
    equal(
        remote("SELECT id, body FROM item WHERE id IN (700000, 700001) ORDER BY id"),
        [(700000, "before the restart"), (700001, "not pushed")],
    )
    equal(rows(db, FINGERPRINT), remote(FINGERPRINT))
    # For the next time: something to pull, committed just before the server ends.
    remote("UPDATE item SET score = score + 1 WHERE id % 100 = 0")


def outcome(run):
    """Runs a check in a thread of its own, because a native client that waits for ever cannot be interrupted."""
    result = []

    def guarded():
        try:
            run()
            result.append(None)
        except BaseException as error:  # noqa: BLE001: a panic of the client arrives as a BaseException
            result.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    return result[0] if result else f"no answer within {DEADLINE_S} s"


def main(peer):
    """Runs the checks of this phase and ends the process with status 1 when one of them failed."""
    failed = 0
    if OPTIONS.phase == "reopened":
        peer += " after a restart"
    for name, run, only, phase in CHECKS:
        if phase != OPTIONS.phase:
            continue
        if only and only != OPTIONS.server:
            print(f"skip {peer}: {name}", flush=True)
            continue
        started = time.monotonic()
        reason = outcome(run)
        if reason is None:
            print(f"ok   {peer}: {name} ({(time.monotonic() - started) * 1000:.0f} ms)", flush=True)
        else:
            failed += 1
            print(f"FAIL {peer}: {name}: {re.sub(chr(10), ' ', reason)[:600]}", flush=True)
    sys.stdout.flush()
    os._exit(1 if failed else 0)  # a thread that hangs in native code must not keep the process alive


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--empty-url", required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--dir", required=True)
    parser.add_argument("--server", choices=("ours", "tursodb"), required=True)
    parser.add_argument("--phase", choices=("first", "reopened"), default="first")
    parser.add_argument("--file", default="", help="the served file, when it is this project's server")
    OPTIONS = parser.parse_args()
    main("pyturso")
