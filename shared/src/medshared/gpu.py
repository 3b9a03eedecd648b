"""Device choice, precision, seeds that can be captured and restored, and peak memory."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import operator
import os
import random
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
logger = logging.getLogger(__name__)


class DeviceError(ValueError):
    """A device or precision that this machine does not have."""


def select_device(name: str = "auto") -> torch.device:
    """Return the device to compute on.

    Args:
        name: ``"auto"`` (CUDA, else MPS, else CPU), ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.

    Returns:
        The device; ``"cuda"`` without a number is the current CUDA device.

    Raises:
        DeviceError: for another name, and for a device that is not there.
    """
    import torch

    wanted = name.strip().lower()
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError(
                "device 'mps' was asked for, but this is no Mac with Metal; use 'auto' or 'cpu'"
            )
        return torch.device("mps")
    kind, colon, number = wanted.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise DeviceError(f"unknown device {name!r}: expected 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'")
    if not torch.cuda.is_available():
        built = "no CUDA device is visible" if torch.version.cuda else "this torch is built without CUDA"
        raise DeviceError(f"device {name!r} was asked for, but {built}; use 'auto' or 'cpu'")
    count = torch.cuda.device_count()
    if colon and int(number) >= count:
        raise DeviceError(
            f"device {name!r} was asked for, but the visible ones are cuda:0 to cuda:{count - 1}"
        )
    return torch.device(wanted)


def resolve_precision(setting: str, device: torch.device | str, amp: bool = True) -> Precision:
    """Turn a precision setting into Lightning's name for it.

    Args:
        setting: ``"auto"``, ``"32"``, ``"bf16"`` or ``"fp16"`` (or one of the names returned). ``"auto"`` is
            bfloat16 on CUDA devices that compute in it, float16 on older ones, and float32 elsewhere.
        device: where the network runs.
        amp: whether ``"auto"`` may choose mixed precision; an explicit setting wins over it.

    Returns:
        ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.

    Raises:
        DeviceError: for an unknown setting, float16 away from CUDA, and bfloat16 on a GPU without it.
    """
    import torch

    kind = torch.device(device).type
    names = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed", "16": "16-mixed"}
    wanted = names.get(str(setting), str(setting))
    native_bf16 = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        if kind != "cuda" or not amp:
            return "32-true"
        return "bf16-mixed" if native_bf16 else "16-mixed"
    if wanted == "32-true":
        return "32-true"
    if wanted == "bf16-mixed":
        if kind == "cuda" and not native_bf16:
            raise DeviceError(
                "precision 'bf16' needs an NVIDIA GPU of generation 8.0 or later; use 'fp16' or 'auto'"
            )
        return "bf16-mixed"
    if wanted == "16-mixed":
        if kind != "cuda":
            raise DeviceError(
                f"precision 'fp16' needs CUDA, but the device is {kind!r}; use 'bf16', '32' or 'auto'"
            )
        return "16-mixed"
    raise DeviceError(f"unknown precision {setting!r}: expected 'auto', '32', 'bf16' or 'fp16'")


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python, NumPy's global generator and torch on every device.

    Args:
        seed: at least 0; NumPy's global generator takes it modulo 2³².
        deterministic: make torch choose algorithms that give the same bits every time, and raise where there
            is none. Set both ways, so that the choice of an earlier run in the process does not linger.
    """
    import numpy as np
    import torch

    if seed < 0:
        raise ValueError(f"seed must be at least 0, found {seed}")
    if deterministic:
        # cuBLAS reads it when its handle is made; without it deterministic mode raises on CUDA.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)  # imports torch's compiler: seconds, if not needed
    torch.backends.cudnn.deterministic = deterministic
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries draw from the global generator)
    torch.manual_seed(seed % 2**63)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: small networks gain nothing by more, which only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def derive_seed(seed: int, *tags: int | str) -> int:
    """Return a seed for one part of a run, the same in every process and on every platform.

    Args:
        seed: the run's seed.
        *tags: what the part is, e.g. ``"fold", 3, "sampler"``; ``1`` and ``"1"`` are different.

    Returns:
        A whole number in [0, 2⁶³).

    Example:
        >>> derive_seed(42, "fold", 3)
        6127042104838590831
    """
    digest = hashlib.sha256()
    for tag in (seed, *tags):
        text = f"s{tag}" if isinstance(tag, str) else f"i{operator.index(tag)}"
        data = text.encode()
        digest.update(
            len(data).to_bytes(8, "big") + data
        )  # the length keeps ("ab", "c") and ("a", "bc") apart
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def capture_rng() -> dict[str, Any]:
    """Return the state of every random generator, made only of what ``torch.load(weights_only=True)`` reads.

    Returns:
        A mapping with ``python``, ``numpy`` (the global legacy generator), ``torch`` (CPU), ``cuda`` (one
        tensor for each visible device; empty without CUDA) and ``mps``.
    """
    import numpy as np
    import torch

    version, words, gauss = random.getstate()
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    if state["bit_generator"] != "MT19937":
        raise ValueError(
            f"NumPy's global generator is {state['bit_generator']}; only MT19937 can be captured"
        )
    mps = torch.backends.mps.is_available()
    return {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "key": torch.tensor(state["state"]["key"].astype(np.int64)),
            "pos": int(state["state"]["pos"]),
            "has_gauss": int(state["has_gauss"]),
            "gauss": float(state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if mps else None,
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Set every random generator to a state from `capture_rng`, bit for bit.

    Args:
        state: the captured mapping, as it was or after ``torch.save`` and ``torch.load`` with any
            ``map_location``. States of devices that this machine lacks are left out with a warning.

    Raises:
        KeyError: naming a part that is missing; no generator is changed then.
    """
    import numpy as np
    import torch

    missing = [name for name in ("python", "numpy", "torch", "cuda") if name not in state]
    if missing:
        raise KeyError(
            f"random state lacks {', '.join(missing)}; it has {', '.join(map(str, state)) or 'nothing'}"
        )
    python, numpy_state = state["python"], state["numpy"]
    random.setstate((int(python["version"]), tuple(python["words"].tolist()), python["gauss"]))
    key = numpy_state["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state(  # noqa: NPY002
        {
            "bit_generator": "MT19937",
            "state": {"key": key, "pos": int(numpy_state["pos"])},
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        }
    )
    torch.set_rng_state(state["torch"].cpu())  # generators take states from the CPU only
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if len(state["cuda"]) > here:
        logger.warning(
            "random state of %d CUDA devices, %d here: the rest is left out", len(state["cuda"]), here
        )
    for index, device_state in enumerate(state["cuda"][:here]):
        torch.cuda.set_rng_state(device_state.cpu(), index)
    if state.get("mps") is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"].cpu())


def peak_memory_bytes(device: torch.device | str | None = None) -> int:
    """Return the most memory used so far, in bytes.

    Args:
        device: a CUDA device for the most that its tensors took at once (since
            ``torch.cuda.reset_peak_memory_stats``); any other device for the largest resident size of this
            process. ``None`` is the current CUDA device where this process has used CUDA, else the process.

    Returns:
        Bytes; 0 where the platform does not tell.
    """
    torch = sys.modules.get("torch")
    if device is None:
        on_cuda = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    else:
        on_cuda = str(device).startswith("cuda")
    if on_cuda:
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)
