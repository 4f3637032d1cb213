"""Opens a replica, asks it and closes it, again and again; prints resident memory (KiB) as it goes. By turns it also leaves
behind what programs leave behind: objects whose methods the connection calls, iterators that nobody reads to the end, tasks that
are cancelled, threads that end in the middle of a fetch.

cycles.py PATH URL CYCLES
"""

import asyncio
import gc
import sys
import threading

import turso.aio.sync
import turso.sync

path, url, cycles = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = {
    "partial_sync_opts": turso.sync.PartialSyncOpts(
        bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=4096)
    )
}
SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def resident():
    gc.collect()
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("VmRSS:"))


def opened_and_closed():
    connection = turso.sync.connect(path, url, **options)
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1000,)
    connection.close()


class Service:
    """Its connection calls its methods. Nobody closes it."""

    def __init__(self):
        self.connection = turso.sync.connect(path, url, auth_token=self.token, transform=self.transform, **options)
        self.connection.create_function("f", 0, self.function)
        self.connection.create_collation("c", self.order)
        self.connection.set_trace_callback(self.trace)
        self.connection.row_factory = self.row

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


def threads():
    connection = turso.sync.connect(path, url, **options)

    def fetch():
        cursor = connection.execute("SELECT id, v FROM t")
        cursor.fetchmany(3)

    workers = [threading.Thread(target=fetch) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    connection.close()


kinds = [opened_and_closed, methods, opened_and_closed, iterators, threads, lambda: asyncio.run(cancelled())]
for cycle in range(1, cycles + 1):
    kinds[cycle % len(kinds)]()
    if cycle % (cycles // 10) == 0:
        print(cycle, resident(), flush=True)
