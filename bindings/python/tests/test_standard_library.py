"""CPython's own tests of sqlite3, run with turso in its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.takes(180)

PROGRAM = Path(__file__).parent / "standard_library.py"


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="what is expected to fail is listed for Python 3.11"
)
def test_the_tests_of_the_standard_library_pass(tmp_path: Path) -> None:
    pytest.importorskip("test.test_sqlite3", reason="this Python was installed without its own tests")
    done = subprocess.run([sys.executable, PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-2]) > 290
