from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from medshared.bags import (
    BagAttributes,
    BagError,
    ClamAttributes,
    check_uniform,
    describe_bag,
    read_bag,
    read_coordinates,
    read_features,
    write_clam_bag,
    write_coordinates,
)

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(5, 4)).astype(np.float32)
XY = np.array([[0, 0], [0, 512], [512, 0], [512, 512], [1024, 0]])
CLAM = ClamAttributes(256, 1, (4.0, 4.0), (5000, 4000), (5000, 4000), "s", "patches")


def h5(
    path: Path, attrs: dict[str, Any] | None = None, coords_attrs: dict[str, Any] | None = None, **data: Any
) -> Path:
    with h5py.File(path, "w") as file:
        for key, value in data.items():
            file.create_dataset(key, data=value)
        file.attrs.update(attrs or {})
        if coords_attrs:
            file["coords"].attrs.update(coords_attrs)
    return path


@pytest.mark.parametrize("half", [False, True])
def test_a_written_bag_reads_back_in_order(tmp_path: Path, half: bool) -> None:
    attributes = BagAttributes("clam", "resnet50_trunc", 1.0, 1024.0, name="s")
    h5_path, pt_path = write_clam_bag(tmp_path, "s", FEATURES, XY, attributes, half=half)
    kind = np.float16 if half else np.float32
    bag = read_bag(h5_path)
    assert bag.features.dtype == kind
    assert np.array_equal(bag.features, FEATURES.astype(kind))
    assert bag.coordinates is not None
    assert np.array_equal(bag.coordinates, XY)
    assert bag.attributes == attributes
    assert np.array_equal(read_features(pt_path), FEATURES.astype(kind))
    assert torch.load(pt_path, weights_only=True).shape == (5, 4)
    with h5py.File(h5_path) as file:
        assert file["features"].chunks is None
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["s.h5", "s.pt"]


def test_clam_features_say_their_patch_size(tmp_path: Path) -> None:
    path = h5(
        tmp_path / "s.h5",
        features=FEATURES,
        coords=XY,
        coords_attrs={"patch_size": 256, "downsample": (4.0, 4.0), "name": "s"},
    )
    bag = read_bag(path)
    assert (bag.attributes.dialect, bag.attributes.patch_size_level0) == ("clam", 1024.0)
    assert describe_bag(path) == bag.info


@pytest.mark.parametrize("shape", [(5, 4), (1, 5, 4)])
def test_trident_files_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    attrs = {
        "patch_size": 256,
        "patch_size_level0": 512,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": "s",
    }
    path = h5(tmp_path / "s.h5", features=FEATURES.reshape(shape), coords=XY, coords_attrs=attrs)
    with h5py.File(path, "a") as file:
        file["features"].attrs["encoder"] = "uni_v1"
    bag = read_bag(path)
    assert np.array_equal(bag.features, FEATURES)
    assert bag.attributes == BagAttributes("trident", "uni_v1", 0.5, 512.0, name="s")
    assert read_coordinates(path).attributes["level0_magnification"] == 40


def test_stamp_files_are_read_with_places_in_um(tmp_path: Path) -> None:
    attrs = {"extractor": "ctranspath", "unit": "um", "tile_size": 256.0, "tile_size_px": 224}
    path = h5(tmp_path / "s.h5", attrs, feats=FEATURES.astype(np.float16), coords=XY * 0.25)
    bag = read_bag(path)
    assert bag.features.dtype == np.float16
    assert bag.coordinates is None
    assert bag.coordinates_um is not None
    assert np.array_equal(bag.coordinates_um, XY * 0.25)
    assert bag.attributes.dialect == "stamp"
    assert bag.attributes.encoder == "ctranspath"
    assert bag.attributes.spacing_um == pytest.approx(256 / 224)
    with pytest.raises(BagError, match="coordinates are in µm"):
        read_coordinates(path)


def test_tensors_may_come_with_coordinates(tmp_path: Path) -> None:
    torch.save({"features": torch.from_numpy(FEATURES), "coords": torch.from_numpy(XY)}, tmp_path / "s.pt")
    bag = read_bag(tmp_path / "s.pt")
    assert bag.coordinates is not None
    assert np.array_equal(bag.coordinates, XY)
    assert describe_bag(tmp_path / "s.pt").width == 4


def test_coordinates_keep_their_attributes_and_can_grow(tmp_path: Path) -> None:
    path = write_coordinates(tmp_path / "patches" / "s.h5", XY, CLAM)
    xy, attributes = read_coordinates(path)
    assert xy.dtype == np.int64
    assert np.array_equal(xy, XY)
    assert attributes["patch_size"] == 256
    assert attributes["downsample"] == [4.0, 4.0]
    assert attributes["save_path"] == "patches"
    assert CLAM.patch_size_level0 == 1024
    with h5py.File(path) as file:
        assert file["coords"].maxshape == (None, 2)


def test_coordinates_of_early_tools_become_whole_numbers(tmp_path: Path) -> None:
    path = h5(tmp_path / "s.h5", coords=XY.astype(np.float64))
    assert read_coordinates(path).xy.dtype == np.int64


def other(path: Path, **changes: Any) -> Path:
    return write_clam_bag(
        path.parent, path.stem, changes.pop("features", FEATURES), XY, BagAttributes(**changes)
    )[0]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"encoder": "uni"}, {"encoder": "conch"}, "encoder 'conch' but .* has 'uni'"),
        ({"spacing_um": 0.5}, {"spacing_um": 1.0}, "spacing_um 1.0 but .* has 0.5"),
        ({}, {"features": FEATURES[:, :3]}, "width 3 but .* has 4"),
    ],
)  # fmt: skip
def test_mixtures_are_refused(tmp_path: Path, first: dict, second: dict, message: str) -> None:
    with pytest.raises(BagError, match=message):
        check_uniform(
            [describe_bag(other(tmp_path / "a", **first)), read_bag(other(tmp_path / "b", **second))]
        )


