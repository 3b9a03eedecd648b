"""Synthetic H&E tissue with known truth: regions, fibres, nuclei, and lymphocytes that darkness alone cannot find.

A canvas is cut into Voronoi regions of three classes. Stroma has fibres, tumour has pale round nuclei, and both have
nuclei as dark as lymphocytes but of another shape: without them a darkness threshold would solve the detection.
Lymphocytes are dark discs that settle mostly in stroma. The picture is blurred and gets noise and a random gain of
every channel. Lengths are pixels; counts are per 64 x 64 pixels, so canvases of any size look alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

OTHER, TUMOR, STROMA = 0, 1, 2
CELL_RADIUS = 7  # of the cell masks, in pixels
CELL_UM = 7.0  # edge of a cell in the TIL score at 0.5 µm per pixel: 14 pixels, the diameter
UNIT_PX = 64
_COLOURS = np.array([[238, 230, 238], [170, 105, 165], [226, 160, 190]], np.float32)
_PALE_NUCLEUS = np.array([120, 75, 140], np.float32)
_DARK_NUCLEUS = np.array([62, 38, 105], np.float32)
_ACCEPTANCE = np.array([0.05, 0.2, 1.0])  # of a lymphocyte in other, tumour, stroma
_FIBRE_AMPLITUDE = 12.0
_PHASE_NOISE_PX, _PHASE_NOISE_RAD = 8.0, 1.0
_NUCLEUS_AREA = 120  # pixels of canvas for each pale nucleus that is tried
_DISTRACTORS = 6  # trials per unit
_SPINDLE, _LARGE_NUCLEUS = (9.0, 2.2), (8.5, 6.5)  # semi-axes
_NEAREST = 1.6 * CELL_RADIUS  # two centres are further apart than this
_DRAWN_RADIUS = CELL_RADIUS - 0.8
_BLUR, _NOISE, _GAIN = 0.7, 4.0, (0.92, 1.08)
_BACKGROUND = 243  # brightness of glass
# How the download labels what the method calls other and stroma.
_OTHER_LABELS, _STROMA_LABELS = (7, 7, 4, 5, 3), (2, 2, 6)
_SEGMENTATION = np.array([3, 1, 2], np.uint8)  # values of other, tumour, stroma in a slide's segmentation


@dataclass(frozen=True)
class Canvas:
    """A drawn piece of tissue and its truth.

    Attributes:
        image: uint8 [H, W, 3].
        classes: uint8 [H, W], 0 other, 1 tumour, 2 stroma.
        regions: int32 [H, W], number of the Voronoi region.
        centres: int64 [n, 2], (x, y) of the lymphocytes; a centre is the corner shared by four pixels.
    """

    image: np.ndarray
    classes: np.ndarray
    regions: np.ndarray
    centres: np.ndarray

    def crop(self, x: int, y: int, width: int, height: int) -> Canvas:
        """Return a rectangle of the canvas; cells whose centre lies in it come along."""
        inside = ((self.centres >= (x, y)) & (self.centres < (x + width, y + height))).all(axis=1)
        rows, columns = slice(y, y + height), slice(x, x + width)
        return Canvas(
            self.image[rows, columns],
            self.classes[rows, columns],
            self.regions[rows, columns],
            self.centres[inside] - (x, y),
        )

    def cell_mask(self) -> np.ndarray:
        """Return uint8 [H, W], 1 in the discs of the lymphocytes."""
        mask = np.zeros(self.classes.shape, np.uint8)
        for x, y in self.centres:
            rows, columns, inside = _ellipse((x, y), (CELL_RADIUS, CELL_RADIUS), 0.0, mask.shape)
            mask[rows, columns][inside] = 1
        return mask


def til_score(classes: np.ndarray, centres: np.ndarray, cell_px: float = 2 * CELL_RADIUS) -> float:
    """Return the share of the stroma that lymphocytes cover: 100 · cells in stroma · cell_px² / stroma pixels.

    Args:
        classes: uint8 [H, W], 2 is stroma.
        centres: [n, 2], (x, y) in pixels.
        cell_px: Edge of the square that a cell counts for.

    Returns:
        Percentage, 0 to 100; NaN without stroma.
    """
    stroma = int((classes == STROMA).sum())
    if not stroma:
        return float("nan")
    x, y = np.floor(np.asarray(centres).reshape(-1, 2).T).astype(np.int64)
    cells = int((classes[y, x] == STROMA).sum())
    return min(100.0, 100 * cells * cell_px**2 / stroma)


def draw_patch(seed: int, size: int = UNIT_PX) -> Canvas:
    """Draw one square patch.

    Args:
        seed: Everything follows from it.
        size: Edge in pixels.

    Returns:
        The patch with at least two of the classes and 2–7 trials of lymphocytes per 64 x 64 pixels.
    """
    generator = np.random.default_rng(seed)
    trials = int(generator.integers(2, 8) * max(1, round(size**2 / UNIT_PX**2)))
    return draw_canvas(generator, size, size, trials)


def draw_canvas(
    generator: np.random.Generator,
    width: int,
    height: int,
    trials: int,
    shares: np.ndarray | None = None,
) -> Canvas:
    """Draw tissue of any size.

    Args:
        generator: Source of all randomness.
        width: In pixels.
        height: In pixels.
        trials: Lymphocytes that are tried; those in a wrong place are refused.
        shares: float [3], probability of each class for a region; by default all classes alike, and at least two
            of them.

    Returns:
        The canvas.
    """
    regions, region_classes = _regions(generator, width, height, shares)
    classes = region_classes[regions]
    image = _COLOURS[classes]
    image += (classes == STROMA)[..., None] * _fibres(generator, regions, len(region_classes))[..., None]
    _draw_pale_nuclei(generator, image, classes)
    _draw_distractors(generator, image, classes)
    centres = _settle(generator, classes, trials)
    for x, y in centres:
        colour = _DARK_NUCLEUS + generator.uniform(-8, 8, 3).astype(np.float32)
        _paint(image, (x, y), (_DRAWN_RADIUS, _DRAWN_RADIUS), 0.0, colour)
    return Canvas(photograph(generator, image), classes, regions, centres)


def photograph(generator: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Return the picture as a scanner might give it: blurred, noisy, each channel with a gain of its own.

    Args:
        generator: Source of the noise.
        image: float32 [H, W, 3].

    Returns:
        uint8 [H, W, 3].
    """
    from scipy import ndimage

    blurred = ndimage.gaussian_filter(image, (_BLUR, _BLUR, 0), truncate=3.0)
    noise = generator.standard_normal(image.shape, dtype=np.float32) * _NOISE
    gain = generator.uniform(*_GAIN, 3).astype(np.float32)
    return np.clip(np.rint((blurred + noise) * gain), 0, 255).astype(np.uint8)


