"""Measures pyturso for `scripts/bench size` and prints JSON: lists of numbers by what was measured.

pyturso_size.py open|work URL PATH FILE, where PATH is the replica, which is made whole if it is not there, and FILE the database
of the remote.
"""

import json
import sqlite3
import sys
import time

import turso.sync

ROUNDS = 21
mode, url, path, file = sys.argv[1:]


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def milliseconds(since):
    return (time.perf_counter() - since) * 1000


numbers = {}
before = resident()
begun = time.perf_counter()
replica = turso.sync.connect(path, url)
numbers["open_ms"] = [milliseconds(begun)]
numbers["open_mb"] = [(resident() - before) * 1024 / 1e6]
if mode == "work":
    numbers = {"pull_ms": [], "pull_cpu": []}
    remote = sqlite3.connect(file)
    for number in range(ROUNDS):
        new = f"theirs, for pyturso {number}"
        remote.execute("UPDATE t SET v = ? WHERE id = 7", (new,))
        remote.commit()
        begun, processor = time.perf_counter(), time.process_time()
        replica.pull()
        numbers["pull_ms"].append(milliseconds(begun))
        time.sleep(0.02)
        numbers["pull_cpu"].append((time.process_time() - processor) * 1000)
        assert replica.execute("SELECT v FROM t WHERE id = 7").fetchone() == (new,)
replica.close()
print(json.dumps(numbers))
