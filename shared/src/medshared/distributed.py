"""Several processes that train one network: who they are, what they exchange, and who writes.

`torchrun` or `srun` starts the processes; Lightning Fabric brings them together (gloo on CPU, NCCL on CUDA). Every
process reads the same configuration, goes through the same batches and computes its `Share` of each one. What the
ranks exchange makes a batch over several processes the batch of one: outputs are gathered before the loss, so that a
loss which counts or couples samples is the same; gradients are averaged before a step; dropout draws for the whole
batch; batch norm takes its statistics over it (`medshared.shared_layers`). One flat exchange a step instead of the
hooks of ``DistributedDataParallel``, since several of the losses take more than one backward pass, through a part of
the networks only.

Process 0 alone writes: `open_run` gives the others a run directory that they can only read.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medshared.command_line import RunInterruptedError
from medshared.process import StopSignal, run_logging
from medshared.processes import Processes, ProcessesError, started_processes
from medshared.runs import RunDirectory

if TYPE_CHECKING:
    import numpy as np
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy
    from torch import Tensor, nn

Result = TypeVar("Result")
# Process 0 may write reports for long while the others wait; whoever dies is noticed by torchrun or srun.
PATIENCE = timedelta(hours=6)


def is_first() -> bool:
    """Return whether this process is the one that writes: number 0, also before the processes have met."""
    return process_rank() == 0


def process_rank() -> int:
    """Return the number of this process."""
    return _group_number("get_rank", _own_rank)


def process_count() -> int:
    """Return how many processes train together; before they have met, how many were started."""
    return _group_number("get_world_size", lambda: started_processes().count)


def _own_rank() -> int:
    # LOCAL_RANK alone is set where Fabric itself started the other processes.
    started = started_processes()
    return started.rank if started.count > 1 else int(os.environ.get("LOCAL_RANK", "0"))


def _group_number(name: str, otherwise: Callable[[], int]) -> int:
    """Ask the group of processes, if there is one, without importing torch for that."""
    import sys

    module = sys.modules.get("torch.distributed")
    if module is not None and module.is_available() and module.is_initialized():
        return int(getattr(module, name)())
    return otherwise()


# ---------------------------------------------------------------------- coming together


def open_fabric(
    device: torch.device, precision: Any = "32-true", *, devices: Sequence[int] | int | None = None
) -> Fabric:
    """Return a launched Fabric for this process: alone on its device, or together with the others.

    Args:
        device: what the run was asked to compute on. A CUDA device of the same number as the process's on its
            machine is taken where several processes share a machine; naming one device for all is an error.
        precision: Lightning's name, see `medshared.gpu.resolve_precision`.
        devices: numbers of the devices on this machine, or how many: Fabric starts the missing processes itself.

    Raises:
        ImportError: when Lightning Fabric is not installed.
        ProcessesError: when there are fewer devices than processes.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise ImportError(
            "several processes need Lightning Fabric: install the package with its extra [distributed]"
        ) from error

    started = started_processes()
    many = started.count > 1 or (
        devices is not None and (devices if isinstance(devices, int) else len(devices)) > 1
    )
    plugins: Any = [_environment(started)]
    if not many:
        own: Any = [device.index] if device.index is not None else (devices or 1)
        return Fabric(accelerator=device.type, devices=own, precision=precision, plugins=plugins)  # type: ignore[arg-type]
    strategy = _strategy()
    chosen: Any = devices
    if started.count > 1 and not isinstance(devices, Sequence):
        places = _places(device, started)
        strategy.parallel_devices = places
        chosen = [place.index for place in places] if device.type == "cuda" else len(places)
        if device.type == "cuda" and len(set(chosen)) < len(chosen):
            chosen = chosen[:1]  # each process sees its own device under the same number
    fabric = Fabric(
        accelerator=device.type,  # type: ignore[arg-type]
        devices=chosen,
        num_nodes=started.machines,
        strategy=strategy,
        precision=precision,
        plugins=plugins,
    )
    fabric.launch()
    if fabric.device.type == "cuda":
        import torch

        torch.cuda.set_device(fabric.device)
    # Threads of gloo that outlive the interpreter abort it now and then.
    atexit.unregister(_leave)
    atexit.register(_leave)
    return fabric


