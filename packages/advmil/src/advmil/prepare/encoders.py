"""Networks that turn a patch into features, and the pixels that each of them expects."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medshared.weights import extract_state_dict, load_checkpoint, load_state_dict

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)
UNI = "vit_large_patch16_224"  # timm's name of UNI's network; its layers are scaled (init_values)
WeightsChoice = Literal["cache", "download", "random"]


@dataclass(frozen=True)
class Encoder:
    """A network with its pixels.

    Attributes:
        name: As given to :func:`load_encoder`.
        network: [B, 3, S, S] → [B, width].
        width: Features of a patch.
        mean: Of each channel in [0, 1].
        sd: Of each channel.
        weights: Where the weights came from, for the record: a file's name and checksum, timm's tag, ``random``.
        input_px: Edge of the patches where the network takes no other, or was trained with one; null = any.
    """

    name: str
    network: nn.Module
    width: int
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]
    weights: str
    input_px: int | None = None

    def normalise(self, patches: Tensor) -> Tensor:
        """Return float patches [B, 3, S, S] ready for the network from uint8 ones [B, S, S, 3]."""
        pixels = patches.permute(0, 3, 1, 2).to(torch.float32).div_(255)
        mean = torch.tensor(self.mean, device=patches.device)[:, None, None]
        sd = torch.tensor(self.sd, device=patches.device)[:, None, None]
        return pixels.sub_(mean).div_(sd)


class TruncatedResNet50(nn.Module):
    """ResNet-50 up to and including its third stage, average-pooled: 1024 numbers a patch.

    State-dict keys are those of torchvision's ResNet-50, without ``layer4`` and ``fc``.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet50

        whole = resnet50(weights=None)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
            setattr(self, name, getattr(whole, name))

    def forward(self, x: Tensor) -> Tensor:
        """Encode normalised patches [B, 3, S, S] as [B, 1024]."""
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
            x = getattr(self, name)(x)
        return x.mean(dim=(2, 3))


def load_encoder(name: str, *, weights: Path | None = None, source: WeightsChoice = "cache") -> Encoder:
    """Build an encoder with its weights, in evaluation mode.

    Args:
        name: ``resnet50_trunc``; ``uni_v1`` (from a file); ``synthetic`` (the demonstration's, from a file); or the
            name of any timm model, which brings its own normalisation and width.
        weights: File with the weights; wins over ``source``.
        source: ``cache``: ImageNet weights from the local cache only; ``download``: fetch them when missing;
            ``random``: untrained weights, seeded.

    Raises:
        ValueError: Unknown name, or no weights where the name needs them.
        medshared.checkpoints.WeightsError: The file does not fit.
    """
    if name == "resnet50_trunc":
        return _resnet50_trunc(weights, source)
    if name == "synthetic":
        return _synthetic(weights)
    if name == "uni_v1":
        if weights is None and source != "random":
            raise ValueError(
                "encoder 'uni_v1': its weights are given out by their authors only; get pytorch_model.bin from them "
                "and give it by --weights FILE"
            )
        return _timm(UNI, weights, source, "uni_v1", init_values=1e-5, dynamic_img_size=True)
    if name == "conch_v1":
        raise ValueError(
            "encoder 'conch_v1': this network is not in timm; make its features with its authors' package (h5 files of "
            "CLAM's form are read as they are), or choose another timm model by name and give --weights FILE"
        )
    return _timm(name, weights, source)


def _from_file(network: nn.Module, path: Path, ignored: tuple[str, ...] = ()) -> str:
    """Load a file strictly, leaving out the keys of parts that the network lacks on purpose."""
    from medshared.files import sha256_file

    if not path.is_file():
        raise ValueError(f"{path}: no such file of weights")
    own = network.state_dict()
    state = extract_state_dict(load_checkpoint(path))
    state = {key: value for key, value in state.items() if key in own or not key.startswith(ignored)}
    load_state_dict(network, state, strict=True)
    return f"{path.name} sha256:{sha256_file(path)[:16]}"


