"""Messages of the native part through :mod:`logging`."""

from __future__ import annotations

import logging

from . import _turso

logger = logging.getLogger("turso")


def setup_logging(level: int | None = None) -> None:
    """Passes messages of the engine on to the logger ``turso``, those of ``level`` (default: the logger's)
    and above.
    """
    if level is not None:
        logger.setLevel(level)
    _turso._set_logger(logger, logger.getEffectiveLevel())
