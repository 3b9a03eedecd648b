"""NIfTI volumes against nibabel, and every frame against its way back."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine

from medshared.volumes import (
    Volume,
    VolumeError,
    from_canonical,
    is_volume_name,
    read_volume,
    resample_spacing,
    resize_volume,
    resized_affine,
    to_canonical,
    volume_stem,
    voxel_spacing,
    window_hu,
    write_volume,
)


def drawn_affine(rng: np.random.Generator) -> np.ndarray:
    """Any invertible affine: rotated far, flipped, with unequal voxel sizes."""
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.3, 5, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


seeds = st.integers(0, 10**6)


@pytest.mark.parametrize("name", ["a.nii", "deep/b.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_what_is_written_is_read(tmp_path, name, dtype):
    rng = np.random.default_rng(0)
    array = (
        rng.uniform(0, 200, (4, 5, 6)) if dtype != np.float32 else rng.standard_normal((4, 5, 6))
    ).astype(dtype)
    affine = drawn_affine(rng)
    write_volume(tmp_path / name, array, affine)
    found = read_volume(tmp_path / name)
    np.testing.assert_array_equal(found.array, array)
    assert found.array.dtype == (np.float32 if dtype == np.float32 else np.int16)
    assert found.array.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(found.affine, affine, rtol=1e-6)
    np.testing.assert_allclose(found.spacing, nibabel.load(tmp_path / name).header.get_zooms(), rtol=1e-5)
    assert found.path == tmp_path / name


def test_same_values_same_bytes(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    first = write_volume(tmp_path / "a.nii.gz", array, np.eye(4)).read_bytes()
    assert write_volume(tmp_path / "b.nii.gz", array, np.eye(4)).read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]


@pytest.mark.parametrize(
    ("array", "stored"),
    [
        (np.ones((2, 2, 2), bool), np.uint8),
        (np.ones((2, 2, 2), np.int64), np.int16),
        (np.full((2, 2, 2), 70_000, np.int64), np.int32),
        (np.ones((2, 2, 2), np.float64), np.float32),
    ],
)
def test_types_that_nifti_lacks_become_smaller_ones(tmp_path, array, stored):
    path = write_volume(tmp_path / "a.nii", array, np.eye(4))
    assert nibabel.load(path).get_data_dtype() == stored
    np.testing.assert_array_equal(read_volume(path).array, array)


def test_refuses_to_write_what_it_could_not_read(tmp_path):
    with pytest.raises(VolumeError, match=r"a\.nrrd: a volume is written as"):
        write_volume(tmp_path / "a.nrrd", np.ones((2, 2, 2)), np.eye(4))
    with pytest.raises(VolumeError, match=r"three axes, found shape \[2, 2\]"):
        write_volume(tmp_path / "a.nii", np.ones((2, 2)), np.eye(4))
    with pytest.raises(VolumeError, match="cannot be written"):
        write_volume(tmp_path / "a.nii", np.full((2, 2, 2), 2**40), np.eye(4))
    assert not list(tmp_path.iterdir())


def scaled_file(path: Path, raw: np.ndarray, slope: float, intercept: float) -> Path:
    image = nibabel.Nifti1Image(raw, np.eye(4))
    image.header.set_slope_inter(slope, intercept)
    image.to_filename(path)
    # nibabel writes values so that scaling gives them back; the raw ones are what this test is about.
    data = bytearray(path.read_bytes())
    data[352:] = raw.tobytes(order="F")
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(2.0, -1024.0, np.int16), (0.5, 0.0, np.float32), (0.1, 3.0, np.float32)],
)
def test_scale_of_the_header_is_applied(tmp_path, slope, intercept, dtype):
    raw = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = scaled_file(tmp_path / "a.nii", raw, slope, intercept)
    found = read_volume(path)
    np.testing.assert_allclose(found.array, raw * slope + intercept, rtol=1e-6)
    np.testing.assert_allclose(found.array, nibabel.load(path).get_fdata(), rtol=1e-6)
    assert found.array.dtype == dtype


def test_whole_floats_become_int16_and_others_stay(tmp_path):
    whole = np.array([-1024.0, 0, 3071, 12], np.float32).reshape(1, 2, 2)
    assert read_volume(write_volume(tmp_path / "a.nii", whole, np.eye(4))).array.dtype == np.int16
    for value in (12.5, 1e-7, 40_000.0):  # a fraction, however small, and what int16 cannot hold
        other = whole.copy()
        other[0, 0, 0] = value
        found = read_volume(write_volume(tmp_path / "b.nii", other, np.eye(4))).array
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, other)


def test_one_frame_is_a_volume_and_more_are_not(tmp_path):
    nibabel.Nifti1Image(np.ones((2, 3, 4, 1), np.int16), np.eye(4)).to_filename(tmp_path / "one.nii")
    assert read_volume(tmp_path / "one.nii").shape == (2, 3, 4)
    nibabel.Nifti1Image(np.ones((2, 3, 4, 2), np.int16), np.eye(4)).to_filename(tmp_path / "two.nii")
    with pytest.raises(VolumeError, match=r"two\.nii: expected three axes, found shape \[2, 3, 4, 2\]"):
        read_volume(tmp_path / "two.nii")


def _written(folder: Path, fault: str) -> Path:
    array = np.arange(6000, dtype=np.float32).reshape(20, 15, 20)
    path = folder / "x.nii.gz"
    good = write_volume(path, array, np.eye(4)).read_bytes()
    if fault == "missing":
        path.unlink()
    elif fault == "empty file":
        path.write_bytes(b"")
    elif fault == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif fault == "not gzip":
        path.write_bytes(gzip.decompress(good))
    elif fault == "noise":
        path.write_bytes(gzip.compress(b"no header at all" * 50))
    elif fault == "suffix":
        path = path.rename(folder / "x.dcm")
    elif fault == "no voxels":
        nibabel.Nifti1Image(np.ones((4, 0, 3), np.int16), np.eye(4)).to_filename(path)
    elif fault == "nan":
        array[3, 4, 5] = np.nan
        nibabel.Nifti1Image(array, np.eye(4)).to_filename(path)
    elif fault == "infinite":
        array[0, 0, 0] = np.inf
        nibabel.Nifti1Image(array, np.eye(4)).to_filename(path)
    elif fault == "flat affine":
        image = nibabel.Nifti1Image(array, np.eye(4))
        image.set_sform(np.diag([1, 1, 0, 1]), code=2)
        image.to_filename(path)
    elif fault == "colours":
        rgb = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        nibabel.Nifti1Image(rgb, np.eye(4)).to_filename(path)
    return path


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "no such volume"),
        ("empty file", "the file is empty"),
        ("cut", "could not be read.*damaged or cut off"),
        ("not gzip", "not a gzip file"),
        ("noise", "could not be read"),
        ("suffix", "expected a NIfTI volume"),
        ("no voxels", "the volume is empty: its header says"),
        ("nan", r"1 voxels are NaN or infinite, the first at \[3, 4, 5\]"),
        ("infinite", r"NaN or infinite, the first at \[0, 0, 0\]"),
        ("flat affine", "do not span space"),
        ("colours", "one number per voxel"),
    ],
)
def test_faults_name_the_file(tmp_path, fault, message):
    path = _written(tmp_path, fault)
    with pytest.raises((VolumeError, FileNotFoundError), match=rf"{path.name}: .*{message}"):
        read_volume(path)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_canonical_orientation_and_back(seed):
    rng = np.random.default_rng(seed)
    x, y, z = rng.integers(1, 6, 3)
    volume = Volume(rng.integers(0, 1000, (x, y, z)).astype(np.int16), drawn_affine(rng))
    canonical, orientation = to_canonical(volume)
    np.testing.assert_array_equal(from_canonical(canonical.array, orientation), volume.array)
    # Oracle: nibabel's own turn, and every voxel at the place in space that it had.
    expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.array, volume.affine))
    np.testing.assert_array_equal(canonical.array, np.asarray(expected.dataobj))
    np.testing.assert_allclose(canonical.affine, expected.affine, atol=1e-4)
    places = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"))
    turned = [to_canonical(Volume(axis, volume.affine))[0].array for axis in places]
    np.testing.assert_allclose(
        apply_affine(canonical.affine, np.moveaxis(np.indices(canonical.shape), 0, -1)),
        apply_affine(volume.affine, np.stack(turned, -1)),
        atol=1e-6,
    )


def test_oblique_axes_go_to_the_nearest_canonical_ones():
    affine = np.array([[0.2, 0, -1.9, 5], [1.4, 0.1, 0.1, 6], [0.1, 2.5, 0, 7], [0, 0, 0, 1.0]])
    canonical, orientation = to_canonical(Volume(np.zeros((3, 4, 5), np.int16), affine))
    assert orientation.tolist() == [[1, 1], [2, 1], [0, -1]]
    assert canonical.shape == (5, 3, 4)
    np.testing.assert_allclose(canonical.spacing, np.array(voxel_spacing(affine))[[2, 0, 1]])


sizes = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, seeds)
def test_resize_equals_torch(before, after, seed):
    array = np.random.default_rng(seed).standard_normal(before)
    tensor = torch.from_numpy(array)[None, None]
    for order in ("nearest", "nearest-exact"):
        expected = torch.nn.functional.interpolate(tensor, size=after, mode=order)[0, 0]
        np.testing.assert_array_equal(resize_volume(array, after, order), expected)
    expected = torch.nn.functional.interpolate(tensor, size=after, mode="trilinear", align_corners=False)
    np.testing.assert_allclose(resize_volume(array, after), expected[0, 0], atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(sizes, st.tuples(*[st.integers(1, 3)] * 3), seeds)
def test_stretched_by_whole_numbers_and_back(shape, factor, seed):
    label = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
    larger = tuple(n * f for n, f in zip(shape, factor, strict=True))
    for order in ("nearest", "nearest-exact"):
        stretched = resize_volume(label, larger, order)
        np.testing.assert_array_equal(stretched, np.kron(label, np.ones(factor, np.uint8)))
        np.testing.assert_array_equal(resize_volume(stretched, shape, order), label)
        assert stretched.dtype == np.uint8


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_linear_resize_keeps_places_in_space(seed):
    rng = np.random.default_rng(seed)
    shape, new = tuple(rng.integers(4, 12, 3)), tuple(rng.integers(4, 12, 3))
    affine = drawn_affine(rng)
    direction = rng.standard_normal(3)

    def ramp(of_shape, of_affine):
        return apply_affine(of_affine, np.moveaxis(np.indices(of_shape), 0, -1)) @ direction

    resized = resize_volume(ramp(shape, affine), new)
    expected = ramp(new, resized_affine(affine, shape, new))
    low, high = resized.min(), resized.max()
    # A ramp stays one wherever the source reaches; beyond its outer voxel centres it is clamped.
    source = np.stack(
        np.meshgrid(
            *[(np.arange(N) + 0.5) * n / N - 0.5 for n, N in zip(shape, new, strict=True)], indexing="ij"
        )
    )
    inside = ((source >= 0) & (source <= np.array(shape)[:, None, None, None] - 1)).all(axis=0)
    np.testing.assert_allclose(resized[inside], expected[inside], atol=1e-9 * max(1, abs(low), abs(high)))


def test_spacing():
    rng = np.random.default_rng(0)
    volume = Volume(rng.standard_normal((10, 20, 30)).astype(np.float32), np.diag([2.0, -1.0, 0.5, 1]))
    finer = resample_spacing(volume, (1.0, 1.0, 1.0))
    assert finer.shape == (20, 20, 15)
    np.testing.assert_allclose(finer.spacing, 1)
    assert resample_spacing(volume, (7.0, 1.0, 1.0)).spacing == pytest.approx((20 / 3, 1, 1))
    assert resample_spacing(volume, (900.0, 1.0, 1.0)).shape == (1, 20, 15)
    with pytest.raises(ValueError, match="above 0 in millimetres"):
        resample_spacing(volume, (1.0, 0.0, 1.0))


def test_refused_sizes_and_orders():
    with pytest.raises(ValueError, match="order must be"):
        resize_volume(np.ones((2, 2, 2)), (3, 3, 3), "cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="both need three axes and voxels"):
        resize_volume(np.ones((2, 2, 2)), (3, 0, 3))


def test_window_of_hu():
    found = window_hu(np.array([-2000, -100, 100, 300, 3000], np.int16), -100, 300)
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, 1])
    assert found.dtype == np.float32
    with pytest.raises(ValueError, match="two rising numbers"):
        window_hu(np.ones(3), 5, 5)


def test_names():
    assert [is_volume_name(name) for name in ("a.nii", "a.nii.gz", "._a.nii.gz", "a.txt", "a.gz")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert volume_stem("x/liver_5.nii.gz") == volume_stem(Path("liver_5.nii")) == "liver_5"
    assert volume_stem("dicom.folder") == "dicom.folder"
