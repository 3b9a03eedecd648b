"""Models on new bags: the run's own numbers for the same noise, one pass of the backbone, runs that do not go together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from advmil.data.bags import BagInput, BagSource
from advmil.data.tables import read_cohort
from advmil.ensemble import as_predictions, load_ensemble, predict_bag
from advmil.errors import DataError
from advmil.noise import torch_noise
from advmil.run_files import load_model, open_run
from medshared.gpu import derive_seed


@pytest.fixture(scope="module")
def bag(tiny_cohort) -> BagInput:
    rng = np.random.default_rng(0)
    return BagInput(torch.from_numpy(rng.standard_normal((1, 48, 16)).astype(np.float32)), None)


def test_predictions_are_the_runs_own_for_the_same_noise(tiny_run, tiny_cohort):
    run = open_run(tiny_run)
    model = load_model(tiny_run)
    config = run.config.resolved()
    own = run.predictions("test")
    source = BagSource(config, read_cohort(tiny_cohort.table))
    # The stream of the run's evaluation, in the order of its patients; one draw of each was the discriminator's.
    noise = torch_noise(
        "uniform", torch.Generator().manual_seed(derive_seed(config.seed, "evaluation", "test"))
    )
    outputs = []
    for patient in own.patients:
        loaded = source.load(patient)
        with torch.no_grad():
            model.network(loaded.x, noise=noise)
        outputs.append(predict_bag(model, loaded, samples=10, noise=noise))
    found = as_predictions(model, "continuous", own.patients, outputs)
    np.testing.assert_allclose(found.samples, own.samples, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.point_days, own.point_days, rtol=1e-5)
    np.testing.assert_allclose(found.risk, own.risk, rtol=1e-5)


def test_one_pass_of_the_backbone_for_any_number_of_draws(tiny_run, bag, monkeypatch):
    model = load_model(tiny_run)
    calls = []
    encode = model.network.backbone.encode
    monkeypatch.setattr(model.network.backbone, "encode", lambda *a: calls.append(1) or encode(*a))
    found = predict_bag(model, bag, samples=300, noise=torch_noise())
    assert found.draws.shape == (300, 1)
    assert len(calls) == 1
    assert found.point[0] == pytest.approx(np.median(found.draws), abs=1e-6)


def test_zero_noise_and_a_single_draw_have_no_draws(tiny_run, bag):
    model = load_model(tiny_run)
    zero = predict_bag(model, bag, samples=50, noise=None)
    with torch.no_grad():
        expected = model.network(bag.x, zero_noise=True)
    assert zero.draws is None
    assert zero.point[0] == pytest.approx(float(expected), abs=1e-7)
    assert predict_bag(model, bag, samples=1, noise=torch_noise()).draws is None


def test_a_model_without_noise_is_asked_once(untrained_run, tmp_path, bag):
    model = load_model(untrained_run(tmp_path / "run", gen_noi_noise="0-0"))
    assert predict_bag(model, bag, samples=50, noise=torch_noise()).draws is None


def test_a_baseline_is_its_network(untrained_run, tmp_path, bag):
    model = load_model(untrained_run(tmp_path / "run", "base", task="surv_cox"))
    with torch.no_grad():
        expected = float(model.network(bag.x))
    found = as_predictions(model, "cox", ["P"], [predict_bag(model, bag, samples=9, noise=torch_noise())])
    assert found.risk[0] == pytest.approx(expected, abs=1e-6)


def test_folds_share_a_bag(untrained_run, tmp_path, tiny_cohort):
    from advmil.new_bags import read_slide_bag

    folders = [untrained_run(tmp_path / str(k), seed=k) for k in (0, 1)]
    folders.append(untrained_run(tmp_path / "plain", regions="plain"))
    ensemble = load_ensemble(folders)
    first = sorted(tiny_cohort.features.glob("*.pt"))[0]
    bags = ensemble.bags("P", [read_slide_bag(first)])
    assert bags[0] is bags[1]
    assert bags[2] is not bags[0]


def test_runs_that_do_not_go_together(untrained_run, tmp_path):
    adv = untrained_run(tmp_path / "adv")
    cox = untrained_run(tmp_path / "cox", "base", task="surv_cox")
    wide = untrained_run(tmp_path / "wide", bcb_dims="24-8-8", disc_netx_in_dim=24)
    with pytest.raises(DataError, match=r"cox predicts cox outcomes but .*adv continuous ones"):
        load_ensemble([adv, cox])
    with pytest.raises(DataError, match=r"takes 24 features a patch but .* 16"):
        load_ensemble([adv, wide])
    with pytest.raises(DataError, match="given twice"):
        load_ensemble([adv, tmp_path / "cox" / ".." / "adv"])
    with pytest.raises(DataError, match="no finished run here"):
        load_ensemble([tmp_path])
