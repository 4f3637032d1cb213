"""A sample of killed.py; `python tests/killed.py 500` kills more often."""

from __future__ import annotations

from pathlib import Path

import pytest

import killed


@pytest.mark.takes(60)
@pytest.mark.parametrize("where", ["local", "replica"])
def test_what_was_committed_before_a_kill_is_there(where: str, tmp_path: Path, empty_url: str) -> None:
    killed.kills(tmp_path, empty_url if where == "replica" else None, len(killed.WAYS))
