"""Preparation, training, folds and slides, killed at any moment, end with the files of an undisturbed run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.crash
thorough = pytest.mark.crash(thorough=True)

HERE = Path(__file__).parent
EPOCHS = ("*checkpoints/epoch=*.ckpt",)  # the best so far, until a better one comes


# ------------------------------------------------------------------ what the killed processes run


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"toys_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_toys(arguments: list[str]) -> int:
    """The command line with networks of a few hundred parameters."""
    from til_mtl import cli, trainer

    toys = load(HERE / "conftest.py")
    trainer.build_network = lambda config, **_: toys.ToyNetwork(config.task)
    return cli.main(arguments)


def predict(arguments: list[str]) -> int:
    """Slides through a rule that depends on colours."""
    from argparse import Namespace

    from medshared.command_line import guarded
    from til_mtl.slides.options import SlideOptions
    from til_mtl.slides.pipeline import run_slides

    slides, out = map(Path, arguments)
    rule = load(HERE / "slides" / "conftest.py").colour_rule
    small: dict[str, Any] = {"patch": 96, "margin": 8, "batch": 7, "conf": 0.3, "nms": 6.0}
    options = SlideOptions(slides=slides, out=out, save_maps=True, **small)
    return guarded(lambda _: run_slides(options, lambda: rule), Namespace())


# ------------------------------------------------------------------ preparation


@pytest.fixture(scope="module")
def preparing(crashes, tmp_path_factory):
    from crash_testing import Job
    from til_mtl.synthetic_slides import TigerSettings, write_tiger

    small = TigerSettings(tissue_regions=3, cell_regions=3, held_out_regions=0, slides=0)
    tiger = write_tiger(tmp_path_factory.mktemp("killed"), 5, small).tiger

    def arguments(output: Path) -> list[str]:
        flags = ["--patch", "64", "--cell-size", "14", "--folds", "3", "--all-folds"]
        return ["prepare", "--tiger", str(tiger), "--out", str(output), *flags]

    job = Job("til_mtl.cli:main", arguments, unlike=("prepare-report.json",))
    return crashes.reference(job, "til-prepare")


def test_preparation(crashes, preparing):
    crashes.kill_loop(preparing)


@thorough
def test_preparation_beside_another_one(crashes, preparing):
    crashes.kill_one_of_two(preparing, kills=max(1, crashes.kills // 5))


@thorough
def test_preparation_on_a_full_disk(crashes, preparing):
    for share in (0.3, 0.8):
        crashes.full_disk(preparing, share)
    crashes.faults(preparing, preparing.spread(crashes.kills))
    crashes.read_only(preparing)


# ------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def patches(tmp_path_factory) -> Path:
    toys = load(HERE / "conftest.py")
    return toys.write_patches(tmp_path_factory.mktemp("killed"), {"train": (6, 6), "val": (2, 2)})


@pytest.fixture(scope="module")
def training(crashes, patches):
    from crash_testing import Job

    def arguments(output: Path) -> list[str]:
        flags = ["train", "--data_dir", str(patches), "--img_size", "16", "16", "--batch_size", "4"]
        flags += [
            "--max_epochs",
            "4",
            "--augment",
            "d4",
            "--nms",
            "3",
            "--device",
            "cpu",
            "--num_workers",
            "0",
        ]
        return [*flags, "--task", "mtl", "--output", str(output), "--resume"]

    return crashes.reference(Job(f"{__file__}:with_toys", arguments, midway=EPOCHS), "til-train")


def test_training(crashes, training):
    crashes.kill_loop(training)


@thorough
def test_training_on_a_full_disk(crashes, training):
    crashes.full_disk(training, 0.5)
    crashes.faults(training, training.spread(crashes.kills))
    crashes.read_only(training)


@thorough
def test_folds_of_three_networks(crashes, tmp_path_factory):
    from crash_testing import Job

    toys = load(HERE / "conftest.py")
    data = tmp_path_factory.mktemp("folds")
    for fold in (1, 2):
        counts = {"train": (4, 4), "val": (2, 2)}
        toys.write_patches(data, counts, seed=fold, layout=f"{{task}}/fold{fold}")

    def arguments(output: Path) -> list[str]:
        flags = ["compare", "--folds", "2", "--data_dir", str(data), "--img_size", "16", "16"]
        flags += ["--max_epochs", "1", "--batch_size", "4", "--nms", "3", "--device", "cpu"]
        return [*flags, "--num_workers", "0", "--resamples", "10", "--output", str(output), "--resume"]

    crashes.kill_loop(
        crashes.reference(Job(f"{__file__}:with_toys", arguments, midway=EPOCHS), "til-compare")
    )


# ------------------------------------------------------------------ slides


@pytest.fixture(scope="module")
def predicting(crashes, tmp_path_factory):
    from crash_testing import Job
    from medshared.slides import write_pyramid

    folder = tmp_path_factory.mktemp("killed") / "slides"
    folder.mkdir()
    drawn = load(HERE / "slides" / "conftest.py")
    for seed, name in enumerate("ab"):
        picture = drawn.draw(420, 300, 60, seed)
        write_pyramid(
            folder / f"{name}.tif",
            picture,
            0.5,
            "generic",
            tile_px=64,
            downsamples=(1, 4),
            subsampling=(1, 1),
        )
    paths = lambda output: [str(folder), str(output)]  # noqa: E731
    job = Job(f"{__file__}:predict", paths, unlike=("predict-report.json",))
    return crashes.reference(job, "til-predict")


def test_slides(crashes, predicting):
    crashes.kill_loop(predicting)


@thorough
def test_slides_beside_another_job(crashes, predicting):
    crashes.kill_one_of_two(predicting, kills=max(1, crashes.kills // 5))


@thorough
def test_slides_on_a_full_disk(crashes, predicting):
    for share in (0.3, 0.8):
        crashes.full_disk(predicting, share)
    crashes.faults(predicting, predicting.spread(crashes.kills))
    crashes.read_only(predicting)
