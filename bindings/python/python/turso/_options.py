"""Options, held against the engine's table (docs/options.md), which says what is possible and what to tell about the rest."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from . import _turso


def refuse_unknown(function: Callable[..., Any], unknown: Mapping[str, Any]) -> NoReturn:
    """Raises the TypeError that an unknown keyword gets, which names the keyword that was probably meant."""
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    raise TypeError(_turso._unknown_option(next(iter(unknown)), known))


def changed(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not at their default, so that a factory need not know all of them."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if value is not parameters[name].default}


def either(first: tuple[str, Any], second: tuple[str, Any]) -> Any:
    """The value of an option with two names; different values under both are an error."""
    (first_name, a), (second_name, b) = first, second
    if a is None or b is None:
        return b if a is None else a
    if a is not b and a != b:
        raise _turso._same_option(first_name, second_name)
    return a


def checked(name: str, value: Any) -> Any:
    """The value, which is one that the option can have."""
    _turso._check_option(name, value)
    return value


def checked_or_none(name: str, value: Any) -> Any:
    """The same of an option that may be left out."""
    return None if value is None else checked(name, value)


@dataclass(frozen=True)
class Local:
    """What the native part needs to know of every connection."""

    path: str
    timeout: float
    cached_statements: int
    detect_types: int
    check_same_thread: bool


@dataclass(frozen=True)
class Remote:
    """What the native part needs to know of a remote."""

    url: Any
    auth_token: Any
    client_name: str
    long_poll_timeout_ms: int | None
    bootstrap_if_empty: bool
    accept_new_url: bool
    bootstrap: int | str | None
    partial: bool
    segment_size: int | None
    prefetch: bool | None
    transform: Callable[..., Any] | None
    push_operations_threshold: int | None
    pull_bytes_threshold: int | None
    encryption: tuple[str, str | None] | None
    request_timeout: float | None
