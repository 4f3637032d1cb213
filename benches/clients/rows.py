"""Times what a Python program pays for rows: prints JSON with milliseconds of every repetition, and a checksum.

rows.py PACKAGE FILE REPETITIONS, where PACKAGE has a `connect` as DB-API 2.0 wants it: turso (ours or pyturso, whichever
is installed) or sqlite3.
"""

import importlib
import json
import sys
import time

package, file, repetitions = sys.argv[1], sys.argv[2], int(sys.argv[3])
ROWS, LOOKUPS = 100_000, 10_000
connection = importlib.import_module(package).connect(file)


def bulk():
    rows = connection.execute("SELECT id, name, population, area FROM places").fetchall()
    assert len(rows) == ROWS
    return sum(row[2] for row in rows)


def single():
    total = 0
    for i in range(1, LOOKUPS + 1):
        key = i * 7919 % ROWS + 1
        row = connection.execute("SELECT name, population, area FROM places WHERE id = ?", (key,)).fetchone()
        total += row[1]
    return total


def timed(work):
    check, times = work(), []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return {"check": check, "times": times}


print(json.dumps({"bulk": timed(bulk), "single": timed(single)}))
connection.close()
