"""Features of a slide's patches."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from advmil.errors import DataError
from advmil.prepare.encoders import Encoder, load_encoder
from advmil.prepare.features import FeatureSettings, FeatureTimes, encode_slide
from medshared.bags import BagError, ClamAttributes, read_bag, write_coordinates
from medshared.slides import SlideError, open_slide

CPU = torch.device("cpu")
SMALL = ClamAttributes(16, 1, (4.0, 4.0), (256, 256), (256, 256), "a", "o")


@pytest.fixture
def encoder(encoder_file: Path) -> Encoder:
    return load_encoder("synthetic", weights=encoder_file)


@pytest.fixture
def regions(tmp_path: Path) -> Path:
    """Two regions of 16 small patches of 16 px at level 1, 64 level-0 pixels each."""
    k = np.arange(16)
    offsets = np.stack([k % 4, k // 4], axis=1) * 64
    corners = np.array([[128, 128], [384, 384]])
    return write_coordinates(tmp_path / "a.h5", (corners[:, None] + offsets).reshape(-1, 2), SMALL)


def test_features_are_those_of_the_tiles(put, encoder, regions, tmp_path: Path):
    """Each row is the network's answer to the tile at its coordinates, as OpenSlide reads it."""
    slide = put(a="tissue") / "a.svs"
    times = encode_slide(
        slide, regions, tmp_path / "f", encoder, FeatureSettings(batch_size=5, threads=2), CPU
    )
    bag = read_bag(tmp_path / "f" / "h5_files" / "a.h5")
    assert bag.coordinates is not None
    with open_slide(slide, fast=False) as opened:
        tiles = np.stack([opened.read_level((int(x), int(y)), 1, 16) for x, y in bag.coordinates])
    with torch.inference_mode():
        expected = encoder.network(encoder.normalise(torch.from_numpy(tiles))).numpy()
    np.testing.assert_allclose(bag.features, expected, rtol=1e-5, atol=1e-5)
    with h5py.File(regions) as file:
        np.testing.assert_array_equal(bag.coordinates, file["coords"][()])
    loaded = torch.load(tmp_path / "f" / "pt_files" / "a.pt", weights_only=True)
    np.testing.assert_array_equal(loaded.numpy(), bag.features)
    assert bag.attributes.spacing_um == 2.0
    assert bag.attributes.encoder == "synthetic"
    assert bag.attributes.patch_size_level0 == 64
    assert times.patches == 32
    assert times.faults == 0
    assert times.bottleneck in ("opening", "reading", "network", "writing")


def test_batches_and_threads_change_nothing(put, encoder, regions, tmp_path: Path):
    slide = put(a="tissue") / "a.svs"
    for name, batch, threads in (("one", 1, 1), ("many", 64, 4)):
        encode_slide(
            slide, regions, tmp_path / name, encoder, FeatureSettings(batch_size=batch, threads=threads), CPU
        )
    first, second = (read_bag(tmp_path / n / "pt_files" / "a.pt").features for n in ("one", "many"))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def test_half_and_resized(put, encoder, regions, tmp_path: Path):
    slide = put(a="tissue") / "a.svs"
    encode_slide(slide, regions, tmp_path / "h", encoder, FeatureSettings(half=True), CPU)
    bag = read_bag(tmp_path / "h" / "h5_files" / "a.h5")
    assert bag.features.dtype == np.float16
    assert torch.load(tmp_path / "h" / "pt_files" / "a.pt", weights_only=True).dtype == torch.float16

    seen: list[tuple[int, ...]] = []

    class Watcher(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(x.shape[1:]))
            return x.mean(dim=(2, 3))

    watcher = Encoder("w", Watcher(), 3, (0.0,) * 3, (1.0,) * 3, "none", input_px=24)
    for settings in (FeatureSettings(), FeatureSettings(target_px=32), FeatureSettings(custom_downsample=2)):
        encode_slide(slide, regions, tmp_path / "w", watcher, settings, CPU)
    assert sorted(set(seen)) == [(3, 8, 8), (3, 24, 24), (3, 32, 32)]


def test_undecodable_patches_are_left_out_with_their_region(put, encoder, regions, damage, tmp_path: Path):
    """One faulty tile of the file: every patch on it is listed and the whole region is missing, nothing is white."""
    slide = put(a="tissue") / "a.svs"
    damage(slide, [(1, 1)], 1)  # level-1 pixels 64 … 127: level-0 256 … 511, part of both regions
    settings = FeatureSettings(max_fault_share=1.0)
    with pytest.raises(DataError, match="no patch could be encoded"):
        encode_slide(slide, regions, tmp_path / "f", encoder, settings, CPU)
    slide = put(b="tissue") / "b.svs"
    damage(slide, [(2, 2)], 1)  # level-0 512 … 767: the second region only
    times = encode_slide(slide, regions, tmp_path / "g", encoder, settings, CPU)
    bag = read_bag(tmp_path / "g" / "h5_files" / "a.h5")
    assert bag.coordinates is not None
    assert len(bag.features) == 16
    assert bag.coordinates.max() <= 128 + 3 * 64
    listed = (tmp_path / "g" / "faults" / "a.csv").read_text().splitlines()
    assert listed[0] == "x,y,reason"
    assert len(listed) == 1 + times.faults == 1 + 4
    assert {tuple(map(int, line.split(",")[:2])) for line in listed[1:]} == {
        (x, y) for x in (512, 576) for y in (512, 576)
    }


