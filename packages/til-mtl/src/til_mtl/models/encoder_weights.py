"""Weights for the encoder from the files of other projects, whatever prefix they give their names.

Known layouts: torchvision and Lunit (plain names), SwAV (``module.`` with projection head and prototypes), MoCo
(``state_dict`` with ``module.encoder_q.``), Barlow Twins (``model`` with ``module.backbone.``), PyTorch Lightning
(``model.encoder.``), networks of this package, timm. Instead of listing prefixes, the names of each prefix are compared
with the encoder's, and the prefix under which most fit is taken.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from medshared.weights import LoadReport
from til_mtl.errors import CheckpointError
from til_mtl.models.weight_files import read_weights

if TYPE_CHECKING:
    from til_mtl.models.deeplab import TilNetwork

logger = logging.getLogger(__name__)

_TRUNK = re.compile(
    r"^(conv1|bn1|layer[123])\.0\."
)  # the original wraps each part in a Sequential of its own
_FLAT = re.compile(r"^([A-Za-z]+)_(\d+)\.")  # timm's feature networks call stages.0 stages_0
_SLOW_COPIES = ("encoder_k.", "momentum_encoder.", "target_")  # moving averages beside the trained encoder
_COUNTER = "num_batches_tracked"  # files older than torch 0.4.1 lack it


def load_encoder(network: TilNetwork, path: str | os.PathLike[str]) -> LoadReport:
    """Load encoder weights into a network, once and completely.

    Args:
        network: Whose encoder is filled; its other parts stay as they are.
        path: ``.torch``, ``.pth``, ``.ckpt`` or ``.safetensors``; see the module's text for the layouts.

    Returns:
        What fitted; ``unexpected`` names what the file holds besides (fourth stage, classifier, projection heads).

    Raises:
        CheckpointError: The file cannot be read, nothing in it fits, or some of the encoder is missing or of another
            shape; the network is then unchanged.
    """
    state, _ = read_weights(path)
    return load_encoder_state(network, state, str(path))


def load_encoder_state(network: TilNetwork, state: Mapping[str, Tensor], source: str) -> LoadReport:
    """Load encoder weights from names and tensors; see `load_encoder`.

    Args:
        network: Whose encoder is filled.
        state: Names and tensors.
        source: What messages call the weights.
    """
    own = encoder_state(network)
    prefix, chosen = _best_group(state, own)
    if not chosen:
        found = ", ".join(list(state)[:4])
        expected = ", ".join(list(dict.fromkeys(_spellings(key)[-1] for key in own))[:3])
        raise CheckpointError(
            f"{source}: no weight fits the encoder {network.encoder_name}: expected names like {expected} behind any "
            f"prefix, found {len(state)} names like {found}; choose a checkpoint of this encoder, or set `encoder`"
        )
    report = _report(own, {key: (name, state[name]) for key, name in chosen.items()}, state)
    incomplete = [key for key in report.missing if not key.endswith(_COUNTER)]
    if incomplete or report.reshaped:
        raise CheckpointError(
            f"{source}: only {len(report.matched)} of {len(own)} weights fit the encoder {network.encoder_name} "
            f"(names behind {prefix!r}); choose a checkpoint of this encoder, or set `encoder`:\n{report.table()}"
        )
    network.load_state_dict({key: state[chosen[key]] for key in report.matched}, strict=False)
    logger.info("%s", describe(report, source, prefix, len(own)))
    return report


def describe(report: LoadReport, source: str, prefix: str, expected: int) -> str:
    """Say in one line what was loaded and what was left out.

    Args:
        report: Of `load_encoder_state`.
        source: Where the weights came from.
        prefix: What the file puts before the encoder's names.
        expected: Number of the encoder's weights.
    """
    parts = Counter(name.removeprefix(prefix).split(".")[0] for name in report.unexpected)
    rest = ", ".join(f"{part} ({count})" for part, count in parts.items())
    where = f" behind {prefix!r}" if prefix else ""
    left = f"; left out of the file: {rest}" if rest else ""
    return f"{source}: {len(report.matched)} of {expected} encoder weights loaded{where}{left}"


def encoder_state(network: TilNetwork) -> dict[str, Tensor]:
    """Return the encoder's part of a network's state dictionary."""
    prefixes = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "encoder.")
    return {key: value for key, value in network.state_dict().items() if key.startswith(prefixes)}


def _spellings(key: str) -> tuple[str, ...]:
    """Return how files may spell a key of the network; the usual spelling last."""
    if not key.startswith("encoder."):
        return key, _TRUNK.sub(r"\1.", key)
    name = key.removeprefix("encoder.")
    return (name,) if _FLAT.match(name) is None else (name, _FLAT.sub(r"\1.\2.", name))


def _best_group(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[str, dict[str, str]]:
    """Return the prefix under which most names are the encoder's, and own key → name in the file."""
    lookups: list[dict[str, str]] = [{}, {}]
    for key in own:
        spellings = _spellings(key)
        lookups[0][spellings[0]] = key
        lookups[1][spellings[-1]] = key
    groups: dict[tuple[str, int], dict[str, str]] = {}
    for name in state:
        starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
        for start in starts:
            for layout, lookup in enumerate(lookups):
                key = lookup.get(name[start:])
                if key is not None:
                    groups.setdefault((name[:start], layout), {})[key] = name
    if not groups:
        return "", {}

    def worth(item: tuple[tuple[str, int], dict[str, str]]) -> tuple[int, bool, int]:
        (prefix, layout), members = item
        slow = any(copy in prefix for copy in _SLOW_COPIES)
        return len(members), not slow, layout

    (prefix, _), members = max(groups.items(), key=worth)
    return prefix, members


