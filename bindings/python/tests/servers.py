"""The server under test, databases for it, and a proxy between the two that is slow or fails."""

from __future__ import annotations

import http.client
import http.server
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

PROGRAM = os.environ.get("PARTIAL_SYNC", str(Path(__file__).parents[3] / "target/debug/partial-sync"))
MESSAGES = 20_000
USERS = 300


def make_messages(path: Path, messages: int = MESSAGES) -> None:
    """A database of a few hundred pages, with the table of the documentation's examples."""
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, user_id TEXT, text TEXT)")
        conn.executemany(
            "INSERT INTO messages(user_id, text) VALUES (?, ?)",
            ((f"u_{i % USERS}", f"message {i} ".ljust(80, ".")) for i in range(messages)),
        )
        conn.execute("CREATE INDEX messages_user ON messages(user_id)")
    conn.close()


@contextmanager
def serve(path: Path, *arguments: str) -> Iterator[str]:
    """Serves a database file; gives the url."""
    process = subprocess.Popen(
        [PROGRAM, "serve", str(path), "--listen", "127.0.0.1:0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), line
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Proxy:
    """Passes requests on to a server. ``delay`` seconds before each answer; ``fail``: 503 instead of an
    answer.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.delay = 0.0
        self.fail = False
        self.requests = 0
        self.authorizations: list[str | None] = []
        self.header_names: set[str] = set()
        self.waiting = threading.Event()
        self._stopped = threading.Event()

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests += 1
                proxy.authorizations.append(self.headers.get("Authorization"))
                proxy.header_names.update(self.headers.keys())
                proxy.waiting.set()
                deadline = time.monotonic() + proxy.delay
                while time.monotonic() < deadline and not proxy._stopped.wait(0.02):
                    pass
                if proxy.fail:
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection(str(proxy.upstream.netloc))
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                upstream.close()

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def proxied(upstream: str) -> Iterator[tuple[str, Proxy]]:
    """A proxy in front of a server: its url, and what controls it."""
    proxy = Proxy(upstream)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), proxy.handler())
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", proxy
    finally:
        proxy._stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)
