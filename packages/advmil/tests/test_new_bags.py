"""Bags of new patients are those that training would have made of the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from advmil.config import Config
from advmil.data.bags import BagSource
from advmil.data.regions import typical_step
from advmil.data.tables import read_cohort
from advmil.errors import DataError
from advmil.new_bags import assemble_patient, find_coordinates, read_slide_bag
from advmil.prepare.clusters import write_clusters
from medshared.bags import BagAttributes, write_clam_bag


@pytest.fixture(scope="module")
def two_slides(tiny_cohort) -> str:
    """A patient with two slides."""
    truth = tiny_cohort.truth
    return str(truth["patient_id"][truth["n_slides"] == 2].iloc[0])


def _config(tiny_cohort, **changes) -> Config:
    keys = tiny_cohort.config() | {"bcb_dims": "16-8-8", "gen_dims": "8-1"} | changes
    return Config.model_validate(keys).resolved()


def _slides(tiny_cohort, patient: str):
    return [
        read_slide_bag(
            tiny_cohort.features / f"{patient}-S{k}.pt",
            tiny_cohort.coordinates / "patches" / f"{patient}-S{k}.h5",
        )
        for k in (1, 2)
    ]


@pytest.mark.parametrize(
    ("mode", "regions"),
    [("abmil", "consecutive"), ("patch", "consecutive"), ("patch", "plain"), ("graph", "consecutive")],
)
def test_bag_equals_the_training_bag(tiny_cohort, two_slides, mode, regions):
    config = _config(tiny_cohort, bcb_mode=mode, regions=regions)
    source = BagSource(config, read_cohort(tiny_cohort.table))
    expected, layout = source.load(two_slides), source.layout(two_slides)
    found = assemble_patient(config, two_slides, _slides(tiny_cohort, two_slides))
    torch.testing.assert_close(found.input.x, expected.x, rtol=0, atol=0)
    assert (found.input.extra is None) == (expected.extra is None)
    if expected.extra is not None:
        assert torch.equal(found.input.extra, expected.extra)
    assert found.layout.slides == layout.slides
    np.testing.assert_array_equal(found.layout.slide_index, layout.slide_index)
    np.testing.assert_array_equal(found.layout.row, layout.row)


def test_clusters_are_those_of_the_tool(tiny_cohort, two_slides, tmp_path):
    files = [tiny_cohort.features / f"{two_slides}-S{k}.pt" for k in (1, 2)]
    write_clusters(files, tmp_path / f"{two_slides}.npy")
    config = _config(tiny_cohort, bcb_mode="cluster", path_cluster=str(tmp_path))
    expected = BagSource(config, read_cohort(tiny_cohort.table)).load(two_slides)
    found = assemble_patient(config, two_slides, _slides(tiny_cohort, two_slides))
    assert torch.equal(found.input.extra, expected.extra)


def _write(folder: Path, n: int, *, step: int = 256, width: int = 16):
    rng = np.random.default_rng(n)
    xy = np.stack([np.arange(n) % 5, np.arange(n) // 5], axis=1) * step
    info = BagAttributes("clam", "net", 0.5, float(step), None, "S")
    return write_clam_bag(folder, "S", rng.standard_normal((n, width)).astype(np.float32), xy, info)


@pytest.mark.parametrize("regions", ["coordinates", "plain"])
def test_ordinary_patches_are_grouped_as_in_training(tiny_cohort, tmp_path, regions):
    h5, pt = _write(tmp_path, 21)
    table = tmp_path / "table.csv"
    table.write_text("pathology_id,patient_id,e,t\nS,P,1,100\n")
    config = _config(tiny_cohort, bcb_mode="patch", regions=regions, path_patch=str(pt.parent))
    source = BagSource(config, read_cohort(table))
    expected = source.load("P")
    for path in (h5, pt):  # the pt file finds its places in h5_files beside it
        found = assemble_patient(config, "P", [read_slide_bag(path)])
        assert torch.equal(found.input.x, expected.x)
        np.testing.assert_array_equal(found.layout.row, source.layout("P").row)
        assert found.n_patches == 21


def test_a_backbone_without_regions_takes_any_number_of_patches(tiny_cohort, tmp_path):
    h5, _ = _write(tmp_path, 21)
    found = assemble_patient(_config(tiny_cohort, bcb_mode="abmil"), "P", [read_slide_bag(h5)])
    assert found.input.x.shape == (1, 21, 16)


def test_bags_that_do_not_fit(tiny_cohort, tmp_path):
    h5, pt = _write(tmp_path / "a", 21)
    bag = read_slide_bag(h5)
    with pytest.raises(DataError, match=r"S\.h5: 21 patches are no whole number of regions.*regions: coord"):
        assemble_patient(_config(tiny_cohort, bcb_mode="patch"), "P", [bag])
    with pytest.raises(DataError, match=r"has 16 features a patch but the model was trained on 24"):
        assemble_patient(_config(tiny_cohort, bcb_mode="abmil", bcb_dims="24-8-8"), "P", [bag])
    alone = tmp_path / "alone" / "S.pt"
    alone.parent.mkdir()
    alone.write_bytes(pt.read_bytes())
    nowhere = read_slide_bag(alone)
    assert nowhere.coordinates is None
    with pytest.raises(DataError, match="the graph of patches needs their coordinates"):
        assemble_patient(_config(tiny_cohort, bcb_mode="graph"), "P", [nowhere])
    grouped = _config(tiny_cohort, bcb_mode="patch", regions="coordinates")
    with pytest.raises(DataError, match="no coordinates to make regions of"):
        assemble_patient(grouped, "P", [nowhere])
    few, _ = _write(tmp_path / "few", 7)
    with pytest.raises(DataError, match="patient P: 7 patches cannot form 8 clusters"):
        assemble_patient(_config(tiny_cohort, bcb_mode="cluster"), "P", [read_slide_bag(few)])
    one, _ = _write(tmp_path / "one", 1)
    with pytest.raises(DataError, match="1 patch: a graph needs at least 2"):
        assemble_patient(_config(tiny_cohort, bcb_mode="graph"), "P", [read_slide_bag(one)])
    with pytest.raises(DataError, match=r"has 21 patches but .*few.* has 7 coordinates.*h5_files"):
        read_slide_bag(alone, few)


def test_own_coordinates_win_and_missing_ones_are_filled(tiny_cohort, tmp_path):
    h5, pt = _write(tmp_path / "a", 16)
    other, _ = _write(tmp_path / "b", 16, step=512)
    own = read_slide_bag(h5).coordinates
    assert read_slide_bag(h5, other).coordinates.tolist() == own.tolist()
    alone = tmp_path / "alone" / "S.pt"
    alone.parent.mkdir()
    alone.write_bytes(pt.read_bytes())
    assert read_slide_bag(alone, other).coordinates.tolist() == (own * 2).tolist()
    both = [read_slide_bag(h5), read_slide_bag(alone, slide="T")]
    layout = assemble_patient(_config(tiny_cohort, bcb_mode="abmil"), "P", both).layout
    assert layout.coordinates[:16].tolist() == own.tolist()
    assert np.isnan(layout.coordinates[16:]).all()


def test_coordinate_files_are_found_in_the_folders_of_clam(tiny_cohort):
    slide = sorted(tiny_cohort.features.glob("*.pt"))[0].stem
    found = find_coordinates(tiny_cohort.coordinates, slide)
    assert found == tiny_cohort.coordinates / "patches" / f"{slide}.h5"
    assert find_coordinates(tiny_cohort.coordinates / "patches", slide) == found
    assert find_coordinates(tiny_cohort.coordinates, "other") is None
    assert find_coordinates(None, slide) is None


def test_step_of_pieces_with_grids_of_their_own():
    k = np.arange(12)
    piece = np.stack([k % 4, k // 4], axis=1) * 256.0
    assert typical_step(np.concatenate([piece, piece + np.array([2003, 517])])) == 256
    assert typical_step(np.zeros((1, 2))) == 1
