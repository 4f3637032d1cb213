"""SQLAlchemy's own tests for dialects: what passes over the standard library's driver passes over ours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

pytestmark = pytest.mark.takes(600)

CONFTEST = """
from sqlalchemy.testing.plugin.pytestplugin import *


def pytest_collection(session):
    # How to make and drop databases for tests: found by the module of a dialect, which here is another one.
    import sqlalchemy.dialects.sqlite.provision
"""
REQUIREMENTS = """
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements


class Requirements(SuiteRequirements):
    schemas = property(lambda self: exclusions.closed())
    views = savepoints = json_type = ctes = window_functions = property(lambda self: exclusions.open())
"""
SETUP = """
[sqla_testing]
requirement_cls=requirements_of_sqlite:Requirements
profile_file=profiles.txt
"""


def passed(folder: Path, url: str) -> set[str]:
    """The names of the tests that pass over a driver."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:logging", "-rp", "--tb=no", "-q"]
        # Those are hundreds, of combinations of what can be asked about tables.
        + ["-k", "not ComponentReflectionTest", "test_suite.py", "--dburi", url],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    # "PASSED test_suite.py::SomeTest_sqlite+turso_3_50_0::test_something"
    lines = re.findall(
        r"^PASSED \S+?::(\w+?)_sqlite\+\w+?(?:_async)?_[\d_]+::(.*)$", result.stdout, re.MULTILINE
    )
    assert lines, result.stdout[-2000:] + result.stderr[-2000:]
    return {f"{group}.{name}" for group, name in lines}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "requirements_of_sqlite.py").write_text(REQUIREMENTS)
    (folder / "setup.cfg").write_text(SETUP)
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (folder / "test_suite.py").write_text("from sqlalchemy.testing.suite import *\n")
    return folder


@pytest.fixture(scope="module")
def standard(suite: Path) -> set[str]:
    return passed(suite, f"sqlite:///{suite}/standard.db")


@pytest.mark.parametrize("driver", ["turso", "aioturso"])
def test_what_passes_over_the_standard_library_passes_over_turso(
    driver: str, suite: Path, standard: set[str]
) -> None:
    assert len(standard) > 300
    assert standard - passed(suite, f"sqlite+{driver}:///{suite}/{driver}.db") == set()
