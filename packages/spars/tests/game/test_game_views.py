"""Views equal means of slices of the volume, at borders too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spars.errors import DataError
from spars.game.views import Views, view_shape, view_stride
from spars.lattice import Lattice


def mean_of_box(volume: np.ndarray, low: np.ndarray, side: int) -> float:
    """Mean of a cube that may leave the volume, where everything is 0."""
    total = 0.0
    for x in range(low[0], low[0] + side):
        for y in range(low[1], low[1] + side):
            for z in range(low[2], low[2] + side):
                if all(0 <= c < n for c, n in zip((x, y, z), volume.shape, strict=True)):
                    total += float(volume[x, y, z])
    return total / side**3


def slow_view(volume, lattice: Lattice, start, stride: int, scale: int) -> np.ndarray:
    sides = [max(1, w // stride) for w in lattice.window]
    reach = [w * (scale - 1) // 2 // stride * stride for w in lattice.window]
    found = np.zeros(sides)
    for place in np.ndindex(*sides):
        low = np.array(start) - reach + np.array(place) * scale * stride
        found[place] = mean_of_box(volume, low, scale * stride)
    return found


@st.composite
def places(draw):
    step = draw(st.integers(1, 4))
    stride = draw(st.sampled_from([s for s in (1, 2, 3, 4) if step % s == 0]))
    window = tuple(draw(st.integers(1, 6)) for _ in range(3))
    grid = tuple(w + draw(st.integers(0, 6)) for w in window)
    return Lattice(grid, window, step), stride, draw(st.integers(0, 4)), draw(st.integers(0, 2**16))


@settings(max_examples=40, deadline=None)
@given(places())
def test_views_are_means_of_blocks(drawn) -> None:
    lattice, stride, context, seed = drawn
    rng = np.random.default_rng(seed)
    volumes = [rng.random(lattice.grid, np.float32) for _ in range(2)]
    views = Views(volumes, lattice, stride, context)
    ends = [lattice.starts(np.zeros(3, np.int64)), lattice.starts(np.array(lattice.shape) - 1)]
    starts = np.stack([*ends, lattice.starts(lattice.unflat(rng.integers(0, len(lattice), 1)))[0]])
    case = np.array([0, 1, int(rng.integers(2))])
    found = views.at(case, starts)
    assert found.shape == (3, *views.shape)
    assert views.shape == view_shape(lattice.window, stride, context)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    for i, start in enumerate(starts):
        for channel, scale in enumerate((1, context) if context > 1 else (1,)):
            expected = slow_view(volumes[case[i]], lattice, start, stride, scale)
            np.testing.assert_allclose(found[i, channel], expected, atol=2e-6)


def test_a_window_that_the_stride_divides_is_covered_whole_and_the_context_is_centred_on_it() -> None:
    lattice = Lattice((24, 24, 24), (8, 8, 8), 4)
    volume = np.zeros(lattice.grid, np.float32)
    volume[8:16, 8:16, 8:16] = 1  # the centred window
    found = Views([volume], lattice, 4, 3).at(np.zeros(1, np.int64), np.array([[8, 8, 8]]))[0]
    assert (found[0] == 1).all()
    np.testing.assert_allclose(found[1], found[1][::-1, ::-1, ::-1])
    assert found[1].sum() == pytest.approx(8**3 / 12**3)


def test_views_never_leave_their_space() -> None:
    """Running sums over bright and dark stretches must not leave −1e-9 behind, which a space refuses."""
    rng = np.random.default_rng(0)
    lattice = Lattice((40, 40, 40), (12, 12, 12), 4)
    volume = rng.random(lattice.grid).astype(np.float32) * (rng.random(lattice.grid) < 0.5)
    volume[:, :, 20:] = 0
    volume[:20, :20] = 1
    everywhere = lattice.all_starts()
    found = Views([volume], lattice, 4, 3).at(np.zeros(len(everywhere), np.int64), everywhere)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize(
    ("window", "step", "expected"),
    [((48, 48, 24), 4, 4), ((12, 12, 8), 4, 2), ((8, 8, 8), 8, 2), ((3, 3, 3), 4, 1), ((40, 40, 40), 6, 6)],
)
def test_the_default_stride_leaves_four_voxels(window, step, expected) -> None:
    assert view_stride(window, step) == expected
    assert step % expected == 0


@pytest.mark.parametrize("stride", [0, 3, 8])
def test_a_stride_that_does_not_divide_the_step_is_refused(stride) -> None:
    lattice = Lattice((8, 8, 8), (4, 4, 4), 4)
    with pytest.raises(DataError, match=f"view_stride must divide the step of 4 voxels, found {stride}"):
        Views([np.zeros((8, 8, 8), np.float32)], lattice, stride)


def test_a_volume_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"the volume has \[8, 8, 7\] voxels, the lattice is for \[8, 8, 8\]"):
        Views([np.zeros((8, 8, 7), np.float32)], Lattice((8, 8, 8), (4, 4, 4), 4))
