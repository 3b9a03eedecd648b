"""The synthetic stacks follow their recipe and say what they show."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile

from infection_mt.synthetic import SyntheticParams, generate


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_layout_and_truth(tmp_path):
    params = SyntheticParams(stacks_per_class=3, n_pages=5, size=24, frames_per_hour=0.5, wells_per_class=2)
    data = generate(tmp_path, params)
    names = [p.name for p in sorted(data.infected_dir.glob("*.tif*"))]
    assert names == [f"synth_s5_{w}_t0-4_ec.tiff" for w in ("b2_p1", "b2_p2", "b3_p1")]
    assert sorted(p.name for p in data.uninfected_dir.glob("*"))[0] == "synth_s5_c4_p1_t0-4_ec.tiff"
    with tifffile.TiffFile(data.infected_dir / names[0]) as file:
        assert len(file.pages) == 5
        assert file.pages[0].shape == (24, 24)
        assert file.pages[0].dtype == np.uint16
        assert file.pages[0].photometric.name == "MINISBLACK"
    with data.truth_path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(data.truth) == 6 * 5
    assert [float(r["hours"]) for r in rows[:5]] == [0, 2, 4, 6, 8]
    assert {r["file"] for r in rows} == {r["file"] for r in csv.DictReader(data.manifest.open())}
    assert all((tmp_path / r["file"]).is_file() for r in rows)


def test_same_seed_same_bytes_and_another_seed_differs(tmp_path):
    params = SyntheticParams(stacks_per_class=2, n_pages=3, size=16)
    generate(tmp_path / "a", params)
    generate(tmp_path / "b", params)
    generate(tmp_path / "c", SyntheticParams(stacks_per_class=2, n_pages=3, size=16, seed=1))
    a, b, c = (_contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[k] != c[k] for k in a if k.endswith(".tiff"))


def test_counts_carry_time_and_class(tmp_path):
    data = generate(tmp_path, SyntheticParams(stacks_per_class=4, size=48))
    mock = np.array([[r.hours, r.healthy, r.rounded] for r in data.truth if not r.infected])
    sick = np.array([[r.hours, r.healthy, r.rounded] for r in data.truth if r.infected])
    assert mock[:, 2].max() == 0
    assert np.corrcoef(mock[:, 0], mock[:, 1])[0, 1] > 0.95
    share = sick[:, 2] / sick[:, 1:].sum(1)
    assert share[sick[:, 0] == 0].max() == 0
    assert np.corrcoef(sick[:, 0], share)[0, 1] > 0.9
    # Growth of an infected field stops 5 % of 48 h after the onset of 1 h.
    for file in {r.file for r in data.truth if r.infected}:
        total = [r.healthy + r.rounded for r in data.truth if r.file == file and r.hours > 3.4]
        assert max(total) - min(total) <= 3, "only drift over the border may change the number of cells"


def test_a_page_shows_the_stated_gaussians(tmp_path):
    """Direct evaluation of one cell: the product of forms is a rotated Gaussian of the stated size."""
    from infection_mt.synthetic import _exponent_coefficients

    axis = np.arange(20) - 9.5
    ys, xs = np.meshgrid(axis, axis, indexing="ij")
    basis = np.stack([g.ravel() for g in (xs * xs, xs * ys, ys * ys, xs, ys, np.ones_like(xs))])
    x, y, short, long, angle = (np.array([v]) for v in (1.3, -2.1, 1.6, 3.5, 0.7))
    value = np.exp(_exponent_coefficients(x, y, short, long, angle) @ basis).reshape(20, 20)
    along = (xs - x) * np.cos(angle) + (ys - y) * np.sin(angle)
    across = -(xs - x) * np.sin(angle) + (ys - y) * np.cos(angle)
    np.testing.assert_allclose(value, np.exp(-0.5 * (along**2 / long**2 + across**2 / short**2)), atol=1e-12)


def test_confounded_ramp_changes_sides_on_the_second_plate(tmp_path):
    data = generate(tmp_path, SyntheticParams(stacks_per_class=2, n_pages=2, size=32, variant="confounded"))

    def slope(folder):
        pages = np.concatenate([tifffile.imread(p) for p in folder.glob("*.tiff")]).astype(float)
        return float(pages[..., -4:].min(axis=(1, 2)).mean() - pages[..., :4].min(axis=(1, 2)).mean())

    assert set(data.plates) == {"plate1", "plate2"}
    for plate, ramp_in_infected in (("plate1", True), ("plate2", False)):
        infected, uninfected = (slope(folder) for folder in data.plates[plate])
        assert (infected > 3000) is ramp_in_infected
        assert (uninfected > 3000) is not ramp_in_infected


def test_overlapping_neighbours_show_the_same_cells(tmp_path):
    params = SyntheticParams(stacks_per_class=2, n_pages=3, size=40, variant="overlap", overlap_fraction=0.2)
    data = generate(tmp_path, params)
    left, right = (tifffile.imread(p)[2].astype(float) for p in sorted(data.uninfected_dir.glob("*")))
    assert np.corrcoef(left[:, 32:].ravel(), right[:, :8].ravel())[0, 1] > 0.95
    assert abs(np.corrcoef(left[:, :8].ravel(), right[:, 32:].ravel())[0, 1]) < 0.6


def test_fault_variants(tmp_path):
    def make(variant):
        return generate(tmp_path / variant, SyntheticParams(2, n_pages=6, size=16, variant=variant))

    hot = make("hot_pixel")
    assert len(hot.faulty) == 2
    assert all((tifffile.imread(p) == 65535).sum(axis=(1, 2)).min() == 1 for p in hot.faulty)
    nan = make("nan")
    pages = tifffile.imread(nan.faulty[0])
    assert np.isnan(pages).any(axis=(1, 2)).tolist() == [False] * 3 + [True] + [False] * 2
    counts = make("page_counts")
    lengths = {p: len(tifffile.imread(p)) for p in counts.folder.rglob("*.tiff")}
    assert all((n < 6) == (p in counts.faulty) for p, n in lengths.items())
    assert sum(lengths.values()) == len(counts.truth)
    cut = make("truncated")
    sizes = {p: p.stat().st_size for p in cut.folder.rglob("*.tiff")}
    assert all((size < max(sizes.values())) == (p in cut.faulty) for p, size in sizes.items())


def test_mock_vs_mock_has_two_folders_of_mock_cells(tmp_path):
    data = generate(tmp_path, SyntheticParams(2, n_pages=4, size=16, variant="mock_vs_mock"))
    assert {(r.condition, r.infected) for r in data.truth} == {("infected", False), ("uninfected", False)}
    assert sum(r.rounded for r in data.truth) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [("stacks_per_class", 0), ("size", 4), ("frames_per_hour", 0), ("overlap_fraction", 1.0)],
)
def test_bad_parameters_are_named(key, value):
    with pytest.raises(ValueError, match=key):
        SyntheticParams(**{key: value})
