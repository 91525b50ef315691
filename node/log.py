"""Logs: one line a thing, to stderr. Never a patient's name, number or text.

The DICOM libraries put values of elements into their warnings and log lines, so these are silenced: what matters of
them is told in our own words, and the audit log holds the rest.
"""

import logging
import sys
import warnings

# structlog would load rich for coloured tracebacks, which no process of ours prints: 9 MB and 60 ms each
_SPARED = "rich" not in sys.modules
if _SPARED:
    sys.modules["rich"] = None  # type: ignore[assignment]

import structlog  # noqa: E402

if _SPARED:
    del sys.modules["rich"]

QUIET = ("pydicom", "pynetdicom", "pylibjpeg", "highdicom", "PIL", "apscheduler")


def configure(process: str = "") -> None:
    """Sets up this process's log; `process` (receiver, worker-1, …) stands in every line."""
    warnings.simplefilter("ignore")
    for name in QUIET:
        quiet = logging.getLogger(name)
        quiet.handlers = [logging.NullHandler()]
        quiet.propagate = False
        quiet.setLevel(logging.CRITICAL + 1)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "process", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    if process:
        structlog.contextvars.bind_contextvars(process=process)


def get() -> structlog.BoundLogger:
    logger: structlog.BoundLogger = structlog.get_logger()
    return logger
