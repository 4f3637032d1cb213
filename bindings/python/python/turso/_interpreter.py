"""Refuses interpreters that the native part cannot live in: its types and exceptions exist once in a process, so objects of
one interpreter would come into another.
"""

from __future__ import annotations

import importlib
from typing import Any


def _number(interpreter: Any) -> int:
    # A pair since Python 3.13.
    return int(interpreter[0] if isinstance(interpreter, tuple) else interpreter)


def _is_main() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        return _number(interpreters.get_current()) == _number(interpreters.get_main())
    return True


if not _is_main():
    raise ImportError(
        "turso cannot be used in a subinterpreter: use it in the main interpreter, with threads or processes "
        "(for mod_wsgi: WSGIApplicationGroup %{GLOBAL})"
    )
