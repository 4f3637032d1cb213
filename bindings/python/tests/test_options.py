"""Options: unknown, misspelled, contradictory and impossible ones, each with an error that names it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import turso
import turso.aio
import turso.aio.sync
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
    with pytest.raises(TypeError, match=f'unknown option "{given}"; did you mean "{meant}"\\?'):
        turso.sync.connect(":memory:", **options)


def test_unknown_options_of_a_local_database_too() -> None:
    options: dict[str, Any] = {"isolation_levle": None}
    with pytest.raises(TypeError, match='unknown option "isolation_levle"; did you mean "isolation_level"'):
        turso.connect(":memory:", **options)


def test_an_option_that_resembles_nothing_is_answered_with_all_of_them() -> None:
    options: dict[str, Any] = {"qqqq": 1}
    with pytest.raises(TypeError, match='unknown option "qqqq"; the options are path, remote_url, '):
        turso.sync.connect(":memory:", **options)


def test_a_misspelled_part_of_partial_sync_is_an_error() -> None:
    options: dict[str, Any] = {"segmentSize": 1}
    with pytest.raises(TypeError, match="segmentSize"):
        PartialSyncOpts(**options)


DOCUMENT = Path(__file__).parents[3] / "docs" / "options.md"


def documented() -> dict[str, tuple[str, str]]:
    """What each option of Python may be, and its default, by its spelling."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith("| `")
    ]
    about = {row[0]: (row[2], row[3]) for row in rows if len(row) == 4}
    names = {row[0]: row[2].replace("`", "").split(", ") for row in rows if len(row) == 7}
    assert about.keys() == names.keys() and len(about) > 30
    return {spelling: about[name] for name, spellings in names.items() for spelling in spellings if spelling}


OPTIONS = documented()
FUNCTIONS: list[Callable[..., Any]] = [turso.connect, turso.sync.connect, turso.aio.connect, turso.aio.sync.connect]
SIGNATURES = {
    p.name: p
    for function in FUNCTIONS
    for p in inspect.signature(function).parameters.values()
    if p.kind is not p.VAR_KEYWORD
}


def test_the_options_in_the_documentation_are_those_of_the_code() -> None:
    assert {name for name in OPTIONS if "." not in name} == SIGNATURES.keys()
    for name in OPTIONS:
        if "." in name:
            owner, field = name.split(".")
            own = getattr(turso.sync, owner, None) or turso.Connection.set_query_timeout
            assert field in inspect.signature(own).parameters
    for name, parameter in SIGNATURES.items():
        default = OPTIONS[name][1]
        if default.isdigit() and parameter.default is not None:
            unit = 1000 if isinstance(parameter.default, float) else 1
            assert int(default) == parameter.default * unit, name
        if isinstance(parameter.default, bool):
            assert default == str(parameter.default).lower(), name


