"""The original's experiments: eight main runs and twelve ablations, by name; finished runs are left alone."""

from __future__ import annotations

import logging
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medshared.command_line import STOPPED

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """One run.

    Attributes:
        name: Also ``exp_name``.
        mode: The method.
        dataset: ``LIDC`` or ``MBHSeg-Binary``.
        image_size: Side of the input in pixels.
        batch: Images of a batch.
        samples: Latents, clusters and components of SPA; null = the defaults 48, 4, 16.
    """

    name: str
    mode: str
    dataset: str
    image_size: int
    batch: int
    samples: tuple[int, int, int] | None = None

    def arguments(self, data: Path, sam_ckpt: Path, log_root: Path, device: str) -> list[str]:
        """Return the arguments of ``aespa train``; the run lies in ``<log_root>/<name>``."""
        words = ["-exp_name", self.name, "-mode", self.mode, "-dataset", self.dataset]
        words += ["-data_path", str(data / self.dataset), "-sam_ckpt", str(sam_ckpt)]
        words += ["-image_size", str(self.image_size), "-b", str(self.batch), "-device", device]
        if self.samples is not None:
            n, clusters, components = self.samples
            words += ["-num_samples", str(n), "-n_clusters", str(clusters), "-n_components", str(components)]
        return [*words, "-output", str(log_root / self.name)]


_ABLATIONS = ((24, 4, 16), (12, 4, 16), (48, 3, 16), (48, 2, 16), (48, 4, 8), (48, 2, 4))
_SHORT = {"LIDC": "LIDC", "MBHSeg-Binary": "MBHSeg"}


def _all() -> tuple[Experiment, ...]:
    found = []
    for dataset, short in _SHORT.items():
        found += [
            Experiment(f"{short}_SPA_128", "SPA", dataset, 128, 64),
            Experiment(f"{short}_SPA_256", "SPA", dataset, 256, 16),
            Experiment(f"{short}_AESPA_128", "AESPA", dataset, 128, 64),
            Experiment(f"{short}_AESPA_256", "AESPA", dataset, 256, 64),
        ]
        found += [
            Experiment(f"{short}_SPA_N{n}_c{c}_K{k}", "SPA", dataset, 128, 64, (n, c, k))
            for n, c, k in _ABLATIONS
        ]
    return tuple(found)


EXPERIMENTS = {each.name: each for each in _all()}
NAMES = tuple(EXPERIMENTS)
GROUPS = {
    "all": NAMES,
    "main": tuple(name for name, each in EXPERIMENTS.items() if each.samples is None),
    "ablations": tuple(name for name, each in EXPERIMENTS.items() if each.samples is not None),
}


def chosen(names: Sequence[str]) -> list[Experiment]:
    """Return experiments by name or group.

    Args:
        names: Names, ``all``, ``main`` or ``ablations``.

    Raises:
        ValueError: For an unknown name.
    """
    wanted = [each for name in names for each in GROUPS.get(name, (name,))]
    unknown = [name for name in wanted if name not in EXPERIMENTS]
    if unknown:
        raise ValueError(
            f"unknown experiment {unknown[0]!r}: expected all, main, ablations, {', '.join(NAMES)}"
        )
    return [EXPERIMENTS[name] for name in dict.fromkeys(wanted)]


def _run(command: Sequence[str]) -> int:
    """Run a process that hears the signals which ask this one to stop; returns its exit code."""
    child = subprocess.Popen(command)
    heard = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    before = {number: signal.signal(number, lambda n, _: child.send_signal(n)) for number in heard}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # Before it listens itself, a signal ends it: there is nothing to save yet.
    return STOPPED if -code in heard else code


def run_experiments(
    names: Sequence[str],
    *,
    data: Path,
    sam_ckpt: Path,
    log_root: Path,
    device: str = "auto",
    only: int | None = None,
    dry_run: bool = False,
) -> int:
    """Run experiments one after the other, each in a process of its own; a failed one does not stop the others.

    Args:
        names: As for `chosen`; none lists all.
        data: Folder of ``LIDC`` and ``MBHSeg-Binary``.
        sam_ckpt: Weights of MedSAM.
        log_root: Folder of the runs.
        device: Where they run.
        only: Number, from 1, of the one to run of those chosen; null = all.
        dry_run: Print the commands only.

    Returns:
        Exit code: 1 if a run failed, 75 if one was stopped.

    Raises:
        ValueError: For an unknown name or number.
    """
    failed, wanted = [], chosen(names or ["all"])
    if only is not None:
        if not 1 <= only <= len(wanted):
            raise ValueError(
                f"-only: expected 1 to {len(wanted)}, the number of experiments chosen, found {only}"
            )
        wanted = [wanted[only - 1]]
    for each in wanted:
        words = ["train", *each.arguments(data, sam_ckpt, log_root, device)]
        folder = log_root / each.name
        if not names or dry_run:
            sys.stdout.write(f"{shlex.join(['aespa', *words])}\n")
            continue
        if (folder / "results.json").is_file():
            logger.info("%s: finished already", each.name)
            continue
        resume = ["-resume", str(folder)] if (folder / "checkpoints" / "last.pt").is_file() else []
        code = _run([sys.executable, "-m", "aespa.cli", *words, *resume])
        if code == STOPPED:
            return STOPPED
        if code:
            logger.error("%s failed with exit code %d", each.name, code)
            failed.append(each.name)
    if failed:
        logger.error("%d experiments failed: %s", len(failed), ", ".join(failed))
    return 1 if failed else 0