def tissue_labels(generator: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """Return the tissue in the download's labels 1 to 7; one region has one label.

    Args:
        generator: Chooses among the labels that mean the same class.
        canvas: The drawing.

    Returns:
        uint8 [H, W].
    """
    regions = int(canvas.regions.max()) + 1
    table = np.empty((3, regions), np.uint8)
    table[OTHER] = generator.choice(_OTHER_LABELS, regions)
    table[TUMOR] = 1
    table[STROMA] = generator.choice(_STROMA_LABELS, regions)
    return table[canvas.classes, canvas.regions]


def on_glass(
    generator: np.random.Generator, canvas: Canvas, margin: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a slide: the canvas with glass round it.

    Args:
        generator: Source of the glass's noise.
        canvas: The tissue.
        margin: Of glass on every side, in pixels.

    Returns:
        Image uint8 [H, W, 3], segmentation uint8 [H, W] (0 glass, 1 tumour, 2 stroma, 3 other), and the centres
        float64 [n, 2] in pixels of the slide.
    """
    height, width = canvas.classes.shape
    shape = (height + 2 * margin, width + 2 * margin)
    image = (_BACKGROUND + generator.normal(0, 1, (*shape, 3))).round().clip(0, 255).astype(np.uint8)
    segmentation = np.zeros(shape, np.uint8)
    inside = slice(margin, margin + height), slice(margin, margin + width)
    image[inside], segmentation[inside] = canvas.image, _SEGMENTATION[canvas.classes]
    return image, segmentation, canvas.centres + float(margin)


def _regions(
    generator: np.random.Generator, width: int, height: int, shares: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Voronoi region of every pixel and the class of every region: 2–4 regions per unit."""
    from scipy.spatial import KDTree

    units = max(1, round(width * height / UNIT_PX**2))
    count = int(generator.integers(2, 5, units).sum())
    seeds = generator.uniform((0, 0), (width, height), (count, 2))
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    nearest = np.asarray(KDTree(seeds).query(pixels)[1]).reshape(height, width).astype(np.int32)
    if shares is not None:
        return nearest, generator.choice(3, count, p=shares).astype(np.uint8)
    rounds = [generator.permutation(3) for _ in range(-(-count // 3))]
    return nearest, np.concatenate(rounds)[:count].astype(np.uint8)


def _fibres(generator: np.random.Generator, regions: np.ndarray, count: int) -> np.ndarray:
    """Return the brightness of fibres that run in one direction in every region, float32 [H, W]."""
    from scipy import ndimage

    angle = generator.uniform(0, np.pi, count).astype(np.float32)[regions]
    period = generator.uniform(6, 9, count).astype(np.float32)[regions]
    smooth = ndimage.gaussian_filter(
        generator.standard_normal(regions.shape, dtype=np.float32), _PHASE_NOISE_PX, truncate=2.5
    )
    smooth *= _PHASE_NOISE_RAD / max(float(smooth.std()), 1e-6)
    rows, columns = np.mgrid[: regions.shape[0], : regions.shape[1]].astype(np.float32)
    across = columns * np.cos(angle) + rows * np.sin(angle)
    return _FIBRE_AMPLITUDE * np.sin(2 * np.pi * across / period + smooth)


def _draw_pale_nuclei(generator: np.random.Generator, image: np.ndarray, classes: np.ndarray) -> None:
    height, width = classes.shape
    count = width * height // _NUCLEUS_AREA
    places = generator.uniform((0, 0), (width, height), (count, 2))
    radii = generator.uniform(4.5, 6.5, count)
    tumor = classes == TUMOR
    covered = np.zeros(classes.shape, bool)
    inside = tumor[places[:, 1].astype(int), places[:, 0].astype(int)]
    for place, radius in zip(places[inside], radii[inside], strict=True):
        rows, columns, disc = _ellipse(place, (radius, radius), 0.0, classes.shape)
        covered[rows, columns] |= disc
    covered &= tumor
    image[covered] = 0.45 * image[covered] + 0.55 * _PALE_NUCLEUS


def _draw_distractors(generator: np.random.Generator, image: np.ndarray, classes: np.ndarray) -> None:
    height, width = classes.shape
    count = round(_DISTRACTORS * width * height / UNIT_PX**2)
    places = generator.uniform((0, 0), (width, height), (count, 2))
    angles = generator.uniform(0, np.pi, count)
    colours = _DARK_NUCLEUS + generator.uniform(-8, 8, (count, 3)).astype(np.float32)
    for place, angle, colour in zip(places, angles, colours, strict=True):
        kind = classes[int(place[1]), int(place[0])]
        if kind != OTHER:
            _paint(image, place, _SPINDLE if kind == STROMA else _LARGE_NUCLEUS, angle, colour)


def _settle(generator: np.random.Generator, classes: np.ndarray, trials: int) -> np.ndarray:
    """Return the centres of the lymphocytes that found a place, int64 [n, 2]."""
    height, width = classes.shape
    places = np.stack([generator.integers(0, width, trials), generator.integers(0, height, trials)], axis=1)
    lucky = generator.random(trials) < _ACCEPTANCE[classes[places[:, 1], places[:, 0]]]
    settled = np.empty((trials, 2), np.int64)
    count = 0
    for place in places[lucky]:
        distance = settled[:count] - place
        if not count or (distance * distance).sum(axis=1).min() > _NEAREST**2:
            settled[count] = place
            count += 1
    return settled[:count].copy()


def _ellipse(
    place: np.ndarray | tuple[float, float], axes: tuple[float, float], angle: float, shape: tuple[int, ...]
) -> tuple[slice, slice, np.ndarray]:
    """Return rows, columns and bool pixels of an ellipse; a pixel belongs to it if its centre does."""
    x, y = float(place[0]), float(place[1])
    reach = max(axes)
    top, bottom = max(0, int(y - reach)), min(shape[0], int(y + reach) + 2)
    left, right = max(0, int(x - reach)), min(shape[1], int(x + reach) + 2)
    dy = np.arange(top, bottom)[:, None] + 0.5 - y
    dx = np.arange(left, right)[None] + 0.5 - x
    if axes[0] == axes[1]:
        return slice(top, bottom), slice(left, right), dx * dx + dy * dy <= axes[0] ** 2
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    return slice(top, bottom), slice(left, right), (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1


def _paint(
    image: np.ndarray,
    place: np.ndarray | tuple[float, float],
    axes: tuple[float, float],
    angle: float,
    colour: np.ndarray,
) -> None:
    rows, columns, inside = _ellipse(place, axes, angle, image.shape)
    image[rows, columns][inside] = colour
