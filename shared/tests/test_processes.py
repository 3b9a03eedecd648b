"""What the environment of torchrun and SLURM says of a process."""

from __future__ import annotations

import argparse

import pytest

from medshared.command_line import guarded
from medshared.distributed import Share, is_first, process_count, process_rank
from medshared.processes import (
    Processes,
    ProcessesError,
    require_one_process,
    several_processes,
    started_processes,
)

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "2",
}  # fmt: skip
STEP = {
    "SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Processes()),
        (TORCHRUN, Processes("torchrun", 3, 4, 1, 2, 2)),
        (STEP, Processes("slurm", 1, 2, 1, 2, 1)),
        (TORCHRUN | STEP, Processes("torchrun", 3, 4, 1, 2, 2)),  # torchrun inside a step
        (TORCHRUN | {"WORLD_SIZE": "1"}, Processes()),
        # The batch script of a job of two tasks is one process.
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, Processes()),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, Processes()),
    ],
)
def test_who_this_process_is(environment, expected):
    assert started_processes(environment) == expected


def test_an_uneven_step():
    with pytest.raises(ProcessesError, match="3 tasks on 2 machines"):
        started_processes(STEP | {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2"})


@pytest.fixture
def in_a_step(monkeypatch):
    """Pretend to be the second task of a step."""
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)


def test_before_the_processes_meet(in_a_step):
    assert (process_rank(), process_count(), is_first()) == (1, 2, False)
    assert Share.of(5).own == slice(1, None, 2)


def test_a_command_for_one_process_is_refused(in_a_step, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bin/advmil"])
    called = []
    assert guarded(lambda _: called.append(1) or 0, argparse.Namespace(verb="predict")) == 1
    assert "advmil predict runs in one process, slurm started 2" in capsys.readouterr().err
    assert not called
    assert guarded(several_processes(lambda _: 0), argparse.Namespace()) == 0


def test_what_to_do_instead(in_a_step):
    with pytest.raises(ProcessesError, match="an array, please"):
        require_one_process("--seeds", "an array, please")


def test_one_process_is_never_refused(monkeypatch):
    for name in (*TORCHRUN, *STEP):
        monkeypatch.delenv(name, raising=False)
    require_one_process("anything")
