#!/usr/bin/env python3
"""Runs programs that this project did not write against its server, and says line by line what works.

    tests/interop/run.py                     # this project's server, target/debug/partial-sync
    tests/interop/run.py --server tursodb    # the same checks against their own server: what fails there too is not ours
    tests/interop/run.py --through           # the same, of either, through `partial-sync serve --from` in front of it
    tests/interop/run.py --only node         # one client: node, python, libsql, or beside (ours next to theirs)

Installs the pinned clients into node_modules and .venv beside this file when they are missing. Every wait has a
deadline; every process started here is stopped here, by its own handle. Must never touch a database outside its
scratch folder. Exit status 0: every check passed.
"""

import argparse
import contextlib
import json
import os
import pathlib
import queue
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PYTHON = HERE / ".venv" / "bin" / "python"
CLIENTS = {
    "node": ["node", "node_client.mjs"],
    "python": [str(PYTHON), "python_client.py"],
    "libsql": ["node", "libsql_client.mjs"],
    "beside": [str(PYTHON), "beside.py"],
}
TOKEN = "interop-token"
START_S = 30
CLIENT_S = 300
STOP_S = 15

# Made of what every client knows, so that the clients and not the schema are tested. About 200 pages.
SCHEMA = [
    "CREATE TABLE item(id INTEGER PRIMARY KEY, body TEXT, score INTEGER)",
    "CREATE INDEX item_score ON item(score)",
]
ITEMS = 1500


def item(number):
    word = (number * 2654435761) % 2**32
    return number, f"{word:08x}" * 60, (number * 7) % 4207


class Failure(Exception):
    """Something that makes the run impossible; its text says what to do."""


def install():
    if not (HERE / "node_modules" / "turso").is_dir():
        print("installing the npm packages of package-lock.json", flush=True)
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, check=True, timeout=600)
    if not PYTHON.exists():
        print("installing the Python packages of requirements.txt", flush=True)
        subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=HERE, check=True, timeout=300)
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"]
        subprocess.run(pip, cwd=HERE, check=True, timeout=600)


class Process:
    """A server in the background: its output is kept, and it is stopped when the block ends. `crash`: by SIGKILL."""

    def __init__(self, command, log, crash=False):
        self.command, self.log, self.crash = [str(part) for part in command], log, crash
        self.lines = queue.Queue()

    def __enter__(self):
        self.child = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self.drain, daemon=True).start()
        return self

    def drain(self):
        with open(self.log, "a", encoding="utf-8") as log:
            for line in self.child.stdout:
                log.write(line)
                log.flush()
                self.lines.put(line)
        self.lines.put(None)

    def wait_for(self, pattern):
        """The first line that matches."""
        end = time.monotonic() + START_S
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise Failure(f"{self.command} did not say {pattern!r} within {START_S} s; see {self.log}") from None
            if line is None:
                raise Failure(f"{self.command} ended before it said {pattern!r}:\n{self.log.read_text()[-2000:]}")
            if found := re.search(pattern, line):
                return found

    def wait_for_port(self, port):
        end = time.monotonic() + START_S
        while self.child.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise Failure(f"{self.command} does not listen:\n{self.log.read_text()[-2000:]}")

    def __exit__(self, *_):
        if self.crash:
            self.child.kill()
        else:
            self.child.terminate()
        try:
            self.child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            print(f"FAIL server: did not stop within {STOP_S} s of SIGTERM", flush=True)


def seed_file(path):
    """A plain SQLite file, made by SQLite itself: our server serves it as it is."""
    with sqlite3.connect(path) as database:
        for statement in SCHEMA:
            database.execute(statement)
        database.executemany("INSERT INTO item VALUES (?, ?, ?)", map(item, range(1, ITEMS + 1)))
    database.close()


def seed_over_http(url):
    """Fills a database through `/v2/pipeline`: tursodb serves only what was written through itself."""
    statements = [{"sql": sql, "args": []} for sql in ["BEGIN", *SCHEMA]]
    for number in range(1, ITEMS + 1):
        ident, body, score = item(number)
        values = [("integer", str(ident)), ("text", body), ("integer", str(score))]
        args = [{"type": kind, "value": value} for kind, value in values]
        statements.append({"sql": "INSERT INTO item VALUES (?, ?, ?)", "args": args})
    statements.append({"sql": "COMMIT", "args": []})
    steps = [{"condition": None, "stmt": {**statement, "want_rows": False}} for statement in statements]
    body = json.dumps({"baton": None, "requests": [{"type": "batch", "batch": {"steps": steps}}]}).encode()
    request = urllib.request.Request(url + "/v2/pipeline", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=START_S) as response:
        errors = [e for e in json.load(response)["results"][0]["response"]["result"]["step_errors"] if e]
    if errors:
        raise Failure(f"could not fill {url}: {errors[:3]}")


