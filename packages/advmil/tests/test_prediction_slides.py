"""``advmil predict`` from slide files: preparation, one bad slide among good ones, and the same numbers as from bags."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from advmil import cli
from medshared.slides import write_pyramid


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, tiny_cohort) -> Path:
    """Two readable slides, one cut off, one blank, and the encoder's weights."""
    from advmil.synthetic_slides import make_encoder, save_encoder

    folder = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(0)
    for name in ("A", "B", "cut"):
        image = np.full((1536, 1536, 3), 250, dtype=np.uint8)
        image[256:1280, 256:1280] = rng.integers(120, 200, (1024, 1024, 3)) * np.array([1.0, 0.6, 0.9])
        write_pyramid(folder / f"{name}.svs", image, 0.5, downsamples=(1, 4, 16))
    write_pyramid(folder / "blank.svs", np.full((1536, 1536, 3), 250, np.uint8), 0.5, downsamples=(1, 4, 16))
    whole = (folder / "cut.svs").read_bytes()
    (folder / "cut.svs").write_bytes(whole[: len(whole) // 2])
    save_encoder(folder / "encoder.pth", make_encoder(tiny_cohort, 0))
    return folder


def _arguments(slides: Path) -> list[str]:
    return ["--encoder", "synthetic", "--weights", str(slides / "encoder.pth"), "--patch-size", "16"]


@pytest.fixture(scope="module")
def predicted(slides, tiny_run, tmp_path_factory) -> tuple[int, Path]:
    output = tmp_path_factory.mktemp("predicted")
    files = [str(slides / f"{name}.svs") for name in ("A", "B", "cut", "blank")]
    code = cli.main(
        ["predict", *files, *_arguments(slides), "--run", str(tiny_run), "--samples", "10", "--device", "cpu",
         "--output", str(output)]
    )  # fmt: skip
    return code, output


def test_good_slides_are_predicted_and_bad_ones_recorded(predicted):
    code, output = predicted
    assert code == 1
    table = pd.read_csv(output / "predictions.csv")
    assert table["patient_id"].tolist() == ["A", "B"]
    assert (table["n_patches"] % 16 == 0).all()
    items = json.loads((output / "prediction-report.json").read_text())["items"]
    failures = {i["name"]: i["message"] for i in items if i["status"] == "failed" and i["kind"] == "slide"}
    assert set(failures) == {"cut", "blank"}
    assert "cut.svs" in failures["cut"]
    assert "no tissue" in failures["blank"]
    attention = pd.read_csv(output / "attention" / "A.csv")
    inside = attention[["x", "y"]].to_numpy()
    assert inside.min() >= 0
    assert inside.max() < 1536


def test_prepared_features_give_the_same_numbers(predicted, tiny_run, tmp_path):
    _, output = predicted
    features = next((output / "prepared").glob("feat-*"))
    assert (
        cli.main(
            ["predict", str(features), "--run", str(tiny_run), "--samples", "10", "--device", "cpu",
             "--output", str(tmp_path)]
        )
        == 0
    )  # fmt: skip
    assert (tmp_path / "predictions.csv").read_bytes() == (output / "predictions.csv").read_bytes()


def test_ordinary_patches(slides, untrained_run, tmp_path):
    run = untrained_run(tmp_path / "run", regions="coordinates")
    code = cli.main(
        ["predict", str(slides / "A.svs"), *_arguments(slides), "--plain-patches", "--patch-level", "1",
         "--run", str(run), "--samples", "5", "--device", "cpu", "--output", str(tmp_path / "out")]
    )  # fmt: skip
    assert code == 0
    assert not list((tmp_path / "out" / "prepared").glob("tiles-l0-*"))
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 1


def test_an_encoder_without_weights_is_an_error_before_any_work(slides, tiny_run, tmp_path, capsys):
    code = cli.main(
        ["predict", str(slides / "A.svs"), "--encoder", "synthetic", "--patch-size", "16", "--run", str(tiny_run),
         "--output", str(tmp_path)]
    )  # fmt: skip
    assert code == 1
    assert "needs --weights" in capsys.readouterr().err
    assert not (tmp_path / "predictions.csv").exists()
