"""`turso.aio.sync`: replicas, whose waits for the network must block nothing but the call itself."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.aio.sync
import turso.sync
from loops import in_a_loop
from servers import Proxy, proxied

COUNT = "SELECT COUNT(*) FROM messages"
DELAY = 4.0
SOON = 2.0


def prefix(length: int = 128 * 1024) -> turso.sync.PartialSyncOpts:
    return turso.sync.PartialSyncOpts(
        bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=length),
    )


class Lag:
    """Measures, while it is entered, for how long the event loop was not free at most."""

    longest = 0.0

    async def __aenter__(self) -> Lag:
        self._task = asyncio.create_task(self._measure())
        await asyncio.sleep(0)
        return self

    async def _measure(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - before)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()


@in_a_loop
async def test_the_documentations_examples_awaited(shared_url: str, tmp_path: Path) -> None:
    conn = await turso.aio.sync.connect(
        path=tmp_path / "app.db",
        remote_url=shared_url,
        remote_auth_token="a-token",
        partial_sync_opts=turso.aio.sync.PartialSyncOpts(
            bootstrap_strategy=turso.aio.sync.PartialSyncPrefixBootstrap(length=128 * 1024),
            segment_size=16 * 1024,
            prefetch=True,
        ),
    )
    assert (await conn.stats()).pages_present == 32
    assert await conn.execute_fetchall(COUNT) == [(20_000,)]
    await conn.close()
    async with turso.aio.sync.connect(
        path=":memory:",
        remote_url=shared_url,
        partial_sync_opts=turso.aio.sync.PartialSyncOpts(
            bootstrap_strategy=turso.aio.sync.PartialSyncQueryBootstrap(
                query="SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100"
            ),
        ),
    ) as conn:
        async with conn.execute("SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100") as cursor:
            assert len([row async for row in cursor]) == 67


@in_a_loop
async def test_push_and_pull_carry_changes_to_another_replica(url: str, tmp_path: Path) -> None:
    async with (
        turso.aio.sync.connect(tmp_path / "a.db", url, partial_sync_opts=prefix()) as one,
        turso.aio.sync.connect(tmp_path / "b.db", url, partial_sync_opts=prefix()) as other,
    ):
        await one.execute("INSERT INTO messages(user_id, text) VALUES (?, ?)", ("u_new", "hello"))
        await one.commit()
        assert (await one.stats()).cdc_operations > 0
        await one.push()
        assert await other.pull() is True
        assert await other.pull() is False
        assert await other.execute_fetchall("SELECT text FROM messages WHERE user_id = 'u_new'") == [
            ("hello",)
        ]
        await other.checkpoint()


def test_options_are_those_of_the_blocking_connect() -> None:
    def options(function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}

    blocking, asynchronous = options(turso.sync.connect), options(turso.aio.sync.connect)
    del blocking["factory"]
    assert asynchronous.pop("iter_chunk_size") == 64
    assert asynchronous == blocking


@in_a_loop
async def test_wrong_options_are_errors_that_name_them(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match='"remote_ulr"; did you mean "remote_url"'):
        turso.aio.sync.connect("a.db", remote_ulr="x")  # type: ignore[arg-type]
    with pytest.raises(turso.ProgrammingError, match='"remote_auth_token" and "auth_token" are two names'):
        turso.aio.sync.connect("a.db", "http://x", auth_token="a", remote_auth_token="b")
    with pytest.raises(turso.ProgrammingError, match='"long_poll_timeout_ms" is -1; '):
        await turso.aio.sync.connect(tmp_path / "a.db", "http://x", long_poll_timeout_ms=-1)


@in_a_loop
async def test_the_event_loop_is_free_while_pages_are_fetched(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    url, proxy = slow
    proxy.delay = 0.3
    async with Lag() as lag:
        async with turso.aio.sync.connect(tmp_path / "a.db", url, partial_sync_opts=prefix()) as conn:
            began = time.perf_counter()
            assert await conn.execute_fetchall("SELECT COUNT(*) FROM messages WHERE id > 19000") == [(1000,)]
            assert time.perf_counter() - began > 0.3
            # Properties too do not wait for the statement that runs.
            query = asyncio.create_task(
                conn.execute_fetchall("SELECT COUNT(*) FROM messages WHERE id < 9000")
            )
            await asyncio.sleep(0.1)
            assert not query.done()
            assert not conn.in_transaction and conn.total_changes == 0
            conn.row_factory = turso.Row
            conn.isolation_level = None
            conn.interrupt()
            with pytest.raises(turso.OperationalError):
                await query
            await conn.pull()
    assert lag.longest < 0.15


@in_a_loop
async def test_cancelling_breaks_a_page_fetch_and_leaves_the_connection_usable(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    url, proxy = slow
    async with turso.aio.sync.connect(tmp_path / "a.db", url, partial_sync_opts=prefix()) as conn:
        proxy.delay = DELAY
        proxy.waiting.clear()
        for again in range(3):
            query = asyncio.create_task(conn.execute_fetchall(COUNT))
            if again:
                # It waits for the request that is under way already.
                await asyncio.sleep(0.05)
            else:
                await asyncio.to_thread(proxy.waiting.wait, 10)
            behind = asyncio.create_task(conn.execute_fetchall("SELECT 1"))
            began = time.perf_counter()
            query.cancel()
            with pytest.raises(asyncio.CancelledError):
                await query
            assert await behind == [(1,)]
            assert time.perf_counter() - began < SOON
        proxy.delay = 0
        assert await conn.execute_fetchall(COUNT) == [(20_000,)]


@in_a_loop
async def test_cancelling_breaks_a_pull_and_a_push(url: str, tmp_path: Path) -> None:
    with proxied(url) as (slow_url, proxy):
        async with turso.aio.sync.connect(tmp_path / "a.db", slow_url, partial_sync_opts=prefix()) as conn:
            await conn.execute("INSERT INTO messages(text) VALUES ('mine')")
            await conn.commit()
            proxy.delay = DELAY
            for call in (conn.pull, conn.push, conn.hydrate):
                proxy.waiting.clear()
                task = asyncio.create_task(call())
                await asyncio.to_thread(proxy.waiting.wait, 10)
                began = time.perf_counter()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert time.perf_counter() - began < SOON
            proxy.delay = 0
            await conn.push()
            await conn.pull()
            assert await conn.execute_fetchall("SELECT COUNT(*) FROM messages WHERE text = 'mine'") == [(1,)]
            told: list[int] = []
            assert (await conn.hydrate(progress=lambda fetched, total: told.append(fetched))).absent == 0 and told


@in_a_loop
async def test_cancelling_breaks_the_first_connect(slow: tuple[str, Proxy], tmp_path: Path) -> None:
    url, proxy = slow
    proxy.delay = DELAY
    conn = turso.aio.sync.connect(tmp_path / "a.db", url, partial_sync_opts=prefix())
    connecting = asyncio.create_task(conn.execute(COUNT))
    await asyncio.to_thread(proxy.waiting.wait, 10)
    began = time.perf_counter()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert time.perf_counter() - began < SOON
    with pytest.raises(turso.ProgrammingError, match="closed database"):
        await conn
    proxy.delay = 0
    async with turso.aio.sync.connect(tmp_path / "a.db", url, partial_sync_opts=prefix()) as again:
        assert await again.execute_fetchall(COUNT) == [(20_000,)]


@in_a_loop
async def test_a_remote_that_cannot_be_reached_is_an_operational_error(tmp_path: Path) -> None:
    with pytest.raises(turso.OperationalError):
        await turso.aio.sync.connect(tmp_path / "a.db", "http://127.0.0.1:1", request_timeout=2)


# Functions for the url and the token.


@in_a_loop
async def test_the_token_may_come_from_a_coroutine_on_the_loop(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    url, proxy = slow
    loop = asyncio.get_running_loop()
    asked = 0

    async def token() -> str:
        nonlocal asked
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0.01)
        asked += 1
        return f"token-{asked}"

    async with turso.aio.sync.connect(
        tmp_path / "a.db", url, auth_token=token, partial_sync_opts=prefix()
    ) as conn:
        await conn.execute(COUNT)
    assert proxy.authorizations == [f"Bearer token-{i + 1}" for i in range(asked)]
    assert asked > 1, "it is asked before each request"


@in_a_loop
async def test_the_url_may_come_from_a_coroutine_and_pause_sync(url: str, tmp_path: Path) -> None:
    answer: str | None = url

    async def where() -> str | None:
        return answer

    async with turso.aio.sync.connect(tmp_path / "a.db", where) as conn:
        answer = None
        with pytest.raises(turso.OperationalError, match="paused"):
            await conn.pull()
        await conn.execute("INSERT INTO messages(text) VALUES ('mine')")
        await conn.commit()
        answer = url
        await conn.push()


@in_a_loop
async def test_a_token_function_that_raises_is_the_cause_of_the_error(
    shared_url: str, tmp_path: Path
) -> None:
    async def token() -> str:
        raise LookupError("nobody is signed in")

    with pytest.raises(turso.OperationalError, match="nobody is signed in") as caught:
        await turso.aio.sync.connect(tmp_path / "a.db", shared_url, auth_token=token)
    assert isinstance(caught.value.__cause__, LookupError)


@in_a_loop
async def test_a_token_function_that_never_answers_can_be_cancelled(shared_url: str, tmp_path: Path) -> None:
    asked = asyncio.Event()
    answers = True

    async def token() -> str:
        if not answers:
            asked.set()
            await asyncio.sleep(3600)
        return "a-token"

    async with turso.aio.sync.connect(
        tmp_path / "a.db", shared_url, auth_token=token, partial_sync_opts=prefix()
    ) as conn:
        answers = False
        query = asyncio.create_task(conn.execute(COUNT))
        await asked.wait()
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query
        assert await conn.execute_fetchall("SELECT 1") == [(1,)]
        answers = True
        assert await conn.execute_fetchall(COUNT) == [(20_000,)]


# Many at once.


@in_a_loop
async def test_sixteen_connections_to_one_replica_count_a_cold_table_at_once(
    shared_url: str, tmp_path: Path
) -> None:
    async def count() -> list[Any]:
        async with turso.aio.sync.connect(tmp_path / "a.db", shared_url, partial_sync_opts=prefix()) as conn:
            return await conn.execute_fetchall(COUNT)

    assert await asyncio.gather(*(count() for _ in range(16))) == [[(20_000,)]] * 16


# The end of the program.

PROGRAM = """
import asyncio, sys, time
import turso, turso.aio.sync

