"""Every golden case of frame selection, splits, frames and the data set, at the tolerance stated for it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch.utils.data import default_collate

from infection_mt.config import DataConfig, TransformsConfig
from infection_mt.data.dataset import EpochSampler, FrameDataset, FrameStore, sampler_weights
from infection_mt.data.frames import PageError, eval_tensor, flip_rotate, page_to_image, prepare_image
from infection_mt.data.policy import FramePolicy, interval_override, resolve_policy, sliding_override
from infection_mt.data.splits import SIDES, check_ratios, kfold_split, stratified_split
from infection_mt.data.stacks import Stack, load_stacks, parse_name
from infection_mt.data.table import build_table
from medshared.configuration import load_yaml_or_json

GOLDEN = Path(__file__).parents[1] / "golden"


def _json(name):
    return json.loads((GOLDEN / name).read_text())


def _npz(name):
    with np.load(GOLDEN / name, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


POLICY = _json("frame_policy.json")


@pytest.mark.parametrize("case", POLICY["policies"], ids=lambda c: json.dumps(c["config"])[:60])
def test_policy(case):
    policy = resolve_policy(case["config"], "train")
    assert policy.to_dict() == case["policy"]
    assert policy.summary() == case["summary"]
    assert case["cases"]
    for n in case["cases"]:
        for condition in ("infected", "uninfected"):
            faithful = policy.indices(condition, n["total_frames"], faithful=True)
            assert faithful == n[condition]
            if policy.window_problem(condition, n["total_frames"]) is None:
                assert policy.indices(condition, n["total_frames"]) == n[condition]


@pytest.mark.parametrize("case", POLICY["resolve"], ids=lambda c: json.dumps(c["frames"])[:80])
def test_policy_of_each_split(case):
    for split, expected in case["resolved"].items():
        assert resolve_policy(case["frames"], split).to_dict() == expected


@pytest.mark.parametrize("number", range(len(POLICY["overrides"])))
def test_sweep_overrides(number):
    case = POLICY["overrides"][number]
    arguments = (case["frames"], case["start"], case["end"])
    if case["fn"] == "interval":
        result = interval_override(*arguments, case["mode"], case["match_uninfected"])
    else:
        result = sliding_override(*arguments, case["match_uninfected"])
    assert result == case["result"]
    for split, expected in case["resolved"].items():
        assert resolve_policy(result, split).to_dict() == expected


SPLITS = _json("splits.json")


def _ids(stacks):
    return [stack.path.name for stack in stacks]


@pytest.mark.parametrize(
    "case", SPLITS["stratified"]["cases"], ids=lambda c: f"{c['n_infected']}+{c['n_uninfected']}"
)
def test_stratified_split(case):
    stacks = [Stack(Path(f"i{k}"), 1, "infected", str(k), 9) for k in range(case["n_infected"])]
    stacks += [Stack(Path(f"u{k}"), 0, "uninfected", str(k), 9) for k in range(case["n_uninfected"])]
    split = stratified_split(stacks, case["ratios"], case["seed"])
    assert {side: _ids(split[side]) for side in SIDES} == {side: case[side] for side in SIDES}


@pytest.mark.parametrize("case", SPLITS["stratified"]["ratio_validation"], ids=lambda c: str(c["ratios"]))
def test_ratio_validation(case):
    if case.get("ok"):
        assert list(check_ratios(case["ratios"])) == case["ratios"]
    else:
        with pytest.raises(ValueError, match="split_ratios"):
            check_ratios(case["ratios"])


def _plate(n_infected, n_uninfected):
    names = [("infected", 1, "b2", n_infected), ("uninfected", 0, "c4", n_uninfected)]
    return [
        Stack(Path(name), label, condition, parse_name(name).position, 2, well)
        for condition, label, well, n in names
        for name in sorted(f"plate_s5_{well}_p{k}_t0-1_ec.tiff" for k in range(1, n + 1))
    ]


@pytest.mark.parametrize(
    "case",
    SPLITS["kfold"],
    ids=lambda c: f"{c['n_infected']}+{c['n_uninfected']}-{c['num_folds']}-{c['fold_index']}",
)
def test_kfold_with_the_fixed_test_side(case):
    stacks = _plate(case["n_infected"], case["n_uninfected"])
    split = kfold_split(
        stacks, case["ratios"], case["seed"], case["num_folds"], case["fold_index"], test="fixed"
    )
    assert {side: _ids(split[side]) for side in SIDES} == {side: case[side] for side in SIDES}


@pytest.mark.parametrize("case", SPLITS["position_regex"], ids=lambda c: c["name"][-20:])
def test_position(case):
    assert parse_name(case["name"]).position == case["position"]


def test_published_folds(reference_data):
    """The real folds of the published runs."""
    with (reference_data / "infection-mt" / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 72
    stacks = [
        Stack(Path(r["file"]), int(r["well"] == "b2"), "", r["position"], 93, r["well"])
        for r in sorted(rows, key=lambda r: (r["well"] != "b2", r["file"]))
    ]
    for stack in stacks:
        assert parse_name(stack.path.name) == (stack.position, stack.well)
    for fold in range(5):
        split = kfold_split(stacks, [0.7, 0.1, 0.2], 123, 5, fold, test="fixed")
        found = {stack.path.name: side for side in SIDES for stack in split[side]}
        assert found == {r["file"]: r[f"fold{fold + 1}"] for r in rows}


FRAMES = _npz("frames.npz")
MISC = _json("data_misc.json")


@pytest.mark.parametrize("kind", [k[4:] for k in FRAMES if k.startswith("raw_")])
def test_page_to_image(kind):
    page = FRAMES[f"raw_{kind}"]
    if kind == "nan":  # the original's result is undefined; here the pixels are counted
        with pytest.raises(PageError, match="not finite"):
            page_to_image(page)
    elif kind == "rgba":  # the original fails later, in normalisation
        with pytest.raises(PageError, match="alpha"):
            page_to_image(page)
    else:
        image = page_to_image(page)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, FRAMES[f"img_{kind}"])
        assert MISC["frames"][kind]["mode"] == "RGB"


def test_pages_that_the_original_refuses():
    assert MISC["frames"]["channel_first"] == {"error": "TypeError"}
    for shape in ((3, 21, 17), (21, 17, 2)):
        with pytest.raises(PageError):
            page_to_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("name", ["tf0", "tf1", "tf2"])
def test_evaluation_transform(name):
    transforms = TransformsConfig.model_validate(MISC["frames"][name])
    prepared = prepare_image(FRAMES[f"{name}_in"], transforms)
    x = eval_tensor(np.moveaxis(prepared, 2, 0), transforms)
    np.testing.assert_allclose(x.numpy(), FRAMES[f"{name}_out"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [k for k in FRAMES if k.startswith("aug_") and k != "aug_in"])
def test_augmentation_steps(name):
    frames = torch.from_numpy(np.moveaxis(FRAMES["aug_in"], 2, 0).copy())[None]
    angle = float(name[8:]) if name.startswith("aug_rot_") else 0.0
    found = flip_rotate(frames, [name == "aug_hflip"], [name == "aug_vflip"], [angle])
    np.testing.assert_array_equal(np.moveaxis(found[0].numpy(), 0, 2), FRAMES[name])


DATASET = _npz("dataset.npz")


@pytest.fixture
def golden_dataset(tmp_path):
    """The stacks of the golden data set, written again, and their samples."""
    for folder, key, name, compression in (
        ("inf", "stack_inf", "w_s5_b2_p3_t0-5_ec.tiff", None),
        ("uni", "stack_uni", "w_s5_c4_p9_t0-4_ec.tiff", "lzw"),
    ):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(
            tmp_path / folder / name, DATASET[key], photometric="minisblack", compression=compression
        )
    data = DataConfig(
        infected_dir=tmp_path / "inf",
        uninfected_dir=tmp_path / "uni",
        cache_dir=tmp_path / "cache",
        num_workers=0,
        transforms=TransformsConfig(image_size=16),
    )
    stacks = load_stacks(data)
    policy = FramePolicy(infected_window_hours=(1, 2), uninfected_window_hours=(0, 48), uninfected_stride=2)
    table = build_table(stacks, policy, pre_onset="keep", onset_hour=2.0)
    return FrameDataset(table, FrameStore(stacks, data))


def test_samples(golden_dataset):
    assert len(golden_dataset) == len(MISC["dataset"]) - 1 == 6
    for i, expected in enumerate(MISC["dataset"][:-1]):
        image, label, meta = golden_dataset[i]
        assert image.dtype == torch.float32
        np.testing.assert_allclose(image.numpy(), DATASET[f"x{i}"], rtol=0, atol=1e-6)
        assert label == expected["label"]
        for found, wanted in (
            (meta, expected["meta"]),
            (golden_dataset.get_metadata(i), expected["get_metadata"]),
        ):
            assert {**found, "path": Path(found["path"]).name} == wanted
            assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in wanted.items()}


def test_collation(golden_dataset):
    expected = MISC["dataset"][-1]
    _, labels, meta = default_collate(golden_dataset.__getitems__(list(range(6))))
    assert str(labels.dtype) == expected["label_dtype"]
    kinds = {k: str(v.dtype) if isinstance(v, torch.Tensor) else type(v).__name__ for k, v in meta.items()}
    assert kinds == expected["collated_meta"]
    first = {key: value[0] for key, value in meta.items()}
    first = {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in first.items()}
    assert {**first, "path": Path(first["path"]).name} == expected["to_list_0"]


def test_clamped_page(golden_dataset):
    store = golden_dataset.store
    page = store.page(golden_dataset.table.stacks[0], 10_000)
    np.testing.assert_array_equal(page.astype(np.float32), DATASET["clamped_frame"])


@pytest.mark.parametrize("case", MISC["sampler"], ids=lambda c: str(c["labels"]))
def test_class_balanced_weights(case):
    weights = sampler_weights(case["labels"])
    np.testing.assert_allclose(weights, case["weights"], rtol=0, atol=1e-15)
    sampler = EpochSampler(len(weights), 2, weights=weights)
    assert len(sampler.order(0)) == case["num_samples"]
    assert case["replacement"] is True


def test_yaml_numbers(tmp_path):
    """The original's loader makes a text of 1e-4; here it is a number."""
    path = tmp_path / "config.yaml"
    path.write_text(MISC["yaml"]["text"])
    values = load_yaml_or_json(path)
    assert MISC["yaml"]["types"]["a"] == ["str", "1e-4"]
    for key, (kind, value) in MISC["yaml"]["types"].items():
        assert values[key] == (float(value) if kind == "str" else value)
        assert type(values[key]).__name__ == ("float" if kind == "str" else kind)
