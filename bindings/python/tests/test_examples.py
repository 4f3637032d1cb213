"""The programs of examples/python, as they stand there."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import serve

pytestmark = pytest.mark.takes(90)

EXAMPLES = Path(__file__).parents[3] / "examples" / "python"


@pytest.fixture(scope="module")
def messages_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("examples") / "remote.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, user_id TEXT, body TEXT)")
        rows = ((i, f"u_{i % 200}", f"{i:080}") for i in range(1, 20_001))
        conn.executemany("INSERT INTO messages VALUES (?, ?, ?)", rows)
        conn.execute("CREATE INDEX messages_user ON messages (user_id)")
    conn.close()
    with serve(path) as url:
        yield url


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("prefix", ["32 of ", "15000", "after 2 requests"]),
        ("query", ["100 messages, ", "pages, 1 request"]),
        ("segment_size", ["segments of 16384 bytes: ", "segments of 131072 bytes: "]),
        ("prefetch", ["prefetch=False: 100 messages", "prefetch=True: 100 messages after 2 requests"]),
        (
            "push_and_pull",
            ["1 change is local", "0 changes are local", "on the phone: True", "('u_123', 'from my laptop')"],
        ),
    ],
)
def test_an_example_runs_as_it_stands(
    messages_url: str, tmp_path: Path, name: str, printed: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"],
        env={**os.environ, "TURSO_DATABASE_URL": messages_url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for words in printed:
        assert words in done.stdout, done.stdout
