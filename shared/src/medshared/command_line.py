"""What every command line does alike: expected errors in one line, interrupted runs with an exit code of their own."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from medshared.processes import require_one_process

Handler = Callable[[argparse.Namespace], int]
# Mistakes of input and environment, whose message is all that a user needs.
EXPECTED = (OSError, ValueError, ImportError, RuntimeError, KeyError)
STOPPED = 75  # EX_TEMPFAIL: the run was stopped by a signal and can be resumed


class RunInterruptedError(RuntimeError):
    """A signal asked the run to stop; its state was saved and ``--resume`` continues it."""


def guarded(handler: Handler, arguments: argparse.Namespace) -> int:
    """Run a handler; turn an expected error into one line on stderr and an exit code.

    Of several processes that ``torchrun`` or ``srun`` started, each would do the whole work: a handler that is not
    marked with `medshared.processes.several_processes` is refused in them.

    Args:
        handler: does the work and returns an exit code.
        arguments: given to it; with a true attribute ``debug``, errors are raised with their traceback.

    Returns:
        The handler's code; 1 for an expected error, 75 for a run that was stopped and can be resumed, 130 for
        Ctrl-C.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        if not getattr(handler, "several_processes", False):
            verb = [each for each in (Path(sys.argv[0]).name, getattr(arguments, "verb", None)) if each]
            require_one_process(" ".join(verb))
        return handler(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if isinstance(error, RunInterruptedError):
            _await_others()
        if getattr(arguments, "debug", False):
            raise
        if isinstance(error, RunInterruptedError):
            sys.stderr.write(f"{error}\n")
            return STOPPED
        if isinstance(error, EXPECTED):
            sys.stderr.write(f"error: {error}\n")
            return 1
        raise


def _await_others() -> None:
    """Wait until process 0 has saved: srun kills all processes of a step once one has ended with a code but 0."""
    if "medshared.distributed" not in sys.modules:  # nobody was met
        return
    from medshared.distributed import barrier

    with contextlib.suppress(RuntimeError):  # another process is gone
        barrier()
