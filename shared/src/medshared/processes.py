"""Which of several started processes this one is: what ``torchrun`` and ``srun`` say, without importing torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Handler = TypeVar("Handler", bound=Callable[..., Any])


class ProcessesError(RuntimeError):
    """Processes that cannot work together, or one of them that failed."""


@dataclass(frozen=True)
class Processes:
    """Which of the started processes this one is.

    Attributes:
        launcher: what started them; ``none`` for a process on its own.
        rank: number of this process over all machines.
        count: how many there are.
        local_rank: number on this machine.
        local_count: how many are on this machine.
        machines: how many machines take part.
    """

    launcher: Literal["none", "torchrun", "slurm"] = "none"
    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    machines: int = 1


def started_processes(environment: Mapping[str, str] | None = None) -> Processes:
    """Return what ``torchrun`` or ``srun`` said of this process, without touching torch.

    A SLURM job of several tasks is told from a step of it by the variables of the step: its batch script sees
    ``SLURM_NTASKS`` too, and is one process.

    Args:
        environment: by default that of this process.

    Raises:
        ProcessesError: when a step spreads its tasks unevenly over machines.
    """
    found = os.environ if environment is None else environment
    if "TORCHELASTIC_RUN_ID" in found and int(found.get("WORLD_SIZE", "1")) > 1:
        count, local_count = int(found["WORLD_SIZE"]), int(found["LOCAL_WORLD_SIZE"])
        machines = int(found.get("GROUP_WORLD_SIZE", "1"))
        return Processes(
            "torchrun", int(found["RANK"]), count, int(found["LOCAL_RANK"]), local_count, machines
        )
    tasks = int(found.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks < 2 or "SLURM_PROCID" not in found or "SLURM_LOCALID" not in found:
        return Processes()
    machines = int(found.get("SLURM_STEP_NUM_NODES", "1"))
    if tasks % machines:
        raise ProcessesError(
            f"SLURM: {tasks} tasks on {machines} machines; expected equally many on each (--ntasks-per-node)"
        )
    rank, local_rank = int(found["SLURM_PROCID"]), int(found["SLURM_LOCALID"])
    return Processes("slurm", rank, tasks, local_rank, tasks // machines, machines)


def several_processes(handler: Handler) -> Handler:
    """Mark the handler of a command that works in several processes together."""
    handler.several_processes = True  # type: ignore[attr-defined]
    return handler


def require_one_process(what: str, instead: str | None = None) -> None:
    """Refuse to go on in one of several started processes, which would all do the same work.

    Args:
        what: the command, for the message.
        instead: what a user may do.

    Raises:
        ProcessesError: when ``torchrun`` or ``srun`` started several.
    """
    started = started_processes()
    if started.count > 1:
        advice = instead or "start one (a job array divides work that does not belong together)"
        raise ProcessesError(
            f"{what} runs in one process, {started.launcher} started {started.count}; {advice}"
        )