def _resnet50_trunc(weights: Path | None, source: WeightsChoice) -> Encoder:
    if source == "random" and weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = TruncatedResNet50()
        origin = "random"
    else:
        network = TruncatedResNet50()
        path = weights or _torchvision_file(source)
        origin = _from_file(network, path, ignored=("fc.", "layer4."))
    return Encoder("resnet50_trunc", network.eval(), 1024, IMAGENET_MEAN, IMAGENET_SD, origin)


def _torchvision_file(source: WeightsChoice) -> Path:
    """Return torchvision's ImageNet (V1) file of ResNet-50 from torch's cache, fetched first when asked."""
    from torchvision.models import ResNet50_Weights

    url = ResNet50_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        if source != "download":
            raise ValueError(
                f"{path}: no ImageNet weights of ResNet-50 in the cache; give --weights FILE, --download, "
                "or --random-weights for a dry run"
            )
        torch.hub.load_state_dict_from_url(url, weights_only=True, check_hash=True, progress=False)
    return path


def _synthetic(weights: Path | None) -> Encoder:
    from advmil.synthetic_slides import SyntheticEncoder

    if weights is None:
        raise ValueError("encoder 'synthetic' needs --weights, the file that the demonstration wrote")
    state = extract_state_dict(load_checkpoint(weights))
    width = int(state["directions"].shape[1])
    network = SyntheticEncoder(width)
    origin = _from_file(network, weights)
    return Encoder("synthetic", network.eval(), width, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), origin)


def _timm(
    name: str, weights: Path | None, source: WeightsChoice, shown: str | None = None, **options: Any
) -> Encoder:
    """Build a timm model without its classifier.

    Args:
        name: timm's name.
        weights: File, or null.
        source: Where weights come from without a file.
        shown: Name of the encoder, if another one.
        options: For timm.
    """
    import timm

    if not timm.is_model(name):
        close = timm.list_models(f"*{name}*")[:5]
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ValueError(
            f"encoder {name!r}: expected resnet50_trunc, uni_v1, synthetic or the name of a timm model{hint}"
        )
    pretrained = weights is None and source != "random"
    with torch.random.fork_rng(devices=[]), _offline(pretrained and source == "cache"):
        torch.manual_seed(0)
        try:
            if pretrained and source == "cache":
                _refuse_uncached(name)
            network = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
        except Exception as error:  # whatever the hub's client raises without network or cache
            if not pretrained:
                raise
            raise ValueError(
                f"encoder {name!r}: its weights cannot be had ({_first_line(error)}); give --weights FILE, "
                "--download, or --random-weights for a dry run"
            ) from error
    known: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    origin = f"timm {name}.{known.get('tag') or 'default'}" if pretrained else "random"
    if weights is not None:
        origin = _from_file(network, weights, ignored=("fc.", "head.", "classifier.", "head_dist."))
    data = timm.data.resolve_data_config({}, model=network)  # type: ignore[attr-defined]
    width = int(network.num_features)  # type: ignore[arg-type]
    fixed = int(data["input_size"][-1]) if known.get("fixed_input_size") else None
    return Encoder(
        shown or name, network.eval(), width, tuple(data["mean"]), tuple(data["std"]), origin, fixed
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _refuse_uncached(name: str) -> None:
    """Refuse weights that timm would fetch from a plain address and the cache lacks; the hub is kept off otherwise."""
    import timm

    known = timm.get_pretrained_cfg(name)  # type: ignore[attr-defined]
    if known is None or known.hf_hub_id or not known.url:
        return
    file = Path(torch.hub.get_dir()) / "checkpoints" / str(known.url).rsplit("/", 1)[-1]
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not in the cache")


@contextlib.contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Keep the client of the model hub to its cache."""
    import huggingface_hub.constants as hub

    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = wanted or before
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before
