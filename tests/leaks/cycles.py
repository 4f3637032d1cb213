"""Opens a replica, asks it and closes it, again and again; prints resident memory (KiB) as it goes.

cycles.py PATH URL CYCLES
"""

import gc
import sys

import turso.sync

path, url, cycles = sys.argv[1], sys.argv[2], int(sys.argv[3])


def resident():
    gc.collect()
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("VmRSS:"))


for cycle in range(1, cycles + 1):
    connection = turso.sync.connect(path, url, partial_sync_opts=turso.sync.PartialSyncOpts(
        bootstrap_strategy=turso.sync.PartialSyncPrefixBootstrap(length=4096)))
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1000,)
    connection.close()
    if cycle % (cycles // 10) == 0:
        print(cycle, resident(), flush=True)
