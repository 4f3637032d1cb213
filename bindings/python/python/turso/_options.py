"""Checks of options: every error names the option, what was given, and what is allowed."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ._turso import NotSupportedError, ProgrammingError


def refuse_unknown(name: str, function: Callable[..., Any], unknown: Mapping[str, Any]) -> NoReturn:
    """Raises the TypeError that an unknown keyword gets, which names the keyword that was probably meant."""
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    option = next(iter(unknown))
    raise TypeError(f"{name}() got an unknown option {option!r}{nearest(option, known)}")


def nearest(option: str, known: list[str]) -> str:
    """``; did you mean 'x'?``, where something known is near."""
    flat = {k.replace("_", "").lower(): k for k in known}
    near = difflib.get_close_matches(option.replace("_", "").lower(), flat, n=1, cutoff=0.5)
    return f"; did you mean {flat[near[0]]!r}?" if near else f"; the options are {', '.join(known)}"


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
        raise ProgrammingError(
            f"{first_name} and {second_name} are the same option, and were given different values; give one of them"
        )
    return a


def integer(name: str, value: Any, least: int, *, unit: str = "") -> int:
    """An int that is large enough."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise _wrong(name, value, f"an int{unit}")
    number = int(value.__index__())
    if number < least:
        raise _wrong(name, value, f"an int{unit} of at least {least}")
    if number >= 1 << 63:
        raise _wrong(name, value, f"an int{unit} that fits in 64 bits")
    return number


def seconds(name: str, value: Any) -> float:
    """A time that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise _wrong(name, value, "a number of seconds that is not negative")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """A bool."""
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def text(name: str, value: Any) -> str:
    """A str that is not empty."""
    if not isinstance(value, str) or not value:
        raise _wrong(name, value, "a str that is not empty")
    return value


def text_or_function(name: str, value: Any) -> Any:
    """A str, or something that can be called."""
    if isinstance(value, str) or callable(value):
        return value
    raise _wrong(name, value, "a str, or a function without parameters that gives one")


def not_supported(name: str, why: str) -> NotSupportedError:
    """For options of other packages that would have to be ignored."""
    return NotSupportedError(f"{name} is not supported: {why}")


def _wrong(name: str, value: Any, allowed: str) -> ProgrammingError:
    shown = repr(value)
    if len(shown) > 100:
        shown = shown[:100] + "..."
    return ProgrammingError(f"{name} = {shown} is not possible; it must be {allowed}")


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
