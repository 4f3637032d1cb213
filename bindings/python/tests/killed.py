"""A process that commits, says so, and is killed right then; what it said must be there.

    python tests/killed.py COUNT     kills so many
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import turso
import turso.sync

WRITER = """
import sys, turso, turso.sync
path, url, first, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
conn = turso.sync.connect(path, url) if url else turso.connect(path)
conn.execute("PRAGMA synchronous = FULL")
if how == "autocommit":
    conn.isolation_level = None
number = first
while True:
    if how == "commit":
        conn.execute("INSERT INTO t VALUES (?)", (number,))
        conn.commit()
    elif how == "with":
        with conn:
            conn.executemany("INSERT INTO t VALUES (?)", [(number,)])
    elif how == "script":
        conn.executescript(f"BEGIN; INSERT INTO t VALUES ({number}); COMMIT")
    elif how == "returning":
        conn.isolation_level = None
        assert conn.execute("INSERT INTO t VALUES (?) RETURNING a", (number,)).fetchone() == (number,)
    elif how == "batch":
        conn.batch([("INSERT INTO t VALUES (?)", (number,))], "immediate")
    else:
        conn.execute("INSERT INTO t VALUES (?)", (number,))
    print(number, flush=True)
    number += 1
"""
WAYS = ["commit", "with", "autocommit", "script", "returning", "batch"]


def kill(path: Path, url: str | None, way: str, first: int, told: int) -> int:
    """Lets a process write from `first` on, kills it once it has told of so many commits, and gives what was written last."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), url or "", str(first), way], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    last = first - 1
    for _ in range(told):
        last = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    # It may have told of more by then.
    for line in process.stdout:
        if line.endswith("\n"):
            last = int(line)
    process.wait()
    process.stdout.close()
    conn = turso.sync.connect(path, url) if url else turso.connect(path)
    numbers = [number for (number,) in conn.execute("SELECT a FROM t ORDER BY a")]
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    if isinstance(conn, turso.sync.ConnectionSync):
        conn.push()
    conn.close()
    # One more may be there, of which it could not tell.
    assert numbers in (list(range(1, last + 1)), list(range(1, last + 2))), (way, last, numbers[-5:])
    return numbers[-1] if numbers else 0


def kills(folder: Path, url: str | None, count: int) -> None:
    """Kills so many processes, one after the other, that write to one database."""
    path = folder / ("replica.db" if url else "local.db")
    conn = turso.sync.connect(path, url) if url else turso.connect(path)
    conn.executescript("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    if not url:
        conn.execute("PRAGMA journal_mode = WAL")
    conn.close()
    last = 0
    for i in range(count):
        last = kill(path, url, WAYS[i % len(WAYS)], last + 1, 1 + i % 3)


def main() -> None:
    from servers import serve

    count = int(sys.argv[1])
    folder = Path(tempfile.mkdtemp())
    try:
        kills(folder, None, count // 2)
        with serve(folder / "remote.db") as url:
            kills(folder, url, count - count // 2)
            other = turso.sync.connect(":memory:", url)
            print(f"killed {count} times; {other.execute('SELECT COUNT(*) FROM t').fetchone()[0]} rows at the remote")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
