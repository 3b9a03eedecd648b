"""What several processes exchange: several real ones over gloo give what one gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PROGRAM = r'''
"""Compute the same things in one or two processes and save them."""
import sys
from pathlib import Path
import numpy as np
import torch
from torch import nn
from medshared import distributed as d
from medshared.command_line import RunInterruptedError
from medshared.process import StopSignal
from medshared.processes import ProcessesError
from medshared.shared_layers import computing, share_layers

out = Path(sys.argv[1])
fabric = d.open_fabric(torch.device("cpu"))
found = {}

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3),
    nn.BatchNorm1d(3, affine=False), nn.Dropout(0.5),
).double()
unused = nn.Linear(2, 2)
share_layers(network, fabric.device)
weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
parameters = [*network.parameters(), *unused.parameters(), weight]
optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
torch.manual_seed(1)
for n in (8, 7, 5, 1 + 1):
    x = torch.rand(n, 2, 6, 6, dtype=torch.float64)
    y = torch.rand(n, 3, dtype=torch.float64)
    share = d.Share.of(n)
    with computing(share):
        z = share.gather(network(x[share.own]))
    loss = ((z * weight - y) ** 2 / (z.std() + 1)).sum() + weight.square().sum()  # couples the samples
    optimizer.zero_grad()
    loss.backward()
    d.average_gradients(d.optimizer_parameters(optimizer))
    optimizer.step()
    found[f"loss {n}"] = loss.detach()
assert all(p.grad is None for p in unused.parameters())
network.eval()
found["evaluated"] = network(torch.ones(3, 2, 6, 6, dtype=torch.float64)).detach()
found["weight"] = weight.detach()
found |= {f"state {k}": v for k, v in network.state_dict().items()}
found["random"] = torch.rand(3)

share = d.Share.of(1)
assert share.whole == True and share.take(np.arange(1)).tolist() == [0]
items = list(range(5))
assert d.collected([i * i for i in items[d.process_rank() :: d.process_count()]]) == [0, 1, 4, 9, 16]
assert d.shared_object(d.process_rank()) == 0
assert d.by_first(lambda: {"rank": d.process_rank()}) == {"rank": 0}
order = out / "order"
with d.first_goes_ahead():
    if d.is_first():
        order.write_text("made")
    assert order.read_text() == "made"
run = d.open_run(out / f"run-{d.process_rank()}").create({}, resume=False)
d.barrier()
assert run.path == out / "run-0" and run.path.is_dir() and not (out / "run-1").exists()
run.log_metrics({"epoch": 1})
run.save_checkpoint("last", {"rank": d.process_rank()})
d.barrier()
assert run.load_checkpoint("last") == {"rank": 0}
if d.process_count() > 1:
    for error, seen in ((ValueError("bad file"), ProcessesError), (RunInterruptedError("stop"), RunInterruptedError)):
        def fail():
            raise error
        try:
            d.by_first(fail)
        except type(error) if d.is_first() else seen as caught:
            assert str(error) in str(caught)
        else:
            raise AssertionError("no error")
stop = StopSignal()
assert not d.stopped_together(stop)
if d.process_rank() == d.process_count() - 1:
    stop.requested, stop.name = True, "SIGTERM"
assert d.stopped_together(stop) and stop.requested and stop.name
if d.is_first():
    torch.save(found, out / "found.pt")
'''


def test_three_processes_give_what_one_gives(tmp_path: Path, together: Callable[..., None]):
    """Batches of 8, 7 and 5 do not divide evenly; one of 2 is computed by all three."""
    import torch

    (tmp_path / "one").mkdir()
    (tmp_path / "three").mkdir()
    program = tmp_path / "alone.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(program), str(tmp_path / "one")], env=environment, check=True)
    together(PROGRAM, tmp_path / "three", count=3)
    one, three = (torch.load(tmp_path / name / "found.pt", weights_only=True) for name in ("one", "three"))
    assert one.keys() == three.keys()
    for key, value in one.items():
        torch.testing.assert_close(
            three[key], value, rtol=1e-10, atol=1e-10, msg=lambda m, k=key: f"{k}: {m}"
        )
    assert torch.equal(one["random"], three["random"])  # all drew alike


def test_tasks_of_a_slurm_step_meet(tmp_path: Path):
    """The variables of a step of two tasks in a job of three; srun itself is not needed."""
    program = tmp_path / "step.py"
    program.write_text(
        "import torch\n"
        "from medshared import distributed as d\n"
        "fabric = d.open_fabric(torch.device('cpu'))\n"
        "total = float(d.summed(torch.tensor(1.0 + d.process_rank())))\n"
        "assert (d.process_count(), fabric.world_size, total) == (2, 2, 3.0)\n"
    )
    step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "3", "SLURM_STEP_NUM_TASKS": "2"}
    step |= {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "nowhere", "SLURM_NODEID": "0"}
    tasks = [
        subprocess.Popen(
            [sys.executable, str(program)],
            env=os.environ | step | {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)},
        )
        for task in range(2)
    ]
    assert [task.wait(timeout=120) for task in tasks] == [0, 0]


STOPPING = """
import argparse, sys, time
from pathlib import Path
import torch
from medshared import distributed as d
from medshared.command_line import RunInterruptedError, guarded
from medshared.processes import several_processes

saved = Path(sys.argv[1]) / "saved"
d.open_fabric(torch.device("cpu"))

@several_processes
def train(_):
    if d.is_first():
        time.sleep(1)
        saved.touch()
    raise RunInterruptedError("stopped")

assert guarded(train, argparse.Namespace()) == 75
assert saved.exists(), "ended before process 0 had saved"
"""


def test_nobody_ends_before_process_0_has_saved(tmp_path: Path, together: Callable[..., None]):
    """Code 75 of one process has srun kill the others."""
    together(STOPPING, tmp_path)
