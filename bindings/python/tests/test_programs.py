"""A sample of the random programs of programs.py; `python tests/programs.py 100000` runs more of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import programs

#: Seconds; the sample ends sooner when it has run so many programs.
SAMPLE, PROGRAMS = 30.0, int(os.environ.get("PROGRAMS", "600"))


def test_every_known_difference_is_documented_and_every_documented_one_known() -> None:
    assert programs.documented() == set(programs.KNOWN)


@pytest.mark.takes(120)
def test_random_programs_see_what_they_see_with_sqlite3(tmp_path: Path) -> None:
    end = time.monotonic() + SAMPLE
    for seed in range(PROGRAMS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        programs.compare(seed, folder)
        if time.monotonic() > end:
            break
