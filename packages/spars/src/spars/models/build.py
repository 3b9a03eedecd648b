"""Classifiers by name, and their weight files.

A weight file is a plain state dictionary, as the original writes it. Beside ``model_weights.pth`` this package keeps
``model_weights.json``, which says what network the weights belong to and what its input was; a file of the original has
none and is taken for ``Net`` on raw HU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from medshared import weights
from medshared.files import read_json, write_json
from spars.errors import CheckpointError
from spars.models.net import FULL_SHAPE, Net
from spars.models.window_net import WindowNet

if TYPE_CHECKING:
    import torch

    from spars.config import ClassifierConfig

Size = tuple[int, int, int]
Architecture = Literal["net", "window"]
Target = Size | Literal["native"]
Classifier = Net | WindowNet

FORMAT = 1  # of the JSON file


@dataclass(frozen=True)
class ClassifierMeta:
    """What a classifier is and what its input must be.

    Attributes:
        architecture: ``net``, the original's, or ``window``.
        window: Size in voxels of the windows that it was trained on; None for a file of the original.
        target_size: What windows are stretched to before the network sees them; ``native``: they are not.
        hu_window: HU that became 0 and 1; None: raw HU.
        width: Channels of the first convolution of ``window``.
    """

    architecture: Architecture
    window: Size | None
    target_size: Target
    hu_window: tuple[float, float] | None = None
    width: int = 8

    @classmethod
    def of(cls, config: ClassifierConfig) -> ClassifierMeta:
        """Return what a configuration trains."""
        resolved = config.resolved()
        return cls(
            cast("Architecture", resolved.architecture),
            resolved.crop_size,
            cast("Target", resolved.target_size),
            resolved.hu_window,
            resolved.width,
        )

    @property
    def input_size(self) -> Size:
        """Size in voxels of what the network sees."""
        if self.target_size != "native":
            return self.target_size
        if self.window is None:
            raise CheckpointError(
                "target_size is native, which needs to know the window; give the window's size"
            )
        return self.window


def build_classifier(
    what: ClassifierMeta | ClassifierConfig | Architecture,
    window: Size | None = None,
    target_size: Target | None = None,
    width: int = 8,
) -> Classifier:
    """Build a classifier with random weights.

    Args:
        what: A configuration or a description, which say everything; or an architecture's name.
        window: With a name: size of the windows in voxels.
        target_size: With a name: what windows are stretched to; None: 256×256×180 for ``net``, native for ``window``.
        width: With ``window``: channels of the first convolution.

    Raises:
        CheckpointError: The architecture is unknown, or the size of its input is.
        DataError: The input is too small for the network.
    """
    if isinstance(what, str):
        if what not in get_args(Architecture):
            known = ", ".join(get_args(Architecture))
            raise CheckpointError(f"architecture must be one of {known}, found {what!r}")
        default: Target = FULL_SHAPE if what == "net" else "native"
        meta = ClassifierMeta(what, window, target_size or default, width=width)
    else:
        meta = what if isinstance(what, ClassifierMeta) else ClassifierMeta.of(what)
    if meta.architecture == "net":
        return Net(meta.input_size)
    return WindowNet(meta.input_size, meta.width)


def meta_path(path: str | os.PathLike[str]) -> Path:
    """Return where the description of a weight file lies."""
    return Path(path).with_suffix(".json")


def save_classifier(path: str | os.PathLike[str], module: torch.nn.Module, meta: ClassifierMeta) -> Path:
    """Write weights as a plain state dictionary, and the description beside it, both atomically.

    Args:
        path: The weight file, with any suffix but ``.json``.
        module: The classifier.
        meta: What it is.

    Returns:
        The path of the weights.

    Raises:
        CheckpointError: The name ends in ``.json``.
        OSError: A file cannot be written.
    """
    if meta_path(path) == Path(path):
        raise CheckpointError(f"{path}: a weight file must not end in .json; call it {Path(path).stem}.pth")
    # The description first: weights without one would be taken for the original's.
    write_json(
        meta_path(path),
        {
            "format": FORMAT,
            "architecture": meta.architecture,
            "window": meta.window,
            "target_size": meta.target_size,
            "hu_window": meta.hu_window,
            "width": meta.width,
        },
    )
    return weights.save_checkpoint(path, {key: value.cpu() for key, value in module.state_dict().items()})


def load_classifier(
    path: str | os.PathLike[str],
    *,
    window: Size | None = None,
    target_size: Target | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Classifier, ClassifierMeta]:
    """Read a weight file strictly and build its classifier.

    Args:
        path: Of this package, or the original's ``*_weights.pth``.
        window: Size in voxels of the windows that it shall score; a native ``window`` network must have been trained
            on it.
        target_size: What windows shall be stretched to, for a file without a description (default 256×256×180); else it
            must agree with the description.
        device: Where the classifier is put.

    Returns:
        The classifier in evaluation mode, and what it is.

    Raises:
        CheckpointError: The file cannot be read, does not fit, or is for other windows; the message names the file and
            the keys.
    """
    path = Path(path)
    try:
        state = weights.extract_state_dict(weights.load_checkpoint(path))
    except weights.WeightsError as error:
        raise CheckpointError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    meta = _describe(path, state, window, target_size)
    _check_use(path, meta, window, target_size)
    module = build_classifier(meta)
    try:
        weights.load_state_dict(module, state)
    except weights.WeightsError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return module.eval().to(device), meta


def _describe(
    path: Path, state: Mapping[str, Any], window: Size | None, target: Target | None
) -> ClassifierMeta:
    """Return what a weight file holds: by its description, or by its names where it is the original's."""
    if meta_path(path).is_file():
        return read_meta(meta_path(path))
    if "fc5.weight" in state:
        return ClassifierMeta("net", window, target or FULL_SHAPE)
    if "logits.weight" in state:
        raise CheckpointError(
            f"{path}: {meta_path(path).name}, which says for what windows these weights are, is not beside it; copy it "
            "from where the weights were trained"
        )
    known = ", ".join(list(state)[:4])
    raise CheckpointError(
        f"{path}: these are no classifier's weights: expected names like conv1.weight and fc5.weight, found "
        f"{len(state)} names like {known}"
    )


