"""What a machine and an installation can do, line by line: the common part of each package's ``doctor``."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path


def describe_machine(
    packages: Sequence[str], extras: Mapping[str, str], weights: Mapping[str, Path] | None = None
) -> list[str]:
    """Return one line a fact: versions, devices, optional parts, weights on disk, free space.

    Args:
        packages: Distributions whose versions matter.
        extras: Module of each optional part → what to install for it, such as ``advmil[wandb]``.
        weights: What they are, such as ``ImageNet weights of resnet50`` → where the cache keeps them.
    """
    import torch

    lines = [f"Python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} CPU cores"]
    lines += [_version(name) for name in packages]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            lines.append(f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        lines.append("no CUDA device: everything runs on the CPU (--device cpu)")
    for module, extra in extras.items():
        found = importlib.util.find_spec(module) is not None
        lines.append(f"{module}: " + ("installed" if found else f'absent (pip install "{extra}")'))
    for name, file in (weights or {}).items():
        state = f"on disk ({file})" if file.is_file() else "absent: --download fetches them"
        lines.append(f"{name}: {state}")
    lines.append(f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free in {Path.cwd()}")
    return lines


def _version(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name}: absent"


def describe_slides() -> tuple[list[str], bool]:
    """Return lines on the libraries that read slides, tried on a tiny slide, and whether slides can be read."""
    try:
        import openslide

        lines = [f"OpenSlide library {openslide.__library_version__}"]
    except (ImportError, OSError) as error:
        return [f"OpenSlide does not load ({error}): slides cannot be read; pip install openslide-bin"], False
    try:
        import pyvips

        lines.append("libvips library " + ".".join(str(pyvips.version(part)) for part in range(3)))
    except (ImportError, OSError) as error:
        lines.append(f"libvips does not load ({error}): slides are read through OpenSlide, more slowly")
    try:
        found, works = _try_slide()
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        found, works = f"a slide written for the test cannot be read: {error}", False
    return [*lines, found], works


def _try_slide() -> tuple[str, bool]:
    """Write a tiny slide, open it and say how it is read."""
    import numpy as np

    from medshared.slides import open_slide, write_pyramid

    try:
        import imagecodecs  # noqa: F401 - compresses the tiny slide
    except ImportError:
        return 'reading was not tried: writing a slide needs pip install "medshared[images]"', True
    image = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = write_pyramid(Path(folder) / "tiny.svs", image, 0.5, downsamples=(1, 4))
        with open_slide(path) as slide:
            slide.read_level((0, 0), 0, 64)
            levels = len(slide.fast_levels)
    if levels:
        return f"fast path: works, {levels} levels read through libvips with OpenSlide's pixels", True
    return "fast path: none, tiles are read through OpenSlide", True