path, url = sys.argv[1:]
opts = turso.sync.PartialSyncOpts(turso.sync.PartialSyncPrefixBootstrap(length=4096))
"""


def run(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = 30) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the program did not end\n{out}\n{err}")
    return process.returncode, out, err


def test_a_program_that_closes_nothing_ends(shared_url: str, tmp_path: Path) -> None:
    program = """
async def main():
    global conn
    conn = await turso.aio.sync.connect(path, url)
    await conn.execute("INSERT INTO messages(text) VALUES ('not committed')")

asyncio.run(main())
print("the end")
"""
    assert ended(run(program, tmp_path / "a.db", shared_url)) == (0, "the end\n", "")
    with turso.connect(tmp_path / "a.db") as conn:
        assert conn.execute("SELECT COUNT(*) FROM messages WHERE text = 'not committed'").fetchone() == (0,)


def test_a_program_that_ends_in_the_middle_of_a_page_fetch_ends(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    program = """
async def main():
    global conn
    conn = await turso.aio.sync.connect(path, url, partial_sync_opts=opts)
    print("connected", flush=True)
    sys.stdin.readline()
    global query
    query = conn._worker.submit(lambda: conn._below().execute("SELECT COUNT(*) FROM messages"), forget=True)

asyncio.run(main())
time.sleep(0.5)
"""
    url, proxy = slow
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + program, str(tmp_path / "a.db"), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "connected\n"
    proxy.delay = 20
    process.stdin.write("\n")
    process.stdin.flush()
    code, _, err = ended(process, 10)
    assert (code, err) == (0, "")


def test_connections_of_another_thread_outlive_the_main_thread_but_not_the_other(tmp_path: Path) -> None:
    program = """
