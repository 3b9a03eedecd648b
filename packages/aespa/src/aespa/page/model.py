"""The network behind the page."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aespa.config import Mode
from aespa.page.options import PageOptions

if TYPE_CHECKING:
    from pathlib import Path

    from aespa.models.network import AespaNetwork
    from aespa.predictor import AespaPredictor

logger = logging.getLogger(__name__)

SAM_IMAGE_SIZE = 1024  # of the images that SAM and MedSAM were trained on
DEMONSTRATION = (
    "Demonstration network: trained for a minute on drawn images. It knows nothing of medical images; "
    "start the page with -weights."
)


@dataclass(frozen=True)
class PageModel:
    """A network and what to say about it.

    Attributes:
        network: Shared by all visitors, never written to.
        mode: What it was trained for.
        name: Shown on the page.
        note: A warning for visitors, or empty.
        seed: Of the samples.
    """

    network: AespaNetwork
    mode: Mode
    name: str
    note: str = ""
    seed: int = 0

    def predictor(self) -> AespaPredictor:
        """Return a predictor for one visitor."""
        from aespa.predictor import AespaPredictor

        return AespaPredictor(self.network, mode=self.mode, seed=self.seed)


def load_page_model(options: PageOptions) -> PageModel:
    """Load the network that the options name, or the small one.

    Raises:
        CheckpointError: The file cannot be used.
        RuntimeError: There is no such device.
    """
    from aespa.models.checkpoint import load_network
    from aespa.page.small_model import small_model
    from medshared.gpu import select_device

    device = select_device(options.device)
    if options.weights is None and options.sam_ckpt is not None:
        return PageModel(
            _plain_sam(options.sam_ckpt, options.image_size or SAM_IMAGE_SIZE).to(device).eval(),
            "SAM",
            f"{options.sam_ckpt.name}, without preferences",
            "These weights follow clicks, but know of no raters' styles.",
        )
    if options.weights is not None and options.sam_ckpt is not None:
        logger.info("-sam_ckpt %s: not needed, -weights holds the whole network", options.sam_ckpt)
    path = options.weights or small_model()
    network, rest = load_network(path, device=device, image_size=options.image_size)
    mode = options.mode or _trained_for(rest)
    note = "" if options.weights else DEMONSTRATION
    if note:
        logger.warning("%s", note)
    shown = path.name if options.weights else "small demonstration network"
    return PageModel(
        network, mode, f"{shown}, {mode}, {network.architecture.image_size} px", note, options.seed
    )


def _trained_for(rest: dict[str, Any]) -> Mode:
    """Return the mode that a checkpoint names; the original's name none."""
    config = rest.get("config")
    mode = config.get("mode") if isinstance(config, dict) else None
    return mode if mode in ("AESPA", "SPA", "SAM") else "AESPA"


def _plain_sam(path: Path, image_size: int) -> AespaNetwork:
    from aespa.config import Config
    from aespa.models.architecture import Architecture
    from aespa.models.build import build_network
    from aespa.models.sam_weights import load_sam_weights

    network = build_network(Architecture.from_config(Config(mode="SAM", image_size=image_size)))
    load_sam_weights(network, path)
    return network