def test_files_that_do_not_say_agree_with_all(tmp_path: Path) -> None:
    pairs = ({"encoder": "uni", "spacing_um": 0.5}, {}, {"spacing_um": 0.502})
    check_uniform([describe_bag(other(tmp_path / f"f{k}", **each)) for k, each in enumerate(pairs)])


def bad(folder: Path, kind: str) -> Path:
    path = folder / ("s.pt" if kind.startswith("pt") else "s.h5")
    holed = FEATURES.copy()
    holed[3, 1] = np.nan
    if kind == "h5 cut":
        write_clam_bag(folder, "x", RNG.normal(size=(500, 64)), np.zeros((500, 2), int))
        path.write_bytes((folder / "h5_files" / "x.h5").read_bytes()[:60_000])
    elif kind == "h5 text":
        path.write_text("no features here")
    elif kind == "h5 coordinates":
        h5(path, coords=XY)
    elif kind == "h5 other":
        h5(path, images=XY)
    elif kind == "h5 empty":
        h5(path, features=FEATURES[:0], coords=XY[:0])
    elif kind == "h5 rows":
        h5(path, features=FEATURES, coords=XY[:3])
    elif kind == "h5 nan":
        h5(path, features=holed, coords=XY)
    elif kind == "h5 shape":
        h5(path, features=FEATURES.ravel())
    elif kind == "h5 fractions":
        h5(path, features=FEATURES, coords=XY + 0.5)
    elif kind == "pt nan":
        torch.save(torch.from_numpy(holed), path)
    elif kind == "pt cut":
        torch.save(torch.from_numpy(FEATURES), path)
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "pt empty":
        torch.save(torch.zeros(0, 4), path)
    elif kind == "pt text":
        torch.save(["a"], path)
    elif kind == "pt objects":
        path.write_bytes(pickle.dumps(Path("x"), protocol=2))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("h5 missing", "no such file"),
        ("h5 cut", "not a whole HDF5 file .* cut off"),
        ("h5 text", "not a whole HDF5 file"),
        ("h5 coordinates", "coordinates without features: run the features step"),
        ("h5 other", r"expected a dataset 'features' or 'feats', found \['images'\]"),
        ("h5 empty", "the bag is empty"),
        ("h5 rows", "5 rows of features but 3 of coordinates"),
        ("h5 nan", r"1 of 5 rows hold NaN or infinite features \(first row 3\)"),
        ("h5 shape", r"features must have shape \[n, d\], found \[20\]"),
        ("h5 fractions", "whole level-0 pixels"),
        ("pt missing", "no such file"),
        ("pt nan", "1 of 5 rows hold NaN"),
        ("pt cut", "cut off after 300 bytes"),
        ("pt empty", "the bag is empty"),
        ("pt text", "expected a tensor"),
        ("pt objects", "refused|damaged"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, kind: str, message: str) -> None:
    path = bad(tmp_path, kind)
    with pytest.raises(BagError, match=message) as caught:
        read_bag(path)
    assert str(path) in str(caught.value)


def test_nan_may_be_left_unchecked(tmp_path: Path) -> None:
    assert np.isnan(read_features(bad(tmp_path, "h5 nan"), check_finite=False)).sum() == 1


def test_coordinates_need_their_dataset(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="expected a dataset 'coords'"):
        read_coordinates(h5(tmp_path / "s.h5", features=FEATURES))


@pytest.mark.parametrize(
    ("features", "coordinates", "half", "message"),
    [
        (FEATURES, XY[:2], False, "do not fit"),
        (FEATURES * np.nan, XY, False, "NaN or infinite"),
        (FEATURES * 1e7, XY, True, "as float16"),
        (FEATURES[:0], XY[:0], False, "the bag is empty"),
        (FEATURES, XY + 0.5, False, "whole level-0 pixels"),
    ],
)  # fmt: skip
def test_nothing_is_written_that_could_not_be_used(
    tmp_path: Path, features: Any, coordinates: Any, half: bool, message: str
) -> None:
    with pytest.raises(BagError, match=message):
        write_clam_bag(tmp_path, "s", features, coordinates, half=half)
    assert not any(tmp_path.iterdir())


def test_a_slide_without_patches_gets_no_file(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="no patch to write"):
        write_coordinates(tmp_path / "s.h5", np.zeros((0, 2), int), CLAM)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("half", [False, True])
def test_mapped_features_are_those_of_the_file_and_do_not_change_it(tmp_path: Path, half: bool) -> None:
    path, pt_path = write_clam_bag(tmp_path, "s", FEATURES, XY, half=half)
    mapped = read_features(path, memory_map=True)
    assert np.array_equal(mapped, read_features(path))
    mapped[0] = 7
    assert np.array_equal(read_features(path), read_features(pt_path, memory_map=True))
    # A file that is replaced meanwhile leaves what was mapped as it was.
    write_clam_bag(tmp_path, "s", FEATURES + 1, XY, half=half)
    assert np.array_equal(mapped[1:], FEATURES[1:].astype(mapped.dtype))


def test_files_in_chunks_are_read_where_mapping_was_asked_for(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("features", data=FEATURES, chunks=(1, 4), maxshape=(None, 4))
    assert np.array_equal(read_features(tmp_path / "s.h5", memory_map=True), FEATURES)