import threading

async def main():
    async with turso.aio.connect(path) as conn:
        threading.main_thread().join()
        await asyncio.sleep(0.2)
        await conn.execute("CREATE TABLE t(a)")
        print(await conn.execute_fetchall("SELECT COUNT(*) FROM t"))
    await asyncio.sleep(0.2)
    global forgotten
    forgotten = await turso.aio.connect(path)

threading.Thread(target=lambda: asyncio.run(main())).start()
"""
    assert ended(run(program, tmp_path / "a.db", "")) == (0, "[(0,)]\n", "")


def test_ctrl_c_breaks_a_page_fetch_and_the_program_ends_cleanly(
    slow: tuple[str, Proxy], tmp_path: Path
) -> None:
    program = """
async def main():
    async with turso.aio.sync.connect(path, url, partial_sync_opts=opts) as conn:
        print("connected", flush=True)
        await asyncio.sleep(0.3)
        try:
            await conn.execute("SELECT COUNT(*) FROM messages")
        finally:
            print(await conn.execute_fetchall("SELECT 1"), flush=True)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    url, proxy = slow
    process = run(program, tmp_path / "a.db", url)
    assert process.stdout is not None
    assert process.stdout.readline() == "connected\n"
    proxy.delay = 20
    proxy.waiting.clear()
    assert proxy.waiting.wait(10)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == (0, "[(1,)]\ninterrupted\n", "")
    assert time.monotonic() - began < 10


def test_a_child_process_cannot_use_the_connection_of_its_parent(tmp_path: Path) -> None:
    program = """
import os

async def open():
    return await turso.aio.connect(path)

async def use():
    print(await conn.execute_fetchall("SELECT 1"), flush=True)

async def use_another():
    async with turso.aio.connect(path + ".own") as own:
        print(await own.execute_fetchall("SELECT 2"), flush=True)

conn = asyncio.run(open())
child = os.fork()
if child == 0:
    try:
        asyncio.run(use())
    except turso.ProgrammingError as error:
        asyncio.run(use_another())
else:
    os.waitpid(child, 0)
    asyncio.run(use())
"""
    assert ended(run(program, tmp_path / "a.db", ""))[:2] == (0, "[(2,)]\n[(1,)]\n")


@pytest.mark.parametrize(
    ("example", "last"),
    [
        ("aio_prefix", r"\d+ of (\d+) pages are here, after \d+ requests"),
        ("aio_push_and_pull", r"\[\('u_123', 'from my laptop'\)\]"),
    ],
)
def test_examples(example: str, last: str, url: str, tmp_path: Path) -> None:
    program = Path(__file__).parents[3] / "examples/python" / f"{example}.py"
    result = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env={**os.environ, "TURSO_DATABASE_URL": url, "TURSO_AUTH_TOKEN": "a-token"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(last, result.stdout.splitlines()[-1])