def _leave() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _places(device: torch.device, started: Processes) -> list[torch.device]:
    """Return the device of each process on this machine."""
    import torch

    n = started.local_count
    if device.type == "mps":
        raise ProcessesError(f"device mps: {n} processes cannot share it; start one, or use device cpu")
    if device.type == "cpu":
        return [torch.device("cpu")] * n
    if device.index is not None:
        raise ProcessesError(
            f"device {device}: {n} processes were started on this machine; use device cuda, which gives each its own"
        )
    visible = torch.cuda.device_count()
    if visible == 1:  # as SLURM's --gpus-per-task shows them; NCCL refuses two processes on one device
        return [torch.device("cuda", 0)] * n
    if visible < n:
        raise ProcessesError(f"device cuda: {n} processes on this machine, which has {visible} CUDA devices")
    return [torch.device("cuda", number) for number in range(n)]


def _strategy() -> DDPStrategy:
    from lightning_fabric.strategies.ddp import DDPStrategy

    class AveragedGradients(DDPStrategy):
        """Lightning's DDP without the wrapper around the network: `average_gradients` exchanges before a step."""

        def setup_module(self, module: nn.Module) -> Any:
            return module

    return AveragedGradients(timeout=PATIENCE)


def _environment(started: Processes) -> ClusterEnvironment:
    """Return Lightning's environment of the launcher; its own detection takes a batch script for a step."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if started.launcher == "torchrun":
        return TorchElasticEnvironment()
    if started.launcher == "none":
        return LightningEnvironment()

    class StepEnvironment(SLURMEnvironment):
        """A step of a job: its tasks and machines may be fewer than the job's."""

        @property
        def main_address(self) -> str:
            named = os.environ.get("MASTER_ADDR")
            if named is None and started.machines == 1:  # a node's name need not be one that resolves
                named = "127.0.0.1"
            return named or self.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])

        def world_size(self) -> int:
            return started.count

        def validate_settings(self, num_devices: int, num_nodes: int) -> None:
            """Nothing to check: the devices were counted from the step."""

        @staticmethod
        def _validate_srun_variables() -> None:
            """Nothing to check: the step was started by srun, with or without ``--ntasks-per-node``."""

    return StepEnvironment(auto_requeue=False)


# ---------------------------------------------------------------------- what is exchanged


def _met() -> bool:
    return _group_number("get_world_size", lambda: 1) > 1


def _exchange_device() -> torch.device:
    import torch

    nccl = torch.distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def summed(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; no gradient passes."""
    import torch

    if not _met():
        return values
    found = values.detach().to(_exchange_device(), copy=True)
    torch.distributed.all_reduce(found)
    return found.to(values.device)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of all processes in place: before they are clipped, and before each step.

    A tensor that no process has a gradient of keeps none, so that the optimiser leaves it alone as it does in one
    process; where some lack one, theirs counts as zero.

    Args:
        parameters: the same ones in the same order in every process.
    """
    import torch

    if not _met():
        return
    tensors = list(parameters)
    present = summed(torch.tensor([float(p.grad is not None) for p in tensors])).tolist()
    chosen = [p for p, n in zip(tensors, present, strict=True) if n > 0]
    if not chosen:
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in chosen]
    flat = summed(torch.cat([grad.flatten() for grad in grads])) / process_count()
    for p, part in zip(chosen, flat.split([p.numel() for p in chosen]), strict=True):
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        p.grad.copy_(part.view_as(p))


def optimizer_parameters(optimizer: Any) -> list[nn.Parameter]:
    """Return all parameters of an optimiser, in its order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def stopped_together(stop: StopSignal) -> bool:
    """Return whether any process got a signal: often one alone does, and all must stop at the same step."""
    import torch

    if _met():
        asked = float(summed(torch.tensor(float(stop.requested)))) > 0
        stop.name = stop.name or ("a signal to another process" if asked else None)
        stop.requested = asked
    return stop.requested


def barrier() -> None:
    """Wait for all processes."""
    import torch

    if _met():
        summed(torch.zeros(1))


def shared_object(value: Result) -> Result:
    """Return the object that process 0 gives, in every process."""
    import torch

    if not _met():
        return value
    box: list[Any] = [value if is_first() else None]
    torch.distributed.broadcast_object_list(box, 0, device=_exchange_device())
    return box[0]


def collected(parts: Sequence[Result]) -> list[Result]:
    """Return the items of all processes in order, where each has computed every n-th one, from its number on.

    Example:
        >>> items = ["a", "b", "c"]
        >>> collected([each.upper() for each in items[process_rank() :: process_count()]])
        ['A', 'B', 'C']
    """
    import torch

    if not _met():
        return list(parts)
    n = process_count()
    found: list[Any] = [None] * n
    torch.distributed.all_gather_object(found, list(parts))
    total = sum(len(each) for each in found)
    return [found[number % n][number // n] for number in range(total)]


# ---------------------------------------------------------------------- who does what


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Run the block in process 0 first, which may write caches, then in the others, which find them.

    Raises:
        ProcessesError: in the others, when process 0 failed.
    """
    if not _met():
        yield
        return
    if not is_first():
        _raise_for(shared_object(None))
        yield
        return
    failure: tuple[str, str] | None = ("error", "ended")
    try:
        yield
        failure = None
    except BaseException as error:
        failure = _failure(error)
        raise
    finally:
        shared_object(failure)


