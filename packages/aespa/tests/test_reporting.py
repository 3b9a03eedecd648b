"""Pages and pictures of a run."""

from __future__ import annotations

import numpy as np
import pytest

from aespa.errors import DataError
from aespa.figures import Panel, draw_grid, draw_rounds, draw_training, save_figure
from aespa.reporting import try_report, write_report
from aespa.shown_images import entropy
from medshared.files import write_json
from medshared.runs import RunDirectory


def entry(mean: float) -> dict:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 3}


@pytest.fixture
def run(tmp_path):
    folder = RunDirectory(tmp_path / "run").create(
        {"mode": "AESPA", "dataset": "LIDC"}, command=["x"], seed=0
    )
    folder.log_metrics(
        {"epoch": 0, "train_loss": 2.5, "val_dice": 0.5, "val_dice_r0": 0.4, "val_dice_r1": 0.5}
    )
    return folder.path


def test_an_unfinished_run_has_a_page_that_says_so(run):
    page = write_report(run).read_text()
    assert "not finished" in page
    assert "2.5" in page


def test_a_finished_run_shows_its_measures(run):
    summary = {key: entry(0.7) for key in ("dice_r0", "dice_r1", "dice_late", "majority_dice")}
    write_json(run / "summary.json", summary)
    page = write_report(run, {"mode": "AESPA", "best_epoch": 0}).read_text()
    assert "not finished" not in page
    assert "0.600 to 0.800" in page
    assert (run / "figures" / "rounds.png").is_file()


def test_a_folder_that_is_no_run_is_named(tmp_path):
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(DataError, match=r"metrics\.csv or summary\.json\), found holiday\.jpg"):
        write_report(tmp_path)
    assert try_report(tmp_path) is None


def test_pictures_of_the_same_values_are_the_same(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    panels = [
        [Panel(image, "a", mask, mask, [(1, 2, 1), (3, 4, 0)])],
        [Panel(image), Panel(image, heat=mask * 1.0)],
    ]
    files = []
    for name in "ab":
        figures = (
            draw_grid(panels, ["one", "two"]),
            draw_rounds({"x": [0.1, 0.2]}, {"level": 0.5}),
            draw_training([{"epoch": 0, "train_loss": 1.0}]),
        )
        files.append(
            [save_figure(tmp_path / f"{name}{i}.png", f).read_bytes() for i, f in enumerate(figures)]
        )
    assert files[0] == files[1]
    assert all(data.startswith(b"\x89PNG") for data in files[0])


def test_entropy_is_in_bits():
    p = np.array([0.0, 0.11, 0.5, 1.0])
    expected = [0.0, -(0.11 * np.log2(0.11) + 0.89 * np.log2(0.89)), 1.0, 0.0]
    assert np.allclose(entropy(p), expected)