def _report(
    own: Mapping[str, Tensor], found: Mapping[str, tuple[str, Tensor]], state: Mapping[str, Any]
) -> LoadReport:
    reshaped = [
        (key, tuple(own[key].shape), tuple(value.shape))
        for key, (_, value) in found.items()
        if own[key].shape != value.shape
    ]
    differing = {key for key, _, _ in reshaped}
    used = {name for name, _ in found.values()}
    unexpected = [name for name in state if name not in used]
    missing = [key for key in own if key not in found]
    shapes = {key: tuple(own[key].shape) for key in missing}
    shapes |= {name: tuple(state[name].shape) for name in unexpected}
    matched = [key for key in own if key in found and key not in differing]
    return LoadReport(matched, missing, unexpected, reshaped, shapes)


def find_imagenet_file(encoder: str) -> Path | None:
    """Return the ImageNet weights of an encoder in the caches of torch and Hugging Face, or None.

    Args:
        encoder: ``resnet50`` or a name of timm.
    """
    if encoder == "resnet50":
        from torch import hub
        from torchvision.models import ResNet50_Weights

        for entry in (ResNet50_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2):
            path = Path(hub.get_dir()) / "checkpoints" / entry.url.rsplit("/", 1)[-1]
            if path.is_file():
                return path
    repository = _repository(encoder)
    return _in_hugging_face_cache(repository) if repository else None


def _in_hugging_face_cache(repository: str) -> Path | None:
    """Look into the cache's documented layout: models--<owner>--<name>/{refs/main,snapshots/<commit>/<file>}."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    folder = cache / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / "main"
    if not reference.is_file():
        return None
    snapshot = folder / "snapshots" / reference.read_text().strip()
    found = [snapshot / name for name in ("model.safetensors", "pytorch_model.bin")]
    return next((path for path in found if path.is_file()), None)


def download_imagenet_file(encoder: str) -> Path:
    """Fetch the ImageNet weights of an encoder from where torchvision or timm publish them.

    Args:
        encoder: ``resnet50`` or a name of timm.

    Raises:
        CheckpointError: There are none, or the download failed.
    """
    try:
        if encoder == "resnet50":
            from torchvision.models import ResNet50_Weights

            ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        elif (repository := _repository(encoder)) is not None:
            from timm.models import load_state_dict_from_hf

            load_state_dict_from_hf(repository, weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"pretrained: imagenet: the download for {encoder} failed: {reason}") from error
    path = find_imagenet_file(encoder)
    if path is None:
        raise CheckpointError(f"pretrained: imagenet: nobody publishes ImageNet weights of {encoder}")
    return path


def _repository(encoder: str) -> str | None:
    """Return where timm publishes the weights of a network."""
    from timm.models import get_pretrained_cfg

    published = get_pretrained_cfg(encoder, allow_unregistered=True)
    return published.hf_hub_id if published is not None else None
