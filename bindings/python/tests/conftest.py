"""Fixtures: databases that are served."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Proxy, make_messages, proxied, serve


# A shell runs what it puts into the background with Ctrl-C ignored, and that is inherited; the programs that the tests
# start and interrupt must be interruptible.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Seconds that a test may take before it counts as one that waits for itself.
WATCHDOG = float(os.environ.get("WATCHDOG", "20"))
_stderr = -1


def pytest_configure() -> None:
    # While tests run this is not where the caller looks.
    global _stderr
    _stderr = os.dup(2)


@pytest.fixture(autouse=True)
def watchdog(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends the whole run, with the stacks of all threads, when a test does not come to an end. Tests that have long things
    to do say so: ``@pytest.mark.takes(seconds)``."""
    marker = request.node.get_closest_marker("takes")
    seconds = max(WATCHDOG, float(marker.args[0])) if marker else WATCHDOG
    faulthandler.dump_traceback_later(seconds, exit=True, file=_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def messages_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of the documentation's examples; do not write to it."""
    path = tmp_path_factory.mktemp("messages") / "messages.db"
    make_messages(path)
    return path


@pytest.fixture(scope="session")
def shared_url(messages_file: Path) -> Iterator[str]:
    """A server of the messages for tests that only read."""
    with serve(messages_file) as url:
        yield url


@pytest.fixture
def url(messages_file: Path, tmp_path: Path) -> Iterator[str]:
    """A server of the messages for one test."""
    path = tmp_path / "remote.db"
    shutil.copy(messages_file, path)
    with serve(path) as url:
        yield url


@pytest.fixture
def empty_url(tmp_path: Path) -> Iterator[str]:
    """A server of an empty database for one test."""
    with serve(tmp_path / "remote.db") as url:
        yield url


@pytest.fixture
def slow(shared_url: str) -> Iterator[tuple[str, Proxy]]:
    """A proxy in front of the messages."""
    with proxied(shared_url) as both:
        yield both
