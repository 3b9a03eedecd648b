"""Images and volumes → files, with real networks of the smallest size."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from aespa.errors import CheckpointError, DataError
from aespa.models.architecture import Architecture
from aespa.models.build import build_network
from aespa.models.checkpoint import load_network, save_network
from aespa.prediction import predict, read_record
from aespa.prediction_inputs import find_items, with_clicks
from aespa.prediction_items import slice_order
from aespa.prediction_options import PredictOptions
from aespa.predictor import AespaPredictor
from aespa.prepare.mbhseg import windowed_bytes
from medshared.leases import Shard
from medshared.tables import TableError
from medshared.volumes import write_volume

S = 32
H, W = 40, 56


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    generator = torch.Generator().manual_seed(0)
    network = build_network(
        Architecture(encoder="tiny", image_size=S, n_components=4, upsample="nearest"), generator=generator
    )
    path = tmp_path_factory.mktemp("weights") / "best.pt"
    return save_network(path, network, config={"mode": "AESPA"})


@pytest.fixture
def predictor(weights) -> AespaPredictor:
    return AespaPredictor(load_network(weights)[0], n_samples=6)


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a1.png", "a2.png", "b/a10.png"):
        Image.fromarray(rng.integers(0, 256, (H, W, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


AFFINE = np.array([[0, -0.7, 0.1, 5], [0.8, 0, 0, -3], [0.1, 0, 2.5, 9], [0, 0, 0, 1]])


@pytest.fixture
def volume(tmp_path) -> Path:
    rng = np.random.default_rng(1)
    return write_volume(tmp_path / "ct.nii.gz", rng.integers(-100, 200, (20, 24, 5)).astype(np.int16), AFFINE)


def options_for(weights: Path, tmp_path: Path, *inputs: Path, **changes) -> PredictOptions:
    return PredictOptions(
        inputs=inputs, weights=weights, output=tmp_path / "out", num_samples=6, device="cpu", **changes
    )


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def write_clicks(tmp_path: Path, *rows: str, header: str = "image,x,y,label") -> Path:
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_images_get_what_the_predictor_says(weights, predictor, images, tmp_path):
    clicks = write_clicks(tmp_path, "a1.png,7,9,1", "b/a10,30,20,0", "a1.png,50,3,0")
    assert predict(options_for(weights, tmp_path, images, clicks=clicks, k=2)) == 0
    out = tmp_path / "out"
    wanted = {"a1": [(7, 9, 1), (50, 3, 0)], "a2": [], "b/a10": [(30, 20, 0)]}
    for name, made in wanted.items():
        predictor.set_image(picture(images / f"{name}.png"))
        for click in made:
            predictor.click(*click)
        found = predictor.predict()
        np.testing.assert_array_equal(picture(out / f"masks/{name}.png"), found.mask * 255)
        for folder, values in (("probability", found.probability), ("entropy", found.entropy)):
            np.testing.assert_allclose(picture(out / f"{folder}/{name}.png") / 255, values, atol=0.5 / 254)
        for i, proposal in enumerate(predictor.proposals(2), start=1):
            np.testing.assert_array_equal(picture(out / f"proposals/{name}_{i}.png"), proposal.mask * 255)
    rows = table(out)
    assert [row["image"] for row in rows] == ["a1", "a2", "b/a10"]
    assert [row["clicks"] for row in rows] == ["2", "0", "1"]
    for row in rows:
        mask = picture(out / f"masks/{row['image']}.png")
        assert (int(row["pixels"]), int(row["width"]), int(row["height"])) == ((mask > 0).sum(), W, H)
        assert (row["status"], float(row["ms"]) > 0) == ("done", True)


def test_probabilities_as_arrays(weights, predictor, images, tmp_path):
    assert predict(options_for(weights, tmp_path, images / "a1.png", npy=True)) == 0
    predictor.set_image(picture(images / "a1.png"))
    found = np.load(tmp_path / "out/probability/a1.npy", allow_pickle=False)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, predictor.predict().probability)
    assert not (tmp_path / "out/probability/a1.png").exists()


@pytest.mark.parametrize("axis", [0, 2])
def test_volumes_keep_their_geometry(weights, predictor, volume, tmp_path, axis):
    clicks = write_clicks(tmp_path, "ct.nii.gz,3,4,11,1", header="image,slice,x,y,label")
    assert predict(options_for(weights, tmp_path, volume, clicks=clicks, axis=axis)) == 0
    given = nibabel.load(volume)
    hu = np.asarray(given.dataobj)
    files = {
        kind: nibabel.load(tmp_path / f"out/{kind}/ct.nii.gz") for kind in ("masks", "probability", "entropy")
    }
    for file in files.values():
        assert file.shape == given.shape
        np.testing.assert_array_equal(file.affine, given.affine)
    assert files["probability"].get_data_dtype() == np.float32
    for z in (2, 3):
        predictor.set_image(windowed_bytes(np.take(hu, z, axis), 0, 80))
        if z == 3:
            predictor.click(4, 11, 1)  # the row of a picture is the first axis that is left
        found = predictor.predict()
        for kind, values in (
            ("masks", found.mask),
            ("probability", found.probability),
            ("entropy", found.entropy),
        ):
            np.testing.assert_array_equal(np.take(np.asarray(files[kind].dataobj), z, axis), values)
    rows = table(tmp_path / "out")
    assert [int(row["slice"]) for row in rows] == list(range(given.shape[axis]))
    assert [row["clicks"] for row in rows if row["clicks"] != "0"] == ["1"]


def test_slices_follow_the_one_beside_them(weights, predictor, volume, tmp_path):
    clicks = write_clicks(tmp_path, "ct,2,4,11,1", header="image,slice,x,y,label")
    assert predict(options_for(weights, tmp_path, volume, clicks=clicks, propagate=True)) == 0
    found = np.asarray(nibabel.load(tmp_path / "out/probability/ct.nii.gz").dataobj)
    hu = np.asarray(nibabel.load(volume).dataobj)
    predictor.set_image(windowed_bytes(hu[:, :, 2], 0, 80))
    predictor.click(4, 11, 1)
    said = predictor.predict()
    np.testing.assert_array_equal(found[:, :, 2], said.probability)
    for z in (3, 4):
        predictor.set_image(windowed_bytes(hu[:, :, z], 0, 80))
        alone = predictor.predict().probability
        predictor.start_from(said.logits)
        said = predictor.predict()
        np.testing.assert_array_equal(found[:, :, z], said.probability)
        assert np.abs(said.probability - alone).max() > 1e-6


@pytest.mark.parametrize(
    ("n", "clicked", "expected"),
    [
        (3, [], [(0, None), (1, None), (2, None)]),
        (5, [1, 4], [(1, None), (4, None), (0, 1), (2, 1), (3, 4)]),
        (5, [0, 4], [(0, None), (4, None), (1, 0), (3, 4), (2, 1)]),
    ],
)
def test_the_order_of_slices(n, clicked, expected):
    assert slice_order(n, clicked) == expected


@pytest.mark.parametrize(
    ("window", "differs"), [((0.0, 80.0), False), ((-800.0, 1200.0), True), (None, True)]
)
def test_the_window_matters(weights, predictor, volume, tmp_path, window, differs):
    assert predict(options_for(weights, tmp_path, volume, window=window)) == 0
    found = np.asarray(nibabel.load(tmp_path / "out/probability/ct.nii.gz").dataobj)[:, :, 1]
    hu = np.asarray(nibabel.load(volume).dataobj)
    predictor.set_image(windowed_bytes(hu[:, :, 1], 0, 80))
    assert (np.abs(found - predictor.predict().probability).max() > 0) == differs
    predictor.set_image(windowed_bytes(hu[:, :, 1], *(window or (hu.min(), hu.max()))))
    np.testing.assert_array_equal(found, predictor.predict().probability)


def test_a_bad_item_stops_no_other(weights, images, volume, tmp_path, caplog):
    (images / "a2.png").write_bytes((images / "a2.png").read_bytes()[:200])
    clicks = write_clicks(
        tmp_path, "a1,,56,9,1", "b/a10,,3,3,1", "ct,5,1,1,1", header="image,slice,x,y,label"
    )
    options = options_for(weights, tmp_path, images, volume, clicks=clicks)
    assert predict(options) == 1
    rows = {row["image"]: row for row in table(options.output)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a1": "failed",
        "a2": "failed",
        "b/a10": "done",
        "ct": "failed",
    }
    assert (
        f"{clicks}:2: the click (56, 9) lies outside of the image of 56 x 40 pixels" in rows["a1"]["message"]
    )
    assert "a2.png: not an image that can be read" in rows["a2"]["message"]
    assert f"{clicks}:4: slice 5 is none of ct.nii.gz" in rows["ct"]["message"]
    report = json.loads((options.output / "predict-report.json").read_text())
    assert report["counts"] == {"predict": {"failed": 3, "done": 1}}
    assert sorted(path.name for path in (options.output / "masks").rglob("*.*")) == ["a10.png"]
    assert not list(options.output.rglob("*.tmp"))


def test_finished_results_are_left_alone(weights, images, tmp_path):
    options = options_for(weights, tmp_path, images, k=3)
    assert predict(options) == 0
    mask = options.output / "masks/a1.png"
    proposals = len(list((options.output / "proposals").glob("a1_*.png")))
    assert proposals > 1
    before = mask.stat().st_mtime_ns
    assert predict(options) == 0
    assert mask.stat().st_mtime_ns == before
    (options.output / "masks/a2.png").unlink()  # what somebody removed comes back
    assert predict(options) == 0
    assert (options.output / "masks/a2.png").is_file()
    assert mask.stat().st_mtime_ns == before
    assert predict(replace(options, overwrite=True, k=1)) == 0
    assert mask.stat().st_mtime_ns > before
    assert [path.name for path in (options.output / "proposals").glob("a1_*.png")] == ["a1_1.png"]


def test_a_new_click_concerns_its_image_only(weights, images, tmp_path):
    options = options_for(weights, tmp_path, images, clicks=write_clicks(tmp_path, "a1,7,9,1"))
    assert predict(options) == 0
    times = {name: (options.output / f"masks/{name}.png").stat().st_mtime_ns for name in ("a1", "a2")}
    write_clicks(tmp_path, "a1,7,9,1", "a1,8,8,0")
    assert predict(options) == 0
    changed = {
        name: (options.output / f"masks/{name}.png").stat().st_mtime_ns != at for name, at in times.items()
    }
    assert changed == {"a1": True, "a2": False}
    kept = (options.output / "masks/a1.png").read_bytes()
    write_clicks(tmp_path, "a1,70,9,1")  # outside: what was finished stays as it was
    assert predict(options) == 1
    assert (options.output / "masks/a1.png").read_bytes() == kept
    assert read_record(options.output / "cases/a1.json") is not None


def test_shards_make_the_whole(weights, images, tmp_path):
    options = options_for(weights, tmp_path, images)
    for i in (0, 1):
        assert predict(replace(options, shard=Shard(i, 2))) == 0
        assert len(table(options.output)) == (2, 3)[i]
    reports = sorted(path.name for path in options.output.glob("predict-report*"))
    assert reports == ["predict-report-1.json", "predict-report-2.json"]
    whole = replace(options, output=tmp_path / "whole")
    assert predict(whole) == 0
    for path in (whole.output / "masks").rglob("*.png"):
        assert (
            path.read_bytes()
            == (options.output / "masks" / path.relative_to(whole.output / "masks")).read_bytes()
        )


def test_the_method_of_the_checkpoint(weights, images, tmp_path, caplog):
    image = images / "a1.png"
    spa = save_network(tmp_path / "spa.pt", load_network(weights)[0], config={"mode": "SPA"})
    assert predict(options_for(spa, tmp_path, image, npy=True)) == 0
    predictor = AespaPredictor(load_network(spa)[0], mode="SPA", n_samples=6)
    predictor.set_image(picture(image))
    found = np.load(tmp_path / "out/probability/a1.npy")
    np.testing.assert_array_equal(found, predictor.predict().probability)
    assert predict(options_for(spa, tmp_path, image, npy=True, mode="AESPA")) == 0
    assert np.abs(np.load(tmp_path / "out/probability/a1.npy") - found).max() > 0
    unknown = save_network(tmp_path / "unknown.pt", load_network(weights)[0])
    assert predict(options_for(unknown, tmp_path, image)) == 0
    assert "taken for AESPA" in caplog.text or "taken for AESPA" in (tmp_path / "out/log.txt").read_text()
    with pytest.raises(DataError, match="was trained with preferences"):
        predict(options_for(spa, tmp_path, image, mode="SAM"))
    plain = build_network(Architecture(encoder="tiny", image_size=S, n_components=4, preferences=False))
    with pytest.raises(DataError, match="is a plain SAM"):
        predict(options_for(save_network(tmp_path / "sam.pt", plain), tmp_path, image, mode="SPA"))


def test_transposed_clicks_of_the_original_are_the_networks_business(weights, images, tmp_path):
    network, _ = load_network(weights)
    turned = build_network(replace(network.architecture, click_order="yx"))
    turned.load_state_dict(network.state_dict())
    turned.initial_responsibilities.copy_(network.initial_responsibilities)
    square = tmp_path / "square.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (S, S), dtype=np.uint8)).save(square)
    results = []
    for path, row in (
        (weights, "square,20,5,1"),
        (save_network(tmp_path / "yx.pt", turned), "square,5,20,1"),
    ):
        options = options_for(
            path, tmp_path, square, clicks=write_clicks(tmp_path, row), npy=True, mode="AESPA"
        )
        assert predict(options) == 0
        results.append(np.load(options.output / "probability/square.npy"))
    np.testing.assert_array_equal(*results)


def test_deep_images(weights, tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 4096, (S, S), dtype=np.uint16)).save(path)
    options = options_for(weights, tmp_path, path)
    assert predict(options) == 1
    assert "more than 8 bits" in table(options.output)[0]["message"]
    assert predict(replace(options, stretch=True)) == 0


def test_a_huge_image_is_refused_with_a_message(weights, tmp_path):
    Image.new("L", (10_000, 5_000)).save(tmp_path / "huge.png")
    options = options_for(weights, tmp_path, tmp_path / "huge.png")
    assert predict(options) == 1
    assert "megapixels" in table(options.output)[0]["message"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a9,,1,1,1", ":2: column 'image': 'a9': none of the 2 inputs (a, v)"),
        ("a,3,1,1,1", ":2: column 'slice': expected an empty cell"),
        ("v,,1,1,1", ":2: column 'slice': expected the number of a slice"),
        ("a,,1,1,2", ":2: column 'label': expected one of ['0', '1'], found '2'"),
        ("a,,1.5,1,1", ":2: column 'x': expected a whole number, found '1.5'"),
        ("a,,,1,1", ":2: column 'x': the cell is empty"),
    ],
)
def test_rows_that_are_wrong(row, message, tmp_path):
    for name in ("a.png", "v.nii.gz"):
        (tmp_path / name).touch()
    items = find_items([tmp_path], tmp_path / "out")
    clicks = write_clicks(tmp_path, row, header="image,slice,x,y,label")
    with pytest.raises(TableError) as caught:
        with_clicks(items, clicks)
    assert f"{clicks}{message}" in str(caught.value)


def test_rounds_order_the_clicks_and_empty_lines_count(tmp_path):
    (tmp_path / "a.png").touch()
    rows = ("a,3,3,1,2", "", "a,1,1,1,0", "a.png,2,2,0,0")
    clicks = write_clicks(tmp_path, *rows, header="image,x,y,label,round")
    (item,) = with_clicks(find_items([tmp_path / "a.png"], tmp_path), clicks)
    assert [(click.line, click.x, click.label) for click in item.clicks] == [(4, 1, 1), (5, 2, 0), (2, 3, 1)]


def test_a_name_that_two_images_share_is_in_doubt(tmp_path):
    for folder in ("p", "q"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "a.png").touch()
    items = find_items([tmp_path / "in"], tmp_path)
    with pytest.raises(TableError, match="several inputs have that name"):
        with_clicks(items, write_clicks(tmp_path, "a.png,1,1,1"))
    found = with_clicks(items, write_clicks(tmp_path, "q/a,1,1,1"))
    assert [len(item.clicks) for item in found] == [0, 1]


def test_inputs_are_found(tmp_path):
    for name in (
        "in/x10.PNG",
        "in/x2.jpg",
        "in/.hidden.png",
        "in/sub/y.nii",
        "in/out/masks/x2.png",
        "in/t.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    items = find_items([tmp_path / "in", tmp_path / "in/x2.jpg"], tmp_path / "in/out")
    assert [(item.name, item.is_volume) for item in items] == [("sub/y", True), ("x2", False), ("x10", False)]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["missing.png"], "no such file or folder"),
        (["empty"], "no image and no NIfTI volume"),
        (["t.txt"], "expected an image or a volume"),
        (["a.png", "other/a.jpg"], "the results of both would be called a"),
    ],
)
def test_inputs_that_cannot_be_used(inputs, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    for name in ("t.txt", "a.png", "other/a.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        find_items([tmp_path / name for name in inputs], tmp_path / "out")


def test_a_checkpoint_that_is_missing_leaves_nothing_behind(images, tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt"):
        predict(options_for(tmp_path / "none.pt", tmp_path, images))
    assert not (tmp_path / "out").exists()
