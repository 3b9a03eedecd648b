"""Cases on boards: frames, scores, and weights that were made for something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medshared.metrics.segmentation import overlap
from spars.boards import load_boards, load_scorer
from spars.config import GameConfig
from spars.data.layout import find_cases
from spars.errors import DataError
from spars.models.build import ClassifierMeta, save_classifier
from spars.models.window_net import WindowNet
from spars.synthetic import write_synthetic

GRID, WINDOW, HU = (24, 24, 16), (8, 8, 8), (-60.0, 160.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("boards")
    write_synthetic(folder / "data", 5, 0, 0, size=(24, 24, 16))
    torch.manual_seed(0)
    for name, window, hu in (("w.pth", WINDOW, HU), ("raw.pth", WINDOW, None)):
        save_classifier(
            folder / name, WindowNet(window, 2).eval(), ClassifierMeta("window", window, "native", hu, 2)
        )
    return folder


def config(home: Path, **keys) -> GameConfig:
    sizes = {"full_image_size": GRID, "window_size": WINDOW, "hu_window": HU, "device": "cpu"}
    paths = {"data_dir": home / "data", "classifier_weights": home / "w.pth"}
    return GameConfig(**{**sizes, **paths, **keys}).resolved()


def test_scores_are_those_of_the_classifier_on_windows_of_the_grid(home) -> None:
    made = config(home)
    scorer = load_scorer(made)
    one = load_boards(made, find_cases(made.data_dir)[:1], scorer=scorer)[0]
    lattice = one.table.lattice
    assert one.scores().shape == (len(lattice),)
    for flat in (0, 17, len(lattice) - 1):
        start = lattice.starts(lattice.unflat(np.array(flat)))
        window = one.grid.image[tuple(slice(s, s + w) for s, w in zip(start, WINDOW, strict=True))]
        with torch.no_grad():
            logits = scorer.module(torch.from_numpy(window.copy())[None, None])
        assert one.scores()[flat] == pytest.approx(float(logits.softmax(1)[0, 1]), abs=1e-5)


@pytest.mark.parametrize(("spacing", "grid"), [(None, GRID), ((0.8, 0.8, 0.8), (30, 28, 22))])
def test_the_tumour_of_the_grid_is_that_of_the_file(home, spacing, grid) -> None:
    """Whatever axes, flips and voxel sizes the files have: oblique, exchanged, anisotropic."""
    made = config(home, spacing=spacing, full_image_size=grid)
    cases = [case for case in find_cases(made.data_dir) if case.name != "liver_3"]
    for one in load_boards(made, cases, scorer=load_scorer(made)):
        truth = one.source_labels(made) == 2
        back = one.to_source(one.target().astype(np.float32))
        assert back.shape == truth.shape
        assert overlap(back > 0.5, truth).dice > 0.75, one.name
        # The same map in any other orientation would not fit so well.
        assert overlap(back[::-1] > 0.5, truth).dice < overlap(back > 0.5, truth).dice


def test_lazy_tables_score_what_is_asked_for(home) -> None:
    made = config(home, table="lazy")
    one = load_boards(made, find_cases(made.data_dir)[:1])[0]
    assert one.table.n_computed == 0
    some = one.table.lookup(np.array([3, 3, 8]))
    assert one.table.n_computed == 2
    full = load_boards(config(home), find_cases(made.data_dir)[:1])[0]
    np.testing.assert_allclose(some, full.scores()[[3, 3, 8]], atol=1e-6)
    np.testing.assert_allclose(one.scores(), full.scores(), atol=1e-6)


def test_tables_are_read_from_the_cache(home, tmp_path) -> None:
    made = config(home, cache_dir=tmp_path)
    case = find_cases(made.data_dir)[:1]
    first, second = (load_boards(made, case)[0] for _ in range(2))
    assert first.table.n_computed == len(first.table.lattice)
    assert second.table.n_computed == 0
    np.testing.assert_array_equal(first.scores(), second.scores())


def test_weights_for_other_intensities_are_refused(home) -> None:
    with pytest.raises(
        DataError, match=r"w.pth: trained with hu_window -60 160, this run has -100 300; set the same"
    ):
        load_scorer(config(home, hu_window=None))
    with pytest.raises(
        DataError, match=r"raw.pth: trained with hu_window none \(raw HU\), this run has -60 160"
    ):
        load_scorer(config(home, classifier_weights=home / "raw.pth"))


def test_null_target_size_of_paper_and_faithful_is_the_grid() -> None:
    for mode in ("paper", "faithful"):
        made = GameConfig(mode=mode, full_image_size=(24, 24, 16), window_size=WINDOW)
        assert made.target_size is None
        assert made.resolved().target_size == (24, 24, 16)
        assert made.resolved_value("eval_space") == "native"
        kept = made.model_copy(update={"target_size": (32, 32, 16), "eval_space": "grid"})
        assert kept.resolved().target_size == (32, 32, 16)
        assert kept.resolved_value("eval_space") == "grid"
    assert GameConfig().resolved().target_size == "native"


def test_a_case_without_labels_has_no_target(home) -> None:
    made = config(home)
    case = find_cases(made.data_dir)[0]
    one = load_boards(made, [type(case)(case.name, case.image, None)])[0]
    with pytest.raises(DataError, match="liver_0: has no voxel labels"):
        one.target()
