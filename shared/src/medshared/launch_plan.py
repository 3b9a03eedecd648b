"""What a wrapper asks for: one command, or one for each item of an array, and the resources of each."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOG_FOLDER = "slurm_LOG"

DESCRIPTION = """\
Run a resumable command as a job of a SLURM cluster, alone or as an array with a collecting job.

  python -m medshared.launch --name NAME [options] [--collect ARGUMENTS …] -- SCRIPT [ARGUMENTS …]
  python -m medshared.launch status FOLDER

Outside a job, with sbatch at hand, it submits; inside a job it runs the command and queues the job again when the time
limit stopped it; elsewhere, and with SUBMIT=no, it runs everything here, one item after the other.
In the commands, {index} counts items from 0, {number} from 1, {count} is their number and {item} the item's text. An
argument of the collecting command that holds {index}, {number} or {item} stands for one argument an item.
"""
EPILOG = """\
environment, when submitting (PARTITION, ACCOUNT and TIME must be set; the first two may be empty):
  PARTITION ACCOUNT TIME   where, for whom, and how long a job may run before it is queued again
  GPUS CPUS MEMORY NODES   instead of the wrapper's own; GPUS and MEMORY a node, CPUS a process
  TASKS                    processes a node of a training; by default one a GPU
  MAX_TASKS                items of an array that run at the same time
  WARNING                  seconds before the limit at which a run is told to save its state (default 120)
  SBATCH_EXTRA             further options of sbatch
  SUBMIT=no|yes            run here although there is sbatch; submit although this is a job
  DRY_RUN=1                print what would be done
environment, always:
  PYTHON                   the interpreter
  MAX_REQUEUES             how often a job is queued again (default 100)
"""


class LaunchError(Exception):
    """A mistake in the call or the environment, told in one message."""


@dataclass(frozen=True)
class Plan:
    """One command, or one an item.

    Attributes:
        name: Of the job and its logs.
        command: Arguments of the interpreter, with placeholders.
        items: Of the array, in order; ``None`` for a single command.
        collect: Arguments of the collecting command; empty without one.
        leftovers: Whether collecting also does what failed tasks left undone, and so tells itself what is missing.
        distributed: Whether the command may run as several processes that train together.
        gpus: A node.
        cpus: A process.
        memory: A node, as sbatch writes it.
    """

    name: str
    command: tuple[str, ...]
    items: tuple[str, ...] | None = None
    collect: tuple[str, ...] = ()
    leftovers: bool = False
    distributed: bool = False
    gpus: int = 0
    cpus: int = 8
    memory: str = "32G"

    @property
    def count(self) -> int:
        """Number of tasks."""
        return 1 if self.items is None else len(self.items)

    def task_command(self, index: int) -> list[str]:
        """Return the command of one task, without the interpreter.

        Args:
            index: Of the item, from 0.
        """
        return [self._filled(argument, index) for argument in self.command]

    def collect_command(self) -> list[str]:
        """Return the collecting command, without the interpreter."""
        arguments: list[str] = []
        for argument in self.collect:
            is_of_item = any(name in argument for name in ("{index}", "{number}", "{item}"))
            arguments += [self._filled(argument, k) for k in range(self.count if is_of_item else 1)]
        return arguments

    def _filled(self, argument: str, index: int) -> str:
        if self.items is None:
            return argument
        values = {"index": index, "number": index + 1, "count": self.count, "item": self.items[index]}
        for name, value in values.items():
            argument = argument.replace(f"{{{name}}}", str(value))
        return argument


@dataclass(frozen=True)
class Call:
    """A parsed call: the plan and how this process shall treat it.

    Attributes:
        plan: What to run.
        arguments: The call's own arguments, which a submitted job repeats.
        is_job: Whether the call was made by a job that the launcher submitted.
        collecting: Job number of the array whose results are to be collected; ``None`` for a task.
        dry_run: Print what would be done.
    """

    plan: Plan
    arguments: tuple[str, ...]
    is_job: bool
    collecting: str | None
    dry_run: bool


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Call:
    """Read the command line; variables of the environment win over the wrapper's resources.

    Args:
        arguments: Without the program's name.
        environment: Of the process.

    Raises:
        LaunchError: naming each value that does not fit.
    """
    options, command = _split(list(arguments), "--")
    options, collect = _split(options, "--collect")
    if collect and "--" in command:
        raise LaunchError(
            "an argument -- cannot be told from the one between the collecting command and the tasks'"
        )
    found = _parser().parse_args(options)
    if not command:
        raise LaunchError("no command: end the options with -- and give the script and its arguments")
    if collect and found.array is None and found.items is None:
        raise LaunchError("--collect belongs to an array: give --array or --items as well")
    number = NumberReader(environment)
    plan = Plan(
        name=found.name,
        command=tuple(command),
        items=tuple(map(str, range(found.array))) if found.array else tuple(found.items or ()) or None,
        collect=tuple(collect),
        leftovers=found.leftovers,
        distributed=found.distributed,
        gpus=number("GPUS", found.gpus, 0),
        cpus=number("CPUS", found.cpus, 1),
        memory=environment.get("MEMORY") or found.memory,
    )
    number.check()
    at = len(options)  # what follows are the commands', which may have a flag of that name
    own = [argument for argument in options if argument != "--dry-run"] + list(arguments)[at:]
    dry_run = found.dry_run or environment.get("DRY_RUN", "") not in ("", "0", "no")
    return Call(plan, tuple(own), found.in_job, found.collecting, dry_run)


class NumberReader:
    """Whole numbers of the environment; mistakes are gathered, to be told all at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def __call__(self, name: str, default: int, least: int) -> int:
        """Return a variable as a number, or the default where it is unset or empty."""
        text = self._environment.get(name, "").strip()
        if not text:
            return default
        if not text.isdecimal() or int(text) < least:
            self.problems.append(f"{name}: expected a whole number from {least} on, found {text!r}")
            return default
        return int(text)

    def check(self) -> None:
        """Raise what was found."""
        if self.problems:
            raise LaunchError("\n".join(self.problems))


def interpreter(environment: Mapping[str, str]) -> str:
    """Return the Python that runs the commands."""
    import sys

    return environment.get("PYTHON") or sys.executable or "python"


def record_folder(name: str, job: str) -> Path:
    """Return where a job and its tasks keep their records."""
    return Path(LOG_FOLDER) / f"{name}-{job}"


def _split(arguments: list[str], separator: str) -> tuple[list[str], list[str]]:
    if separator not in arguments:
        return arguments, []
    at = arguments.index(separator)
    return arguments[:at], arguments[at + 1 :]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m medshared.launch",
        usage=argparse.SUPPRESS,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--name", required=True, help="name of the job and its logs")
    parser.add_argument("--gpus", type=int, default=0, help="GPUS unless set")
    parser.add_argument("--cpus", type=int, default=8, help="CPUS unless set")
    parser.add_argument("--memory", default="32G", help="MEMORY unless set")
    parser.add_argument(
        "--distributed", action="store_true", help="a training: TASKS processes a node, one a GPU"
    )
    items = parser.add_mutually_exclusive_group()
    items.add_argument("--array", type=_positive, metavar="COUNT", help="an array of so many tasks")
    items.add_argument("--items", nargs="+", metavar="ITEM", help="an array of one task an item")
    parser.add_argument(
        "--leftovers", action="store_true", help="collect even after failures: the command does the rest"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done")
    parser.add_argument("--in-job", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--collecting", metavar="JOB", help=argparse.SUPPRESS)
    return parser
