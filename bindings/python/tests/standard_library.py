"""Runs the tests that CPython has for sqlite3 against turso: a program of its own, for it swaps the modules.

Prints a line for each test that fails and is not expected to, and how many passed.
"""

from __future__ import annotations

import importlib
import io
import re
import sqlite3
import sys
import types
import unittest
from typing import Any

import turso

MODULES = ["dbapi", "types", "factory", "transactions", "regression", "dump", "userfunctions", "hooks"]

#: What turso does not have.
MISSING = re.compile(
    "blobopen|set_authorizer|set_progress_handler|setlimit|getlimit|complete_statement"
    "|enable_shared_cache|mode=ro|object is not callable|enable_callback_tracebacks"
)

#: What turso does otherwise, and why.
OTHERWISE = {
    # The error names option, value and what is allowed.
    "ConnectionTests.test_connection_init_bad_isolation_level",
    # The default is called by its name.
    "ConnectionTests.test_connection_init_good_isolation_levels",
    "RegressionTests.test_commit_cursor_reset",
    "IsolationLevelFromInit.test_isolation_level_begin",
    "IsolationLevelFromInit.test_isolation_level_default",
    "IsolationLevelPostInit.test_isolation_level_begin",
    "IsolationLevelPostInit.test_isolation_level_default",
    "TraceCallbackTests.test_trace_expanded_sql",
    # Threads may share connections unless they are told not to.
    "ThreadTests.test_check_connection_thread",
    "ThreadTests.test_check_cursor_thread",
    # A connection is opened once.
    "ConnectionTests.test_connection_reinit",
    "ConnectionTests.test_connection_bad_reinit",
    "UninitialisedConnectionTests.test_uninit_operations",
    # The engine's words.
    "ExtensionTests.test_cursor_executescript_with_null_characters",
    "RegressionTests.test_null_character",
    "AggregateTests.test_aggr_no_finalize",
    "AggregateTests.test_aggr_error_on_create",
    "FunctionTests.test_func_error_on_create",
    "WindowFunctionTests.test_win_error_value_return",
    # None is the usual factory.
    "CursorFactoryTests.test_invalid_factory",
    # Was removed from Python.
    "TextFactoryTests.test_optimized_unicode",
    # A cursor may be used while it waits for parameters; closed or made again in the middle it says that it is
    # closed.
    "RecursiveUseOfCursors.test_recursive_cursor_close",
    "RecursiveUseOfCursors.test_recursive_cursor_init",
    "RegressionTests.test_recursive_cursor_use",
    "RegressionTests.test_cursor_constructor_call_check",
    # A function cannot use the connection that calls it.
    "RegressionTests.test_table_lock_cursor_non_readonly_select",
    # Views of memory may have gaps.
    "FunctionTests.test_non_contiguous_blob",
}


def main() -> int:
    stand_in = types.ModuleType("sqlite3")
    names: dict[str, Any] = {
        name: value for name, value in vars(sqlite3).items() if name.startswith("SQLITE_")
    }
    names |= vars(turso)
    vars(stand_in).update(names)
    sys.modules["sqlite3"] = stand_in
    passed = failed = 0
    sys.stderr = io.StringIO()
    for name in MODULES:
        tests = unittest.defaultTestLoader.loadTestsFromModule(
            importlib.import_module(f"test.test_sqlite3.test_{name}")
        )
        result = unittest.TestResult()
        tests.run(result)
        bad: dict[str, str] = {}
        for test, traceback in [*result.failures, *result.errors]:
            identity = getattr(test, "test_case", test).id()
            bad.setdefault(".".join(identity.split(".")[-2:]), traceback)
        passed += result.testsRun - len(bad)
        for identity, traceback in bad.items():
            if identity not in OTHERWISE and not MISSING.search(traceback):
                failed += 1
                print(identity, traceback, sep="\n")
    print(f"{passed} passed")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
