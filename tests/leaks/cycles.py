"""Opens a replica, asks it and closes it, again and again; prints resident memory (KiB), open descriptors and threads as it goes. By turns
it also leaves behind what programs leave behind: objects whose methods the connection calls, iterators that nobody reads to the
end, tasks that are cancelled in the middle of a query or of a page fetch, threads that end in the middle of a page fetch.

cycles.py PATH URL CYCLES
"""

import asyncio
import gc
import http.client
import http.server
import os
import queue
import sys
import threading
import urllib.parse

import turso.aio.sync
import turso.sync

path, url, cycles = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = {
    "partial_sync_opts": turso.sync.PartialSyncOpts(
        bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=4096)
    )
}
SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def held():
    gc.collect()
    with open("/proc/self/status") as status:
        said = dict(line.split(":", 1) for line in status)
    return said["VmRSS"].split()[0], len(os.listdir("/proc/self/fd")), int(said["Threads"])


def opened_and_closed():
    connection = turso.sync.connect(path, url, **options)
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1000,)
    connection.close()


class Service:
    """Its connection calls its methods. Nobody closes it."""

    def __init__(self):
        self.connection = turso.sync.connect(
            path, self.url, auth_token=self.token, transform=self.transform, **options
        )
        self.connection.create_function("f", 0, self.function)
        self.connection.create_collation("c", self.order)
        self.connection.set_trace_callback(self.trace)
        self.connection.row_factory = self.row

    def url(self):
        return url

    def token(self):
        return None

    def transform(self, mutation):
        return None

    def function(self):
        return 1

    def order(self, a, b):
        return 0

    def trace(self, sql):
        pass

    def row(self, cursor, row):
        return row


def methods():
    assert Service().connection.execute("SELECT f()").fetchone() == (1,)
    gc.collect()


def iterators():
    connection = turso.sync.connect(path, url, **options)
    for sql in ("SELECT id, v FROM t", "SELECT v FROM t ORDER BY v"):
        rows = iter(connection.execute(sql))
        next(rows)
        for _ in connection.execute(sql):
            break
    del connection


async def cancelled():
    async with turso.aio.sync.connect(path, url, **options) as connection:
        task = asyncio.create_task(connection.execute_fetchall(SLOW))
        await asyncio.sleep(0.002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        rows = await connection.execute("SELECT id FROM t")
        await rows.fetchone()
        async for _ in await connection.execute("SELECT id FROM t"):
            break


class InFront(http.server.BaseHTTPRequestHandler):
    """In front of the remote; does not answer a request whose token says so."""

    protocol_version = "HTTP/1.1"
    hushed: queue.SimpleQueue = queue.SimpleQueue()

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") == "Bearer hush":
            self.hushed.put(self.path)
            self.connection.recv(1)
            self.close_connection = True
            return
        upstream = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
        headers = {name: self.headers[name] for name in self.headers if name.lower() not in ("host", "connection")}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), InFront)
proxy.daemon_threads = True
threading.Thread(target=proxy.serve_forever, daemon=True).start()


class Waiter:
    """Its query waits for a page: for the answer, or the function that gives the token raises."""

    url = f"http://127.0.0.1:{proxy.server_address[1]}"
    raises = False
    token = None

    def next_token(self):
        if self.raises:
            raise SystemExit
        return self.token

    def connect(self, module):
        return module.connect(":memory:", self.url, auth_token=self.next_token, **options)

    def fetch(self, connection):
        try:
            connection.execute("SELECT count(*) FROM t").fetchone()
        except turso.Error as error:
            assert isinstance(error.__cause__, SystemExit) == self.raises, error
            raise SystemExit from error
        raise AssertionError("the fetch was not broken off")


def threads():
    for raises in (False, True):
        waiter = Waiter()
        connection = waiter.connect(turso.sync)
        waiter.raises, waiter.token = raises, "hush"
        thread = threading.Thread(target=waiter.fetch, args=(connection,))
        thread.start()
        if not raises:
            InFront.hushed.get()
            connection.interrupt()
        thread.join()


async def cancelled_fetch():
    waiter = Waiter()
    async with waiter.connect(turso.aio.sync) as connection:
        waiter.token = "hush"
        task = asyncio.create_task(connection.execute_fetchall("SELECT count(*) FROM t"))
        await asyncio.to_thread(InFront.hushed.get)
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


kinds = [
    opened_and_closed,
    methods,
    iterators,
    threads,
    lambda: asyncio.run(cancelled()),
    lambda: asyncio.run(cancelled_fetch()),
]
for cycle in range(1, cycles + 1):
    kinds[cycle % len(kinds)]()
    if cycle % (cycles // 10) == 0:
        print(cycle, *held(), flush=True)
