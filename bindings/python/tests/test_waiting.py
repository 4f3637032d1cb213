"""What waits: the GIL is free meanwhile, Ctrl-C and interrupt() break it, and the connection continues
afterwards.
"""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.sync
from servers import Proxy
from turso.sync import PartialSyncOpts, PartialSyncPrefixBootstrap

PREFIX = PartialSyncOpts(bootstrap_strategy=PartialSyncPrefixBootstrap(length=4096))
COLD = "SELECT SUM(length(text)) FROM messages"


class Counter(threading.Thread):
    """A thread that counts as long as it gets the GIL."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self.stop = False

    def run(self) -> None:
        while not self.stop:
            self.count += 1
            time.sleep(0.001)

    def __enter__(self) -> Counter:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop = True
        self.join()


def test_other_threads_run_during_a_slow_page_fetch(slow: tuple[str, Proxy], tmp_path: Path) -> None:
    url, proxy = slow
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
    proxy.delay = 0.5
    with Counter() as counter:
        conn.execute("SELECT text FROM messages WHERE id = 15000").fetchone()
    assert counter.count > 50, "the other thread went on"


@pytest.mark.parametrize(
    "method", ["fetchall", "fetchone", "iterate", "executemany", "script", "pull", "push"]
)
def test_other_threads_run_whatever_it_is_that_waits(
    slow: tuple[str, Proxy], tmp_path: Path, method: str
) -> None:
    url, proxy = slow
    # With the statement, the first row would bring the pages of the others.
    opts = dataclasses.replace(PREFIX, prefetch=False)
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=opts)
    cursor = conn.cursor()
    if method in ("fetchall", "fetchone", "iterate"):
        cursor.execute("SELECT id FROM messages WHERE id IN (1, 19000)")
    calls: dict[str, Any] = {
        "fetchall": cursor.fetchall,
        "fetchone": lambda: (cursor.fetchone(), cursor.fetchone()),
        "iterate": lambda: list(cursor),
        "executemany": lambda: cursor.executemany("UPDATE messages SET text = ? WHERE id = 19000", [("a",)]),
        "script": lambda: cursor.executescript("SELECT text FROM messages WHERE id = 19000"),
        "pull": conn.pull,
        "push": lambda: conn.push(),
    }
    if method == "push":
        conn.execute("CREATE TABLE only_here(a)")
        conn.commit()
        proxy.fail = True
    proxy.delay = 0.3
    with Counter() as counter:
        try:
            calls[method]()
        except turso.OperationalError:
            assert method == "push"
    assert counter.count > 30


def test_connecting_lets_other_threads_run(slow: tuple[str, Proxy], tmp_path: Path) -> None:
    url, proxy = slow
    proxy.delay = 0.3
    with Counter() as counter:
        turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX).close()
    assert counter.count > 30


def test_interrupt_breaks_a_page_fetch_and_the_connection_goes_on(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    url, proxy = slow
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
    proxy.delay = 20
    proxy.waiting.clear()

    def interrupt() -> None:
        proxy.waiting.wait()
        conn.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    start = time.monotonic()
    with pytest.raises(turso.OperationalError, match="interrupted") as caught:
        conn.execute(COLD).fetchone()
    assert time.monotonic() - start < 5 and caught.value.sqlite_errorname == "SQLITE_INTERRUPT"
    thread.join()
    proxy.delay = 0
    assert conn.execute("SELECT 1").fetchone() == (1,)


def test_interrupt_breaks_a_pull(slow: tuple[str, Proxy], tmp_path: Path) -> None:
    url, proxy = slow
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
    proxy.delay = 20
    proxy.waiting.clear()
    failures: list[BaseException] = []

    def pull() -> None:
        try:
            conn.pull()
        except turso.OperationalError as error:
            failures.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    proxy.waiting.wait()
    conn.interrupt()
    thread.join(5)
    assert len(failures) == 1 and "cancelled" in str(failures[0])
    proxy.delay = 0
    assert conn.pull() is False


CTRL_C = """
import sys, time, turso, turso.sync
kind, path, url = sys.argv[1:]
opts = turso.sync.PartialSyncOpts(turso.sync.PartialSyncPrefixBootstrap(4096))
if kind == "connect":
    connect = lambda: turso.sync.connect(path, url, partial_sync_opts=opts)
else:
    conn = turso.sync.connect(path, url, partial_sync_opts=opts)
calls = {
    "page": lambda: conn.execute("SELECT SUM(length(text)) FROM messages").fetchone(),
    "write": lambda: conn.execute("UPDATE messages SET text = 'x' WHERE id = 15000"),
    "pull": lambda: conn.pull(),
    "connect": lambda: connect(),
    "endless": lambda: conn.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n").fetchone(),
}
print("ready", flush=True)
sys.stdin.readline()
start = time.monotonic()
try:
    print("calling", flush=True)
    calls[kind]()
    print("it came back")
except KeyboardInterrupt:
    took = time.monotonic() - start
    print("interrupted", "soon" if took < 8 else took, flush=True)
sys.stdin.readline()
if kind == "connect":
    conn = connect()