def _check_use(path: Path, meta: ClassifierMeta, window: Size | None, target_size: Target | None) -> None:
    if window is not None and meta.target_size == "native" and tuple(window) != meta.window:
        raise CheckpointError(
            f"{path}: this classifier was trained on windows of {_text(meta.window)} voxels, asked to score "
            f"{_text(window)}; set window_size to its window, or train one with crop_size {_text(window)}"
        )
    if target_size is not None and target_size != meta.target_size:
        raise CheckpointError(
            f"{path}: this classifier sees windows at the size {_text(meta.target_size)}, target_size is "
            f"{_text(target_size)}; leave target_size out, or train a classifier for it"
        )


def read_meta(path: str | os.PathLike[str]) -> ClassifierMeta:
    """Read the description of a weight file.

    Args:
        path: The JSON file.

    Raises:
        CheckpointError: Naming the file and the key that is wrong.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: the description of the weights cannot be read: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: this is no description of a classifier: expected format {FORMAT}; it must be the file that was "
            "written beside the weights"
        )
    if found.get("architecture") not in get_args(Architecture):
        raise CheckpointError(
            f"{path}: architecture must be one of {', '.join(get_args(Architecture))}, found "
            f"{found.get('architecture')!r}"
        )
    target = found.get("target_size")
    window = found.get("window")
    hu_window = found.get("hu_window")
    return ClassifierMeta(
        found["architecture"],
        None if window is None else _size(path, "window", window),
        "native" if target == "native" else _size(path, "target_size", target),
        None if hu_window is None else _range(path, hu_window),
        _size(path, "width", [found.get("width")] * 3)[0],
    )


def _size(path: str | os.PathLike[str], key: str, value: Any) -> Size:
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 3 or any(type(n) is not int or n < 1 for n in numbers):
        raise CheckpointError(
            f"{path}: {key} must be whole numbers from 1, three for a size, found {value!r}"
        )
    return numbers[0], numbers[1], numbers[2]


def _range(path: str | os.PathLike[str], value: Any) -> tuple[float, float]:
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 2 or any(type(n) not in (int, float) for n in numbers) or not numbers[0] < numbers[1]:
        raise CheckpointError(f"{path}: hu_window must be two rising numbers or null, found {value!r}")
    return float(numbers[0]), float(numbers[1])


def _text(size: Target | Size | None) -> str:
    return size if isinstance(size, str) else "×".join(map(str, size or ()))