def values(allowed: str) -> tuple[Any, Any]:
    """One that is possible, and one that is not."""
    if numbers := re.match(r"a whole number of \w+, (\d+)", allowed):
        least = int(numbers[1])
        return least + 1, least - 1
    if words := re.match(r"one of '(\w+)'", allowed):
        return words[1], "rot13"
    if allowed.startswith("a string"):
        return "x", 7
    return {"true or false": (True, 7), "a function": (lambda mutation: None, 7)}.get(allowed, (None, None))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_taken_under_each_of_its_names_and_held_to_its_range(name: str, shared_url: str) -> None:
    allowed, _ = OPTIONS[name]
    good, bad = values(allowed)
    own: bool = "PartialSyncOpts.bootstrap_strategy" == name
    if good is None and not own and not name.startswith("partial_sync"):
        return

    def connect(value: Any) -> None:
        options: dict[str, Any] = {"path": ":memory:", "remote_url": shared_url}
        if "." in name:
            owner, field = name.split(".")
            if owner == "set_query_timeout":
                turso.connect(":memory:").set_query_timeout(value)
                return
            opts: Any = getattr(turso.sync, owner)(**{field: value})
            if owner != "PartialSyncOpts":
                opts = PartialSyncOpts(opts)
            options["partial_sync_opts"] = opts
        elif name in inspect.signature(turso.sync.connect).parameters:
            options[name] = value
            if name == "remote_encryption_cipher":
                options["remote_encryption_key"] = "k"
        elif name in inspect.signature(turso.connect).parameters:
            turso.connect(**{"database": ":memory:", name: value}).close()
            return
        else:
            turso.aio.connect(":memory:", **{name: value})
            return
        turso.sync.connect(**options).close()

    if name.startswith("partial_sync"):
        good, bad, allowed = PartialSyncOpts(), {}, "a PartialSyncOpts"
    if own:
        good, bad = PartialSyncPrefixBootstrap(4096), "prefix"
        allowed = "a PartialSyncPrefixBootstrap or a PartialSyncQueryBootstrap"
    if name in ("path", "database"):
        good = ":memory:"
    if name == "remote_url":
        good = shared_url
    if name == "PartialSyncQueryBootstrap.query":
        good = "SELECT 1"
    if name.startswith(("path", "database", "uri")):
        bad = None
    connect(good)
    if bad is None:
        return
    if "milliseconds" in allowed and not name.endswith(("_ms", "milliseconds")):
        allowed = allowed.replace("a whole number of milliseconds", "a number of seconds")
        allowed = re.sub(r"to (\d+)\d{3}$", r"to \1", allowed)
    spelled = "partial_sync_opts" if name.startswith("partial_sync") else name
    with pytest.raises(turso.ProgrammingError) as caught:
        connect(bad)
    assert str(caught.value) == f'option "{spelled}" is {bad!r}; it must be {allowed}'
    assert caught.value.kind == "misuse"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_misspelled_name_gets_the_same_text(function: Callable[..., Any]) -> None:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        wrong = f"{parameter.name}q"
        with pytest.raises(TypeError) as caught:
            function(":memory:", **{wrong: None})
        assert str(caught.value) == f'unknown option "{wrong}"; did you mean "{parameter.name}"?'


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
    with pytest.raises(turso.ProgrammingError, match='"partial_sync_opts" and "partial_sync_experimental" are two names'):
        turso.sync.connect(":memory:", shared_url, partial_sync_opts=opts, partial_sync_experimental=other)
    with pytest.raises(turso.ProgrammingError, match='"remote_auth_token" and "auth_token" are two names'):
        turso.sync.connect(":memory:", shared_url, remote_auth_token="a", auth_token="b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"long_poll_timeout_ms": -1}, '"long_poll_timeout_ms" is -1; .* of milliseconds, 0 or more'),
        ({"long_poll_timeout_ms": 1.5}, '"long_poll_timeout_ms" is 1.5; .* a whole number of milliseconds'),
        ({"push_operations_threshold": 0}, '"push_operations_threshold" is 0; .* 1 or more'),
        ({"pull_bytes_threshold": "1"}, "\"pull_bytes_threshold\" is '1'; .* a whole number of bytes"),
        ({"bootstrap_if_empty": None}, '"bootstrap_if_empty" is None; .* true or false'),
        ({"client_name": ""}, "\"client_name\" is ''; .* a string that is not empty"),
        ({"remote_url": 5}, '"remote_url" is 5; .* a string, or a function'),
        ({"auth_token": 5}, '"auth_token" is 5; .* a string, or a function'),
        ({"remote_encryption_cipher": "aes256gcm"}, "remote_encryption_cipher needs remote_encryption_key"),
        (
            {"remote_encryption_key": "k", "remote_encryption_cipher": "rot13"},
            "\"remote_encryption_cipher\" is 'rot13'; .* one of 'aes256gcm', ",
        ),
        ({"transform": 5}, '"transform" is 5; .* a function'),
        ({"timeout": -1}, '"timeout" is -1; .* seconds, 0 to 2147483'),
        ({"request_timeout": "x"}, "\"request_timeout\" is 'x'; .* seconds"),
        ({"request_timeout": float("nan")}, '"request_timeout" is nan; .* seconds'),
        ({"cached_statements": -1}, '"cached_statements" is -1; '),
        ({"partial_sync_opts": {"prefetch": True}}, '"partial_sync_opts" is .* must be a PartialSyncOpts'),
        ({"partial_sync_opts": PartialSyncOpts(segment_size=-1)}, '"PartialSyncOpts.segment_size" is -1; '),
        (
            {"partial_sync_opts": PartialSyncOpts(segment_size=0)},
            '"PartialSyncOpts.segment_size" is 0; .* bytes, 1 to 67108864',
        ),
        ({"partial_sync_opts": PartialSyncOpts(prefetch=1)}, 'prefetch" is 1; .* true or false'),  # type: ignore[arg-type]
        ({"partial_sync_opts": PartialSyncOpts(PartialSyncPrefixBootstrap(-5))}, 'length" is -5; '),
        (
            {"partial_sync_opts": PartialSyncOpts(PartialSyncPrefixBootstrap(2**64))},
            'length" is 18446744073709551616; ',
        ),
        ({"partial_sync_opts": PartialSyncOpts(PartialSyncPrefixBootstrap(-(2**200)))}, 'length" is -16069'),
        ({"partial_sync_opts": PartialSyncOpts(PartialSyncQueryBootstrap(""))}, "query\" is ''; "),
        ({"partial_sync_opts": PartialSyncOpts("prefix")}, "bootstrap_strategy\" is 'prefix'; "),  # type: ignore[arg-type]
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
    with pytest.raises(turso.DatabaseError, match="is not a replica"):
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