def test_patches_that_are_no_regions_are_left_out_singly(put, encoder, damage, tmp_path: Path):
    grid = np.stack(np.meshgrid(np.arange(3), np.arange(3)), axis=-1).reshape(-1, 2) * 256
    coordinates = write_coordinates(tmp_path / "a.h5", grid, SMALL)
    slide = put(a="tissue") / "a.svs"
    damage(slide, [(1, 1)], 1)
    encode_slide(slide, coordinates, tmp_path / "f", encoder, FeatureSettings(max_fault_share=0.2), CPU)
    bag = read_bag(tmp_path / "f" / "h5_files" / "a.h5")
    assert bag.coordinates is not None
    assert [256, 256] not in bag.coordinates.tolist()
    assert len(bag.features) == 8


def test_too_many_faults_fail_the_slide(put, encoder, regions, damage, tmp_path: Path):
    slide = put(a="tissue") / "a.svs"
    damage(slide, [(2, 2)], 1)
    with pytest.raises(
        SlideError, match=r"of 32 tiles cannot be decoded, more than the allowed share of 0\.05"
    ):
        encode_slide(slide, regions, tmp_path / "f", encoder, FeatureSettings(), CPU)
    assert not (tmp_path / "f" / "pt_files").exists()
    assert (tmp_path / "f" / "faults" / "a.csv").is_file()  # says where to look
    encode_slide(put(a="tissue") / "a.svs", regions, tmp_path / "f", encoder, FeatureSettings(), CPU)
    assert not (tmp_path / "f" / "faults" / "a.csv").exists()  # the slide was replaced by a whole one


def test_single_patch(put, encoder, tmp_path: Path):
    coordinates = write_coordinates(tmp_path / "a.h5", [[256, 256]], SMALL)
    encode_slide(put(a="tissue") / "a.svs", coordinates, tmp_path / "f", encoder, FeatureSettings(), CPU)
    assert read_bag(tmp_path / "f" / "pt_files" / "a.pt").features.shape == (1, 8)


def test_spacing(put, encoder, regions, tmp_path: Path):
    """A slide that does not say is encoded; its spacing is written when it is given from outside."""
    slide = put(a="unspaced") / "a.svs"
    for settings, expected in (
        (FeatureSettings(), None),
        (FeatureSettings(default_spacing_um=0.25), 1.0),
        (FeatureSettings(default_spacing_um=0.25, spacing_um=0.5), 2.0),
    ):
        encode_slide(slide, regions, tmp_path / "f", encoder, settings, CPU)
        assert read_bag(tmp_path / "f" / "h5_files" / "a.h5").attributes.spacing_um == expected


def test_level_beyond_the_slide(put, encoder, tmp_path: Path):
    deep = ClamAttributes(16, 5, (4.0, 4.0), (256, 256), (256, 256), "a", "o")
    coordinates = write_coordinates(tmp_path / "a.h5", [[0, 0]], deep)
    with pytest.raises(DataError, match=r"patch_level 5, but a\.svs has 3 levels"):
        encode_slide(put(a="tissue") / "a.svs", coordinates, tmp_path / "f", encoder, FeatureSettings(), CPU)


def test_truncated_coordinates(put, encoder, regions, tmp_path: Path):
    regions.write_bytes(regions.read_bytes()[:900])
    with pytest.raises(BagError, match=r"a\.h5: not a whole HDF5 file"):
        encode_slide(put(a="tissue") / "a.svs", regions, tmp_path / "f", encoder, FeatureSettings(), CPU)


def test_reading_goes_on_while_the_network_works(put, encoder, tmp_path: Path, monkeypatch):
    """While the network has the first batch, further tiles are read: it need not wait for each in turn."""
    import threading

    from medshared.slides.reading import Slide

    grid = np.stack(np.meshgrid(np.arange(12), np.arange(12)), axis=-1).reshape(-1, 2) * 64
    coordinates = write_coordinates(tmp_path / "a.h5", grid, SMALL)
    ahead = threading.Event()
    threads: set[str] = set()
    real = Slide.read_fast

    def watched(self, location, level, size):
        threads.add(threading.current_thread().name)
        if location[1] >= 6 * 64:  # the second half of the tiles
            ahead.set()
        return real(self, location, level, size)

    class Slow(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert ahead.wait(20), "nothing was read while the network had the first batch"
            return x.mean(dim=(2, 3))

    monkeypatch.setattr(Slide, "read_fast", watched)
    slow = Encoder("slow", Slow(), 3, (0.0,) * 3, (1.0,) * 3, "none")
    settings = FeatureSettings(batch_size=16, threads=2)
    encode_slide(put(a="tissue") / "a.svs", coordinates, tmp_path / "f", slow, settings, CPU)
    assert threading.main_thread().name not in threads


def test_settings_are_checked():
    with pytest.raises(DataError, match="batch_size must be at least 1, found 0"):
        FeatureSettings(batch_size=0)
    with pytest.raises(DataError, match=r"max_fault_share must lie between 0 and 1, found 1\.5"):
        FeatureSettings(max_fault_share=1.5)
    assert "3 patches cannot be decoded" in FeatureTimes(faults=3).summary()
