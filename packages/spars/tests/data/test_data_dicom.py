"""A folder of DICOM slices against the NIfTI file of the same volume."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid  # noqa: E402

from medshared.volumes import to_canonical, write_volume  # noqa: E402
from spars.config import ClassifierConfig  # noqa: E402
from spars.data.cases import load_case  # noqa: E402
from spars.data.dicom import read_series  # noqa: E402
from spars.data.layout import Case, find_cases  # noqa: E402
from spars.errors import DataError  # noqa: E402

SERIES = "1.2.826.0.1.3680043.8.498.1"


def write_slice(path: Path, pixels: np.ndarray, position, directions, spacing=(0.7, 0.9), **changes) -> None:
    """Write one CT slice of stored values ``[rows, columns]``."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    data.SeriesInstanceUID = SERIES
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "CT", "MONOCHROME2", 1
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 2, -1024
    data.PixelSpacing, data.SliceThickness = list(spacing), 5
    data.ImagePositionPatient = [float(x) for x in position]
    data.ImageOrientationPatient = [float(x) for x in np.ravel(directions)]
    data.PixelData = pixels.astype("<i2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


def write_series(folder: Path, n: int = 5, seed: int = 0, step: float = 2.5, changes: dict | None = None):
    """Write slices in shuffled file order; return HU [columns, rows, slices] and the affine in RAS+."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(np.eye(3) + 0.2 * rng.standard_normal((3, 3)))
    directions, normal = rotation.T[:2], np.cross(rotation[:, 0], rotation[:, 1])
    origin = rng.uniform(-100, 100, 3)
    stored = rng.integers(0, 1500, (n, 4, 6))  # slices, rows, columns
    for k, name in enumerate(rng.permutation(n)):
        of_this = (changes or {}).get(k, {})
        write_slice(folder / f"{name}.dcm", stored[k], origin + k * step * normal, directions, **of_this)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = (
        directions[0] * 0.9,
        directions[1] * 0.7,
    )  # columns lie 0.9 mm apart, rows 0.7
    affine[:3, 2], affine[:3, 3] = step * normal, origin
    return stored.transpose(2, 1, 0) * 2 - 1024, np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("seed", range(4))
def test_values_and_places(tmp_path, seed):
    hu, affine = write_series(tmp_path / "s", seed=seed)
    (tmp_path / "s" / "notes.txt").write_text("no slice")
    found = read_series(tmp_path / "s")
    np.testing.assert_array_equal(found.array, hu)
    assert found.array.dtype == np.int16
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)
    np.testing.assert_allclose(found.spacing, (0.9, 0.7, 2.5), rtol=1e-6)
    # As a case it is the same as the NIfTI file of the volume.
    nifti = write_volume(tmp_path / "v.nii.gz", hu.astype(np.int16), affine)
    a, b = (load_case(Case("a", path), ClassifierConfig()) for path in (tmp_path / "s", nifti))
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_allclose(a.affine, b.affine, atol=1e-4)
    np.testing.assert_array_equal(a.image, to_canonical(found)[0].array)


def test_folders_of_slices_are_cases(tmp_path):
    hu, _ = write_series(tmp_path / "images" / "p1")
    write_series(tmp_path / "images" / "p2", n=1)
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["p1", "p2"]
    config = ClassifierConfig(cache_dir=tmp_path / "cache")
    for _ in range(2):
        first, second = (load_case(case, config) for case in cases)
        assert sorted(first.shape) == sorted(hu.shape)
        assert max(second.spacing) == 5  # of a single slice, its thickness
    assert len(list((tmp_path / "cache" / "volumes").iterdir())) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({2: {"SeriesInstanceUID": SERIES + ".9"}}, "2 series in one folder .*give each its own folder"),
        ({1: {"PixelSpacing": [0.7, 0.8]}}, r"\.dcm: pixel spacing \[0\.7, 0\.[89]\]"),
        ({1: {"ImageOrientationPatient": [1.0, 0, 0, 0, 0, 1]}}, "a volume needs slices of one direction"),
        (
            {3: {"ImagePositionPatient": None}},
            r"slices are 2\.5 mm apart, but 5 mm between .*a slice is missing",
        ),
        ({k: {"ImagePositionPatient": [0.0, 0, 0]} for k in (1, 2)}, "two slices at one place"),
        ({0: {"Rows": 2, "PixelData": b"\0" * 24}}, "a volume needs slices of one size"),
        ({0: {"PixelData": b"\0" * 4}}, r"pixels could not be unpacked \(.*dcm2niix"),
        ({0: {"NumberOfFrames": 3}}, "several frames in one file"),
        (
            {k: {"PixelData": None} for k in range(5)},
            r"no DICOM slices with pixels and a place in space \(5 other",
        ),
    ],
)
def test_faults(tmp_path, changes, message):
    write_series(tmp_path / "s", changes=changes)
    with pytest.raises(DataError, match=message):
        read_series(tmp_path / "s")


def test_without_pydicom(tmp_path, monkeypatch):
    (tmp_path / "s").mkdir()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r"pip install 'spars\[dicom\]'"):
        read_series(tmp_path / "s")
