"""Attention of a patient's patches: whose row is whose, and what the numbers add up to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from advmil.attention import attend, percentile_ranks, write_attention
from advmil.errors import DataError
from advmil.new_bags import assemble_patient, read_slide_bag
from advmil.run_files import load_model
from medshared.bags import read_coordinates

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def patient(tiny_cohort) -> str:
    truth = tiny_cohort.truth
    return str(truth["patient_id"][truth["n_slides"] == 2].iloc[0])


@pytest.fixture(scope="module")
def slides(tiny_cohort, patient):
    return [
        read_slide_bag(
            tiny_cohort.features / f"{patient}-S{k}.pt",
            tiny_cohort.coordinates / "patches" / f"{patient}-S{k}.h5",
        )
        for k in (1, 2)
    ]


def _attend(run, patient, slides, **options):
    model = load_model(run)
    return attend([model], [assemble_patient(model.run.config.resolved(), patient, slides)], CPU, **options)


@pytest.mark.parametrize("mode", ["abmil", "patch", "graph", "cluster"])
def test_rows_are_the_patches_of_all_slides(untrained_run, tmp_path, tiny_cohort, patient, slides, mode):
    run = untrained_run(tmp_path / "run", bcb_mode=mode)
    found = _attend(run, patient, slides)
    path = write_attention(tmp_path / "a.csv", found, patient)
    table = pd.read_csv(path)
    assert list(table.columns) == ["patient_id", "slide", "row", "x", "y", "weight", "rank"]
    assert table["weight"].sum() == pytest.approx(1)
    assert (table["weight"] >= 0).all()
    for k in (1, 2):
        name = f"{patient}-S{k}"
        xy = read_coordinates(tiny_cohort.coordinates / "patches" / f"{name}.h5").xy
        part = table[table["slide"] == name]
        assert part["row"].tolist() == list(range(len(xy)))
        assert part[["x", "y"]].to_numpy().tolist() == xy.tolist()
    if mode == "patch":  # regions are weighed: 16 rows share a weight
        assert (table["weight"].to_numpy().reshape(-1, 16).std(axis=1) < 1e-9).all()


def test_weights_are_the_backbones_own(tiny_run, patient, slides):
    model = load_model(tiny_run)
    x = torch.cat([torch.from_numpy(each.bag.features) for each in slides])[None]
    with torch.no_grad():
        expected = model.network.backbone.attention(x)
    np.testing.assert_allclose(_attend(tiny_run, patient, slides).weight, expected, rtol=1e-5)


def test_repeated_patches_count_once(untrained_run, tmp_path, patient, slides):
    run = untrained_run(tmp_path / "run", regions="plain")
    short = replace(
        slides[0],
        bag=replace(slides[0].bag, features=slides[0].bag.features[:18]),
        coordinates=slides[0].coordinates[:18],
    )
    model = load_model(run)
    bag = assemble_patient(model.run.config.resolved(), patient, [short])
    assert bag.input.x.shape[1] == 32  # rows 16 and 17 come eight times each
    found = attend([model], [bag], CPU)
    assert len(found.weight) == 18
    raw = model.network.backbone.attention(bag.input.x).detach().double().numpy()
    np.testing.assert_allclose(found.weight[16], raw[16::2].sum(), rtol=1e-6)
    np.testing.assert_allclose(found.weight[:16], raw[:16], rtol=1e-6)
    assert found.coordinates.tolist() == slides[0].coordinates[:18].tolist()


def test_several_models_are_averaged(untrained_run, tmp_path, patient, slides):
    models = [load_model(untrained_run(tmp_path / f"run{k}", seed=k)) for k in (0, 1)]
    bags = [assemble_patient(model.run.config.resolved(), patient, slides) for model in models]
    alone = [attend([model], [bag], CPU).weight for model, bag in zip(models, bags, strict=True)]
    both = attend(models, bags, CPU)
    assert not np.allclose(alone[0], alone[1])
    np.testing.assert_allclose(both.weight, np.mean(alone, axis=0))


def test_region_scores_add_up_to_the_discriminators_logit(tiny_run, patient, slides):
    model = load_model(tiny_run)
    found = _attend(tiny_run, patient, slides, region_scores=True)
    assert "region_score" in found.table(patient)
    x = torch.cat([torch.from_numpy(each.bag.features) for each in slides])[None]
    with torch.no_grad():
        time = model.network(x)
        logit = model.discriminator(x, time)
        linear = model.discriminator.prj_layer(model.discriminator.embed_x(x).bag)
    assert found.region_score.mean() + float(linear) == pytest.approx(float(logit), abs=1e-5)
    assert (found.region_score.reshape(-1, 16).std(axis=1) < 1e-9).all()


def test_region_scores_need_a_discriminator_of_regions(untrained_run, tmp_path, patient, slides):
    base = untrained_run(tmp_path / "base", "base", task="surv_reg")
    with pytest.raises(DataError, match="region scores need a discriminator"):
        _attend(base, patient, slides, region_scores=True)
    bag = untrained_run(tmp_path / "bag", disc_prj_iprd="bag")
    with pytest.raises(DataError, match="disc_prj_iprd: instance"):
        _attend(bag, patient, slides, region_scores=True)


def test_one_slide_of_several(tiny_run, patient, slides):
    found = _attend(tiny_run, patient, slides)
    second = found.of_slide(1)
    assert second.slides == (f"{patient}-S2",)
    assert len(second.weight) == len(slides[1].bag.features)
    assert second.weight.sum() < 1
    assert second.coordinates.tolist() == slides[1].coordinates.tolist()


def test_ranks_are_percentiles_and_ties_share_theirs():
    assert percentile_ranks(np.array([0.3, 0.1, 0.2, 0.4])).tolist() == [62.5, 12.5, 37.5, 87.5]
    assert percentile_ranks(np.ones(3)).tolist() == [50.0] * 3
    assert percentile_ranks(np.array([0.7])).tolist() == [50.0]


def test_unknown_places_are_empty_cells(tiny_run, patient, slides):
    found = replace(_attend(tiny_run, patient, slides), coordinates=None)
    assert found.table(patient)[["x", "y"]].isna().all(axis=None)
