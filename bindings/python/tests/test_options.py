"""Options: unknown, misspelled, contradictory and impossible ones, each with an error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import turso
import turso.sync
from turso.sync import PartialSyncOpts, PartialSyncPrefixBootstrap, PartialSyncQueryBootstrap


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("remote_authtoken", "remote_auth_token"),
        ("authToken", "auth_token"),
        ("partial_sync_opt", "partial_sync_opts"),
        ("partialSyncExperimental", "partial_sync_experimental"),
        ("url", "remote_url"),
        ("longpoll_timeout_ms", "long_poll_timeout_ms"),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest_known_one(given: str, meant: str) -> None:
    options: dict[str, Any] = {given: 1}
    with pytest.raises(TypeError, match=f"unknown option '{given}'; did you mean '{meant}'"):
        turso.sync.connect(":memory:", **options)


def test_unknown_options_of_a_local_database_too() -> None:
    options: dict[str, Any] = {"isolation_levle": None}
    with pytest.raises(TypeError, match="unknown option 'isolation_levle'; did you mean 'isolation_level'"):
        turso.connect(":memory:", **options)


def test_an_option_that_resembles_nothing_is_answered_with_all_of_them() -> None:
    options: dict[str, Any] = {"qqqq": 1}
    with pytest.raises(TypeError, match="unknown option 'qqqq'; the options are path, remote_url, "):
        turso.sync.connect(":memory:", **options)


def test_a_misspelled_part_of_partial_sync_is_an_error() -> None:
    options: dict[str, Any] = {"segmentSize": 1}
    with pytest.raises(TypeError, match="segmentSize"):
        PartialSyncOpts(**options)


def test_both_spellings_work_and_unlike_values_in_both_do_not(shared_url: str) -> None:
    opts = PartialSyncOpts(bootstrap_strategy=PartialSyncPrefixBootstrap(length=4096))
    same = PartialSyncOpts(bootstrap_strategy=PartialSyncPrefixBootstrap(length=4096))
    other = PartialSyncOpts(bootstrap_strategy=PartialSyncPrefixBootstrap(length=8192))
    for options in (
        {"partial_sync_opts": opts, "remote_auth_token": "a"},
        {"partial_sync_experimental": opts, "auth_token": "a"},
        {
            "partial_sync_opts": opts,
            "partial_sync_experimental": same,
            "auth_token": "a",
            "remote_auth_token": "a",
        },
    ):
        given: dict[str, Any] = options
        assert turso.sync.connect(":memory:", shared_url, **given).stats().pages_present < 10
    with pytest.raises(turso.ProgrammingError, match="partial_sync_opts and partial_sync_experimental"):
        turso.sync.connect(":memory:", shared_url, partial_sync_opts=opts, partial_sync_experimental=other)
    with pytest.raises(turso.ProgrammingError, match="remote_auth_token and auth_token"):
        turso.sync.connect(":memory:", shared_url, remote_auth_token="a", auth_token="b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"long_poll_timeout_ms": -1}, "long_poll_timeout_ms = -1 .* at least 0"),
        ({"long_poll_timeout_ms": 1.5}, "long_poll_timeout_ms = 1.5 .* an int of milliseconds"),
        ({"push_operations_threshold": 0}, "push_operations_threshold = 0 .* at least 1"),
        ({"pull_bytes_threshold": "1"}, "pull_bytes_threshold = '1' .* an int of bytes"),
        ({"bootstrap_if_empty": None}, "bootstrap_if_empty = None .* True or False"),
        ({"client_name": ""}, "client_name = '' .* a str that is not empty"),
        ({"remote_url": 5}, "remote_url = 5 .* a str, or a function"),
        ({"auth_token": 5}, "remote_auth_token = 5 .* a str, or a function"),
        ({"remote_encryption_cipher": "aes256gcm"}, "remote_encryption_cipher needs remote_encryption_key"),
        ({"transform": 5}, "transform = 5 .* a function"),
        ({"timeout": -1}, "timeout = -1 .* seconds"),
        ({"request_timeout": "x"}, "request_timeout = 'x' .* seconds"),
        ({"cached_statements": -1}, "cached_statements = -1 "),
        ({"partial_sync_opts": {"prefetch": True}}, "partial_sync_opts = .* must be a PartialSyncOpts"),
        ({"partial_sync_opts": PartialSyncOpts(segment_size=-1)}, "segment_size = -1 "),
        ({"partial_sync_opts": PartialSyncOpts(segment_size=0)}, "0 bytes is no segment size"),
        ({"partial_sync_opts": PartialSyncOpts(prefetch=1)}, "prefetch = 1 .* True or False"),  # type: ignore[arg-type]
        ({"partial_sync_opts": PartialSyncOpts(PartialSyncPrefixBootstrap(-5))}, "length = -5 "),
        (
            {"partial_sync_opts": PartialSyncOpts(PartialSyncPrefixBootstrap(2**64))},
            "length = 18446744073709551616 ",
        ),
        ({"partial_sync_opts": PartialSyncOpts(PartialSyncQueryBootstrap(""))}, "query = '' "),
        ({"partial_sync_opts": PartialSyncOpts("prefix")}, "bootstrap_strategy = 'prefix' "),  # type: ignore[arg-type]
        ({"autocommit": "sometimes"}, "autocommit = 'sometimes' "),
    ],
)
def test_an_impossible_value_is_named_with_what_is_allowed(
    shared_url: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(turso.ProgrammingError, match=message):
        turso.sync.connect(":memory:", **{"remote_url": shared_url, **options})


def test_an_isolation_level_that_is_none() -> None:
    with pytest.raises(ValueError, match="isolation_level = 'CONCURRENT' is not one of"):
        turso.connect(":memory:", isolation_level="CONCURRENT")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"encryption": turso.EncryptionOpts("aes256gcm", "00")}, "encryption"),
        ({"vfs": "memory"}, "vfs"),
        ({"uri": True, "database": "file:a.db?mode=ro"}, "mode=ro"),
    ],
)
def test_what_this_package_does_not_do_is_said_and_not_ignored(options: dict[str, Any], named: str) -> None:
    with pytest.raises(turso.NotSupportedError, match=named):
        turso.connect(**{"database": ":memory:", **options})


def test_a_url_that_cannot_be_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(turso.ProgrammingError, match="ftp"):
        turso.sync.connect(tmp_path / "a.db", "ftp://example.com/")
    assert list(tmp_path.iterdir()) == []


def test_a_bootstrap_query_that_the_remote_refuses_is_a_programming_error(shared_url: str) -> None:
    opts = PartialSyncOpts(bootstrap_strategy=PartialSyncQueryBootstrap("SELECT * FROM nope"))
    with pytest.raises(turso.ProgrammingError, match="no such table: nope"):
        turso.sync.connect(":memory:", shared_url, partial_sync_opts=opts)


def test_a_replica_of_another_remote_is_a_programming_error(
    url: str, shared_url: str, tmp_path: Path
) -> None:
    turso.sync.connect(tmp_path / "a.db", url).close()
    with pytest.raises(turso.ProgrammingError, match="belongs to"):
        turso.sync.connect(tmp_path / "a.db", shared_url)


def test_a_file_that_is_no_replica_is_left_alone(shared_url: str, tmp_path: Path) -> None:
    local = turso.connect(tmp_path / "a.db")
    local.execute("CREATE TABLE t(a)")
    local.close()
    with pytest.raises(turso.DatabaseError, match="is no replica"):
        turso.sync.connect(tmp_path / "a.db", shared_url)
    assert turso.connect(tmp_path / "a.db").execute("SELECT COUNT(*) FROM t").fetchone() == (0,)


def test_what_the_published_package_is_called_with_works(shared_url: str, tmp_path: Path) -> None:
    conn = turso.sync.connect(
        str(tmp_path / "a.db"),
        shared_url,
        auth_token=None,
        client_name="test",
        long_poll_timeout_ms=None,
        bootstrap_if_empty=True,
        partial_sync_experimental=PartialSyncOpts(
            PartialSyncPrefixBootstrap(4096), segment_size=None, prefetch=None
        ),
        experimental_features="views",
        isolation_level=None,
        push_operations_threshold=10,
        pull_bytes_threshold=None,
    )
    assert isinstance(conn, turso.sync.ConnectionSync) and isinstance(conn, turso.Connection)
    assert conn.isolation_level is None


def test_a_large_bootstrap_comes_in_pieces(shared_url: str) -> None:
    whole = turso.sync.connect(":memory:", shared_url)
    pieces = turso.sync.connect(":memory:", shared_url, pull_bytes_threshold=64 * 1024)
    assert whole.stats().requests == 1 < pieces.stats().requests
    assert pieces.stats().pages_present == pieces.stats().pages_total