def run_client(name, url, empty_url, scratch, server, phase, binary, file=""):
    """Runs one client to its end; its lines are the report."""
    replicas = scratch / "replicas" / name
    replicas.mkdir(parents=True, exist_ok=True)
    command = CLIENTS[name] + ["--url", url, "--empty-url", empty_url, "--dir", str(replicas)]
    command += ["--server", server, "--phase", phase]
    if server == "ours":
        command += ["--token", TOKEN]
    if file and name == "python":
        command += ["--file", str(file)]
    if name == "beside":
        command += ["--binary", str(binary)]
    environment = {**os.environ, "RUST_BACKTRACE": "0"}
    child = subprocess.Popen(command, cwd=HERE, stdin=subprocess.DEVNULL, env=environment)
    try:
        status = child.wait(CLIENT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        print(f"FAIL {name}: did not end within {CLIENT_S} s", flush=True)
        return False
    if status not in (0, 1):
        print(f"FAIL {name}: the client died with status {status}", flush=True)
    return status == 0


def through(binary, url, scratch, *more):
    """A server of this project in front of a remote; to be entered."""
    command = [binary, "serve", "--from", url, "--listen", "127.0.0.1:0", *more]
    return Process(command, scratch / "through.log")


def listening(server):
    return server.wait_for(r"listening on (http://\S+)")[1].rstrip("/")


def against_ours(names, binary, scratch, is_through):
    served = scratch / "served"
    served.mkdir()
    for name in names:
        seed_file(served / f"{name}.db")
        sqlite3.connect(served / f"{name}-empty.db").close()
        (served / f"{name}-empty.db").touch()
    passed = True
    listen = "127.0.0.1:0"
    # Ends in order after the first phase, is killed after the second, and has to continue after both.
    for phase, crash in (("first", False), ("reopened", True), ("reopened", False)):
        command = [binary, "serve", served, "--listen", listen, "--auth-token", TOKEN]
        with Process(command, scratch / "server.log", crash) as server, contextlib.ExitStack() as stack:
            base = listening(server)
            listen = base.removeprefix("http://")
            if is_through:
                own = scratch / "own-token"
                own.write_text(TOKEN)
                more = ["--auth-token", TOKEN, "--origin-token-file", own]
                between = stack.enter_context(through(binary, base, scratch, *more))
                base = listening(between)
            for name in names:
                if phase == "reopened" and name not in ("node", "python"):
                    continue
                file = served / f"{name}.db"
                urls = (f"{base}/{name}", f"{base}/{name}-empty")
                passed &= run_client(name, *urls, scratch, "ours", phase, binary, file)
    for name in names:
        passed &= intact(served / f"{name}.db") and intact(served / f"{name}-empty.db")
    return passed


def intact(file):
    """What is left must be an ordinary SQLite file that SQLite calls whole."""
    with sqlite3.connect(file) as database:
        answer = database.execute("PRAGMA integrity_check").fetchone()[0]
    database.close()
    print(f"{'ok  ' if answer == 'ok' else 'FAIL'} server: integrity_check of {file.name}: {answer}", flush=True)
    return answer == "ok"


def against_tursodb(names, binary, scratch, is_through):
    path = subprocess.run([HERE / "tursodb_path.sh"], capture_output=True, text=True, check=True, timeout=600)
    served = scratch / "served"
    served.mkdir()
    passed = True
    for name in names:
        urls, processes = [], []
        try:
            for database in (name, f"{name}-empty"):
                with socket.socket() as probe:  # tursodb does not say which port it took
                    probe.bind(("127.0.0.1", 0))
                    port = probe.getsockname()[1]
                command = [path.stdout.strip(), "--sync-server", f"127.0.0.1:{port}", served / f"{database}.db"]
                processes.append(Process(command, scratch / "server.log").__enter__())
                processes[-1].wait_for_port(port)
                urls.append(f"http://127.0.0.1:{port}")
            seed_over_http(urls[0])
            if is_through:
                for at, url in enumerate(urls):
                    processes.append(through(binary, url, scratch).__enter__())
                    urls[at] = listening(processes[-1])
            passed &= run_client(name, *urls, scratch, "tursodb", "first", binary)
        finally:
            for process in reversed(processes):
                process.__exit__()
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", choices=("ours", "tursodb"), default="ours")
    parser.add_argument("--through", action="store_true", help="through a server in front of it")
    parser.add_argument("--only", choices=sorted(CLIENTS), action="append")
    default = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "partial-sync"
    parser.add_argument("--binary", type=pathlib.Path, default=default)
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder")
    options = parser.parse_args()
    # tursodb answers only two request kinds of the pipeline and no batons: nothing for a Hrana client to do.
    names = options.only or [name for name in CLIENTS if options.server == "ours" or name != "libsql"]
    names = [name for name in names if name != "libsql" or (HERE / "libsql_client.mjs").exists()]
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="partial-sync-interop-"))
    passed = False
    try:
        install()
        if not options.binary.exists():
            raise Failure(f"{options.binary} is missing: build it with `cargo build -p partial-sync-cli`")
        against = against_ours if options.server == "ours" else against_tursodb
        passed = against(names, options.binary, scratch, options.through)
    except (Failure, subprocess.SubprocessError) as failure:
        print(f"FAIL interop: {failure}", flush=True)
    finally:
        if passed and not options.keep:
            shutil.rmtree(scratch, ignore_errors=True)
        else:
            print(f"scratch folder: {scratch}", flush=True)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
