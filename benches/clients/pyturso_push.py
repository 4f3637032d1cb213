"""Makes rows in a new replica of pyturso, says "ready", waits for a line of input, pushes, and prints the seconds it took.

pyturso_push.py PATH URL TRANSACTIONS ROWS
"""

import random
import sys
import time

import turso.sync

path, url, transactions, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
words = random.Random(1)
connection = turso.sync.connect(path, url)
for _ in range(transactions):
    for _ in range(rows):
        body = " ".join("".join(words.choices(("ka", "lo", "ri", "ten", "mar", "sho"), k=3)) for _ in range(26))
        connection.execute("INSERT INTO t(k, body) VALUES (?, ?)", (words.randrange(1 << 32), body))
    connection.commit()
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
connection.push()
print(time.perf_counter() - start, flush=True)