def by_first(function: Callable[[], Result]) -> Result:
    """Call a function in process 0 alone and return its result in all.

    Args:
        function: writes what must be written once.

    Returns:
        What it returned; it travels by pickle.

    Raises:
        ProcessesError: in the others, when it failed.
    """
    result: Any = None
    with first_goes_ahead():
        if is_first():
            result = function()
    return shared_object(result)


def _failure(error: BaseException) -> tuple[str, str]:
    kind = "interrupted" if isinstance(error, RunInterruptedError) else "error"
    return kind, str(error) or type(error).__name__


def _raise_for(failure: Any) -> None:
    if failure is None:
        return
    kind, text = failure
    if kind == "interrupted":
        raise RunInterruptedError(text)
    raise ProcessesError(f"process 0 stopped: {text}")


class ReadOnlyRun(RunDirectory):
    """The run directory of a process that does not write: what it is told to write is left to process 0."""

    def create(self, *arguments: Any, **keywords: Any) -> ReadOnlyRun:
        """Make nothing."""
        return self

    @property
    def metrics_rows(self) -> list[dict[str, Any]]:
        """None: process 0 may be writing them."""
        return []

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Write nothing."""

    def truncate_metrics(self, n: int) -> None:
        """Write nothing."""

    def save_checkpoint(self, name: str, state: Mapping[str, Any]) -> Path:
        """Write nothing and return where the checkpoint lies."""
        return self.checkpoint_path(name)

    def write_results(self, results: Mapping[str, Any]) -> Path:
        """Write nothing and return where the results lie."""
        return self.path / "results.json"


def open_run(folder: str | os.PathLike[str]) -> RunDirectory:
    """Return the run directory of process 0, which writes, or its view for the others; the folder is process 0's.

    Args:
        folder: of the run; a name that holds the time may differ from process to process.
    """
    folder = shared_object(Path(folder))
    return RunDirectory(folder) if is_first() else ReadOnlyRun(folder)


@contextmanager
def run_log(name: str, run: RunDirectory) -> Iterator[None]:
    """Send log lines to ``log.txt`` of the run in process 0; the others show errors alone.

    Args:
        name: the package's logger.
        run: of `open_run`.
    """
    if is_first():
        with run_logging(name, run.path / "log.txt"):
            yield
        return
    with run_logging(name, level=logging.ERROR):
        yield


# ---------------------------------------------------------------------- the batch


@dataclass(frozen=True)
class Share:
    """The part of a batch that this process computes: every ``count``-th sample from ``rank`` on.

    A batch of fewer samples than processes is computed by all of them, so that none has an empty network input.

    Attributes:
        n: samples of the whole batch.
        rank: number of this process.
        count: processes.
    """

    n: int
    rank: int
    count: int

    @classmethod
    def of(cls, n: int) -> Share:
        """Return this process's share of ``n`` samples."""
        return cls(n, process_rank(), process_count())

    @property
    def whole(self) -> bool:
        """Whether this process computes the whole batch."""
        return self.count == 1 or self.n < self.count

    @property
    def own(self) -> slice:
        """The samples of this process."""
        return slice(None) if self.whole else slice(self.rank, None, self.count)

    def take(self, samples: np.ndarray) -> np.ndarray:
        """Return this process's samples of an array."""
        return samples[self.own]

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes in the order of the batch.

        Gradients flow back to this process's rows, times the number of processes: every process takes the gradient
        of the same loss over the whole batch, and `average_gradients` then gives what one process would have.

        Args:
            rows: one for each of this process's samples.
        """
        from medshared.shared_layers import rows_of

        shared = rows_of(self)
        return rows if shared is None else shared.gather(rows)


def restore_shared_rng(state: Mapping[str, Any]) -> None:
    """Set the random generators from what process 0 saved, also where this process has another CUDA device."""
    import torch

    from medshared.gpu import restore_rng

    restore_rng(state)
    if _met() and torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0].cpu(), torch.cuda.current_device())
