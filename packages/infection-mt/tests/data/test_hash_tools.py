"""The original's hash tools follow their recipe and list what looks alike."""

import json
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter

from infection_mt.config import DataConfig
from infection_mt.data.hash_tools import audit_strips, find_duplicates, hamming, perceptual_hash
from infection_mt.data.stacks import load_stacks
from infection_mt.synthetic import SyntheticParams, generate

RNG = np.random.default_rng(11)


def _texture(height, width):
    return gaussian_filter(RNG.normal(size=(height, width)), 2)


def test_hash_follows_its_recipe():
    image = RNG.integers(0, 256, (50, 70)).astype(np.uint8)
    small = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC), np.float64)
    n = np.arange(64)
    basis = np.exp(-2j * np.pi * np.outer(n[:16], n) / 64)
    block = (basis @ small @ basis.T).real
    expected = (block > np.median(block[1:, 1:])).ravel()
    code = perceptual_hash(image)
    assert code.shape == (256,)
    assert hamming(code, expected) <= 2, "values at the median may differ by rounding"
    assert hamming(code, perceptual_hash(np.repeat(image[:, :, None], 3, axis=2))) <= 2
    assert hamming(code, ~code) == 256


def test_duplicates_are_listed_and_the_first_is_kept(tmp_path):
    data = generate(tmp_path, SyntheticParams(2, n_pages=2, size=48))
    first = sorted(data.infected_dir.glob("*"))[0]
    pages = tifffile.imread(first).astype(np.int64) + RNG.integers(-20, 20, (2, 48, 48))
    tifffile.imwrite(data.infected_dir / "synth_s5_b2_p9_t0-1_ec.tiff", pages.clip(0).astype(np.uint16))
    stacks = load_stacks(DataConfig(infected_dir=data.infected_dir, uninfected_dir=data.uninfected_dir))
    removed = find_duplicates(stacks, folder=tmp_path / "out", max_distance=30)
    assert [(r.position, k.position) for r, k, _ in removed] == [("9", "1")]
    kept, gone = (
        [json.loads(line) for line in (tmp_path / "out" / f"dedup_{name}.jsonl").read_text().splitlines()]
        for name in ("manifest", "removed")
    )
    assert [Path(row["path"]).name for row in kept] == [s.path.name for s in stacks if s.position != "9"]
    assert gone[0]["duplicate_of"] == str(first)
    assert gone[0]["hamming"] == removed[0][2]


def test_strip_audit_finds_aligned_borders(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "u").mkdir()
    world = (1000 * (_texture(80, 240) + 1)).astype(np.uint16)
    for name, part in (("b2_p1", world[:, :128]), ("b2_p2", world[:, 112:])):
        tifffile.imwrite(tmp_path / "i" / f"x_s5_{name}_.tif", part)
    tifffile.imwrite(tmp_path / "u" / "x_s5_c4_p1_.tif", (1000 * (_texture(80, 128) + 1)).astype(np.uint16))
    stacks = load_stacks(DataConfig(infected_dir=tmp_path / "i", uninfected_dir=tmp_path / "u"))
    matches = audit_strips(stacks, strip=16, max_distance=20, file=tmp_path / "audit.jsonl")
    assert [(Path(m.a).name, Path(m.b).name, m.a_side, m.b_side) for m in matches] == [
        ("x_s5_b2_p1_.tif", "x_s5_b2_p2_.tif", "right", "left")
    ]
    row = json.loads((tmp_path / "audit.jsonl").read_text())
    assert set(row) == {"a", "b", "best_hamming", "a_side", "b_side"}
    assert audit_strips(stacks, strip=16, max_distance=-1) == []
