"""What a process shows and hears while it runs: log lines, one progress bar, signals to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from medshared.files import write_error

Item = TypeVar("Item")

LOG_FORMAT = "%(asctime)s | %(levelname)s | %(message)s"  # asctime is %Y-%m-%d %H:%M:%S,mmm
_bar_is_shown = False


class _StandardError(logging.Handler):
    """Writes to whatever ``sys.stderr`` is now, so that lines go above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # as all handlers of logging do: a closed terminal stops no run
            self.handleError(record)


@contextlib.contextmanager
def run_logging(
    name: str, log_file: str | os.PathLike[str] | None = None, level: int | str = logging.INFO
) -> Iterator[logging.Logger]:
    """Send the log lines of a package, and of medshared, to a file and to standard error.

    A line is ``2024-01-31 12:00:00,123 | INFO | message``. When the block ends, the file is closed and the
    loggers are as they were, so a second run in the same process writes to its own file only.

    Args:
        name: the logger, normally the package's name; its modules' loggers are included.
        log_file: file to append to, created with its folders; ``None`` for standard error only.
        level: lowest level shown, e.g. ``logging.INFO`` or ``"DEBUG"``.

    Yields:
        The logger.

    Raises:
        OSError: naming the file when it cannot be written.
    """
    handlers: list[logging.Handler] = [_StandardError()]
    if log_file is not None:
        try:
            Path(log_file).parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
        except OSError as error:
            raise write_error(log_file, error, "the log file") from error
    formatter = logging.Formatter(LOG_FORMAT)
    for handler in handlers:
        handler.setFormatter(formatter)
    loggers = [logging.getLogger(each) for each in dict.fromkeys((name, "medshared" if name else name))]
    before = [(each, each.handlers, each.level, each.propagate) for each in loggers]
    try:
        for each in loggers:
            each.handlers = list(handlers)
            each.setLevel(level)
            each.propagate = False
        yield loggers[0]
    finally:
        for each, old_handlers, old_level, old_propagate in before:
            each.handlers = old_handlers
            each.setLevel(old_level)
            each.propagate = old_propagate
        for handler in handlers:
            handler.close()


class StopSignal:
    """Notes SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 (SLURM's warning) so that a loop can stop at a good place.

    The handler sets a flag and does nothing else; a second Ctrl-C raises ``KeyboardInterrupt``. When the
    block ends the old handlers are back. Outside the main thread, where Python allows no handlers, the flag
    stays unset.

    Attributes:
        requested: whether a signal came.
        name: of the first signal that came, e.g. ``"SIGTERM"``, else ``None``.

    Example:
        >>> with StopSignal() as stop:
        ...     for step in range(3):
        ...         if stop.requested:
        ...             break
    """

    def __init__(self) -> None:
        self.requested = False
        self.name: str | None = None
        self._interrupts = 0
        self._process = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGINT", "SIGUSR1"):  # Windows has no SIGUSR1
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None: the handler was not set from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._in_forked_worker(number)
            return
        self.requested = True
        self.name = self.name or signal.Signals(number).name
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt

    @staticmethod
    def _in_forked_worker(number: int) -> None:
        """Data-loading workers inherit the handler: SIGTERM still ends them, the rest is for their parent."""
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def progress(iterable: Iterable[Item], total: int | None = None, description: str = "") -> Iterator[Item]:
    """Yield the items, with a progress bar on standard error if that is a terminal and shows none yet.

    Args:
        iterable: what to go through.
        total: number of items; by default ``len(iterable)`` if it has one.
        description: shown before the bar.

    Yields:
        The items, unchanged.
    """
    global _bar_is_shown
    if _bar_is_shown or not sys.stderr.isatty():
        yield from iterable
        return
    from rich.console import Console
    from rich.progress import track

    _bar_is_shown = True
    try:
        console = Console(stderr=True)
        yield from track(iterable, description=description, total=total, console=console, transient=True)
    finally:
        _bar_is_shown = False
