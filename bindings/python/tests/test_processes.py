"""Forks, the file system, and memory."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

import turso
import turso.sync

pytestmark = pytest.mark.takes(600)

FORK = """
import os, sys, turso, turso.sync
path, url = sys.argv[1:]
local = turso.connect(path + ".local")
local.execute("CREATE TABLE t(a)")
local.commit()
replica = turso.sync.connect(path, url)
cursor = replica.execute("SELECT id FROM messages")
child = os.fork()
if child == 0:
    for call in (lambda: local.execute("SELECT 1"), cursor.fetchone, replica.pull, replica.close,
    local.commit):
        try:
            call()
            os._exit(1)
        except turso.ProgrammingError as error:
            if "os.fork" not in str(error):
                os._exit(2)
    # The parent has both open: SQLite's locks on them are the parent's, so what the child wrote could be lost.
    for connect in (
        lambda: turso.sync.connect(path, remote_url=url),
        lambda: turso.sync.connect(path),
        lambda: turso.connect(path + ".local"),
    ):
        try:
            connect()
            os._exit(3)
        except turso.Error as error:
            if "fork" not in str(error):
                os._exit(4)
    del cursor, replica
    own = turso.connect(path + ".own")
    own.execute("CREATE TABLE t(a)")
    own.execute("INSERT INTO t VALUES (1)")
    own.commit()
    own.close()
    del local
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert len(cursor.fetchall()) == 20_000
assert replica.pull() is False
replica.execute("DELETE FROM messages WHERE id = 1")
replica.commit()
replica.push()
local.execute("INSERT INTO t VALUES (2)")
local.commit()
own = turso.connect(path + ".own")
print(status, local.execute("SELECT a FROM t").fetchall(), own.execute("SELECT a FROM t").fetchall())
"""


def test_b7_a_child_process_is_told_to_open_its_own_connection_and_refused_its_parents_files(url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path / "a.db"), url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "0 [(2,)] [(1,)]\n", done.stderr


def test_a_memory_replica_needs_no_file_system(shared_url: str, tmp_path: Path) -> None:
    code = f"""
import turso.sync
conn = turso.sync.connect(":memory:", {shared_url!r}, partial_sync_opts=turso.sync.PartialSyncOpts(
    turso.sync.PartialSyncPrefixBootstrap(4096)))
conn.execute("INSERT INTO messages(user_id, text) VALUES ('me', 'x')")
conn.commit()
print(conn.execute("SELECT COUNT(*) FROM messages").fetchone())
conn.checkpoint()
conn.close()
"""
    tmp_path.chmod(0o555)
    command = [sys.executable, "-c", code]
    if os.geteuid() == 0:
        # Root writes where nobody may; a mount that is read-only it respects.
        mount = f'mount -t tmpfs -o ro none {tmp_path} && cd {tmp_path} && exec "$@"'
        unshared = ["unshare", "-m", "sh", "-c", mount, "sh"]
        if subprocess.run([*unshared, "true"], capture_output=True).returncode == 0:
            command = [*unshared, *command]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    tmp_path.chmod(0o755)
    assert done.stdout == "(20001,)\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_an_operational_error(tmp_path: Path, shared_url: str) -> None:
    with pytest.raises(turso.OperationalError):
        turso.sync.connect(tmp_path / "not here" / "a.db", shared_url)
    with pytest.raises(turso.OperationalError, match="unable to open|could not"):
        turso.connect(tmp_path / "not here" / "a.db")


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    pytest.skip("there is no /proc here")


def test_opening_querying_and_closing_again_and_again_keeps_memory_flat(url: str, tmp_path: Path) -> None:
    def cycle() -> None:
        conn = turso.sync.connect(tmp_path / "a.db", url)
        conn.row_factory = turso.Row
        assert len(conn.execute("SELECT * FROM messages WHERE id < ?", (100,)).fetchall()) == 99
        with pytest.raises(turso.OperationalError):
            conn.execute("nonsense")
        unfinished = conn.execute("SELECT * FROM messages")
        assert unfinished.fetchone()
        conn.close()

    for _ in range(100):
        cycle()
    gc.collect()
    before = _resident()
    for _ in range(300):
        cycle()
    gc.collect()
    assert _resident() - before < 4_000, "KiB"


def test_a_connection_in_a_cycle_is_collected() -> None:
    class Mine(turso.Connection):
        pass

    conn = turso.connect(":memory:", factory=Mine)
    conn.row_factory = lambda cursor, row: (conn, row)
    gone = weakref.ref(conn)
    cursor = conn.execute("SELECT 1")
    cursor.row_factory = conn.row_factory
    del conn, cursor
    gc.collect()
    assert gone() is None