print(conn.execute("SELECT COUNT(*) FROM messages").fetchone()[0])
"""


@pytest.mark.parametrize("kind", ["page", "write", "pull", "connect", "endless"])
def test_ctrl_c_breaks_what_waits_and_the_connection_goes_on(
    slow: tuple[str, Proxy], tmp_path: Path, kind: str
) -> None:
    url, proxy = slow
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C, kind, str(tmp_path / "a.db"), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    proxy.waiting.clear()
    proxy.delay = 25
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "calling\n"
    if kind == "endless":
        time.sleep(0.2)
    else:
        assert proxy.waiting.wait(10)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted soon\n"
    proxy.delay = 0
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "20000\n"
    assert process.wait(10) == 0
    process.stdin.close()
    process.stdout.close()


def test_other_signal_handlers_run_during_a_page_fetch_and_do_not_break_it(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    url, proxy = slow
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
    heard: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(time.monotonic()))
    try:
        proxy.delay = 0.4
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        start = time.monotonic()
        assert conn.execute("SELECT id FROM messages WHERE id = 15000").fetchone() == (15000,)
        assert heard and heard[0] - start < 0.35, "the handler ran in the middle of the fetch"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_query_timeout_ends_what_runs_and_what_waits(slow: tuple[str, Proxy], tmp_path: Path) -> None:
    url, proxy = slow
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
    assert conn.get_query_timeout() == 0
    conn.set_query_timeout(100)
    assert conn.get_query_timeout() == 100
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    proxy.delay = 20
    for sql in (endless, COLD):
        start = time.monotonic()
        with pytest.raises(turso.OperationalError, match="interrupted"):
            conn.execute(sql).fetchone()
        assert time.monotonic() - start < 5
    proxy.delay = 0
    conn.set_query_timeout(0)
    assert conn.execute("SELECT COUNT(*) FROM messages").fetchone() == (20_000,)
    with pytest.raises(turso.ProgrammingError, match='"set_query_timeout.milliseconds" is -1; '):
        conn.set_query_timeout(-1)


def test_a_wait_for_a_lock_ends_with_busy(tmp_path: Path) -> None:
    one, two = (turso.connect(tmp_path / "a.db", timeout=0.1) for _ in range(2))
    one.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(a)")
    one.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(turso.OperationalError, match="database is locked") as caught:
        two.execute("INSERT INTO t VALUES (2)")
    assert caught.value.sqlite_errorcode == turso.SQLITE_BUSY  # type: ignore[attr-defined]


def test_sixteen_threads_with_a_connection_each_to_one_cold_replica(url: str, tmp_path: Path) -> None:
    answers: list[int] = []
    barrier = threading.Barrier(16)

    def count() -> None:
        barrier.wait()
        conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
        answers.append(conn.execute("SELECT COUNT(*) FROM messages").fetchone()[0])
        conn.close()

    threads = [threading.Thread(target=count) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [20_000] * 16


def test_threads_that_share_a_connection_take_turns() -> None:
    conn = turso.connect(":memory:", isolation_level=None)
    conn.execute("CREATE TABLE t(a)")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(200):
                conn.execute("INSERT INTO t VALUES (?)", (number * 1000 + i,))
                assert conn.execute("SELECT a FROM t WHERE a = ?", (number * 1000 + i,)).fetchall()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert conn.execute("SELECT COUNT(*) FROM t").fetchone() == (1600,)


def test_a_thread_that_waits_does_not_keep_others_from_dropping_their_cursors(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    url, proxy = slow
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
    cursor = conn.execute("SELECT id FROM messages LIMIT 5")
    proxy.delay = 0.5
    proxy.waiting.clear()
    thread = threading.Thread(target=lambda: conn.execute(COLD).fetchone())
    thread.start()
    proxy.waiting.wait()
    start = time.monotonic()
    del cursor
    assert time.monotonic() - start < 0.3
    proxy.delay = 0
    thread.join()


def test_check_same_thread_refuses_other_threads() -> None:
    conn = turso.connect(":memory:", check_same_thread=True)
    failures: list[str] = []

    def use() -> None:
        for call in (lambda: conn.execute("SELECT 1"), conn.cursor, conn.commit, conn.close):
            try:
                call()
            except turso.ProgrammingError as error:
                failures.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(failures) == 4 and "check_same_thread" in failures[0]


def test_a_slow_token_function_does_not_hold_up_other_requests(url: str, tmp_path: Path) -> None:
    inside = threading.Event()
    go_on = threading.Event()

    def slow_token() -> str:
        inside.set()
        go_on.wait(10)
        return "token"

    quick = turso.sync.connect(tmp_path / "quick.db", url, partial_sync_opts=PREFIX)
    threads = [
        threading.Thread(
            target=lambda i=i: turso.sync.connect(
                tmp_path / f"slow{i}.db", url, auth_token=slow_token
            ).close()
        )
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    assert inside.wait(10)
    assert quick.execute("SELECT COUNT(*) FROM messages").fetchone() == (20_000,)
    go_on.set()
    for thread in threads:
        thread.join()
