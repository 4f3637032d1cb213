"""Times many rows at once in Python: prints, as JSON, the milliseconds of every round for each part of the work.

bulk.py PACKAGE FILE URL ROUNDS, where PACKAGE is sqlite3, or turso for a replica of the database at URL.
"""

import json
import sys
import time

package, file, url, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
ROWS, LOOKUPS, SCANS = 200_000, 50_000, 5
MAKE = "CREATE TABLE bulk(id INTEGER PRIMARY KEY, k INTEGER, body TEXT)"
if package == "sqlite3":
    import sqlite3

    connection = sqlite3.connect(file)
    connection.execute(MAKE)
else:
    import turso.sync

    connection = turso.sync.connect(file, url)
for setting in ("journal_mode = WAL", "synchronous = NORMAL"):
    try:
        connection.execute("PRAGMA " + setting).fetchall()
    except Exception as error:  # what it does not know it has as its default
        print(setting, error, file=sys.stderr)


def insert():
    body = "a text of an ordinary length, as a message or a note has it"
    connection.executemany("INSERT INTO bulk VALUES (?, ?, ?)", [(i, i * 7, body) for i in range(1, ROWS + 1)])
    connection.commit()


def update():
    connection.execute("UPDATE bulk SET k = k + 1")
    connection.commit()


def points():
    for i in range(LOOKUPS):
        key = i * 7919 % ROWS + 1
        connection.execute("SELECT id + length(body) FROM bulk WHERE id = ?", (key,)).fetchone()


def points_in_one_transaction():
    connection.execute("BEGIN")
    points()
    connection.commit()


def scans():
    for _ in range(SCANS):
        connection.execute("SELECT sum(length(body)) FROM bulk").fetchone()


def fetch():
    assert len(connection.execute("SELECT id, k, body FROM bulk").fetchall()) == ROWS


parts = (insert, update, points, points_in_one_transaction, scans, fetch)
times = [[] for _ in parts]
for number in range(rounds + 1):
    connection.execute("DELETE FROM bulk")
    connection.commit()
    for part, taken in zip(parts, times):
        start = time.perf_counter()
        part()
        if number > 0:
            taken.append((time.perf_counter() - start) * 1000)
print(json.dumps(times))
connection.close()
