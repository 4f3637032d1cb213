"""Nothing waits for itself: whatever the engine or SQLite calls may use the connection that calls it, or is told at once why
it cannot. The watchdog of conftest.py makes a wait that does not end a failure.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.sync
from servers import Proxy
from turso.sync import PartialSyncOpts, PartialSyncPrefixBootstrap

PREFIX = PartialSyncOpts(bootstrap_strategy=PartialSyncPrefixBootstrap(length=4096))
COLD = "SELECT text FROM messages WHERE id = 15000"
#: What is said where it does not work.
WHY = "Recursive use of cursors|in the middle of a|closed database|due to active statements"


class Nosy:
    """Uses a connection in every way, and notes what came of it."""

    def __init__(self) -> None:
        self.conn: Any = None
        self.came: list[Any] = []

    def look(self, *_: Any) -> Any:
        calls: list[Callable[[], Any]] = [
            lambda: self.conn.execute("SELECT 1").fetchone(),
            lambda: self.conn.execute("CREATE TABLE IF NOT EXISTS nosy(a)"),
            lambda: self.conn.execute("INSERT INTO nosy VALUES (1)"),
            lambda: self.conn.commit(),
            lambda: self.conn.in_transaction,
            lambda: self.conn.cursor().close(),
            lambda: self.conn.create_function("other", 0, lambda: 1),
        ]
        if isinstance(self.conn, turso.sync.ConnectionSync):
            calls += [
                lambda: self.conn.execute("SELECT text FROM messages WHERE id = 12000").fetchone(),
                self.conn.pull,
                self.conn.push,
                self.conn.checkpoint,
                self.conn.stats,
            ]
        for call in calls:
            started = time.monotonic()
            try:
                call()
                self.came.append("works")
            except turso.Error as error:
                self.came.append(str(error))
            self.came.append(time.monotonic() - started)
        return 1

    def check(self, why: str = WHY) -> None:
        assert self.came, "it was called"
        import re

        for what, seconds in zip(self.came[::2], self.came[1::2]):
            assert what == "works" or re.search(why, what), self.came
            assert seconds < 10, self.came


def local(nosy: Nosy) -> Any:
    nosy.conn = turso.connect(":memory:", detect_types=turso.PARSE_COLNAMES)
    nosy.conn.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (3)")
    return nosy.conn


def aggregate(look: Callable[..., Any], method: str) -> type:
    methods: dict[str, Any] = {name: lambda self, *_: 1 for name in ("step", "inverse", "value", "finalize")}
    return type("Aggregate", (), methods | {method: look})


def with_function(conn: Any, look: Any) -> None:
    conn.create_function("f", 0, look)
    conn.execute("SELECT f()").fetchone()


def with_aggregate(conn: Any, look: Any) -> None:
    for method in ("step", "finalize", "__init__"):
        conn.create_aggregate("g", 1, aggregate(lambda *_: None if look() and method == "__init__" else 1, method))
        conn.execute("SELECT g(a) FROM t").fetchone()


def with_window(conn: Any, look: Any) -> None:
    for method in ("step", "inverse", "value", "finalize"):
        conn.create_window_function("w", 1, aggregate(look, method))
        rows = conn.execute("SELECT w(a) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t")
        rows.fetchone()
        rows.close()


def with_collation(conn: Any, look: Any) -> None:
    conn.create_collation("c", look)
    conn.execute("SELECT a FROM t ORDER BY a || '' COLLATE c").fetchall()


def with_trace(conn: Any, look: Any) -> None:
    conn.set_trace_callback(look)
    conn.execute("INSERT INTO t VALUES (4)")
    conn.executescript("SELECT 1; SELECT 2")
    conn.set_trace_callback(None)


def with_row_factory(conn: Any, look: Any) -> None:
    conn.row_factory = look
    cursor = conn.execute("SELECT a FROM t")
    conn.row_factory = None
    cursor.fetchone()
    cursor.fetchall()


def with_text_factory(conn: Any, look: Any) -> None:
    conn.text_factory = look
    conn.execute("SELECT 'text'").fetchall()
    conn.text_factory = str


def with_converter(conn: Any, look: Any) -> None:
    turso.register_converter("nosy", look)
    conn.execute("SELECT 1 AS 'a [nosy]'").fetchone()


def with_adapter(conn: Any, look: Any) -> None:
    class Value:
        def __conform__(self, _: Any) -> Any:
            return look()

    conn.execute("SELECT ?", (Value(),)).fetchone()
    conn.executemany("INSERT INTO t VALUES (?)", [(Value(),)])


def with_parameters(conn: Any, look: Any) -> None:
    conn.executemany("INSERT INTO t VALUES (?)", ((look(),) for _ in range(3)))


def with_destructors(conn: Any, look: Any) -> None:
    class Last:
        def __call__(self, *_: Any) -> int:
            return 1

        def __del__(self) -> None:
            look()

    conn.create_function("f", 0, Last())
    conn.create_function("f", 0, None)
    cursor = conn.execute("SELECT a FROM t")
    cursor.row_factory = Last()
    cursor.row_factory = None
    conn.create_function("f", 0, Last())
    conn.close()
    gc.collect()


def with_finalizers(conn: Any, look: Any) -> None:
    import weakref

    cursor = conn.execute("SELECT a FROM t")
    weakref.finalize(cursor, look)
    del cursor
    weakref.ref(conn)


def with_signals(conn: Any, look: Any) -> None:
    before = signal.signal(signal.SIGALRM, look)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        counts = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT COUNT(*) FROM n"
        conn.execute(counts, (1_000_000,)).fetchone()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "use",
    [
        with_function,
        with_aggregate,
        with_window,
        with_collation,
        with_trace,
        with_row_factory,
        with_text_factory,
        with_converter,
        with_adapter,
        with_parameters,
        with_destructors,
        with_finalizers,
        with_signals,
    ],
)
def test_what_a_statement_calls_may_use_its_connection_or_is_told_why_not(use: Callable[..., None]) -> None:
    nosy = Nosy()
    conn = local(nosy)
    try:
        use(conn, nosy.look)
    except turso.OperationalError as error:
        assert error.__cause__ is not None
    nosy.check()
    if use is not with_destructors:
        assert conn.execute("SELECT 2").fetchone() == (2,)


@pytest.mark.parametrize("how", ["token", "url", "transform"])
@pytest.mark.parametrize("whose", ["own", "another"])
def test_b8_what_a_request_asks_may_use_its_database_or_is_told_why_not(
    url: str, tmp_path: Path, how: str, whose: str
) -> None:
    nosy = Nosy()
    looks = [0]

    def answer(value: Any) -> Any:
        # Once for each call, and not for the requests that looking around makes: a push sends what is written meanwhile, too.
        if nosy.conn is not None and looks[0]:
            looks[0] -= 1
            nosy.look()
        return value

    options: dict[str, Any] = {"partial_sync_opts": PREFIX, "timeout": 1}
    options["remote_url"] = (lambda: answer(url)) if how == "url" else url
    if how == "token":
        options["auth_token"] = lambda: answer("token")
    if how == "transform":
        options["transform"] = lambda m: answer(None)
    conn = turso.sync.connect(tmp_path / "a.db", **options)
    other = turso.sync.connect(tmp_path / "a.db", **options) if whose == "another" else conn
    conn.execute("UPDATE messages SET text = 'x' WHERE id = 1")
    conn.commit()
    nosy.conn = other
    for call in (lambda: conn.execute(COLD).fetchone(), conn.push, conn.pull):
        looks[0] = 1
        try:
            call()
        except turso.OperationalError as error:
            assert "in the middle of a request" in str(error) or error.__cause__ is not None, error
    nosy.conn = None
    nosy.check(WHY + "|locked|cannot wait|no such table")
    assert conn.execute(COLD).fetchone() is not None
    conn.push()


@pytest.mark.parametrize("spelled", ["alike", "otherwise"])
def test_b8_a_token_function_that_opens_its_own_database_is_told_why_not_however_the_path_is_spelled(
    shared_url: str, tmp_path: Path, spelled: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    path = tmp_path / "a.db"
    again = path if spelled == "alike" else tmp_path / "link" / "a.db"
    came: list[str] = []
    ask = True

    def token() -> str:
        nonlocal ask
        if ask:
            ask = False
            try:
                conn = turso.sync.connect(again, shared_url, partial_sync_opts=PREFIX)
                came.append(conn.execute(COLD).fetchone())
            except turso.Error as error:
                came.append(str(error))
        return "token"

    # In the first connect, and then for the very page that the other connection wants too.
    conn = turso.sync.connect(path, shared_url, auth_token=token, partial_sync_opts=PREFIX)
    ask = True
    assert conn.execute(COLD).fetchone() is not None
    assert len(came) == 2 and all("in the middle of a request" in what for what in came), came


def test_a_signal_handler_may_read_the_replica_that_is_waiting_for_a_page(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    url, proxy = slow
    conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
    other = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
    came: list[Any] = []

    def handle(*_: Any) -> None:
        proxy.delay = 0
        came.append(other.execute(COLD).fetchone())

    before = signal.signal(signal.SIGALRM, handle)
    try:
        proxy.delay = 1
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        assert conn.execute(COLD).fetchone() is not None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came and came[0] is not None


def test_a_logging_handler_that_uses_a_connection_is_told_why_not(url: str, tmp_path: Path) -> None:
    nosy = Nosy()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if nosy.conn is not None:
                nosy.look()

    handler = Handler()
    logger = logging.getLogger("turso")
    logger.addHandler(handler)
    turso.setup_logging(logging.DEBUG)
    try:
        conn = turso.sync.connect(tmp_path / "a.db", url, partial_sync_opts=PREFIX)
        nosy.conn = conn
        conn.execute(COLD).fetchone()
        conn.pull()
    finally:
        nosy.conn = None
        turso.setup_logging(logging.WARNING)
        logger.removeHandler(handler)
    nosy.check(WHY + "|logging")


def test_the_watchdog_ends_a_wait_with_the_stacks_of_all_threads(tmp_path: Path) -> None:
    program = """
import turso.sync
def test_hangs():
    turso.sync.connect(":memory:", "http://127.0.0.1:PORT", request_timeout=60)
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (tmp_path / "test_hangs.py").write_text(program.replace("PORT", str(silent.getsockname()[1])))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", str(tmp_path)],
            env={**os.environ, "WATCHDOG": "1", "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode != 0
    assert "Timeout (0:00:01)!" in done.stderr and "test_hangs" in done.stderr, done.stderr
