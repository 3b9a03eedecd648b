"""Images whose raters differ in a known way: three styles of outlining the same lesion.

A lesion is a bright core within a less bright rim, with a satellite beside it. The *conservative* rater outlines the
core, the *standard* one the rim with what it holds, the *liberal* one the satellite as well. All of it can be seen, so
the only thing a network cannot know is whom to follow, and a click in the rim or in the satellite tells. The majority
is exactly the standard rater; giving that to everybody has a mean Dice of about 0.83, which following has to beat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aespa.data.arrays import RaterArrays, three_channels

STYLES = ("conservative", "standard", "liberal", "shifted")
BACKGROUND, NOISE = 0.25, 0.05
RIM_ABOVE, CORE_ABOVE, SATELLITE_ABOVE = 0.25, 0.25, 0.2
IMAGES_OF_A_PATIENT = 2


@dataclass(frozen=True, eq=False)
class Drawn:
    """One drawn image.

    Attributes:
        image: float32 ``[s, s]`` in [0, 1].
        masks: bool ``[4, s, s]`` in the order of `STYLES`; the last is the standard one, one pixel to the right.
        satellite: bool ``[s, s]``: where the satellite is outside the rim.
    """

    image: NDArray[np.float32]
    masks: NDArray[np.bool_]
    satellite: NDArray[np.bool_]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The image as bytes ``[s, s]``."""
        return np.rint(self.image * 255).astype(np.uint8)


@dataclass(frozen=True)
class Lesion:
    """Where a lesion lies, in units of the image's side.

    Attributes:
        y: Row of the centre, in [0.35, 0.65].
        x: Column of the centre, in [0.35, 0.65].
        radius: Of the core, in [0.12, 0.18]; the rim's is 1.55 and the satellite's 0.75 of it.
        angle: Direction of the satellite, whose centre is 2.3 radii away.
    """

    y: float
    x: float
    radius: float
    angle: float


def draw_lesion(rng: np.random.Generator) -> Lesion:
    """Draw place, size and direction."""
    y, x = rng.uniform(0.35, 0.65, 2).tolist()
    return Lesion(y, x, float(rng.uniform(0.12, 0.18)), float(rng.uniform(0, 2 * np.pi)))


def draw_sample(rng: np.random.Generator, size: int) -> Drawn:
    """Draw one image.

    Args:
        rng: Source of place, size, direction of the satellite, and noise.
        size: Side in pixels.

    Returns:
        The image and the masks of the four raters.
    """
    return render(draw_lesion(rng), rng, size)


def render(lesion: Lesion, rng: np.random.Generator, size: int, scale: float = 1.0) -> Drawn:
    """Paint a lesion over noise.

    Args:
        lesion: What to paint.
        rng: Source of the noise.
        size: Side in pixels.
        scale: Of all radii, as a ball's cut has above and below its middle; 0 = no lesion.

    Returns:
        The image and the masks of the four raters.
    """
    image = rng.normal(BACKGROUND, NOISE, (size, size))
    centres = (np.arange(size) + 0.5) / size

    def disc(y: float, x: float, r: float) -> NDArray[np.bool_]:
        return (centres[:, None] - y) ** 2 + (centres - x) ** 2 < (r * scale) ** 2

    radius, away = lesion.radius, 2.3 * lesion.radius
    core, rim = disc(lesion.y, lesion.x, radius), disc(lesion.y, lesion.x, 1.55 * radius)
    beside = (lesion.y + away * np.sin(lesion.angle), lesion.x + away * np.cos(lesion.angle))
    satellite = disc(*beside, 0.75 * radius) & ~rim
    image += RIM_ABOVE * rim + CORE_ABOVE * core + SATELLITE_ABOVE * satellite
    shifted = np.zeros_like(rim)
    shifted[:, 1:] = rim[:, :-1]
    masks = np.stack([core, rim, rim | satellite, shifted])
    return Drawn(np.clip(image, 0, 1).astype(np.float32), masks, satellite)


def draw_arrays(n: int, size: int, seed: int, *, raters: int = 3) -> RaterArrays:
    """Draw a data set in memory, without files.

    Args:
        n: Number of images.
        size: Side in pixels.
        seed: The same seed gives the same images; more of them begin with the same ones.
        raters: How many of `STYLES`, from the first.

    Returns:
        The arrays; two images make a patient.
    """
    images = np.empty((n, 1, size, size), np.uint8)
    masks = np.empty((n, raters, size, size), np.uint8)
    for i in range(n):
        drawn = draw_sample(image_rng(seed, i), size)
        images[i, 0], masks[i] = drawn.pixels, drawn.masks[:raters]
    valid = np.asarray(masks.any(axis=(2, 3)))
    return RaterArrays(
        three_channels(images),
        masks,
        valid,
        np.ones_like(valid),
        names=tuple(f"drawn-{i:04d}" for i in range(n)),
        patients=tuple(f"patient-{i // IMAGES_OF_A_PATIENT:04d}" for i in range(n)),
        rater_ids=STYLES[:raters],
        classes=(None,) * n,
    )


def image_rng(seed: int, *place: int) -> np.random.Generator:
    """Return the generator of one image: independent of how many others are drawn, and in which order."""
    return np.random.default_rng([seed, *place])
