"""The `partial-sync` program and `pyturso` as clients of one remote: each sees what the other pushed, no matter who serves.

Run by run.py, which says what the arguments mean. Must never read a replica's files: only what the programs say counts.
"""

import argparse
import json
import subprocess

import python_client
from python_client import DEADLINE_S, FINGERPRINT, check, equal, prefix, remote, replica, rows, write


class OurReplica:
    """A replica of the `partial-sync` program; every call is a process of its own."""

    def __init__(self, name, *bootstrap, url=None):
        self.path = f"{OPTIONS.dir}/beside-{name}.db"
        self.first = ["--url", url or OPTIONS.url, *bootstrap]
        if OPTIONS.token:
            self.first += ["--auth-token", OPTIONS.token]

    def run(self, command, *arguments):
        program = [OPTIONS.binary, command, self.path, *arguments]
        if OPTIONS.token and "--auth-token" not in program:
            program += ["--auth-token", OPTIONS.token]
        done = subprocess.run(program, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == 0, f"{command} {arguments}: {done.stdout} {done.stderr}"
        return done.stdout

    def rows(self, sql):
        first, self.first = self.first, []
        answer = self.run("query", sql, "--json", *first)
        return [tuple(row.values()) for row in json.loads(answer)] if answer.strip() else []


@check()
def both_push():
    """each kind of client sees what the other pushed"""
    ours, theirs = OurReplica("both", "--bootstrap-prefix", "64k"), replica("both")
    equal(ours.rows(FINGERPRINT), remote(FINGERPRINT))
    ours.rows("INSERT INTO item(id, body, score) VALUES (100000, 'ours', 1)")
    ours.rows("UPDATE item SET body = 'changed by ours' WHERE id = 10")
    write(theirs, "INSERT INTO item(id, body, score) VALUES (100001, 'theirs', 1)", "DELETE FROM item WHERE id = 11")
    ours.run("push")
    theirs.push()
    theirs.pull()
    ours.run("pull")
    sql = "SELECT id, body FROM item WHERE id IN (10, 11, 100000, 100001) ORDER BY id"
    expected = [(10, "changed by ours"), (100000, "ours"), (100001, "theirs")]
    for seen in (ours.rows(sql), rows(theirs, sql), remote(sql)):
        equal(seen, expected)
    equal(len(remote("SELECT client_id FROM turso_sync_last_change_id")), 2)
    equal(ours.rows("PRAGMA integrity_check"), [("ok",)])
    equal(ours.rows(FINGERPRINT), remote(FINGERPRINT))


@check()
def last_push_wins():
    """the last push wins, whichever client it comes from"""
    ours, theirs = OurReplica("last", "--bootstrap-prefix", "4k", "--segment-size", "4k"), replica("last")
    sql = "SELECT id, body FROM item WHERE id IN (20, 21) ORDER BY id"
    equal(ours.rows(sql), remote(sql))
    ours.rows("UPDATE item SET body = 'ours' WHERE id IN (20, 21)")
    write(theirs, "UPDATE item SET body = 'theirs' WHERE id = 20")
    ours.run("push")
    theirs.push()
    write(theirs, "UPDATE item SET body = 'theirs' WHERE id = 21")
    theirs.push()
    ours.rows("UPDATE item SET body = 'ours again' WHERE id = 21")
    ours.run("push")
    ours.run("pull")
    theirs.pull()
    for seen in (ours.rows(sql), rows(theirs, sql), remote(sql)):
        equal(seen, [(20, "theirs"), (21, "ours again")])


@check()
def unpushed():
    """unpushed changes of ours survive a pull of theirs, and are pushed once"""
    ours, theirs = OurReplica("unpushed"), replica("unpushed")
    ours.rows("CREATE TABLE tally(at TEXT)")
    ours.run("push")
    theirs.pull()
    ours.rows("INSERT INTO tally VALUES ('ours'), ('ours')")
    write(theirs, "INSERT INTO tally VALUES ('theirs')")
    theirs.push()
    ours.run("pull")
    equal(ours.rows("SELECT at FROM tally ORDER BY at"), [("ours",), ("ours",), ("theirs",)])
    ours.run("push")
    ours.run("push")
    ours.run("pull")
    theirs.pull()
    sql = "SELECT at FROM tally ORDER BY at"
    for seen in (ours.rows(sql), rows(theirs, sql), remote(sql)):
        equal(seen, [("ours",), ("ours",), ("theirs",)])


@check()
def schema():
    """tables and columns that one client makes are used by the other"""
    ours, theirs = OurReplica("schema", "--bootstrap-prefix", "64k"), replica("schema")
    equal(ours.rows("SELECT count(*) FROM item WHERE id <= 5"), [(5,)])
    write(theirs, "CREATE TABLE made(k TEXT PRIMARY KEY, v)", "CREATE INDEX made_v ON made(v)")
    write(theirs, "INSERT INTO made VALUES ('a', 1), ('b', NULL)")
    theirs.push()
    ours.run("pull")
    ours.rows("ALTER TABLE made ADD COLUMN note TEXT DEFAULT 'none'")
    ours.rows("INSERT INTO made(k, v, note) VALUES ('c', 2.5, 'ours')")
    ours.run("push")
    theirs.pull()
    sql = "SELECT k, v, note FROM made ORDER BY k"
    for seen in (ours.rows(sql), rows(theirs, sql), remote(sql)):
        equal(seen, [("a", 1, "none"), ("b", None, "none"), ("c", 2.5, "ours")])
    ours.run("pull")
    equal(ours.rows("PRAGMA integrity_check"), [("ok",)])


@check()
def empty():
    """a database that our program filled first is opened by theirs"""
    ours = OurReplica("empty", url=OPTIONS.empty_url)
    ours.rows("CREATE TABLE first(id INTEGER PRIMARY KEY, v TEXT)")
    ours.rows("INSERT INTO first VALUES (1, 'one')")
    ours.run("push")
    ours.run("pull")
    theirs = replica("empty", url=OPTIONS.empty_url, partial_sync_experimental=prefix(8192))
    for seen in (ours.rows("SELECT id, v FROM first"), rows(theirs, "SELECT id, v FROM first")):
        equal(seen, [(1, "one")])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--url", "--empty-url", "--dir", "--binary"):
        parser.add_argument(name, required=True)
    parser.add_argument("--token", default="")
    parser.add_argument("--server", choices=("ours", "tursodb"), required=True)
    parser.add_argument("--phase", choices=("first", "reopened"), default="first")
    OPTIONS = python_client.OPTIONS = parser.parse_args()
    python_client.CHECKS = [entry for entry in python_client.CHECKS if entry[1].__module__ == __name__]
    python_client.main("partial-sync beside pyturso")
