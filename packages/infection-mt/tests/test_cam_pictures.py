"""Grad-CAM pictures of a finished run."""

import numpy as np
import pytest
from PIL import Image

from infection_mt.cam_pictures import draw_rows, write_cam_pictures
from infection_mt.rescoring import load_run
from medshared.files import read_json


def test_four_pictures_a_frame_and_two_more_for_the_time(tiny_run, tmp_path):
    written = write_cam_pictures(tiny_run, tmp_path, split="test", num_samples=3, device="cpu")
    folder = tmp_path / "best" / "test_fold0"
    notes = read_json(folder / "metadata.json")
    assert len(notes) == 3
    assert len(written) == len(set(written)) == 18
    for note in notes:
        names = sorted(path.name for path in folder.glob(f"{note['files']}_*.png"))
        kinds = [name.removeprefix(f"{note['files']}_") for name in names]
        assert kinds == [
            "heatmap.png",
            "input.png",
            "overlay.png",
            "raw.png",
            "time_heatmap.png",
            "time_overlay.png",
        ]
        assert note["files"].startswith("cam_00")
        assert f"_{note['label']}_prob{note['probability']:.2f}" in note["files"]
        assert 0 <= note["probability"] <= 1
        pictures = {name: np.asarray(Image.open(folder / name)) for name in names}
        assert {picture.shape for picture in pictures.values()} == {(32, 32, 3)}
        # Mean 0.5 and std 0.25 show [0, 1] whole: the input is the raw frame again, up to truncation.
        raw, shown = (pictures[f"{note['files']}_{kind}.png"].astype(int) for kind in ("raw", "input"))
        assert abs(raw - shown).max() <= 1
    again = write_cam_pictures(tiny_run, tmp_path / "again", split="test", num_samples=3, device="cpu")
    assert [path.name for path in again] == [path.name for path in written]


@pytest.mark.parametrize(
    ("n", "expected"), [(4, (2, 2)), (5, (3, 2)), (12, (4, 8)), (50, (4, 10)), (1, (1, 0))]
)
def test_half_of_each_class(n, expected):
    infected = np.arange(14) < 4
    rows = draw_rows(infected, n, seed=1)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert (int(infected[rows].sum()), int((~infected[rows]).sum())) == expected


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run"):
        load_run(tmp_path)
