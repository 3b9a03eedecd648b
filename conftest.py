"""Rules for all test suites: what a machine cannot run is left out by name, with the reason."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).parent


def _missing(marker: str) -> str | None:
    """Return why tests of a marker cannot run here, or None when they can."""
    if marker == "gpu":
        import torch

        return None if torch.cuda.is_available() else "no CUDA device (nox -s gpu on a machine that has one)"
    if marker == "slurm":
        return (
            None if os.environ.get("MEDPAPERS_SLURM") else "no local SLURM cluster (nox -s slurm starts one)"
        )
    found = shutil.which("chromium") or shutil.which("google-chrome")
    return None if found else "no Chromium (install it, then nox -s browser)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, tests whose machinery is absent."""
    reasons: dict[str, str | None] = {}
    for item in items:
        for marker in ("gpu", "slurm", "browser"):
            if item.get_closest_marker(marker) is None:
                continue
            if marker not in reasons:
                reasons[marker] = _missing(marker)
            if reasons[marker] is not None:
                item.add_marker(pytest.mark.skip(reason=f"left out: {reasons[marker]}"))
        killed = item.get_closest_marker("crash")
        if killed is not None and killed.kwargs.get("thorough") and "MEDPAPERS_KILLS" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="left out: takes long (nox -s crash)"))


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of the published reference data, which is never committed; skips the test where it is absent."""
    named = os.environ.get("MEDPAPERS_REFERENCE_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("left out: no reference data (set MEDPAPERS_REFERENCE_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def quick_runs() -> Iterator[None]:
    """One thread for tensors this small, and the list of installed packages read once and not by every run."""
    from medshared import environment
    from medshared.gpu import one_thread

    with pytest.MonkeyPatch.context() as patched, one_thread():
        for name in ("installed_packages", "git_state"):
            patched.setattr(environment, name, cache(getattr(environment, name)))
        yield


@pytest.fixture(scope="session")
def crashes(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Any]:
    """Kill runs and compare what they leave; see crash_testing.py. ``nox -s crash`` asks for more kills."""
    if sys.platform != "linux":
        pytest.skip("left out: killed runs are watched through /proc, which Linux alone has")
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    from crash_testing import CrashTester, scratch_folder

    with scratch_folder(tmp_path_factory) as folder:
        tester = CrashTester(folder, kills=int(os.environ.get("MEDPAPERS_KILLS", "3")))
        yield tester
        tester.close()
    # pytest shows no output of tests that pass, and the number of kills is the result of these.
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        sys.stderr.write("".join(f"\n  {line}" for line in tester.totals) + "\n")


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let figures be written as one dot, for tests of which drawing is the longest part and proves nothing."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    from matplotlib.figure import Figure

    from crash_testing import draw_quickly

    monkeypatch.setattr(Figure, "savefig", Figure.savefig)  # put back afterwards
    draw_quickly()


# Lightning imports torchmetrics, where that is installed, to ask for its version, which takes seconds.
_QUICKLY = """
import sys
sys.modules["torchmetrics"] = None
sys.path.append({root!r})
from crash_testing import draw_quickly
draw_quickly()
"""


@pytest.fixture
def together(tmp_path: Path) -> Callable[..., None]:
    """Run a program in several processes of ``torchrun`` (gloo on CPU); what they print is shown when one fails.

    Figures are written as one dot.
    """

    def run(program: str, *arguments: object, count: int = 2) -> None:
        path = tmp_path / "program.py"
        path.write_text(_QUICKLY.format(root=str(ROOT)) + program)
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", str(path)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", *launcher, *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        if done.returncode:
            pytest.fail(done.stdout)

    return run


# A suite with goldens says where they lie by a fixture `golden_folder`.
@pytest.fixture(scope="session")
def golden_json(golden_folder: Path) -> Callable[[str], Any]:
    """Read a golden JSON file; the strings ``nan``, ``inf`` and ``-inf`` become numbers."""

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: restore(item) for key, item in value.items()}
        if isinstance(value, list):
            return [restore(item) for item in value]
        return float(value) if value in ("nan", "inf", "-inf") else value

    return lambda name: restore(json.loads((golden_folder / f"{name}.json").read_text()))


@pytest.fixture(scope="session")
def golden_npz(golden_folder: Path) -> Callable[[str], dict[str, np.ndarray]]:
    """Read a golden array file."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(golden_folder / f"{name}.npz", allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    return read


@pytest.fixture(scope="session")
def fill_golden_weights() -> Callable[..., nn.Module]:
    """Give a module the weights that the goldens were made with: each tensor from its name, shape and a seed."""
    import torch

    def values(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
        rng = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
        if name.endswith("running_var"):
            return rng.uniform(0.5, 1.5, shape)
        drawn = rng.standard_normal(shape)
        if len(shape) <= 1:
            return (1.0 if name.endswith("weight") else 0.0) + 0.1 * drawn
        return drawn / math.sqrt(math.prod(shape[1:]))

    def fill(module: nn.Module, seed: int = 0) -> nn.Module:
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(torch.from_numpy(np.asarray(values(name, tuple(tensor.shape), seed))))
                else:
                    tensor.zero_()
        return module

    return fill


@pytest.fixture
def dry_run(tmp_path: Path) -> Callable[..., tuple[list[str], str]]:
    """Return how to ask a wrapper of ``slurm/`` what it would do: the commands, or nothing and the error."""

    def run(script: Path, *arguments: str, **variables: str) -> tuple[list[str], str]:
        kept = {"PATH", "PYTHONPATH", "HOME"}
        environment = {name: value for name, value in os.environ.items() if name in kept}
        # The stand-in shows as the plain name; the launcher itself runs under this interpreter.
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        environment |= {
            "DRY_RUN": "1",
            "PYTHON": str(python),
            "PARTITION": "gpu",
            "ACCOUNT": "",
            "TIME": "24:00:00",
        }
        done = subprocess.run(
            ["bash", str(script), *arguments],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        lines = done.stdout.replace(str(python), "python").splitlines()
        return ([], done.stderr) if done.returncode else (lines, done.stderr)

    return run


@pytest.fixture(scope="session")
def slurm_testing() -> Any:
    """The module ``slurm_testing`` of this folder: a user of the cluster that ``nox -s slurm`` starts."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    import slurm_testing

    return slurm_testing
