"""Asks one question through a new replica of pyturso and prints, as JSON, the rows and the seconds that it took.

pyturso_cold.py PATH URL SQL [PREFIX SEGMENT PREFETCH]; without the last three everything is downloaded first.
"""

import json
import sys
import time

import turso.sync
from turso.sync import PartialSyncOpts, PartialSyncPrefixBootstrap

path, url, sql, *partial = sys.argv[1:]
options = {}
if partial:
    prefix, segment, prefetch = map(int, partial)
    strategy = PartialSyncPrefixBootstrap(length=prefix)
    options["partial_sync_experimental"] = PartialSyncOpts(strategy, segment_size=segment, prefetch=bool(prefetch))
start = time.perf_counter()
connection = turso.sync.connect(path, url, **options)
connected = time.perf_counter()
rows = connection.execute(sql).fetchall()
end = time.perf_counter()
shown = [["NULL" if value is None else str(value) for value in row] for row in rows]
print(json.dumps({"rows": shown, "connect": connected - start, "total": end - start}))
