"""What a network is made of; written into every checkpoint, so a file says how to build its network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aespa.config import Block, ClickOrder, Config, Encoder
from aespa.errors import CheckpointError

WINDOW = 14  # tokens a side of a window of the windowed blocks


@dataclass(frozen=True)
class EncoderSize:
    """Measures of an image encoder.

    Attributes:
        patch: pixels a side of a token.
        width: channels of a token.
        depth: number of blocks.
        heads: attention heads of a block.
        global_blocks: blocks that attend over the whole image; the others attend in windows.
        stored_grid: tokens a side of the stored position table; ``None`` = those of the image size.
        decoder_mlp: hidden width of the mask decoder's transformer.
    """

    patch: int
    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    stored_grid: int | None = 64
    decoder_mlp: int = 2048


SIZES: dict[str, EncoderSize] = {
    "tiny": EncoderSize(8, 128, 2, 4, (0, 1), stored_grid=None, decoder_mlp=512),
    "vit_b": EncoderSize(16, 768, 12, 12, (2, 5, 8, 11)),
    "vit_l": EncoderSize(16, 1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": EncoderSize(16, 1280, 32, 16, (7, 15, 23, 31)),
}


@dataclass(frozen=True)
class Architecture:
    """A network, without its weights.

    Attributes:
        encoder: size of the image encoder, a key of `SIZES`.
        image_size: side of the input in pixels, a multiple of the patch.
        n_components: Gaussians K of the preference distribution.
        block: block of the mask decoder's transformer: SAM's, or EfficientSAM's as in the original.
        mixture: ``image``: every image has its own mixture; ``batch``: one averaged over the batch, as in the
            original, where a prediction depends on the other images of its batch.
        latent: ``component``: a sample comes from one component of the mixture; ``shared``: all components share
            one noise vector, as in the original, which makes the mixture a single Gaussian.
        variance: how variances are made positive; the original's ``relu`` has a dead zone.
        upsample: from low-resolution logits to pixels.
        click_order: ``yx``: rows and columns of clicks are swapped before encoding, as the original's weights expect.
        responsibility: ``log``: in log space; ``original``: densities that underflow far from all components.
        preferences: whether the mixture and the fusion of latents are in use; without them this is plain SAM.
    """

    encoder: Encoder = "vit_b"
    image_size: int = 256
    n_components: int = 16
    block: Block = "sam"
    mixture: Literal["image", "batch"] = "image"
    latent: Literal["component", "shared"] = "component"
    variance: Literal["softplus", "relu"] = "softplus"
    upsample: Literal["bilinear", "nearest"] = "bilinear"
    click_order: ClickOrder = "xy"
    responsibility: Literal["log", "original"] = "log"
    preferences: bool = True

    def __post_init__(self) -> None:
        if self.encoder not in SIZES:
            raise ValueError(f"encoder must be one of {', '.join(SIZES)}, found {self.encoder!r}")
        if self.image_size < self.patch or self.image_size % self.patch:
            raise ValueError(
                f"image_size must be a multiple of {self.patch} for encoder: {self.encoder}, found {self.image_size}"
            )
        if self.n_components < 1:
            raise ValueError(f"n_components must be at least 1, found {self.n_components}")

    @property
    def size(self) -> EncoderSize:
        """Measures of the image encoder."""
        return SIZES[self.encoder]

    @property
    def patch(self) -> int:
        """Pixels a side of a token."""
        return self.size.patch

    @property
    def grid(self) -> int:
        """Tokens a side of an image."""
        return self.image_size // self.patch

    @property
    def low_res(self) -> int:
        """Side of the decoder's logits and of the mask prompt."""
        return 4 * self.grid

    @classmethod
    def from_config(cls, config: Config) -> Architecture:
        """Return the network that a configuration asks for."""
        config = config.resolved()
        return cls(
            encoder=config.encoder,
            image_size=config.image_size,
            n_components=config.n_components,
            block=config.decoder or "sam",
            mixture=config.mixture or "image",
            latent=config.latent or "component",
            variance=config.variance or "softplus",
            upsample=config.upsample or "bilinear",
            click_order=config.click_order or "xy",
            responsibility="original" if config.faithful else "log",
            preferences=config.mode != "SAM",
        )

    @classmethod
    def original(cls, image_size: int = 128, n_components: int = 16) -> Architecture:
        """Return the network of the original's checkpoints."""
        return cls(
            encoder="vit_b",
            image_size=image_size,
            n_components=n_components,
            block="efficient",
            mixture="batch",
            latent="shared",
            variance="relu",
            upsample="nearest",
            click_order="yx",
            responsibility="original",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Architecture:
        """Return the network that a checkpoint describes.

        Raises:
            CheckpointError: naming keys or values that this version does not know.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise CheckpointError(
                f"the checkpoint's architecture has unknown keys {', '.join(unknown)}; "
                f"known are {', '.join(sorted(known))}: it was written by a newer version"
            )
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint's architecture cannot be built: {error}") from error

    def resized(self, image_size: int) -> Architecture:
        """Return the same network for another image size."""
        return dataclasses.replace(self, image_size=image_size)
