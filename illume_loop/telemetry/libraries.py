"""Keep third-party libraries off the terminal and the network: progress bars, warnings, logs and usage reports.

Invariants:

- Warnings and log lines of libraries go to this process's log. That is `run.log` for `start`, and the lines that
  `worker` and `dashboard` write. A command without a log shows them only with --debug.
- `python -W` and PYTHONWARNINGS show warnings as they do for any program, and tests see them as errors.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, MutableMapping

from illume_loop.redaction import RedactingFormatter

QUIET = {
    "DATASETS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # TRL's trainers report each training to the Hugging Face hub.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "KMP_WARNINGS": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""The variables that libraries read when they are imported. They turn off output and usage reports."""
OURS = ("illume_loop", "illume_workers", "illume_db", "illume_migrations")


def set_quiet(environ: MutableMapping[str, str] = os.environ) -> None:
    """Turn off the output of libraries that are imported from now on. Variables that a person set stay."""
    for name, value in QUIET.items():
        environ.setdefault(name, value)


def silence(shows_all: Callable[[], bool] = lambda: False) -> None:
    """Keep every library's output off this process's terminal; if `shows_all` returns True, show their logs (--debug).

    Call it when a process of ours starts, before libraries are imported. Never call it from a library function.
    """
    set_quiet()
    logging.setLoggerClass(_LibraryLogger)
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            for handler in [one for one in logger.handlers if _is_on_terminal(one)]:
                logger.removeHandler(handler)
            logger.propagate = True
    if not sys.warnoptions:
        logging.captureWarnings(True)
    if not logging.root.handlers:
        # If there were no handler, the first `logging.warning` of a library would add one for the terminal.
        logging.root.addHandler(_OnTerminal(shows_all))


def log_to(handler: logging.Handler, level: str) -> None:
    """Make `handler` this process's log."""
    for other in [one for one in logging.root.handlers if isinstance(one, _OnTerminal)]:
        logging.root.removeHandler(other)
    logging.basicConfig(level=level, handlers=[handler])


class _OnTerminal(logging.Handler):
    """A handler for a command without a log. It prints our warnings on stderr, and those of libraries on request."""

    def __init__(self, shows_all: Callable[[], bool]) -> None:
        super().__init__(logging.WARNING)
        self._shows_all = shows_all
        self.setFormatter(RedactingFormatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] in OURS or self._shows_all():
            print(self.format(record), file=sys.stderr)


class _LibraryLogger(logging.Logger):
    """A logger whose records reach our log, and that accepts no handler for the terminal."""

    @property
    def propagate(self) -> bool:
        return True

    @propagate.setter
    def propagate(self, _: bool) -> None:
        """Ignore the value. Libraries with a handler of their own set it to False."""

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - logging's name
        if not _is_on_terminal(hdlr):
            super().addHandler(hdlr)


def _is_on_terminal(handler: logging.Handler) -> bool:
    if not isinstance(handler, logging.StreamHandler) or isinstance(handler, logging.FileHandler):
        return False
    try:
        return handler.stream.fileno() in (1, 2)
    except (AttributeError, OSError, ValueError):
        return False
